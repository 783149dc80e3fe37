//! Who drives a service's deployments, and how that changes.

use super::code_deploy;
use crate::services::ecs::deployments;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{DeploymentController, RolloutState, Service};
use crate::tx::Tx;
use gantry_decide::deployment::events;
use gantry_decide::deployment::task_set::TaskSetStatus;
use gantry_decide::ids::ServiceDeploymentId;

/// Gives a service another controller, as far as ECS documents it. Its tasks stay: what is its primary deployment becomes
/// its primary task set, and the other way round. The caller puts the service.
///
/// # Errors
/// While a deployment goes on, for changes that ECS does not have, and for what the new controller does not know.
pub fn change(tx: &mut Tx<'_>, service: &mut Service, to: DeploymentController) -> Result<(), EcsError> {
    use DeploymentController::{CodeDeploy, Ecs, External};
    let from = service.controller;
    if from == to {
        return Ok(());
    }
    if matches!((from, to), (External, CodeDeploy)) {
        return Err(EcsError::invalid(format!(
            "The deployment controller of a service cannot be changed from {} to {}.",
            from.as_str(),
            to.as_str()
        )));
    }
    let configuration = &service.configuration;
    let keeps = [
        (service.is_daemon(), "the DAEMON scheduling strategy"),
        (configuration.alarms.enable, "deployment alarms"),
        (configuration.circuit_breaker.enable, "the deployment circuit breaker"),
        (configuration.strategy.shifts_traffic(), configuration.strategy.as_str()),
    ];
    if let Some((_, what)) = keeps.into_iter().find(|(has, _)| from == Ecs && *has) {
        return Err(EcsError::invalid(format!(
            "The deployment controller of a service with {what} cannot be changed."
        )));
    }
    if goes_on(tx, service) {
        return Err(EcsError::invalid(
            "The deployment controller of a service cannot be changed while a deployment is in progress.",
        ));
    }
    service.controller = to;
    match (from, to) {
        (Ecs, _) => {
            if to == CodeDeploy {
                code_deploy::check(service)?;
            }
            service.availability_zone_rebalancing = false;
            service.attempt = ServiceDeploymentId::random(tx.random);
            for deployment in &mut service.deployments {
                deployment.task_set = Some(code_deploy::primary());
            }
        }
        (_, Ecs) => {
            for deployment in &mut service.deployments {
                deployment.task_set = None;
                deployment.rollout_state = RolloutState::Completed;
                deployment.rollout_state_reason = events::completed_reason(deployment.id);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether there is more than what serves, or that has not arrived.
fn goes_on(tx: &Tx<'_>, service: &Service) -> bool {
    let [only] = &service.deployments[..] else {
        // A service that has no task set yet is not in the midst of anything, and has nothing that ECS could deploy.
        return true;
    };
    match &only.task_set {
        Some(set) => set.status != TaskSetStatus::Primary,
        None => {
            let attempt = deployments::current(tx.view(), service);
            only.rollout_state != RolloutState::Completed
                || attempt.is_some_and(|attempt| !attempt.status.is_over())
        }
    }
}
