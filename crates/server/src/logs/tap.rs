//! Who follows groups as they grow: what is appended is shown to them once it is on the disk.

use gantry_control::bulk::logs::{Append, Found};
use gantry_decide::ids::LogGroupId;
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};

/// Who may follow at once, all accounts together: each may hold [`BYTES_MAX`]. AWS allows an account 15.
const TAPS_MAX: usize = 60;
/// What waits for one that follows, who looks ten times a second; the oldest go first.
const EVENTS_MAX: usize = 20_000;
const BYTES_MAX: usize = 8 << 20;

/// All that follow.
#[derive(Default)]
pub struct Taps(Mutex<Vec<Weak<Tap>>>);

/// What is appended to some groups from now on.
pub struct Tap {
    groups: BTreeSet<LogGroupId>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(LogGroupId, Found)>,
    bytes: usize,
    missed: bool,
}

impl Taps {
    /// Follows groups until what it returns is dropped. None if too many do.
    pub fn open(&self, groups: BTreeSet<LogGroupId>) -> Option<Arc<Tap>> {
        let mut all = self.0.lock();
        all.retain(|tap| tap.strong_count() > 0);
        let tap = Arc::new(Tap { groups, waiting: Mutex::default() });
        (all.len() < TAPS_MAX).then(|| all.push(Arc::downgrade(&tap)))?;
        Some(tap)
    }

    /// Shows an append whose first event has this number.
    pub fn show(&self, append: &Append, first: u64) {
        let all = self.0.lock();
        for tap in all.iter().filter_map(Weak::upgrade).filter(|tap| tap.groups.contains(&append.group)) {
            tap.waiting.lock().put(append, first);
        }
    }
}

impl Waiting {
    fn put(&mut self, append: &Append, first: u64) {
        for (number, event) in (first..).zip(&append.events) {
            let found = Found {
                stream: append.stream,
                at: event.at,
                number,
                ingested_at: append.ingested_at,
                message: event.message.clone(),
            };
            self.bytes += found.message.len();
            self.events.push_back((append.group, found));
            while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
                let Some((_, gone)) = self.events.pop_front() else { break };
                self.bytes -= gone.message.len();
                self.missed = true;
            }
        }
    }
}

impl Tap {
    /// What came since it was asked last, in that order, and whether there was more.
    pub fn take(&self) -> (Vec<(LogGroupId, Found)>, bool) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        (waiting.events.into(), waiting.missed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_control::bulk::logs::Event;
    use gantry_decide::ids::LogStreamId;
    use gantry_decide::time::Timestamp;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn group(number: u8) -> LogGroupId {
        LogGroupId::from_bytes([number; 16])
    }

    fn append(group: LogGroupId, messages: impl IntoIterator<Item = String>) -> Append {
        let events = messages.into_iter().map(|message| Event { at: NOW, message }).collect();
        Append { group, stream: LogStreamId::from_bytes([7; 16]), ingested_at: NOW, events, cursor: None }
    }

    fn followed(taps: &Taps, numbers: &[u8]) -> Arc<Tap> {
        taps.open(numbers.iter().copied().map(group).collect()).unwrap()
    }

    fn messages(tap: &Tap) -> (Vec<String>, bool) {
        let (events, missed) = tap.take();
        (events.into_iter().map(|(_, found)| found.message).collect(), missed)
    }

    #[test]
    fn who_follows_sees_its_groups_in_order_and_each_event_once() {
        let taps = Taps::default();
        let (one, both) = (followed(&taps, &[1]), followed(&taps, &[1, 2]));
        taps.show(&append(group(1), ["a".to_owned(), "b".to_owned()]), 40);
        taps.show(&append(group(2), ["c".to_owned()]), 7);
        taps.show(&append(group(3), ["nobody's".to_owned()]), 1);
        let (events, missed) = one.take();
        let numbers: Vec<_> = events.iter().map(|(of, found)| (*of, found.number)).collect();
        assert_eq!((numbers, missed), (vec![(group(1), 40), (group(1), 41)], false));
        assert_eq!(messages(&both), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], false));
        assert_eq!(messages(&both), (vec![], false));
    }

    #[test]
    fn who_looks_rarely_keeps_the_latest_events_and_hears_once_that_there_were_more() {
        let taps = Taps::default();
        let tap = followed(&taps, &[1]);
        taps.show(&append(group(1), (0..EVENTS_MAX).map(|number| number.to_string())), 0);
        taps.show(&append(group(1), ["last".to_owned()]), 0);
        let (kept, missed) = messages(&tap);
        assert_eq!((kept.len(), missed), (EVENTS_MAX, true));
        assert_eq!((kept[0].as_str(), kept[EVENTS_MAX - 1].as_str()), ("1", "last"));
        taps.show(&append(group(1), ["more".to_owned()]), 0);
        assert_eq!(messages(&tap), (vec!["more".to_owned()], false));
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_too() {
        const SIZE: usize = 1 << 20;
        let taps = Taps::default();
        let tap = followed(&taps, &[1]);
        for number in 0..BYTES_MAX / SIZE {
            taps.show(&append(group(1), ["x".repeat(SIZE)]), number as u64);
        }
        assert!(!tap.waiting.lock().missed, "as much as may wait does");
        taps.show(&append(group(1), ["y".to_owned()]), 100);
        let (kept, missed) = messages(&tap);
        assert_eq!((kept.len(), missed), (BYTES_MAX / SIZE, true));
        assert_eq!((kept[0].len(), kept[kept.len() - 1].as_str()), (SIZE, "y"));
        // The room is counted anew.
        taps.show(&append(group(1), ["x".repeat(SIZE)]), 101);
        assert_eq!(messages(&tap).0.len(), 1);
    }

    #[test]
    fn only_so_many_follow_and_who_goes_makes_room() {
        let taps = Taps::default();
        let mut open: Vec<_> = (0..TAPS_MAX).map(|_| followed(&taps, &[1])).collect();
        assert!(taps.open(BTreeSet::from([group(1)])).is_none());
        open.pop();
        assert!(taps.open(BTreeSet::from([group(1)])).is_some());
        // Nobody keeps events for who has gone.
        drop(open);
        taps.show(&append(group(1), ["late".to_owned()]), 0);
        let next = followed(&taps, &[1]);
        assert_eq!((messages(&next).0.len(), taps.0.lock().len()), (0, 1));
    }
}
