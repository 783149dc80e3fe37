//! Task sets: create, scale, make primary, delete, describe. The services controller starts and stops their tasks.

use crate::call::Call;
use crate::services::ecs::convert;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::idempotency::{Repeated, Token};
use crate::services::ecs::ops::service::{Wanted, later, named};
use crate::services::ecs::state::{
    Cluster, DeploymentController, Service, ServiceKey, ServiceStatus, TaskSet,
};
use crate::services::ecs::views::task_set as show;
use crate::services::ecs::{balanced, check, compute, deployments, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::task_set::{Scale, TaskSetStatus};
use gantry_decide::ids::DeploymentId;
use gantry_store::Record;

/// Task sets of one service: ECS's quota.
const SETS_MAX: usize = 5;
/// DescribeTaskSets takes this many.
const DESCRIBE_MAX: usize = 100;
/// Characters of an external id; ECS documents no bound.
const EXTERNAL_ID_MAX: usize = 255;

/// The service that a request is about; it has to be one of task sets that the caller may drive.
fn service_of<'a>(
    view: View<'a>,
    cluster: &str,
    service: &str,
) -> Result<(&'a Cluster, &'a Service), EcsError> {
    let cluster = check::cluster(view, Some(cluster))?;
    let service = named(view, &cluster.name, service)?;
    if service.controller != DeploymentController::External {
        return Err(EcsError::invalid(ONLY_EXTERNAL));
    }
    if service.status != ServiceStatus::Active {
        return Err(EcsError::ServiceNotActive);
    }
    Ok((cluster, service))
}

const ONLY_EXTERNAL: &str = "Task sets are only supported with the EXTERNAL deployment controller.";

/// The place of the task set that is named by its id or ARN.
fn find(view: View<'_>, service: &Service, text: &str) -> Result<usize, EcsError> {
    let id: Option<DeploymentId> = if text.starts_with("arn:") {
        match check::own_arn(view, text)? {
            EcsResource::TaskSet(cluster, name, id)
                if service.key() == ServiceKey { cluster: cluster.clone(), name: name.clone() } =>
            {
                Some(id)
            }
            EcsResource::TaskSet(..) => None,
            _ => return Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
        }
    } else {
        text.parse().ok()
    };
    service.deployments.iter().position(|set| Some(set.id) == id).ok_or(EcsError::TaskSetNotFound)
}

fn scale(given: Option<&ecs::Scale>) -> Result<Scale, EcsError> {
    let Some(value) = given.and_then(|scale| scale.value) else { return Ok(Scale::NONE) };
    Scale::of_percent(value)
        .ok_or_else(|| EcsError::invalid("The scale value must be between 0.0 and 100.0."))
}

pub fn create_task_set(
    tx: &mut Tx<'_>,
    _call: &Call,
    mut request: ecs::CreateTaskSetRequest,
) -> Result<ecs::CreateTaskSetResponse, EcsError> {
    let token = request.client_token.take();
    let (cluster, service) = service_of(tx.view(), &request.cluster, &request.service)?;
    let (cluster, mut service) = (cluster.clone(), service.clone());
    let token = Token::read(Repeated::CreateTaskSet, &cluster.name, token.as_deref(), &request)?;
    let known = match &token {
        Some(token) => token.first(tx)?.and_then(|arns| arns.into_iter().next()),
        None => None,
    };
    if let Some(index) = known.and_then(|arn| find(tx.view(), &service, &arn).ok()) {
        return Ok(ecs::CreateTaskSetResponse { task_set: shown(tx.view(), &service, index) });
    }
    if request.service_registries.as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(later("serviceRegistries of task sets"));
    }
    if service.deployments.len() >= SETS_MAX {
        return Err(EcsError::LimitExceeded(format!("A service can have at most {SETS_MAX} task sets.")));
    }
    if request.external_id.as_ref().is_some_and(|id| id.chars().count() > EXTERNAL_ID_MAX) {
        return Err(EcsError::invalid(format!("externalId can have at most {EXTERNAL_ID_MAX} characters.")));
    }
    let record = check::runnable_task_definition(tx.view(), &request.task_definition)?.clone();
    let compute = compute::choose(
        tx.view(),
        &cluster,
        request.launch_type.as_ref(),
        request.capacity_provider_strategy.as_deref(),
    )?;
    check::placement(compute.launch_type(), &service.placement_constraints, &service.placement_strategy)?;
    let platform = request.platform_version.as_deref().filter(|text| !text.is_empty());
    let wanted = Wanted { compute, record: &record, platform };
    wanted.check()?;
    let mode = record.definition.effective_network_mode();
    let network = convert::network(tx.view(), request.network_configuration.as_ref(), mode)?;
    if record.definition.volume_configured_at_launch().is_some() {
        return Err(later("volumes configured at launch of task sets"));
    }
    let load_balancers = balanced::read(tx.view(), request.load_balancers.as_deref(), &record.definition)?;
    if load_balancers.iter().any(|one| one.advanced.is_some()) {
        return Err(EcsError::invalid(
            "advancedConfiguration is not supported with the EXTERNAL deployment controller.",
        ));
    }
    let set = TaskSet {
        status: TaskSetStatus::Active,
        scale: scale(request.scale.as_ref())?,
        external_id: request.external_id.clone(),
        tags: tags::read(request.tags.as_deref())?,
        steady: false,
    };
    let id = deployments::add_task_set(tx, &mut service, wanted.with(network, None, load_balancers), set);
    tx.state.ecs.put_service(service.clone());
    if let Some(token) = token {
        let arn = show::arn(tx.view(), service.key(), id);
        token.remember(tx, vec![arn]);
    }
    let index = service.deployments.len() - 1;
    Ok(ecs::CreateTaskSetResponse { task_set: shown(tx.view(), &service, index) })
}

