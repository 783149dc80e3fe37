//! Services: keeps each at its desired count, replaces what fails, rolls deployments forward and back, drains what is
//! deleted. How many tasks start and stop next is decided in `decide::deployment`; here is who they are.

use super::{Controller, LookAgain};
use crate::services::ecs::launch::{self, Launch, Launched};
use crate::services::ecs::state::{
    Change, ContainerInstanceKey, ContainerInstanceStatus, Deployment, EffectiveDefinition, LaunchType,
    PlacementStrategy, PropagateTags, RolloutState, Service, ServiceKey, ServiceStatus, Task, TaskKey,
};
use crate::services::ecs::{compute, placement};
use crate::tx::{Tx, View};
use gantry_decide::deployment::{back_off, events, rolling};
use gantry_decide::ids::{RequestId, TaskId};
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, LastStatus, StopCode};
use gantry_decide::placement::{ServiceTask, Strategy, scale_in};
use gantry_decide::random::Random;
use gantry_decide::task::TaskOverride;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A task without a health check counts as healthy once it has run so long: ECS's figure.
const HEALTHY_AFTER: Duration = Duration::from_secs(40);
/// Tasks started in one round; the next follows at once. ECS starts up to 500 a minute.
const STARTS_PER_ROUND_MAX: u32 = 50;
/// When to try again what could not be placed. Capacity that comes free shows up here at the latest.
const PLACE_AGAIN: Duration = Duration::from_secs(5);
/// How long a deleted service stays describable.
const RETENTION: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Services;

/// The next steps of one service.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Tasks whose end is noted, each with whether it never ran.
    ended: Vec<(TaskKey, bool)>,
    /// A task of the primary deployment became well after the last failure: what failed is forgiven.
    well: bool,
    start: u32,
    /// So many of those are started in place of unhealthy ones.
    replaces: u32,
    stop: Vec<(TaskKey, Why)>,
    blocked: bool,
    steady: bool,
    /// Older deployments without tasks.
    finished: Vec<gantry_decide::ids::DeploymentId>,
    /// A deleted service has no task left to wait for.
    drained: bool,
    forget: bool,
}

/// Why a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Scaling,
    Unhealthy,
}

impl Controller for Services {
    const NAME: &'static str = "services";
    type Key = ServiceKey;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<ServiceKey>) {
        match change {
            Change::Service(key) => {
                keys.insert(key.clone());
            }
            Change::Task(key) => keys.extend(view.state.ecs.task(key).and_then(Task::service_key)),
            // Draining moves the tasks that are there.
            Change::ContainerInstance(key) => {
                keys.extend(view.state.ecs.tasks_on(key).filter_map(Task::service_key));
            }
            Change::Cluster(_) | Change::TaskDefinition(_) | Change::ExecSession(_) => {}
        }
    }

    fn all(view: View<'_>) -> Vec<ServiceKey> {
        view.state.ecs.services().iter().map(|(key, _)| key.clone()).collect()
    }

    fn plan(view: View<'_>, key: &ServiceKey, random: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let Some(service) = view.state.ecs.service(key) else { return (None, None) };
        if service.status == ServiceStatus::Inactive {
            let until = service.inactive_since.unwrap_or(view.now) + RETENTION;
            let forget = (until <= view.now).then(|| Plan { forget: true, ..Plan::default() });
            return (forget, Some(until));
        }
        let mut census = Census::take(view, service);
        let mut plan = Plan {
            ended: std::mem::take(&mut census.ended),
            well: service.primary().is_some_and(|primary| census.forgives(primary)),
            ..Plan::default()
        };
        let situation = census.situation(service);
        let steps = situation.plan();
        if let Some(primary) = service.primary().filter(|_| service.status == ServiceStatus::Active) {
            let allowed = primary.launch_not_before.is_none_or(|at| at <= view.now)
                && primary.rollout_state != RolloutState::Failed
                && plan.ended.is_empty();
            plan.start = if allowed { steps.start.min(STARTS_PER_ROUND_MAX) } else { 0 };
            plan.replaces = plan.start.min(situation.target.unhealthy);
            plan.blocked = situation.is_blocked();
            plan.steady = situation.is_steady()
                && (service.steady_at.is_none() || primary.rollout_state == RolloutState::InProgress);
        }
        plan.stop = census.choose(view, service, steps, random);
        plan.drained = service.status == ServiceStatus::Draining && census.all_gone();
        plan.finished = census.finished(service);
        let look_again = look_again(view, service, &census, steps.start > 0);
        ((plan != Plan::default()).then_some(plan), look_again)
    }

    fn apply(tx: &mut Tx<'_>, key: &ServiceKey, plan: Plan) {
        if plan.forget {
            return tx.state.ecs.remove_service(key);
        }
        let Some(mut service) = tx.state.ecs.service(key).cloned() else { return };
        let before = service.clone();
        note_ends(tx, &mut service, &plan.ended);
        if let Some(primary) = service.deployments.first_mut().filter(|_| plan.well) {
            primary.failed_tasks = 0;
            primary.launch_not_before = None;
        }
        stop(tx, &mut service, &plan.stop);
        if plan.start > 0 {
            start(tx, &mut service, plan.start as usize, plan.replaces as usize);
        }
        service.deployments.retain(|deployment| !plan.finished.contains(&deployment.id));
        if plan.steady {
            arrive(tx, &mut service);
        } else if plan.start > 0 || !plan.stop.is_empty() || !plan.ended.is_empty() {
            service.steady_at = None;
        }
        if plan.blocked {
            let message = events::blocked(service.name.as_str());
            tell(tx, &mut service, message);
        }
        if plan.drained {
            service.status = ServiceStatus::Inactive;
            service.inactive_since = Some(tx.now);
            service.deployments.clear();
        }
        if service != before {
            tx.state.ecs.put_service(service);
        }
    }
}

