//! A store of bulk data in memory, simple enough to be right: for tests, as the judge of real ones, and simulations.

use super::logs::{Answer, Append, Direction, Found, Page, Place, Request, Scan, StreamFacts};
use gantry_decide::ids::{LogGroupId, LogStreamId};
use std::collections::BTreeMap;

/// Log events by group, in the order of their places.
#[derive(Default)]
pub struct MemoryLogs {
    groups: BTreeMap<LogGroupId, Group>,
}

#[derive(Default)]
struct Group {
    events: BTreeMap<Place, Found>,
    next: u64,
    facts: BTreeMap<LogStreamId, StreamFacts>,
}

impl MemoryLogs {
    pub fn perform(&mut self, request: Request) -> Answer {
        match request {
            Request::Append(append) => self.append(append),
            Request::Scan(scan) => Answer::Page(self.scan(&scan)),
            Request::Describe { group, streams } => {
                let facts = self.groups.get(&group).map(|group| &group.facts);
                let known = |id| facts.and_then(|facts| facts.get(&id)).map(|facts| (id, facts.clone()));
                Answer::Streams(streams.into_iter().filter_map(known).collect())
            }
            Request::Measure(groups) => {
                let bytes = |id: &LogGroupId| {
                    let events = self.groups.get(id).into_iter().flat_map(|group| group.events.values());
                    events.map(|event| event.message.len() as u64).sum()
                };
                Answer::Sizes(groups.into_iter().map(|id| (id, bytes(&id))).collect())
            }
        }
    }

    fn append(&mut self, append: Append) -> Answer {
        if append.events.is_empty() && append.cursor.is_none() {
            return Answer::Appended;
        }
        let group = self.groups.entry(append.group).or_default();
        let facts = group.facts.entry(append.stream).or_default();
        if let Some(cursor) = append.cursor {
            if facts.cursor.is_some() && facts.cursor != cursor.before {
                return Answer::Elsewhere(facts.cursor.clone());
            }
            facts.cursor = Some(cursor.after);
        }
        for event in append.events {
            let found = Found {
                stream: append.stream,
                at: event.at,
                number: group.next,
                ingested_at: append.ingested_at,
                message: event.message,
            };
            group.next += 1;
            facts.note(&found);
            group.events.insert(found.before(), found);
        }
        Answer::Appended
    }

    fn scan(&self, scan: &Scan) -> Page {
        let matching = |event: &&Found| {
            scan.takes(event.stream, event.at)
                && match scan.direction {
                    Direction::Forward => event.before() >= scan.place,
                    Direction::Backward => event.before() < scan.place,
                }
                && scan.pattern.as_ref().is_none_or(|pattern| pattern.matches(&event.message))
        };
        let events = self.groups.get(&scan.group).into_iter().flat_map(|group| group.events.values());
        let mut events: Vec<&Found> = events.filter(matching).collect();
        if scan.direction == Direction::Backward {
            events.reverse();
        }
        let mut page = Page::default();
        let mut bytes = 0;
        for event in events {
            bytes += event.message.len();
            if page.events.len() == scan.events_max || (bytes > scan.bytes_max && !page.events.is_empty()) {
                let last: Option<&Found> = page.events.last();
                page.next = last.map(|last| match scan.direction {
                    Direction::Forward => last.after(),
                    Direction::Backward => last.before(),
                });
                break;
            }
            page.events.push(event.clone());
        }
        if scan.direction == Direction::Backward {
            page.events.reverse();
        }
        page
    }
}
