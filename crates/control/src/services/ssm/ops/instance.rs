//! Machines that joined: describe, deregister.

use super::activation::PAGE_MAX;
use crate::call::Call;
use crate::page::Page;
use crate::services::ssm::errors::SsmError;
use crate::services::ssm::views::managed_instance as show;
use crate::tx::{Tx, View};
use gantry_api::ssm;
use gantry_decide::ids::ManagedInstanceId;

/// Lets a machine join no more under its name. Its container instance stays until it is deregistered from ECS.
pub fn deregister_managed_instance(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ssm::DeregisterManagedInstanceRequest,
) -> Result<ssm::DeregisterManagedInstanceResult, SsmError> {
    let text = &request.instance_id;
    let id: Option<ManagedInstanceId> = text.parse().ok();
    let removed = id.and_then(|id| tx.state.ssm.managed_instances.remove(&id));
    removed.ok_or_else(|| SsmError::InvalidInstanceId(text.chars().take(64).collect()))?;
    Ok(ssm::DeregisterManagedInstanceResult::default())
}

pub fn describe_instance_information(
    view: View<'_>,
    _call: &Call,
    request: ssm::DescribeInstanceInformationRequest,
) -> Result<ssm::DescribeInstanceInformationResult, SsmError> {
    let old = request.instance_information_filter_list.into_iter().flatten();
    let old = old.map(|filter| (filter.key.as_str().to_owned(), filter.value_set));
    let new = request.filters.into_iter().flatten().map(|filter| (filter.key, filter.values));
    let filters: Vec<(String, Vec<String>)> = old.chain(new).collect();
    if let Some((key, _)) = filters.iter().find(|(key, _)| !FILTERS.contains(&key.as_str())) {
        let key: String = key.chars().take(64).collect();
        return Err(SsmError::InvalidFilter(format!("The filter '{key}' is not supported.")));
    }
    let page = Page::read(request.next_token.as_deref(), request.max_results, PAGE_MAX, PAGE_MAX)?;
    let shown = view.state.ssm.managed_instances.values().map(|machine| show(view, machine));
    let shown = shown.filter(|machine| filters.iter().all(|(key, values)| matches(machine, key, values)));
    let (instance_information_list, next_token) =
        page.cut(shown, |machine| machine.instance_id.clone().unwrap_or_default(), |machine| machine);
    Ok(ssm::DescribeInstanceInformationResult {
        instance_information_list: Some(instance_information_list),
        next_token,
    })
}

/// What can be filtered by.
const FILTERS: [&str; 7] = [
    "ActivationIds",
    "AgentVersion",
    "IamRole",
    "InstanceIds",
    "PingStatus",
    "PlatformTypes",
    "ResourceType",
];

fn matches(machine: &ssm::InstanceInformation, key: &str, values: &[String]) -> bool {
    let own = match key {
        "ActivationIds" => machine.activation_id.as_deref(),
        "AgentVersion" => machine.agent_version.as_deref(),
        "IamRole" => machine.iam_role.as_deref(),
        "InstanceIds" => machine.instance_id.as_deref(),
        "PingStatus" => machine.ping_status.as_ref().map(|status| status.as_str()),
        "PlatformTypes" => machine.platform_type.as_ref().map(|kind| kind.as_str()),
        "ResourceType" => machine.resource_type.as_ref().map(|kind| kind.as_str()),
        _ => None,
    };
    own.is_some_and(|own| values.iter().any(|value| value == own))
}
