//! Managed daemons: their definitions, what they run, and how that is brought to all instances.

use super::Tags;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::deployment::alarms::{DeploymentAlarms, Watch};
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::deployment::task_set::Scale;
use gantry_decide::ids::{
    CapacityProviderName, ClusterName, DaemonName, Family, Scope, ServiceDeploymentId, ServiceRevisionId,
    TaskDefinitionId,
};
use gantry_decide::task::definition::TaskDefinition;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DaemonKey {
    pub cluster: ClusterName,
    pub name: DaemonName,
}

impl fmt::Display for DaemonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.name)
    }
}

impl DaemonKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::Daemon(self.cluster.clone(), self.name.clone()))
    }

    /// The group of its tasks.
    pub fn group(&self) -> String {
        format!("{DAEMON_GROUP}{}", self.name)
    }
}

/// What groups of daemons' tasks begin with.
pub const DAEMON_GROUP: &str = "daemon:";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DaemonTaskDefinitionStatus {
    Active,
    /// Daemons run it still.
    DeleteInProgress,
    Deleted,
}

/// What a daemon may run, as registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonTaskDefinition {
    pub id: TaskDefinitionId,
    pub status: DaemonTaskDefinitionStatus,
    /// As tasks run it: on the host's network.
    pub definition: Arc<TaskDefinition>,
    pub tags: Tags,
    pub registered_at: Timestamp,
    pub registered_by: String,
    pub delete_requested_at: Option<Timestamp>,
}

/// The last revision that a family of them ever had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonFamily {
    pub family: Family,
    pub last_revision: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DaemonStatus {
    Active,
    /// Its instances are being replaced by others without it.
    DeleteInProgress,
}

/// How deployments of a daemon go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonConfiguration {
    /// Of the instances, those that are drained at once.
    pub drain: Scale,
    pub bake_minutes: u32,
    pub alarms: DeploymentAlarms,
}

impl DaemonConfiguration {
    pub fn bake(&self) -> Duration {
        Duration::from_secs(u64::from(self.bake_minutes) * 60)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    pub cluster: ClusterName,
    pub name: DaemonName,
    pub status: DaemonStatus,
    /// What instances join with.
    pub revision: ServiceRevisionId,
    /// What was deployed last with success.
    pub proven: Option<ServiceRevisionId>,
    /// The newest attempt to deploy it, over or not.
    pub deployment: ServiceDeploymentId,
    pub providers: Vec<CapacityProviderName>,
    pub configuration: DaemonConfiguration,
    pub tags: Tags,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DaemonRevisionKey {
    pub daemon: DaemonKey,
    pub id: ServiceRevisionId,
}

/// What a daemon runs, or was to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRevision {
    pub daemon: DaemonKey,
    pub id: ServiceRevisionId,
    pub task_definition: TaskDefinitionId,
    pub providers: Vec<CapacityProviderName>,
    /// Without it an instance is of no use.
    pub critical: bool,
    pub managed_tags: bool,
    pub execute_command: bool,
    pub propagates_tags: bool,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DaemonDeploymentKey {
    pub daemon: DaemonKey,
    pub id: ServiceDeploymentId,
}

/// One attempt to bring a revision to all instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonDeployment {
    pub daemon: DaemonKey,
    pub id: ServiceDeploymentId,
    pub status: ServiceDeploymentStatus,
    pub status_reason: Option<String>,
    pub target: ServiceRevisionId,
    /// What instances had when it began.
    pub source: Option<ServiceRevisionId>,
    pub configuration: DaemonConfiguration,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub stopped_at: Option<Timestamp>,
    /// The way back: what to, and since when.
    pub rollback: Option<(ServiceRevisionId, Timestamp)>,
    /// Tasks of the target that failed.
    pub failures: u32,
    pub alarms: Watch,
    /// Since when all instances have it, and only alarms are waited for.
    pub baking_since: Option<Timestamp>,
}

impl Daemon {
    pub fn is_active(&self) -> bool {
        self.status == DaemonStatus::Active
    }
}

impl DaemonDeployment {
    /// Goes over to `status`, if that is a step of ECS's; says whether it did.
    pub fn become_(&mut self, status: ServiceDeploymentStatus, now: Timestamp) -> bool {
        if !self.status.may_become(status) {
            return false;
        }
        self.status = status;
        if status == ServiceDeploymentStatus::InProgress {
            self.started_at = Some(now);
        }
        if status.is_over() {
            self.finished_at = Some(now);
            self.stopped_at = (status == ServiceDeploymentStatus::Stopped).then_some(now);
        }
        true
    }
}

/// Records of a daemon's own are stored under its path.
macro_rules! records {
    ($($record:ident $kind:literal $key:ty, $of:expr, $path:expr;)*) => {$(
        impl Record for $record {
            const KIND: &'static str = $kind;
            const VERSION: u32 = 1;
            type Key = $key;

            fn key(&self) -> $key {
                let of: fn(&$record) -> $key = $of;
                of(self)
            }

            fn path(key: &$key) -> String {
                let path: fn(&$key) -> String = $path;
                path(key)
            }
        }
    )*};
}

records! {
    DaemonTaskDefinition "ecs/daemon-task-definition" TaskDefinitionId,
        |record| record.id.clone(), |key| format!("{}/{}", key.family, key.revision);
    DaemonFamily "ecs/daemon-family" Family, |record| record.family.clone(), |key| key.to_string();
    Daemon "ecs/daemon" DaemonKey,
        |record| DaemonKey { cluster: record.cluster.clone(), name: record.name.clone() }, |key| key.to_string();
    DaemonRevision "ecs/daemon-revision" DaemonRevisionKey,
        |record| DaemonRevisionKey { daemon: record.daemon.clone(), id: record.id },
        |key| format!("{}/{}", key.daemon, key.id);
    DaemonDeployment "ecs/daemon-deployment" DaemonDeploymentKey,
        |record| DaemonDeploymentKey { daemon: record.daemon.clone(), id: record.id },
        |key| format!("{}/{}", key.daemon, key.id);
}

impl DaemonRevisionKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        let DaemonKey { cluster, name } = self.daemon.clone();
        scope.ecs(EcsResource::DaemonRevision(cluster, name, self.id))
    }
}

