//! Log events: taking them, pages of one stream, searches in a group.

use super::{other, plan};
use crate::bulk::Plan;
use crate::bulk::logs::{Answer, Append, Direction, Event, Page, Place, Request, Scan};
use crate::call::Call;
use crate::services::logs::errors::LogsError;
use crate::services::logs::state::LogGroup;
use crate::services::logs::{check, views};
use crate::tx::View;
use gantry_api::logs;
use gantry_decide::ids::{LogStreamId, LogStreamName};
use gantry_decide::log_cursor::Cursor;
use gantry_decide::log_filter::Pattern;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bytes of a batch: AWS's limit, each event counted with [`EVENT_OVERHEAD`].
const BATCH_BYTES_MAX: usize = 1_048_576;
/// What AWS counts for an event beside its message, in bytes.
const EVENT_OVERHEAD: usize = 26;
/// Events of a batch and of a page: AWS's limit.
const EVENTS_MAX: i32 = 10_000;
/// Messages' bytes of a page: AWS's limit.
const PAGE_BYTES_MAX: usize = 1_048_576;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// From a batch's first event to its last: AWS's limit.
const BATCH_SPAN_MAX: Duration = DAY;
/// Older events are refused: AWS's limit.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 3600);
/// Events further in the future are refused: AWS's limit.
const AHEAD_MAX: Duration = Duration::from_secs(2 * 3600);
/// Streams that a search may name: AWS's limit.
const STREAM_NAMES_MAX: usize = 100;

pub fn put_log_events(
    view: View<'_>,
    _call: &Call,
    request: logs::PutLogEventsRequest,
) -> Result<Plan, LogsError> {
    check_batch(&request.log_events)?;
    let group = check::group(view, &request.log_group_name)?;
    let stream = check::stream(view, &group, &request.log_stream_name)?;
    let (events, rejected) = sift(view.now, &group, request.log_events);
    let cursor: Option<Cursor> = request.sequence_token.and_then(|token| token.parse().ok());
    let after = cursor.as_ref().map(|cursor| cursor.after.clone());
    // Other writers get a token that is as good as any, of AWS's length.
    let next = after.clone().unwrap_or_else(|| format!("{:056}", view.now.as_millis().max(0)));
    let append = Append { group: group.id, stream: stream.id, ingested_at: view.now, events, cursor };
    Ok(plan(Request::Append(append), move |answer| match answer {
        Answer::Appended => Ok(logs::PutLogEventsResponse {
            next_sequence_token: Some(next),
            rejected_log_events_info: rejected,
            rejected_entity_info: None,
        }),
        Answer::Elsewhere(at) if at == after => Err(LogsError::DataAlreadyAccepted),
        Answer::Elsewhere(at) => Err(LogsError::InvalidSequenceToken { expected: at.unwrap_or_default() }),
        answer => Err(other(&answer)),
    }))
}

fn check_batch(events: &[logs::InputLogEvent]) -> Result<(), LogsError> {
    if events.is_empty() || events.len() > EVENTS_MAX.unsigned_abs() as usize {
        return Err(LogsError::invalid(format!("A batch has 1 to {EVENTS_MAX} log events.")));
    }
    if events.iter().any(|event| event.message.is_empty()) {
        return Err(LogsError::invalid("Log event message must not be empty."));
    }
    if events.iter().any(|event| event.timestamp < 0) {
        return Err(LogsError::invalid("Log event timestamp must not be negative."));
    }
    let bytes: usize = events.iter().map(|event| event.message.len() + EVENT_OVERHEAD).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(LogsError::invalid(format!(
            "Upload too large: {bytes} bytes exceeds limit of {BATCH_BYTES_MAX}"
        )));
    }
    if !events.is_sorted_by_key(|event| event.timestamp) {
        return Err(LogsError::invalid(
            "Log events in a single PutLogEvents request must be in chronological order.",
        ));
    }
    let at = |event: Option<&logs::InputLogEvent>| {
        Timestamp::from_millis(event.map_or(0, |event| event.timestamp))
    };
    if at(events.last()).since(at(events.first())) > BATCH_SPAN_MAX {
        return Err(LogsError::invalid(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.",
        ));
    }
    Ok(())
}

