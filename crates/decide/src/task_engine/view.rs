//! What the engine knows of a task, for those who only want to tell it: metadata endpoints, telemetry.

use super::message::{Exit, PullTimes};
use super::spec::{ContainerSpec, NetworkBinding};
use super::task::{Container, Phase, Task};
use crate::lifecycle::{DesiredStatus, HealthStatus};
use crate::time::Timestamp;

/// How far the agent is with a container: finer than what the control plane is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnownStatus {
    None,
    Pulled,
    Created,
    Running,
    Stopped,
}

impl KnownStatus {
    /// As the metadata endpoints spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            KnownStatus::None => "NONE",
            KnownStatus::Pulled => "PULLED",
            KnownStatus::Created => "CREATED",
            KnownStatus::Running => "RUNNING",
            KnownStatus::Stopped => "STOPPED",
        }
    }
}

/// One container of a task.
#[derive(Clone, Copy, Debug)]
pub struct ContainerView<'a> {
    pub spec: &'a ContainerSpec,
    pub desired: DesiredStatus,
    pub known: KnownStatus,
    pub health: HealthStatus,
    pub image_digest: Option<&'a str>,
    pub runtime_id: Option<&'a str>,
    pub bindings: &'a [NetworkBinding],
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it ran again the last time.
    pub restarted_at: Option<Timestamp>,
    /// How often its restart policy has applied.
    pub restarts: u32,
    pub exit: Option<Exit>,
}

impl Container {
    fn known(&self) -> KnownStatus {
        match self.phase {
            Phase::Waiting | Phase::Preparing => KnownStatus::None,
            Phase::Ready => KnownStatus::Pulled,
            Phase::Launching => KnownStatus::Created,
            Phase::Running | Phase::Restarting => KnownStatus::Running,
            Phase::Stopped => KnownStatus::Stopped,
        }
    }
}

impl Task {
    /// In the order of the payload.
    pub fn containers(&self) -> impl Iterator<Item = ContainerView<'_>> {
        self.containers.iter().map(|container| ContainerView {
            spec: &container.spec,
            desired: if container.phase == Phase::Stopped { DesiredStatus::Stopped } else { self.desired },
            known: container.known(),
            health: container.health,
            image_digest: container.image_digest.as_deref(),
            runtime_id: container.runtime_id.as_deref(),
            bindings: &container.bindings,
            started_at: container.started_at,
            restarted_at: container.restarts.last,
            restarts: container.restarts.count,
            exit: container.exit,
        })
    }

    pub fn container(&self, name: &str) -> Option<ContainerView<'_>> {
        self.containers().find(|container| container.spec.name == name)
    }

    /// That of the container which is least far.
    pub fn known(&self) -> KnownStatus {
        self.containers.iter().map(Container::known).min().unwrap_or(KnownStatus::Stopped)
    }

    pub fn pull_times(&self) -> Option<PullTimes> {
        self.pull
    }

    /// When the first essential container ended.
    pub fn execution_stopped_at(&self) -> Option<Timestamp> {
        self.execution_stopped_at
    }
}
