//! The circuit breaker: after how many failed tasks a deployment has failed.

use crate::mutant;
use serde::{Deserialize, Serialize};

/// How many failures are too many; percentages are of the service's desired count at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Threshold {
    /// At least 3 and at most 200, whatever the percentage says.
    BoundedPercent(u32),
    UnboundedPercent(u32),
    Count(u32),
}

/// ECS's bounds for [`Threshold::BoundedPercent`].
const BOUNDS: (u32, u32) = (3, 200);

impl Default for Threshold {
    fn default() -> Threshold {
        Threshold::BoundedPercent(50)
    }
}

impl Threshold {
    /// The number of failures that fails a deployment; never 0.
    pub fn failures(self, desired: u32) -> u32 {
        let share = |percent: u32| {
            let exact = (u64::from(desired) * u64::from(percent)).div_ceil(100);
            u32::try_from(exact).unwrap_or(u32::MAX)
        };
        match self {
            Threshold::BoundedPercent(percent) => share(percent).clamp(BOUNDS.0, BOUNDS.1),
            Threshold::UnboundedPercent(percent) => share(percent).max(1),
            Threshold::Count(count) => count.max(1),
        }
    }
}

/// As a service configures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitBreaker {
    pub enable: bool,
    /// A deployment that failed gives way to the one before it.
    pub rollback: bool,
    pub threshold: Threshold,
    /// A healthy task forgives the failures before it; else they add up.
    pub reset_on_healthy_task: bool,
}

impl Default for CircuitBreaker {
    fn default() -> CircuitBreaker {
        CircuitBreaker {
            enable: false,
            rollback: false,
            threshold: Threshold::default(),
            reset_on_healthy_task: true,
        }
    }
}

/// The tasks of a deployment that failed: those that never ran, and those that were stopped for their health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// Since a task was last healthy.
    pub consecutive: u32,
    /// Of those, the ones that never ran: launches grow rarer with them.
    pub starts: u32,
    pub total: u32,
}

impl Failures {
    pub fn add(&mut self, never_ran: u32, unhealthy: u32) {
        let failed = never_ran.saturating_add(unhealthy);
        self.consecutive = self.consecutive.saturating_add(failed);
        self.starts = self.starts.saturating_add(never_ran);
        self.total = self.total.saturating_add(failed);
    }

    /// A task became healthy after the last failure.
    pub fn forgive(&mut self) {
        (self.consecutive, self.starts) = (0, 0);
    }
}

impl CircuitBreaker {
    /// The failures that it counts.
    pub fn counted(&self, failures: Failures) -> u32 {
        if self.reset_on_healthy_task { failures.consecutive } else { failures.total }
    }

    pub fn trips(&self, failures: Failures, desired: u32) -> bool {
        !mutant::is("breaker never trips")
            && self.enable
            && self.counted(failures) >= self.threshold.failures(desired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_that_ecs_documents() {
        let half = |desired| Threshold::default().failures(desired);
        assert_eq!([0, 1, 6, 7, 25, 400, 800].map(half), [3, 3, 3, 4, 13, 200, 200]);
        let unbounded = |desired| Threshold::UnboundedPercent(50).failures(desired);
        assert_eq!([0, 1, 25, 800, u32::MAX].map(unbounded), [1, 1, 13, 400, 2_147_483_648]);
        assert_eq!(Threshold::Count(7).failures(1000), 7);
    }

    #[test]
    fn a_healthy_task_forgives_unless_failures_add_up() {
        let mut failures = Failures::default();
        failures.add(2, 1);
        failures.forgive();
        failures.add(0, 1);
        assert_eq!(failures, Failures { consecutive: 1, starts: 0, total: 4 });
        let lenient = CircuitBreaker { enable: true, threshold: Threshold::Count(4), ..Default::default() };
        assert!(!lenient.trips(failures, 1));
        let strict = CircuitBreaker { reset_on_healthy_task: false, ..lenient };
        assert!(strict.trips(failures, 1));
        assert!(!CircuitBreaker { enable: false, ..strict }.trips(failures, 1));
    }
}