impl DaemonDeploymentKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        let DaemonKey { cluster, name } = self.daemon.clone();
        scope.ecs(EcsResource::DaemonDeployment(cluster, name, self.id))
    }
}

/// All of managed daemons in one scope.
#[derive(Clone, Default)]
pub struct Daemons {
    pub definitions: gantry_store::Table<DaemonTaskDefinition>,
    pub families: gantry_store::Table<DaemonFamily>,
    pub daemons: gantry_store::Table<Daemon>,
    pub revisions: gantry_store::Table<DaemonRevision>,
    pub deployments: gantry_store::Table<DaemonDeployment>,
}

impl Daemons {
    pub fn revision(&self, daemon: &DaemonKey, id: ServiceRevisionId) -> Option<&DaemonRevision> {
        self.revisions.get(&DaemonRevisionKey { daemon: daemon.clone(), id }).map(AsRef::as_ref)
    }

    /// The newest attempt to deploy a daemon.
    pub fn current(&self, daemon: &Daemon) -> Option<&DaemonDeployment> {
        let key = DaemonDeploymentKey { daemon: daemon.key(), id: daemon.deployment };
        self.deployments.get(&key).map(AsRef::as_ref)
    }

    /// The active daemons of a capacity provider.
    pub fn of_provider<'a>(&'a self, provider: &'a CapacityProviderName) -> impl Iterator<Item = &'a Daemon> {
        let all = self.daemons.values().map(AsRef::as_ref);
        all.filter(move |daemon: &&Daemon| daemon.is_active() && daemon.providers.contains(provider))
    }

    /// Whether a daemon runs a definition, or may go back to it.
    pub fn uses(&self, definition: &TaskDefinitionId) -> bool {
        let of =
            |daemon: &Daemon, id| self.revision(&daemon.key(), id).map(|revision| &revision.task_definition);
        self.daemons.values().any(|daemon| {
            of(daemon, daemon.revision) == Some(definition)
                || daemon.proven.and_then(|id| of(daemon, id)) == Some(definition)
        })
    }

    /// Forgets a daemon with all that it went through. What only it ran is deleted with it, where that was asked for.
    pub fn remove(&mut self, key: &DaemonKey) {
        self.daemons.remove(key);
        let revisions: Vec<_> =
            self.revisions.iter().filter(|(known, _)| known.daemon == *key).map(|(k, _)| k.clone()).collect();
        for revision in revisions {
            self.revisions.remove(&revision);
        }
        let deployments: Vec<_> = self
            .deployments
            .iter()
            .filter(|(known, _)| known.daemon == *key)
            .map(|(k, _)| k.clone())
            .collect();
        for deployment in deployments {
            self.deployments.remove(&deployment);
        }
        self.settle_definitions();
    }

    /// Definitions that were to go and that nobody runs any more are deleted.
    pub fn settle_definitions(&mut self) {
        let going = |record: &&Arc<DaemonTaskDefinition>| {
            record.status == DaemonTaskDefinitionStatus::DeleteInProgress && !self.uses(&record.id)
        };
        let gone: Vec<TaskDefinitionId> =
            self.definitions.values().filter(going).map(|record| record.id.clone()).collect();
        for id in gone {
            self.definitions.edit(&id, |record| record.status = DaemonTaskDefinitionStatus::Deleted);
        }
    }
}
