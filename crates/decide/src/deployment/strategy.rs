//! How a deployment replaces one revision by the next: a few tasks at a time, or side by side and then by traffic.

use super::traffic::Share;
use crate::mutant;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// ECS's deployment strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Strategy {
    #[default]
    Rolling,
    BlueGreen,
    /// So much of the production traffic in each step, with a pause after each but the last.
    Linear {
        step: Share,
        bake_minutes: u32,
    },
    /// So much of it in the first step, the rest after a pause.
    Canary {
        share: Share,
        bake_minutes: u32,
    },
}

/// ECS's defaults and least values; both shares are at most all of the traffic.
pub const LINEAR_STEP: Share = Share::of_percent_whole(10);
pub const LINEAR_STEP_MIN: Share = Share::of_percent_whole(3);
pub const LINEAR_BAKE_MINUTES: u32 = 6;
pub const CANARY_SHARE: Share = Share::of_percent_whole(5);
pub const CANARY_BAKE_MINUTES: u32 = 10;
/// ECS's bound for every bake time, in minutes.
pub const BAKE_MINUTES_MAX: u32 = 1440;

impl Strategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Rolling => "ROLLING",
            Strategy::BlueGreen => "BLUE_GREEN",
            Strategy::Linear { .. } => "LINEAR",
            Strategy::Canary { .. } => "CANARY",
        }
    }

    /// Whether source and target stand side by side while traffic goes over.
    pub fn shifts_traffic(self) -> bool {
        self != Strategy::Rolling
    }

    /// What the target gets of the production traffic after so many steps: none after no step, and all sooner or later.
    pub fn share_after(self, steps: u32) -> Share {
        match (self, steps) {
            (_, 0) => Share::NONE,
            _ if mutant::is("all of the traffic in the first step") => Share::ALL,
            (Strategy::Linear { step, .. }, _) => step.times(steps),
            (Strategy::Canary { share, .. }, 1) => share,
            _ => Share::ALL,
        }
    }

    /// How long to look at a step before the next.
    pub fn bake_after(self, steps: u32) -> Duration {
        let minutes = match self {
            Strategy::Linear { bake_minutes, .. } | Strategy::Canary { bake_minutes, .. }
                if self.share_after(steps) < Share::ALL
                    && !mutant::is("steps of traffic without a pause") =>
            {
                bake_minutes
            }
            _ => 0,
        };
        Duration::from_secs(u64::from(minutes) * 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_to_all_of_the_traffic() {
        let linear = Strategy::Linear { step: Share::of_tenths(333), bake_minutes: 6 };
        let shares = |strategy: Strategy| [0, 1, 2, 3, 4].map(|steps| strategy.share_after(steps).percent());
        assert_eq!(shares(linear), [0.0, 33.3, 66.6, 99.9, 100.0]);
        assert_eq!([3, 4].map(|steps| linear.bake_after(steps).as_secs()), [360, 0]);
        let canary = Strategy::Canary { share: CANARY_SHARE, bake_minutes: CANARY_BAKE_MINUTES };
        assert_eq!(shares(canary), [0.0, 5.0, 100.0, 100.0, 100.0]);
        assert_eq!([1, 2].map(|steps| canary.bake_after(steps).as_secs()), [600, 0]);
        assert_eq!(shares(Strategy::BlueGreen), [0.0, 100.0, 100.0, 100.0, 100.0]);
    }
}
