//! Managed Instances: providers whose machines ECS makes and destroys by itself, and those machines.

use gantry_decide::capacity::managed_instances::Requirements;
use gantry_decide::deployment::managed_daemon::SlotState;
use gantry_decide::ids::{
    CapacityProviderName, ClusterName, DaemonName, Ec2InstanceId, ServiceRevisionId, TaskId,
};
use gantry_decide::scaling::lifecycle::MachineState;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The settings of a provider of Managed Instances. It belongs to one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedInstancesProvider {
    pub cluster: ClusterName,
    /// Shown, and asked of nobody: the instance provider has the operator's rights.
    pub infrastructure_role: String,
    pub instance_profile: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    /// None where the user left the choice to ECS.
    pub requirements: Option<Requirements>,
    /// GiB, as given.
    pub storage: Option<u32>,
    pub detailed_monitoring: Option<bool>,
    /// Seconds for which a machine without tasks is kept: for ever below 0, ECS's choice where none are given.
    pub scale_in_after: Option<i32>,
    pub repairs: bool,
    pub propagates_tags: bool,
    /// Its machines may be taken away at any time: whoever makes them is told.
    #[serde(default)]
    pub spot: bool,
    /// When a machine could not be made last, and why; none once one was.
    pub failure: Option<(Timestamp, String)>,
}

/// A machine of such a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedInstance {
    pub id: Ec2InstanceId,
    pub cluster: ClusterName,
    pub provider: CapacityProviderName,
    pub machine: MachineState,
    pub instance_type: String,
    pub zone: String,
    pub subnet: Option<String>,
    pub launched_at: Timestamp,
    /// When its machine ran first.
    pub running_at: Option<Timestamp>,
    /// Since when it has had no task.
    pub idle_since: Option<Timestamp>,
    /// What the instance provider said of a machine that failed.
    pub failure: Option<String>,
    /// The daemons that it joined with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub daemons: BTreeMap<DaemonName, Slot>,
}

/// A daemon's place on an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub revision: ServiceRevisionId,
    /// Without it the instance is of no use.
    pub critical: bool,
    pub task: Option<TaskId>,
    pub state: SlotState,
}

impl Record for ManagedInstance {
    const KIND: &'static str = "ecs/managed-instance";
    const VERSION: u32 = 1;
    type Key = Ec2InstanceId;

    fn key(&self) -> Ec2InstanceId {
        self.id
    }

    fn path(key: &Ec2InstanceId) -> String {
        key.to_string()
    }
}
