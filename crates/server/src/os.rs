//! The operating system's clock and randomness, in the forms that the pure crates take them.

use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use rand::Rng;
use std::time::{SystemTime, UNIX_EPOCH};

/// Unguessable bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        // A cryptographic generator per thread, seeded by the operating system.
        rand::rng().fill_bytes(bytes);
    }
}

/// The time of day. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