/// The tasks of one service, by deployment and by how they do.
struct Census<'a> {
    target: rolling::Tasks,
    old: rolling::Tasks,
    stopping: u32,
    /// Live tasks that shall run, with how they do and whether they are of the primary deployment.
    running: Vec<(&'a Task, Condition, bool)>,
    ended: Vec<(TaskKey, bool)>,
    /// When the next young task will count as healthy.
    next_healthy: Option<Timestamp>,
    /// When the next protection ends.
    next_unprotected: Option<Timestamp>,
    /// Tasks asked to stop that have not even been signalled.
    waiting_to_stop: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Starting,
    Healthy,
    Unhealthy,
}

impl<'a> Census<'a> {
    fn take(view: View<'a>, service: &Service) -> Census<'a> {
        let mut census = Census {
            target: rolling::Tasks::default(),
            old: rolling::Tasks::default(),
            stopping: 0,
            running: Vec::new(),
            ended: Vec::new(),
            next_healthy: None,
            next_unprotected: None,
            waiting_to_stop: 0,
        };
        let primary = service.primary().map(|deployment| deployment.id.to_string());
        for task in view.state.ecs.in_books_of(&service_key(service)) {
            if !task.is_live() {
                census.ended.push((TaskKey::from(task), task.started_at.is_none()));
                continue;
            }
            if task.desired_status == DesiredStatus::Stopped {
                census.stopping += 1;
                census.waiting_to_stop += u32::from(task.last_status < LastStatus::Stopping);
                continue;
            }
            if let Some(until) = task.protected_until.filter(|_| task.is_protected(view.now)) {
                let next = &mut census.next_unprotected;
                *next = Some(next.map_or(until, |known: Timestamp| known.min(until)));
            }
            let is_target = primary.is_some() && task.started_by == primary;
            // On an instance that is being emptied it does not count for the target: another one takes its place.
            let stays = is_target && !on_draining_instance(view, task);
            let condition = match census.condition(view.now, task) {
                // Of the new ones proof is asked before old ones go; an old one that runs serves already.
                Condition::Starting if !stays && serves(task) => Condition::Healthy,
                condition => condition,
            };
            let side = if stays { &mut census.target } else { &mut census.old };
            match condition {
                Condition::Starting => side.starting += 1,
                Condition::Healthy => side.healthy += 1,
                Condition::Unhealthy => side.unhealthy += 1,
            }
            census.running.push((task, condition, stays));
        }
        census
    }

    fn condition(&mut self, now: Timestamp, task: &Task) -> Condition {
        let Some(started_at) = task.started_at.filter(|_| task.last_status == LastStatus::Running) else {
            return Condition::Starting;
        };
        match task.health() {
            HealthStatus::Unhealthy => Condition::Unhealthy,
            HealthStatus::Healthy => Condition::Healthy,
            HealthStatus::Unknown if is_checked(task) => Condition::Starting,
            HealthStatus::Unknown if started_at + HEALTHY_AFTER <= now => Condition::Healthy,
            HealthStatus::Unknown => {
                let at = started_at + HEALTHY_AFTER;
                self.next_healthy = Some(self.next_healthy.map_or(at, |next| next.min(at)));
                Condition::Starting
            }
        }
    }

    fn situation(&self, service: &Service) -> rolling::Situation {
        let draining = service.status == ServiceStatus::Draining;
        rolling::Situation {
            desired: if draining { 0 } else { service.desired_count },
            minimum_healthy_percent: service.minimum_healthy_percent,
            maximum_percent: service.maximum_percent,
            target: self.target,
            old: self.old,
            stopping: self.stopping,
        }
    }

    /// Who is stopped: of those that nothing depends on the first best, of healthy ones by the strategy's mirror image.
    fn choose(
        &self,
        view: View<'_>,
        service: &Service,
        steps: rolling::Plan,
        random: &mut dyn Random,
    ) -> Vec<(TaskKey, Why)> {
        let mut stop = Vec::new();
        for (of_target, counts) in [(true, steps.stop_target), (false, steps.stop_old)] {
            for (condition, count, why) in [
                (Condition::Starting, counts.starting, Why::Scaling),
                (Condition::Unhealthy, counts.unhealthy, Why::Unhealthy),
                (Condition::Healthy, counts.healthy, Why::Scaling),
            ] {
                if count == 0 {
                    continue;
                }
                // The unhealthy are replaced whatever they say, and who deletes a service means all of it.
                let spares = why == Why::Scaling && service.status == ServiceStatus::Active;
                let candidates: Vec<ServiceTask<TaskKey, ContainerInstanceKey>> = self
                    .running
                    .iter()
                    .filter(|(_, its, stays)| *its == condition && *stays == of_target)
                    .map(|(task, _, _)| candidate(task, spares && task.is_protected(view.now)))
                    .collect();
                let launch_type = service.primary().map_or(LaunchType::Ec2, |p| p.compute.launch_type());
                let pool = view.state.ecs.pool(&placement::pool_name(&service.cluster, launch_type));
                let strategies = strategies(service);
                let chosen = scale_in(&pool, &candidates, &strategies, count as usize, random);
                stop.extend(chosen.into_iter().map(|key| (key, why)));
            }
        }
        stop
    }

    /// A healthy task excuses failures only if they are older than its health: one that has long been well says nothing
    /// about those that never start.
    fn forgives(&self, primary: &Deployment) -> bool {
        primary.failed_tasks > 0
            && self.running.iter().any(|(task, condition, stays)| {
                *stays && *condition == Condition::Healthy && well_since(task) >= primary.failed_at
            })
    }

    /// Nothing runs or waits to be stopped any more: what is left is on its way out.
    fn all_gone(&self) -> bool {
        self.running.is_empty() && self.waiting_to_stop == 0
    }

    /// Older deployments that have no tasks and that nothing could be rolled back to.
    fn finished(&self, service: &Service) -> Vec<gantry_decide::ids::DeploymentId> {
        let Some(primary) = service.primary() else { return Vec::new() };
        let has_tasks = |deployment: &Deployment| {
            let id = deployment.id.to_string();
            self.running.iter().any(|(task, _, _)| task.started_by.as_deref() == Some(id.as_str()))
        };
        let may_return =
            primary.rollout_state == RolloutState::InProgress && service.circuit_breaker.rollback;
        let older = service.deployments.iter().skip(1);
        let finished = older.filter(|deployment| {
            let needed = may_return && deployment.rollout_state == RolloutState::Completed;
            !needed && !has_tasks(deployment)
        });
        finished.map(|deployment| deployment.id).collect()
    }
}

/// When a healthy task can first have been so.
fn well_since(task: &Task) -> Option<Timestamp> {
    let proof = if is_checked(task) { Duration::ZERO } else { HEALTHY_AFTER };
    task.started_at.map(|at| at + proof)
}

/// It runs, and has no health check that has yet to speak.
fn serves(task: &Task) -> bool {
    task.last_status == LastStatus::Running && !is_checked(task)
}

/// Whether a health check of an essential container decides over the task's health.
fn is_checked(task: &Task) -> bool {
    let containers = &task.definition.container_definitions;
    containers.iter().any(|container| container.essential && container.health_check.is_some())
}

fn service_key(service: &Service) -> ServiceKey {
    ServiceKey { cluster: service.cluster.clone(), name: service.name.clone() }
}

fn on_draining_instance(view: View<'_>, task: &Task) -> bool {
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining)
}

