//! StartLiveTail: the events of some groups as they are taken, for as long as somebody listens.

use crate::bulk::logs::Found;
use crate::call::Call;
use crate::services::logs::check;
use crate::services::logs::errors::LogsError;
use crate::tx::View;
use gantry_api::logs;
use gantry_decide::ids::{LogGroupId, LogGroupName, LogStreamId, LogStreamName};
use gantry_decide::log_filter::Pattern;
use std::collections::{BTreeMap, BTreeSet};

/// Events of one update: AWS's limit. Of more there is a sample.
const UPDATE_EVENTS_MAX: usize = 500;

/// Which streams of its groups are followed.
#[derive(Debug)]
enum Wanted {
    All,
    Named(BTreeSet<String>),
    Prefixed(Vec<String>),
}

impl Wanted {
    fn has(&self, stream: &str) -> bool {
        match self {
            Wanted::All => true,
            Wanted::Named(names) => names.contains(stream),
            Wanted::Prefixed(prefixes) => prefixes.iter().any(|prefix| stream.starts_with(prefix)),
        }
    }
}

/// A session that follows groups.
#[derive(Debug)]
pub struct LiveTail {
    start: logs::LiveTailSessionStart,
    groups: BTreeMap<LogGroupId, LogGroupName>,
    wanted: Wanted,
    pattern: Option<Pattern>,
    /// Streams that are known by now; others come to be while the session runs.
    streams: BTreeMap<LogStreamId, LogStreamName>,
    /// What the next update tells: of all events that match, every so many-th.
    kept: Vec<logs::LiveTailSessionLogEvent>,
    matched: usize,
    step: usize,
    missed: bool,
}

impl LiveTail {
    /// The groups whose events it is to be shown.
    pub fn groups(&self) -> BTreeSet<LogGroupId> {
        self.groups.keys().copied().collect()
    }

    /// What it says first: the name of the event, and the event.
    pub fn start(&self) -> (&'static str, logs::LiveTailSessionStart) {
        ("sessionStart", self.start.clone())
    }

    /// Takes events of its groups, in the order in which they came. `missed` says that there were more.
    pub fn take(&mut self, view: View<'_>, events: Vec<(LogGroupId, Found)>, missed: bool) {
        self.missed |= missed;
        for (group, event) in events {
            let Some(stream) = self.stream(view, group, event.stream) else { continue };
            let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&event.message));
            if !matches || !self.wanted.has(stream.as_str()) {
                continue;
            }
            if self.matched.is_multiple_of(self.step) {
                let group = self.groups.get(&group).map(|name| format!("{}:{name}", view.scope.account));
                self.kept.push(logs::LiveTailSessionLogEvent {
                    log_stream_name: Some(stream.to_string()),
                    log_group_identifier: group,
                    message: Some(event.message),
                    timestamp: Some(event.at.as_millis()),
                    ingestion_time: Some(event.ingested_at.as_millis()),
                });
            }
            self.matched += 1;
            if self.kept.len() > UPDATE_EVENTS_MAX {
                // Evenly from the whole time, however much comes.
                let mut index = 0;
                self.kept.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.step *= 2;
            }
        }
    }

    /// What it says of all that it took since it was asked last.
    pub fn update(&mut self) -> (&'static str, logs::LiveTailSessionUpdate) {
        let results = std::mem::take(&mut self.kept);
        let sampled = self.missed || self.matched > results.len();
        (self.matched, self.step, self.missed) = (0, 1, false);
        let metadata = logs::LiveTailSessionMetadata { sampled: Some(sampled) };
        let update =
            logs::LiveTailSessionUpdate { session_metadata: Some(metadata), session_results: Some(results) };
        ("sessionUpdate", update)
    }

    fn stream(&mut self, view: View<'_>, group: LogGroupId, id: LogStreamId) -> Option<LogStreamName> {
        if !self.streams.contains_key(&id) {
            let all = view.state.logs.streams_of(self.groups.get(&group)?);
            self.streams.extend(all.map(|stream| (stream.id, stream.name.clone())));
        }
        self.streams.get(&id).cloned()
    }
}

pub fn start_live_tail(
    view: View<'_>,
    call: &Call,
    request: logs::StartLiveTailRequest,
) -> Result<LiveTail, LogsError> {
    let mut groups = BTreeMap::new();
    for arn in &request.log_group_identifiers {
        if arn.ends_with('*') {
            return Err(LogsError::invalid("The ARN of a log group cannot end with an asterisk."));
        }
        let group = check::arn_group(view, arn)?;
        groups.insert(group.id, group.name.clone());
    }
    let (names, prefixes) = (request.log_stream_names, request.log_stream_name_prefixes);
    if (names.is_some() || prefixes.is_some()) && groups.len() != 1 {
        return Err(LogsError::invalid("Log streams can only be named for one log group."));
    }
    let wanted = match (&names, &prefixes) {
        (Some(_), Some(_)) => {
            let text = "logStreamNames and logStreamNamePrefixes cannot be used together.";
            return Err(LogsError::invalid(text));
        }
        (Some(names), None) => Wanted::Named(names.iter().cloned().collect()),
        (None, Some(prefixes)) => Wanted::Prefixed(prefixes.clone()),
        (None, None) => Wanted::All,
    };
    let pattern = Pattern::parse(request.log_event_filter_pattern.as_deref().unwrap_or_default())?;
    let id = call.request_id.to_string();
    Ok(LiveTail {
        start: logs::LiveTailSessionStart {
            request_id: Some(id.clone()),
            session_id: Some(id),
            log_group_identifiers: Some(request.log_group_identifiers),
            log_stream_names: names,
            log_stream_name_prefixes: prefixes,
            log_event_filter_pattern: request.log_event_filter_pattern,
        },
        groups,
        wanted,
        pattern: Some(pattern).filter(|pattern| !pattern.is_all()),
        streams: BTreeMap::new(),
        kept: Vec::new(),
        matched: 0,
        step: 1,
        missed: false,
    })
}
