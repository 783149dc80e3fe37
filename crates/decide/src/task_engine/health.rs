//! A container's health as its health check's results tell it: Docker's rules, which are ECS's.

use crate::lifecycle::HealthStatus;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When a container is checked and what its results mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRules {
    /// From the container's start, and from the end of one check, to the next.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Failures in a row that make a container unhealthy; never 0.
    pub retries: u32,
    /// From the container's start: failures in it do not count unless the container has been healthy before.
    pub start_period: Duration,
}

/// What is known of a container's health since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    /// When it became so.
    pub since: Timestamp,
    started_at: Timestamp,
    failures: u32,
}

impl Health {
    pub fn new(started_at: Timestamp) -> Health {
        Health { status: HealthStatus::Unknown, since: started_at, started_at, failures: 0 }
    }

    /// Of a container that ran before this agent did: what was known of it still holds.
    pub fn resume(started_at: Timestamp, status: HealthStatus) -> Health {
        Health { status, ..Health::new(started_at) }
    }

    /// Takes in the result of a check that began at `began` and ended now. Whether the status is another one.
    pub fn checked(&mut self, rules: &HealthRules, began: Timestamp, passed: bool, now: Timestamp) -> bool {
        let status = if passed {
            self.failures = 0;
            HealthStatus::Healthy
        } else {
            let starting =
                self.status == HealthStatus::Unknown && began < self.started_at + rules.start_period;
            if !starting {
                self.failures = self.failures.saturating_add(1);
            }
            if self.failures >= rules.retries { HealthStatus::Unhealthy } else { self.status }
        };
        let changed = status != self.status;
        if changed {
            self.status = status;
            self.since = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: HealthRules = HealthRules {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        retries: 3,
        start_period: Duration::from_secs(20),
    };

    /// The status after each of these results, ten seconds apart.
    fn statuses(results: &[bool]) -> Vec<HealthStatus> {
        let mut now = Timestamp::from_millis(0);
        let mut health = Health::new(now);
        results
            .iter()
            .map(|passed| {
                now = now + RULES.interval;
                let before = health.status;
                assert_eq!(health.checked(&RULES, now, *passed, now), before != health.status);
                health.status
            })
            .collect()
    }

    #[test]
    fn failures_count_in_a_row_and_after_the_start_period() {
        use HealthStatus::{Healthy, Unhealthy, Unknown};
        // The first failure, at 10 s, is within the start period; the second, at 20 s, is not.
        assert_eq!(statuses(&[false, false, false, false]), [Unknown, Unknown, Unknown, Unhealthy]);
        assert_eq!(statuses(&[false, false, false, true]), [Unknown, Unknown, Unknown, Healthy]);
        // Once healthy, failures count within the start period too.
        assert_eq!(statuses(&[true, false, false, false]), [Healthy, Healthy, Healthy, Unhealthy]);
        assert_eq!(statuses(&[true, false, false, true, false]), [Healthy; 5]);
        assert_eq!(
            statuses(&[false, false, false, false, true]),
            [Unknown, Unknown, Unknown, Unhealthy, Healthy]
        );
    }

    #[test]
    fn a_status_knows_since_when_it_holds() {
        let mut health = Health::resume(Timestamp::from_millis(0), HealthStatus::Healthy);
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        for second in [1, 2] {
            assert!(!health.checked(&RULES, at(second), false, at(second)));
            assert_eq!(health.since, at(0));
        }
        assert!(health.checked(&RULES, at(3), false, at(4)));
        assert_eq!((health.status, health.since), (HealthStatus::Unhealthy, at(4)));
    }
}
