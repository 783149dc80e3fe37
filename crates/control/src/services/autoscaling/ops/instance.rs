//! Instances of groups.

use super::PAGE_DEFAULT;
use crate::call::Call;
use crate::page::Page;
use crate::services::autoscaling::activity::at;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::state::Instance;
use crate::services::autoscaling::{check, steps, views};
use crate::tx::{Tx, View};
use gantry_api::autoscaling as shape;
use std::time::Duration;

/// Instances in one SetInstanceProtection and in one DescribeAutoScalingInstances: AWS's limit.
const INSTANCES_MAX: usize = 50;

pub fn describe_auto_scaling_instances(
    view: View<'_>,
    _call: &Call,
    request: shape::DescribeAutoScalingInstancesType,
) -> Result<shape::AutoScalingInstancesType, AutoScalingError> {
    let wanted = request.instance_ids.as_deref().unwrap_or_default();
    if wanted.len() > INSTANCES_MAX {
        return Err(AutoScalingError::invalid(format!(
            "At most {INSTANCES_MAX} instances can be described."
        )));
    }
    let page = Page::read(request.next_token.as_deref(), request.max_records, INSTANCES_PAGE, PAGE_DEFAULT)?;
    let all = view.state.autoscaling.instances.values().map(AsRef::as_ref);
    let all = all.filter(|instance| wanted.is_empty() || wanted.contains(&instance.id.to_string()));
    let place = |instance: &&Instance| instance.id.to_string();
    let (instances, next_token) = page.cut(all, place, views::instance_details);
    Ok(shape::AutoScalingInstancesType { auto_scaling_instances: Some(instances), next_token })
}

/// AWS's, less than elsewhere.
const INSTANCES_PAGE: i32 = 50;

pub fn set_instance_health(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::SetInstanceHealthQuery,
) -> Result<shape::SetInstanceHealthResponse, AutoScalingError> {
    let mut instance = check::instance(&tx.state.autoscaling, &request.instance_id)?.clone();
    let healthy = match request.health_status.as_str() {
        "Healthy" => true,
        "Unhealthy" => false,
        _ => return Err(AutoScalingError::invalid("Valid instance health states are: [Healthy, Unhealthy]")),
    };
    let group = check::group(&tx.state.autoscaling, instance.group.as_str())?;
    let grace = Duration::from_secs(u64::from(group.health_check_grace_period));
    let in_grace = instance.in_service_at.is_none_or(|since| since + grace > tx.now);
    if request.should_respect_grace_period.unwrap_or(true) && in_grace && !healthy {
        return Ok(shape::SetInstanceHealthResponse::default());
    }
    instance.healthy = healthy;
    tx.state.autoscaling.instances.put(instance);
    Ok(shape::SetInstanceHealthResponse::default())
}

pub fn set_instance_protection(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::SetInstanceProtectionQuery,
) -> Result<shape::SetInstanceProtectionAnswer, AutoScalingError> {
    let group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    if request.instance_ids.len() > INSTANCES_MAX {
        return Err(AutoScalingError::invalid(format!(
            "At most {INSTANCES_MAX} instances can be protected at once."
        )));
    }
    for id in &request.instance_ids {
        let known = check::instance(&tx.state.autoscaling, id).ok().filter(|i| i.group == group.name);
        let Some(mut instance) = known.cloned() else {
            let id: String = id.chars().take(64).collect();
            return Err(AutoScalingError::invalid(format!(
                "The instance {id} is not part of Auto Scaling group {}.",
                group.name
            )));
        };
        if !instance.state.counts() {
            return Err(AutoScalingError::invalid(format!(
                "The instance {id} is not in InService or EnteringStandby or Standby."
            )));
        }
        instance.protected = request.protected_from_scale_in;
        tx.state.autoscaling.instances.put(instance);
    }
    Ok(shape::SetInstanceProtectionAnswer::default())
}

pub fn terminate_instance_in_auto_scaling_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::TerminateInstanceInAutoScalingGroupType,
) -> Result<shape::ActivityType, AutoScalingError> {
    if request.instance_ids.as_ref().is_some_and(|ids| !ids.is_empty()) {
        return Err(AutoScalingError::unsupported("the termination of several instances at once"));
    }
    let id =
        request.instance_id.as_deref().ok_or_else(|| AutoScalingError::invalid("InstanceId is required."))?;
    let instance = check::instance(&tx.state.autoscaling, id)?.clone();
    let mut group = check::living_group(&tx.state.autoscaling, instance.group.as_str())?;
    if !instance.state.counts() {
        return Err(AutoScalingError::InProgress(format!("The instance {id} is terminating already.")));
    }
    let before = group.desired;
    if request.should_decrement_desired_capacity {
        if group.desired <= group.min_size {
            let size = group.min_size;
            return Err(AutoScalingError::invalid(format!(
                "Currently, desiredSize equals minSize ({size}). Terminating instance without replacement will violate \
                 group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's \
                 min size."
            )));
        }
        group.desired -= 1;
    }
    let mut cause =
        format!("At {} instance {id} was taken out of service in response to a user request", at(tx.now));
    if group.desired < before {
        cause.push_str(&format!(", shrinking the capacity from {before} to {}", group.desired));
    }
    cause.push('.');
    let id = instance.id;
    steps::terminate(tx, &mut group, instance, cause);
    tx.state.autoscaling.groups.put(group.clone());
    let begun =
        tx.state.autoscaling.activities_of(&group.name).rev().find(|activity| activity.instance == id);
    Ok(shape::ActivityType {
        activity: begun.map(|activity| views::activity(tx.scope, &group, activity)),
        activities: None,
    })
}