fn candidate(task: &Task, protected: bool) -> ServiceTask<TaskKey, ContainerInstanceKey> {
    let held = placement::held_by(task);
    ServiceTask {
        id: TaskKey::from(task),
        host: task.instance.clone(),
        pending: task.last_status < LastStatus::Running,
        protected,
        cpu: held.cpu,
        memory: held.memory,
    }
}

/// The service's strategy; its own, or the one of a service that names none.
fn strategies(service: &Service) -> Vec<Strategy> {
    placement_strategies(service)
        .iter()
        .filter_map(|strategy| match strategy {
            PlacementStrategy::Random => Some(Strategy::Random),
            PlacementStrategy::Spread(field) => Strategy::spread(field),
            PlacementStrategy::Binpack(field) => Strategy::binpack(field),
        })
        .collect()
}

fn placement_strategies(service: &Service) -> Vec<PlacementStrategy> {
    if service.placement_strategy.is_empty() {
        vec![
            PlacementStrategy::Spread("attribute:ecs.availability-zone".to_owned()),
            PlacementStrategy::Spread("instanceId".to_owned()),
        ]
    } else {
        service.placement_strategy.clone()
    }
}

fn look_again(view: View<'_>, service: &Service, census: &Census<'_>, wants_more: bool) -> LookAgain {
    let patience =
        service.primary().and_then(|primary| primary.launch_not_before).filter(|at| *at > view.now);
    let retry = wants_more.then(|| patience.unwrap_or(view.now + PLACE_AGAIN));
    [retry, census.next_healthy, census.next_unprotected].into_iter().flatten().min()
}

