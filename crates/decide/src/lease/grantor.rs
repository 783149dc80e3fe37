//! The control plane's side: until when each agent is counted on.

use super::Terms;
use crate::mutant;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Time as it passed for a process that looks at a clock: never backwards, and of a leap no more than passes between two
/// looks as a rule, so that a clock may be set more than once within a lease.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    last: Option<Timestamp>,
    elapsed: Duration,
}

impl Steady {
    fn look(&mut self, now: Timestamp, terms: &Terms) -> Duration {
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| now.since(last));
        let leaps = passed > terms.leap && !mutant::is("leaps of the clock counted");
        self.elapsed += if leaps { terms.look_every } else { passed };
        self.elapsed
    }
}

/// What is waited for, by agent. Volatile: a new process waits for everybody anew.
#[derive(Clone, Debug)]
pub struct Leases<K> {
    terms: Terms,
    clock: Steady,
    until: BTreeMap<K, Duration>,
    order: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Clone> Leases<K> {
    pub fn new(terms: Terms) -> Leases<K> {
        Leases { terms, clock: Steady::default(), until: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Lets time pass. Called on every step, before anything else.
    pub fn look(&mut self, now: Timestamp) {
        self.clock.look(now, &self.terms);
    }

    /// The agent is waited for so long from now, or as long as it was before if that is longer.
    pub fn extend(&mut self, key: K, wait: Duration) {
        let until = self.clock.elapsed.saturating_add(wait);
        if self.until.get(&key).is_none_or(|known| *known < until) {
            self.set(key, until);
        }
    }

    /// The agent has asked for a lease, and holds one for `held` still: that is what it is granted at least.
    pub fn grant(&mut self, key: K, held: Duration) {
        let mut wait = self.terms.length.max(held).saturating_add(self.terms.margin);
        if mutant::is("lease shorter for the server") {
            wait /= 2;
        }
        self.set(key, self.clock.elapsed.saturating_add(wait));
    }

    fn set(&mut self, key: K, until: Duration) {
        self.forget(&key);
        self.until.insert(key.clone(), until);
        self.order.insert((until, key));
    }

    /// Nothing is waited for any more.
    pub fn forget(&mut self, key: &K) {
        if let Some(until) = self.until.remove(key) {
            self.order.remove(&(until, key.clone()));
        }
    }

    /// Takes an agent that was waited for in vain.
    pub fn run_out(&mut self) -> Option<K> {
        let (until, _) = self.order.first()?;
        if *until > self.clock.elapsed || mutant::is("lost agents waited for for ever") {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.until.remove(&key);
        Some(key)
    }

    /// When to look at the latest.
    pub fn wake_at(&self, now: Timestamp) -> Timestamp {
        let Some((until, _)) = self.order.first() else { return Timestamp::NEVER };
        let left = until.saturating_sub(self.clock.elapsed);
        // Timestamps count milliseconds.
        now + left.clamp(Duration::from_millis(1), self.terms.look_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms::USUAL;

    fn pass(leases: &mut Leases<u8>, now: &mut Timestamp, time: Duration) -> Vec<u8> {
        let end = *now + time;
        let mut out = Vec::new();
        while *now < end {
            *now = (*now + TERMS.look_every).min(end);
            leases.look(*now);
            out.extend(std::iter::from_fn(|| leases.run_out()));
        }
        out
    }

    #[test]
    fn who_is_silent_runs_out_and_who_asks_does_not() {
        let (mut leases, mut now) = (Leases::new(TERMS), Timestamp::from_millis(5_000));
        leases.look(now);
        leases.grant(1, Duration::ZERO);
        leases.grant(2, Duration::ZERO);
        assert_eq!(leases.wake_at(now), now + TERMS.look_every);
        assert!(pass(&mut leases, &mut now, Duration::from_millis(2_500)).is_empty());
        leases.grant(2, Duration::ZERO);
        assert_eq!(pass(&mut leases, &mut now, Duration::from_millis(100)), [1]);
        assert_eq!(pass(&mut leases, &mut now, Duration::from_secs(3)), [2]);
        assert_eq!(leases.wake_at(now), Timestamp::NEVER);
    }

    #[test]
    fn a_clock_that_is_set_ends_nothing() {
        let (mut leases, mut now) = (Leases::new(TERMS), Timestamp::from_millis(5_000_000));
        leases.look(now);
        leases.grant(1, Duration::ZERO);
        for step in [3_600_000, -7_200_000] {
            now = Timestamp::from_millis(now.as_millis() + step);
            leases.look(now);
            assert_eq!(leases.run_out(), None);
        }
        // The leap ahead counted for a tenth of a second, the one back for none.
        assert!(pass(&mut leases, &mut now, Duration::from_millis(2_400)).is_empty());
        assert_eq!(pass(&mut leases, &mut now, Duration::from_millis(100)), [1]);
    }

    #[test]
    fn a_clock_may_be_set_twice_within_a_lease() {
        let (mut leases, mut now) = (Leases::new(TERMS), Timestamp::from_millis(5_000_000));
        leases.look(now);
        leases.grant(1, Duration::ZERO);
        let mut passed = Duration::ZERO;
        for _ in 0..2 {
            now = now + Duration::from_secs(40);
            leases.look(now);
            assert!(pass(&mut leases, &mut now, Duration::from_secs(1)).is_empty());
            passed += Duration::from_secs(1);
        }
        // Its agent may hold it so long.
        assert!(pass(&mut leases, &mut now, TERMS.length - passed).is_empty());
    }

    #[test]
    fn what_an_agent_holds_still_is_respected() {
        let (mut leases, mut now) = (Leases::new(TERMS), Timestamp::EPOCH);
        leases.look(now);
        leases.extend(1, Duration::from_secs(60));
        leases.extend(1, Duration::from_secs(5));
        assert!(pass(&mut leases, &mut now, Duration::from_secs(59)).is_empty());
        leases.grant(1, Duration::from_secs(10));
        assert!(pass(&mut leases, &mut now, Duration::from_secs(10)).is_empty());
        leases.grant(1, Duration::ZERO);
        assert_eq!(pass(&mut leases, &mut now, Duration::from_millis(2_600)), [1]);
        leases.extend(1, Duration::from_secs(1));
        leases.forget(&1);
        assert!(pass(&mut leases, &mut now, Duration::from_secs(2)).is_empty());
    }
}
