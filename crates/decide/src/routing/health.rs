//! What a target's health checks make of it: the states, reasons and thresholds of Elastic Load Balancing.

use super::config::{HealthCheck, TargetGroupArn, TargetKey};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// `TargetHealth.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthState {
    Initial,
    Healthy,
    Unhealthy,
    /// Unhealthy, while its connections may still end (network load balancers).
    UnhealthyDraining,
    Unused,
    Draining,
    Unavailable,
}

impl HealthState {
    pub const fn as_str(self) -> &'static str {
        match self {
            HealthState::Initial => "initial",
            HealthState::Healthy => "healthy",
            HealthState::Unhealthy => "unhealthy",
            HealthState::UnhealthyDraining => "unhealthy.draining",
            HealthState::Unused => "unused",
            HealthState::Draining => "draining",
            HealthState::Unavailable => "unavailable",
        }
    }
}

/// `TargetHealth.Reason`, with what its description needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    RegistrationInProgress,
    InitialHealthChecking,
    /// The code that the target answered: of HTTP, or of gRPC.
    ResponseCodeMismatch(u16),
    Timeout,
    FailedHealthChecks,
    NotRegistered,
    NotInUse,
    DeregistrationInProgress,
    InvalidState,
    IpUnusable,
    HealthCheckDisabled,
    InternalError,
}

impl Reason {
    pub const fn code(self) -> &'static str {
        match self {
            Reason::RegistrationInProgress => "Elb.RegistrationInProgress",
            Reason::InitialHealthChecking => "Elb.InitialHealthChecking",
            Reason::ResponseCodeMismatch(_) => "Target.ResponseCodeMismatch",
            Reason::Timeout => "Target.Timeout",
            Reason::FailedHealthChecks => "Target.FailedHealthChecks",
            Reason::NotRegistered => "Target.NotRegistered",
            Reason::NotInUse => "Target.NotInUse",
            Reason::DeregistrationInProgress => "Target.DeregistrationInProgress",
            Reason::InvalidState => "Target.InvalidState",
            Reason::IpUnusable => "Target.IpUnusable",
            Reason::HealthCheckDisabled => "Target.HealthCheckDisabled",
            Reason::InternalError => "Elb.InternalError",
        }
    }

    /// `TargetHealth.Description`.
    pub fn description(self) -> String {
        match self {
            Reason::ResponseCodeMismatch(code) => {
                return format!("Health checks failed with these codes: [{code}]");
            }
            Reason::RegistrationInProgress => "Target registration is in progress",
            Reason::InitialHealthChecking => "Initial health checks in progress",
            Reason::Timeout => "Request timed out",
            Reason::FailedHealthChecks => "Health checks failed",
            Reason::NotRegistered => "Target is not registered to the target group",
            Reason::NotInUse => "Target group is not configured to receive traffic from the load balancer",
            Reason::DeregistrationInProgress => "Target deregistration is in progress",
            Reason::InvalidState => "Target is in the stopped state",
            Reason::IpUnusable => "Target IP address is reserved for use by a load balancer",
            Reason::HealthCheckDisabled => "Health checks are disabled for this target",
            Reason::InternalError => "Health checks failed due to an internal error",
        }
        .to_owned()
    }
}

/// A target's state, and why it is not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetHealth {
    pub state: HealthState,
    /// None when healthy.
    pub reason: Option<Reason>,
}

/// A transition, as a balancer tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    pub group: TargetGroupArn,
    pub target: TargetKey,
    pub health: TargetHealth,
    pub at: Timestamp,
}

/// What one check of a target found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    Passed,
    /// It answered with a code that the matcher does not have.
    Mismatch(u16),
    TimedOut,
    /// Refused, reset, or no answer that could be read.
    Failed,
}

/// A target under health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    verdict: Verdict,
    /// Successive probes that speak against the verdict.
    against: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Initial,
    Healthy,
    Unhealthy(Reason),
}

impl Default for Checked {
    fn default() -> Self {
        Checked { verdict: Verdict::Initial, against: 0 }
    }
}

