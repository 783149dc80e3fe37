//! Services and their deployments.

use super::{StrategyItem, Tags};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{ClusterName, DeploymentId, Scope, ServiceName, TaskDefinitionId};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

use super::{LaunchType, NetworkConfiguration, PlacementConstraint, PlacementStrategy, PropagateTags};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    pub cluster: ClusterName,
    pub name: ServiceName,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.name)
    }
}

impl ServiceKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::Service(self.cluster.clone(), self.name.clone()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceStatus {
    Active,
    Draining,
    Inactive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    InProgress,
    Completed,
    Failed,
}

/// Where new tasks of a deployment go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Compute {
    LaunchType(LaunchType),
    Strategy(Vec<StrategyItem>),
}

/// One attempt to bring the service to a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    pub task_definition: TaskDefinitionId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub compute: Compute,
    pub platform_version: Option<String>,
    pub network: Option<NetworkConfiguration>,
    pub rollout_state: RolloutState,
    pub rollout_state_reason: String,
    /// Consecutive tasks that stopped without ever being healthy.
    pub failed_tasks: u32,
    /// When the last of them was noted.
    #[serde(default)]
    pub failed_at: Option<Timestamp>,
    /// When the next task may be launched, after failures to run or to be placed.
    pub launch_not_before: Option<Timestamp>,
}

/// The circuit breaker, as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    pub enable: bool,
    pub rollback: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceEvent {
    pub id: String,
    pub created_at: Timestamp,
    pub message: String,
}

/// After this time ECS repeats what it told last.
pub const EVENT_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// How many events a service keeps; ECS shows the last 100.
pub const EVENTS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub cluster: ClusterName,
    pub name: ServiceName,
    pub status: ServiceStatus,
    pub desired_count: u32,
    /// The primary first, then those being replaced.
    pub deployments: Vec<Deployment>,
    pub minimum_healthy_percent: u32,
    pub maximum_percent: u32,
    pub circuit_breaker: CircuitBreaker,
    pub placement_constraints: Vec<PlacementConstraint>,
    pub placement_strategy: Vec<PlacementStrategy>,
    pub health_check_grace_period_seconds: u32,
    pub enable_ecs_managed_tags: bool,
    pub propagate_tags: PropagateTags,
    pub enable_execute_command: bool,
    pub availability_zone_rebalancing: bool,
    pub tags: Tags,
    pub created_at: Timestamp,
    pub created_by: String,
    /// Newest last; at most [`EVENTS_MAX`].
    pub events: Vec<ServiceEvent>,
    pub client_token: Option<String>,
    pub inactive_since: Option<Timestamp>,
    /// When it last told that it is steady; absent while it is not.
    #[serde(default)]
    pub steady_at: Option<Timestamp>,
}

impl Service {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        self.key().arn(scope)
    }

    /// The group of its tasks.
    pub fn group(&self) -> String {
        format!("service:{}", self.name)
    }

    /// Tells an event, unless it is the one that was told last, within [`EVENT_AGAIN`].
    pub fn tell(&mut self, id: String, message: String, now: Timestamp) {
        let told = self
            .events
            .last()
            .is_some_and(|last| last.message == message && last.created_at + EVENT_AGAIN > now);
        if !told {
            self.events.push(ServiceEvent { id, created_at: now, message });
            let surplus = self.events.len().saturating_sub(EVENTS_MAX);
            self.events.drain(..surplus);
        }
    }

    /// The deployment that new tasks belong to.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }
}

impl Record for Service {
    const KIND: &'static str = "ecs/service";
    const VERSION: u32 = 1;
    type Key = ServiceKey;

    fn key(&self) -> ServiceKey {
        ServiceKey { cluster: self.cluster.clone(), name: self.name.clone() }
    }

    fn path(key: &ServiceKey) -> String {
        format!("{}/{}", key.cluster, key.name)
    }
}
