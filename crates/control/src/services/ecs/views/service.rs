//! Services as the API shows them.

use crate::services::ecs::balanced;
use crate::services::ecs::bridge;
use crate::services::ecs::state::{
    Compute, Deployment, DeploymentConfiguration, DeploymentController, LaunchType, NetworkConfiguration,
    PlacementConstraint, PlacementStrategy, PropagateTags, RolloutState, Service, ServiceEvent,
    ServiceRevisionKey, ServiceStatus, StrategyItem, Task,
};
use crate::services::ecs::views::task::millis;
use crate::services::ecs::{compute, deployments, tags};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::alarms::DeploymentAlarms;
use gantry_decide::deployment::breaker::Threshold;
use gantry_decide::deployment::hooks::{Hook, HookAction};
use gantry_decide::deployment::strategy::Strategy;
use gantry_decide::ids::AlarmName;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::task::launch_volume::VolumeConfiguration;
use gantry_store::Record;

pub fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub fn configuration(configuration: &DeploymentConfiguration) -> ecs::DeploymentConfiguration {
    let breaker = configuration.circuit_breaker;
    let (type_, value) = match breaker.threshold {
        Threshold::BoundedPercent(percent) => (ecs::ThresholdType::BoundedPercent, percent),
        Threshold::UnboundedPercent(percent) => (ecs::ThresholdType::UnboundedPercent, percent),
        Threshold::Count(count) => (ecs::ThresholdType::Count, count),
    };
    ecs::DeploymentConfiguration {
        bake_time_in_minutes: Some(integer(configuration.bake_minutes)),
        canary_configuration: match configuration.strategy {
            Strategy::Canary { share, bake_minutes } => Some(ecs::CanaryConfiguration {
                canary_percent: Some(share.percent()),
                canary_bake_time_in_minutes: Some(integer(bake_minutes)),
            }),
            _ => None,
        },
        alarms: Some(&configuration.alarms).filter(|alarms| !alarms.is_unset()).map(alarms),
        deployment_circuit_breaker: Some(ecs::DeploymentCircuitBreaker {
            enable: breaker.enable,
            reset_on_healthy_task: Some(breaker.reset_on_healthy_task),
            rollback: breaker.rollback,
            threshold_configuration: Some(ecs::ThresholdConfiguration { type_, value: integer(value) }),
        }),
        early_success_criteria: configuration.early_success.map(|early| {
            ecs::DeploymentEarlySuccessCriteria {
                enable: true,
                healthy_percent: Some(integer(early.healthy_percent)),
                source_service_revision_cleanup: Some(match early.blocking {
                    true => ecs::ServiceRevisionCleanup::Blocking,
                    false => ecs::ServiceRevisionCleanup::Deferred,
                }),
            }
        }),
        lifecycle_hooks: Some(configuration.hooks.iter().map(hook).collect())
            .filter(|hooks: &Vec<_>| !hooks.is_empty()),
        linear_configuration: match configuration.strategy {
            Strategy::Linear { step, bake_minutes } => Some(ecs::LinearConfiguration {
                step_percent: Some(step.percent()),
                step_bake_time_in_minutes: Some(integer(bake_minutes)),
            }),
            _ => None,
        },
        maximum_percent: Some(integer(configuration.maximum_percent)),
        minimum_healthy_percent: Some(integer(configuration.minimum_healthy_percent)),
        strategy: Some(match configuration.strategy {
            Strategy::Rolling => ecs::DeploymentStrategy::Rolling,
            Strategy::BlueGreen => ecs::DeploymentStrategy::BlueGreen,
            Strategy::Linear { .. } => ecs::DeploymentStrategy::Linear,
            Strategy::Canary { .. } => ecs::DeploymentStrategy::Canary,
        }),
    }
}

fn alarms(alarms: &DeploymentAlarms) -> ecs::DeploymentAlarms {
    ecs::DeploymentAlarms {
        alarm_names: alarms.names.iter().map(AlarmName::to_string).collect(),
        enable: alarms.enable,
        rollback: alarms.rollback,
    }
}

fn hook(hook: &Hook) -> ecs::DeploymentLifecycleHook {
    ecs::DeploymentLifecycleHook {
        lifecycle_stages: Some(hook.stages.iter().filter_map(|stage| stage.as_str().parse().ok()).collect()),
        target_type: Some(ecs::DeploymentLifecycleHookTargetType::Pause),
        timeout_configuration: Some(ecs::DeploymentLifecycleHookTimeoutConfiguration {
            action: Some(action(hook.timeout_action)),
            timeout_in_minutes: Some(integer(hook.timeout_minutes)),
        }),
        ..Default::default()
    }
}

pub fn action(action: HookAction) -> ecs::DeploymentLifecycleHookAction {
    match action {
        HookAction::Continue => ecs::DeploymentLifecycleHookAction::Continue,
        HookAction::Rollback => ecs::DeploymentLifecycleHookAction::Rollback,
    }
}

