//! Task definitions as the API shows them.

use crate::services::ecs::bridge;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{TaskDefinitionRecord, TaskDefinitionStatus};
use gantry_api::ecs;
use gantry_decide::ids::Scope;
use gantry_wire::EpochMillis;

/// The whole definition with its identity, without tags, which stand beside it in responses.
///
/// # Errors
/// When the stored definition has no shape in the API, which a valid record cannot.
pub fn task_definition(
    scope: &Scope,
    record: &TaskDefinitionRecord,
) -> Result<ecs::TaskDefinition, EcsError> {
    let mut shape: ecs::TaskDefinition = bridge::shape_of(record.definition.as_ref())?;
    shape.task_definition_arn = Some(record.arn(scope).to_string());
    shape.revision = Some(i32::try_from(record.id.revision).unwrap_or(i32::MAX));
    shape.status = status(record.status).parse().ok();
    shape.registered_at = Some(EpochMillis(record.registered_at.as_millis()));
    shape.registered_by = Some(record.registered_by.clone());
    shape.deregistered_at = record.deregistered_at.map(|at| EpochMillis(at.as_millis()));
    shape.delete_requested_at = record.delete_requested_at.map(|at| EpochMillis(at.as_millis()));
    Ok(shape)
}

/// ECS's word for a status.
pub fn status(status: TaskDefinitionStatus) -> &'static str {
    match status {
        TaskDefinitionStatus::Active => "ACTIVE",
        TaskDefinitionStatus::Inactive => "INACTIVE",
        TaskDefinitionStatus::DeleteInProgress => "DELETE_IN_PROGRESS",
    }
}
