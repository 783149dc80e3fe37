//! Whether the control plane comes to rest: one that asks to be woken again and again, for nothing, spins.

use gantry_decide::time::Timestamp;
use std::time::Duration;

/// Wakes are counted over so long.
const SPAN: Duration = Duration::from_secs(10);
/// So many in a span are several times those of the busiest world.
const WAKES_MAX: u32 = 2000;

/// Counts wakes.
#[derive(Debug)]
pub struct Rest {
    since: Timestamp,
    wakes: u32,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest { since: Timestamp::EPOCH, wakes: 0 }
    }
}

impl Rest {
    /// The control plane was woken.
    ///
    /// # Panics
    /// When that happens all the time.
    pub fn woken(&mut self, now: Timestamp) {
        if self.since + SPAN <= now {
            *self = Rest { since: now, wakes: 0 };
        }
        self.wakes += 1;
        assert!(self.wakes < WAKES_MAX, "it never comes to rest: {WAKES_MAX} wakes in {SPAN:?}");
    }
}
