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
