//! What happened in groups.

use super::PAGE_MAX;
use crate::call::Call;
use crate::page::Page;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::state::{Activity, AutoScalingGroup};
use crate::services::autoscaling::{check, views};
use crate::tx::View;
use gantry_api::autoscaling as shape;

pub fn describe_scaling_activities(
    view: View<'_>,
    _call: &Call,
    request: shape::DescribeScalingActivitiesType,
) -> Result<shape::ActivitiesType, AutoScalingError> {
    if request.filters.as_ref().is_some_and(|filters| !filters.is_empty()) {
        return Err(AutoScalingError::invalid("Gantry does not filter scaling activities yet."));
    }
    let state = &view.state.autoscaling;
    let page = Page::read(request.next_token.as_deref(), request.max_records, PAGE_MAX, PAGE_MAX)?;
    let groups: Vec<&AutoScalingGroup> = match request.auto_scaling_group_name.as_deref() {
        Some(name) => vec![check::group(state, name)?],
        None => state.groups.values().map(AsRef::as_ref).collect(),
    };
    let wanted = request.activity_ids.as_deref().unwrap_or_default();
    let is_wanted = |activity: &&Activity| wanted.is_empty() || wanted.contains(&activity.id.to_string());
    let mut found: Vec<(&AutoScalingGroup, &Activity)> = groups
        .into_iter()
        .flat_map(|group| {
            state.activities_of(&group.name).filter(is_wanted).map(move |activity| (group, activity))
        })
        .collect();
    // The newest first.
    let place = |(group, activity): &(&AutoScalingGroup, &Activity)| {
        format!("{:020} {} {:012}", activity.started_at.as_millis(), group.name, activity.number)
    };
    found.sort_by_key(|found| std::cmp::Reverse(place(found)));
    let show =
        |(group, activity): (&AutoScalingGroup, &Activity)| views::activity(view.scope, group, activity);
    let (activities, next_token) = page.descending(true).cut(found.into_iter(), place, show);
    Ok(shape::ActivitiesType { activities, next_token })
}
