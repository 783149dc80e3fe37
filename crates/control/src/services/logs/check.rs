//! What a request may name: groups by name or ARN, streams, tags.

use super::errors::LogsError;
use super::state::{LogGroup, LogStream, LogStreamKey, Tags};
use crate::tx::View;
use gantry_decide::arn::Arn;
use gantry_decide::ids::{LogGroupName, LogStreamName};
use std::sync::Arc;

/// Tags of one group: AWS's limit.
pub const TAGS_MAX: usize = 50;
/// Characters of a tag's key: AWS's limit.
const TAG_KEY_MAX: usize = 128;
/// Characters of a tag's value: AWS's limit.
const TAG_VALUE_MAX: usize = 256;

/// The days for which a group may keep its events: AWS's list.
const RETENTION_DAYS: &[u32] = &[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653,
];

pub fn retention(days: i32) -> Result<u32, LogsError> {
    u32::try_from(days).ok().filter(|days| RETENTION_DAYS.contains(days)).ok_or_else(|| {
        let allowed: Vec<String> = RETENTION_DAYS.iter().map(u32::to_string).collect();
        LogsError::invalid(format!("retentionInDays must be one of {}.", allowed.join(", ")))
    })
}

/// A group that must be there.
pub fn group(view: View<'_>, name: &str) -> Result<Arc<LogGroup>, LogsError> {
    let name: LogGroupName = name.parse()?;
    view.state.logs.groups.get(&name).cloned().ok_or(LogsError::GroupNotFound)
}

/// The group that a name or an identifier means; exactly one of the two must be given.
pub fn named_group(
    view: View<'_>,
    name: Option<&str>,
    identifier: Option<&str>,
) -> Result<Arc<LogGroup>, LogsError> {
    match (name, identifier) {
        (Some(name), None) => group(view, name),
        (None, Some(identifier)) => identified_group(view, identifier),
        _ => Err(LogsError::invalid("Exactly one of logGroupName and logGroupIdentifier must be given.")),
    }
}

/// The group that a name or ARN means.
pub fn identified_group(view: View<'_>, identifier: &str) -> Result<Arc<LogGroup>, LogsError> {
    if identifier.starts_with("arn:") { arn_group(view, identifier) } else { group(view, identifier) }
}

/// The group that an ARN names, with `:*` at its end or without.
pub fn arn_group(view: View<'_>, text: &str) -> Result<Arc<LogGroup>, LogsError> {
    let wrong = || LogsError::invalid(format!("'{text}' is not the ARN of a log group."));
    let arn: Arn = text.parse().map_err(|_| wrong())?;
    let name = arn.resource.strip_prefix("log-group:").filter(|_| arn.service == "logs").ok_or_else(wrong)?;
    if arn.account != view.scope.account.to_string() || arn.region != view.scope.region.to_string() {
        return Err(LogsError::ResourceNotFound);
    }
    group(view, name.strip_suffix(":*").unwrap_or(name))
}

/// A stream that must be there.
pub fn stream(view: View<'_>, group: &LogGroup, name: &str) -> Result<Arc<LogStream>, LogsError> {
    let name: LogStreamName = name.parse()?;
    let key = LogStreamKey { group: group.name.clone(), name };
    view.state.logs.streams.get(&key).cloned().ok_or(LogsError::StreamNotFound)
}

/// Adds a request's tags to those that are there.
pub fn merge_tags(tags: &mut Tags, more: Tags) -> Result<(), LogsError> {
    for (key, value) in &more {
        let length = key.chars().count();
        if length == 0 || length > TAG_KEY_MAX || !key.chars().all(tag_char) || key.starts_with("aws:") {
            let shown: String = key.chars().take(TAG_KEY_MAX).collect();
            return Err(LogsError::invalid(format!("The tag key '{shown}' is not valid.")));
        }
        if value.chars().count() > TAG_VALUE_MAX || !value.chars().all(tag_char) {
            return Err(LogsError::invalid(format!("The value of the tag '{key}' is not valid.")));
        }
    }
    tags.extend(more);
    if tags.len() > TAGS_MAX {
        return Err(LogsError::TooManyTags { max: TAGS_MAX });
    }
    Ok(())
}

fn tag_char(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c)
}
