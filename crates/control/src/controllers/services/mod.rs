//! Services: keeps each at its desired count, replaces what fails, rolls deployments forward and back, drains what is
//! deleted. How many tasks start and stop next is decided in `decide::deployment`; `census` says who they are, `steps`
//! starts and stops them; `daemon` is about services that have one on each instance, `shifting` about deployments whose
//! revisions stand side by side, `task_sets` about those that somebody else drives, `rebalance`
//! about zones. `digests` sees to it that the tasks of a deployment run the same images.

mod census;
mod daemon;
mod digests;
mod outlook;
mod rebalance;
mod shifting;
mod steps;
mod task_sets;

use super::{Controller, LookAgain};
use crate::services::ecs::state::{
    Change, ContainerInstanceKey, Deployment, EVENT_AGAIN, RolloutState, SchedulingStrategy, Service,
    ServiceDeploymentKey, ServiceKey, ServiceStatus, Task, TaskKey,
};
use crate::services::ecs::{balanced, deployments};
use crate::tx::{Tx, View};
pub use census::placement_strategies;
use census::{Census, Lens};
use daemon::Daemons;
pub use digests::Establishing;
use digests::{Digests, establishing};
use gantry_decide::deployment::shift::Next;
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::deployment::{events, replacement, rolling};
use gantry_decide::ids::{AlarmName, DeploymentId, ServiceDeploymentId};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_store::Record;
pub use outlook::{Outlook, one_more_task};
use shifting::Shifting;
use std::collections::BTreeSet;
use std::time::Duration;
pub use steps::teller_of;

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
    /// What becomes of the current attempt to deploy it.
    attempt: Option<Turn>,
    /// Attempts before it that end now.
    superseded: Vec<ServiceDeploymentId>,
    /// Tasks whose end is noted, each with whether it never ran.
    ended: Vec<(TaskKey, bool)>,
    /// Deployments of which a task became well after the last failure: what failed is forgiven.
    well: Vec<DeploymentId>,
    /// What the tags of the primary deployment's images stand for, now that it is known.
    digests: Option<Digests>,
    /// Attempts to find that out have failed too often.
    undigested: bool,
    start: u32,
    /// So many of those are started in place of unhealthy ones.
    replaces: u32,
    /// Tasks of other deployments to start: of the last one that arrived, of the one that traffic comes from, of task sets.
    others: Vec<(DeploymentId, u32)>,
    /// What is done to spread tasks over zones.
    rebalance: Option<rebalance::Step>,
    /// Task sets that are steady now, or no longer.
    steady_sets: Vec<(DeploymentId, bool)>,
    /// What comes next in a deployment that shifts traffic.
    shift: Option<Next>,
    /// Instances that get a daemon's task.
    start_on: Vec<ContainerInstanceKey>,
    /// A daemon's new desired count.
    desired: Option<u32>,
    stop: Vec<(TaskKey, Why)>,
    blocked: bool,
    /// Fewer tasks go than should, for the others are protected; and that is still to be told.
    protected: bool,
    /// The primary deployment has what it takes.
    arrived: bool,
    /// It has, and from now on waits for its alarms.
    bakes: bool,
    /// The alarms that fail it.
    alarmed: Vec<AlarmName>,
    steady: bool,
    /// Older deployments without tasks.
    finished: Vec<DeploymentId>,
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

