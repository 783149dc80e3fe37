//! Pages of the feed.

use super::{PAGE_BYTES_MAX, read_token, token};
use crate::bulk::logs::{Answer, Direction, Place, Request, Scan};
use crate::bulk::{self, Plan};
use crate::call::Call;
use crate::feed::{self, FeedEvent};
use crate::services::gantry::errors::GantryError;
use crate::services::gantry::{check, views};
use crate::tx::View;
use gantry_api::gantry;
use gantry_decide::log_filter::Pattern;
use gantry_decide::time::Timestamp;
use std::collections::BTreeSet;

/// Events of a page, unless fewer are asked for.
const PAGE_MAX: i32 = 1000;

/// The events of a cluster, or of all, oldest first. The pattern is one of CloudWatch Logs, applied to the line that an
/// event is stored as: kind, subject, what it concerns, message.
pub fn list_events(
    view: View<'_>,
    _call: &Call,
    request: gantry::ListEventsRequest,
) -> Result<Plan, GantryError> {
    let cluster = check::cluster(view, request.cluster.as_deref())?;
    let pattern = Pattern::parse(request.filter_pattern.as_deref().unwrap_or_default())?;
    let place = request.next_token.as_deref().map_or(Ok(Place::START), read_token)?;
    let scope = view.scope.clone();
    let scan = Scan {
        group: feed::group(&scope),
        streams: cluster.map(|cluster| BTreeSet::from([feed::stream(&cluster)])),
        from: request.start_time.map_or(Place::START.at, |at| Timestamp::from_millis(at.0)),
        until: request.end_time.map_or(Timestamp::NEVER, |at| Timestamp::from_millis(at.0)),
        place,
        direction: Direction::Forward,
        pattern: Some(pattern).filter(|pattern| !pattern.is_all()),
        events_max: request.max_results.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX).unsigned_abs() as usize,
        bytes_max: PAGE_BYTES_MAX,
    };
    let reply = move |answer: Result<bulk::Answer, bulk::Error>| {
        let bulk::Answer::Logs(Answer::Page(page)) = answer.map_err(GantryError::from)? else {
            return Err(GantryError::Unavailable.into());
        };
        let shown = page.events.iter().filter_map(|found| {
            FeedEvent::read(found.at, &found.message).map(|event| views::event(&scope, found, event))
        });
        let response =
            gantry::ListEventsResponse { events: Some(shown.collect()), next_token: page.next.map(token) };
        Ok(Box::new(response) as _)
    };
    Ok(Plan { request: bulk::Request::Logs(Request::Scan(scan)), reply: Box::new(reply) })
}
