//! Task sets: the parts of a service whose deployments somebody else drives (the EXTERNAL controller). How many tasks each
//! shall have follows from its scale.

use crate::mutant;
use serde::{Deserialize, Serialize};

/// A share of the service's desired count, in millionths of a percent: a percentage of ECS's is any fraction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scale(u32);

const MILLION: u32 = 1_000_000;

impl Scale {
    pub const NONE: Scale = Scale(0);
    pub const ALL: Scale = Scale(100 * MILLION);

    /// From a percentage of 0 to 100; finer parts than millionths are rounded.
    pub fn of_percent(percent: f64) -> Option<Scale> {
        let fits = (0.0..=100.0).contains(&percent);
        // In range, so that it fits 32 bits.
        fits.then(|| Scale((percent * f64::from(MILLION)).round() as u32))
    }

    pub fn percent(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// ECS's `computedDesiredCount`: rounded up.
    pub fn of(self, desired: u32) -> u32 {
        let parts = u64::from(desired) * u64::from(self.0);
        if mutant::is("shares of task sets rounded down") {
            return u32::try_from(parts / (u64::from(MILLION) * 100)).unwrap_or(desired);
        }
        // At most `desired`.
        u32::try_from(parts.div_ceil(u64::from(MILLION) * 100)).unwrap_or(desired)
    }
}

/// ECS's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskSetStatus {
    /// It serves production traffic.
    Primary,
    Active,
    /// It was deleted; its tasks are on their way out.
    Draining,
}

impl TaskSetStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            TaskSetStatus::Primary => "PRIMARY",
            TaskSetStatus::Active => "ACTIVE",
            TaskSetStatus::Draining => "DRAINING",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counts_are_rounded_up_and_exact() {
        let of = |percent, desired| Scale::of_percent(percent).unwrap().of(desired);
        assert_eq!([of(30.0, 10), of(33.3, 10), of(0.0, 10), of(100.0, u32::MAX)], [3, 4, 0, u32::MAX]);
        assert_eq!([of(0.1, 1000), of(0.1, 1), of(50.0, 3), of(7.0, 100)], [1, 1, 2, 7]);
        assert_eq!(Scale::of_percent(33.3).unwrap().percent(), 33.3);
        assert_eq!([-0.1, 100.1, f64::NAN].map(Scale::of_percent), [None; 3]);
    }
}
