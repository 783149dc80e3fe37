//! What is done about a service: tasks started and stopped, their ends and failures noted.

use super::census::placement_strategies;
use super::{PLACE_AGAIN, Why};
use crate::services::ecs::compute;
use crate::services::ecs::deployments::{self, tell};
use crate::services::ecs::launch::{self, Launch};
use crate::services::ecs::state::{
    ContainerInstanceKey, Deployment, EffectiveDefinition, LaunchType, PropagateTags, RolloutState, Service,
    TaskKey,
};
use crate::tx::{Tx, View};
use gantry_decide::deployment::{back_off, events};
use gantry_decide::ids::{CapacityProviderName, TaskId};
use gantry_decide::lifecycle::{DesiredStatus, StopCode};
use gantry_decide::placement::Refusals;
use gantry_decide::task::TaskOverride;
use gantry_store::Record;
use std::collections::BTreeMap;

/// Notes which tasks have ended; says how many of the primary deployment's never ran.
pub fn note_ends(tx: &mut Tx<'_>, service: &Service, ended: &[(TaskKey, bool)]) -> u32 {
    let primary = service.primary().map(|primary| primary.id.to_string());
    let mut failed = 0;
    for (key, never_ran) in ended {
        let Some(mut task) = tx.state.ecs.task(key).filter(|task| !task.is_live()).cloned() else { continue };
        let of_primary = primary.is_some() && task.started_by == primary;
        failed += u32::from(*never_ran && of_primary && task.stop_code == Some(StopCode::TaskFailedToStart));
        task.accounted = true;
        tx.state.ecs.put_task(task);
    }
    failed
}

/// Counts tasks of the primary deployment that failed, and how patient to be after those that never ran. The circuit
/// breaker looks at all of them.
pub fn note_failures(tx: &mut Tx<'_>, service: &mut Service, never_ran: u32, unhealthy: u32) {
    let (desired, breaker) = (service.desired_count, service.configuration.circuit_breaker);
    let failed = never_ran.saturating_add(unhealthy);
    let Some(primary) = service.deployments.first_mut().filter(|_| failed > 0) else { return };
    primary.failures.add(never_ran, unhealthy);
    primary.failed_at = Some(tx.now);
    primary.updated_at = tx.now;
    let delay = back_off::delay(primary.failures.starts).filter(|_| never_ran > 0);
    if let Some(delay) = delay {
        primary.launch_not_before = Some(tx.now + delay);
    }
    if primary.rollout_state == RolloutState::InProgress && breaker.trips(primary.failures, desired) {
        deployments::trip(tx, service);
    } else if delay.is_some() {
        let message = events::cannot_start_consistently(service.name.as_str());
        tell(tx, service, message);
    }
}

/// Tags stay tags; with a circuit breaker, that fails the deployment, as ECS documents it.
pub fn go_on_undigested(tx: &mut Tx<'_>, service: &mut Service) {
    deployments::establish(tx, service, BTreeMap::new());
    let goes_on = service.primary().is_some_and(|p| p.rollout_state == RolloutState::InProgress);
    if goes_on && service.configuration.circuit_breaker.enable {
        deployments::trip(tx, service);
    }
}

/// Stops tasks; says how many of the primary deployment's were stopped for their health.
pub fn stop(tx: &mut Tx<'_>, service: &mut Service, tasks: &[(TaskKey, Why)]) -> u32 {
    let Some(primary) = service.primary().map(|primary| primary.id) else { return 0 };
    let id = primary.to_string();
    let mut unhealthy = 0;
    let mut stopped = Vec::new();
    for (key, why) in tasks {
        let Some(mut task) = tx.state.ecs.task(key).cloned() else { continue };
        let reason = match why {
            Why::Scaling => format!("Scaling activity initiated by (deployment {primary})"),
            Why::Unhealthy => "Task failed container health checks".to_owned(),
        };
        if task.request_stop(StopCode::ServiceSchedulerInitiated, &reason, tx.now) {
            if *why == Why::Unhealthy {
                unhealthy += u32::from(task.started_by.as_deref() == Some(id.as_str()));
                let message = events::failed_health_checks(service.name.as_str(), task.id);
                tell(tx, service, message);
            }
            stopped.push(task.id);
            tx.state.ecs.put_task(task);
        }
    }
    if !stopped.is_empty() {
        let message = events::stopped(service.name.as_str(), &stopped);
        tell(tx, service, message);
    }
    unhealthy
}

