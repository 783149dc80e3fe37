//! One task: what it is and what happened to it.

use super::dependencies::{Readiness, has_cycle, readiness};
use super::engine::EngineConfig;
use super::message::{Exit, Found, PullTimes};
use super::report::Reports;
use super::spec::{ContainerSpec, Failure, FailureKind, NetworkBinding, TaskArn, TaskSpec};
use crate::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus};
use crate::mutant;
use crate::task::NetworkMode;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a stopped task is kept for a control plane that does not take its STOPPED.
const KEEP_UNREPORTED: Duration = Duration::from_secs(72 * 3600);

/// Where a task is with the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskPhase {
    /// Waits for free resources.
    Queued,
    /// Holds resources.
    Active,
    /// Holds nothing.
    Stopped,
}

/// A task and all that is known of it; what is saved and recovered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub spec: TaskSpec,
    pub desired: DesiredStatus,
    pub accepted_at: Timestamp,
    pub phase: TaskPhase,
    /// The first error that keeps the whole task from running.
    pub failure: Option<Failure>,
    pub stopped_at: Option<Timestamp>,
    pub(super) network: Network,
    pub(super) containers: Vec<Container>,
    pub(super) pull: Option<PullTimes>,
    pub(super) execution_stopped_at: Option<Timestamp>,
    pub(super) reports: Reports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Network {
    Absent,
    Wanted,
    SettingUp,
    Ready,
    TearingDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Phase {
    Waiting,
    Preparing,
    Ready,
    Launching,
    Running,
    /// Ended, and about to run again; counts as running for everyone else.
    Restarting,
    Stopped,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) phase: Phase,
    pub(super) health: HealthStatus,
    pub(super) image_digest: Option<String>,
    pub(super) runtime_id: Option<String>,
    pub(super) bindings: Vec<NetworkBinding>,
    pub(super) started_at: Option<Timestamp>,
    #[serde(default)]
    pub(super) restarts: Restarts,
    pub(super) exit: Option<Exit>,
    /// The first error.
    pub(super) failure: Option<Failure>,
    /// There may be something of it on the host.
    pub(super) launched: bool,
    pub(super) stopping: Option<Stopping>,
}

/// How often a container's restart policy has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restarts {
    pub(super) count: u32,
    /// When it ran again the last time.
    pub(super) last: Option<Timestamp>,
    /// The restart has yet to be asked for.
    pub(super) due: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stopping {
    pub(super) kill_at: Timestamp,
    pub(super) kills: u8,
}

impl Container {
    fn new(spec: ContainerSpec) -> Container {
        Container {
            spec,
            phase: Phase::Waiting,
            health: HealthStatus::Unknown,
            image_digest: None,
            runtime_id: None,
            bindings: Vec::new(),
            started_at: None,
            restarts: Restarts::default(),
            exit: None,
            failure: None,
            launched: false,
            stopping: None,
        }
    }
}

impl Task {
    pub(super) fn new(spec: TaskSpec, desired: DesiredStatus, now: Timestamp) -> Task {
        let containers: Vec<_> = spec.containers.iter().cloned().map(Container::new).collect();
        let mut task = Task {
            network: if spec.network_mode == NetworkMode::Host && !spec.pause {
                Network::Absent
            } else {
                Network::Wanted
            },
            phase: if spec.waits_for_resources && desired == DesiredStatus::Running {
                TaskPhase::Queued
            } else {
                TaskPhase::Active
            },
            spec,
            desired,
            accepted_at: now,
            failure: None,
            stopped_at: None,
            containers,
            pull: None,
            execution_stopped_at: None,
            reports: Reports::default(),
        };
        if task.containers.is_empty() {
            task.fail(FailureKind::TaskStateError, "Agent could not progress task's state to stopped");
        } else if (1..task.containers.len())
            .any(|index| task.index(&task.containers[index].spec.name) != Some(index))
        {
            task.fail(FailureKind::TaskStateError, "two containers have the same name");
        } else if has_cycle(&task.containers) {
            task.fail(FailureKind::TaskDependencyError, "the containers' dependencies form a circle");
        }
        task
    }

    /// A task that cannot be understood: nothing but its ARN and its end.
    pub(super) fn rejected(arn: TaskArn, failure: Failure, now: Timestamp) -> Task {
        let spec = TaskSpec {
            arn,
            network_mode: NetworkMode::Host,
            pause: false,
            waits_for_resources: false,
            cpu: 0,
            memory: 0,
            host_ports: Vec::new(),
            containers: Vec::new(),
        };
        let mut task = Task::new(spec, DesiredStatus::Stopped, now);
        task.failure = Some(failure);
        task
    }