/// What was asked of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Begin,
    GoBack,
    Stop,
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
            Change::Targets(group) => {
                keys.extend(balanced::services_of_group(view, group).map(|service| service.key()));
            }
            // Draining moves the tasks that are there, and daemons follow whatever changes.
            Change::ContainerInstance(key) => {
                keys.extend(view.state.ecs.tasks_on(key).filter_map(Task::service_key));
                keys.extend(view.state.ecs.daemon_services_of(&key.cluster).map(Record::key));
            }
            Change::Alarm(name) => {
                let services = view.state.ecs.services().values();
                let watching = services.filter(|service| service.configuration.alarms.names.contains(name));
                keys.extend(watching.map(|service| service.key()));
            }
            Change::Cluster(_)
            | Change::CapacityProvider(_)
            | Change::TaskDefinition(_)
            | Change::ExecSession(_)
            | Change::AutoScalingGroup(_)
            | Change::ManagedInstance(_)
            | Change::Daemon(_)
            | Change::SecurityGroup(_)
            | Change::Routing => {}
        }
    }

    fn all(view: View<'_>) -> Vec<ServiceKey> {
        view.state.ecs.services().iter().map(|(key, _)| key.clone()).collect()
    }

    /// Daemons: what they need on a new instance is not for others.
    fn goes_first(view: View<'_>, key: &ServiceKey) -> bool {
        view.state.ecs.service(key).is_some_and(Service::is_daemon)
    }

    fn plan(view: View<'_>, key: &ServiceKey, random: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let Some(service) = view.state.ecs.service(key) else { return (None, None) };
        if service.status == ServiceStatus::Inactive {
            let until = service.inactive_since.unwrap_or(view.now) + RETENTION;
            let forget = (until <= view.now).then(|| Plan { forget: true, ..Plan::default() });
            return (forget, Some(until));
        }
        let mut census = Census::take(view, service, Lens::Whole);
        let mut plan = Plan {
            attempt: turn(view, service),
            superseded: superseded(view, service),
            ended: if mutant::is("ends of tasks not noted") {
                Vec::new()
            } else {
                std::mem::take(&mut census.ended)
            },
            well: forgiven(service.primary(), &census),
            ..Plan::default()
        };
        let mut until = None;
        let mut kept = Vec::new();
        let wants_more = match (service.scheduling_strategy, Shifting::of(view, service)) {
            _ if service.has_task_sets() && service.status == ServiceStatus::Active => {
                kept = service.deployments.iter().map(|set| set.id).collect();
                until = task_sets::plan(view, service, &mut plan, random);
                false
            }
            (SchedulingStrategy::Daemon, _) => daemons(view, service, &census, &mut plan),
            (SchedulingStrategy::Replica, None) => replicas(view, service, &census, &mut plan, random),
            (SchedulingStrategy::Replica, Some(shifting)) => {
                kept = shifting.kept();
                shifting.plan(view, service, &mut plan, &mut until, random)
            }
        };
        plan.blocked = plan.blocked && !told(service, &events::blocked(service.name.as_str()));
        let spared = |primary: &Deployment| events::protected(service.name.as_str(), primary.id);
        plan.protected = plan.protected && !service.primary().is_some_and(|p| told(service, &spared(p)));
        plan.alarmed = deployments::triggered(view, service);
        plan.arrived &= plan.alarmed.is_empty();
        if let Some(baked) =
            deployments::bakes_until(view, service).filter(|at| plan.arrived && *at > view.now)
        {
            plan.arrived = false;
            plan.bakes =
                deployments::current(view, service).is_some_and(|attempt| attempt.baking_since.is_none());
            until = until.into_iter().chain([baked]).min();
        }
        plan.drained = service.status == ServiceStatus::Draining && census.all_gone();
        plan.finished.extend(census.finished(service, &kept));
        let look_again = look_again(view, service, &census, wants_more).into_iter().chain(until).min();
        ((plan != Plan::default()).then_some(plan), look_again)
    }

    fn apply(tx: &mut Tx<'_>, key: &ServiceKey, plan: Plan) {
        if plan.forget {
            return tx.state.ecs.remove_service(key);
        }
        let Some(mut service) = tx.state.ecs.service(key).cloned() else { return };
        let before = service.clone();
        service.desired_count = plan.desired.unwrap_or(service.desired_count);
        for attempt in plan.superseded {
            deployments::advance(tx, &service, attempt, ServiceDeploymentStatus::Stopped, None);
        }
        match plan.attempt {
            Some(Turn::Begin) => {
                let attempt = service.attempt;
                deployments::advance(tx, &service, attempt, ServiceDeploymentStatus::InProgress, None);
            }
            Some(turn) => deployments::stop(tx, &mut service, turn == Turn::GoBack),
            None => {}
        }
        if let Some(digests) = plan.digests {
            deployments::establish(tx, &mut service, digests);
        }
        let mut failed = steps::Failed::new();
        steps::note_ends(tx, &mut service, &plan.ended, &mut failed);
        for deployment in service.deployments.iter_mut().filter(|known| plan.well.contains(&known.id)) {
            deployment.failures.forgive();
            deployment.launch_not_before = None;
        }
        steps::stop(tx, &mut service, &plan.stop, &mut failed);
        let primary = service.primary().map(|primary| primary.id);
        steps::note_failures(tx, &mut service, &failed);
        if !plan.alarmed.is_empty() {
            deployments::alarm(tx, &mut service, plan.alarmed);
        }
        if plan.undigested {
            steps::go_on_undigested(tx, &mut service);
        }
        let same = service
            .primary()
            .is_some_and(|now| Some(now.id) == primary && now.rollout_state != RolloutState::Failed);
        if plan.start > 0 && same {
            steps::start(tx, &mut service, 0, plan.start as usize, plan.replaces as usize);
        }
        if !plan.start_on.is_empty() && same {
            steps::start_on(tx, &mut service, &plan.start_on);
        }
        for (id, count) in plan.others {
            if let Some(index) = service.deployments.iter().position(|deployment| deployment.id == id) {
                steps::start(tx, &mut service, index, count as usize, 0);
            }
        }
        if let Some(step) = plan.rebalance {
            rebalance::apply(tx, &mut service, step);
        }
        task_sets::note_steady(tx, &mut service, &plan.steady_sets);
        balanced::forget(tx.view(), &mut service, &plan.finished);
        match plan.shift.filter(|_| same) {
            Some(Next::Go(shift)) => deployments::shift(tx, &service, shift),
            Some(Next::Fail(failure)) => deployments::fail(tx, &mut service, &failure.reason()),
            Some(Next::Arrived | Next::Wait(_)) | None => {}
        }
        if plan.bakes {
            deployments::bake(tx, &service);
        }
        if plan.arrived {
            deployments::arrive(tx, &mut service);
        }
        if plan.steady {
            service.steady_at = Some(tx.now);
            let message = events::steady_state(service.name.as_str());
            deployments::tell(tx, &mut service, message);
        } else if plan.start > 0
            || !plan.start_on.is_empty()
            || !plan.stop.is_empty()
            || !plan.ended.is_empty()
        {
            service.steady_at = None;
        }
        if let Some(primary) = service.primary().filter(|_| plan.protected) {
            let message = events::protected(service.name.as_str(), primary.id);
            deployments::tell(tx, &mut service, message);
        }
        if plan.blocked {
            let message = events::blocked(service.name.as_str());
            deployments::tell(tx, &mut service, message);
        }
        if plan.drained {
            service.status = ServiceStatus::Inactive;
            service.inactive_since = Some(tx.now);
            service.last_deployment = service.shown().cloned().map(Box::new);
            service.deployments.clear();
            tx.state.ecs.remove_service_deployments(key);
        }
        if service != before {
            tx.state.ecs.put_service(service);
        }
    }
}

