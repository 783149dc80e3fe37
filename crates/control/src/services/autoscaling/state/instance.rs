//! The instances of groups: what each was made by, where it is in its life, and what is known of its machine.

use crate::services::ec2::links::LaunchData;
use gantry_decide::ids::{
    ActivityId, AutoScalingGroupName, Ec2InstanceId, LaunchConfigurationName, LaunchTemplateId,
    LifecycleActionToken, LifecycleHookName,
};
use gantry_decide::scaling::lifecycle::{LifecycleState, MachineState};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By what an instance was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchedBy {
    Template { id: LaunchTemplateId, name: String, version: u64 },
    Configuration { name: LaunchConfigurationName, created_at: Timestamp },
}

/// A lifecycle action under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookWait {
    pub token: LifecycleActionToken,
    /// When it counts as answered by its hook's default result.
    pub until: Timestamp,
    /// When it does whatever the heartbeats.
    pub at_last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: Ec2InstanceId,
    pub group: AutoScalingGroupName,
    pub state: LifecycleState,
    pub machine: MachineState,
    /// What the provider said of a machine that failed.
    pub failure: Option<String>,
    pub healthy: bool,
    pub protected: bool,
    pub zone: String,
    pub subnet: Option<String>,
    pub instance_type: String,
    pub image_id: Option<String>,
    pub launched_by: LaunchedBy,
    /// How it is to be made: no longer kept once it was.
    pub data: Option<LaunchData>,
    pub tags: BTreeMap<String, String>,
    pub launched_at: Timestamp,
    pub in_service_at: Option<Timestamp>,
    /// The actions that hold it, by their hooks.
    pub waits: BTreeMap<LifecycleHookName, HookWait>,
    /// The activity that tells of what happens to it now.
    pub activity: ActivityId,
    /// By which hosts reach it, where the provider says.
    pub address: Option<String>,
}

impl Instance {
    /// Whether an instance that is older in this sense goes first.
    pub fn launch_age(&self) -> u64 {
        match &self.launched_by {
            // Configurations are older than templates.
            LaunchedBy::Configuration { created_at, .. } => created_at.as_millis().unsigned_abs(),
            LaunchedBy::Template { version, .. } => (1 << 62) + version,
        }
    }
}

impl Record for Instance {
    const KIND: &'static str = "autoscaling/instance";
    const VERSION: u32 = 1;
    type Key = Ec2InstanceId;

    fn key(&self) -> Ec2InstanceId {
        self.id
    }

    fn path(key: &Ec2InstanceId) -> String {
        key.to_string()
    }
}
