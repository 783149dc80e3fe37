//! Removes task definitions whose deletion was requested, once nothing refers to them any more.

use super::{Controller, LookAgain};
use crate::services::ecs::state::{Change, EffectiveDefinition, Task, TaskDefinitionStatus};
use crate::tx::{Tx, View};
use gantry_decide::ids::TaskDefinitionId;
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::sync::Arc;

pub struct TaskDefinitions;

/// The definition is gone from every task and service.
pub struct Remove;

impl Controller for TaskDefinitions {
    const NAME: &'static str = "task-definitions";
    type Key = TaskDefinitionId;
    type Plan = Remove;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<TaskDefinitionId>) {
        match change {
            Change::TaskDefinition(id) => {
                keys.insert(id.clone());
            }
            // A task or a service that ends may have been the last to refer to one.
            Change::Task(key) => {
                let ended = view.state.ecs.task(key).filter(|task| !task.is_live());
                keys.extend(ended.map(|task| task.definition_id.clone()));
            }
            Change::Service(key) => {
                let deployments = view.state.ecs.service(key).map(|service| &service.deployments);
                keys.extend(deployments.into_iter().flatten().map(|d| d.task_definition.clone()));
            }
            Change::Cluster(_)
            | Change::CapacityProvider(_)
            | Change::ContainerInstance(_)
            | Change::ExecSession(_)
            | Change::Alarm(_)
            | Change::AutoScalingGroup(_)
            | Change::ManagedInstance(_)
            | Change::Daemon(_)
            | Change::SecurityGroup(_)
            | Change::Targets(_)
            | Change::Routing => {}
        }
    }

    fn all(view: View<'_>) -> Vec<TaskDefinitionId> {
        let waiting = |status| status == TaskDefinitionStatus::DeleteInProgress;
        let records = view.state.ecs.task_definitions.iter().filter(|(_, record)| waiting(record.status));
        records.map(|(id, _)| id.clone()).collect()
    }

    fn plan(view: View<'_>, id: &TaskDefinitionId, _random: &mut dyn Random) -> (Option<Remove>, LookAgain) {
        let ecs = &view.state.ecs;
        let wanted =
            ecs.task_definitions.get(id).is_some_and(|r| r.status == TaskDefinitionStatus::DeleteInProgress);
        if !wanted {
            return (None, None);
        }
        let by_task = ecs.tasks().values().any(|task| task.is_live() && &task.definition_id == id);
        let by_service = || {
            let mut deployments = ecs.services().values().flat_map(|service| &service.deployments);
            deployments.any(|deployment| &deployment.task_definition == id)
        };
        let free = !by_task && !by_service();
        (free.then_some(Remove), None)
    }

    fn apply(tx: &mut Tx<'_>, id: &TaskDefinitionId, Remove: Remove) {
        // Stopped tasks can be described for a while yet: from now on they carry the definition themselves.
        let ecs = &mut tx.state.ecs;
        let left = ecs.tasks().values().filter(|task| task.definition.is_registered());
        let left: Vec<_> = left.filter(|task| &task.definition_id == id).cloned().collect();
        for task in left {
            let definition = EffectiveDefinition::own(Arc::clone(task.definition.shared()));
            ecs.put_task(Task { definition, ..Task::clone(&task) });
        }
        tx.state.ecs.task_definitions.remove(id);
    }
}