/// Whether tasks of the primary deployment may be launched now, and whether what is asked of the attempt is done: that, and
/// what ended, may change what is to be done next.
fn allowed(view: View<'_>, service: &Service, plan: &Plan) -> (bool, bool) {
    let settled = plan.ended.is_empty() && plan.attempt.is_none_or(|turn| turn == Turn::Begin);
    let launches = service
        .primary()
        .is_some_and(|primary| may_launch(view, primary) && primary.rollout_state != RolloutState::Failed);
    (settled && launches && service.status == ServiceStatus::Active, settled)
}

/// How many of so many tasks that a deployment lacks are started in this round.
fn starts(view: View<'_>, deployment: &Deployment, lacking: u32) -> u32 {
    lacking.saturating_sub(held_back(view, deployment)).min(STARTS_PER_ROUND_MAX)
}

/// How many tasks of a deployment are not replaced yet, for too many have ended within a minute.
fn held_back(view: View<'_>, deployment: &Deployment) -> u32 {
    let quota = view.state.installation.quotas.replaced_tasks;
    replacement::held_back(deployment.replacements_full_at, quota, view.now)
}

/// It need not wait, after failures to run or to be placed.
fn may_launch(view: View<'_>, deployment: &Deployment) -> bool {
    deployment.launch_not_before.is_none_or(|at| at <= view.now)
}