/// A launch of the deployment's tasks, or what the service tells where there is nothing to launch any more.
fn launch_of(view: View<'_>, service: &Service, deployment: &Deployment) -> Result<Launch, String> {
    let Some(record) = view.state.ecs.task_definitions.get(&deployment.task_definition).cloned() else {
        let message = format!(
            "(service {}) failed to launch a task with (error ClientException: TaskDefinition is inactive).",
            service.name
        );
        return Err(message);
    };
    let mut tags = match service.propagate_tags {
        PropagateTags::Service => service.tags.clone(),
        PropagateTags::TaskDefinition => record.tags.clone(),
        PropagateTags::None => Default::default(),
    };
    if service.enable_ecs_managed_tags {
        tags.insert("aws:ecs:clusterName".to_owned(), service.cluster.to_string());
        tags.insert("aws:ecs:serviceName".to_owned(), service.name.to_string());
    }
    let launch_type = deployment.compute.launch_type();
    let fargate = launch_type == LaunchType::Fargate;
    Ok(Launch {
        cluster: service.cluster.clone(),
        definition_id: record.id.clone(),
        definition: EffectiveDefinition::registered(std::sync::Arc::clone(&record.definition)),
        overrides: TaskOverride::default(),
        launch_type,
        capacity_provider: None,
        // It was checked when the service was made.
        platform_version: compute::platform_version(launch_type, deployment.platform_version.as_deref())
            .unwrap_or(None),
        network: deployment.network.clone(),
        volume: deployment.volume.clone(),
        constraints: service.placement_constraints.clone(),
        strategies: if fargate { Vec::new() } else { placement_strategies(service) },
        group: service.group(),
        started_by: Some(deployment.id.to_string()),
        tags,
        enable_execute_command: service.enable_execute_command,
        image_digests: deployment.image_digests.clone().unwrap_or_default(),
    })
}

/// Starts `count` tasks of the deployment at `index`, `replaces` of them in place of unhealthy ones.
pub fn start(tx: &mut Tx<'_>, service: &mut Service, index: usize, count: usize, replaces: usize) {
    let Some(deployment) = service.deployments.get(index).cloned() else { return };
    let mut launch = match launch_of(tx.view(), service, &deployment) {
        Ok(launch) => launch,
        Err(message) => return tell(tx, service, message),
    };
    let mut started: Vec<TaskId> = Vec::new();
    let mut refusal = None;
    let mut too_many_wait = false;
    for (provider, share) in
        deployment.compute.distribute(count, &providers_of(tx.view(), service, &deployment))
    {
        launch.capacity_provider = provider;
        // One that has no room keeps nobody from going to another.
        let launched = launch::place(tx, &launch, share);
        started.extend(launched.tasks.iter().map(|task| task.id));
        too_many_wait |= launched.too_many_wait;
        if let Some(refusals) = launched.refusals.filter(|_| !launched.too_many_wait) {
            refusal = Some((refusals, launch.capacity_provider.is_some()));
        }
    }
    note_launch(tx, service, &started, replaces, refusal);
    if too_many_wait {
        if let Some(primary) = service.deployments.first_mut() {
            primary.launch_not_before = Some(tx.now + PLACE_AGAIN);
        }
        let message = events::too_many_provisioning(service.name.as_str());
        tell(tx, service, message);
    }
}

/// Starts a daemon's task on each of the instances.
pub fn start_on(tx: &mut Tx<'_>, service: &mut Service, instances: &[ContainerInstanceKey]) {
    let Some(deployment) = service.primary().cloned() else { return };
    let launch = match launch_of(tx.view(), service, &deployment) {
        Ok(launch) => launch,
        Err(message) => return tell(tx, service, message),
    };
    let mut started: Vec<TaskId> = Vec::new();
    let mut refusals = Refusals::default();
    for instance in instances {
        match launch::start_if_it_fits(tx, &launch, instance.clone()) {
            Ok(task) => started.push(task.id),
            Err(refusal) => refusals.add(instance, refusal),
        }
    }
    let refused = refusals.closest.is_some();
    note_launch(tx, service, &started, 0, refused.then_some((refusals, false)));
}

/// Tells what was started, and why there is no more, and whether that was looked for in a capacity provider.
fn note_launch(
    tx: &mut Tx<'_>,
    service: &mut Service,
    started: &[TaskId],
    replaces: usize,
    refusal: Option<(Refusals<ContainerInstanceKey>, bool)>,
) {
    let fargate = service.primary().is_some_and(|p| p.compute.launch_type() == LaunchType::Fargate);
    if !started.is_empty() {
        let message = events::started(service.name.as_str(), started, replaces.min(started.len()));
        tell(tx, service, message);
    }
    if let Some((refusals, of_provider)) = refusal {
        if let Some(primary) = service.deployments.first_mut() {
            primary.launch_not_before = Some(tx.now + PLACE_AGAIN);
        }
        let message = if fargate {
            format!(
                "(service {}) was unable to place a task. Reason: Capacity is unavailable at this time. Please try again \
                 later or in a different availability zone. For more information, see the Troubleshooting section of the \
                 Amazon ECS Developer Guide.",
                service.name
            )
        } else {
            let place = if of_provider { "capacity provider" } else { "cluster" };
            refusals.service_event(service.name.as_str(), place, |key| key.id.to_string())
        };
        tell(tx, service, message);
    }
}

/// How many live tasks of the deployment each capacity provider has.
pub fn providers_of(
    view: View<'_>,
    service: &Service,
    deployment: &Deployment,
) -> BTreeMap<CapacityProviderName, usize> {
    let id = deployment.id.to_string();
    let mut counts = BTreeMap::new();
    for task in view.state.ecs.tasks_of(&service.key()) {
        let counts_for =
            task.desired_status == DesiredStatus::Running && task.started_by.as_ref() == Some(&id);
        if let Some(provider) = task.capacity_provider.clone().filter(|_| counts_for) {
            *counts.entry(provider).or_default() += 1;
        }
    }
    counts
}
