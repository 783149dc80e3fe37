//! Log streams.

use super::{other, plan};
use crate::bulk::Plan;
use crate::bulk::logs::{Answer, Request, StreamFacts};
use crate::call::Call;
use crate::page::Page;
use crate::services::logs::errors::LogsError;
use crate::services::logs::state::LogStream;
use crate::services::logs::{check, views};
use crate::tx::{Tx, View};
use gantry_api::logs;
use gantry_decide::ids::{LogStreamId, LogStreamName};
use gantry_store::Record;

/// Streams of one page, at most and by default: AWS's.
const PAGE_MAX: i32 = 50;

pub fn create_log_stream(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::CreateLogStreamRequest,
) -> Result<logs::CreateLogStreamResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    let name: LogStreamName = request.log_stream_name.parse()?;
    let id = LogStreamId::random(tx.random);
    let stream = LogStream { group: group.name.clone(), name, id, created_at: tx.now };
    if tx.state.logs.streams.contains_key(&stream.key()) {
        return Err(LogsError::StreamExists);
    }
    tx.state.logs.streams.put(stream);
    Ok(logs::CreateLogStreamResponse::default())
}

/// The events of a deleted stream are never shown again; the store lets go of them when they expire.
pub fn delete_log_stream(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::DeleteLogStreamRequest,
) -> Result<logs::DeleteLogStreamResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    let stream = check::stream(tx.view(), &group, &request.log_stream_name)?;
    tx.state.logs.streams.remove(&stream.key());
    Ok(logs::DeleteLogStreamResponse::default())
}

pub fn describe_log_streams(
    view: View<'_>,
    _call: &Call,
    request: logs::DescribeLogStreamsRequest,
) -> Result<Plan, LogsError> {
    let (name, identifier) = (request.log_group_name.as_deref(), request.log_group_identifier.as_deref());
    let group = check::named_group(view, name, identifier)?;
    let page = Page::read(request.next_token.as_deref(), request.limit, PAGE_MAX, PAGE_MAX)?;
    let descending = request.descending.unwrap_or(false);
    let page = page.descending(descending);
    let prefix = request.log_stream_name_prefix;
    let scope = view.scope.clone();
    let mut streams: Vec<LogStream> = view.state.logs.streams_of(&group.name).cloned().collect();
    if request.order_by == Some(logs::OrderBy::LastEventTime) {
        if prefix.is_some() {
            return Err(LogsError::invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
        let request = Request::Describe { group: group.id, streams: ids(&streams) };
        return Ok(plan(request, move |answer| {
            let Answer::Streams(facts) = answer else { return Err(other(&answer)) };
            // A stream without events is as old as its creation.
            let last = |stream: &LogStream| {
                let last = facts.get(&stream.id).and_then(|facts| facts.last_event);
                last.unwrap_or(stream.created_at).as_millis().max(0)
            };
            let key = |stream: &LogStream| format!("{:020}/{}", last(stream), stream.name);
            let mut keyed: Vec<(String, LogStream)> =
                streams.into_iter().map(|stream| (key(&stream), stream)).collect();
            keyed.sort_by(|(a, _), (b, _)| if descending { b.cmp(a) } else { a.cmp(b) });
            let shown = |(_, stream): (String, LogStream)| show(&scope, &stream, facts.get(&stream.id));
            let (shown, next_token) = page.cut(keyed.into_iter(), |(key, _)| key.clone(), shown);
            Ok(logs::DescribeLogStreamsResponse { log_streams: Some(shown), next_token })
        }));
    }
    streams.retain(|stream| prefix.as_deref().is_none_or(|prefix| stream.name.as_str().starts_with(prefix)));
    if descending {
        streams.reverse();
    }
    let (streams, next_token) =
        page.cut(streams.into_iter(), |stream| stream.name.to_string(), |stream| stream);
    let request = Request::Describe { group: group.id, streams: ids(&streams) };
    Ok(plan(request, move |answer| {
        let Answer::Streams(facts) = answer else { return Err(other(&answer)) };
        let shown = streams.iter().map(|stream| show(&scope, stream, facts.get(&stream.id))).collect();
        Ok(logs::DescribeLogStreamsResponse { log_streams: Some(shown), next_token })
    }))
}

fn ids(streams: &[LogStream]) -> Vec<LogStreamId> {
    streams.iter().map(|stream| stream.id).collect()
}

fn show(
    scope: &gantry_decide::ids::Scope,
    stream: &LogStream,
    facts: Option<&StreamFacts>,
) -> logs::LogStream {
    views::stream(scope, stream, facts.unwrap_or(&StreamFacts::default()))
}
