//! Pauses between attempts that grow, with jitter so that a thousand agents do not come back at the same instant.

use gantry_decide::random::Random;
use std::time::Duration;

/// What is on top of a pause at most, in percent: the stock agent's figure for all of them.
const JITTER_PERCENT: u64 = 20;

/// How pauses grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    pub first: Duration,
    /// Before jitter.
    pub longest: Duration,
    /// Each pause is its predecessor times this many tenths.
    pub tenths: u32,
}

impl Growth {
    /// Connecting to the agent communication service.
    pub const ACS: Growth =
        Growth { first: Duration::from_millis(250), longest: Duration::from_secs(120), tenths: 15 };
    /// The same for an agent whose tasks end soon without it.
    pub const LEASED: Growth =
        Growth { first: Duration::from_millis(100), longest: Duration::from_secs(10), tenths: 13 };
    /// Connecting to the telemetry service.
    pub const TCS: Growth =
        Growth { first: Duration::from_secs(1), longest: Duration::from_secs(60), tenths: 20 };
    /// Connecting as a load balancer, whose targets come and go.
    pub const BALANCER: Growth =
        Growth { first: Duration::from_millis(250), longest: Duration::from_secs(2), tenths: 15 };
    /// Registering the container instance.
    pub const REGISTER: Growth =
        Growth { first: Duration::from_secs(3), longest: Duration::from_secs(192), tenths: 20 };
}

impl Growth {
    /// Connecting to the agent communication service, with a lease or without.
    pub const fn of_acs(leased: bool) -> Growth {
        if leased { Growth::LEASED } else { Growth::ACS }
    }
}

/// The state of one series of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    growth: Growth,
    last: Option<Duration>,
}

impl Backoff {
    pub fn new(growth: Growth) -> Backoff {
        Backoff { growth, last: None }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self, random: &mut dyn Random) -> Duration {
        let pause = match self.last {
            None => self.growth.first,
            Some(last) => (last * self.growth.tenths / 10).min(self.growth.longest),
        };
        self.last = Some(pause);
        let most = pause.as_millis() as u64 * JITTER_PERCENT / 100;
        pause + Duration::from_millis(random.below(most as usize + 1) as u64)
    }

    /// Success: the next pause is the first again.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_decide::random::Seeded;

    #[test]
    fn pauses_grow_to_the_longest_and_start_over() {
        let mut random = Seeded::new(1);
        for growth in [Growth::ACS, Growth::LEASED, Growth::TCS, Growth::REGISTER] {
            let mut backoff = Backoff::new(growth);
            let mut bare = growth.first;
            for _ in 0..40 {
                let pause = backoff.pause(&mut random);
                assert!(pause >= bare && pause <= bare * 12 / 10, "{pause:?} for {bare:?}");
                bare = (bare * growth.tenths / 10).min(growth.longest);
            }
            assert_eq!(bare, growth.longest);
            backoff.reset();
            assert!(backoff.pause(&mut random) <= growth.first * 12 / 10);
        }
    }
}