fn tell(tx: &mut Tx<'_>, service: &mut Service, message: String) {
    let id = RequestId::random(tx.random).to_string();
    service.tell(id, message, tx.now);
}

/// Notes which tasks have ended, and how patient to be after those that never ran.
fn note_ends(tx: &mut Tx<'_>, service: &mut Service, ended: &[(TaskKey, bool)]) {
    let mut failed = 0;
    for (key, never_ran) in ended {
        let Some(mut task) = tx.state.ecs.task(key).filter(|task| !task.is_live()).cloned() else { continue };
        let of_primary =
            service.primary().is_some_and(|p| task.started_by.as_deref() == Some(&p.id.to_string()));
        failed += u32::from(*never_ran && of_primary && task.stop_code == Some(StopCode::TaskFailedToStart));
        task.accounted = true;
        tx.state.ecs.put_task(task);
    }
    let (name, desired, breaker) = (service.name.clone(), service.desired_count, service.circuit_breaker);
    let Some(primary) = service.deployments.first_mut().filter(|_| failed > 0) else { return };
    primary.failed_tasks = primary.failed_tasks.saturating_add(failed);
    primary.failed_at = Some(tx.now);
    primary.updated_at = tx.now;
    if let Some(delay) = back_off::delay(primary.failed_tasks) {
        primary.launch_not_before = Some(tx.now + delay);
    }
    let failures = primary.failed_tasks;
    let trips = breaker.enable
        && primary.rollout_state == RolloutState::InProgress
        && failures >= back_off::circuit_breaker_threshold(desired);
    if trips {
        trip(tx, service);
    } else if back_off::delay(failures).is_some() {
        tell(tx, service, events::cannot_start_consistently(name.as_str()));
    }
}

/// The circuit breaker: the deployment has failed; the newest one that arrived takes its place, if there is one and it
/// is wanted.
fn trip(tx: &mut Tx<'_>, service: &mut Service) {
    let name = service.name.to_string();
    let Some(primary) = service.deployments.first_mut() else { return };
    primary.rollout_state = RolloutState::Failed;
    primary.rollout_state_reason = events::CIRCUIT_BREAKER_REASON.to_owned();
    let failed = primary.id;
    tell(tx, service, events::deployment_failed(&name, failed));
    let arrived = service.deployments.iter().position(|d| d.rollout_state == RolloutState::Completed);
    if let Some(index) = arrived.filter(|_| service.circuit_breaker.rollback) {
        let mut back = service.deployments.remove(index);
        back.rollout_state = RolloutState::InProgress;
        back.rollout_state_reason = events::rolling_back_reason(back.id);
        back.failed_tasks = 0;
        back.launch_not_before = None;
        back.updated_at = tx.now;
        tell(tx, service, events::rolling_back(&name, back.id));
        service.deployments.insert(0, back);
    }
}

