//! Daemon task definitions: register, describe, list, delete. They become task definitions like others, on the host's
//! network; what only these can say is kept in them under the names that these have for it.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{DaemonFamily, DaemonTaskDefinition, DaemonTaskDefinitionStatus};
use crate::services::ecs::views::daemon as show;
use crate::services::ecs::{bridge, check, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{Family, TaskDefinitionId};
use gantry_decide::task::validate;
use serde_json::{Value, json};
use std::sync::Arc;

pub fn register_daemon_task_definition(
    tx: &mut Tx<'_>,
    call: &Call,
    mut request: ecs::RegisterDaemonTaskDefinitionRequest,
) -> Result<ecs::RegisterDaemonTaskDefinitionResponse, EcsError> {
    let tags = tags::read(request.tags.take().as_deref())?;
    if request.volumes.iter().flatten().any(|volume| volume.log_driver_volume_configuration.is_some()) {
        return Err(EcsError::UnsupportedFeature(
            "Gantry does not serve logDriverVolumeConfiguration of daemons.".to_owned(),
        ));
    }
    let definition = validate(as_of_tasks(bridge::value_of(&request)?), tx.scope.account)?;
    let family = definition.family.clone();
    let daemons = &mut tx.state.ecs.daemons;
    let last_revision = daemons.families.get(&family).map_or(0, |record| record.last_revision);
    let most = tx.state.installation.quotas.revisions;
    if last_revision >= most {
        return Err(EcsError::LimitExceeded(format!("The family {family} has {most} revisions already.")));
    }
    let id = TaskDefinitionId { family: family.clone(), revision: last_revision + 1 };
    daemons.families.put(DaemonFamily { family, last_revision: id.revision });
    daemons.definitions.put(DaemonTaskDefinition {
        id: id.clone(),
        status: DaemonTaskDefinitionStatus::Active,
        definition: Arc::new(definition),
        tags,
        registered_at: tx.now,
        registered_by: call.caller.arn(),
        delete_requested_at: None,
    });
    let arn = tx.scope.ecs(EcsResource::DaemonTaskDefinition(id)).to_string();
    Ok(ecs::RegisterDaemonTaskDefinitionResponse { daemon_task_definition_arn: Some(arn) })
}

/// A request for a daemon's definition, as one for a task's.
fn as_of_tasks(mut request: Value) -> Value {
    for mode in ["pidMode", "ipcMode"] {
        // Of its own is what tasks have that name none.
        match request[mode].as_str() {
            Some("shared") => request[mode] = json!("host"),
            _ => drop(request.as_object_mut().map(|members| members.remove(mode))),
        }
    }
    request["networkMode"] = json!("host");
    request["requiresCompatibilities"] = json!(["MANAGED_INSTANCES"]);
    let family = request["family"].clone();
    for container in request["containerDefinitions"].as_array_mut().into_iter().flatten() {
        if container["name"].is_null() {
            container["name"] = family.clone();
        }
    }
    request
}

/// The definition that is meant: by ARN, or as `family:revision`; a family alone means its newest ACTIVE revision.
///
/// # Errors
/// `ClientException` when there is none.
pub fn named<'a>(view: View<'a>, text: &str) -> Result<&'a DaemonTaskDefinition, EcsError> {
    let missing = || EcsError::client("Unable to describe daemon task definition.");
    let table = &view.state.ecs.daemons.definitions;
    let id = if text.starts_with("arn:") {
        match check::own_arn(view, text)? {
            EcsResource::DaemonTaskDefinition(id) => id,
            _ => return Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
        }
    } else if let Ok(family) = text.parse::<Family>() {
        let newest =
            of_family(view, &family).rfind(|record| record.status == DaemonTaskDefinitionStatus::Active);
        return newest.ok_or_else(missing);
    } else {
        text.parse().map_err(|_| missing())?
    };
    table.get(&id).map(AsRef::as_ref).ok_or_else(missing)
}

fn of_family<'a>(
    view: View<'a>,
    family: &Family,
) -> impl DoubleEndedIterator<Item = &'a DaemonTaskDefinition> {
    let id = |revision| TaskDefinitionId { family: family.clone(), revision };
    view.state.ecs.daemons.definitions.range(id(0)..=id(u32::MAX)).map(|(_, record)| record.as_ref())
}

pub fn describe_daemon_task_definition(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeDaemonTaskDefinitionRequest,
) -> Result<ecs::DescribeDaemonTaskDefinitionResponse, EcsError> {
    let record = named(view, &request.daemon_task_definition)?;
    Ok(ecs::DescribeDaemonTaskDefinitionResponse {
        daemon_task_definition: Some(show::daemon_task_definition(view.scope, record)?),
    })
}

/// Daemons that run it go on.
pub fn delete_daemon_task_definition(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteDaemonTaskDefinitionRequest,
) -> Result<ecs::DeleteDaemonTaskDefinitionResponse, EcsError> {
    let mut record = named(tx.view(), &request.daemon_task_definition)?.clone();
    if record.status != DaemonTaskDefinitionStatus::Active {
        return Err(EcsError::client("The specified daemon task definition is not ACTIVE."));
    }
    record.status = DaemonTaskDefinitionStatus::DeleteInProgress;
    record.delete_requested_at = Some(tx.now);
    let arn = tx.scope.ecs(EcsResource::DaemonTaskDefinition(record.id.clone())).to_string();
    tx.state.ecs.daemons.definitions.put(record);
    tx.state.ecs.daemons.settle_definitions();
    Ok(ecs::DeleteDaemonTaskDefinitionResponse { daemon_task_definition_arn: Some(arn) })
}

pub fn list_daemon_task_definitions(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListDaemonTaskDefinitionsRequest,
) -> Result<ecs::ListDaemonTaskDefinitionsResponse, EcsError> {
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let wanted = request.status.as_ref().map_or("ACTIVE", |status| status.as_str());
    let descending = request.sort.as_ref().is_some_and(|sort| sort.as_str() == "DESC");
    let last_only = request.revision.is_some();
    let families = &view.state.ecs.daemons.families;
    let fits = |record: &&DaemonTaskDefinition| {
        let family = record.id.family.as_str();
        let last = families.get(&record.id.family).map(|known| known.last_revision);
        request.family.as_deref().is_none_or(|wanted| wanted == family)
            && request.family_prefix.as_deref().is_none_or(|prefix| family.starts_with(prefix))
            && (!last_only || last == Some(record.id.revision))
            && match wanted {
                "ALL" => true,
                wanted => show::status(record.status).as_str() == wanted,
            }
    };
    let all = view.state.ecs.daemons.definitions.values().map(AsRef::as_ref).filter(fits);
    let mut records: Vec<&DaemonTaskDefinition> = all.collect();
    // '!' sorts before every character of a family, so that `logs` comes before `logs-front`.
    let key = |record: &&DaemonTaskDefinition| format!("{}!{:010}", record.id.family, record.id.revision);
    records.sort_by_key(key);
    if descending {
        records.reverse();
    }
    let (daemon_task_definitions, next_token) =
        page.descending(descending).cut(records.into_iter(), key, |record| show::summary(view.scope, record));
    Ok(ecs::ListDaemonTaskDefinitionsResponse {
        daemon_task_definitions: Some(daemon_task_definitions),
        next_token,
    })
}
