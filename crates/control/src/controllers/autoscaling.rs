//! Auto Scaling groups: the next steps of each, as `decide::scaling::group` says.

use super::{Controller, LookAgain};
use crate::services::autoscaling::steps;
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::ids::{AutoScalingGroupName, Ec2InstanceId};
use gantry_decide::random::Random;
use gantry_decide::scaling::group::Step;
use std::collections::BTreeSet;

/// See the module.
pub struct AutoScaling;

impl Controller for AutoScaling {
    const NAME: &'static str = "autoscaling";
    type Key = AutoScalingGroupName;
    type Plan = Vec<Step<Ec2InstanceId>>;

    fn watches(_view: View<'_>, change: &Change, keys: &mut BTreeSet<AutoScalingGroupName>) {
        if let Change::AutoScalingGroup(name) = change {
            keys.insert(name.clone());
        }
    }

    fn all(view: View<'_>) -> Vec<AutoScalingGroupName> {
        view.state.autoscaling.groups.iter().map(|(name, _)| name.clone()).collect()
    }

    fn plan(
        view: View<'_>,
        name: &AutoScalingGroupName,
        _random: &mut dyn Random,
    ) -> (Option<Self::Plan>, LookAgain) {
        let (steps, again) = steps::next(view, name);
        (Some(steps).filter(|steps| !steps.is_empty()), again)
    }

    fn apply(tx: &mut Tx<'_>, name: &AutoScalingGroupName, plan: Self::Plan) {
        // Nothing came between the plan and this: both are one step of the engine.
        steps::carry_out(tx, name, plan);
    }
}
