//! What is done about a service: tasks started and stopped, their ends and failures noted.

use super::census::placement_strategies;
use super::{PLACE_AGAIN, Why};
use crate::services::ecs::balanced::{self, Verdict};
use crate::services::ecs::compute;
use crate::services::ecs::deployments::{self, tell};
use crate::services::ecs::launch::{self, Launch};
use crate::services::ecs::state::{
    ContainerInstanceKey, Deployment, EffectiveDefinition, LaunchType, PropagateTags, RolloutState, Service,
    StartedBy, Task, TaskKey,
};
use crate::services::elbv2::state::{TargetId, TargetKey};
use crate::tx::{Tx, View};
use gantry_decide::deployment::{back_off, events, replacement};
use gantry_decide::ids::{CapacityProviderName, DeploymentId, TaskId};
use gantry_decide::lifecycle::{DesiredStatus, StopCode};
use gantry_decide::placement::{Among, Refusal, Refusals};
use gantry_decide::routing::Reason;
use gantry_decide::task::TaskOverride;
use gantry_store::Record;
use std::collections::BTreeMap;

/// The tasks that failed, by deployment: those that never ran, and those that were stopped for their health.
pub type Failed = BTreeMap<DeploymentId, (u32, u32)>;

/// Notes which tasks have ended, and in `failed` those that never ran.
pub fn note_ends(tx: &mut Tx<'_>, service: &mut Service, ended: &[(TaskKey, bool)], failed: &mut Failed) {
    let quota = tx.state.installation.quotas.replaced_tasks;
    for (key, never_ran) in ended {
        let ends = |task: &&Task| !task.is_live() || task.ends_by_itself();
        let Some(mut task) = tx.state.ecs.task(key).filter(ends).cloned() else { continue };
        let by_itself = task.ends_by_itself();
        let own = |known: &&mut Deployment| by_itself && Some(known.id) == task.deployment();
        if let Some(deployment) = service.deployments.iter_mut().find(own) {
            let full_at = replacement::spend(deployment.replacements_full_at, 1, quota, tx.now);
            deployment.replacements_full_at = Some(full_at);
        }
        if *never_ran
            && by_itself
            && let Some(id) = task.deployment()
        {
            failed.entry(id).or_default().0 += 1;
            let reason = task.stopped_reason.as_deref().and_then(events::placement_failure);
            if let Some(reason) = reason.filter(|_| task.launch_type == LaunchType::Fargate) {
                let message = events::cannot_place(&teller_of(service, &task), reason);
                if !service.has_told(&message, tx.now) {
                    tell(tx, service, message);
                }
            }
        }
        task.accounted = true;
        tx.state.ecs.put_task(task);
    }
}

/// Counts tasks that failed, by deployment, and how patient to be after those that never ran: older deployments have their
/// tasks replaced too while a newer one does not serve. The circuit breaker looks at all of the primary deployment's.
pub fn note_failures(tx: &mut Tx<'_>, service: &mut Service, failed: &Failed) {
    let (desired, breaker) = (service.desired_count, service.configuration.circuit_breaker);
    let (mut trips, mut patient) = (false, Vec::new());
    for (index, deployment) in service.deployments.iter_mut().enumerate() {
        let Some(&(never_ran, unhealthy)) = failed.get(&deployment.id) else { continue };
        deployment.failures.add(never_ran, unhealthy);
        deployment.failed_at = Some(tx.now);
        deployment.updated_at = tx.now;
        trips |= index == 0
            && deployment.task_set.is_none()
            && deployment.rollout_state == RolloutState::InProgress
            && breaker.trips(deployment.failures, desired);
        // Nothing more of one that has failed is started.
        let patience = never_ran > 0 && deployment.rollout_state != RolloutState::Failed;
        if let Some(delay) = back_off::delay(deployment.failures.starts).filter(|_| patience) {
            deployment.launch_not_before = Some(tx.now + delay);
            patient.push(index);
        }
    }
    if trips {
        return deployments::trip(tx, service);
    }
    for index in patient {
        let message = events::cannot_start_consistently(&teller(service, index));
        tell(tx, service, message);
    }
}

/// The place of a task's deployment, if that is a task set; else of the primary one.
fn index_of(service: &Service, task: &Task) -> usize {
    let own =
        |deployment: &Deployment| deployment.task_set.is_some() && Some(deployment.id) == task.deployment();
    service.deployments.iter().position(own).unwrap_or_default()
}

/// Who tells an event of a task: its service, or its task set.
pub fn teller_of(service: &Service, task: &Task) -> String {
    teller(service, index_of(service, task))
}

