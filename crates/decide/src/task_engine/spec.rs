//! What the engine knows of a task before it runs: only what it decides by.

use crate::task::{ContainerCondition, NetworkMode, TransportProtocol};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A task's ARN, opaque to the agent: the control plane chose it and gets it back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskArn(pub String);

impl fmt::Display for TaskArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task as the engine sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub arn: TaskArn,
    pub network_mode: NetworkMode,
    /// Whether a container of the agent's own holds namespaces that the others share: it is made and taken away with
    /// the network.
    #[serde(default)]
    pub pause: bool,
    /// Whether the task waits for free resources on this host. Tasks of launch type FARGATE do not: their capacity
    /// was booked by who placed them.
    pub waits_for_resources: bool,
    /// CPU units (1024 = one core): the task's own, or the sum of its containers'.
    pub cpu: u32,
    /// MiB: the task's own, or the sum over containers of the reservation, else the limit.
    pub memory: u32,
    /// Fixed host ports. Empty for `awsvpc`, whose ports are the task's own.
    pub host_ports: Vec<HostPort>,
    pub containers: Vec<ContainerSpec>,
}

/// A port of the host that a task claims for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub protocol: TransportProtocol,
    pub port: u16,
}

/// A container as the engine sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Unique in the task.
    pub name: String,
    /// When an essential container ends, so does the task.
    pub essential: bool,
    pub depends_on: Vec<Dependency>,
    /// Containers whose volumes it has too. What those begin with is in their images, which have to be ready first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// How long others may wait for this container to satisfy their condition, from its start.
    pub start_timeout: Option<Duration>,
    /// From SIGTERM to SIGKILL. Absent: the agent's default.
    pub stop_timeout: Option<Duration>,
    /// Absent: a container that ends has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
}

/// When a container that ended by itself is started again, its task none the wiser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Exit codes after which the container has ended for good.
    pub ignored_exit_codes: Vec<i32>,
    /// How long the container must have run before it is started again. Absent: ECS's 300 s.
    pub attempt_period: Option<Duration>,
}

/// ECS documents 300 s where a policy names no `restartAttemptPeriod`.
const ATTEMPT_PERIOD: Duration = Duration::from_secs(300);

impl RestartPolicy {
    /// Whether a container that ended with this code after running for so long is started again.
    pub fn applies(&self, code: i32, ran_for: Duration) -> bool {
        ran_for >= self.attempt_period.unwrap_or(ATTEMPT_PERIOD) && !self.ignored_exit_codes.contains(&code)
    }
}

/// A container waits for another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    pub container: String,
    pub condition: ContainerCondition,
}

/// A port of a container, reachable on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkBinding {
    pub bind_ip: String,
    pub container_port: u16,
    pub host_port: u16,
    pub protocol: TransportProtocol,
    /// Ports that follow these, as a range is mapped.
    #[serde(default)]
    pub more: u16,
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $variant:ident,)*) => {
        /// The names of errors that ECS users know from `reason` and `stoppedReason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum FailureKind { $($(#[$doc])* $variant,)* }

        impl FailureKind {
            /// As it stands before the colon.
            pub fn as_str(self) -> &'static str {
                match self { $(FailureKind::$variant => stringify!($variant),)* }
            }
        }
    };
}

failure_kinds! {
    CannotCreateContainerError,
    CannotCreateVolumeError,
    CannotPullContainerError,
    CannotPullContainerAuthError,
    CannotPullImageManifestError,
    CannotStartContainerError,
    CannotStopContainerError,
    ContainerNetworkingError,
    ContainerVanishedError,
    /// The runtime did not answer in time. The name is Docker's whatever the runtime: users match on it.
    DockerTimeoutError,
    HostConfigError,
    InvalidVolumeError,
    OutOfMemoryError,
    ResourceInitializationError,
    TaskDependencyError,
    TaskStateError,
    TaskStoppedBeforePullBeginError,
    /// A payload's task that could not be understood. The stock agent misspells it on the wire, and so do we.
    UnrecogniedTaskError,
}

/// Why a task or a container failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    pub text: String,
}

/// ECS's limit for `reason`, in characters.
const REASON_MAX: usize = 1024;

impl Failure {
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into() }
    }

    /// `Name: text`, cut to what ECS accepts.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.kind.as_str(), self.text).chars().take(REASON_MAX).collect()
    }
}
