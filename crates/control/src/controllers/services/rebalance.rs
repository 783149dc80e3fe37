//! Availability Zone rebalancing: a service that is steady gets a task in its poorest zone, and once that is well loses one
//! in its richest. Where tasks are to go is decided in `decide::deployment::rebalance`.
//!
//! As on ECS it uses the instances that are there, and whatever else is to be done about the service comes first.

use super::census::{Census, Condition, Side};
use super::steps::{self, launch_of};
use crate::services::ec2;
use crate::services::ecs::deployments::tell;
use crate::services::ecs::launch;
use crate::services::ecs::state::{
    ContainerInstanceKey, Deployment, LaunchType, Moving, RolloutState, Service, ServiceStatus, TaskKey,
};
use crate::services::ecs::{capacity, check, placement};
use crate::tx::{Tx, View};
use gantry_decide::deployment::rebalance::{self, Move, Spread};
use gantry_decide::deployment::{events, rolling};
use gantry_decide::ids::TaskId;
use gantry_decide::lifecycle::StopCode;
use gantry_decide::mutant;
use gantry_decide::placement::Host;
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long to leave a service alone that had no place: capacity seldom comes at once, and ECS gives no figure.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// What is done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A task more in another zone.
    Begin { next: Move, told: String },
    /// It is well: this one gives way.
    Finish { victim: TaskKey, zone: String },
    /// It is well, but no other one may be stopped.
    Protected,
    /// Something else comes first.
    GiveUp,
    /// The tasks are where they should be.
    Balanced { told: String },
}

fn may(service: &Service) -> bool {
    let Some(primary) = service.primary() else { return false };
    service.availability_zone_rebalancing
        && service.status == ServiceStatus::Active
        && primary.rollout_state == RolloutState::Completed
        && service.deployments.len() == 1
        && check::never_rebalances(service, primary.compute.launch_type()).is_none()
}

/// Whether the service has, for a while, one task more than it should.
pub fn moves(service: &Service, census: &Census<'_>) -> bool {
    let Some(moving) = &service.rebalancing.moving else { return false };
    let is_there = census.running.iter().any(|(task, _, _)| task.id == moving.task);
    may(service) && is_there && moving.desired == service.desired_count
}

/// The next step; `situation` counts the task that is one too many, if `moves`.
pub fn plan(
    view: View<'_>,
    service: &Service,
    census: &Census<'_>,
    situation: &rolling::Situation,
    moves: bool,
    random: &mut dyn Random,
) -> Option<Step> {
    if let Some(moving) = &service.rebalancing.moving {
        return match moves {
            false => Some(Step::GiveUp),
            true if situation.is_steady() || mutant::is("rebalancing stops the old task first") => {
                Some(finish(view, census, moving, random))
            }
            true => None,
        };
    }
    let waits = service.rebalancing.not_before.is_some_and(|at| at > view.now);
    let waits = waits || mutant::is("zones never rebalanced");
    if waits || !may(service) || !situation.is_steady() || situation.upper() <= situation.desired {
        return None;
    }
    let zones = zones(view, service, census);
    let spread = spread(census);
    let told = rebalance::told(&zones, &spread);
    match rebalance::next_move(&zones, &spread) {
        Some(next) => Some(Step::Begin { next, told }),
        None => service.rebalancing.told.then_some(Step::Balanced { told }),
    }
}

fn spread(census: &Census<'_>) -> Spread {
    let mut spread = Spread::new();
    for (task, _, side) in &census.running {
        if let Some(zone) = task.availability_zone.clone().filter(|_| *side == Side::Target) {
            *spread.entry(zone).or_default() += 1;
        }
    }
    spread
}

fn finish(view: View<'_>, census: &Census<'_>, moving: &Moving, random: &mut dyn Random) -> Step {
    let may_go = census.running.iter().filter(|(task, condition, _)| {
        *condition == Condition::Healthy
            && task.availability_zone.as_ref() == Some(&moving.from)
            && !task.is_protected(view.now)
    });
    let may_go: Vec<TaskKey> = may_go.map(|(task, _, _)| TaskKey::from(*task)).collect();
    if may_go.is_empty() {
        return Step::Protected;
    }
    let victim = may_go[random.below(may_go.len())].clone();
    Step::Finish { victim, zone: moving.from.clone() }
}