/// Who tells an event of a deployment: the service, or one of its task sets.
pub fn teller(service: &Service, index: usize) -> String {
    match service.deployments.get(index).filter(|deployment| deployment.task_set.is_some()) {
        Some(set) => format!("{}, taskSet {}", service.name, set.id),
        None => service.name.to_string(),
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

/// Stops tasks, and notes in `failed` those that are stopped for their health.
pub fn stop(tx: &mut Tx<'_>, service: &mut Service, tasks: &[(TaskKey, Why)], failed: &mut Failed) {
    let Some(primary) = service.primary().map(|primary| primary.id) else { return };
    let mut stopped: BTreeMap<usize, Vec<TaskId>> = BTreeMap::new();
    for (key, why) in tasks {
        let Some(mut task) = tx.state.ecs.task(key).cloned() else { continue };
        let reason = match why {
            Why::Scaling => format!("Scaling activity initiated by (deployment {primary})"),
            Why::Unhealthy => "Task failed container health checks".to_owned(),
        };
        // Told of before the task drains.
        let by_balancer = match balanced::verdict(tx.view(), service, &task) {
            Verdict::Unhealthy(target, cause) if *why == Why::Unhealthy => {
                let group = tx.scope.balancing(target.group.clone()).to_string();
                let reason = format!("Task failed ELB health checks in (target-group {group})");
                Some((reason, unhealthy_target(service, &task, &target, &group, cause)))
            }
            _ => None,
        };
        let reason = by_balancer.as_ref().map_or(reason, |(reason, _)| reason.clone());
        if task.request_stop(StopCode::ServiceSchedulerInitiated, &reason, tx.now) {
            if *why == Why::Unhealthy {
                if let Some(id) = task.deployment() {
                    failed.entry(id).or_default().1 += 1;
                }
                let by_itself = || events::failed_health_checks(service.name.as_str(), task.id);
                let message = by_balancer.map_or_else(by_itself, |(_, message)| message);
                tell(tx, service, message);
            }
            let teller = index_of(service, &task);
            stopped.entry(teller).or_default().push(task.id);
            tx.state.ecs.put_task(task);
        }
    }
    for (index, tasks) in stopped {
        let message = events::stopped(&teller(service, index), &tasks);
        tell(tx, service, message);
    }
}

/// What a service tells of a task that its load balancer found unhealthy.
fn unhealthy_target(
    service: &Service,
    task: &Task,
    target: &TargetKey,
    group: &str,
    cause: Option<Reason>,
) -> String {
    let instance = match &target.id {
        TargetId::Instance(id) => Some(id.as_str()),
        TargetId::Ip(_) => None,
    };
    let cause = cause.map(|cause| cause.description()).unwrap_or_default();
    events::unhealthy_target(&teller_of(service, task), task.id, instance, target.port, group, &cause)
}

/// A launch of the deployment's tasks, or what the service tells where there is nothing to launch any more.
pub fn launch_of(view: View<'_>, service: &Service, deployment: &Deployment) -> Result<Launch, String> {
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
        started_by: Some(StartedBy::Deployment(deployment.id)),
        tags,
        enable_execute_command: service.enable_execute_command,
        balanced: balanced::groups(service, deployment),
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
            let of_provider = launch.capacity_provider.is_some();
            refusal = Some((refusals, if of_provider { Among::CapacityProvider } else { Among::Cluster }));
        }
    }
    note_launch(tx, service, index, (count, &started), replaces, refusal);
    if too_many_wait {
        if let Some(deployment) = service.deployments.get_mut(index) {
            deployment.launch_not_before = Some(tx.now + PLACE_AGAIN);
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
    note_launch(
        tx,
        service,
        0,
        (instances.len(), &started),
        0,
        refused.then_some((refusals, Among::Cluster)),
    );
}

/// Tells what was started of so many, and why there is no more, and where that was looked for.
fn note_launch(
    tx: &mut Tx<'_>,
    service: &mut Service,
    index: usize,
    (wanted, started): (usize, &[TaskId]),
    replaces: usize,
    refusal: Option<(Refusals<ContainerInstanceKey>, Among)>,
) {
    let teller = teller(service, index);
    if !started.is_empty() {
        let message = events::started(&teller, started, replaces.min(started.len()));
        tell(tx, service, message);
    }
    let Some((refusals, among)) = refusal else { return };
    let Some(deployment) = service.deployments.get_mut(index) else { return };
    deployment.launch_not_before = Some(tx.now + PLACE_AGAIN);
    let lacks_address = matches!(refusals.closest, Some((_, Refusal::Eni)));
    let message = match deployment.compute.launch_type() {
        LaunchType::Fargate if lacks_address => {
            events::could_not_launch(&teller, wanted.saturating_sub(started.len()), deployment.id)
        }
        LaunchType::Fargate => events::cannot_place(&teller, events::NO_CAPACITY),
        _ => refusals.service_event(&teller, among, |key| key.id.to_string()),
    };
    tell(tx, service, message);
}

/// How many live tasks of the deployment each capacity provider has.
pub fn providers_of(
    view: View<'_>,
    service: &Service,
    deployment: &Deployment,
) -> BTreeMap<CapacityProviderName, usize> {
    let mut counts = BTreeMap::new();
    for task in view.state.ecs.tasks_of(&service.key()) {
        let counts_for =
            task.desired_status == DesiredStatus::Running && task.deployment() == Some(deployment.id);
        if let Some(provider) = task.capacity_provider.clone().filter(|_| counts_for) {
            *counts.entry(provider).or_default() += 1;
        }
    }
    counts
}
