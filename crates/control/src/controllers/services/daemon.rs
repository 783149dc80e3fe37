//! DAEMON services: their tasks by the instances that they are on, and the next step at each.

use super::census::{Census, Condition, Side};
use super::{Plan, Why};
use crate::services::ecs::placement;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceKey, Service, ServiceStatus, Task, TaskKey,
};
use crate::tx::View;
use gantry_decide::deployment::daemon::{self, Place};
use gantry_decide::deployment::rolling::Tasks;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_store::Record;
use std::collections::{BTreeMap, BTreeSet};

/// The instances that concern a service, in the order of their keys.
pub struct Daemons<'a> {
    keys: Vec<ContainerInstanceKey>,
    places: Vec<Place>,
    /// Those whose agents are there to start something.
    connected: BTreeSet<ContainerInstanceKey>,
    /// The live tasks that shall run, by instance.
    running: BTreeMap<ContainerInstanceKey, Vec<(&'a Task, Condition, Side)>>,
}

impl<'a> Daemons<'a> {
    pub fn take(view: View<'_>, service: &Service, census: &Census<'a>) -> Daemons<'a> {
        let mut places: BTreeMap<ContainerInstanceKey, Place> = BTreeMap::new();
        if service.status == ServiceStatus::Active {
            for key in eligible(view, service) {
                places.entry(key).or_default().eligible = true;
            }
        }
        let mut running: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for &(task, condition, side) in &census.running {
            let Some(key) = task.instance.clone() else { continue };
            let place = places.entry(key.clone()).or_default();
            let tasks = if side == Side::Target { &mut place.target } else { &mut place.old };
            *counted(tasks, condition) += 1;
            running.entry(key).or_default().push((task, condition, side));
        }
        let stops = |task: &&Task| task.desired_status == DesiredStatus::Stopped;
        for task in view.state.ecs.tasks_of(&service.key()).filter(stops) {
            if let Some(key) = task.instance.clone() {
                places.entry(key).or_default().stopping += 1;
            }
        }
        let (keys, places): (Vec<ContainerInstanceKey>, _) = places.into_iter().unzip();
        let connected = |key: &&ContainerInstanceKey| {
            view.state.ecs.container_instance(key).is_some_and(ContainerInstance::takes_tasks)
        };
        let connected = keys.iter().filter(connected).cloned().collect();
        Daemons { keys, places, connected, running }
    }

    /// What ECS shows as the desired count.
    pub fn desired(&self) -> u32 {
        daemon::desired(&self.places)
    }

    pub fn is_steady(&self) -> bool {
        daemon::is_steady(&self.places)
    }

    /// The next steps; `launches` says whether tasks may be started now. True if some have yet to be.
    pub fn plan(&self, service: &Service, launches: bool, plan: &mut Plan) -> bool {
        let minimum = service.configuration.minimum_healthy_percent;
        let mut wants_more = false;
        for (key, step) in self.keys.iter().zip(daemon::plan(&self.places, minimum)) {
            wants_more |= step.start;
            // One that has just registered connects at once, and is no failure until then.
            if step.start && launches && self.connected.contains(key) {
                plan.start_on.push(key.clone());
            }
            for (of_target, stop) in [(true, step.stop_target), (false, step.stop_old)] {
                let here = self.running.get(key).into_iter().flatten();
                let here = here.filter(|(_, _, side)| (*side == Side::Target) == of_target);
                let mut left = stop;
                for (task, condition, _) in here {
                    let count = counted(&mut left, *condition);
                    if *count > 0 {
                        *count -= 1;
                        let ill = *condition == Condition::Unhealthy;
                        let why = if ill { Why::Unhealthy } else { Why::Scaling };
                        plan.stop.push((TaskKey::from(*task), why));
                    }
                }
            }
        }
        plan.blocked = daemon::is_blocked(&self.places, minimum);
        wants_more
    }
}

fn counted(tasks: &mut Tasks, condition: Condition) -> &mut u32 {
    match condition {
        Condition::Starting => &mut tasks.starting,
        Condition::Healthy => &mut tasks.healthy,
        Condition::Unhealthy => &mut tasks.unhealthy,
    }
}

/// The instances that shall have a task.
fn eligible(view: View<'_>, service: &Service) -> Vec<ContainerInstanceKey> {
    let pool = view.state.ecs.pool(&service.cluster);
    placement::daemon_request(view, service).map_or_else(Vec::new, |request| pool.suitable(&request))
}
