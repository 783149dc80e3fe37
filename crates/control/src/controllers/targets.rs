//! Targets that were deregistered: they are forgotten when they have drained, at the latest when their delay is over.

use super::{Controller, LookAgain};
use crate::services::elbv2::links;
use crate::services::elbv2::state::TargetKey;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::random::Random;
use std::collections::BTreeSet;

/// See the module.
pub struct Targets;

/// The delay of a target is over.
pub struct Forget;

impl Controller for Targets {
    const NAME: &'static str = "targets";
    type Key = TargetKey;
    type Plan = Forget;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<TargetKey>) {
        match change {
            Change::Targets(group) => {
                let targets = view.state.elbv2.targets_of(group);
                keys.extend(targets.filter(|t| t.deregistered_at.is_some()).map(|target| target.key.clone()));
            }
            // Their delay may be another now, or nobody sends them requests any more.
            Change::Routing => keys.extend(Targets::all(view)),
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<TargetKey> {
        let targets = view.state.elbv2.targets.values();
        targets.filter(|target| target.deregistered_at.is_some()).map(|target| target.key.clone()).collect()
    }

    fn plan(view: View<'_>, key: &TargetKey, _random: &mut dyn Random) -> (Option<Forget>, LookAgain) {
        let target = view.state.elbv2.targets.get(key).filter(|target| target.deregistered_at.is_some());
        let Some(target) = target else { return (None, None) };
        match links::drains_until(view, target) {
            Some(end) if end > view.now => (None, Some(end)),
            _ => (Some(Forget), None),
        }
    }

    fn apply(tx: &mut Tx<'_>, key: &TargetKey, Forget: Forget) {
        let deregistered = |target: &crate::services::elbv2::state::Target| target.deregistered_at.is_some();
        if tx.state.elbv2.targets.get(key).is_some_and(|target| deregistered(target)) {
            tx.state.elbv2.targets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::controllers::testing::settle;
    use crate::services::ecs::tests::world::World;
    use crate::services::elbv2::ops::target;
    use crate::services::elbv2::tests::website;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_target_is_forgotten_when_its_delay_is_over() {
        let mut world = World::new();
        let (_, _, group) = website(&mut world);
        let request = json!({ "TargetGroupArn": group, "Targets": [{ "Id": "10.0.0.7" }] });
        world.write(target::register_targets, request.clone()).unwrap();
        world.write(target::deregister_targets, request).unwrap();
        let since = world.now;
        settle::<Targets>(&mut world);
        assert_eq!(world.state.elbv2.targets.len(), 1);
        let key = world.state.elbv2.targets.values().next().unwrap().key.clone();
        let view = View { scope: &world.scope, state: &world.state, now: world.now };
        let end = since + Duration::from_secs(300);
        assert!(matches!(Targets::plan(view, &key, &mut world.random), (None, Some(at)) if at == end));
        world.now = end;
        settle::<Targets>(&mut world);
        assert!(world.state.elbv2.targets.is_empty());
    }
}
