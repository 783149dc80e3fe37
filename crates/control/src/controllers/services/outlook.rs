//! Where a service stands as its controller sees it: for people who ask why nothing goes on.

use super::census::{Census, Condition, HEALTHY_AFTER, Lens, Side};
use super::daemon::Daemons;
use super::digests::{Establishing, establishing};
use super::shifting::Shifting;
use super::steps::providers_of;
use crate::services::ecs::state::{SchedulingStrategy, Service, ServiceStatus, Task, TaskKey};
use crate::services::ecs::{capacity, deployments, placement};
use crate::tx::View;
use gantry_decide::deployment::rolling::{Situation, Tasks};
use gantry_decide::ids::{ClusterName, DeploymentId};
use gantry_decide::placement::Request;
use gantry_decide::time::Timestamp;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub struct Outlook {
    pub situation: Situation,
    /// Tasks that have yet to be launched: of the primary deployment, or of all task sets.
    pub missing: u32,
    /// The deployment that the next task belongs to: the primary one, or the first task set that lacks tasks.
    pub next: Option<DeploymentId>,
    /// How many of those wait for the quota of tasks that are replaced in a minute.
    pub held_back: u32,
    /// Tasks of the primary deployment that are to be elsewhere: their instances drain.
    pub draining: u32,
    /// The percentages allow no step.
    pub blocked: bool,
    /// When the next task that has no health check will have run long enough to count as healthy.
    pub next_healthy: Option<Timestamp>,
    /// When the next protection from scale-in ends.
    pub next_unprotected: Option<Timestamp>,
    /// Running tasks that fail their health checks.
    pub unhealthy: Vec<TaskKey>,
    /// Whether it is known what the tags of the primary deployment's images stand for.
    pub digests: Establishing,
}

impl Outlook {
    /// A task without a health check counts as healthy once it has run so long.
    pub const HEALTHY_AFTER: Duration = HEALTHY_AFTER;

    pub fn of(view: View<'_>, service: &Service) -> Outlook {
        let census = Census::take(view, service, Lens::Whole);
        let desired = if service.status == ServiceStatus::Draining { 0 } else { service.desired_count };
        let situation = census.situation(service, desired);
        let shifts = Shifting::of(view, service).is_some();
        let blocked = match service.scheduling_strategy {
            // Each revision is a matter of its own then, which the percentages of the whole say nothing about.
            SchedulingStrategy::Replica if shifts => false,
            SchedulingStrategy::Replica => situation.is_blocked(),
            SchedulingStrategy::Daemon => {
                let mut plan = super::Plan::default();
                Daemons::take(view, service, &census).plan(service, false, &mut plan);
                plan.blocked
            }
        };
        let ill = |(task, condition, _): &(&Task, Condition, _)| {
            (*condition == Condition::Unhealthy).then(|| TaskKey::from(*task))
        };
        let Tasks { starting, healthy, .. } = situation.target;
        let missing = match service.primary().filter(|_| shifts) {
            // How many tasks its revision shall have just now.
            Some(primary) => {
                let tasks = deployments::tasks_of(view, service, primary);
                tasks.requested.saturating_sub(tasks.running.saturating_add(tasks.pending))
            }
            None => situation.desired.saturating_sub(starting.saturating_add(healthy)),
        };
        let leaves = |(task, _, side): &&(&Task, Condition, Side)| {
            *side == Side::Old && service.primary().is_some_and(|own| task.deployment() == Some(own.id))
        };
        let draining = u32::try_from(census.running.iter().filter(leaves).count()).unwrap_or(u32::MAX);
        let unhealthy = census.running.iter().filter_map(ill).collect();
        let mut outlook = Outlook {
            situation,
            missing,
            next: service.primary().map(|primary| primary.id),
            held_back: 0,
            draining,
            blocked,
            next_healthy: census.next_healthy,
            next_unprotected: census.next_unprotected,
            unhealthy,
            digests: service.primary().map_or(Establishing::Done, |p| establishing(view, service, p)),
        };
        if service.has_task_sets() {
            outlook.add_up_task_sets(view, service);
        }
        let next = service.deployments.iter().find(|known| Some(known.id) == outlook.next);
        outlook.held_back = next.map_or(0, |next| super::held_back(view, next)).min(outlook.missing);
        outlook
    }

    /// Each task set is a matter of its own: what is told of the service is their sum.
    fn add_up_task_sets(&mut self, view: View<'_>, service: &Service) {
        let mut lacking = None;
        let mut sum = Situation { desired: 0, target: Tasks::default(), stopping: 0, ..self.situation };
        (sum.old, sum.renewed, self.missing, self.blocked) = (Tasks::default(), 0, 0, false);
        for deployment in &service.deployments {
            let Some(set) = &deployment.task_set else { continue };
            let census = Census::take(view, service, Lens::Only(deployment.id));
            let own = census.situation(service, service.computed(set));
            sum.desired += own.desired;
            sum.target.starting += own.target.starting;
            sum.target.healthy += own.target.healthy;
            sum.target.unhealthy += own.target.unhealthy;
            sum.stopping += own.stopping;
            let missing = own.desired.saturating_sub(own.target.starting.saturating_add(own.target.healthy));
            if missing > 0 {
                self.missing += missing;
                lacking.get_or_insert(deployment.id);
            }
            self.blocked |= own.is_blocked();
        }
        self.situation = sum;
        self.next = lacking.or(self.next);
    }
}

/// What one more task of a service's deployment asks, and of the instances of which pool. `None` when there is nothing that
/// it could run.
pub fn one_more_task(
    view: View<'_>,
    service: &Service,
    deployment: DeploymentId,
) -> Option<(ClusterName, Request)> {
    let deployment = service.deployments.iter().find(|known| known.id == deployment)?;
    let record = view.state.ecs.task_definitions.get(&deployment.task_definition)?;
    let launch_type = deployment.compute.launch_type();
    let mut request = placement::request(
        &record.definition,
        launch_type,
        &service.group(),
        &service.placement_constraints,
        &[],
    );
    let turns = deployment.compute.distribute(1, &providers_of(view, service, deployment));
    let provider = turns.into_iter().next().and_then(|(provider, _)| provider);
    capacity::narrow(view, provider.as_ref(), &mut request);
    Some((placement::pool_name(&service.cluster, launch_type), request))
}
