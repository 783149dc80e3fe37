//! What services went through: an unchanging record of each revision, and of each attempt to bring one about.

use super::{Compute, Deployment, DeploymentConfiguration, NetworkConfiguration, ServiceKey};
use crate::services::ecs::balanced::ServiceLoadBalancer;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::shift::Shift;
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::ids::{
    ContainerName, DeploymentId, Scope, ServiceDeploymentId, ServiceRevisionId, TaskDefinitionId,
};
use gantry_decide::task::launch_volume::VolumeConfiguration;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How long ECS shows a deployment that is over.
pub const HISTORY: Duration = Duration::from_secs(90 * 24 * 3600);

/// Deployments that a service remembers, the newest: one that deploys every ten minutes sees a day back.
pub const HISTORY_MAX: usize = 150;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceRevisionKey {
    pub service: ServiceKey,
    pub id: ServiceRevisionId,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceDeploymentKey {
    pub service: ServiceKey,
    pub id: ServiceDeploymentId,
}

impl fmt::Display for ServiceDeploymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

impl ServiceRevisionKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        let ServiceKey { cluster, name } = self.service.clone();
        scope.ecs(EcsResource::ServiceRevision(cluster, name, self.id))
    }
}

impl ServiceDeploymentKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        let ServiceKey { cluster, name } = self.service.clone();
        scope.ecs(EcsResource::ServiceDeployment(cluster, name, self.id))
    }
}

/// What a service runs, or was to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRevision {
    pub service: ServiceKey,
    pub id: ServiceRevisionId,
    pub created_at: Timestamp,
    pub task_definition: TaskDefinitionId,
    pub compute: Compute,
    pub platform_version: Option<String>,
    pub network: Option<NetworkConfiguration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeConfiguration>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<ServiceLoadBalancer>,
    /// See [`Deployment::alternate`].
    #[serde(default)]
    pub alternate: bool,
    /// What the images' tags stood for, by container. The only part that comes later.
    #[serde(default)]
    pub image_digests: BTreeMap<ContainerName, String>,
}

impl ServiceRevision {
    pub fn of(service: &ServiceKey, deployment: &Deployment) -> ServiceRevision {
        ServiceRevision {
            service: service.clone(),
            id: deployment.revision,
            created_at: deployment.created_at,
            task_definition: deployment.task_definition.clone(),
            compute: deployment.compute.clone(),
            platform_version: deployment.platform_version.clone(),
            network: deployment.network.clone(),
            volume: deployment.volume.clone(),
            load_balancers: deployment.load_balancers.clone().unwrap_or_default(),
            alternate: deployment.alternate,
            image_digests: deployment.image_digests.clone().unwrap_or_default(),
        }
    }
}

impl Record for ServiceRevision {
    const KIND: &'static str = "ecs/service-revision";
    const VERSION: u32 = 1;
    type Key = ServiceRevisionKey;

    fn key(&self) -> ServiceRevisionKey {
        ServiceRevisionKey { service: self.service.clone(), id: self.id }
    }

    fn path(key: &ServiceRevisionKey) -> String {
        format!("{}/{}/{}", key.service.cluster, key.service.name, key.id)
    }
}

/// A revision's tasks at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionTasks {
    pub revision: ServiceRevisionId,
    pub requested: u32,
    pub running: u32,
    pub pending: u32,
}

/// The way back to a revision that worked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    pub revision: ServiceRevisionId,
    pub reason: String,
    pub started_at: Timestamp,
}

/// One attempt to deploy a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceDeployment {
    pub service: ServiceKey,
    pub id: ServiceDeploymentId,
    pub status: ServiceDeploymentStatus,
    pub status_reason: Option<String>,
    /// The service's deployment that carries it out; it is gone from the service once its tasks are.
    pub deployment: DeploymentId,
    pub target: ServiceRevisionId,
    /// The revisions that had tasks when it began, with those they had; at its end, with those they have left.
    pub sources: Vec<RevisionTasks>,
    /// The target's tasks at its end.
    pub target_tasks: Option<RevisionTasks>,
    /// As they were when it began.
    pub configuration: DeploymentConfiguration,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    pub rollback: Option<Rollback>,
    /// Failures that the circuit breaker counted, and its threshold, when it tripped or the attempt ended.
    pub failures: Option<(u32, u32)>,
    /// The circuit breaker ended it.
    pub tripped: bool,
    #[serde(default)]
    pub alarms: Watch,
    /// Since when all is there, and only the alarms are waited for, of a strategy that shifts no traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baking_since: Option<Timestamp>,
    /// How far traffic has gone over, of a strategy that shifts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
}

impl ServiceDeployment {
    /// Goes over to `status`, if that is a step of ECS's; says whether it did.
    pub fn become_(&mut self, status: ServiceDeploymentStatus, now: Timestamp) -> bool {
        if !self.status.may_become(status) {
            return false;
        }
        self.status = status;
        self.updated_at = now;
        match status {
            ServiceDeploymentStatus::InProgress => self.started_at = Some(now),
            ServiceDeploymentStatus::Stopped => {
                self.stopped_at = Some(now);
                self.finished_at = Some(now);
            }
            status if status.is_over() => self.finished_at = Some(now),
            _ => {}
        }
        true
    }
}

impl Record for ServiceDeployment {
    const KIND: &'static str = "ecs/service-deployment";
    const VERSION: u32 = 1;
    type Key = ServiceDeploymentKey;

    fn key(&self) -> ServiceDeploymentKey {
        ServiceDeploymentKey { service: self.service.clone(), id: self.id }
    }

    fn path(key: &ServiceDeploymentKey) -> String {
        format!("{}/{}/{}", key.service.cluster, key.service.name, key.id)
    }
}
