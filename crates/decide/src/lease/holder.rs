//! The agent's side: until when its tasks may run.

use crate::mutant;
use std::collections::VecDeque;
use std::time::Duration;

/// Requests whose answers may still come. One a fifth of a second: beyond that nothing is gained by an answer.
const ASKED_MAX: usize = 64;

/// A lease as its agent holds it. Times are those of a clock that is never set and runs while the host sleeps.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// When each request that may still be answered was made, by its number.
    asked: VecDeque<(u64, Duration)>,
    last: u64,
    until: Option<Duration>,
    /// How long the control plane lets agents go on while it is known not to run.
    absence: Duration,
}

impl Holder {
    /// An agent has started again: what was written down of its lease holds.
    pub fn resume(&mut self, until: Option<Duration>) {
        self.until = until;
    }

    /// The number of the last request.
    pub fn last_asked(&self) -> u64 {
        self.last
    }

    /// A connection begins to be made. What it is told first counts from here: request 0.
    pub fn dial(&mut self, now: Duration) {
        self.asked.clear();
        self.asked.push_back((0, now));
        self.last = 0;
    }

    /// Asks for a new lease: the request's number, and how long the present one is good.
    pub fn ask(&mut self, now: Duration) -> (u64, Duration) {
        self.last += 1;
        self.asked.push_back((self.last, now));
        if self.asked.len() > ASKED_MAX {
            self.asked.pop_front();
        }
        (self.last, self.left(now))
    }

    /// Request `number` was granted. Changes nothing when the lease before is over: then the tasks have to end first.
    pub fn granted(&mut self, now: Duration, number: u64, length: Duration, absence: Duration) {
        while self.asked.front().is_some_and(|(asked, _)| *asked < number) {
            self.asked.pop_front();
        }
        let Some((_, at)) = self.asked.front().copied().filter(|(asked, _)| *asked == number) else {
            return;
        };
        if !self.is_over(now) {
            let from = if mutant::is("lease counted from its answer") { now } else { at };
            self.until = Some(from + length);
            self.absence = absence;
        }
    }

    /// Nothing listens where the control plane was: it does not run, and will wait for us when it does.
    pub fn refused(&mut self, now: Duration) {
        if let Some(until) = self.until.filter(|until| *until > now) {
            self.until = Some(until.max(now + self.absence));
        }
    }

    /// How long the lease is good.
    pub fn left(&self, now: Duration) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_sub(now))
    }

    /// When the tasks have to end unless something is granted before; none without a lease.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The tasks have to end now.
    pub fn is_over(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| until <= now) && !mutant::is("lease never ends for the agent")
    }

    /// The tasks have ended: the next lease is a new one. What was asked before counts no more.
    pub fn fenced(&mut self) {
        self.asked.clear();
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(2);
    const ABSENCE: Duration = Duration::from_secs(120);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for() {
        let mut holder = Holder::default();
        assert!(!holder.is_over(ms(1_000_000)), "without a lease nothing ends");
        holder.dial(ms(1_000));
        holder.granted(ms(1_500), 0, LENGTH, ABSENCE);
        assert_eq!((holder.until(), holder.left(ms(2_000))), (Some(ms(3_000)), ms(1_000)));
        let (first, held) = holder.ask(ms(2_000));
        assert_eq!((first, held), (1, ms(1_000)));
        let (second, _) = holder.ask(ms(2_200));
        holder.granted(ms(2_300), second, LENGTH, ABSENCE);
        holder.granted(ms(2_400), first, LENGTH, ABSENCE);
        assert_eq!(holder.until(), Some(ms(4_200)), "an older answer changes nothing");
    }

    #[test]
    fn an_answer_that_comes_too_late_saves_nothing() {
        let mut holder = Holder::default();
        holder.dial(ms(0));
        holder.granted(ms(10), 0, LENGTH, ABSENCE);
        let (number, _) = holder.ask(ms(1_000));
        holder.granted(ms(2_000), number, LENGTH, ABSENCE);
        assert!(holder.is_over(ms(2_000)));
        holder.fenced();
        holder.granted(ms(2_100), number, LENGTH, ABSENCE);
        assert_eq!(holder.until(), None);
        holder.dial(ms(3_000));
        holder.granted(ms(3_100), 0, LENGTH, ABSENCE);
        assert_eq!(holder.until(), Some(ms(5_000)));
    }

    #[test]
    fn a_control_plane_that_does_not_run_is_waited_for() {
        let mut holder = Holder::default();
        holder.dial(ms(0));
        holder.granted(ms(10), 0, LENGTH, ABSENCE);
        holder.refused(ms(1_000));
        assert_eq!(holder.until(), Some(ms(121_000)));
        holder.refused(ms(121_000));
        assert!(holder.is_over(ms(121_000)), "what is over is over");
    }
}
