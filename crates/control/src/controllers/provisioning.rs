//! Tasks that wait in PROVISIONING for an instance: placed when one has room, oldest first; given up when they have
//! waited too long. Where they wait for the Fargate pool, spot tasks are told to go.

use super::{Controller, LookAgain};
use crate::services::ecs::capacity;
use crate::services::ecs::launch;
use crate::services::ecs::placement;
use crate::services::ecs::state::{ContainerInstanceStatus, FARGATE_POOL, Task, TaskKey};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::ids::ClusterName;
use gantry_decide::lifecycle::StopCode;
use gantry_decide::placement::{Refusals, Request};
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// When to try again what an address or a network was missing for: nobody tells of those.
const AGAIN: Duration = Duration::from_secs(5);

/// See the module.
pub struct Provisioning;

/// What becomes of the tasks that wait for a cluster's instances, or for the Fargate pool's.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    place: Vec<TaskKey>,
    /// Tasks that are given up, with the reason that they stop for.
    give_up: Vec<(TaskKey, String)>,
    /// Spot tasks that have to go.
    interrupt: Vec<TaskKey>,
}

impl Controller for Provisioning {
    const NAME: &'static str = "provisioning";
    type Key = ClusterName;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<ClusterName>) {
        // Every change of a task comes by here, and seldom does any wait.
        if view.state.ecs.pools_with_waiting().next().is_none() {
            return;
        }
        let pool = match change {
            // One that comes to wait, or one that ends and leaves room.
            Change::Task(key) => view.state.ecs.task(key).map(|task| match &task.instance {
                Some(instance) => instance.cluster.clone(),
                None => placement::pool_name(&task.cluster, task.launch_type),
            }),
            Change::ContainerInstance(key) => Some(key.cluster.clone()),
            _ => None,
        };
        keys.extend(pool.filter(|pool| view.state.ecs.waiting_count(pool) > 0));
    }

    fn all(view: View<'_>) -> Vec<ClusterName> {
        view.state.ecs.pools_with_waiting().cloned().collect()
    }

    fn plan(view: View<'_>, key: &ClusterName, _random: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let waiting = view.state.ecs.waiting_in(key);
        let Some(oldest) = waiting.first() else { return (None, None) };
        let minutes = view.state.installation.quotas.provisioning_minutes;
        let patience = Duration::from_secs(60 * u64::from(minutes));
        let look_again = (oldest.created_at + patience).min(view.now + AGAIN);
        let mut plan = Plan::default();
        let given_up = |plan: &Plan, key: &TaskKey| plan.give_up.iter().any(|(known, _)| known == key);
        let pool = capacity::open_to(view, key, "");
        // Most tasks that wait ask the same.
        let mut known: Vec<(Request, bool)> = Vec::new();
        for task in &waiting {
            if task.created_at + patience <= view.now {
                plan.give_up.push((TaskKey::from(*task), why(view, task)));
                continue;
            }
            let request = capacity::request_of(view, task);
            let fits = match known.iter().find(|(other, _)| *other == request) {
                Some((_, fits)) => *fits,
                None => {
                    let fits = pool.hosts().any(|(_, host)| host.refuses(&request).is_none());
                    known.push((request, fits));
                    fits
                }
            };
            if fits {
                plan.place.push(TaskKey::from(*task));
            }
        }
        if key.as_str() == FARGATE_POOL {
            let (_, needs) = capacity::fargate_room(view);
            for capacity::Need { task, victims } in needs {
                if plan.place.contains(&task) || given_up(&plan, &task) {
                    continue;
                }
                match victims {
                    Some(victims) => plan.interrupt.extend(victims),
                    None => plan.give_up.push((task, capacity::UNAVAILABLE.to_owned())),
                }
            }
        }
        ((plan != Plan::default()).then_some(plan), Some(look_again))
    }

    fn apply(tx: &mut Tx<'_>, _key: &ClusterName, plan: Plan) {
        for key in plan.place {
            launch::place_waiting(tx, &key);
        }
        for key in plan.interrupt {
            capacity::interrupt(tx, &key);
        }
        for (key, reason) in plan.give_up {
            let Some(mut task) = tx.state.ecs.task(&key).filter(|task| task.is_waiting()).cloned() else {
                continue;
            };
            task.request_stop(StopCode::TaskFailedToStart, &reason, tx.now);
            tx.state.ecs.put_task(task);
        }
    }
}

/// Why a task found no instance, in the words that ECS stops it with.
fn why(view: View<'_>, task: &Task) -> String {
    let request = capacity::request_of(view, task);
    let pool = view.state.ecs.pool(&placement::pool_name(&task.cluster, task.launch_type));
    let instances = view.state.ecs.container_instances();
    let mut of_provider = pool.hosts().filter(|(key, _)| {
        let instance = instances.get(key);
        instance.is_some_and(|i| {
            i.status != ContainerInstanceStatus::Inactive && capacity::is_of_provider(i, &request)
        })
    });
    let mut refusals = Refusals::default();
    let mut active = false;
    let first = of_provider.next();
    let empty = first.is_none();
    for (key, host) in first.into_iter().chain(of_provider) {
        active |= host.profile.active;
        if let Some(refusal) = host.refuses(&request) {
            refusals.add(key, refusal);
        }
    }
    let reason = match refusals.closest {
        _ if empty => "EMPTY CAPACITY PROVIDER",
        _ if !active => "NO ACTIVE INSTANCES",
        Some((_, refusal)) => refusal.reason(),
        None => "EMPTY CAPACITY PROVIDER",
    };
    format!("TaskFailedToStart: {reason}")
}
