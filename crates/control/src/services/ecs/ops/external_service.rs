//! Services whose deployments somebody else drives, by task sets: what they are made of, and what may be changed of them.

use crate::call::Call;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::service::{desired_count, draft, rebalancing};
use crate::services::ecs::state::{DeploymentController, Service, ServiceKey};
use crate::services::ecs::{balanced, check, convert};
use crate::tx::Tx;
use gantry_api::ecs;
use gantry_decide::ids::ServiceDeploymentId;

/// Members that say what runs where: they are the task sets' own.
fn refuse(members: &[(bool, &str)]) -> Result<(), EcsError> {
    match members.iter().find(|(given, _)| *given) {
        Some((_, member)) => Err(EcsError::invalid(format!(
            "{member} cannot be specified for services with an EXTERNAL deployment controller. It belongs to their task \
             sets."
        ))),
        None => Ok(()),
    }
}

pub fn create(
    tx: &mut Tx<'_>,
    call: &Call,
    key: ServiceKey,
    request: &ecs::CreateServiceRequest,
) -> Result<Service, EcsError> {
    refuse(&[
        (request.task_definition.is_some(), "taskDefinition"),
        (request.launch_type.is_some(), "launchType"),
        (request.capacity_provider_strategy.is_some(), "capacityProviderStrategy"),
        (request.platform_version.is_some(), "platformVersion"),
        (request.network_configuration.is_some(), "networkConfiguration"),
        (request.volume_configurations.is_some(), "volumeConfigurations"),
        (request.deployment_configuration.is_some(), "deploymentConfiguration"),
    ])?;
    if request.scheduling_strategy == Some(ecs::SchedulingStrategy::Daemon) {
        return Err(EcsError::invalid(
            "The DAEMON scheduling strategy is not supported with the EXTERNAL deployment controller.",
        ));
    }
    let grace = request.health_check_grace_period_seconds;
    let service = Service {
        desired_count: desired_count(tx.view(), request.desired_count.unwrap_or_default())?,
        // Nobody attempts to deploy it but the maker of its task sets: there is no record of that id.
        attempt: ServiceDeploymentId::random(tx.random),
        placement_constraints: convert::constraints(request.placement_constraints.as_deref(), 0)?,
        placement_strategy: convert::strategies(request.placement_strategy.as_deref())?,
        // Its task sets bring the load balancers.
        health_check_grace_period_seconds: balanced::grace_period(grace, true)?,
        ..draft(tx, call, (key, DeploymentController::External), request)?
    };
    if rebalancing(request.availability_zone_rebalancing.as_ref()) == Some(true) {
        check::rebalancing(&service, service.launch_type())?;
    }
    tx.state.ecs.put_service(service.clone());
    Ok(service)
}

/// ECS lets the desired count, placement, the grace period and tags be changed.
pub fn check_update(request: &ecs::UpdateServiceRequest) -> Result<(), EcsError> {
    let of_controller = |what: &str| {
        Err(EcsError::invalid(format!(
            "Unable to update {what} on services with an EXTERNAL deployment controller. Use CreateTaskSet instead."
        )))
    };
    if request.task_definition.is_some() {
        return of_controller("task definition");
    }
    if request.network_configuration.is_some() {
        return of_controller("network parameters");
    }
    if request.force_new_deployment == Some(true) {
        return Err(EcsError::invalid(
            "Cannot force a new deployment on services with an EXTERNAL deployment controller.",
        ));
    }
    refuse(&[
        (request.capacity_provider_strategy.is_some(), "capacityProviderStrategy"),
        (request.platform_version.is_some(), "platformVersion"),
        (request.volume_configurations.is_some(), "volumeConfigurations"),
        (request.deployment_configuration.is_some(), "deploymentConfiguration"),
        (request.availability_zone_rebalancing.is_some(), "availabilityZoneRebalancing"),
    ])
}