fn shown(view: View<'_>, service: &Service, index: usize) -> Option<ecs::TaskSet> {
    show::task_set(view, service, service.deployments.get(index)?, true)
}

/// Changes a task set of a service; `change` says why it may not.
fn edit(
    tx: &mut Tx<'_>,
    (cluster, service, text): (&str, &str, &str),
    change: impl FnOnce(&mut Service, usize) -> Result<(), EcsError>,
) -> Result<(Service, DeploymentId), EcsError> {
    let (_, service) = service_of(tx.view(), cluster, service)?;
    let mut service = service.clone();
    let index = find(tx.view(), &service, text)?;
    let id = service.deployments[index].id;
    service.deployments[index].updated_at = tx.now;
    change(&mut service, index)?;
    tx.state.ecs.put_service(service.clone());
    Ok((service, id))
}

fn edited(view: View<'_>, (service, id): (Service, DeploymentId)) -> Option<ecs::TaskSet> {
    let index = service.deployments.iter().position(|set| set.id == id)?;
    shown(view, &service, index)
}

const DRAINS: &str = "The task set is being deleted.";

pub fn update_task_set(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateTaskSetRequest,
) -> Result<ecs::UpdateTaskSetResponse, EcsError> {
    if request.scale.value.is_none() {
        return Err(EcsError::invalid("The scale value must be specified."));
    }
    let scale = scale(Some(&request.scale))?;
    let names = (request.cluster.as_str(), request.service.as_str(), request.task_set.as_str());
    let done = edit(tx, names, |service, index| {
        let set = service.deployments[index].task_set.as_mut().ok_or(EcsError::TaskSetNotFound)?;
        if set.status == TaskSetStatus::Draining {
            return Err(EcsError::invalid(DRAINS));
        }
        set.scale = scale;
        Ok(())
    })?;
    Ok(ecs::UpdateTaskSetResponse { task_set: edited(tx.view(), done) })
}

pub fn delete_task_set(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteTaskSetRequest,
) -> Result<ecs::DeleteTaskSetResponse, EcsError> {
    let force = request.force == Some(true);
    let names = (request.cluster.as_str(), request.service.as_str(), request.task_set.as_str());
    let done = edit(tx, names, |service, index| {
        let set = service.deployments[index].task_set.as_mut().ok_or(EcsError::TaskSetNotFound)?;
        if set.scale != Scale::NONE && !force {
            return Err(EcsError::invalid("The task set cannot be deleted while it is scaled above 0."));
        }
        set.status = TaskSetStatus::Draining;
        Ok(())
    })?;
    Ok(ecs::DeleteTaskSetResponse { task_set: edited(tx.view(), done) })
}

pub fn update_service_primary_task_set(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateServicePrimaryTaskSetRequest,
) -> Result<ecs::UpdateServicePrimaryTaskSetResponse, EcsError> {
    let names = (request.cluster.as_str(), request.service.as_str(), request.primary_task_set.as_str());
    let done = edit(tx, names, |service, index| {
        let set = service.deployments[index].task_set.as_ref();
        if set.is_none_or(|set| set.status == TaskSetStatus::Draining) {
            return Err(EcsError::invalid(DRAINS));
        }
        // The primary one comes first, as other services' primary deployment does.
        let primary = service.deployments.remove(index);
        service.deployments.insert(0, primary);
        for (index, deployment) in service.deployments.iter_mut().enumerate() {
            match &mut deployment.task_set {
                Some(set) if index == 0 => set.status = TaskSetStatus::Primary,
                Some(set) if set.status == TaskSetStatus::Primary => set.status = TaskSetStatus::Active,
                _ => {}
            }
        }
        Ok(())
    })?;
    Ok(ecs::UpdateServicePrimaryTaskSetResponse { task_set: edited(tx.view(), done) })
}

pub fn describe_task_sets(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeTaskSetsRequest,
) -> Result<ecs::DescribeTaskSetsResponse, EcsError> {
    let cluster = check::cluster(view, Some(&request.cluster))?;
    let service = named(view, &cluster.name, &request.service)?;
    if !service.has_task_sets() {
        return Err(EcsError::invalid(ONLY_EXTERNAL));
    }
    if service.status != ServiceStatus::Active {
        return Err(EcsError::ServiceNotActive);
    }
    let with_tags = request.include.iter().flatten().any(|field| field.as_str() == "TAGS");
    let named = request.task_sets.unwrap_or_default();
    if named.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DESCRIBE_MAX} task sets can be described in one call."
        )));
    }
    let (mut task_sets, mut failures) = (Vec::new(), Vec::new());
    let show = |deployment| show::task_set(view, service, deployment, with_tags);
    if named.is_empty() {
        task_sets.extend(service.deployments.iter().filter_map(show));
    }
    for text in named {
        match find(view, service, &text) {
            Ok(index) => task_sets.extend(service.deployments.get(index).and_then(show)),
            Err(EcsError::TaskSetNotFound) => failures.push(ecs::Failure {
                arn: Some(text),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(ecs::DescribeTaskSetsResponse { task_sets: Some(task_sets), failures: Some(failures) })
}
