//! Records, and what the store of events says of them, to response shapes.

use super::state::{LogGroup, LogGroupClass, LogStream, MetricFilter, group_arn};
use crate::bulk::logs::{Found, StreamFacts};
use gantry_api::logs;
use gantry_decide::ids::Scope;
use gantry_decide::time::Timestamp;
use std::str::FromStr;

pub fn group(scope: &Scope, group: &LogGroup, filters: usize, stored_bytes: u64) -> logs::LogGroup {
    let arn = group.arn(scope).to_string();
    logs::LogGroup {
        arn: Some(format!("{arn}:*")),
        log_group_arn: Some(arn),
        creation_time: Some(group.created_at.as_millis()),
        log_group_class: Some(match group.class {
            LogGroupClass::Standard => logs::LogGroupClass::Standard,
            LogGroupClass::InfrequentAccess => logs::LogGroupClass::InfrequentAccess,
        }),
        log_group_name: Some(group.name.to_string()),
        metric_filter_count: Some(i32::try_from(filters).unwrap_or(i32::MAX)),
        retention_in_days: group.retention_days.and_then(|days| i32::try_from(days).ok()),
        stored_bytes: Some(i64::try_from(stored_bytes).unwrap_or(i64::MAX)),
        deletion_protection_enabled: Some(false),
        ..Default::default()
    }
}

pub fn stream(scope: &Scope, stream: &LogStream, facts: &StreamFacts) -> logs::LogStream {
    logs::LogStream {
        arn: Some(format!("{}:log-stream:{}", group_arn(scope, stream.group.as_str()), stream.name)),
        creation_time: Some(stream.created_at.as_millis()),
        first_event_timestamp: facts.first_event.map(Timestamp::as_millis),
        last_event_timestamp: facts.last_event.map(Timestamp::as_millis),
        last_ingestion_time: facts.last_ingestion.map(Timestamp::as_millis),
        log_stream_name: Some(stream.name.to_string()),
        // AWS stopped counting it in 2019 and answers zero.
        stored_bytes: Some(0),
        // AWS takes any token; here it is where a writer that keeps a cursor is.
        upload_sequence_token: facts.cursor.clone(),
    }
}

pub fn output_event(event: Found) -> logs::OutputLogEvent {
    logs::OutputLogEvent {
        timestamp: Some(event.at.as_millis()),
        message: Some(event.message),
        ingestion_time: Some(event.ingested_at.as_millis()),
    }
}

pub fn filtered_event(event: Found, stream: String) -> logs::FilteredLogEvent {
    logs::FilteredLogEvent {
        // Unique in its group and rising, as AWS's 56 digits are.
        event_id: Some(format!("{:020}{:036}", event.at.as_millis().max(0), event.number)),
        ingestion_time: Some(event.ingested_at.as_millis()),
        log_stream_name: Some(stream),
        timestamp: Some(event.at.as_millis()),
        message: Some(event.message),
    }
}

pub fn metric_filter(filter: &MetricFilter) -> logs::MetricFilter {
    let transformations = filter.transformations.iter().map(|to| logs::MetricTransformation {
        metric_name: to.name.clone(),
        metric_namespace: to.namespace.clone(),
        metric_value: to.value.clone(),
        default_value: to.default_value,
        dimensions: (!to.dimensions.is_empty()).then(|| to.dimensions.clone()),
        unit: to.unit.as_deref().and_then(|unit| logs::StandardUnit::from_str(unit).ok()),
    });
    logs::MetricFilter {
        creation_time: Some(filter.created_at.as_millis()),
        filter_name: Some(filter.name.to_string()),
        filter_pattern: Some(filter.pattern.clone()),
        log_group_name: Some(filter.group.to_string()),
        metric_transformations: Some(transformations.collect()),
        apply_on_transformed_logs: Some(false),
        ..Default::default()
    }
}
