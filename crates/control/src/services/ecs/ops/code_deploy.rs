//! Services whose deployments AWS CodeDeploy drives. CodeDeploy is not served, so that such a service stays with the task
//! set that it was made with: ECS keeps that at its desired count, and changes no more of it than ECS does.

use crate::services::ecs::deployments::{self, Wanted};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{DeploymentController, Service, TaskSet};
use crate::tx::Tx;
use gantry_api::ecs;
use gantry_decide::deployment::task_set::{Scale, TaskSetStatus};
use gantry_decide::ids::ServiceDeploymentId;

/// The controller that a request names.
pub fn controller(given: Option<&ecs::DeploymentController>) -> DeploymentController {
    match given.map(|given| &given.type_) {
        None | Some(ecs::DeploymentControllerType::Ecs) => DeploymentController::Ecs,
        Some(ecs::DeploymentControllerType::External) => DeploymentController::External,
        Some(ecs::DeploymentControllerType::CodeDeploy) => DeploymentController::CodeDeploy,
    }
}

/// What a service of CodeDeploy cannot be.
pub fn check(service: &Service) -> Result<(), EcsError> {
    let configuration = &service.configuration;
    let message = if service.is_daemon() {
        "The DAEMON scheduling strategy is not supported with the CODE_DEPLOY deployment controller."
    } else if service.load_balancers.len() != 1 {
        "A service with the CODE_DEPLOY deployment controller needs a load balancer, with one target group."
    } else if configuration.circuit_breaker.enable {
        "The deployment circuit breaker is not supported with the CODE_DEPLOY deployment controller."
    } else if configuration.alarms.enable {
        "Deployment alarms are not supported with the CODE_DEPLOY deployment controller."
    } else if configuration.strategy.shifts_traffic() || configuration.early_success.is_some() {
        "Deployment strategies and early success criteria are not supported with the CODE_DEPLOY deployment controller."
    } else {
        return Ok(());
    };
    Err(EcsError::invalid(message))
}

/// The first task set, which has all of the service's tasks.
pub fn create(tx: &mut Tx<'_>, service: &mut Service, wanted: Wanted) -> Result<(), EcsError> {
    if wanted.volume.is_some() {
        return Err(EcsError::invalid(
            "Volumes configured at launch are not supported with the CODE_DEPLOY deployment controller.",
        ));
    }
    // CodeDeploy keeps record of its deployments: there is no record of that id here.
    service.attempt = ServiceDeploymentId::random(tx.random);
    deployments::add_task_set(tx, service, wanted, primary());
    Ok(())
}

/// A set with all of a service's tasks.
pub fn primary() -> TaskSet {
    TaskSet {
        status: TaskSetStatus::Primary,
        scale: Scale::ALL,
        external_id: None,
        tags: Default::default(),
        steady: false,
    }
}

/// ECS lets the desired count, the deployment configuration, the grace period, placement and tags be changed.
pub fn check_update(request: &ecs::UpdateServiceRequest) -> Result<(), EcsError> {
    const TAIL: &str = "on services with a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.";
    let refused = [
        (request.task_definition.is_some(), "Unable to update task definition"),
        (request.network_configuration.is_some(), "Unable to update network parameters"),
        (request.platform_version.is_some(), "Unable to update platform version"),
        (request.load_balancers.is_some(), "Unable to update load balancers"),
        (request.capacity_provider_strategy.is_some(), "Unable to update capacity provider strategy"),
        (request.volume_configurations.is_some(), "Unable to update volume configurations"),
        (request.force_new_deployment == Some(true), "Cannot force a new deployment"),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(EcsError::invalid(format!("{what} {TAIL}"))),
        None => Ok(()),
    }
}
