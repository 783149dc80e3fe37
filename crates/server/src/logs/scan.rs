//! Pages of a group's events: from memory and segments, forwards or backwards, bounded in work and size.

use super::segment::{Block, Segment};
use gantry_control::bulk::logs::{Direction, Found, Page, Place, Scan};
use gantry_decide::time::Timestamp;
use imbl::OrdMap;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Unpacked bytes that one scan goes through, about a quarter of a second's work; who wants more asks again.
pub const SCAN_BYTES_MAX: usize = 64 << 20;

/// What a scan reads: events not in segments yet, and segments.
pub struct Sources {
    pub memory: OrdMap<Place, Arc<Found>>,
    pub segments: Vec<Arc<Segment>>,
}

/// The best events so far: as many as fit in the page, those nearest to where it begins.
struct Best<'a> {
    scan: &'a Scan,
    /// Only events from here on...
    from: Place,
    /// ...and before here can come into the page. Narrows as it fills.
    until: Place,
    kept: BTreeMap<Place, Found>,
    bytes: usize,
    /// Whether something was left out for want of room.
    full: bool,
}

impl Best<'_> {
    fn wants(&self, place: Place) -> bool {
        place >= self.from && place < self.until
    }

    fn keep(&mut self, found: Found) {
        self.bytes += found.message.len();
        self.kept.insert(found.before(), found);
        while self.kept.len() > self.scan.events_max
            || (self.bytes > self.scan.bytes_max && self.kept.len() > 1)
        {
            let farthest = match self.scan.direction {
                Direction::Forward => self.kept.pop_last(),
                Direction::Backward => self.kept.pop_first(),
            };
            let Some((place, found)) = farthest else { break };
            self.bytes -= found.message.len();
            self.full = true;
            match self.scan.direction {
                Direction::Forward => self.until = place,
                Direction::Backward => self.from = behind(place),
            }
        }
    }

    /// Stops at a place: what lies beyond it is not known.
    fn stop_at(&mut self, gap: Place) {
        match self.scan.direction {
            Direction::Forward => {
                self.until = self.until.min(gap);
                self.kept.split_off(&self.until);
            }
            Direction::Backward => {
                self.from = self.from.max(gap);
                self.kept = self.kept.split_off(&self.from);
            }
        }
    }
}

fn behind(place: Place) -> Place {
    Place { at: place.at, number: place.number.saturating_add(1) }
}

/// Reads a page.
pub fn scan(scan: &Scan, sources: &Sources, budget: usize) -> Page {
    let edge = |at: Timestamp| Place { at, number: 0 };
    let (from, until) = match scan.direction {
        Direction::Forward => (scan.place.max(edge(scan.from)), edge(scan.until)),
        Direction::Backward => (edge(scan.from), scan.place.min(edge(scan.until))),
    };
    let mut best = Best { scan, from, until, kept: BTreeMap::new(), bytes: 0, full: false };
    if from < until {
        let matching = |event: &Found| {
            scan.takes(event.stream, event.at)
                && scan.pattern.as_ref().is_none_or(|pattern| pattern.matches(&event.message))
        };
        let take = |best: &mut Best<'_>, (place, event): (&Place, &Arc<Found>)| {
            if best.wants(*place) && matching(event) {
                best.keep(event.as_ref().clone());
            }
            !best.full
        };
        let mut events = sources.memory.range(from..until);
        match scan.direction {
            Direction::Forward => events.all(|event| take(&mut best, event)),
            Direction::Backward => events.rev().all(|event| take(&mut best, event)),
        };
    }
    let stopped = blocks(scan, sources, &mut best, budget);
    let next = match (best.full || stopped.is_some(), scan.direction) {
        (false, _) => None,
        (true, Direction::Forward) => best.kept.values().last().map(Found::after).or(stopped),
        (true, Direction::Backward) => best.kept.values().next().map(Found::before).or(stopped),
    };
    Page { events: best.kept.into_values().collect(), next }
}

/// Goes through the blocks, the nearest first. Returns the gap at which it gave up, if it did.
fn blocks(scan: &Scan, sources: &Sources, best: &mut Best<'_>, budget: usize) -> Option<Place> {
    let wanted = |id| scan.streams.as_ref().is_none_or(|streams| streams.contains(&id));
    let mut blocks: Vec<(&Segment, &Block)> = Vec::new();
    for segment in &sources.segments {
        let overlapping =
            segment.blocks.iter().filter(|block| block.last >= best.from && block.first < best.until);
        blocks.extend(overlapping.map(|block| (segment.as_ref(), block)));
    }
    match scan.direction {
        Direction::Forward => blocks.sort_by_key(|(_, block)| block.first),
        Direction::Backward => blocks.sort_by_key(|(_, block)| std::cmp::Reverse(block.last)),
    }
    let (begin_from, begin_until) = (best.from, best.until);
    let mut read = 0;
    for (segment, block) in blocks {
        // Everything between where the scan began and this gap is known.
        let (gap, progress, beyond) = match scan.direction {
            Direction::Forward => (block.first, block.first > begin_from, block.first >= best.until),
            Direction::Backward => {
                (behind(block.last), behind(block.last) < begin_until, block.last < best.from)
            }
        };
        if beyond {
            break;
        }
        if !segment.has_any(block, wanted) {
            continue;
        }
        if read >= budget && progress {
            best.stop_at(gap);
            return Some(gap);
        }
        read += block.raw;
        let result = segment.read(block, |row| {
            let at = Timestamp::from_millis(row.at);
            let place = Place { at, number: row.number };
            let matches = best.wants(place)
                && scan.takes(row.stream, at)
                && scan.pattern.as_ref().is_none_or(|pattern| pattern.matches(row.message));
            if matches {
                best.keep(row.to_found());
            }
        });
        match result {
            Ok(()) => {}
            // It expired or its group was deleted meanwhile.
            Err(super::segment::SegmentError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, path = %segment.path.display(), "a block of log events cannot be read and is left out");
            }
        }
    }
    None
}
