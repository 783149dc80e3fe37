//! The next steps of a task, as they follow from what it is and what happened to it.

use super::dependencies::{Readiness, readiness};
use super::engine::EngineConfig;
use super::message::{Action, Exit, Signal};
use super::spec::{Failure, FailureKind};
use super::task::{Network, Phase, Stopping, Task, TaskPhase};
use crate::lifecycle::DesiredStatus;
use crate::time::Timestamp;
use std::time::Duration;

/// Between two SIGKILLs: a process that survives one sits in the kernel, and asking more often does not help.
const KILL_AGAIN: Duration = Duration::from_secs(5);
/// After so many SIGKILLs the container counts as stopped, or its task would hold its resources for ever.
const KILL_ATTEMPTS: u8 = 5;
/// What a container that was never allowed to start shows as exit code: that of a SIGTERM.
const NEVER_STARTED_EXIT_CODE: i32 = 143;

impl Task {
    /// Takes every step that is possible now.
    pub(super) fn advance(&mut self, now: Timestamp, config: &EngineConfig, out: &mut Vec<Action>) {
        if self.phase == TaskPhase::Queued {
            if self.desired == DesiredStatus::Running {
                return;
            }
            self.leave_queue(now);
        }
        if self.phase == TaskPhase::Active {
            loop {
                let mut progress = self.settle_desired();
                progress |= self.advance_network(out);
                for index in 0..self.containers.len() {
                    progress |= self.advance_container(index, now, config, out);
                }
                if !progress {
                    break;
                }
            }
            if self.all_stopped() && self.network == Network::Absent {
                self.phase = TaskPhase::Stopped;
                self.stopped_at = Some(now);
            }
        }
        self.report(now, config, out);
    }

    /// Stopped while it waited for resources: it never had anything.
    fn leave_queue(&mut self, now: Timestamp) {
        let failure = Failure::new(
            FailureKind::TaskStoppedBeforePullBeginError,
            format!("Task stopped before image pull could begin for task: {}", self.spec.arn),
        );
        for index in 0..self.containers.len() {
            let failure = self.failure.is_none().then(|| failure.clone());
            self.containers[index].failure = failure;
        }
        self.phase = TaskPhase::Active;
        let known = self.failure.clone();
        for index in 0..self.containers.len() {
            self.end(index, None, None, now);
        }
        self.failure = known;
    }

    /// Essential containers decide over the task, and a task without any container alive is over.
    pub(super) fn settle_desired(&mut self) -> bool {
        let over = self.all_stopped()
            || self
                .containers
                .iter()
                .any(|container| container.spec.essential && container.phase == Phase::Stopped);
        over && self.stop()
    }

    pub(super) fn all_stopped(&self) -> bool {
        self.containers.iter().all(|container| container.phase == Phase::Stopped)
    }

    fn advance_network(&mut self, out: &mut Vec<Action>) -> bool {
        let task = self.spec.arn.clone();
        match self.network {
            Network::Wanted if self.desired == DesiredStatus::Running => {
                self.network = Network::SettingUp;
                out.push(Action::SetUpNetwork { task });
            }
            Network::Wanted => self.network = Network::Absent,
            Network::Ready if self.all_stopped() => {
                self.network = Network::TearingDown;
                out.push(Action::TearDownNetwork { task });
            }
            _ => return false,
        }
        true
    }

    fn advance_container(
        &mut self,
        index: usize,
        now: Timestamp,
        config: &EngineConfig,
        out: &mut Vec<Action>,
    ) -> bool {
        let container = &self.containers[index];
        let running = self.desired == DesiredStatus::Running;
        match container.phase {
            Phase::Waiting | Phase::Preparing | Phase::Ready if !running => self.end(index, None, None, now),
            Phase::Waiting | Phase::Preparing | Phase::Ready => {
                match (readiness(container, &self.containers, now), container.phase) {
                    (Readiness::Never(why), _) => {
                        let failure = Failure::new(
                            FailureKind::CannotStartContainerError,
                            format!("dependency graph: {why}"),
                        );
                        let exit =
                            Exit { code: Some(NEVER_STARTED_EXIT_CODE), out_of_memory: false, at: now };
                        self.end(index, Some(failure), Some(exit), now);
                    }
                    (_, Phase::Waiting) => {
                        self.containers[index].phase = Phase::Preparing;
                        out.push(Action::PrepareImage {
                            task: self.spec.arn.clone(),
                            container: self.name(index),
                        });
                    }
                    (Readiness::Satisfied, Phase::Ready)
                        if matches!(self.network, Network::Ready | Network::Absent)
                            && self.has_images_of_volumes(index) =>
                    {
                        self.containers[index].phase = Phase::Launching;
                        self.containers[index].launched = true;
                        out.push(Action::Launch { task: self.spec.arn.clone(), container: self.name(index) });
                    }
                    _ => return false,
                }
            }
            Phase::Running if !running => return self.advance_stop(index, now, config, out),
            // It never came to be asked for.
            Phase::Restarting if container.restarts.due && !running => {
                let exit = container.exit;
                self.end(index, None, exit, now);
            }
            Phase::Restarting if container.restarts.due => {
                self.containers[index].restarts.due = false;
                out.push(Action::Restart { task: self.spec.arn.clone(), container: self.name(index) });
            }
            Phase::Launching | Phase::Running | Phase::Restarting | Phase::Stopped => return false,
        }
        true
    }

    /// Whether the images of all containers that this one takes volumes from are ready. One that ended before will not
    /// be: the launch tells what is missing.
    fn has_images_of_volumes(&self, index: usize) -> bool {
        let mut sources = self.containers[index].spec.volumes_from.iter();
        sources.all(|name| self.index(name).is_none_or(|other| self.containers[other].phase >= Phase::Ready))
    }

    /// Signals a running container once those that depend on it are gone.
    fn advance_stop(
        &mut self,
        index: usize,
        now: Timestamp,
        config: &EngineConfig,
        out: &mut Vec<Action>,
    ) -> bool {
        let name = self.name(index);
        let needed = self.containers.iter().any(|other| {
            other.phase != Phase::Stopped
                && other.spec.depends_on.iter().any(|dependency| dependency.container == name)
        });
        let task = self.spec.arn.clone();
        let container = &mut self.containers[index];
        match &mut container.stopping {
            None if needed => return false,
            None => {
                let timeout = container.spec.stop_timeout.unwrap_or(config.stop_timeout);
                container.stopping = Some(Stopping { kill_at: now + timeout, kills: 0 });
                out.push(Action::Signal { task, container: name, signal: Signal::Stop });
            }
            Some(stopping) if stopping.kill_at > now => return false,
            Some(stopping) if stopping.kills < KILL_ATTEMPTS => {
                stopping.kills += 1;
                stopping.kill_at = now + KILL_AGAIN;
                out.push(Action::Signal { task, container: name, signal: Signal::Kill });
            }
            Some(_) => {
                let failure =
                    Failure::new(FailureKind::CannotStopContainerError, "the process survived SIGKILL");
                self.end(index, Some(failure), None, now);
            }
        }
        true
    }

    fn name(&self, index: usize) -> String {
        self.containers[index].spec.name.clone()
    }
}
