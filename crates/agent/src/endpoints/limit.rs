//! How often tasks may ask: as often as ECS's agent lets them.

use std::time::Instant;

/// Requests a second in the long run, and how many may come at once.
const PER_SECOND: f64 = 40.0;
const BURST: f64 = 60.0;

/// A bucket of requests that fills up with time.
#[derive(Debug)]
pub struct Limit {
    left: f64,
    at: Instant,
}

impl Limit {
    pub fn new(now: Instant) -> Limit {
        Limit { left: BURST, at: now }
    }

    /// Whether one more may be asked now.
    pub fn take(&mut self, now: Instant) -> bool {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        (self.left, self.at) = ((self.left + filled).min(BURST), now);
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn many_at_once_and_forty_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let allowed = |limit: &mut Limit, at| (0..100).filter(|_| limit.take(at)).count();
        assert_eq!(allowed(&mut limit, start), 60);
        assert_eq!(allowed(&mut limit, start + Duration::from_millis(500)), 20);
        assert_eq!(allowed(&mut limit, start + Duration::from_secs(60)), 60);
    }
}
