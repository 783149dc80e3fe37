//! Registration's rules: a definition as the user wrote it becomes a [`TaskDefinition`] or one clear refusal.
//!
//! Two passes. `prepare` looks at the untyped text for what a typed reader could only refuse in its own words
//! (missing names, negative numbers, sizes such as `1 vCPU`) and normalises it; the rest works on typed values.
//! The first broken rule is reported, as ECS does.
//!
//! One deliberate leniency: ECS refuses the `awslogs` driver on Fargate without an execution role and without its
//! `awslogs-group`, `-region` and `-stream-prefix` options, since its own log service needs them. Here logs need no
//! role, and missing options get their values when a task starts, so such definitions are accepted.

mod containers;
mod error;
mod graph;
mod platform;
mod ports;
mod prepare;
mod volumes;

#[cfg(test)]
mod tests;

pub use error::DefinitionError;
pub use platform::{check_platform, is_ecr_image};

use crate::ids::AccountId;
use crate::query::Query;
use crate::task::attributes::required_attributes;
use crate::task::definition::TaskDefinition;
use crate::task::kinds::{Compatibility, NetworkMode};
use crate::task::proxy::ProxyRules;
use serde_json::Value;

/// Longest registration, as JSON: ECS's own limit.
pub const MAX_DEFINITION_BYTES: usize = 64 * 1024;
/// Containers of one definition: ECS's quota.
pub const MAX_CONTAINERS: usize = 10;
/// Placement constraints of one definition: ECS's limit.
pub const MAX_CONSTRAINTS: usize = 10;
/// Characters of a placement constraint's expression: ECS's limit.
pub const MAX_EXPRESSION: usize = 2000;

/// The order in which ECS lists compatibilities.
const COMPATIBILITY_ORDER: [Compatibility; 4] =
    [Compatibility::External, Compatibility::Ec2, Compatibility::Fargate, Compatibility::ManagedInstances];

/// Checks a registration request (its JSON, in ECS's spelling, without tags) and fills in what it leaves out.
/// Role names without a path become ARNs of `account`.
pub fn validate(raw: Value, account: AccountId) -> Result<TaskDefinition, DefinitionError> {
    let prepared = prepare::prepare(raw)?;
    let mut definition: TaskDefinition =
        serde_json::from_value(prepared).map_err(DefinitionError::Malformed)?;
    expand_role(&mut definition.task_role_arn, account);
    expand_role(&mut definition.execution_role_arn, account);

    containers::check(&mut definition)?;
    ports::check(&mut definition)?;
    graph::check(&definition)?;
    volumes::check(&definition)?;
    check_task(&definition)?;

    // What was asked for is checked in the order asked, so that the first refusal names the first platform.
    for asked in definition.requires_compatibilities.iter().flatten() {
        check_platform(&definition, *asked)?;
    }
    definition.compatibilities =
        COMPATIBILITY_ORDER.into_iter().filter(|c| check_platform(&definition, *c).is_ok()).collect();
    definition.requires_attributes = required_attributes(&definition);
    Ok(definition)
}

/// Checks again what overrides may have changed of a definition.
///
/// # Errors
/// For the first rule that it breaks now.
pub fn check_overridden(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    containers::check_overridden(definition)?;
    check_storage(definition)
}

/// A bare role name means the role of that name in the caller's account.
fn expand_role(role: &mut Option<String>, account: AccountId) {
    if role.as_deref().is_some_and(str::is_empty) {
        *role = None;
    }
    if let Some(name) = role
        && !name.starts_with("arn:")
    {
        *name = format!("arn:aws:iam::{account}:role/{name}");
    }
}

/// Rules on the task as a whole that hold wherever it runs.
fn check_task(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    if definition.placement_constraints.len() > MAX_CONSTRAINTS {
        return Err(DefinitionError::TooManyConstraints { max: MAX_CONSTRAINTS });
    }
    for constraint in &definition.placement_constraints {
        let expression = constraint.expression.trim();
        if expression.chars().count() > MAX_EXPRESSION || Query::parse(expression).is_err() {
            return Err(DefinitionError::ConstraintExpression);
        }
    }
    if let Some(proxy) = &definition.proxy_configuration {
        if definition.container(&proxy.container_name).is_none() {
            return Err(DefinitionError::ProxyContainer);
        }
        if definition.network_mode != Some(NetworkMode::Awsvpc) {
            return Err(DefinitionError::ProxyNetworkMode);
        }
        ProxyRules::read(|name| proxy.property(name)).map_err(DefinitionError::ProxyProperty)?;
    }
    check_storage(definition)?;
    let mut devices: Vec<&str> = Vec::new();
    for accelerator in definition.inference_accelerators.iter().flatten() {
        if accelerator.device_name.is_empty() || devices.contains(&accelerator.device_name.as_str()) {
            return Err(DefinitionError::TaskSetting { setting: "inferenceAccelerators" });
        }
        devices.push(&accelerator.device_name);
    }
    Ok(())
}

fn check_storage(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    const LOW: u32 = 21;
    const HIGH: u32 = 200;
    match definition.ephemeral_storage {
        Some(storage) if !(LOW..=HIGH).contains(&storage.size_in_gib) => {
            Err(DefinitionError::EphemeralStorage { low: LOW, high: HIGH })
        }
        _ => Ok(()),
    }
}
