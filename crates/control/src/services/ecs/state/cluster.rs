//! Clusters.

use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{CapacityProviderName, ClusterName, Scope};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tag list as stored: sorted by key, each key once.
pub type Tags = BTreeMap<String, String>;

/// The hidden cluster whose instances are the Fargate pool. No user can name it in a request that lists or
/// describes clusters.
pub const FARGATE_POOL: &str = "gantry-fargate-pool";

/// Where a cluster is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ClusterStatus {
    Active,
    /// Deleted; still described for a while.
    Inactive,
}

/// One entry of a capacity provider strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyItem {
    pub capacity_provider: CapacityProviderName,
    pub weight: u32,
    pub base: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    pub name: ClusterName,
    pub status: ClusterStatus,
    pub created_at: Timestamp,
    pub settings: BTreeMap<String, String>,
    pub capacity_providers: Vec<CapacityProviderName>,
    pub default_strategy: Vec<StrategyItem>,
    pub tags: Tags,
    pub deleted_at: Option<Timestamp>,
    /// `configuration` of the API, kept as given: it changes nothing here until ECS Exec reads it.
    pub configuration: Option<serde_json::Value>,
    /// `serviceConnectDefaults.namespace`.
    pub service_connect_namespace: Option<String>,
}

impl Cluster {
    pub fn new(name: ClusterName, now: Timestamp) -> Cluster {
        Cluster {
            name,
            status: ClusterStatus::Active,
            created_at: now,
            settings: BTreeMap::new(),
            capacity_providers: Vec::new(),
            default_strategy: Vec::new(),
            tags: Tags::new(),
            deleted_at: None,
            configuration: None,
            service_connect_namespace: None,
        }
    }

    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::Cluster(self.name.clone()))
    }

    pub fn is_active(&self) -> bool {
        self.status == ClusterStatus::Active
    }

    pub fn is_fargate_pool(&self) -> bool {
        self.name.as_str() == FARGATE_POOL
    }
}

impl Record for Cluster {
    const KIND: &'static str = "ecs/cluster";
    const VERSION: u32 = 1;
    type Key = ClusterName;

    fn key(&self) -> ClusterName {
        self.name.clone()
    }

    fn path(key: &ClusterName) -> String {
        key.to_string()
    }
}
