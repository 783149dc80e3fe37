//! Tasks of services behind load balancers: registered as targets when they run, deregistered when they shall stop.

use super::services::teller_of;
use super::{Controller, LookAgain};
use crate::services::ecs::state::{Service, Task, TaskKey};
use crate::services::ecs::{balanced, deployments};
use crate::services::elbv2::links;
use crate::services::elbv2::state::TargetKey;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::deployment::events::{self, Lost};
use gantry_decide::ids::{TargetGroupId, TaskId};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_store::Record;
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module.
pub struct ServiceTargets;

/// What is to be done about one task.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    register: Vec<TargetKey>,
    deregister: Vec<TargetKey>,
    /// What it lacks at the balancer although it runs, by group, and has not been told.
    lost: Vec<(TargetGroupId, Lost)>,
}

impl Controller for ServiceTargets {
    const NAME: &'static str = "service_targets";
    type Key = TaskKey;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<TaskKey>) {
        match change {
            Change::Task(key) => {
                let task = view.state.ecs.task(key);
                keys.extend(
                    task.filter(|task| balanced::service_of(view, task).is_some()).map(TaskKey::from),
                );
            }
            // Somebody deleted the group, or deregistered targets that are tasks.
            Change::Targets(group) => {
                let deregistered: BTreeSet<TaskId> = view
                    .state
                    .elbv2
                    .targets_of(group)
                    .filter(|target| target.deregistered_at.is_some())
                    .filter_map(|target| target.task)
                    .collect();
                let gone = view.state.elbv2.target_group(group).is_none();
                if gone || !deregistered.is_empty() {
                    let tasks = balanced::services_of_group(view, group)
                        .flat_map(|service| view.state.ecs.in_books_of(&service.key()));
                    let affected = tasks.filter(|task| balanced::belongs(task));
                    let affected = affected.filter(|task| gone || deregistered.contains(&task.id));
                    keys.extend(affected.map(TaskKey::from));
                }
            }
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<TaskKey> {
        let tasks = |service: &Arc<Service>| {
            let key = service.key();
            let all = view.state.ecs.in_books_of(&key);
            let of_groups = all.filter(|task| !balanced::of_task(service, task).is_empty());
            of_groups.map(TaskKey::from).collect::<Vec<_>>()
        };
        view.state.ecs.services().values().flat_map(tasks).collect()
    }

    fn plan(view: View<'_>, key: &TaskKey, _random: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let Some(task) = view.state.ecs.task(key) else { return (None, None) };
        let Some(service) = balanced::service_of(view, task) else { return (None, None) };
        let mut plan = Plan { lost: lost(view, service, task), ..Plan::default() };
        for target in balanced::targets(view, service, task) {
            let registered = view.state.elbv2.targets.get(&target);
            let own = registered
                .is_some_and(|known| known.task == Some(task.id) && known.deregistered_at.is_none());
            match (balanced::belongs(task), own) {
                (true, false) => plan.register.push(target),
                (false, true) if task.is_live() && mutant::is("deregistered after the stop") => {}
                (false, true) => plan.deregister.push(target),
                _ => {}
            }
        }
        ((plan != Plan::default()).then_some(plan), None)
    }

    fn apply(tx: &mut Tx<'_>, key: &TaskKey, plan: Plan) {
        let Some(task) = tx.state.ecs.task(key).cloned() else { return };
        let Some(mut service) = balanced::service_of(tx.view(), &task).cloned() else { return };
        let name = service.name.to_string();
        for (group, lost) in plan.lost {
            let Some(deployment) = service.deployment_of(&task).map(|deployment| deployment.id) else {
                continue;
            };
            let group = tx.scope.balancing(group).to_string();
            let message = events::lost(&name, deployment, task.id, &group, lost);
            deployments::tell(tx, &mut service, message);
        }
        for target in plan.register {
            let group = tx.scope.balancing(target.group.clone()).to_string();
            let (id, port) = (target.id, target.port);
            let message = match links::register(tx, &target.group, id, port, None, Some(task.id)) {
                Ok(()) => events::registered(&name, 1, &group),
                Err(error) => events::cannot_register(&name, &group, &error.to_string()),
            };
            deployments::tell(tx, &mut service, message);
        }
        let mut left = plan.deregister;
        left.retain(|target| links::deregister(tx, &target.group, &target.id, target.port));
        if !left.is_empty() {
            let message = events::draining(&teller_of(&service, &task), 1);
            deployments::tell(tx, &mut service, message);
        }
        for target in left {
            let group = tx.scope.balancing(target.group).to_string();
            deployments::tell(tx, &mut service, events::deregistered(&name, 1, &group));
        }
        tx.state.ecs.put_service(service);
    }
}

/// What a task that runs lacks at the balancer. A group that is gone is told of one task alone.
fn lost(view: View<'_>, service: &Service, task: &Task) -> Vec<(TargetGroupId, Lost)> {
    if !balanced::belongs(task) || service.deployment_of(task).is_none() {
        return Vec::new();
    }
    let elbv2 = &view.state.elbv2;
    let gone = |group: &&TargetGroupId| {
        let ending = || events::lost_ending(&view.scope.balancing((*group).clone()).to_string(), Lost::Group);
        elbv2.target_group(group).is_none() && !service.has_told(&ending(), view.now)
    };
    let groups = balanced::of_task(service, task).iter().map(|balanced| &balanced.target_group);
    let groups = groups.filter(gone).map(|group| (group.clone(), Lost::Group));
    let targets = balanced::targets(view, service, task).into_iter().filter(|key| {
        let target = elbv2.targets.get(key);
        target.is_some_and(|target| target.task == Some(task.id) && target.deregistered_at.is_some())
    });
    groups.chain(targets.map(|key| (key.group, Lost::Target))).collect()
}
