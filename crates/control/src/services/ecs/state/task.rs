//! Tasks: what was asked for, where it runs, and what its agent reported.

use super::{ContainerInstanceKey, DAEMON_GROUP, EffectiveDefinition, ServiceKey, StartedBy, Tags};
use crate::services::ecs::balanced::ServiceLoadBalancer;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{
    AttachmentId, CapacityProviderName, ClusterName, ContainerId, ContainerName, DaemonName, DeploymentId,
    EniId, Scope, TaskDefinitionId, TaskId, VolumeId,
};
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus, LastStatus, StopCode};
use gantry_decide::task::launch_volume::VolumeConfiguration;
use gantry_decide::task::overrides::TaskOverride;
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    pub cluster: ClusterName,
    pub id: TaskId,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.id)
    }
}

impl TaskKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::Task(self.cluster.clone(), self.id))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LaunchType {
    Ec2,
    Fargate,
    External,
    /// Of tasks of capacity providers of Managed Instances: nobody asks for it by name.
    ManagedInstances,
}

impl LaunchType {
    pub fn as_str(self) -> &'static str {
        match self {
            LaunchType::Ec2 => "EC2",
            LaunchType::Fargate => "FARGATE",
            LaunchType::External => "EXTERNAL",
            LaunchType::ManagedInstances => "MANAGED_INSTANCES",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PropagateTags {
    TaskDefinition,
    Service,
    #[default]
    None,
}

/// `awsvpcConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfiguration {
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub assign_public_ip: bool,
}

/// A placement constraint as given; parsed when it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlacementConstraint {
    DistinctInstance,
    MemberOf(String),
}

/// A placement strategy as given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlacementStrategy {
    Random,
    Spread(String),
    Binpack(String),
}

/// A published port, as the agent reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    pub bind_ip: String,
    pub container_port: u16,
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Ports that follow these, as a range is mapped.
    #[serde(default)]
    pub more: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Container {
    pub id: ContainerId,
    pub name: ContainerName,
    pub image: String,
    pub last_status: ContainerStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// What its deployment found its image's tag to stand for: that is what is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_bindings: Vec<NetworkBinding>,
    pub health_status: HealthStatus,
    /// The instance's GPUs that are this container's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_ids: Vec<String>,
}

/// The network interface of an awsvpc task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eni {
    pub attachment: AttachmentId,
    pub id: EniId,
    pub subnet: String,
    pub security_groups: Vec<String>,
    pub mac: String,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
    /// Bits of the subnet's prefix.
    pub prefix_length: u8,
    /// Of a subnet with an IPv6 block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<EniIpv6>,
    pub private_dns_name: String,
    /// False once the task is past DEPROVISIONING and the address is free again.
    pub attached: bool,
}

/// An interface's second address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EniIpv6 {
    pub address: Ipv6Addr,
    /// Bits of the subnet's prefix.
    pub prefix_length: u8,
}

impl Eni {
    /// All that it is spoken to by.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let second = self.ipv6.map(|ipv6| IpAddr::from(ipv6.address));
        [IpAddr::from(self.address)].into_iter().chain(second)
    }
}

/// What most tasks do not have is not stored: a record is written and read thousands of times a second.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The managed EBS volume of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskVolume {
    pub attachment: AttachmentId,
    pub id: VolumeId,
    pub configuration: VolumeConfiguration,
}

/// What a task that has no instance yet still has to be placed by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Present exactly for awsvpc.
    pub network: Option<NetworkConfiguration>,
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub cluster: ClusterName,
    pub id: TaskId,
    pub definition_id: TaskDefinitionId,
    #[serde(
        default = "EffectiveDefinition::unresolved",
        skip_serializing_if = "EffectiveDefinition::is_registered"
    )]
    pub definition: EffectiveDefinition,
    #[serde(default, skip_serializing_if = "is_default")]
    pub overrides: TaskOverride,
    pub last_status: LastStatus,
    pub desired_status: DesiredStatus,
    pub containers: Vec<Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eni: Option<Eni>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Box<TaskVolume>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<ContainerInstanceKey>,
    /// The target groups that it belongs to while it runs, as its deployment had them when it was launched. None without
    /// any, and in tasks of an older Gantry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balanced: Option<Arc<[ServiceLoadBalancer]>>,
    /// Present while the task waits in PROVISIONING for an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Box<Waiting>>,
    pub launch_type: LaunchType,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_provider: Option<CapacityProviderName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_by: Option<StartedBy>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Tags,
    #[serde(default, skip_serializing_if = "is_default")]
    pub enable_execute_command: bool,
    /// Whether an agent was ever told of it. One that was not can stop without an agent's word.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sent: bool,
    /// Whether its service has taken note of its end, or that it ends by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub accounted: bool,
    /// Until then its service does not stop it to shrink or to deploy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected_until: Option<Timestamp>,
    /// Grows by one with each change that an event would tell.
    pub version: u64,
    pub created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connectivity_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<StopCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
}

impl Task {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        self.key().arn(scope)
    }

    /// Not yet STOPPED: it holds resources, or will.
    pub fn is_live(&self) -> bool {
        !self.last_status.is_stopped()
    }

    /// Whether it shall have an instance as soon as one has room.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some() && self.desired_status == DesiredStatus::Running && self.is_live()
    }

    /// Whether scale-in and deployments have to spare it.
    pub fn is_protected(&self, now: Timestamp) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// Whether it ends, or has ended, because of what it is, and nobody wanted that. A container may have ended before its
    /// agent could say that it ran.
    pub fn ends_by_itself(&self) -> bool {
        self.desired_status == DesiredStatus::Stopped
            && matches!(
                self.stop_code,
                Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited)
            )
    }

    /// Whether its service still has to do with it.
    pub fn is_in_books(&self) -> bool {
        self.is_live() || !self.accounted
    }

    /// The service it belongs to: its group says so, and only services may set such a group.
    pub fn service_key(&self) -> Option<ServiceKey> {
        let name = self.group.strip_prefix("service:")?.parse().ok()?;
        Some(ServiceKey { cluster: self.cluster.clone(), name })
    }

    /// The deployment of its service that started it.
    pub fn deployment(&self) -> Option<DeploymentId> {
        match self.started_by {
            Some(StartedBy::Deployment(id)) => Some(id),
            Some(StartedBy::Named(_)) | None => None,
        }
    }

    /// The managed daemon that it belongs to: only those may set such a group.
    pub fn daemon_name(&self) -> Option<DaemonName> {
        self.group.strip_prefix(DAEMON_GROUP)?.parse().ok()
    }

    pub fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.name.as_str() == name)
    }
}

impl Record for Task {
    const KIND: &'static str = "ecs/task";
    /// Version 1 held every task's definition, version 2 `null` where it is the registered one; now what says
    /// no more than its absence is left out.
    const VERSION: u32 = 3;
    type Key = TaskKey;

    fn key(&self) -> TaskKey {
        TaskKey { cluster: self.cluster.clone(), id: self.id }
    }

    fn path(key: &TaskKey) -> String {
        format!("{}/{}", key.cluster, key.id)
    }

    fn upgrade(from: u32, value: Value) -> Result<Task, LoadError> {
        match from {
            1 | 2 => {
                serde_json::from_value(value).map_err(|source| LoadError::Json { kind: Task::KIND, source })
            }
            _ => Err(LoadError::NoUpgrade { kind: Task::KIND, found: from, known: Task::VERSION }),
        }
    }
}
