//! What happened in a group: one record for each instance that came or went.

use gantry_decide::ids::{ActivityId, AutoScalingGroupName, Ec2InstanceId};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActivityStatus {
    /// The machine is being made.
    PreInService,
    /// A lifecycle hook holds the instance.
    MidLifecycleAction,
    InProgress,
    Successful,
    Failed,
    Cancelled,
}

impl ActivityStatus {
    pub fn is_over(self) -> bool {
        matches!(self, ActivityStatus::Successful | ActivityStatus::Failed | ActivityStatus::Cancelled)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActivityKey {
    pub group: AutoScalingGroupName,
    pub number: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    pub group: AutoScalingGroupName,
    /// Counts the group's activities.
    pub number: u64,
    pub id: ActivityId,
    pub instance: Ec2InstanceId,
    pub description: String,
    pub cause: String,
    pub status: ActivityStatus,
    pub status_message: Option<String>,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub subnet: Option<String>,
    pub zone: String,
}

impl Record for Activity {
    const KIND: &'static str = "autoscaling/activity";
    const VERSION: u32 = 1;
    type Key = ActivityKey;

    fn key(&self) -> ActivityKey {
        ActivityKey { group: self.group.clone(), number: self.number }
    }

    fn path(key: &ActivityKey) -> String {
        // No name of a group has a colon.
        format!("{}:{:012}", key.group, key.number)
    }
}
