//! Managed daemons: one task on each instance of their capacity providers. An instance keeps the revision that it joined
//! with; a deployment drains the others, a share of them at a time, and those that come in their place join with the new
//! revision.

use super::task_set::Scale;
use serde::{Deserialize, Serialize};

/// Failures on which ECS's built-in circuit breaker ends a deployment: its least for services, as none is published.
pub const FAILURES_MAX: u32 = 3;

/// The share of instances that is drained at once, unless a daemon says: ECS publishes none.
pub const DRAIN_PERCENT: f64 = 25.0;

/// How far an instance is with a daemon's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SlotState {
    Starting,
    Running,
    /// Its task could not start, or has ended: there is no second one.
    Failed,
}

impl SlotState {
    /// Whether nothing more is waited for before other tasks may start.
    pub fn is_settled(self, critical: bool) -> bool {
        match self {
            SlotState::Starting => false,
            SlotState::Running => true,
            SlotState::Failed => !critical,
        }
    }
}

/// The instances of a daemon's providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    pub total: usize,
    /// With another revision than the one that is deployed, or with none; those that drain included.
    pub outdated: usize,
    pub draining: usize,
}

impl Fleet {
    /// How many more outdated instances may be drained now; one at least may at a time.
    pub fn drain_now(self, share: Scale) -> usize {
        let total = u32::try_from(self.total).unwrap_or(u32::MAX);
        let most = (share.of(total) as usize).max(1);
        most.saturating_sub(self.draining).min(self.outdated.saturating_sub(self.draining))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_is_drained_at_a_time() {
        let share = |percent| Scale::of_percent(percent).unwrap();
        let fleet = Fleet { total: 8, outdated: 8, draining: 0 };
        assert_eq!(fleet.drain_now(share(25.0)), 2);
        assert_eq!(Fleet { draining: 1, ..fleet }.drain_now(share(25.0)), 1);
        assert_eq!(Fleet { draining: 2, ..fleet }.drain_now(share(25.0)), 0);
        assert_eq!(fleet.drain_now(share(0.0)), 1, "it goes on all the same");
        assert_eq!(fleet.drain_now(share(100.0)), 8);
        assert_eq!(Fleet { outdated: 3, draining: 2, ..fleet }.drain_now(share(100.0)), 1);
        assert!(SlotState::Failed.is_settled(false) && !SlotState::Failed.is_settled(true));
    }
}
