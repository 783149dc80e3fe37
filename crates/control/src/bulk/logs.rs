//! Log events: appends to streams and scans of groups.
//!
//! Events of a group are ordered by their time, those of one time by when they came. A [`Place`] is a gap in that
//! order: scans go on from one, and tokens name one.

use gantry_decide::ids::{LogGroupId, LogStreamId};
use gantry_decide::log_cursor::Cursor;
use gantry_decide::log_filter::Pattern;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What a container or client wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Timestamp,
    pub message: String,
}

/// Gap before the event with this time and number, whether or not it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub at: Timestamp,
    /// Counts the events of a group as they come.
    pub number: u64,
}

impl Place {
    pub const START: Place = Place { at: Timestamp::from_millis(i64::MIN), number: 0 };
    pub const END: Place = Place { at: Timestamp::NEVER, number: u64::MAX };
}

/// Events for one stream, in the order of their times.
#[derive(Clone, Debug)]
pub struct Append {
    pub group: LogGroupId,
    pub stream: LogStreamId,
    pub ingested_at: Timestamp,
    pub events: Vec<Event>,
    /// The append is done only if the stream's cursor is the one before, or if it has none: a cursor may be forgotten
    /// together with a stream's last event.
    pub cursor: Option<Cursor>,
}

/// Which way a scan goes. Pages are in the order of times either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The events behind a place.
    Forward,
    /// The last ones before it.
    Backward,
}

/// A page of a group's events.
#[derive(Clone, Debug)]
pub struct Scan {
    pub group: LogGroupId,
    /// All of the group's streams if absent.
    pub streams: Option<BTreeSet<LogStreamId>>,
    /// Only events of this time or later...
    pub from: Timestamp,
    /// ...and before this time.
    pub until: Timestamp,
    pub place: Place,
    pub direction: Direction,
    /// Only events that match.
    pub pattern: Option<Pattern>,
    pub events_max: usize,
    /// Of messages. The first event is always taken.
    pub bytes_max: usize,
}

impl Scan {
    /// Whether events of this stream and time are looked at.
    pub fn takes(&self, stream: LogStreamId, at: Timestamp) -> bool {
        at >= self.from
            && at < self.until
            && self.streams.as_ref().is_none_or(|wanted| wanted.contains(&stream))
    }
}

#[derive(Debug)]
pub enum Request {
    Append(Append),
    Scan(Scan),
    /// What is known of some of a group's streams.
    Describe {
        group: LogGroupId,
        streams: Vec<LogStreamId>,
    },
    /// How much is stored of each group.
    Measure(Vec<LogGroupId>),
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub stream: LogStreamId,
    pub at: Timestamp,
    pub number: u64,
    pub ingested_at: Timestamp,
    pub message: String,
}

impl Found {
    /// The gap before the event.
    pub fn before(&self) -> Place {
        Place { at: self.at, number: self.number }
    }

    /// The gap behind the event.
    pub fn after(&self) -> Place {
        Place { at: self.at, number: self.number.saturating_add(1) }
    }
}

/// In the order of times, whatever the direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<Found>,
    /// Where to go on; absent when nothing is left in the scan's direction.
    pub next: Option<Place>,
}

/// A stream as its events show it. Times are absent as long as there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    pub first_event: Option<Timestamp>,
    pub last_event: Option<Timestamp>,
    pub last_ingestion: Option<Timestamp>,
    pub cursor: Option<String>,
}

impl StreamFacts {
    /// Takes an event into account.
    pub fn note(&mut self, event: &Found) {
        self.first_event = Some(self.first_event.map_or(event.at, |first| first.min(event.at)));
        self.last_event = Some(self.last_event.map_or(event.at, |last| last.max(event.at)));
        self.last_ingestion =
            Some(self.last_ingestion.map_or(event.ingested_at, |last| last.max(event.ingested_at)));
    }
}

#[derive(Debug)]
pub enum Answer {
    Appended,
    /// Not appended: the stream's cursor, which is not the one that the append builds on.
    Elsewhere(Option<String>),
    Page(Page),
    Streams(BTreeMap<LogStreamId, StreamFacts>),
    /// Bytes on disk.
    Sizes(BTreeMap<LogGroupId, u64>),
}
