//! Service deployments and revisions as the API shows them.

use super::service;
use crate::services::ecs::state::{
    LaunchType, RevisionTasks, Service, ServiceDeployment, ServiceRevision, ServiceRevisionKey,
};
use crate::services::ecs::views::task::millis;
use crate::services::ecs::{balanced, deployments};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::hooks::{HookRun, HookStatus};
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::deployment::traffic::{Traffic, Weights};
use gantry_decide::ids::{AlarmName, ServiceRevisionId};
use gantry_decide::time::Timestamp;
use gantry_store::Record;

/// An attempt is shown with its tasks as they are while it goes on, and as they were when it ended.
pub fn service_deployment(view: View<'_>, attempt: &ServiceDeployment) -> ecs::ServiceDeployment {
    let owner = view.state.ecs.service(&attempt.service);
    let brief = brief(view, attempt);
    let summary = |tasks: RevisionTasks| summary(view, attempt, tasks);
    let sources =
        attempt.sources.iter().map(|source| now(view, attempt, owner, source.revision).unwrap_or(*source));
    let target = attempt.target_tasks.or_else(|| now(view, attempt, owner, attempt.target));
    let none = RevisionTasks { revision: attempt.target, requested: 0, running: 0, pending: 0 };
    ecs::ServiceDeployment {
        alarms: alarms(attempt),
        cluster_arn: brief.cluster_arn,
        created_at: brief.created_at,
        deployment_circuit_breaker: Some(breaker(owner, attempt)),
        deployment_configuration: Some(service::configuration(&attempt.configuration)),
        finished_at: brief.finished_at,
        lifecycle_hook_details: attempt
            .shift
            .as_ref()
            .map(|shift| {
                let over = attempt.status.is_over();
                // Of a deployment that is over, nobody is asked any more.
                let waits = |run: &&HookRun| over && run.status_at(view.now) == HookStatus::AwaitingAction;
                shift.hooks.iter().filter(|run| !waits(run)).map(|run| hook(run, view.now)).collect()
            })
            .filter(|hooks: &Vec<_>| !hooks.is_empty()),
        lifecycle_stage: attempt.shift.as_ref().and_then(|shift| shift.stage.shown().as_str().parse().ok()),
        rollback: attempt.rollback.as_ref().map(|rollback| ecs::Rollback {
            reason: Some(rollback.reason.clone()),
            service_revision_arn: Some(revision_arn(view, attempt, rollback.revision)),
            started_at: millis(Some(rollback.started_at)),
        }),
        service_arn: brief.service_arn,
        service_deployment_arn: brief.service_deployment_arn,
        source_service_revisions: Some(sources.map(summary).collect()),
        started_at: brief.started_at,
        status: brief.status,
        status_reason: brief.status_reason,
        stopped_at: millis(attempt.stopped_at),
        target_service_revision: Some(summary(target.unwrap_or(none))),
        updated_at: millis(Some(attempt.updated_at)),
    }
}

/// A revision's tasks as they are; of an attempt that is over, nobody asks.
fn now(
    view: View<'_>,
    attempt: &ServiceDeployment,
    owner: Option<&Service>,
    revision: ServiceRevisionId,
) -> Option<RevisionTasks> {
    let owner = owner.filter(|_| !attempt.status.is_over())?;
    let deployment = owner.deployments.iter().find(|deployment| deployment.revision == revision)?;
    Some(deployments::tasks_of(view, owner, deployment))
}

fn revision_arn(view: View<'_>, attempt: &ServiceDeployment, id: ServiceRevisionId) -> String {
    ServiceRevisionKey { service: attempt.service.clone(), id }.arn(view.scope).to_string()
}

fn summary(view: View<'_>, attempt: &ServiceDeployment, tasks: RevisionTasks) -> ecs::ServiceRevisionSummary {
    ecs::ServiceRevisionSummary {
        arn: Some(revision_arn(view, attempt, tasks.revision)),
        pending_task_count: Some(service::integer(tasks.pending)),
        requested_task_count: Some(service::integer(tasks.requested)),
        running_task_count: Some(service::integer(tasks.running)),
        requested_production_traffic_weight: weight(attempt, |traffic| &traffic.production, tasks.revision),
        requested_test_traffic_weight: weight(attempt, |traffic| &traffic.test, tasks.revision),
    }
}

/// The share that a revision is to get, of a deployment that shifts traffic.
fn weight(
    attempt: &ServiceDeployment,
    which: fn(&Traffic) -> &Weights,
    revision: ServiceRevisionId,
) -> Option<f64> {
    attempt.shift.as_ref().map(|shift| which(&shift.traffic).of(revision).percent())
}

fn hook(run: &HookRun, now: Timestamp) -> ecs::DeploymentLifecycleHookDetail {
    ecs::DeploymentLifecycleHookDetail {
        expires_at: millis(Some(run.expires_at)),
        hook_id: Some(run.id.clone()),
        status: run.status_at(now).as_str().parse().ok(),
        target_type: Some(ecs::DeploymentLifecycleHookTargetType::Pause),
        timeout_action: Some(service::action(run.timeout_action)),
        target_arn: None,
    }
}

