//! All tasks of one host: events to the right task, resources to the next in line, one clock for all.

use super::message::{Action, Event};
use super::queue::{Capacity, Queue};
use super::spec::{TaskArn, TaskSpec};
use super::task::{Task, TaskPhase};
use crate::lifecycle::DesiredStatus;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How the engine behaves on this host.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    pub capacity: Capacity,
    /// From SIGTERM to SIGKILL where the container does not say.
    pub stop_timeout: Duration,
    /// How long a stopped task's remains are kept.
    pub cleanup_wait: Duration,
    /// How long changes of containers wait for a change of their task to be told with.
    pub flush_after: Duration,
}

impl EngineConfig {
    /// ECS's defaults: 30 s to stop, 3 h of remains, 10 s (the least that the stock agent waits) to a flush.
    pub fn new(capacity: Capacity) -> EngineConfig {
        EngineConfig {
            capacity,
            stop_timeout: Duration::from_secs(30),
            cleanup_wait: Duration::from_secs(3 * 3600),
            flush_after: Duration::from_secs(10),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct TaskEngine {
    config: EngineConfig,
    tasks: BTreeMap<TaskArn, Task>,
    queue: Queue,
    /// When each task wants to be looked at.
    timers: BTreeSet<(Timestamp, TaskArn)>,
    deadlines: BTreeMap<TaskArn, Timestamp>,
    wake_at: Option<Timestamp>,
}

impl TaskEngine {
    pub fn new(config: EngineConfig) -> TaskEngine {
        TaskEngine {
            queue: Queue::new(config.capacity.clone()),
            config,
            tasks: BTreeMap::new(),
            timers: BTreeSet::new(),
            deadlines: BTreeMap::new(),
            wake_at: None,
        }
    }

    pub fn task(&self, task: &TaskArn) -> Option<&Task> {
        self.tasks.get(task)
    }

    /// In the order of their ARNs.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// Takes one event in. Events that make no sense (an unknown task, an answer to nothing) change nothing.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if let Some(task) = self.apply(now, event) {
            self.advance(&task, now, true, &mut out);
        }
        while let Some((at, task)) = self.timers.first().cloned()
            && at <= now
        {
            self.advance(&task, now, false, &mut out);
        }
        while let Some(task) = self.queue.admit() {
            if let Some(state) = self.tasks.get_mut(&task) {
                state.phase = TaskPhase::Active;
            }
            self.advance(&task, now, true, &mut out);
        }
        let next = self.timers.first().map(|(at, _)| *at);
        if next != self.wake_at {
            self.wake_at = next;
            out.extend(next.map(Action::WakeAt));
        }
        out
    }

    /// Changes the one task that the event is about. `None`: nothing changed.
    fn apply(&mut self, now: Timestamp, event: Event) -> Option<TaskArn> {
        match event {
            Event::TaskAccepted { spec, desired } => self.accept(spec, desired, now),
            Event::TaskRejected { task, failure } => {
                if self.tasks.contains_key(&task) {
                    return None;
                }
                self.tasks.insert(task.clone(), Task::rejected(task.clone(), failure, now));
                Some(task)
            }
            Event::StopRequested { task } => self.change(task, Task::stop),
            Event::ImageReady { task, container, digest, pull } => {
                self.change_container(task, &container, |task, index| {
                    task.image_ready(index, digest, pull, now)
                })
            }
            Event::ImageFailed { task, container, failure, pull } => {
                self.change_container(task, &container, |task, index| {
                    task.image_failed(index, failure, pull, now)
                })
            }
            Event::NetworkSetUp { task, result } => self.change(task, |task| task.network_set_up(result)),
            Event::NetworkTornDown { task } => self.change(task, Task::network_torn_down),
            Event::ContainerStarted { task, container, runtime_id, bindings } => {
                self.change_container(task, &container, |task, index| {
                    task.started(index, runtime_id, bindings, now)
                })
            }
            Event::ContainerFailed { task, container, failure } => {
                self.change_container(task, &container, |task, index| task.launch_failed(index, failure, now))
            }
            Event::ContainerExited { task, container, exit } => {
                self.change_container(task, &container, |task, index| task.exited(index, exit, now))
            }
            Event::HealthChanged { task, container, health } => {
                self.change_container(task, &container, |task, index| {
                    let known = &mut task.containers[index].health;
                    std::mem::replace(known, health) != health
                })
            }
            Event::Submitted { task, id } => self.change(task, |task| task.reports.taken(id)),
            Event::SubmitFailed { task, id, failure } => {
                self.change(task, |task| task.reports.failed(id, failure, now))
            }
            Event::Recovered { task, containers } => {
                let mut task = *task;
                let arn = task.spec.arn.clone();
                task.recover(containers, now);
                match task.phase {
                    TaskPhase::Queued => self.queue.join(&task.spec),
                    TaskPhase::Active if task.spec.waits_for_resources => self.queue.hold(&task.spec),
                    TaskPhase::Active | TaskPhase::Stopped => {}
                }
                self.tasks.insert(arn.clone(), task);
                Some(arn)
            }
            Event::Tick => {
                // The actor's timer is spent: whatever is next has to be asked for again.
                self.wake_at = None;
                None
            }
        }
    }

    fn accept(&mut self, spec: TaskSpec, desired: DesiredStatus, now: Timestamp) -> Option<TaskArn> {
        let arn = spec.arn.clone();
        if self.tasks.contains_key(&arn) {
            return match desired {
                DesiredStatus::Stopped => self.change(arn, Task::stop),
                DesiredStatus::Running => None,
            };
        }
        let task = Task::new(spec, desired, now);
        if task.phase == TaskPhase::Queued && task.desired == DesiredStatus::Running {
            self.queue.join(&task.spec);
        }
        self.tasks.insert(arn.clone(), task);
        Some(arn)
    }

    fn change(&mut self, arn: TaskArn, change: impl FnOnce(&mut Task) -> bool) -> Option<TaskArn> {
        change(self.tasks.get_mut(&arn)?).then_some(arn)
    }

    fn change_container(
        &mut self,
        arn: TaskArn,
        container: &str,
        change: impl FnOnce(&mut Task, usize) -> bool,
    ) -> Option<TaskArn> {
        self.change(arn, |task| task.index(container).is_some_and(|index| change(task, index)))
    }

    /// Lets a task take its steps; saving comes first when it changed.
    fn advance(&mut self, arn: &TaskArn, now: Timestamp, changed: bool, out: &mut Vec<Action>) {
        if let Some(at) = self.deadlines.remove(arn) {
            self.timers.remove(&(at, arn.clone()));
        }
        let Some(task) = self.tasks.get_mut(arn) else { return };
        let mut actions = Vec::new();
        let queued = task.phase == TaskPhase::Queued;
        task.advance(now, &self.config, &mut actions);
        if task.phase == TaskPhase::Stopped || (queued && task.phase != TaskPhase::Queued) {
            self.queue.leave(arn);
        }
        if task.is_forgettable(now, &self.config) {
            out.extend(
                task.launched()
                    .map(|name| Action::RemoveContainer { task: arn.clone(), container: name.into() }),
            );
            out.push(Action::Forget { task: arn.clone() });
            self.tasks.remove(arn);
            return;
        }
        if let Some(at) = task.deadline(now, &self.config) {
            self.timers.insert((at, arn.clone()));
            self.deadlines.insert(arn.clone(), at);
        }
        if changed || !actions.is_empty() {
            out.push(Action::Persist { task: arn.clone() });
        }
        out.append(&mut actions);
    }
}