/// The deployment, if the census of its tasks forgives what failed.
fn forgiven(deployment: Option<&Deployment>, census: &Census<'_>) -> Vec<DeploymentId> {
    deployment.into_iter().filter(|known| census.forgives(known)).map(|known| known.id).collect()
}

fn is_in_progress(service: &Service) -> bool {
    service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::InProgress)
}

/// How many tasks of the primary deployment may be started, as what its images' tags stand for has to be known first.
fn startable(view: View<'_>, service: &Service, settled: bool, plan: &mut Plan) -> u32 {
    let Some(primary) = service.primary() else { return 0 };
    match establishing(view, service, primary) {
        Establishing::Done => u32::MAX,
        Establishing::Now(digests) => {
            plan.digests = Some(digests);
            u32::MAX
        }
        Establishing::ByOneTask => 1,
        Establishing::Waits => 0,
        Establishing::InVain => {
            plan.undigested = settled;
            0
        }
    }
}

/// The next steps of a REPLICA service; true if it has tasks to start.
fn replicas(
    view: View<'_>,
    service: &Service,
    census: &Census<'_>,
    plan: &mut Plan,
    random: &mut dyn Random,
) -> bool {
    let desired = if service.status == ServiceStatus::Draining { 0 } else { service.desired_count };
    // One more than desired, until the one that it is for can go.
    let moves = rebalance::moves(service, census);
    let situation = rolling::Situation { moving: u32::from(moves), ..census.situation(service, desired) };
    let steps = situation.plan();
    if service.status == ServiceStatus::Active {
        let (launches, settled) = allowed(view, service, plan);
        let most = startable(view, service, settled, plan);
        let start = service.primary().map_or(0, |primary| starts(view, primary, steps.start));
        plan.start = if launches { start.min(most) } else { 0 };
        plan.replaces = plan.start.min(situation.target.unhealthy);
        let arrived = deployments::last_arrived(service).and_then(|index| service.deployments.get(index));
        if let Some(known) = arrived.filter(|known| known.failures.consecutive > 0 && steps.renew > 0) {
            plan.well.extend(forgiven(arrived, &Census::take(view, service, Lens::Only(known.id))));
        }
        let arrived = arrived.filter(|deployment| settled && may_launch(view, deployment));
        let renewed = arrived.map(|deployment| (deployment.id, starts(view, deployment, steps.renew)));
        plan.others.extend(renewed.filter(|(_, count)| *count > 0));
        plan.blocked = situation.is_blocked();
        let succeeded = situation.has_succeeded(service.configuration.early_success);
        plan.arrived = settled && succeeded && is_in_progress(service);
        plan.rebalance = rebalance::plan(view, service, census, &situation, moves, random);
        plan.steady = situation.is_steady() && tells_steady(view, service) && !moves;
    }
    plan.stop = census.choose(view, service, steps, random);
    plan.protected = spares(view, census, steps, &plan.stop);
    steps.start > 0 || steps.renew > 0
}