fn breaker(owner: Option<&Service>, attempt: &ServiceDeployment) -> ecs::ServiceDeploymentCircuitBreaker {
    let counted = attempt.failures.or_else(|| owner.map(|owner| deployments::failures(owner, attempt)));
    let (failures, threshold) = counted.unwrap_or_default();
    let status = if !attempt.configuration.circuit_breaker.enable {
        ecs::ServiceDeploymentRollbackMonitorsStatus::Disabled
    } else if attempt.tripped {
        ecs::ServiceDeploymentRollbackMonitorsStatus::Triggered
    } else if attempt.status.is_over() {
        ecs::ServiceDeploymentRollbackMonitorsStatus::MonitoringComplete
    } else {
        ecs::ServiceDeploymentRollbackMonitorsStatus::Monitoring
    };
    ecs::ServiceDeploymentCircuitBreaker {
        failure_count: Some(service::integer(failures)),
        status: Some(status),
        threshold: Some(service::integer(threshold)),
    }
}

/// How its alarms are watched, if it names any.
fn alarms(attempt: &ServiceDeployment) -> Option<ecs::ServiceDeploymentAlarms> {
    let names = |names: &[AlarmName]| names.iter().map(AlarmName::to_string).collect();
    let (status, triggered) = match &attempt.alarms {
        Watch::Disabled => (ecs::ServiceDeploymentRollbackMonitorsStatus::Disabled, &[][..]),
        Watch::Triggered(triggered) => {
            (ecs::ServiceDeploymentRollbackMonitorsStatus::Triggered, triggered.as_slice())
        }
        Watch::Monitoring if attempt.status.is_over() => {
            (ecs::ServiceDeploymentRollbackMonitorsStatus::MonitoringComplete, &[][..])
        }
        Watch::Monitoring => (ecs::ServiceDeploymentRollbackMonitorsStatus::Monitoring, &[][..]),
    };
    let named = &attempt.configuration.alarms.names;
    (!named.is_empty()).then(|| ecs::ServiceDeploymentAlarms {
        alarm_names: Some(names(named)),
        status: Some(status),
        triggered_alarm_names: Some(names(triggered)),
    })
}

/// As lists show it.
pub fn brief(view: View<'_>, attempt: &ServiceDeployment) -> ecs::ServiceDeploymentBrief {
    let cluster = EcsResource::Cluster(attempt.service.cluster.clone());
    ecs::ServiceDeploymentBrief {
        cluster_arn: Some(view.scope.ecs(cluster).to_string()),
        created_at: millis(Some(attempt.created_at)),
        finished_at: millis(attempt.finished_at),
        service_arn: Some(attempt.service.arn(view.scope).to_string()),
        service_deployment_arn: Some(attempt.key().arn(view.scope).to_string()),
        started_at: millis(attempt.started_at),
        status: Some(status(attempt.status)),
        status_reason: attempt.status_reason.clone(),
        target_service_revision_arn: Some(revision_arn(view, attempt, attempt.target)),
    }
}

fn status(status: ServiceDeploymentStatus) -> ecs::ServiceDeploymentStatus {
    match status {
        ServiceDeploymentStatus::Pending => ecs::ServiceDeploymentStatus::Pending,
        ServiceDeploymentStatus::InProgress => ecs::ServiceDeploymentStatus::InProgress,
        ServiceDeploymentStatus::Successful => ecs::ServiceDeploymentStatus::Successful,
        ServiceDeploymentStatus::StopRequested => ecs::ServiceDeploymentStatus::StopRequested,
        ServiceDeploymentStatus::Stopped => ecs::ServiceDeploymentStatus::Stopped,
        ServiceDeploymentStatus::RollbackRequested => ecs::ServiceDeploymentStatus::RollbackRequested,
        ServiceDeploymentStatus::RollbackInProgress => ecs::ServiceDeploymentStatus::RollbackInProgress,
        ServiceDeploymentStatus::RollbackSuccessful => ecs::ServiceDeploymentStatus::RollbackSuccessful,
        ServiceDeploymentStatus::RollbackFailed => ecs::ServiceDeploymentStatus::RollbackFailed,
    }
}

pub fn service_revision(view: View<'_>, revision: &ServiceRevision) -> ecs::ServiceRevision {
    let scope = view.scope;
    let (launch_type, capacity_provider_strategy) = service::compute(Some(&revision.compute));
    let fargate = revision.compute.launch_type() == LaunchType::Fargate;
    let registered = view.state.ecs.task_definitions.get(&revision.task_definition);
    let images = registered.map(|record| {
        let containers = record.definition.container_definitions.iter();
        let image = |container: &gantry_decide::task::ContainerDefinition| ecs::ContainerImage {
            container_name: Some(container.name.to_string()),
            image: Some(container.image.clone()),
            image_digest: revision.image_digests.get(&container.name).cloned(),
        };
        containers.map(image).collect()
    });
    ecs::ServiceRevision {
        capacity_provider_strategy,
        cluster_arn: Some(scope.ecs(EcsResource::Cluster(revision.service.cluster.clone())).to_string()),
        container_images: images,
        created_at: millis(Some(revision.created_at)),
        guard_duty_enabled: Some(false),
        launch_type,
        load_balancers: Some(balanced::show(view, &revision.load_balancers)),
        network_configuration: revision.network.as_ref().map(service::network),
        volume_configurations: revision.volume.as_ref().and_then(service::volume),
        platform_family: fargate.then(|| "Linux".to_owned()),
        platform_version: service::platform(
            revision.compute.launch_type(),
            revision.platform_version.as_deref(),
        ),
        resolved_configuration: balanced::resolved(view, revision),
        service_arn: Some(revision.service.arn(scope).to_string()),
        service_registries: Some(Vec::new()),
        service_revision_arn: Some(revision.key().arn(scope).to_string()),
        task_definition: Some(
            scope.ecs(EcsResource::TaskDefinition(revision.task_definition.clone())).to_string(),
        ),
        ..Default::default()
    }
}
