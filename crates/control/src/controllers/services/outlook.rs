//! Where a service stands as its controller sees it: for people who ask why nothing goes on.

use super::census::{Census, Condition, HEALTHY_AFTER, Lens};
use super::daemon::Daemons;
use super::digests::{Establishing, establishing};
use super::shifting::Shifting;
use super::steps::providers_of;
use crate::services::ecs::state::{SchedulingStrategy, Service, ServiceStatus, Task, TaskKey};
use crate::services::ecs::{capacity, deployments, placement};
use crate::tx::View;
use gantry_decide::deployment::rolling::{Situation, Tasks};
use gantry_decide::ids::ClusterName;
use gantry_decide::placement::Request;
use gantry_decide::time::Timestamp;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub struct Outlook {
    pub situation: Situation,
    /// Tasks of the primary deployment that have yet to be launched.
    pub missing: u32,
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
        Outlook {
            situation,
            missing,
            blocked,
            next_healthy: census.next_healthy,
            next_unprotected: census.next_unprotected,
            unhealthy: census.running.iter().filter_map(ill).collect(),
            digests: service.primary().map_or(Establishing::Done, |p| establishing(view, service, p)),
        }
    }
}

/// What one more task of a service's primary deployment asks, and of the instances of which pool. `None` when there is
/// nothing that it could run.
pub fn one_more_task(view: View<'_>, service: &Service) -> Option<(ClusterName, Request)> {
    let primary = service.primary()?;
    let record = view.state.ecs.task_definitions.get(&primary.task_definition)?;
    let launch_type = primary.compute.launch_type();
    let mut request = placement::request(
        &record.definition,
        launch_type,
        &service.group(),
        &service.placement_constraints,
        &[],
    );
    let turns = primary.compute.distribute(1, &providers_of(view, service, primary));
    let provider = turns.into_iter().next().and_then(|(provider, _)| provider);
    capacity::narrow(view, provider.as_ref(), &mut request);
    Some((placement::pool_name(&service.cluster, launch_type), request))
}
