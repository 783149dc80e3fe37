//! Deregistered container instances are forgotten once they have been describable for long enough.

use super::{Controller, LookAgain};
use crate::services::ecs::state::{ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// As long as stopped tasks: theirs are forgotten by then, too. ECS speaks of "a period of time".
const RETENTION: Duration = Duration::from_secs(3600);

/// See the module.
pub struct ContainerInstances;

impl Controller for ContainerInstances {
    const NAME: &'static str = "container-instances";
    type Key = ContainerInstanceKey;
    type Plan = ();

    /// One that is a resync too old does no harm.
    fn watches(_view: View<'_>, _change: &Change, _keys: &mut BTreeSet<ContainerInstanceKey>) {}

    fn all(view: View<'_>) -> Vec<ContainerInstanceKey> {
        let instances = view.state.ecs.container_instances().iter();
        let old = instances.filter(|(key, instance)| is_over(view, key, instance));
        old.map(|(key, _)| key.clone()).collect()
    }

    fn plan(
        _view: View<'_>,
        _key: &ContainerInstanceKey,
        _random: &mut dyn Random,
    ) -> (Option<()>, LookAgain) {
        (Some(()), None)
    }

    fn apply(tx: &mut Tx<'_>, key: &ContainerInstanceKey, (): ()) {
        tx.state.ecs.remove_container_instance(key);
    }
}

fn is_over(view: View<'_>, key: &ContainerInstanceKey, instance: &ContainerInstance) -> bool {
    instance.status == ContainerInstanceStatus::Inactive
        && instance.deregistered_at.unwrap_or(instance.registered_at) + RETENTION <= view.now
        // Their end is noted first.
        && view.state.ecs.tasks_on(key).next().is_none()
}
