//! How quickly a service replaces tasks that end by themselves: a bucket of tokens that fills up within a minute. Each end
//! takes one, and what it is short of waits. A program that ends at once is so tried at a bearable rate.
//!
//! The bucket is one time: when it will be full again. Nothing has to be counted or stored as time goes by.

use crate::time::Timestamp;
use std::time::Duration;

/// In which an empty bucket fills up.
const MINUTE_MILLIS: u64 = 60_000;

/// When a bucket is full at the latest: by ECS's quotas a service has 5,000 tasks, of which 500 are replaced in a minute. A
/// time that is further ahead was told by a clock that has been set back since, and counts for nothing.
const AHEAD_MAX: Duration = Duration::from_millis(11 * MINUTE_MILLIS);

/// When the bucket is full again after so many more tasks ended; `full_at` is what this said before.
pub fn spend(full_at: Option<Timestamp>, ended: u32, per_minute: u32, now: Timestamp) -> Timestamp {
    let took = u64::from(ended) * MINUTE_MILLIS / u64::from(per_minute.max(1));
    let full_at =
        full_at.filter(|full_at| *full_at <= now + AHEAD_MAX).map_or(now, |full_at| full_at.max(now));
    (full_at + Duration::from_millis(took)).min(now + AHEAD_MAX)
}

/// How many of the tasks that ended may not be replaced yet.
pub fn held_back(full_at: Option<Timestamp>, per_minute: u32, now: Timestamp) -> u32 {
    let tokens = short_of(full_at, now) * u64::from(per_minute.max(1));
    u32::try_from(tokens.div_ceil(MINUTE_MILLIS)).unwrap_or(u32::MAX)
}

/// When one more of those may be replaced.
pub fn next(full_at: Option<Timestamp>, per_minute: u32, now: Timestamp) -> Option<Timestamp> {
    let others = u64::from(held_back(full_at, per_minute, now).checked_sub(1)?);
    let theirs = others * MINUTE_MILLIS / u64::from(per_minute.max(1));
    Some(now + Duration::from_millis(short_of(full_at, now).saturating_sub(theirs).max(1)))
}

/// Milliseconds until the bucket is no longer overdrawn.
fn short_of(full_at: Option<Timestamp>, now: Timestamp) -> u64 {
    let until_full = full_at.map_or(Duration::ZERO, |full_at| full_at.since(now));
    if until_full > AHEAD_MAX {
        return 0;
    }
    u64::try_from(until_full.as_millis()).unwrap_or(u64::MAX).saturating_sub(MINUTE_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_minutes_worth_is_replaced_at_once_and_more_only_as_time_goes_by() {
        let full_at = Some(spend(None, 500, 500, at(0)));
        assert_eq!((held_back(full_at, 500, at(0)), next(full_at, 500, at(0))), (0, None));
        let full_at = Some(spend(full_at, 3, 500, at(0)));
        assert_eq!((held_back(full_at, 500, at(0)), next(full_at, 500, at(0))), (3, Some(at(120))));
        assert_eq!([119, 120, 240, 359, 360].map(|now| held_back(full_at, 500, at(now))), [3, 2, 1, 1, 0]);
        // A minute later as many are free again.
        assert_eq!(held_back(Some(spend(full_at, 500, 500, at(60_360))), 500, at(60_360)), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing_up() {
        let full_at = Some(spend(None, 1_000, 500, at(3_600_000)));
        assert_eq!(held_back(full_at, 500, at(3_600_000)), 500);
        assert_eq!((held_back(full_at, 500, at(0)), next(full_at, 500, at(0))), (0, None));
        assert_eq!(spend(full_at, 1, 500, at(0)), at(120));
    }

    proptest! {
        #[test]
        fn no_minute_sees_more_than_twice_the_quota(per_minute in 1u32..2_000, gaps in prop::collection::vec(0i64..500, 1..400)) {
            // Who ends as soon as it is replaced: a bucketful at once, and as many again while it fills.
            let (mut now, mut full_at, mut replaced) = (0, None, 0);
            for gap in gaps {
                now += gap;
                if now > 60_000 {
                    break;
                }
                if held_back(full_at, per_minute, at(now)) == 0 {
                    full_at = Some(spend(full_at, 1, per_minute, at(now)));
                    replaced += 1;
                }
            }
            prop_assert!(replaced <= 2 * per_minute + 1, "{replaced} of {per_minute}");
        }

        #[test]
        fn fewer_wait_when_it_is_said(ended in 1u32..3_000, per_minute in 1u32..70_000) {
            let full_at = Some(spend(None, ended, per_minute, at(0)));
            let held = held_back(full_at, per_minute, at(0));
            prop_assert!(held <= ended.saturating_sub(per_minute) + 1);
            if let Some(then) = next(full_at, per_minute, at(0)) {
                prop_assert!(then > at(0) && held_back(full_at, per_minute, then) < held);
            } else {
                prop_assert_eq!(held, 0);
            }
        }
    }
}
