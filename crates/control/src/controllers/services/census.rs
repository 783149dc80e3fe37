//! The tasks of one service, or of some of its deployments, by how they do.

use super::Why;
use super::steps::providers_of;
use crate::services::ecs::balanced::{self, Verdict};
use crate::services::ecs::deployments;
use crate::services::ecs::placement;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceKey, Deployment, PlacementStrategy, RolloutState, Service,
    ServiceStatus, Task, TaskKey,
};
use crate::tx::View;
use gantry_decide::deployment::rolling;
use gantry_decide::ids::{CapacityProviderName, DeploymentId};
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, LastStatus};
use gantry_decide::mutant;
use gantry_decide::placement::{ServiceTask, Strategy, scale_in};
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::time::Duration;

/// A task without a health check counts as healthy once it has run so long: ECS's figure.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(40);

/// See the module.
pub struct Census<'a> {
    target: rolling::Tasks,
    old: rolling::Tasks,
    renewed: u32,
    stopping: u32,
    /// Live tasks that shall run, with how they do.
    pub running: Vec<(&'a Task, Condition, Side)>,
    /// Tasks that ended, or do so by themselves, without anybody having noted it, each with whether it never ran.
    pub ended: Vec<(TaskKey, bool)>,
    /// When the next young task will count as healthy.
    pub next_healthy: Option<Timestamp>,
    /// When the next protection ends.
    pub next_unprotected: Option<Timestamp>,
    /// Tasks asked to stop that have not even been signalled.
    waiting_to_stop: u32,
    renewable: bool,
}

/// Which tasks a census is about.
#[derive(Clone, Copy, Debug)]
pub enum Lens<'a> {
    /// All; those of the primary deployment shall remain.
    Whole,
    /// Those of this deployment, which shall remain.
    Only(DeploymentId),
    /// Those of all but these; none shall remain.
    Others(&'a [DeploymentId]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Starting,
    Healthy,
    Unhealthy,
}

/// What a task is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of the primary deployment.
    Target,
    Old,
    /// Starting in place of an old one, of the last deployment that arrived.
    Renewed,
}

impl<'a> Census<'a> {
    pub fn take(view: View<'a>, service: &Service, lens: Lens<'_>) -> Census<'a> {
        let mut census = Census {
            target: rolling::Tasks::default(),
            old: rolling::Tasks::default(),
            renewed: 0,
            stopping: 0,
            running: Vec::new(),
            ended: Vec::new(),
            next_healthy: None,
            next_unprotected: None,
            waiting_to_stop: 0,
            renewable: false,
        };
        let target = match lens {
            Lens::Whole => service.primary().map(|deployment| deployment.id),
            Lens::Only(id) => Some(id),
            Lens::Others(_) => None,
        };
        let renewable = renewable(service).filter(|_| matches!(lens, Lens::Whole));
        let renewable = renewable.map(|deployment| deployment.id);
        census.renewable = renewable.is_some();
        for task in view.state.ecs.in_books_of(&service.key()) {
            let own = match lens {
                Lens::Whole => true,
                Lens::Only(id) => task.deployment() == Some(id),
                Lens::Others(ids) => task.deployment().is_none_or(|id| !ids.contains(&id)),
            };
            if !own {
                continue;
            }
            // Who ends by itself is noted as soon as that begins: another one takes its place from then on.
            if !task.is_live() || (task.ends_by_itself() && !task.accounted) {
                census.ended.push((TaskKey::from(task), task.started_at.is_none()));
            }
            if !task.is_live() {
                continue;
            }
            let place = place(view, task);
            if place == Place::Lost {
                // Its end is noted later in the same step.
                census.stopping += 1;
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
            let is_target =
                target.is_some() && (task.deployment() == target || mutant::is("old tasks count as new"));
            // On an instance that is being emptied it does not count for the target: another one takes its place.
            let drains = place == Place::Draining;
            let stays = is_target && !drains;
            let condition = match census.condition(view, service, task) {
                // Of the new ones proof is asked before old ones go; an old one that runs serves already.
                Condition::Starting if !stays && serves(task) => Condition::Healthy,
                condition => condition,
            };
            let renews = renewable.is_some() && task.deployment() == renewable;
            let side = match (stays, condition) {
                (true, _) => Side::Target,
                (false, Condition::Starting) if renews && !drains => Side::Renewed,
                (false, _) => Side::Old,
            };
            let counts = match side {
                Side::Target => &mut census.target,
                Side::Old => &mut census.old,
                Side::Renewed => {
                    census.renewed += 1;
                    census.running.push((task, condition, side));
                    continue;
                }
            };
            match condition {
                Condition::Starting => counts.starting += 1,
                Condition::Healthy => counts.healthy += 1,
                Condition::Unhealthy => counts.unhealthy += 1,
            }
            census.running.push((task, condition, side));
        }
        census
    }