fn revision(
    view: View<'_>,
    service: &Service,
    deployment: &Deployment,
) -> ecs::ServiceCurrentRevisionSummary {
    let tasks = deployments::tasks_of(view, service, deployment);
    let key = ServiceRevisionKey { service: service.key(), id: tasks.revision };
    ecs::ServiceCurrentRevisionSummary {
        arn: Some(key.arn(view.scope).to_string()),
        pending_task_count: Some(integer(tasks.pending)),
        requested_task_count: Some(integer(tasks.requested)),
        running_task_count: Some(integer(tasks.running)),
    }
}

/// The whole service; `tags` only where they were asked for.
pub fn service(view: View<'_>, service: &Service, with_tags: bool) -> ecs::Service {
    let scope = view.scope;
    let tasks: Vec<&Task> = view
        .state
        .ecs
        .tasks_of(&service.key())
        .filter(|task| task.desired_status == DesiredStatus::Running)
        .collect();
    let of_sets = service.has_task_sets();
    let primary = service.shown();
    let definition =
        primary.map(|p| scope.ecs(EcsResource::TaskDefinition(p.task_definition.clone())).to_string());
    let (launch_type, strategy) = compute(primary.map(|primary| &primary.compute));
    let fargate = primary.is_some_and(|primary| primary.compute.launch_type() == LaunchType::Fargate);
    ecs::Service {
        availability_zone_rebalancing: Some(if service.availability_zone_rebalancing {
            ecs::AvailabilityZoneRebalancing::Enabled
        } else {
            ecs::AvailabilityZoneRebalancing::Disabled
        }),
        capacity_provider_strategy: strategy,
        cluster_arn: Some(scope.ecs(EcsResource::Cluster(service.cluster.clone())).to_string()),
        created_at: millis(Some(service.created_at)),
        created_by: Some(service.created_by.clone()),
        current_service_deployment: deployments::current(view, service)
            .map(|attempt| attempt.key().arn(scope).to_string()),
        current_service_revisions: Some(
            service
                .deployments
                .iter()
                .filter(|_| !of_sets)
                .map(|deployment| revision(view, service, deployment))
                .collect(),
        ),
        deployment_configuration: Some(configuration(&service.configuration)),
        deployment_controller: Some(ecs::DeploymentController {
            type_: match service.controller {
                DeploymentController::Ecs => ecs::DeploymentControllerType::Ecs,
                DeploymentController::External => ecs::DeploymentControllerType::External,
                DeploymentController::CodeDeploy => ecs::DeploymentControllerType::CodeDeploy,
            },
        }),
        deployments: Some(
            service
                .deployments
                .iter()
                .filter(|_| !of_sets)
                .enumerate()
                .map(|(index, d)| deployment(view, service, d, index == 0, &tasks))
                .collect(),
        ),
        desired_count: Some(integer(service.desired_count)),
        enable_ecs_managed_tags: Some(service.enable_ecs_managed_tags),
        enable_execute_command: Some(service.enable_execute_command),
        events: Some(service.events.iter().rev().map(|told| event(told)).collect()),
        health_check_grace_period_seconds: (!service.load_balancers.is_empty()
            || service.controller == DeploymentController::External)
            .then(|| integer(service.health_check_grace_period_seconds)),
        launch_type,
        load_balancers: Some(balanced::show(view, &service.load_balancers)),
        network_configuration: primary.and_then(|p| p.network.as_ref()).map(network),
        pending_count: Some(count(&tasks, |task| task.last_status < LastStatus::Running)),
        placement_constraints: Some(service.placement_constraints.iter().map(constraint).collect()),
        placement_strategy: Some(service.placement_strategy.iter().map(strategy_of).collect()),
        platform_family: fargate.then(|| "Linux".to_owned()),
        platform_version: primary.filter(|_| fargate).map(asked_platform),
        propagate_tags: match service.propagate_tags {
            PropagateTags::TaskDefinition => Some(ecs::PropagateTags::TaskDefinition),
            PropagateTags::Service => Some(ecs::PropagateTags::Service),
            PropagateTags::None => Some(ecs::PropagateTags::None),
        },
        running_count: Some(count(&tasks, |task| task.last_status == LastStatus::Running)),
        scheduling_strategy: service.scheduling_strategy.as_str().parse().ok(),
        service_arn: Some(service.arn(scope).to_string()),
        service_name: Some(service.name.to_string()),
        service_registries: Some(Vec::new()),
        status: Some(status(service.status).to_owned()),
        tags: with_tags.then(|| tags::show(&service.tags)),
        task_definition: definition,
        task_sets: of_sets.then(|| super::task_set::all(view, service)),
        ..Default::default()
    }
}

pub fn status(status: ServiceStatus) -> &'static str {
    match status {
        ServiceStatus::Active => "ACTIVE",
        ServiceStatus::Draining => "DRAINING",
        ServiceStatus::Inactive => "INACTIVE",
    }
}

pub fn asked_platform(deployment: &Deployment) -> String {
    deployment.platform_version.clone().unwrap_or_else(|| "LATEST".to_owned())
}

/// The platform that tasks run on, of Fargate. What is stored was checked when it was asked for.
pub fn platform(launch_type: LaunchType, asked: Option<&str>) -> Option<String> {
    compute::platform_version(launch_type, asked).unwrap_or_default()
}