/// Whether tasks that should go stay because they are protected.
fn spares(view: View<'_>, census: &Census<'_>, steps: rolling::Plan, stop: &[(TaskKey, Why)]) -> bool {
    let healthy = steps.stop_target.healthy.saturating_add(steps.stop_old.healthy) as usize;
    let starting = steps.stop_target.starting.saturating_add(steps.stop_old.starting) as usize;
    let stopped = stop.iter().filter(|(_, why)| *why == Why::Scaling).count();
    let protected = census.running.iter().any(|(task, ..)| task.is_protected(view.now));
    protected && stopped < healthy + starting
}

/// Whether it is to tell that it is steady, if it is: once, and again whenever long enough has gone by.
fn tells_steady(view: View<'_>, service: &Service) -> bool {
    service.steady_at.is_none_or(|told| told + EVENT_AGAIN <= view.now)
}

/// Whether this is what the service told last: to tell it again changes nothing.
fn told(service: &Service, message: &str) -> bool {
    service.events.last().is_some_and(|last| last.message == message)
}

/// The next steps of a DAEMON service; true if it has tasks to start.
fn daemons(view: View<'_>, service: &Service, census: &Census<'_>, plan: &mut Plan) -> bool {
    let daemons = Daemons::take(view, service, census);
    let (launches, settled) = allowed(view, service, plan);
    let wants_more = daemons.plan(service, launches, plan);
    if service.status == ServiceStatus::Active {
        let lacking = u32::try_from(plan.start_on.len()).unwrap_or(u32::MAX);
        let start = service.primary().map_or(0, |primary| starts(view, primary, lacking));
        let most = startable(view, service, settled, plan);
        plan.start_on.truncate(start.min(most) as usize);
        plan.desired = Some(daemons.desired()).filter(|desired| *desired != service.desired_count);
        plan.arrived = settled && daemons.is_steady() && is_in_progress(service);
        plan.steady = daemons.is_steady() && tells_steady(view, service);
    }
    wants_more
}

fn turn(view: View<'_>, service: &Service) -> Option<Turn> {
    match deployments::current(view, service)?.status {
        ServiceDeploymentStatus::Pending => Some(Turn::Begin),
        ServiceDeploymentStatus::RollbackRequested => Some(Turn::GoBack),
        ServiceDeploymentStatus::StopRequested => Some(Turn::Stop),
        _ => None,
    }
}

/// Attempts that a newer one has asked to stop. Their deployments are the service's still.
fn superseded(view: View<'_>, service: &Service) -> Vec<ServiceDeploymentId> {
    let older = service.deployments.iter().map(|deployment| deployment.attempt);
    let stops = |id: &ServiceDeploymentId| {
        let key = ServiceDeploymentKey { service: service.key(), id: *id };
        let attempt = view.state.ecs.service_deployment(&key);
        *id != service.attempt
            && attempt.is_some_and(|attempt| attempt.status == ServiceDeploymentStatus::StopRequested)
    };
    older.filter(stops).filter(|_| !mutant::is("superseded attempt goes on")).collect()
}

fn look_again(view: View<'_>, service: &Service, census: &Census<'_>, wants_more: bool) -> LookAgain {
    let waits = service.deployments.iter().filter_map(|deployment| deployment.launch_not_before);
    let patience = waits.filter(|at| *at > view.now).min();
    let retry = wants_more.then(|| patience.unwrap_or(view.now + PLACE_AGAIN));
    let quota = view.state.installation.quotas.replaced_tasks;
    let ready = service.deployments.iter().filter(|deployment| wants_more && may_launch(view, deployment));
    let replaced = ready
        .filter_map(|deployment| replacement::next(deployment.replacements_full_at, quota, view.now))
        .min();
    let rebalance = service.rebalancing.not_before.filter(|at| *at > view.now);
    let steady = service.steady_at.map(|told| told + EVENT_AGAIN).filter(|at| *at > view.now);
    [retry, replaced, census.next_healthy, census.next_unprotected, rebalance, steady]
        .into_iter()
        .flatten()
        .min()
}
