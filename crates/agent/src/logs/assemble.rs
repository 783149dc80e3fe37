//! From a log's entries to log events: parts of long lines joined, lines of one event joined, and batches cut where
//! nothing is left behind.

use super::options::Multiline;
use super::tail::Entry;
use crate::runtime::logs::Stream;
use std::collections::VecDeque;

/// Bytes of an event's message: Docker's driver splits longer ones there, which is 256 KiB less [`EVENT_OVERHEAD`].
const MESSAGE_MAX: usize = (256 << 10) - EVENT_OVERHEAD;
/// What CloudWatch Logs counts for an event beside its message.
const EVENT_OVERHEAD: usize = 26;
/// Bytes of a batch as CloudWatch Logs counts them: its limit.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of a batch's messages as JSON: well below what a request may have in all.
const BATCH_JSON_MAX: usize = 3 << 20;
/// Events of a batch: CloudWatch Logs' limit.
const BATCH_EVENTS_MAX: usize = 10_000;
/// Milliseconds from a batch's first event to its last: CloudWatch Logs' limit.
const BATCH_SPAN_MAX: i64 = 24 * 3600 * 1000;
/// Milliseconds after which an event that could go on counts as ended.
const PATIENCE: i64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: i64,
    pub stream: Stream,
    pub message: String,
}

/// Events in the order of their times, and where the log goes on behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub events: Vec<Event>,
    pub after: u64,
}

/// An event in the making.
struct Item {
    stream: Stream,
    at: i64,
    text: String,
    from: u64,
    to: u64,
    /// More may be added...
    open: bool,
    /// ...to the line at its end.
    line_open: bool,
    /// When something was added last.
    touched: i64,
}

/// What was read of one log and not yet sent. Holds little more than is pushed between two looks at batches.
pub struct Assembler {
    multiline: Option<Multiline>,
    /// By where they begin.
    items: VecDeque<Item>,
}