impl Checked {
    /// Takes a probe's finding; true when the state or its reason changed. A first success makes a fresh target
    /// healthy at once; afterwards only as many in a row as the thresholds say turn it.
    pub fn take(&mut self, probe: Probe, check: &HealthCheck) -> bool {
        let before = self.verdict;
        let reason = match probe {
            Probe::Passed => None,
            Probe::Mismatch(code) => Some(Reason::ResponseCodeMismatch(code)),
            Probe::TimedOut => Some(Reason::Timeout),
            Probe::Failed => Some(Reason::FailedHealthChecks),
        };
        let (next, threshold) = match (self.verdict, reason) {
            (Verdict::Initial, None) => (Verdict::Healthy, 1),
            (Verdict::Initial | Verdict::Healthy, Some(reason)) => {
                (Verdict::Unhealthy(reason), check.unhealthy_threshold)
            }
            (Verdict::Unhealthy(_), None) => (Verdict::Healthy, check.healthy_threshold),
            // Unhealthy still, perhaps for another reason.
            (Verdict::Unhealthy(_), Some(reason)) => (Verdict::Unhealthy(reason), 0),
            (Verdict::Healthy, None) => (Verdict::Healthy, 0),
        };
        if threshold == 0 {
            (self.verdict, self.against) = (next, 0);
        } else {
            self.against += 1;
            if self.against >= threshold {
                (self.verdict, self.against) = (next, 0);
            }
        }
        before != self.verdict
    }

    pub fn is_healthy(self) -> bool {
        self.verdict == Verdict::Healthy
    }

    pub fn health(self) -> TargetHealth {
        let (state, reason) = match self.verdict {
            Verdict::Initial => (HealthState::Initial, Some(Reason::InitialHealthChecking)),
            Verdict::Healthy => (HealthState::Healthy, None),
            Verdict::Unhealthy(reason) => (HealthState::Unhealthy, Some(reason)),
        };
        TargetHealth { state, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{HealthCheckPort, Matcher, Protocol};
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn check(healthy_threshold: u32, unhealthy_threshold: u32) -> HealthCheck {
        HealthCheck {
            enabled: true,
            protocol: Protocol::Http,
            port: HealthCheckPort::Traffic,
            path: "/".to_owned(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy_threshold,
            unhealthy_threshold,
            matcher: Matcher(vec![(200, 200)]),
        }
    }

    #[test]
    fn one_success_makes_a_fresh_target_healthy_and_thresholds_turn_it_later() {
        let (check, mut target) = (check(3, 2), Checked::default());
        assert_eq!(target.health().reason, Some(Reason::InitialHealthChecking));
        assert!(target.take(Probe::Passed, &check) && target.is_healthy());
        assert!(!target.take(Probe::Failed, &check) && target.is_healthy());
        assert!(target.take(Probe::Mismatch(502), &check));
        assert_eq!(target.health().reason, Some(Reason::ResponseCodeMismatch(502)));
        assert!(!target.take(Probe::Passed, &check) && !target.take(Probe::Passed, &check));
        assert!(target.take(Probe::Passed, &check) && target.is_healthy());
    }

    #[test]
    fn the_reason_follows_the_last_failure() {
        let (check, mut target) = (check(2, 2), Checked::default());
        target.take(Probe::TimedOut, &check);
        assert_eq!(target.health().state, HealthState::Initial);
        assert!(target.take(Probe::TimedOut, &check));
        assert_eq!(target.health().reason.map(Reason::description), Some("Request timed out".to_owned()));
        assert!(target.take(Probe::Failed, &check) && !target.take(Probe::Failed, &check));
        assert_eq!(target.health().reason, Some(Reason::FailedHealthChecks));
    }

    proptest! {
        /// Whatever comes, a target turns only after as many equal findings in a row as its threshold asks for.
        #[test]
        fn turns_follow_the_thresholds(
            probes in prop::collection::vec(any::<bool>(), 1..200), up in 2_u32..=10, down in 2_u32..=10,
        ) {
            let (check, mut target) = (check(up, down), Checked::default());
            let mut row = 0;
            let mut last = None;
            for passed in probes {
                row = if last == Some(passed) { row + 1 } else { 1 };
                last = Some(passed);
                let before = target;
                target.take(if passed { Probe::Passed } else { Probe::Failed }, &check);
                match (before.health().state, target.health().state) {
                    (HealthState::Initial, HealthState::Healthy) => prop_assert!(passed),
                    (HealthState::Unhealthy, HealthState::Healthy) => prop_assert!(passed && row >= up),
                    (_, HealthState::Unhealthy) if before.health().state != HealthState::Unhealthy => {
                        prop_assert!(!passed && row >= down);
                    }
                    (from, to) => prop_assert_eq!(from, to),
                }
                if row >= up.max(down) {
                    prop_assert_eq!(target.is_healthy(), passed);
                }
            }
        }
    }
}
