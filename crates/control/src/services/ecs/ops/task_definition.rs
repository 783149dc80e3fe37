//! Task definitions: register, deregister, describe, list, delete.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{FamilyRecord, TaskDefinitionRecord, TaskDefinitionStatus};
use crate::services::ecs::views::task_definition::{status, task_definition as show};
use crate::services::ecs::{bridge, check, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::ids::{Family, TaskDefinitionId};
use gantry_decide::task::{DefinitionError, validate};
use std::sync::Arc;

/// Revisions that one DeleteTaskDefinitions takes: ECS's limit.
const DELETE_MAX: usize = 10;

impl From<DefinitionError> for EcsError {
    fn from(error: DefinitionError) -> EcsError {
        match error.code() {
            "InvalidParameterException" => EcsError::invalid(error.to_string()),
            _ => EcsError::client(error.to_string()),
        }
    }
}

/// Members that our own type does not know: they must not be lost in silence.
fn refuse_what_nobody_runs(request: &ecs::RegisterTaskDefinitionRequest) -> Result<(), EcsError> {
    let refused = |what: &str| Err(EcsError::UnsupportedFeature(format!("Gantry does not serve {what}.")));
    if request.trusted_execution_configuration.is_some() {
        return refused("trustedExecutionConfiguration");
    }
    let containers = request.container_definitions.iter();
    let mut requirements = containers.flat_map(|container| container.resource_requirements.iter().flatten());
    if requirements.any(|requirement| requirement.sharing_strategy.is_some()) {
        return refused("the sharing of GPUs between containers");
    }
    Ok(())
}

pub fn register_task_definition(
    tx: &mut Tx<'_>,
    call: &Call,
    mut request: ecs::RegisterTaskDefinitionRequest,
) -> Result<ecs::RegisterTaskDefinitionResponse, EcsError> {
    let given_tags = request.tags.take();
    let tags = tags::read(given_tags.as_deref())?;
    refuse_what_nobody_runs(&request)?;
    let definition = validate(bridge::value_of(&request)?, tx.scope.account)?;
    let family = definition.family.clone();
    let last_revision = tx.state.ecs.families.get(&family).map_or(0, |record| record.last_revision);
    let most = tx.state.installation.quotas.revisions;
    if last_revision >= most {
        return Err(EcsError::LimitExceeded(format!("The family {family} has {most} revisions already.")));
    }
    let revision = last_revision + 1;
    tx.state.ecs.families.put(FamilyRecord { family: family.clone(), last_revision: revision });
    let record = TaskDefinitionRecord {
        id: TaskDefinitionId { family, revision },
        status: TaskDefinitionStatus::Active,
        definition: Arc::new(definition),
        tags,
        registered_at: tx.now,
        registered_by: call.caller.arn(),
        deregistered_at: None,
        delete_requested_at: None,
    };
    let task_definition = Some(show(tx.scope, &record)?);
    let tags = given_tags.map(|_| tags::show(&record.tags));
    tx.state.ecs.task_definitions.put(record);
    Ok(ecs::RegisterTaskDefinitionResponse { task_definition, tags })
}

pub fn describe_task_definition(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeTaskDefinitionRequest,
) -> Result<ecs::DescribeTaskDefinitionResponse, EcsError> {
    let record = check::task_definition(view, &request.task_definition)?
        .ok_or_else(|| EcsError::client("Unable to describe task definition."))?;
    let with_tags = request.include.iter().flatten().any(|field| field.as_str() == "TAGS");
    Ok(ecs::DescribeTaskDefinitionResponse {
        task_definition: Some(show(view.scope, record)?),
        tags: with_tags.then(|| tags::show(&record.tags)),
    })
}

/// A revision that is named with its number, which changing one insists on.
fn exact<'a>(view: View<'a>, text: &str) -> Result<Option<&'a TaskDefinitionRecord>, EcsError> {
    let name = text.rsplit('/').next().unwrap_or(text);
    if name.parse::<TaskDefinitionId>().is_err() {
        let number: String = name.rsplit(':').next().unwrap_or_default().chars().take(255).collect();
        return Err(EcsError::invalid(format!("Invalid revision number. Number: {number}")));
    }
    check::task_definition(view, text)
}

pub fn deregister_task_definition(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeregisterTaskDefinitionRequest,
) -> Result<ecs::DeregisterTaskDefinitionResponse, EcsError> {
    let found = exact(tx.view(), &request.task_definition)?;
    let mut record =
        found.ok_or_else(|| EcsError::client("The specified task definition does not exist."))?.clone();
    // Deregistering what is already INACTIVE succeeds and keeps the time of the first call.
    if record.status == TaskDefinitionStatus::Active {
        record.status = TaskDefinitionStatus::Inactive;
        record.deregistered_at = Some(tx.now);
        tx.state.ecs.task_definitions.put(record.clone());
    }
    Ok(ecs::DeregisterTaskDefinitionResponse { task_definition: Some(show(tx.scope, &record)?) })
}