    fn condition(&mut self, view: View<'_>, service: &Service, task: &Task) -> Condition {
        let is_balanced = !balanced::of_task(service, task).is_empty();
        let own = self.own_condition(view.now, task, is_balanced);
        match (own, balanced::verdict(view, service, task)) {
            (Condition::Unhealthy, _) | (_, Verdict::None) => own,
            (Condition::Starting, Verdict::Unhealthy(..)) if task.last_status != LastStatus::Running => own,
            (_, Verdict::Unhealthy(..)) => Condition::Unhealthy,
            (_, Verdict::Waits(until)) => {
                if let Some(at) = until {
                    self.next_healthy = Some(self.next_healthy.map_or(at, |next| next.min(at)));
                }
                Condition::Starting
            }
            (own, Verdict::Healthy) => own,
        }
    }

    /// How a task does by itself. One behind a load balancer need not run for a while first: the balancer knows.
    fn own_condition(&mut self, now: Timestamp, task: &Task, balanced: bool) -> Condition {
        let Some(started_at) = task.started_at.filter(|_| task.last_status == LastStatus::Running) else {
            return Condition::Starting;
        };
        match task.health() {
            HealthStatus::Unhealthy => Condition::Unhealthy,
            HealthStatus::Healthy => Condition::Healthy,
            HealthStatus::Unknown if is_checked(task) => Condition::Starting,
            HealthStatus::Unknown if balanced || started_at + HEALTHY_AFTER <= now => Condition::Healthy,
            HealthStatus::Unknown => {
                let at = started_at + HEALTHY_AFTER;
                self.next_healthy = Some(self.next_healthy.map_or(at, |next| next.min(at)));
                Condition::Starting
            }
        }
    }

    /// With `desired` tasks of what shall remain.
    pub fn situation(&self, service: &Service, desired: u32) -> rolling::Situation {
        rolling::Situation {
            desired,
            moving: 0,
            minimum_healthy_percent: service.configuration.minimum_healthy_percent,
            maximum_percent: service.configuration.maximum_percent,
            target: self.target,
            old: self.old,
            renewed: self.renewed,
            renewable: self.renewable,
            stopping: self.stopping,
        }
    }

    /// Who is stopped: of those that nothing depends on the first best, of healthy ones by the strategy's mirror image.
    pub fn choose(
        &self,
        view: View<'_>,
        service: &Service,
        steps: rolling::Plan,
        random: &mut dyn Random,
    ) -> Vec<(TaskKey, Why)> {
        let mut stop = Vec::new();
        let renewed = rolling::Tasks { starting: steps.stop_renewed, ..rolling::Tasks::default() };
        let sides =
            [(Side::Target, steps.stop_target), (Side::Old, steps.stop_old), (Side::Renewed, renewed)];
        for (side, counts) in sides {
            for (condition, count, why) in [
                (Condition::Starting, counts.starting, Why::Scaling),
                (Condition::Unhealthy, counts.unhealthy, Why::Unhealthy),
                (Condition::Healthy, counts.healthy, Why::Scaling),
            ] {
                if count == 0 {
                    continue;
                }
                let count = count + u32::from(mutant::is("one more chosen to stop"));
                // The unhealthy are replaced whatever they say, and who deletes a service means all of it.
                let spares = why == Why::Scaling && service.status == ServiceStatus::Active;
                let candidates: Vec<(&Task, Candidate)> = self
                    .running
                    .iter()
                    .filter(|(_, its, of)| *its == condition && *of == side)
                    .map(|(task, _, _)| (*task, candidate(task, spares && task.is_protected(view.now))))
                    .collect();
                let launch_type = service.launch_type();
                let pool = view.state.ecs.pool(&placement::pool_name(&service.cluster, launch_type));
                let strategies = strategies(service);
                let mut chosen: Vec<TaskKey> = Vec::new();
                for (provider, share) in withdrawals(view, service, side, count as usize) {
                    let open = count as usize - chosen.len();
                    let of_provider = candidates.iter().filter(|(task, candidate)| {
                        !chosen.contains(&candidate.id)
                            && (provider.is_none() || task.capacity_provider == provider)
                    });
                    let of_provider: Vec<Candidate> = of_provider.map(|(_, c)| c.clone()).collect();
                    chosen.extend(scale_in(&pool, &of_provider, &strategies, share.min(open), random));
                }
                stop.extend(chosen.into_iter().map(|key| (key, why)));
            }
        }
        stop
    }