impl Assembler {
    pub fn new(multiline: Option<Multiline>) -> Assembler {
        Assembler { multiline, items: VecDeque::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes an entry at the time `now`, in milliseconds.
    pub fn push(&mut self, entry: Entry, now: i64) {
        let Entry { at, stream, ends, text, from, to } = entry;
        let multiline = self.multiline.as_ref();
        let open = self.items.iter_mut().rev().find(|item| item.stream == stream && item.open);
        if let Some(item) = open {
            let begins_line = !item.line_open;
            let begins_event = begins_line && multiline.is_none_or(|multiline| multiline.begins(&text));
            let separator = usize::from(begins_line);
            if !begins_event && item.text.len() + separator + text.len() <= MESSAGE_MAX {
                if begins_line {
                    item.text.push('\n');
                }
                item.text.push_str(&text);
                item.to = to;
                item.line_open = !ends;
                item.open = multiline.is_some() || !ends;
                item.touched = now;
                return;
            }
            item.open = false;
        }
        let open = multiline.is_some() || !ends;
        self.items.push_back(Item { stream, at, text, from, to, open, line_open: !ends, touched: now });
    }

    /// Ends events to which nothing was added for a while, or all of them.
    pub fn close(&mut self, now: i64, all: bool) {
        for item in &mut self.items {
            // A clock that was set back must not keep anything for long.
            item.open &= !all && (0..PATIENCE).contains(&(now - item.touched));
        }
    }

    /// The next batch of ended events, as large as may be.
    pub fn batch(&mut self) -> Option<Batch> {
        let (mut bytes, mut json, mut end) = (0, 0, 0);
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        let mut cut = 0;
        for (index, item) in self.items.iter().enumerate() {
            // Behind everything before it: here the log can be cut.
            if item.from >= end {
                cut = index;
            }
            bytes += item.text.len() + EVENT_OVERHEAD;
            json += json_length(&item.text) + EVENT_OVERHEAD;
            (first, last) = (first.min(item.at), last.max(item.at));
            let full = bytes > BATCH_BYTES_MAX
                || json > BATCH_JSON_MAX
                || index >= BATCH_EVENTS_MAX
                || last.saturating_sub(first) > BATCH_SPAN_MAX;
            if item.open || full {
                // Interwoven so long that there is no place to cut: after a crash some of it is sent twice.
                if cut == 0 && !item.open && index > 0 {
                    return Some(self.take(index));
                }
                return (cut > 0).then(|| self.take(cut));
            }
            end = end.max(item.to);
        }
        (!self.items.is_empty()).then(|| self.take(self.items.len()))
    }

    fn take(&mut self, count: usize) -> Batch {
        let items: Vec<Item> = self.items.drain(..count).collect();
        let end = items.iter().map(|item| item.to).max().unwrap_or_default();
        let after = self.items.front().map_or(end, |next| next.from.min(end));
        let events = items.into_iter().filter(|item| !item.text.is_empty());
        let mut events: Vec<Event> =
            events.map(|item| Event { at: item.at, stream: item.stream, message: item.text }).collect();
        // A clock may have been set back.
        events.sort_by_key(|event| event.at);
        Batch { events, after }
    }
}

/// Bytes of text between quotes in JSON.
fn json_length(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Stream::{Stderr, Stdout};

    struct Log {
        assembler: Assembler,
        position: u64,
    }

    impl Log {
        fn new(pattern: Option<&str>) -> Log {
            let multiline = pattern.map(|pattern| Multiline::pattern(pattern).unwrap());
            Log { assembler: Assembler::new(multiline), position: 0 }
        }

        fn push(&mut self, stream: Stream, at: i64, text: &str, ends: bool) {
            let from = self.position;
            self.position += text.len() as u64 + 1;
            let entry = Entry { at, stream, ends, text: text.to_owned(), from, to: self.position };
            self.assembler.push(entry, at);
        }

        fn batch(&mut self) -> Option<(Vec<String>, u64)> {
            let batch = self.assembler.batch()?;
            Some((batch.events.into_iter().map(|event| event.message).collect(), batch.after))
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn lines_are_events_and_empty_ones_are_none() {
        let mut log = Log::new(None);
        log.push(Stdout, 1, "one", true);
        log.push(Stdout, 2, "", true);
        log.push(Stderr, 3, "two", true);
        assert_eq!(log.batch(), Some((texts(&["one", "two"]), log.position)));
        assert_eq!(log.batch(), None);
    }

    #[test]
    fn a_line_that_goes_on_holds_back_what_came_after_it_began() {
        let mut log = Log::new(None);
        log.push(Stdout, 1, "before", true);
        let before = log.position;
        log.push(Stdout, 2, "be", false);
        log.push(Stderr, 2, "other", true);
        assert_eq!(log.batch(), Some((texts(&["before"]), before)));
        assert_eq!(log.batch(), None);
        log.push(Stdout, 3, "gun", true);
        assert_eq!(log.batch(), Some((texts(&["begun", "other"]), log.position)));
        log.push(Stdout, 4, "never ended", false);
        log.assembler.close(4 + PATIENCE - 1, false);
        assert_eq!(log.batch(), None);
        log.assembler.close(4 + PATIENCE, false);
        assert_eq!(log.batch(), Some((texts(&["never ended"]), log.position)));
    }

    #[test]
    fn lines_of_one_event_are_joined() {
        let mut log = Log::new(Some("^(INFO|ERROR)"));
        log.push(Stdout, 1, "ERROR oops", true);
        log.push(Stdout, 1, "  at main", true);
        log.push(Stdout, 1, "  at start", true);
        let first = log.position;
        assert_eq!(log.batch(), None);
        log.push(Stdout, 2, "INFO fine", true);
        assert_eq!(log.batch(), Some((texts(&["ERROR oops\n  at main\n  at start"]), first)));
        log.assembler.close(2, true);
        assert_eq!(log.batch(), Some((texts(&["INFO fine"]), log.position)));
    }

    #[test]
    fn events_and_batches_have_limits() {
        let mut log = Log::new(None);
        for _ in 0..20 {
            log.push(Stdout, 1, &"x".repeat(16 << 10), false);
        }
        log.push(Stdout, 1, "end", true);
        let (events, _) = log.batch().unwrap();
        assert_eq!(events.iter().map(String::len).collect::<Vec<_>>(), [15 << 14, (5 << 14) + 3]);

        for _ in 0..25_000 {
            log.push(Stdout, 1, "line", true);
        }
        let counts: Vec<usize> = std::iter::from_fn(|| log.batch()).map(|(events, _)| events.len()).collect();
        assert_eq!(counts, [10_000, 10_000, 5_000]);

        for _ in 0..10 {
            log.push(Stdout, 1, &"y".repeat(200_000), true);
        }
        let counts: Vec<usize> = std::iter::from_fn(|| log.batch()).map(|(events, _)| events.len()).collect();
        assert_eq!(counts, [5, 5]);

        log.push(Stdout, 1, "old", true);
        log.push(Stdout, 1 + BATCH_SPAN_MAX + 1, "new", true);
        assert_eq!(log.batch().unwrap().0, ["old"]);
        assert_eq!(log.batch().unwrap().0, ["new"]);
    }

    #[test]
    fn a_clock_set_back_does_not_disorder_a_batch() {
        let mut log = Log::new(None);
        log.push(Stdout, 5, "later", true);
        log.push(Stdout, 3, "earlier", true);
        assert_eq!(log.batch().unwrap().0, ["earlier", "later"]);
    }
}
