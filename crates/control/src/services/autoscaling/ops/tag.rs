//! Tags of groups.

use super::{PAGE_DEFAULT, PAGE_MAX};
use crate::call::Call;
use crate::page::Page;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::{check, views};
use crate::tx::{Tx, View};
use gantry_api::autoscaling as shape;

pub fn create_or_update_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::CreateOrUpdateTagsType,
) -> Result<shape::CreateOrUpdateTagsResponse, AutoScalingError> {
    for (name, tags) in check::tags(&request.tags, None)? {
        let mut group = check::living_group(&tx.state.autoscaling, &name)?;
        check::put_tags(&mut group, tags)?;
        tx.state.autoscaling.groups.put(group);
    }
    Ok(shape::CreateOrUpdateTagsResponse::default())
}

/// A tag with a value goes only if it has that value.
pub fn delete_tags(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::DeleteTagsType,
) -> Result<shape::DeleteTagsResponse, AutoScalingError> {
    for tag in &request.tags {
        check::tag_key(&tag.key)?;
        let name = tag.resource_id.as_deref().unwrap_or_default();
        let mut group = check::group(&tx.state.autoscaling, name)?.clone();
        let known = group.tags.get(&tag.key);
        if known.is_some_and(|known| tag.value.as_ref().is_none_or(|value| *value == known.value)) {
            group.tags.remove(&tag.key);
            tx.state.autoscaling.groups.put(group);
        }
    }
    Ok(shape::DeleteTagsResponse::default())
}

/// Whether a text is one of a filter's values.
fn passes(filters: &[shape::Filter], tag: &shape::TagDescription) -> bool {
    filters.iter().all(|filter| {
        let propagate = tag.propagate_at_launch.map(|propagate| propagate.to_string());
        let of = match filter.name.as_deref() {
            Some("auto-scaling-group") => tag.resource_id.clone(),
            Some("key") => tag.key.clone(),
            Some("value") => tag.value.clone(),
            _ => propagate,
        };
        filter.values.iter().flatten().any(|value| Some(value) == of.as_ref())
    })
}

pub fn describe_tags(
    view: View<'_>,
    _call: &Call,
    request: shape::DescribeTagsType,
) -> Result<shape::TagsType, AutoScalingError> {
    let filters = request.filters.as_deref().unwrap_or_default();
    let known = ["auto-scaling-group", "key", "value", "propagate-at-launch"];
    let is_known = |filter: &shape::Filter| filter.name.as_deref().is_some_and(|name| known.contains(&name));
    if !filters.iter().all(is_known) {
        return Err(AutoScalingError::invalid(format!("Filter types are {}.", known.join(", "))));
    }
    let page = Page::read(request.next_token.as_deref(), request.max_records, PAGE_MAX, PAGE_DEFAULT)?;
    let all = view.state.autoscaling.groups.values().flat_map(|group| views::tags(group));
    let all = all.filter(|tag| passes(filters, tag));
    let place = |tag: &shape::TagDescription| {
        // No name of a group has a colon.
        let (group, key) = (tag.resource_id.as_deref(), tag.key.as_deref());
        format!("{}:{}", group.unwrap_or_default(), key.unwrap_or_default())
    };
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(place);
    let (tags, next_token) = page.cut(all.into_iter(), place, |tag| tag);
    Ok(shape::TagsType { tags: Some(tags), next_token })
}
