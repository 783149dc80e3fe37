//! Which instance of a group goes when it shrinks.
//!
//! As EC2 Auto Scaling documents: among the zones that have an instance which may go, the one with most instances; in
//! it by the group's policies in their order, each of which may leave several. Instances protected from scale-in never
//! go. What is not yet in service does no work, and goes before what is.

use super::group::Instance;
use super::lifecycle::LifecycleState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A rule of choice, by AWS's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationPolicy {
    Default,
    OldestInstance,
    NewestInstance,
    OldestLaunchConfiguration,
    OldestLaunchTemplate,
    ClosestToNextInstanceHour,
    AllocationStrategy,
}

impl TerminationPolicy {
    /// In the order of their names.
    pub const ALL: [TerminationPolicy; 7] = [
        TerminationPolicy::AllocationStrategy,
        TerminationPolicy::ClosestToNextInstanceHour,
        TerminationPolicy::Default,
        TerminationPolicy::NewestInstance,
        TerminationPolicy::OldestInstance,
        TerminationPolicy::OldestLaunchConfiguration,
        TerminationPolicy::OldestLaunchTemplate,
    ];

    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            TerminationPolicy::Default => "Default",
            TerminationPolicy::OldestInstance => "OldestInstance",
            TerminationPolicy::NewestInstance => "NewestInstance",
            TerminationPolicy::OldestLaunchConfiguration => "OldestLaunchConfiguration",
            TerminationPolicy::OldestLaunchTemplate => "OldestLaunchTemplate",
            TerminationPolicy::ClosestToNextInstanceHour => "ClosestToNextInstanceHour",
            TerminationPolicy::AllocationStrategy => "AllocationStrategy",
        }
    }

    pub fn read(text: &str) -> Option<TerminationPolicy> {
        TerminationPolicy::ALL.into_iter().find(|policy| policy.as_str() == text)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// The instance that goes first, if any may.
pub fn choose<'a, K>(
    instances: impl Iterator<Item = &'a Instance<K>> + Clone,
    policies: &[TerminationPolicy],
    now: crate::time::Timestamp,
) -> Option<&'a Instance<K>>
where
    K: Ord + Clone + 'a,
{
    let counted = instances.filter(|instance| instance.state.counts());
    let may_go = counted.clone().filter(|instance| !instance.protected);
    let idle = may_go.clone().filter(|instance| instance.state != LifecycleState::InService);
    if let Some(idle) = idle.max_by(|a, b| (a.launched_at, &a.key).cmp(&(b.launched_at, &b.key))) {
        return Some(idle);
    }
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in counted {
        *in_zone.entry(&instance.zone).or_default() += 1;
    }
    let zone = may_go
        .clone()
        .map(|instance| instance.zone.as_str())
        .max_by(|a, b| (in_zone[a], *b).cmp(&(in_zone[b], *a)))?;
    let mut left: Vec<&Instance<K>> = may_go.filter(|instance| instance.zone == zone).collect();
    for policy in policies {
        match policy {
            TerminationPolicy::Default => {
                keep_least(&mut left, |instance| instance.launch_age);
                keep_least(&mut left, |instance| to_next_hour(instance, now));
            }
            TerminationPolicy::OldestInstance => keep_least(&mut left, |instance| instance.launched_at),
            TerminationPolicy::NewestInstance => {
                keep_least(&mut left, |instance| std::cmp::Reverse(instance.launched_at));
            }
            TerminationPolicy::OldestLaunchConfiguration | TerminationPolicy::OldestLaunchTemplate => {
                keep_least(&mut left, |instance| instance.launch_age);
            }
            TerminationPolicy::ClosestToNextInstanceHour => {
                keep_least(&mut left, |instance| to_next_hour(instance, now));
            }
            // All instances of a group are bought alike.
            TerminationPolicy::AllocationStrategy => {}
        }
    }
    left.into_iter().min_by_key(|instance| instance.key.clone())
}

fn keep_least<K: Ord, V: Ord>(left: &mut Vec<&Instance<K>>, of: impl Fn(&Instance<K>) -> V) {
    if let Some(least) = left.iter().map(|instance| of(instance)).min() {
        left.retain(|instance| of(instance) == least);
    }
}

/// Until an hour of its life is full again.
fn to_next_hour<K: Ord>(instance: &Instance<K>, now: crate::time::Timestamp) -> u64 {
    let lived = now.since(instance.launched_at).as_secs();
    HOUR.as_secs() - lived % HOUR.as_secs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scaling::group::testing::in_service;
    use crate::time::Timestamp;

    fn chosen(instances: &[Instance<u32>], policies: &[TerminationPolicy]) -> Option<u32> {
        let now = Timestamp::from_millis(10 * 3_600_000);
        choose(instances.iter(), policies, now).map(|instance| instance.key)
    }

    #[test]
    fn the_fullest_zone_gives_first() {
        let all = [in_service(1, "a"), in_service(2, "b"), in_service(3, "b")];
        assert_eq!(chosen(&all, &[TerminationPolicy::OldestInstance]), Some(2));
    }

    #[test]
    fn protected_instances_stay_and_their_zone_passes_the_turn_on() {
        let mut all = [in_service(1, "a"), in_service(2, "b"), in_service(3, "b")];
        all[1].protected = true;
        all[2].protected = true;
        assert_eq!(chosen(&all, &[TerminationPolicy::Default]), Some(1));
        all[0].protected = true;
        assert_eq!(chosen(&all, &[TerminationPolicy::Default]), None);
    }

    #[test]
    fn policies_apply_in_their_order() {
        let mut all = [in_service(1, "a"), in_service(2, "a"), in_service(3, "a")];
        all[0].launch_age = 7;
        all[1].launch_age = 5;
        all[2].launch_age = 5;
        use TerminationPolicy as P;
        assert_eq!(chosen(&all, &[P::OldestInstance]), Some(1));
        assert_eq!(chosen(&all, &[P::NewestInstance]), Some(3));
        assert_eq!(chosen(&all, &[P::OldestLaunchTemplate, P::NewestInstance]), Some(3));
        assert_eq!(chosen(&all, &[P::OldestLaunchTemplate, P::OldestInstance]), Some(2));
    }

    #[test]
    fn what_does_no_work_yet_goes_before_what_does() {
        let mut all = [in_service(1, "a"), in_service(2, "a"), in_service(3, "b")];
        all[2].state = LifecycleState::Pending;
        assert_eq!(chosen(&all, &[TerminationPolicy::Default]), Some(3));
    }
}
