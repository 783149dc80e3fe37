//! Service deployments and revisions: describe, list, stop, continue.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::check;
use crate::services::ecs::deployments;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::attempts::{LIST_DEFAULT, asked_for, described, order};
use crate::services::ecs::ops::deployment_configuration::action;
use crate::services::ecs::state::{ServiceDeployment, ServiceDeploymentKey, ServiceKey, ServiceRevisionKey};
use crate::services::ecs::views::service_deployment as show;
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::hooks::HookAction;
use gantry_decide::deployment::status::ServiceDeploymentStatus;

fn deployment_key(view: View<'_>, arn: &str) -> Result<ServiceDeploymentKey, EcsError> {
    match check::own_arn(view, arn)? {
        EcsResource::ServiceDeployment(cluster, name, id) => {
            Ok(ServiceDeploymentKey { service: ServiceKey { cluster, name }, id })
        }
        _ => Err(EcsError::invalid(format!("Invalid identifier: {arn}"))),
    }
}

pub fn describe_service_deployments(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeServiceDeploymentsRequest,
) -> Result<ecs::DescribeServiceDeploymentsResponse, EcsError> {
    let find = |arn: &str| {
        let found = view.state.ecs.service_deployment(&deployment_key(view, arn)?);
        Ok(found.map(|deployment| show::service_deployment(view, deployment)))
    };
    let (found, failures) = described(&request.service_deployment_arns, "serviceDeploymentArns", find)?;
    Ok(ecs::DescribeServiceDeploymentsResponse { service_deployments: Some(found), failures: Some(failures) })
}

pub fn describe_service_revisions(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeServiceRevisionsRequest,
) -> Result<ecs::DescribeServiceRevisionsResponse, EcsError> {
    let find = |arn: &str| {
        let EcsResource::ServiceRevision(cluster, name, id) = check::own_arn(view, arn)? else {
            return Err(EcsError::invalid(format!("Invalid identifier: {arn}")));
        };
        let key = ServiceRevisionKey { service: ServiceKey { cluster, name }, id };
        let found = view.state.ecs.service_revision(&key);
        Ok(found.map(|revision| show::service_revision(view, revision)))
    };
    let (found, failures) = described(&request.service_revision_arns, "serviceRevisionArns", find)?;
    Ok(ecs::DescribeServiceRevisionsResponse { service_revisions: Some(found), failures: Some(failures) })
}

pub fn list_service_deployments(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListServiceDeploymentsRequest,
) -> Result<ecs::ListServiceDeploymentsResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    let service = check::service(view, cluster, &request.service)?
        .filter(|key| view.state.ecs.service(key).is_some())
        .ok_or(EcsError::ServiceNotFound)?;
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_DEFAULT)?;
    let statuses = request.status.unwrap_or_default();
    let statuses = statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let asked_for = asked_for(statuses, request.created_at);
    let wanted = |attempt: &&ServiceDeployment| asked_for(attempt.status, attempt.created_at);
    let mut found: Vec<_> = view.state.ecs.deployments_of(&service).filter(wanted).collect();
    let order = |attempt: &ServiceDeployment| order(attempt.created_at, attempt.id);
    found.sort_by_key(|deployment| std::cmp::Reverse(order(deployment)));
    let (service_deployments, next_token) = page.descending(true).cut(
        found.into_iter(),
        |deployment| order(deployment),
        |deployment| show::brief(view, deployment),
    );
    Ok(ecs::ListServiceDeploymentsResponse { service_deployments: Some(service_deployments), next_token })
}

/// The services controller does what is asked.
pub fn stop_service_deployment(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::StopServiceDeploymentRequest,
) -> Result<ecs::StopServiceDeploymentResponse, EcsError> {
    let arn = request.service_deployment_arn;
    let key = deployment_key(tx.view(), &arn)?;
    let attempt = tx.state.ecs.service_deployment(&key).ok_or(EcsError::ServiceDeploymentNotFound)?;
    let service = tx.state.ecs.service(&key.service).cloned().ok_or(EcsError::ServiceDeploymentNotFound)?;
    let (status, reason) = match request.stop_type {
        Some(ecs::StopServiceDeploymentStopType::Abort) => {
            (ServiceDeploymentStatus::StopRequested, "Service deployment stopped by user.")
        }
        _ => (ServiceDeploymentStatus::RollbackRequested, "Service deployment rolled back by user."),
    };
    // Asking for what goes on already changes nothing.
    let repeated = status == attempt.status
        || (status == ServiceDeploymentStatus::RollbackRequested
            && attempt.status == ServiceDeploymentStatus::RollbackInProgress);
    if !repeated {
        if service.attempt != key.id || !attempt.status.may_become(status) {
            return Err(EcsError::Conflict {
                message: format!(
                    "The service deployment cannot be stopped while it is {}.",
                    attempt.status.as_str()
                ),
                resource_ids: vec![arn],
            });
        }
        deployments::advance(tx, &service, key.id, status, Some(reason.to_owned()));
    }
    Ok(ecs::StopServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}

/// Says how a deployment goes on that pauses. The services controller takes it from there.
pub fn continue_service_deployment(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::ContinueServiceDeploymentRequest,
) -> Result<ecs::ContinueServiceDeploymentResponse, EcsError> {
    let arn = request.service_deployment_arn;
    let key = deployment_key(tx.view(), &arn)?;
    let attempt = tx.state.ecs.service_deployment(&key).cloned();
    let mut attempt = attempt.ok_or(EcsError::ServiceDeploymentNotFound)?;
    let goes_on = attempt.status == ServiceDeploymentStatus::InProgress;
    let hooks = attempt.shift.iter_mut().filter(|_| goes_on).flat_map(|shift| &mut shift.hooks);
    let hook = hooks.into_iter().find(|hook| hook.id == request.hook_id);
    let hook = hook.ok_or_else(|| {
        EcsError::invalid("The lifecycle hook is not one of the current stage of the service deployment.")
    })?;
    let action = request.action.as_ref().map_or(HookAction::Continue, action);
    if !hook.resolve(action, tx.now) {
        return Err(EcsError::invalid(format!(
            "The lifecycle hook does not await an action: it is {}.",
            hook.status_at(tx.now).as_str()
        )));
    }
    attempt.updated_at = tx.now;
    tx.state.ecs.put_service_deployment(attempt);
    Ok(ecs::ContinueServiceDeploymentResponse { service_deployment_arn: Some(arn) })
}
