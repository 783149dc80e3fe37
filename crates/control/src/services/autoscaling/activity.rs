//! The story of a group: activities as they begin and end, in AWS's words.

use super::state::{Activity, ActivityKey, ActivityStatus, AutoScalingGroup, Instance};
use crate::tx::Tx;
use gantry_decide::ids::{ActivityId, AutoScalingGroupName};
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use gantry_wire::xml::iso8601;

/// Activities of a group that are kept: AWS keeps them for six weeks, but a group that cannot launch makes hundreds a
/// day.
const KEPT_MAX: u64 = 100;
/// Characters of a status message: AWS's limit.
const MESSAGE_LENGTH_MAX: usize = 255;

/// A time as AWS's texts have it.
pub fn at(time: Timestamp) -> String {
    // Their seconds are whole.
    iso8601(EpochMillis(time.as_millis() / 1000 * 1000))
}

/// Begins an activity about an instance, and forgets the oldest of the group's.
pub fn begin(
    tx: &mut Tx<'_>,
    group: &mut AutoScalingGroup,
    instance: &Instance,
    description: String,
    cause: String,
    status: ActivityStatus,
) -> ActivityId {
    let activity = Activity {
        group: group.name.clone(),
        number: group.next_activity,
        id: ActivityId::random(tx.random),
        instance: instance.id,
        description,
        cause,
        status,
        status_message: None,
        started_at: tx.now,
        ended_at: None,
        subnet: instance.subnet.clone(),
        zone: instance.zone.clone(),
    };
    group.next_activity += 1;
    if let Some(oldest) = activity.number.checked_sub(KEPT_MAX) {
        let key = |number| ActivityKey { group: group.name.clone(), number };
        let old: Vec<ActivityKey> =
            tx.state.autoscaling.activities.range(key(0)..=key(oldest)).map(|(key, _)| key.clone()).collect();
        for key in old {
            tx.state.autoscaling.activities.remove(&key);
        }
    }
    let id = activity.id;
    tx.state.autoscaling.activities.put(activity);
    id
}

/// Tells how an activity goes on. One that is over, or forgotten, stays as it is.
pub fn tell(
    tx: &mut Tx<'_>,
    group: &AutoScalingGroupName,
    id: ActivityId,
    status: ActivityStatus,
    message: Option<&str>,
) {
    let found = tx.state.autoscaling.activities_of(group).rev().find(|activity| activity.id == id);
    let Some(key) = found
        .filter(|activity| !activity.status.is_over())
        .map(|activity| ActivityKey { group: group.clone(), number: activity.number })
    else {
        return;
    };
    let now = tx.now;
    tx.state.autoscaling.activities.edit(&key, |activity| {
        activity.status = status;
        if let Some(message) = message {
            activity.status_message = Some(message.chars().take(MESSAGE_LENGTH_MAX).collect());
        }
        if status.is_over() {
            activity.ended_at = Some(now);
        }
    });
}