fn stop(tx: &mut Tx<'_>, service: &mut Service, tasks: &[(TaskKey, Why)]) {
    let Some(primary) = service.primary().map(|primary| primary.id) else { return };
    let mut stopped = Vec::new();
    for (key, why) in tasks {
        let Some(mut task) = tx.state.ecs.task(key).cloned() else { continue };
        let reason = match why {
            Why::Scaling => format!("Scaling activity initiated by (deployment {primary})"),
            Why::Unhealthy => "Task failed container health checks".to_owned(),
        };
        if task.request_stop(StopCode::ServiceSchedulerInitiated, &reason, tx.now) {
            if *why == Why::Unhealthy {
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
}

/// Starts `count` tasks, `replaces` of them in place of unhealthy ones.
fn start(tx: &mut Tx<'_>, service: &mut Service, count: usize, replaces: usize) {
    let Some(primary) = service.primary().cloned() else { return };
    let Some(record) = tx.state.ecs.task_definitions.get(&primary.task_definition).cloned() else {
        let message = format!(
            "(service {}) failed to launch a task with (error ClientException: TaskDefinition is inactive).",
            service.name
        );
        return tell(tx, service, message);
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
    let launch_type = primary.compute.launch_type();
    let fargate = launch_type == LaunchType::Fargate;
    let mut launch = Launch {
        cluster: service.cluster.clone(),
        definition_id: record.id.clone(),
        definition: EffectiveDefinition::registered(std::sync::Arc::clone(&record.definition)),
        overrides: TaskOverride::default(),
        launch_type,
        capacity_provider: None,
        // It was checked when the service was made.
        platform_version: compute::platform_version(launch_type, primary.platform_version.as_deref())
            .unwrap_or(None),
        network: primary.network.clone(),
        constraints: service.placement_constraints.clone(),
        strategies: if fargate { Vec::new() } else { placement_strategies(service) },
        group: service.group(),
        started_by: Some(primary.id.to_string()),
        tags,
        enable_execute_command: service.enable_execute_command,
    };
    let mut started: Vec<TaskId> = Vec::new();
    let mut refusal = None;
    let providers = primary.compute.distribute(count, &providers_of(tx.view(), service));
    for turn in providers.chunk_by(|one, next| one == next) {
        launch.capacity_provider = turn[0].clone();
        let Launched { tasks, refusals } = launch::place(tx, &launch, turn.len());
        started.extend(tasks.iter().map(|task| task.id));
        if refusals.is_some() {
            refusal = refusals;
            break;
        }
    }
    if !started.is_empty() {
        let message = events::started(service.name.as_str(), &started, replaces.min(started.len()));
        tell(tx, service, message);
    }
    if let Some(refusals) = refusal {
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
            refusals.service_event(service.name.as_str(), |key| key.id.to_string())
        };
        tell(tx, service, message);
    }
}

/// How many live tasks of the service each capacity provider has.
fn providers_of(
    view: View<'_>,
    service: &Service,
) -> BTreeMap<gantry_decide::ids::CapacityProviderName, usize> {
    let mut counts = BTreeMap::new();
    for task in view.state.ecs.tasks_of(&service_key(service)) {
        if let Some(provider) =
            task.capacity_provider.clone().filter(|_| task.desired_status == DesiredStatus::Running)
        {
            *counts.entry(provider).or_default() += 1;
        }
    }
    counts
}

/// Everything is as it should be.
fn arrive(tx: &mut Tx<'_>, service: &mut Service) {
    let name = service.name.to_string();
    service.steady_at = Some(tx.now);
    if let Some(primary) = service.deployments.first_mut()
        && primary.rollout_state == RolloutState::InProgress
    {
        primary.rollout_state = RolloutState::Completed;
        primary.rollout_state_reason = events::completed_reason(primary.id);
        primary.updated_at = tx.now;
        let id = primary.id;
        tell(tx, service, events::deployment_completed(&name, id));
    }
    tell(tx, service, events::steady_state(&name));
}
