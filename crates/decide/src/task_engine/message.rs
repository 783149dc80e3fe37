//! What the engine hears and what it asks for.

use super::spec::{Failure, NetworkBinding, TaskArn, TaskSpec};
use super::task::Task;
use crate::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A payload's task. Repetition changes nothing but the desired status, and that only forward.
    TaskAccepted { spec: TaskSpec, desired: DesiredStatus },
    /// A payload's task that makes no sense: it is reported STOPPED with the reason.
    TaskRejected { task: TaskArn, failure: Failure },
    /// A confirmed stop of a known task. Unknown tasks are ignored.
    StopRequested { task: TaskArn },
    /// Answers [`Action::PrepareImage`]. `pull` is absent when the image was there.
    ImageReady { task: TaskArn, container: String, digest: Option<String>, pull: Option<PullTimes> },
    /// Answers [`Action::PrepareImage`].
    ImageFailed { task: TaskArn, container: String, failure: Failure, pull: Option<PullTimes> },
    /// Answers [`Action::SetUpNetwork`]; `Err` leaves nothing behind that needs tearing down.
    NetworkSetUp { task: TaskArn, result: Result<(), Failure> },
    /// Answers [`Action::TearDownNetwork`], also when that failed: a leftover is swept at the next start.
    NetworkTornDown { task: TaskArn },
    /// Answers [`Action::Launch`] and [`Action::Restart`].
    ContainerStarted { task: TaskArn, container: String, runtime_id: String, bindings: Vec<NetworkBinding> },
    /// Answers [`Action::Launch`] and [`Action::Restart`]: no process runs.
    ContainerFailed { task: TaskArn, container: String, failure: Failure },
    /// A started container's process ended.
    ContainerExited { task: TaskArn, container: String, exit: Exit },
    /// A container's health check changed its mind.
    HealthChanged { task: TaskArn, container: String, health: HealthStatus },
    /// Answers [`Action::Submit`]: the control plane has it.
    Submitted { task: TaskArn, id: u64 },
    /// Answers [`Action::Submit`].
    SubmitFailed { task: TaskArn, id: u64, failure: SubmitFailure },
    /// A saved task after a restart of the agent, with what the runtime knows of its containers. Containers that are
    /// not named do not exist. Feed them in the order of [`Task::accepted_at`], before any other event.
    Recovered { task: Box<Task>, containers: BTreeMap<String, Found> },
    /// The time of [`Action::WakeAt`] has come. Harmless at any other time.
    Tick,
}

/// When an image was pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullTimes {
    pub started_at: Timestamp,
    pub stopped_at: Timestamp,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Absent when nobody saw it end.
    pub code: Option<i32>,
    /// The kernel killed it for its memory use.
    pub out_of_memory: bool,
    pub at: Timestamp,
}

/// What the runtime knows of a container after a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Running { runtime_id: String, bindings: Vec<NetworkBinding> },
    Exited { runtime_id: String, exit: Exit },
}

/// What became of a submission that was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitFailure {
    /// The control plane will never take it (`InvalidParameterException`): it is dropped.
    Refused,
    /// Anything else: tried again, without end.
    Later,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Save [`super::TaskEngine::task`] under its ARN. A payload is acknowledged once its tasks are saved.
    Persist { task: TaskArn },
    /// Make a container's image ready, pulling it where the pull behaviour says so.
    PrepareImage { task: TaskArn, container: String },
    /// Make the task's network.
    SetUpNetwork { task: TaskArn },
    /// Create and start a container. Image and network are ready.
    Launch { task: TaskArn, container: String },
    /// Start a container again that has ended, with what it wrote and the network that it had.
    Restart { task: TaskArn, container: String },
    /// Signal a container's process. No answer but its exit.
    Signal { task: TaskArn, container: String, signal: Signal },
    /// Take the task's network away. No process of the task runs any more.
    TearDownNetwork { task: TaskArn },
    /// Remove what a container left behind (file system, logs). No answer.
    RemoveContainer { task: TaskArn, container: String },
    /// Tell the control plane.
    Submit(Submission),
    /// Remove the task's saved state and all that is kept beside it.
    Forget { task: TaskArn },
    /// Feed [`Event::Tick`] at this time. Replaces the earlier one.
    WakeAt(Timestamp),
}

/// What to send to a container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, or the image's own stop signal.
    Stop,
    /// SIGKILL.
    Kill,
}

/// One `SubmitTaskStateChange`. At most one per task is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    pub task: TaskArn,
    /// Counts a task's submissions.
    pub id: u64,
    /// PENDING, RUNNING or STOPPED, the task's.
    pub status: ContainerStatus,
    /// May be empty.
    pub reason: String,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    /// When the first essential container ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// What changed since the last submission, in the order in which it changed.
    pub containers: Vec<ContainerChange>,
}

/// A container's part of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerChange {
    pub name: String,
    pub status: ContainerStatus,
    pub runtime_id: Option<String>,
    pub image_digest: Option<String>,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
    pub bindings: Vec<NetworkBinding>,
}