pub fn delete_task_definitions(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteTaskDefinitionsRequest,
) -> Result<ecs::DeleteTaskDefinitionsResponse, EcsError> {
    if request.task_definitions.is_empty() {
        return Err(EcsError::invalid("Task definitions cannot be empty."));
    }
    if request.task_definitions.len() > DELETE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DELETE_MAX} task definitions can be deleted in one call."
        )));
    }
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for text in &request.task_definitions {
        let fail = |arn: String, reason: &str| ecs::Failure {
            arn: Some(arn),
            reason: Some(reason.to_owned()),
            detail: None,
        };
        let Some(mut record) = exact(tx.view(), text)?.cloned() else {
            let arn = if text.starts_with("arn:") {
                text.clone()
            } else {
                format!("arn:aws:ecs:{}:{}:task-definition/{text}", tx.scope.region, tx.scope.account)
            };
            failures.push(fail(
                arn,
                "The specified task definition does not exist. Specify a valid account, family, revision and try again.",
            ));
            continue;
        };
        match record.status {
            TaskDefinitionStatus::Active => failures.push(fail(
                record.arn(tx.scope).to_string(),
                "The specified task definition is still in ACTIVE status. Please deregister the target and try again.",
            )),
            TaskDefinitionStatus::Inactive => {
                record.status = TaskDefinitionStatus::DeleteInProgress;
                record.delete_requested_at = Some(tx.now);
                deleted.push(show(tx.scope, &record)?);
                tx.state.ecs.task_definitions.put(record);
            }
            TaskDefinitionStatus::DeleteInProgress => deleted.push(show(tx.scope, &record)?),
        }
    }
    Ok(ecs::DeleteTaskDefinitionsResponse { task_definitions: Some(deleted), failures: Some(failures) })
}

/// A revision's place in the order of lists, as text: families by name, revisions by number.
fn sort_key(id: &TaskDefinitionId) -> String {
    // '!' sorts before every character of a family, so that `web` comes before `web-front`.
    format!("{}!{:010}", id.family, id.revision)
}

pub fn list_task_definitions(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListTaskDefinitionsRequest,
) -> Result<ecs::ListTaskDefinitionsResponse, EcsError> {
    let wanted = request.status.map_or("ACTIVE", |status| status.as_str());
    let descending = request.sort.is_some_and(|sort| sort.as_str() == "DESC");
    // The whole name of a family here, in spite of the member's name.
    let family = match request.family_prefix.as_deref() {
        None | Some("") => None,
        Some(text) => Some(
            text.parse::<Family>().map_err(|_| EcsError::invalid("Family contains invalid characters."))?,
        ),
    };
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let table = &view.state.ecs.task_definitions;
    let records: Box<dyn DoubleEndedIterator<Item = &TaskDefinitionRecord> + '_> = match family {
        Some(family) => {
            let first = TaskDefinitionId { family: family.clone(), revision: 0 };
            let last = TaskDefinitionId { family, revision: u32::MAX };
            Box::new(table.range(first..=last).map(|(_, record)| record.as_ref()))
        }
        None => Box::new(table.iter().map(|(_, record)| record.as_ref())),
    };
    let records: Box<dyn Iterator<Item = &TaskDefinitionRecord> + '_> =
        if descending { Box::new(records.rev()) } else { Box::new(records) };
    let (task_definition_arns, next_token) = page.descending(descending).cut(
        records.filter(|record| status(record.status) == wanted),
        |record| sort_key(&record.id),
        |record| record.arn(view.scope).to_string(),
    );
    Ok(ecs::ListTaskDefinitionsResponse { task_definition_arns: Some(task_definition_arns), next_token })
}

pub fn list_task_definition_families(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListTaskDefinitionFamiliesRequest,
) -> Result<ecs::ListTaskDefinitionFamiliesResponse, EcsError> {
    let prefix = request.family_prefix.as_deref().unwrap_or_default();
    let wanted = request.status.map_or("ALL", |status| status.as_str());
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let table = &view.state.ecs.task_definitions;
    let fits = |family: &Family| {
        let first = TaskDefinitionId { family: family.clone(), revision: 0 };
        let last = TaskDefinitionId { family: family.clone(), revision: u32::MAX };
        let statuses = || table.range(first.clone()..=last.clone()).map(|(_, record)| record.status);
        let active = statuses().any(|s| s == TaskDefinitionStatus::Active);
        let inactive = !active && statuses().any(|s| s == TaskDefinitionStatus::Inactive);
        match wanted {
            "ACTIVE" => active,
            "INACTIVE" => inactive,
            _ => active || inactive,
        }
    };
    let families = view.state.ecs.families.iter().map(|(family, _)| family);
    let families = families.filter(|family| family.as_str().starts_with(prefix) && fits(family));
    let (families, next_token) = page.cut(families, |family| family.to_string(), |family| family.to_string());
    Ok(ecs::ListTaskDefinitionFamiliesResponse { families: Some(families), next_token })
}
