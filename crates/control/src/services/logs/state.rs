//! The tables of CloudWatch Logs, and what must always hold between them.

use gantry_decide::arn::Arn;
use gantry_decide::ids::{LogGroupId, LogGroupName, LogStreamId, LogStreamName, MetricFilterName, Scope};
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record, Table, Write, decode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tag list as stored.
pub type Tags = BTreeMap<String, String>;

/// What may be done with a group's events on AWS, and at which price. Here both are served alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LogGroupClass {
    Standard,
    InfrequentAccess,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogGroup {
    pub name: LogGroupName,
    /// Names the group in the store of its events.
    pub id: LogGroupId,
    pub created_at: Timestamp,
    pub class: LogGroupClass,
    /// Events are kept for ever if absent.
    pub retention_days: Option<u32>,
    pub tags: Tags,
}

impl LogGroup {
    /// `arn:aws:logs:REGION:ACCOUNT:log-group:NAME`.
    pub fn arn(&self, scope: &Scope) -> Arn {
        group_arn(scope, self.name.as_str())
    }
}

/// The ARN of a group that may or may not exist.
pub fn group_arn(scope: &Scope, name: &str) -> Arn {
    Arn {
        service: "logs".to_owned(),
        region: scope.region.to_string(),
        account: scope.account.to_string(),
        resource: format!("log-group:{name}"),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogStreamKey {
    pub group: LogGroupName,
    pub name: LogStreamName,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogStream {
    pub group: LogGroupName,
    pub name: LogStreamName,
    /// Names the stream in the store of its events.
    pub id: LogStreamId,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetricFilterKey {
    pub group: LogGroupName,
    pub name: MetricFilterName,
}

/// How a matching event becomes a sample of a metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricTransformation {
    pub namespace: String,
    pub name: String,
    /// A number, or a field of the pattern with `$` before it.
    pub value: String,
    pub default_value: Option<f64>,
    pub dimensions: BTreeMap<String, String>,
    pub unit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFilter {
    pub group: LogGroupName,
    pub name: MetricFilterName,
    pub pattern: String,
    pub transformations: Vec<MetricTransformation>,
    pub created_at: Timestamp,
}

impl Record for LogGroup {
    const KIND: &'static str = "logs/group";
    const VERSION: u32 = 1;
    type Key = LogGroupName;

    fn key(&self) -> LogGroupName {
        self.name.clone()
    }

    fn path(key: &LogGroupName) -> String {
        key.to_string()
    }
}

impl Record for LogStream {
    const KIND: &'static str = "logs/stream";
    const VERSION: u32 = 1;
    type Key = LogStreamKey;

    fn key(&self) -> LogStreamKey {
        LogStreamKey { group: self.group.clone(), name: self.name.clone() }
    }

    fn path(key: &LogStreamKey) -> String {
        // No name of a group has a colon.
        format!("{}:{}", key.group, key.name)
    }
}

impl Record for MetricFilter {
    const KIND: &'static str = "logs/metric-filter";
    const VERSION: u32 = 1;
    type Key = MetricFilterKey;

    fn key(&self) -> MetricFilterKey {
        MetricFilterKey { group: self.group.clone(), name: self.name.clone() }
    }

    fn path(key: &MetricFilterKey) -> String {
        format!("{}:{}", key.group, key.name)
    }
}

/// One record, read.
pub enum Row {
    Group(LogGroup),
    Stream(LogStream),
    MetricFilter(MetricFilter),
}

impl Row {
    /// Reads one stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        Ok(Some(match table {
            "group" => Row::Group(decode(value)?),
            "stream" => Row::Stream(decode(value)?),
            "metric-filter" => Row::MetricFilter(decode(value)?),
            _ => return Ok(None),
        }))
    }
}

/// The first of all names, as a bound of ranges.
const FIRST_NAME: &str = "\0";

/// All of CloudWatch Logs in one scope but the events.
#[derive(Clone, Default)]
pub struct LogsState {
    pub groups: Table<LogGroup>,
    pub streams: Table<LogStream>,
    pub metric_filters: Table<MetricFilter>,
}

impl LogsState {
    /// A group's streams, by name.
    pub fn streams_of(&self, group: &LogGroupName) -> impl Iterator<Item = &LogStream> {
        let name = FIRST_NAME.parse().expect("a byte that names may have");
        let first = LogStreamKey { group: group.clone(), name };
        let of_group = self.streams.range(first..).take_while(move |(key, _)| key.group == *group);
        of_group.map(|(_, stream)| stream.as_ref())
    }

    /// A group's metric filters, by name.
    pub fn metric_filters_of(&self, group: &LogGroupName) -> impl Iterator<Item = &MetricFilter> {
        let name = FIRST_NAME.parse().expect("a byte that names may have");
        let first = MetricFilterKey { group: group.clone(), name };
        let of_group = self.metric_filters.range(first..).take_while(move |(key, _)| key.group == *group);
        of_group.map(|(_, filter)| filter.as_ref())
    }

    /// Removes a group and all that belongs to it.
    pub fn remove_group(&mut self, name: &LogGroupName) {
        let streams: Vec<_> = self.streams_of(name).map(Record::key).collect();
        let filters: Vec<_> = self.metric_filters_of(name).map(Record::key).collect();
        for key in streams {
            self.streams.remove(&key);
        }
        for key in filters {
            self.metric_filters.remove(&key);
        }
        self.groups.remove(name);
    }

    /// Moves what was written since the last call to `out`.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.groups.drain_writes(prefix, out);
        self.streams.drain_writes(prefix, out);
        self.metric_filters.drain_writes(prefix, out);
    }

    /// Takes one row of the store, on start.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::Group(record) => self.groups.adopt(record),
            Row::Stream(record) => self.streams.adopt(record),
            Row::MetricFilter(record) => self.metric_filters.adopt(record),
        }
    }

    /// Panics if a stream or filter has no group.
    pub fn check_invariants(&self) {
        for key in self.streams.iter().map(|(key, _)| key) {
            assert!(self.groups.contains_key(&key.group), "the stream {key:?} has no group");
        }
        for key in self.metric_filters.iter().map(|(key, _)| key) {
            assert!(self.groups.contains_key(&key.group), "the filter {key:?} has no group");
        }
    }
}