pub fn count(tasks: &[&Task], which: impl Fn(&Task) -> bool) -> i32 {
    i32::try_from(tasks.iter().filter(|task| which(task)).count()).unwrap_or(i32::MAX)
}

pub type Shown = (Option<ecs::LaunchType>, Option<Vec<ecs::CapacityProviderStrategyItem>>);

pub fn compute(compute: Option<&Compute>) -> Shown {
    match compute {
        None => (None, None),
        Some(Compute::LaunchType(launch_type)) => (launch_type.as_str().parse().ok(), None),
        Some(Compute::Strategy(items) | Compute::ManagedInstances(items)) => {
            (None, Some(items.iter().map(strategy_item).collect()))
        }
    }
}

fn strategy_item(item: &StrategyItem) -> ecs::CapacityProviderStrategyItem {
    ecs::CapacityProviderStrategyItem {
        capacity_provider: item.capacity_provider.to_string(),
        weight: Some(integer(item.weight)),
        base: Some(integer(item.base)),
    }
}

fn deployment(
    view: View<'_>,
    service: &Service,
    deployment: &Deployment,
    is_primary: bool,
    tasks: &[&Task],
) -> ecs::Deployment {
    let own: Vec<&Task> =
        tasks.iter().copied().filter(|task| task.deployment() == Some(deployment.id)).collect();
    let (launch_type, strategy) = compute(Some(&deployment.compute));
    let fargate = deployment.compute.launch_type() == LaunchType::Fargate;
    let desired = deployments::tasks_of(view, service, deployment).requested;
    ecs::Deployment {
        capacity_provider_strategy: strategy,
        created_at: millis(Some(deployment.created_at)),
        desired_count: Some(integer(desired)),
        failed_tasks: Some(integer(deployment.failures.consecutive)),
        id: Some(deployment.id.to_string()),
        launch_type,
        network_configuration: deployment.network.as_ref().map(network),
        volume_configurations: deployment.volume.as_ref().and_then(volume),
        pending_count: Some(count(&own, |task| task.last_status < LastStatus::Running)),
        platform_family: fargate.then(|| "Linux".to_owned()),
        platform_version: platform(deployment.compute.launch_type(), deployment.platform_version.as_deref()),
        rollout_state: Some(match deployment.rollout_state {
            RolloutState::InProgress => ecs::DeploymentRolloutState::InProgress,
            RolloutState::Completed => ecs::DeploymentRolloutState::Completed,
            RolloutState::Failed => ecs::DeploymentRolloutState::Failed,
        }),
        rollout_state_reason: Some(deployment.rollout_state_reason.clone()),
        running_count: Some(count(&own, |task| task.last_status == LastStatus::Running)),
        status: Some(if is_primary { "PRIMARY" } else { "ACTIVE" }.to_owned()),
        task_definition: Some(
            view.scope.ecs(EcsResource::TaskDefinition(deployment.task_definition.clone())).to_string(),
        ),
        updated_at: millis(Some(deployment.updated_at)),
        ..Default::default()
    }
}

/// The volume that each task gets. What was read from the API's shape has one.
pub fn volume(volume: &VolumeConfiguration) -> Option<Vec<ecs::ServiceVolumeConfiguration>> {
    bridge::shape_of(volume).ok().map(|volume| vec![volume])
}

fn event(event: &ServiceEvent) -> ecs::ServiceEvent {
    ecs::ServiceEvent {
        created_at: millis(Some(event.created_at)),
        id: Some(event.id.clone()),
        message: Some(event.message.clone()),
    }
}

pub fn network(network: &NetworkConfiguration) -> ecs::NetworkConfiguration {
    ecs::NetworkConfiguration {
        awsvpc_configuration: Some(ecs::AwsVpcConfiguration {
            assign_public_ip: Some(if network.assign_public_ip {
                ecs::AssignPublicIp::Enabled
            } else {
                ecs::AssignPublicIp::Disabled
            }),
            security_groups: Some(network.security_groups.clone()),
            subnets: network.subnets.clone(),
        }),
    }
}

fn constraint(constraint: &PlacementConstraint) -> ecs::PlacementConstraint {
    match constraint {
        PlacementConstraint::DistinctInstance => ecs::PlacementConstraint {
            type_: Some(ecs::PlacementConstraintType::DistinctInstance),
            expression: None,
        },
        PlacementConstraint::MemberOf(expression) => ecs::PlacementConstraint {
            type_: Some(ecs::PlacementConstraintType::MemberOf),
            expression: Some(expression.clone()),
        },
    }
}

fn strategy_of(strategy: &PlacementStrategy) -> ecs::PlacementStrategy {
    let (type_, field) = match strategy {
        PlacementStrategy::Random => (ecs::PlacementStrategyType::Random, None),
        PlacementStrategy::Spread(field) => (ecs::PlacementStrategyType::Spread, Some(field.clone())),
        PlacementStrategy::Binpack(field) => (ecs::PlacementStrategyType::Binpack, Some(field.clone())),
    };
    ecs::PlacementStrategy { type_: Some(type_), field }
}
