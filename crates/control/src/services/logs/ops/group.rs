//! Log groups.

use super::{other, plan};
use crate::bulk::Plan;
use crate::bulk::logs::{Answer, Request};
use crate::call::Call;
use crate::page::Page;
use crate::services::logs::errors::LogsError;
use crate::services::logs::state::{LogGroup, LogGroupClass, Tags};
use crate::services::logs::{check, views};
use crate::tx::{Tx, View};
use gantry_api::logs;
use gantry_decide::ids::{LogGroupId, LogGroupName};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Groups of one account in one region: AWS's quota.
const GROUPS_MAX: usize = 1_000_000;
/// Groups of one page, at most and by default: AWS's.
const PAGE_MAX: i32 = 50;

pub fn create_log_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::CreateLogGroupRequest,
) -> Result<logs::CreateLogGroupResponse, LogsError> {
    let name: LogGroupName = request.log_group_name.parse()?;
    if request.kms_key_id.is_some() {
        return Err(LogsError::invalid("kmsKeyId is not supported: there is no KMS here."));
    }
    if request.deletion_protection_enabled == Some(true) {
        return Err(LogsError::invalid("deletionProtectionEnabled is not supported yet."));
    }
    let class = request.log_group_class.map(class).transpose()?.unwrap_or(LogGroupClass::Standard);
    let mut tags = Tags::new();
    check::merge_tags(&mut tags, request.tags.unwrap_or_default())?;
    let groups = &mut tx.state.logs.groups;
    if groups.contains_key(&name) {
        return Err(LogsError::GroupExists);
    }
    if groups.len() >= GROUPS_MAX {
        return Err(LogsError::LimitExceeded);
    }
    let id = LogGroupId::random(tx.random);
    groups.put(LogGroup { name, id, created_at: tx.now, class, retention_days: None, tags });
    Ok(logs::CreateLogGroupResponse::default())
}

fn class(given: logs::LogGroupClass) -> Result<LogGroupClass, LogsError> {
    match given {
        logs::LogGroupClass::Standard => Ok(LogGroupClass::Standard),
        logs::LogGroupClass::InfrequentAccess => Ok(LogGroupClass::InfrequentAccess),
        other => Err(LogsError::invalid(format!("The class {} is not supported.", other.as_str()))),
    }
}

/// The events go when the store next looks which groups there are.
pub fn delete_log_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::DeleteLogGroupRequest,
) -> Result<logs::DeleteLogGroupResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    tx.state.logs.remove_group(&group.name);
    Ok(logs::DeleteLogGroupResponse::default())
}

pub fn describe_log_groups(
    view: View<'_>,
    _call: &Call,
    request: logs::DescribeLogGroupsRequest,
) -> Result<Plan, LogsError> {
    let page = Page::read(request.next_token.as_deref(), request.limit, PAGE_MAX, PAGE_MAX)?;
    let (prefix, pattern) = (request.log_group_name_prefix, request.log_group_name_pattern);
    if prefix.is_some() && pattern.is_some() {
        return Err(LogsError::invalid(
            "Only one of logGroupNamePrefix and logGroupNamePattern can be given.",
        ));
    }
    // As AWS documents it: a pattern is a part of the name in either case.
    let pattern = pattern.map(|pattern| pattern.to_ascii_lowercase());
    let identified: Option<BTreeSet<LogGroupName>> = match request.log_group_identifiers {
        None => None,
        Some(texts) => {
            let found = texts.iter().map(|text| check::identified_group(view, text).map(|g| g.name.clone()));
            Some(found.collect::<Result<_, _>>()?)
        }
    };
    let class = request.log_group_class.map(class).transpose()?;
    let wanted = |group: &&Arc<LogGroup>| {
        let name = group.name.as_str();
        prefix.as_deref().is_none_or(|prefix| name.starts_with(prefix))
            && pattern.as_deref().is_none_or(|part| name.to_ascii_lowercase().contains(part))
            && identified.as_ref().is_none_or(|names| names.contains(&group.name))
            && class.is_none_or(|class| group.class == class)
    };
    let state = &view.state.logs;
    let groups = state.groups.values().filter(wanted);
    let (groups, next_token) = page.cut(
        groups,
        |group| group.name.to_string(),
        |group| (Arc::clone(group), state.metric_filters_of(&group.name).count()),
    );
    let scope = view.scope.clone();
    let ids = groups.iter().map(|(group, _)| group.id).collect();
    Ok(plan(Request::Measure(ids), move |answer| match answer {
        Answer::Sizes(sizes) => {
            let shown = groups.iter().map(|(group, filters)| {
                let bytes = sizes.get(&group.id).copied().unwrap_or_default();
                views::group(&scope, group, *filters, bytes)
            });
            Ok(logs::DescribeLogGroupsResponse { log_groups: Some(shown.collect()), next_token })
        }
        answer => Err(other(&answer)),
    }))
}

fn change(tx: &mut Tx<'_>, name: &str, change: impl FnOnce(&mut LogGroup)) -> Result<(), LogsError> {
    let mut group = check::group(tx.view(), name)?.as_ref().clone();
    change(&mut group);
    tx.state.logs.groups.put(group);
    Ok(())
}

pub fn put_retention_policy(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::PutRetentionPolicyRequest,
) -> Result<logs::PutRetentionPolicyResponse, LogsError> {
    let days = check::retention(request.retention_in_days)?;
    change(tx, &request.log_group_name, |group| group.retention_days = Some(days))?;
    Ok(logs::PutRetentionPolicyResponse::default())
}

pub fn delete_retention_policy(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::DeleteRetentionPolicyRequest,
) -> Result<logs::DeleteRetentionPolicyResponse, LogsError> {
    change(tx, &request.log_group_name, |group| group.retention_days = None)?;
    Ok(logs::DeleteRetentionPolicyResponse::default())
}
