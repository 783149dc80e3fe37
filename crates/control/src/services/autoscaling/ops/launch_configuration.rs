//! Launch configurations.

use super::{PAGE_DEFAULT, PAGE_MAX};
use crate::call::Call;
use crate::page::Page;
use crate::services::autoscaling::check;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::state::{LaunchConfiguration, LaunchSource};
use crate::services::autoscaling::views::time;
use crate::services::ec2::links::LaunchData;
use crate::tx::{Tx, View};
use gantry_api::autoscaling as shape;
use gantry_decide::ids::{RequestId, Scope};
use gantry_wire::json;

/// Launch configurations of a scope: AWS's quota.
const CONFIGURATIONS_MAX: usize = 200;

pub fn create_launch_configuration(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::CreateLaunchConfigurationType,
) -> Result<shape::CreateLaunchConfigurationResponse, AutoScalingError> {
    let parsed = request.launch_configuration_name.parse();
    let name =
        parsed.map_err(|_| AutoScalingError::invalid("A launch configuration's name has no colon."))?;
    if request.instance_id.is_some() {
        return Err(AutoScalingError::unsupported("InstanceId in launch configurations"));
    }
    if request.instance_type.is_none() || request.image_id.is_none() {
        return Err(AutoScalingError::invalid(
            "Valid requests must contain either the InstanceID parameter or both the ImageId and InstanceType parameters.",
        ));
    }
    let state = &mut tx.state.autoscaling;
    if state.launch_configurations.contains_key(&name) {
        return Err(AutoScalingError::AlreadyExists(format!(
            "Launch Configuration by this name already exists - A launch configuration already exists with the name \
             {name}"
        )));
    }
    if state.launch_configurations.len() >= CONFIGURATIONS_MAX {
        return Err(AutoScalingError::LimitExceeded("Launch Configuration Limit exceeded.".to_owned()));
    }
    let value = serde_json::from_slice(&json::to_vec(&request));
    let value = value.map_err(|error| AutoScalingError::invalid(error.to_string()))?;
    let id = RequestId::random(tx.random);
    let data = LaunchData::new(value);
    tx.state.autoscaling.launch_configurations.put(LaunchConfiguration {
        name,
        id,
        created_at: tx.now,
        data,
    });
    Ok(shape::CreateLaunchConfigurationResponse::default())
}

/// Its data were read from a request, whose members are spelled alike.
fn show(
    scope: &Scope,
    configuration: &LaunchConfiguration,
) -> Result<shape::LaunchConfiguration, AutoScalingError> {
    let mut value = configuration.data.value().clone();
    // What the response requires and the request does not have.
    value["CreatedTime"] = 0.into();
    let read: Result<shape::LaunchConfiguration, _> = json::from_slice(value.to_string().as_bytes());
    let shown = read.map_err(|error| AutoScalingError::invalid(error.message))?;
    Ok(shape::LaunchConfiguration {
        launch_configuration_arn: Some(configuration.arn(scope)),
        created_time: time(configuration.created_at),
        ..shown
    })
}

pub fn describe_launch_configurations(
    view: View<'_>,
    _call: &Call,
    request: shape::LaunchConfigurationNamesType,
) -> Result<shape::LaunchConfigurationsType, AutoScalingError> {
    let page = Page::read(request.next_token.as_deref(), request.max_records, PAGE_MAX, PAGE_DEFAULT)?;
    let wanted = request.launch_configuration_names.as_deref().unwrap_or_default();
    let all = view.state.autoscaling.launch_configurations.values().map(AsRef::as_ref);
    let all =
        all.filter(|configuration| wanted.is_empty() || wanted.contains(&configuration.name.to_string()));
    let (shown, next_token) = page.cut(
        all,
        |configuration: &&LaunchConfiguration| configuration.name.to_string(),
        |configuration| show(view.scope, configuration),
    );
    let launch_configurations = shown.into_iter().collect::<Result<_, _>>()?;
    Ok(shape::LaunchConfigurationsType { launch_configurations, next_token })
}

pub fn delete_launch_configuration(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::LaunchConfigurationNameType,
) -> Result<shape::DeleteLaunchConfigurationResponse, AutoScalingError> {
    let text = &request.launch_configuration_name;
    let state = &mut tx.state.autoscaling;
    let known = text.parse().ok().filter(|name| state.launch_configurations.contains_key(name));
    let name = known.ok_or_else(|| check::no_configuration(text))?;
    let used = LaunchSource::Configuration(name.clone());
    if let Some(group) = state.groups.values().find(|group| group.launch == used) {
        return Err(AutoScalingError::ResourceInUse(format!(
            "Cannot delete launch configuration {name} because it is attached to AutoScalingGroup {}",
            group.name
        )));
    }
    state.launch_configurations.remove(&name);
    Ok(shape::DeleteLaunchConfigurationResponse::default())
}
