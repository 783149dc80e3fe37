//! The tables of EC2 Auto Scaling, and what must always hold between them.

mod activity;
mod group;
mod instance;
mod launch_configuration;
mod load;

pub use activity::*;
pub use group::*;
pub use instance::*;
pub use launch_configuration::*;
pub use load::Row;

use gantry_decide::ids::{AutoScalingGroupName, Ec2InstanceId};
use gantry_store::{Table, Write};
use std::collections::BTreeSet;

/// All of Auto Scaling in one scope.
#[derive(Clone, Default)]
pub struct AutoScalingState {
    pub groups: Table<AutoScalingGroup>,
    pub instances: Table<Instance>,
    pub activities: Table<Activity>,
    pub launch_configurations: Table<LaunchConfiguration>,
}

impl AutoScalingState {
    pub fn group(&self, name: &AutoScalingGroupName) -> Option<&AutoScalingGroup> {
        self.groups.get(name).map(AsRef::as_ref)
    }

    pub fn instance(&self, id: &Ec2InstanceId) -> Option<&Instance> {
        self.instances.get(id).map(AsRef::as_ref)
    }

    /// A group's instances, whatever their state, in the order of their ids.
    pub fn instances_of(&self, group: &AutoScalingGroupName) -> impl Iterator<Item = &Instance> + Clone {
        // A scope has some hundreds at most: no index is worth its upkeep.
        let all: Vec<&Instance> =
            self.instances.values().map(AsRef::as_ref).filter(|instance| instance.group == *group).collect();
        all.into_iter()
    }

    /// A group's activities, the oldest first.
    pub fn activities_of(&self, group: &AutoScalingGroupName) -> impl DoubleEndedIterator<Item = &Activity> {
        let key = |number| ActivityKey { group: group.clone(), number };
        self.activities.range(key(0)..=key(u64::MAX)).map(|(_, activity)| activity.as_ref())
    }

    /// The groups that changed, themselves or by an instance of theirs, since the last call.
    pub(crate) fn drain_changes(&mut self) -> Vec<AutoScalingGroupName> {
        let mut changed: BTreeSet<_> = self.groups.drain_changes().into_iter().collect();
        for id in self.instances.drain_changes() {
            // One that is gone left its group in the same step.
            changed.extend(self.instance(&id).map(|instance| instance.group.clone()));
        }
        changed.into_iter().collect()
    }

    /// See [`crate::state::State::drain_writes`].
    pub(crate) fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.groups.drain_writes(prefix, out);
        self.instances.drain_writes(prefix, out);
        self.activities.drain_writes(prefix, out);
        self.launch_configurations.drain_writes(prefix, out);
    }

    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        for group in self.groups.values() {
            let within = group.min_size <= group.desired && group.desired <= group.max_size;
            assert!(within || group.deleting, "{} wants what it may", group.name);
        }
        for instance in self.instances.values() {
            let group = self.group(&instance.group).expect("an instance belongs to a group");
            let waits = instance.state.is_waiting();
            assert!(waits || instance.waits.is_empty(), "{} waits for nothing", instance.id);
            for hook in instance.waits.keys() {
                assert!(group.hooks.contains_key(hook), "{} waits for a hook that is there", instance.id);
            }
        }
        for activity in self.activities.values() {
            assert!(activity.number < u64::MAX, "activities are counted");
        }
    }
}