/// Leaves out what is too old, expired or too new, and says where in the batch that was: ends exclusive, the start
/// inclusive.
fn sift(
    now: Timestamp,
    group: &LogGroup,
    events: Vec<logs::InputLogEvent>,
) -> (Vec<Event>, Option<logs::RejectedLogEventsInfo>) {
    let before = |limit: Timestamp| events.partition_point(|event| event.timestamp < limit.as_millis());
    let too_old = before(now - AGE_MAX);
    let expired = retained_from(now, group).map_or(0, before);
    let too_new = before(now + AHEAD_MAX + Duration::from_millis(1));
    let index = |at: usize| i32::try_from(at).ok();
    let rejected =
        (too_old > 0 || expired > 0 || too_new < events.len()).then(|| logs::RejectedLogEventsInfo {
            too_old_log_event_end_index: index(too_old).filter(|end| *end > 0),
            expired_log_event_end_index: index(expired).filter(|end| *end > 0),
            too_new_log_event_start_index: index(too_new).filter(|_| too_new < events.len()),
        });
    let (first, last) = (too_old.max(expired), too_new);
    let taken = events.into_iter().take(last).skip(first);
    let taken =
        taken.map(|event| Event { at: Timestamp::from_millis(event.timestamp), message: event.message });
    (taken.collect(), rejected)
}

/// The time before which a group's events are gone.
pub fn retained_from(now: Timestamp, group: &LogGroup) -> Option<Timestamp> {
    group.retention_days.map(|days| now - DAY * days)
}

/// The bounds of a page: what was asked for, and what is kept.
fn bounds(
    view: View<'_>,
    group: &LogGroup,
    start: Option<i64>,
    until: Option<i64>,
) -> (Timestamp, Timestamp) {
    let from = Timestamp::from_millis(start.unwrap_or(i64::MIN));
    let from = retained_from(view.now, group).map_or(from, |kept| from.max(kept));
    (from, until.map_or(Timestamp::NEVER, Timestamp::from_millis))
}

fn limit(limit: Option<i32>) -> Result<usize, LogsError> {
    match limit.unwrap_or(EVENTS_MAX) {
        limit @ 1..=EVENTS_MAX => Ok(limit.unsigned_abs() as usize),
        _ => Err(LogsError::invalid(format!("limit must be between 1 and {EVENTS_MAX}."))),
    }
}

/// A place as tokens name it: digits of a fixed width, so that the same place is the same text.
fn place_digits(place: Place) -> String {
    format!("{:020}{:036}", place.at.as_millis().max(0), place.number)
}

fn digits_place(text: &str) -> Result<Place, LogsError> {
    let wrong = || LogsError::invalid("The specified nextToken is invalid.");
    if text.len() != 56 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let (at, number) = text.split_at(20);
    let at = at.parse().map_err(|_| wrong())?;
    Ok(Place { at: Timestamp::from_millis(at), number: number.parse().map_err(|_| wrong())? })
}

fn page_token(direction: Direction, place: Place) -> String {
    let letter = if direction == Direction::Forward { 'f' } else { 'b' };
    format!("{letter}/{}/s", place_digits(place))
}

fn read_page_token(token: &str) -> Result<(Direction, Place), LogsError> {
    let wrong = || LogsError::invalid("The specified nextToken is invalid.");
    let (letter, rest) = token.split_once('/').ok_or_else(wrong)?;
    let direction = match letter {
        "f" => Direction::Forward,
        "b" => Direction::Backward,
        _ => return Err(wrong()),
    };
    Ok((direction, digits_place(rest.strip_suffix("/s").unwrap_or(rest))?))
}