/// The zones that a service may use: those of its subnets, and of instances that suit its tasks.
fn zones(view: View<'_>, service: &Service, census: &Census<'_>) -> BTreeSet<String> {
    let Some(primary) = service.primary() else { return BTreeSet::new() };
    let ec2 = &view.state.ec2;
    let zone_of = |name: &String| ec2::links::subnet(ec2, name).map(|subnet| subnet.zone.clone());
    let of_subnets: Option<BTreeSet<String>> =
        primary.network.as_ref().map(|network| network.subnets.iter().filter_map(zone_of).collect());
    if primary.compute.launch_type() == LaunchType::Fargate {
        return of_subnets.unwrap_or_default();
    }
    let Ok(launch) = launch_of(view, service, primary) else { return BTreeSet::new() };
    let request = capacity::request_for(view, &launch);
    let pool = view.state.ecs.pool(&placement::pool_name(&launch.cluster, launch.launch_type));
    let is_open = |zone: &&str| of_subnets.as_ref().is_none_or(|zones| zones.contains(*zone));
    let open = pool.zones().filter(is_open).count();
    let mut zones = BTreeSet::new();
    // One instance that suits tells of its zone. Thousands may be there, and every steady service asks: those that have
    // its tasks suit nearly always, and they are in all zones.
    let mut look = |host: &Host| {
        let zone = host.profile.zone().filter(is_open).filter(|zone| !zones.contains(*zone));
        if let Some(zone) = zone.filter(|_| host.suits(&request)) {
            zones.insert(zone.to_owned());
        }
        zones.len() == open
    };
    let mut seen = BTreeSet::new();
    let of_zones = census.running.iter().filter(|(task, ..)| seen.insert(&task.availability_zone));
    let mut of_tasks = of_zones.filter_map(|(task, ..)| pool.host(task.instance.as_ref()?));
    if !of_tasks.any(|host| look(&host)) {
        pool.hosts().any(|(_, host)| look(&host));
    }
    zones
}

/// Does what was planned, and tells it.
pub fn apply(tx: &mut Tx<'_>, service: &mut Service, step: Step) {
    let name = service.name.to_string();
    match step {
        Step::Begin { next, told } => begin(tx, service, next, &told),
        Step::Finish { victim, zone } => {
            service.rebalancing.moving = None;
            let Some(mut task) = tx.state.ecs.task(&victim).cloned() else { return };
            let Some(primary) = service.primary().map(|primary| primary.id) else { return };
            let reason = format!("Availability-zone rebalancing initiated by (deployment {primary})");
            if task.request_stop(StopCode::ServiceSchedulerInitiated, &reason, tx.now) {
                let message = events::rebalance_stopped_task(&name, &zone, task.id);
                tx.state.ecs.put_task(task);
                tell(tx, service, message);
            }
        }
        Step::Protected => pause(tx, service, events::rebalance_is_protected(&name)),
        Step::GiveUp => pause(tx, service, events::rebalance_ended(&name)),
        Step::Balanced { told } => {
            service.rebalancing.told = false;
            tell(tx, service, events::balanced(&name, &told));
        }
    }
}

fn pause(tx: &mut Tx<'_>, service: &mut Service, message: String) {
    service.rebalancing.moving = None;
    service.rebalancing.not_before = Some(tx.now + TRY_AGAIN);
    tell(tx, service, message);
}

fn begin(tx: &mut Tx<'_>, service: &mut Service, next: Move, told: &str) {
    let name = service.name.to_string();
    if !service.rebalancing.told {
        service.rebalancing.told = true;
        tell(tx, service, events::not_balanced(&name, told));
    }
    service.rebalancing.not_before = None;
    let Some(primary) = service.primary().cloned() else { return };
    let Some(task) = start_in(tx, service, &primary, &next.to) else {
        tell(tx, service, events::rebalance_found_no_place(&name, &next.to));
        return pause(tx, service, events::rebalance_ended(&name));
    };
    service.steady_at = None;
    service.rebalancing.moving = Some(Moving { task, from: next.from, desired: service.desired_count });
    tell(tx, service, events::rebalance_started(&name, &next.to, task));
}

/// Starts a task in a zone, on the instance there that has the fewest of the service.
fn start_in(tx: &mut Tx<'_>, service: &Service, primary: &Deployment, zone: &str) -> Option<TaskId> {
    let view = tx.view();
    let mut launch = launch_of(view, service, primary).ok()?;
    let providers = primary.compute.distribute(1, &steps::providers_of(view, service, primary));
    launch.capacity_provider = providers.into_iter().next().and_then(|(provider, _)| provider);
    if let Some(network) = &mut launch.network {
        let ec2 = &view.state.ec2;
        network
            .subnets
            .retain(|name| ec2::links::subnet(ec2, name).is_some_and(|subnet| subnet.zone == zone));
    }
    let fargate = launch.launch_type == LaunchType::Fargate;
    let request = capacity::request_for(view, &launch);
    let pool =
        capacity::open_to(view, &placement::pool_name(&launch.cluster, launch.launch_type), &launch.group);
    // Constraints that depend on the tasks that are there bind here too.
    let fits =
        |host: &Host| (fargate || host.profile.zone() == Some(zone)) && host.refuses(&request).is_none();
    let fitting = pool.hosts().filter(|(_, host)| fits(host));
    let mut hosts: Vec<(u32, ContainerInstanceKey)> =
        fitting.map(|(key, host)| (host.tasks_of(&launch.group), key.clone())).collect();
    hosts.sort_unstable();
    drop(pool);
    hosts
        .into_iter()
        .find_map(|(_, host)| launch::start_if_it_fits(tx, &launch, host).ok())
        .map(|task| task.id)
}