    fn fail(&mut self, kind: FailureKind, text: &str) {
        self.failure.get_or_insert_with(|| Failure::new(kind, text));
        self.desired = DesiredStatus::Stopped;
    }

    /// Moves the desired status to STOPPED. Whether that is news.
    pub(super) fn stop(&mut self) -> bool {
        std::mem::replace(&mut self.desired, DesiredStatus::Stopped) == DesiredStatus::Running
    }

    pub(super) fn index(&self, container: &str) -> Option<usize> {
        self.containers.iter().position(|known| known.spec.name == container)
    }

    pub(super) fn image_ready(
        &mut self,
        index: usize,
        digest: Option<String>,
        pull: Option<PullTimes>,
        now: Timestamp,
    ) -> bool {
        self.add_pull(pull);
        let container = &mut self.containers[index];
        if container.phase != Phase::Preparing {
            return false;
        }
        container.phase = Phase::Ready;
        if digest.is_some() && container.image_digest.is_none() {
            container.image_digest = digest;
            self.note(index, ContainerStatus::Pending, now);
        }
        true
    }

    pub(super) fn image_failed(
        &mut self,
        index: usize,
        failure: Failure,
        pull: Option<PullTimes>,
        now: Timestamp,
    ) -> bool {
        self.add_pull(pull);
        if self.containers[index].phase != Phase::Preparing {
            return false;
        }
        self.end(index, Some(failure), None, now);
        true
    }

    fn add_pull(&mut self, pull: Option<PullTimes>) {
        self.pull = match (self.pull, pull) {
            (Some(a), Some(b)) => Some(PullTimes {
                started_at: a.started_at.min(b.started_at),
                stopped_at: a.stopped_at.max(b.stopped_at),
            }),
            (a, b) => a.or(b),
        };
    }

    pub(super) fn network_set_up(&mut self, result: Result<(), Failure>) -> bool {
        if self.network != Network::SettingUp {
            return false;
        }
        match result {
            Ok(()) => self.network = Network::Ready,
            Err(failure) => {
                self.network = Network::Absent;
                self.failure.get_or_insert(failure);
                self.desired = DesiredStatus::Stopped;
            }
        }
        true
    }

    pub(super) fn network_torn_down(&mut self) -> bool {
        let awaited = self.network == Network::TearingDown;
        if awaited {
            self.network = Network::Absent;
        }
        awaited
    }

    pub(super) fn started(
        &mut self,
        index: usize,
        runtime_id: String,
        bindings: Vec<NetworkBinding>,
        now: Timestamp,
    ) -> bool {
        let container = &mut self.containers[index];
        if container.phase == Phase::Restarting {
            container.phase = Phase::Running;
            container.exit = None;
            container.health = HealthStatus::Unknown;
            container.restarts.last = Some(now);
            return true;
        }
        if container.phase != Phase::Launching {
            return false;
        }
        container.phase = Phase::Running;
        container.runtime_id = Some(runtime_id);
        container.bindings = bindings;
        container.started_at = Some(now);
        self.note(index, ContainerStatus::Running, now);
        true
    }

    pub(super) fn launch_failed(&mut self, index: usize, failure: Failure, now: Timestamp) -> bool {
        let container = &self.containers[index];
        if !matches!(container.phase, Phase::Launching | Phase::Restarting) {
            return false;
        }
        // One that could not be started again ended as it did before.
        self.end(index, Some(failure), container.exit, now);
        true
    }

    pub(super) fn exited(&mut self, index: usize, exit: Exit, now: Timestamp) -> bool {
        if !matches!(self.containers[index].phase, Phase::Launching | Phase::Running) {
            return false;
        }
        if self.runs_again(index, exit) {
            let container = &mut self.containers[index];
            container.phase = Phase::Restarting;
            container.exit = Some(exit);
            container.restarts.count = container.restarts.count.saturating_add(1);
            container.restarts.due = true;
            return true;
        }
        let failure = exit
            .out_of_memory
            .then(|| Failure::new(FailureKind::OutOfMemoryError, "Container killed due to memory usage"));
        self.end(index, failure, Some(exit), now);
        true
    }

    /// Whether a container that just ended is started again: only one that ended by itself, and that tells how.
    fn runs_again(&self, index: usize, exit: Exit) -> bool {
        let container = &self.containers[index];
        let since = container.restarts.last.max(container.started_at);
        let (Some(policy), Some(code), Some(since)) = (&container.spec.restart, exit.code, since) else {
            return false;
        };
        let ran_for = u64::try_from(exit.at.as_millis() - since.as_millis()).unwrap_or(0);
        self.desired == DesiredStatus::Running && policy.applies(code, Duration::from_millis(ran_for))
    }

