//! Tasks of services behind load balancers: registered as targets when they run, deregistered when they shall stop.

use super::services::teller_of;
use super::{Controller, LookAgain};
use crate::services::ecs::state::{Service, TaskKey};
use crate::services::ecs::{balanced, deployments};
use crate::services::elbv2::links;
use crate::services::elbv2::state::TargetKey;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::deployment::events;
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
}

impl Controller for ServiceTargets {
    const NAME: &'static str = "service_targets";
    type Key = TaskKey;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<TaskKey>) {
        if let Change::Task(key) = change
            && view.state.ecs.task(key).is_some_and(|task| balanced::service_of(view, task).is_some())
        {
            keys.insert(key.clone());
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
        let mut plan = Plan::default();
        for target in balanced::targets(view, service, task) {
            let registered = view.state.elbv2.targets.get(&target);
            let own = registered
                .is_some_and(|known| known.task == Some(task.id) && known.deregistered_at.is_none());
            match (balanced::belongs(task), own) {
                (true, false) => plan.register.push(target),
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
