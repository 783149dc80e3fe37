//! When ECS changes the desired capacity of a capacity provider's Auto Scaling group, and to what.
//!
//! As ECS documents it, target tracking holds `CapacityProviderReservation` at the target: out after one minute above
//! it, in after fifteen minutes below it, at most half of the instances at once. Here what is above is seen at once: the
//! answer follows from what is needed alone, so that nothing is gained by a minute's patience.

use crate::mutant;
use crate::time::Timestamp;
use std::time::Duration;

/// For how long less must be needed before instances go: ECS's.
pub const SCALE_IN_AFTER: Duration = Duration::from_secs(15 * 60);
/// Between two steps inwards: the metric's period, unless the first is waited for for less.
const STEP_EVERY: Duration = Duration::from_secs(60);

/// A group and what its provider's tasks need of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub minimum: u32,
    pub maximum: u32,
    pub desired: u32,
    /// M of the metric: instances that are needed.
    pub needed: u32,
    /// N of the metric: instances that are there.
    pub there: u32,
    /// The percentage that the metric shall have: 1 to 100.
    pub target: u32,
    /// The most instances that are added at once.
    pub maximum_step: u32,
    /// When the last instance that came stops being new: until then none goes.
    pub warm_at: Option<Timestamp>,
    /// See [`SCALE_IN_AFTER`].
    pub scale_in_after: Duration,
}

/// What is remembered from one decision to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Since when less than the target is needed.
    pub low_since: Option<Timestamp>,
    /// When the last step inwards was taken.
    pub stepped_at: Option<Timestamp>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The desired capacity to set.
    pub desired: Option<u32>,
    pub progress: Progress,
    /// When to look again though nothing changes.
    pub again: Option<Timestamp>,
}

/// Decides on a group.
pub fn decide(facts: Facts, progress: Progress, now: Timestamp) -> Decision {
    let most = if mutant::is("maximum size ignored") { u32::MAX } else { facts.maximum };
    let (minimum, maximum) = (facts.minimum, most.max(facts.minimum));
    let target = u64::from(facts.target.clamp(1, 100));
    let ideal = u32::try_from((u64::from(facts.needed) * 100).div_ceil(target)).unwrap_or(u32::MAX);
    let calm = Decision { desired: None, progress: Progress::default(), again: None };
    if ideal > facts.desired {
        // Steps are counted from what is there, not from what was asked for: asking twice does not add twice.
        let most = facts.there.saturating_add(facts.maximum_step);
        let wanted = ideal.min(most).clamp(minimum, maximum);
        return Decision { desired: (wanted > facts.desired).then_some(wanted), ..calm };
    }
    let wanted = ideal.clamp(minimum, maximum);
    if wanted >= facts.desired {
        return calm;
    }
    let low_since = progress.low_since.unwrap_or(now);
    let pause = STEP_EVERY.min(facts.scale_in_after);
    let stepped = progress.stepped_at.map(|at| at + pause);
    let patient = Some(low_since + facts.scale_in_after).filter(|_| !mutant::is("groups shrink at once"));
    let warm = facts.warm_at.filter(|_| !mutant::is("warm-up ignored"));
    let due = [patient, warm, stepped].into_iter().flatten().max();
    let due = due.unwrap_or(now);
    let waiting = Progress { low_since: Some(low_since), stepped_at: progress.stepped_at };
    if due > now {
        return Decision { desired: None, progress: waiting, again: Some(due) };
    }
    let half = (facts.desired / 2).max(1);
    let wanted = wanted.max(facts.desired - half);
    let progress = Progress { stepped_at: Some(now), ..waiting };
    Decision { desired: Some(wanted), progress, again: Some(now + pause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn facts(desired: u32, needed: u32) -> Facts {
        Facts {
            minimum: 0,
            maximum: 100,
            desired,
            needed,
            there: desired,
            target: 100,
            maximum_step: 10_000,
            warm_at: None,
            scale_in_after: SCALE_IN_AFTER,
        }
    }

    fn desired(facts: Facts) -> Option<u32> {
        decide(facts, Progress::default(), at(0)).desired
    }

    #[test]
    fn a_group_grows_at_once_to_what_is_needed() {
        assert_eq!(desired(facts(0, 2)), Some(2));
        assert_eq!(desired(facts(3, 5)), Some(5));
        assert_eq!(desired(facts(3, 3)), None);
        assert_eq!(desired(Facts { target: 50, ..facts(3, 3) }), Some(6));
        assert_eq!(desired(Facts { maximum: 4, ..facts(3, 5) }), Some(4));
        assert_eq!(desired(Facts { maximum: 3, ..facts(3, 5) }), None);
        assert_eq!(desired(Facts { maximum_step: 2, ..facts(3, 50) }), Some(5));
        assert_eq!(desired(Facts { maximum_step: 2, there: 3, ..facts(5, 50) }), None);
    }

    #[test]
    fn it_shrinks_after_a_while_by_halves_down_to_nothing() {
        let (mut group, mut progress, mut now) = (facts(9, 0), Progress::default(), at(0));
        let mut steps = Vec::new();
        while group.desired > 0 {
            let decision = decide(group, progress, now);
            if let Some(wanted) = decision.desired {
                steps.push((now.as_millis() / 1000, wanted));
                (group.desired, group.there) = (wanted, wanted);
            }
            progress = decision.progress;
            now = decision.again.unwrap_or(now);
        }
        assert_eq!(steps, [(900, 5), (960, 3), (1020, 2), (1080, 1), (1140, 0)]);
    }

    #[test]
    fn what_is_needed_again_begins_the_patience_anew() {
        let low = decide(facts(2, 1), Progress::default(), at(0));
        assert_eq!(low.again, Some(at(900)));
        let calm = decide(facts(2, 2), low.progress, at(600));
        assert_eq!(calm.progress, Progress::default());
        let low = decide(facts(2, 1), calm.progress, at(800));
        assert_eq!((low.desired, low.again), (None, Some(at(1700))));
    }

    #[test]
    fn new_instances_and_the_minimum_stay() {
        let progress = Progress { low_since: Some(at(0)), stepped_at: None };
        let warming = Facts { warm_at: Some(at(1200)), ..facts(2, 0) };
        let decision = decide(warming, progress, at(1000));
        assert_eq!((decision.desired, decision.again), (None, Some(at(1200))));
        assert_eq!(decide(Facts { minimum: 2, ..facts(2, 0) }, progress, at(1000)).desired, None);
    }
}
