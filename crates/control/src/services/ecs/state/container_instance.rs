//! Container instances: the agents' machines, whether they joined a user's cluster or the Fargate pool.

use super::{FARGATE_POOL, Tags};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{ClusterName, ContainerInstanceId, Scope};
use gantry_decide::placement::ZONE_ATTRIBUTE;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerInstanceKey {
    pub cluster: ClusterName,
    pub id: ContainerInstanceId,
}

impl fmt::Display for ContainerInstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.id)
    }
}

impl ContainerInstanceKey {
    /// The same, ordered by the id first.
    pub fn by_id(&self) -> (ContainerInstanceId, ClusterName) {
        (self.id, self.cluster.clone())
    }

    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::ContainerInstance(self.cluster.clone(), self.id))
    }

    /// Whether the instance belongs to the Fargate pool rather than to a cluster that users see.
    pub fn in_fargate_pool(&self) -> bool {
        self.cluster.as_str() == FARGATE_POOL
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerInstanceStatus {
    /// Its managed daemons start, before any other task.
    Registering,
    Active,
    Draining,
    /// Deregistered; its agent is refused until it registers anew.
    Inactive,
}

/// What the agent offered when it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceResources {
    /// CPU units: 1024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    pub reserved_ports_tcp: BTreeSet<u16>,
    pub reserved_ports_udp: BTreeSet<u16>,
    /// The ids of its GPUs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gpus: BTreeSet<String>,
}

/// Versions as the agent tells them when it opens its session; registration carries none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentVersion {
    pub version: String,
    pub hash: String,
    pub docker: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerInstance {
    pub cluster: ClusterName,
    pub id: ContainerInstanceId,
    pub status: ContainerInstanceStatus,
    /// Grows by one with each change that an event would tell.
    pub version: u64,
    pub registered_at: Timestamp,
    pub registered: InstanceResources,
    /// Capabilities and custom attributes; a capability has no value.
    pub attributes: BTreeMap<String, Option<String>>,
    /// The names in `attributes` that the user set: they survive a re-registration.
    pub custom_attributes: BTreeSet<String>,
    pub tags: Tags,
    pub agent_connected: bool,
    pub disconnected_at: Option<Timestamp>,
    /// When its agent was waited for in vain, and its tasks were given up; none once it is back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Timestamp>,
    pub agent: AgentVersion,
    /// `i-…` of the identity document, or a made-up one of the same form for machines that have none.
    pub ec2_instance_id: Option<String>,
    /// Counts the agent's sessions. Message numbers start at this times [`SEQUENCE_PER_SESSION`], so that they rise
    /// across reconnects and restarts of the server, as agents insist.
    pub sessions: u64,
    pub deregistered_at: Option<Timestamp>,
}

/// How many messages one session of an agent may number: a session lasts 35 minutes at most.
pub const SEQUENCE_PER_SESSION: i64 = 10_000_000;

impl ContainerInstance {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        self.key().arn(scope)
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.as_deref()
    }

    pub fn availability_zone(&self) -> Option<&str> {
        self.attribute(ZONE_ATTRIBUTE)
    }

    /// Whether its tasks are given up: it was deregistered, or its agent waited for in vain.
    pub fn is_gone(&self) -> bool {
        self.status == ContainerInstanceStatus::Inactive || self.lost_at.is_some()
    }

    /// Whether its tasks have to be elsewhere.
    pub fn is_leaving(&self) -> bool {
        self.status == ContainerInstanceStatus::Draining || self.is_gone()
    }

    /// Whether new tasks may be placed here.
    pub fn takes_tasks(&self) -> bool {
        self.status == ContainerInstanceStatus::Active && self.agent_connected
    }
}

impl Record for ContainerInstance {
    const KIND: &'static str = "ecs/container-instance";
    const VERSION: u32 = 1;
    type Key = ContainerInstanceKey;

    fn key(&self) -> ContainerInstanceKey {
        ContainerInstanceKey { cluster: self.cluster.clone(), id: self.id }
    }

    fn path(key: &ContainerInstanceKey) -> String {
        format!("{}/{}", key.cluster, key.id)
    }
}