    /// A container is over, whether or not it ever ran.
    pub(super) fn end(&mut self, index: usize, failure: Option<Failure>, exit: Option<Exit>, now: Timestamp) {
        let container = &mut self.containers[index];
        container.phase = Phase::Stopped;
        container.stopping = None;
        container.exit = exit;
        if container.failure.is_none() {
            container.failure = failure;
        }
        if container.spec.essential {
            if container.started_at.is_none() && self.failure.is_none() {
                self.failure = container.failure.clone();
            } else if container.started_at.is_some() {
                self.execution_stopped_at.get_or_insert(exit.map_or(now, |exit| exit.at));
            }
        }
        self.note(index, ContainerStatus::Stopped, now);
    }

    /// Applies what the runtime knows after a restart of the agent.
    pub(super) fn recover(&mut self, mut found: BTreeMap<String, Found>, now: Timestamp) {
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            // A signal may have been lost: it is sent anew, with all its time.
            container.stopping = None;
            if mutant::is("running containers started again") && container.phase == Phase::Running {
                container.phase = Phase::Waiting;
                continue;
            }
            match (container.phase, found.remove(&container.spec.name)) {
                (Phase::Stopped, _) => {}
                (Phase::Running, Some(Found::Running { .. })) => {}
                (Phase::Restarting, Some(Found::Running { runtime_id, bindings })) => {
                    self.started(index, runtime_id, bindings, now);
                }
                // Whether the restart failed or was never made: it is made now.
                (Phase::Restarting, Some(Found::Exited { .. })) => container.restarts.due = true,
                (Phase::Running | Phase::Restarting, None) => {
                    let failure = Failure::new(
                        FailureKind::ContainerVanishedError,
                        "Container is unknown to the runtime",
                    );
                    self.end(index, Some(failure), None, now);
                }
                (Phase::Running, Some(Found::Exited { exit, .. })) => _ = self.exited(index, exit, now),
                (_, Some(Found::Running { runtime_id, bindings })) => {
                    self.adopt(index);
                    self.started(index, runtime_id, bindings, now);
                }
                (_, Some(Found::Exited { runtime_id, exit })) => {
                    self.adopt(index);
                    self.started(index, runtime_id, Vec::new(), now);
                    self.exited(index, exit, now);
                }
                // Nothing of it is there: from the beginning. The image may have gone meanwhile.
                (_, None) => container.phase = Phase::Waiting,
            }
        }
        if mutant::is("stop forgotten in a restart") && self.stopped_at.is_none() {
            self.desired = DesiredStatus::Running;
        }
        self.settle_desired();
        let unlaunched = self.containers.iter().any(|container| container.phase < Phase::Launching);
        self.network = match self.network {
            // Setting up again what is there is harmless, and after a reboot nothing is there.
            Network::SettingUp | Network::Ready if unlaunched && self.desired == DesiredStatus::Running => {
                Network::Wanted
            }
            Network::SettingUp | Network::TearingDown => Network::Ready,
            other => other,
        };
        self.reports.recover();
    }

    /// The launch happened although its answer was not saved.
    fn adopt(&mut self, index: usize) {
        self.containers[index].phase = Phase::Launching;
        self.containers[index].launched = true;
    }

    /// When the task wants to be looked at although nothing happened.
    pub(super) fn deadline(&self, now: Timestamp, config: &EngineConfig) -> Option<Timestamp> {
        let mut earliest = self.reports.deadline(config);
        let mut consider = |at: Option<Timestamp>| earliest = [earliest, at].into_iter().flatten().min();
        consider(self.forget_at(config));
        for container in &self.containers {
            consider(container.stopping.map(|stopping| stopping.kill_at));
            if self.phase == TaskPhase::Active
                && container.phase < Phase::Launching
                && let Readiness::Waits(until) = readiness(container, &self.containers, now)
            {
                consider(until);
            }
        }
        earliest
    }

    fn forget_at(&self, config: &EngineConfig) -> Option<Timestamp> {
        let wait = if self.reports.all_taken() {
            config.cleanup_wait
        } else {
            config.cleanup_wait.max(KEEP_UNREPORTED)
        };
        self.stopped_at.map(|at| at + wait)
    }

    /// Whether nothing is left to do for the task but to forget it.
    pub(super) fn is_forgettable(&self, now: Timestamp, config: &EngineConfig) -> bool {
        self.forget_at(config).is_some_and(|at| at <= now)
    }

    /// Whether the control plane has taken all there is to tell.
    pub fn is_told(&self) -> bool {
        self.reports.all_taken()
    }

    /// Containers of which something may be on the host.
    pub(super) fn launched(&self) -> impl Iterator<Item = &str> {
        self.containers
            .iter()
            .filter(|container| container.launched)
            .map(|container| container.spec.name.as_str())
    }
}
