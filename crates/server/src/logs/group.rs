//! One log group in the store: its newest events in memory, its segments, and what is known of its streams.

use super::scan::Sources;
use super::segment::Segment;
use gantry_control::bulk::logs::{Append, Found, Place, StreamFacts};
use gantry_decide::ids::LogStreamId;
use gantry_decide::time::Timestamp;
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What an event takes in memory beside its message, in bytes: the record, its place in the map, the allocations.
const OVERHEAD: usize = 160;

/// Small segments that become one: some are cheaper to keep than to write again, hundreds are not.
const MERGE_MIN: usize = 8;

/// What an append takes in memory.
pub fn bytes_of(append: &Append) -> usize {
    append.events.iter().map(|event| event.message.len() + OVERHEAD).sum()
}

#[derive(Default)]
pub struct Group {
    /// Events that are in no segment yet.
    pub memory: OrdMap<Place, Arc<Found>>,
    pub memory_bytes: usize,
    /// In the order in which they were written.
    pub segments: Vec<Arc<Segment>>,
    pub next_event: u64,
    pub next_segment: u64,
    pub facts: BTreeMap<LogStreamId, StreamFacts>,
    /// Streams whose facts changed since the last segment.
    pub changed: BTreeSet<LogStreamId>,
}

impl Group {
    /// Takes an append that is in the journal. `first` is the number of its first event.
    pub fn take(&mut self, append: Append, first: u64) {
        if append.events.is_empty() && append.cursor.is_none() {
            return;
        }
        let facts = self.facts.entry(append.stream).or_default();
        self.changed.insert(append.stream);
        if let Some(cursor) = append.cursor {
            facts.cursor = Some(cursor.after);
        }
        for (number, event) in (first..).zip(append.events) {
            let found = Found {
                stream: append.stream,
                at: event.at,
                number,
                ingested_at: append.ingested_at,
                message: event.message,
            };
            facts.note(&found);
            self.next_event = self.next_event.max(number.saturating_add(1));
            self.memory_bytes += found.message.len() + OVERHEAD;
            self.memory.insert(found.before(), Arc::new(found));
        }
    }

    /// Takes a segment, on start. Segments come in their order.
    pub fn adopt(&mut self, segment: Segment) {
        self.next_event = self.next_event.max(segment.next_event);
        self.next_segment = self.next_segment.max(segment.number.saturating_add(1));
        for (stream, later) in &segment.facts {
            let known = self.facts.entry(*stream).or_default();
            known.first_event = known.first_event.into_iter().chain(later.first_event).min();
            known.last_event = known.last_event.max(later.last_event);
            known.last_ingestion = known.last_ingestion.max(later.last_ingestion);
            if later.cursor.is_some() {
                known.cursor.clone_from(&later.cursor);
            }
        }
        self.segments.push(Arc::new(segment));
    }

    /// The newest segments, if there are so many small ones that they should become one, with what is in memory, that
    /// is no larger than `limit`.
    pub fn to_merge(&self, limit: usize) -> Vec<Arc<Segment>> {
        let mut room = limit.saturating_sub(self.memory_bytes);
        let mut small = Vec::new();
        for segment in self.segments.iter().rev() {
            let Some(left) = room.checked_sub(segment.raw_bytes()) else { break };
            room = left;
            small.push(Arc::clone(segment));
        }
        if small.len() >= MERGE_MIN { small } else { Vec::new() }
    }

    /// What is not in segments is there now, and what the segment replaces is of no more use.
    pub fn written(&mut self, segment: Segment) {
        self.next_segment = segment.number.saturating_add(1);
        self.segments.retain(|older| {
            let replaced = segment.replaces.contains(&older.number);
            if replaced {
                older.doom();
            }
            !replaced
        });
        self.segments.push(Arc::new(segment));
        self.memory = OrdMap::new();
        self.memory_bytes = 0;
        self.changed.clear();
    }

    /// Lets go of events before `from`, and of segments that held nothing else.
    pub fn expire(&mut self, from: Timestamp) {
        let edge = Place { at: from, number: 0 };
        if self.memory.get_min().is_some_and(|(place, _)| *place < edge) {
            let (expired, kept) = self.memory.split(&edge);
            let at_edge = self.memory.get(&edge).cloned();
            self.memory = kept;
            if let Some(event) = at_edge {
                self.memory.insert(edge, event);
            }
            let gone: usize = expired.values().map(|event| event.message.len() + OVERHEAD).sum();
            self.memory_bytes = self.memory_bytes.saturating_sub(gone);
        }
        // The last one is kept: it knows where the numbers of events go on.
        let newest = self.segments.last().map(|segment| segment.number);
        self.segments.retain(|segment| {
            let expired = Some(segment.number) != newest && segment.last().is_none_or(|last| last < edge);
            if expired {
                segment.doom();
            }
            !expired
        });
    }

    pub fn sources(&self) -> Sources {
        Sources { memory: self.memory.clone(), segments: self.segments.clone() }
    }

    pub fn stored_bytes(&self) -> u64 {
        let in_memory = self.memory_bytes.saturating_sub(self.memory.len() * OVERHEAD);
        in_memory as u64 + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }
}
