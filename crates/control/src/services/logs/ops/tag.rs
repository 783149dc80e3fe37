//! Tags of log groups: the general operations, and the older ones that name a group.

use crate::call::Call;
use crate::services::logs::check;
use crate::services::logs::errors::LogsError;
use crate::services::logs::state::{LogGroup, Tags};
use crate::tx::{Tx, View};
use gantry_api::logs;

fn add(tx: &mut Tx<'_>, group: &LogGroup, more: Tags) -> Result<(), LogsError> {
    let mut group = group.clone();
    check::merge_tags(&mut group.tags, more)?;
    tx.state.logs.groups.put(group);
    Ok(())
}

fn remove(tx: &mut Tx<'_>, group: &LogGroup, keys: &[String]) {
    let mut group = group.clone();
    group.tags.retain(|key, _| !keys.contains(key));
    tx.state.logs.groups.put(group);
}

pub fn tag_resource(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::TagResourceRequest,
) -> Result<logs::TagResourceResponse, LogsError> {
    let group = check::arn_group(tx.view(), &request.resource_arn)?;
    add(tx, &group, request.tags)?;
    Ok(logs::TagResourceResponse::default())
}

pub fn untag_resource(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::UntagResourceRequest,
) -> Result<logs::UntagResourceResponse, LogsError> {
    let group = check::arn_group(tx.view(), &request.resource_arn)?;
    remove(tx, &group, &request.tag_keys);
    Ok(logs::UntagResourceResponse::default())
}

pub fn list_tags_for_resource(
    view: View<'_>,
    _call: &Call,
    request: logs::ListTagsForResourceRequest,
) -> Result<logs::ListTagsForResourceResponse, LogsError> {
    let group = check::arn_group(view, &request.resource_arn)?;
    Ok(logs::ListTagsForResourceResponse { tags: Some(group.tags.clone()) })
}

pub fn tag_log_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::TagLogGroupRequest,
) -> Result<logs::TagLogGroupResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    add(tx, &group, request.tags)?;
    Ok(logs::TagLogGroupResponse::default())
}

pub fn untag_log_group(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: logs::UntagLogGroupRequest,
) -> Result<logs::UntagLogGroupResponse, LogsError> {
    let group = check::group(tx.view(), &request.log_group_name)?;
    remove(tx, &group, &request.tags);
    Ok(logs::UntagLogGroupResponse::default())
}

pub fn list_tags_log_group(
    view: View<'_>,
    _call: &Call,
    request: logs::ListTagsLogGroupRequest,
) -> Result<logs::ListTagsLogGroupResponse, LogsError> {
    let group = check::group(view, &request.log_group_name)?;
    Ok(logs::ListTagsLogGroupResponse { tags: Some(group.tags.clone()) })
}
