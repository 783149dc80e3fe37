//! Targets: one record each, so that a group of thousands is not written anew for each that comes and goes.

use gantry_decide::ids::{TargetGroupId, TaskId};
use gantry_decide::routing::TargetHealth;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What a target is registered as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetId {
    /// `i-…`, a container instance's.
    Instance(String),
    Ip(IpAddr),
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetId::Instance(id) => f.write_str(id),
            TargetId::Ip(address) => write!(f, "{address}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TargetKey {
    pub group: TargetGroupId,
    pub id: TargetId,
    pub port: u16,
}

impl TargetKey {
    /// The least of all keys of a group, for ranges over them.
    pub fn least(group: TargetGroupId) -> TargetKey {
        TargetKey { group, id: TargetId::Instance(String::new()), port: 0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub key: TargetKey,
    /// The task that it stands for, if ECS registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// As registered: a zone's name or `all`. None where it follows from the target.
    pub zone: Option<String>,
    pub registered_at: Timestamp,
    /// When it was deregistered: it is draining, and its record goes when that is over.
    pub deregistered_at: Option<Timestamp>,
    /// What a balancer last said of it, and when. None before the first word.
    pub health: Option<(TargetHealth, Timestamp)>,
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.group, self.id, self.port)
    }
}

impl Record for Target {
    const KIND: &'static str = "elbv2/target";
    const VERSION: u32 = 1;
    type Key = TargetKey;

    fn key(&self) -> TargetKey {
        self.key.clone()
    }

    fn path(key: &TargetKey) -> String {
        key.to_string()
    }
}
