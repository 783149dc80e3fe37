//! The feed: what happened in the clusters of a scope, one line an event, searchable for days.
//!
//! Events follow from two states of the tables alone ([`changes::between`]), so nobody who changes a state has to tell of
//! it, and nothing is written on the way of a request: whoever publishes states compares them now and then. Times are
//! those of the records, so that it does not matter how often. Events are stored as log events are, in a group of their
//! own for each scope that no request of CloudWatch Logs can name.

mod changes;
mod event;

pub use changes::between;
pub use event::{FeedEvent, FeedKind};

use crate::bulk::logs::{Append, Event};
use crate::state::State;
use gantry_decide::ids::{ClusterName, LogGroupId, LogStreamId, Scope};
use gantry_decide::time::Timestamp;
use gantry_wire::sigv4::sha256_hex;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long events are kept unless told otherwise.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Events of one append: some hundred KiB, so that none waits long behind others.
const APPEND_EVENTS_MAX: usize = 2_000;

/// The first 32 digits: half a digest is still unique.
fn derived(of: &str) -> String {
    sha256_hex(of.as_bytes()).chars().take(32).collect()
}

/// The group of a scope's events: follows from its name, and is nobody's log group.
pub fn group(scope: &Scope) -> LogGroupId {
    derived(&format!("gantry feed {scope}")).parse().expect("32 hexadecimal digits")
}

/// The stream of a cluster's events.
pub fn stream(cluster: &ClusterName) -> LogStreamId {
    derived(&format!("gantry feed {cluster}")).parse().expect("32 hexadecimal digits")
}

/// The groups of all scopes, and from when on their events are kept.
pub fn kept(state: &State, now: Timestamp, retention: Duration) -> BTreeMap<LogGroupId, Timestamp> {
    state.scopes().map(|(scope, _)| (group(scope), now - retention)).collect()
}

/// What to append of events that became known at `now`.
pub fn appends(events: Vec<(Scope, FeedEvent)>, now: Timestamp) -> Vec<Append> {
    let mut streams: BTreeMap<(Scope, ClusterName), Vec<Event>> = BTreeMap::new();
    for (scope, event) in events {
        let key = (scope, event.cluster().clone());
        streams.entry(key).or_default().push(Event { at: event.at, message: event.line() });
    }
    let mut appends = Vec::new();
    for ((scope, cluster), mut events) in streams {
        let (group, stream) = (group(&scope), stream(&cluster));
        // Of one time, they stay in the order in which they were found.
        events.sort_by_key(|event| event.at);
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(APPEND_EVENTS_MAX));
            appends.push(Append { group, stream, ingested_at: now, events, cursor: None });
            events = rest;
        }
    }
    appends
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::ScopeState;
    use gantry_decide::ids::AccountId;

    const APPENDED: usize = 2 * APPEND_EVENTS_MAX;

    fn scope(region: &str) -> Scope {
        Scope { account: AccountId::DEFAULT, region: region.parse().unwrap() }
    }

    #[test]
    fn each_scope_has_a_group_that_is_kept_for_the_retention() {
        let mut state = State::default();
        for region in ["eu-north-1", "us-east-1"] {
            state.replace(&scope(region), ScopeState::default());
        }
        let now = Timestamp::from_millis(10_000);
        let kept = kept(&state, now, Duration::from_secs(4));
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[&group(&scope("eu-north-1"))], Timestamp::from_millis(6_000));
    }

    #[test]
    fn appends_are_bounded_and_in_the_order_of_times() {
        let cluster = |name: &str| gantry_decide::arn::EcsResource::Cluster(name.parse().unwrap());
        let event = |at: usize| {
            let (name, at) =
                (if at.is_multiple_of(3) { "a" } else { "b" }, Timestamp::from_millis(at as i64));
            (scope("eu-north-1"), FeedEvent::new(at, FeedKind::ClusterCreated, cluster(name), [], "made"))
        };
        let now = Timestamp::from_millis(1);
        let appends = appends((0..APPENDED).rev().map(event).collect(), now);
        assert_eq!(appends.iter().map(|append| append.events.len()).sum::<usize>(), APPENDED);
        assert_eq!(appends.len(), 3, "a third of them fits in one append, the rest in two");
        for append in &appends {
            assert!(append.events.len() <= APPEND_EVENTS_MAX && append.events.is_sorted_by_key(|e| e.at));
        }
    }
}