pub fn get_log_events(
    view: View<'_>,
    _call: &Call,
    request: logs::GetLogEventsRequest,
) -> Result<Plan, LogsError> {
    let (name, identifier) = (request.log_group_name.as_deref(), request.log_group_identifier.as_deref());
    let group = check::named_group(view, name, identifier)?;
    let stream = check::stream(view, &group, &request.log_stream_name)?;
    let (direction, place) = match request.next_token.as_deref() {
        Some(token) => read_page_token(token)?,
        None if request.start_from_head == Some(true) => (Direction::Forward, Place::START),
        None => (Direction::Backward, Place::END),
    };
    let (from, until) = bounds(view, &group, request.start_time, request.end_time);
    let scan = Scan {
        group: group.id,
        streams: Some(BTreeSet::from([stream.id])),
        from,
        until,
        place,
        direction,
        pattern: None,
        events_max: limit(request.limit)?,
        bytes_max: PAGE_BYTES_MAX,
    };
    Ok(plan(Request::Scan(scan), move |answer| match answer {
        Answer::Page(Page { events, next }) => {
            // A page without events stays where it was, so that its tokens are the ones that led to it: by that
            // callers see that they are at the end. A fresh look at the newest events of nothing starts from nothing.
            let stays = if place == Place::END { Place::START } else { place };
            // A store may stop before it has found anything; going on from there is what the token is for.
            let stays = next.filter(|_| events.is_empty()).unwrap_or(stays);
            let first = events.first().map_or(stays, |event| event.before());
            let last = events.last().map_or(stays, |event| event.after());
            Ok(logs::GetLogEventsResponse {
                events: Some(events.into_iter().map(views::output_event).collect()),
                next_backward_token: Some(page_token(Direction::Backward, first)),
                next_forward_token: Some(page_token(Direction::Forward, last)),
            })
        }
        answer => Err(other(&answer)),
    }))
}

pub fn filter_log_events(
    view: View<'_>,
    _call: &Call,
    request: logs::FilterLogEventsRequest,
) -> Result<Plan, LogsError> {
    let (name, identifier) = (request.log_group_name.as_deref(), request.log_group_identifier.as_deref());
    let group = check::named_group(view, name, identifier)?;
    let wanted = wanted_streams(view, &group, &request)?;
    let place = request.next_token.as_deref().map_or(Ok(Place::START), digits_place)?;
    // Here the end is inclusive, other than in GetLogEvents: AWS documents both so.
    let until = request.end_time.map(|end| end.saturating_add(1));
    let (from, until) = bounds(view, &group, request.start_time, until);
    let pattern = Pattern::parse(request.filter_pattern.as_deref().unwrap_or_default())?;
    let scan = Scan {
        group: group.id,
        streams: Some(wanted.keys().copied().collect()),
        from,
        until,
        place,
        direction: Direction::Forward,
        pattern: Some(pattern).filter(|pattern| !pattern.is_all()),
        events_max: limit(request.limit)?,
        bytes_max: PAGE_BYTES_MAX,
    };
    Ok(plan(Request::Scan(scan), move |answer| match answer {
        Answer::Page(Page { events, next }) => {
            let shown = events.into_iter().filter_map(|event| {
                let stream = wanted.get(&event.stream)?.to_string();
                Some(views::filtered_event(event, stream))
            });
            Ok(logs::FilterLogEventsResponse {
                events: Some(shown.collect()),
                next_token: next.map(place_digits),
                // AWS fills it no more.
                searched_log_streams: Some(Vec::new()),
            })
        }
        answer => Err(other(&answer)),
    }))
}

/// The streams to search, by id: those named, those with a prefix, or all.
fn wanted_streams(
    view: View<'_>,
    group: &LogGroup,
    request: &logs::FilterLogEventsRequest,
) -> Result<BTreeMap<LogStreamId, LogStreamName>, LogsError> {
    let prefix = request.log_stream_name_prefix.as_deref();
    match &request.log_stream_names {
        Some(_) if prefix.is_some() => {
            Err(LogsError::invalid("logStreamNames and logStreamNamePrefix cannot be used together."))
        }
        Some(names) if names.is_empty() || names.len() > STREAM_NAMES_MAX => {
            Err(LogsError::invalid(format!("1 to {STREAM_NAMES_MAX} logStreamNames can be given.")))
        }
        Some(names) => {
            let streams = names.iter().map(|name| check::stream(view, group, name));
            streams.map(|stream| stream.map(|stream| (stream.id, stream.name.clone()))).collect()
        }
        None => {
            let prefix = prefix.unwrap_or_default();
            let streams = view.state.logs.streams_of(&group.name);
            let streams = streams.filter(|stream| stream.name.as_str().starts_with(prefix));
            Ok(streams.map(|stream| (stream.id, stream.name.clone())).collect())
        }
    }
}
