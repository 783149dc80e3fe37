//! What others may know of CloudWatch Logs.

use super::ops::event::retained_from;
pub use super::ops::live_tail::LiveTail;
use crate::state::State;
use gantry_decide::ids::LogGroupId;
use gantry_decide::time::Timestamp;
use std::collections::BTreeMap;

/// Every log group there is, and from when on its events are kept. What the store of events has beyond that may go.
pub fn kept_events(state: &State, now: Timestamp) -> BTreeMap<LogGroupId, Timestamp> {
    let always = Timestamp::from_millis(i64::MIN);
    let groups = state.scopes().flat_map(|(_, scope)| scope.logs.groups.values());
    groups.map(|group| (group.id, retained_from(now, group).unwrap_or(always))).collect()
}