    /// A healthy task excuses failures only if they are older than its health: one that has long been well says nothing
    /// about those that never start.
    pub fn forgives(&self, primary: &Deployment) -> bool {
        primary.failures.consecutive > 0
            && self.running.iter().any(|(task, condition, side)| {
                *side == Side::Target
                    && *condition == Condition::Healthy
                    && well_since(task) >= primary.failed_at
            })
    }

    /// No task is left, not even one on its way out.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty() && self.stopping == 0
    }

    /// Some task is well.
    pub fn serves(&self) -> bool {
        self.target.healthy + self.old.healthy > 0
    }

    /// Nothing runs or waits to be stopped any more: what is left is on its way out.
    pub fn all_gone(&self) -> bool {
        self.running.is_empty() && self.waiting_to_stop == 0
    }

    /// Older deployments that have no tasks and that nothing could be rolled back to. `kept` are needed all the same.
    pub fn finished(&self, service: &Service, kept: &[DeploymentId]) -> Vec<DeploymentId> {
        let needed = renewable(service).map(|deployment| deployment.id);
        let needed = |id: DeploymentId| Some(id) == needed || kept.contains(&id);
        let has_tasks = |deployment: &Deployment| {
            self.running.iter().any(|(task, _, _)| task.deployment() == Some(deployment.id))
        };
        let older = service.deployments.iter().skip(1).filter(|_| service.primary().is_some());
        let older = older.filter(|_| !mutant::is("old deployments kept"));
        let finished = older.filter(|deployment| !needed(deployment.id) && !has_tasks(deployment));
        finished.map(|deployment| deployment.id).collect()
    }
}

/// The last deployment that arrived, until the primary one has: its tasks are worth replacing, and it may come back.
fn renewable(service: &Service) -> Option<&Deployment> {
    let arrived = |deployment: &Deployment| deployment.rollout_state == RolloutState::Completed;
    let index = deployments::last_arrived(service)?;
    service.deployments.get(index).filter(|_| !service.primary().is_some_and(arrived))
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

/// How the instance of a task is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// There, or not chosen yet.
    Good,
    Draining,
    /// Given up.
    Lost,
}

fn place(view: View<'_>, task: &Task) -> Place {
    let Some(key) = task.instance.as_ref().filter(|key| view.state.ecs.is_leaving(key)) else {
        return Place::Good;
    };
    let gone = view.state.ecs.container_instance(key).is_none_or(ContainerInstance::is_gone);
    match gone {
        true => Place::Lost,
        false if mutant::is("draining ignored") => Place::Good,
        false => Place::Draining,
    }
}

fn candidate(task: &Task, protected: bool) -> Candidate {
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

type Candidate = ServiceTask<TaskKey, ContainerInstanceKey>;

/// From whom how many of `count` tasks are taken: of the target, those of the providers that have too many come first.
fn withdrawals(
    view: View<'_>,
    service: &Service,
    side: Side,
    count: usize,
) -> Vec<(Option<CapacityProviderName>, usize)> {
    let primary = service.primary().filter(|_| side == Side::Target);
    let shares = primary.and_then(|p| p.compute.withdraw(count, &providers_of(view, service, p)));
    let shares = shares.into_iter().flatten().map(|(provider, share)| (Some(provider), share));
    // Whatever they had too few of that can be taken is taken from anybody.
    shares.chain([(None, count)]).collect()
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

pub fn placement_strategies(service: &Service) -> Vec<PlacementStrategy> {
    if service.placement_strategy.is_empty() {
        vec![
            PlacementStrategy::Spread("attribute:ecs.availability-zone".to_owned()),
            PlacementStrategy::Spread("instanceId".to_owned()),
        ]
    } else {
        service.placement_strategy.clone()
    }
}
