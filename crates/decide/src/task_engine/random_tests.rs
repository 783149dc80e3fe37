//! Random tasks, random orders of answers, losses and restarts: no task gets stuck and no report goes back.

#![allow(clippy::unwrap_used)]

use super::tests::{arn, container, spec};
use super::*;
use crate::lifecycle::{ContainerStatus, DesiredStatus};
use crate::task::{ContainerCondition, NetworkMode};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const CONDITIONS: [ContainerCondition; 4] = [
    ContainerCondition::Start,
    ContainerCondition::Complete,
    ContainerCondition::Success,
    ContainerCondition::Healthy,
];

/// A host in which everything may happen in any order.
struct World {
    engine: TaskEngine,
    now: Timestamp,
    /// Answers that are due, in no order.
    due: Vec<Event>,
    running: Vec<(TaskArn, String)>,
    saved: BTreeMap<TaskArn, Task>,
    told: BTreeMap<TaskArn, Vec<Submission>>,
    launched: BTreeSet<(TaskArn, String)>,
}

fn engine() -> TaskEngine {
    TaskEngine::new(EngineConfig::new(Capacity { cpu: 600, memory: 4096, ..Capacity::default() }))
}

impl World {
    fn step(&mut self, event: Event, luck: u8) {
        for action in self.engine.step(self.now, event) {
            match action {
                Action::Persist { task } => {
                    self.saved.insert(task.clone(), self.engine.task(&task).unwrap().clone());
                }
                Action::PrepareImage { task, container } => self.due.push(if luck.is_multiple_of(11) {
                    let failure = Failure::new(FailureKind::CannotPullContainerError, "bad luck");
                    Event::ImageFailed { task, container, failure, pull: None }
                } else {
                    Event::ImageReady { task, container, digest: Some("sha256:aa".into()), pull: None }
                }),
                Action::SetUpNetwork { task } => {
                    let failure = Failure::new(FailureKind::ContainerNetworkingError, "bad luck");
                    let result = if luck.is_multiple_of(13) { Err(failure) } else { Ok(()) };
                    self.due.push(Event::NetworkSetUp { task, result });
                }
                Action::Launch { task, container } | Action::Restart { task, container } => {
                    self.launched.insert((task.clone(), container.clone()));
                    assert!(!self.running.contains(&(task.clone(), container.clone())), "launched twice");
                    self.due.push(if luck.is_multiple_of(7) {
                        let failure = Failure::new(FailureKind::CannotStartContainerError, "bad luck");
                        Event::ContainerFailed { task, container, failure }
                    } else {
                        self.running.push((task.clone(), container.clone()));
                        Event::ContainerStarted { task, container, runtime_id: "id".into(), bindings: vec![] }
                    });
                }
                Action::Signal { task, container, signal } => {
                    // The process may have ended already; that it was started must be sure.
                    assert!(self.launched.contains(&(task.clone(), container.clone())), "signal to nobody");
                    if signal == Signal::Kill || luck.is_multiple_of(2) {
                        self.exit(task, container, 143);
                    }
                }
                Action::TearDownNetwork { task } => {
                    assert!(
                        self.running.iter().all(|(other, _)| *other != task),
                        "network gone under a process"
                    );
                    self.due.push(Event::NetworkTornDown { task });
                }
                Action::Submit(submission) => {
                    let (task, id) = (submission.task.clone(), submission.id);
                    if luck.is_multiple_of(5) {
                        self.due.push(Event::SubmitFailed { task, id, failure: SubmitFailure::Later });
                    } else {
                        self.due.push(Event::Submitted { task: task.clone(), id });
                        self.told.entry(task).or_default().push(submission);
                    }
                }
                Action::Forget { task } => _ = self.saved.remove(&task),
                Action::RemoveContainer { .. } | Action::WakeAt(_) => {}
            }
        }
    }

    fn exit(&mut self, task: TaskArn, container: String, code: i32) {
        let at = self.now;
        if let Some(index) = self.running.iter().position(|known| *known == (task.clone(), container.clone()))
        {
            // A process is heard to end only after it was heard to start.
            let started = |event: &Event| matches!(event, Event::ContainerStarted { task: t, container: c, .. } if *t == task && *c == container);
            if self.due.iter().any(started) {
                return;
            }
            self.running.remove(index);
            let exit = Exit { code: Some(code), out_of_memory: false, at };
            self.due.push(Event::ContainerExited { task, container, exit });
        }
    }

    /// The agent dies and comes back; answers on their way are lost, processes run on.
    fn restart(&mut self, luck: u8) {
        let mut exits: BTreeMap<(TaskArn, String), Exit> = BTreeMap::new();
        for event in self.due.drain(..) {
            if let Event::ContainerExited { task, container, exit } = event {
                exits.insert((task, container), exit);
            }
        }
        self.engine = engine();
        let mut saved: Vec<_> = self.saved.values().cloned().collect();
        saved.sort_by_key(|task| task.accepted_at);
        for task in saved {
            let mut containers = BTreeMap::new();
            for name in task.spec.containers.iter().map(|container| container.name.clone()) {
                let key = (task.spec.arn.clone(), name.clone());
                let runtime_id = "id".to_owned();
                if self.running.contains(&key) {
                    containers.insert(name, Found::Running { runtime_id, bindings: vec![] });
                } else if let Some(exit) = exits.get(&key) {
                    containers.insert(name, Found::Exited { runtime_id, exit: *exit });
                }
            }
            self.step(Event::Recovered { task: Box::new(task), containers }, luck);
        }
    }
}

fn tasks() -> impl Strategy<Value = Vec<TaskSpec>> {
    let one = proptest::collection::vec((any::<bool>(), any::<u8>(), 0usize..4), 1..4);
    proptest::collection::vec((one, 100u32..500, any::<bool>()), 1..5).prop_map(|tasks| {
        tasks
            .into_iter()
            .enumerate()
            .map(|(number, (containers, cpu, host))| {
                let containers = containers
                    .into_iter()
                    .enumerate()
                    .map(|(index, (essential, other, condition))| {
                        // Any container may be named, itself, later ones and missing ones included.
                        let name = format!("c{}", other % 5);
                        let depends_on = [(name.as_str(), CONDITIONS[condition])];
                        let on: &[_] = if other % 2 == 0 { &[] } else { &depends_on };
                        let attempt_period = Some(Duration::from_secs(u64::from(other) % 3));
                        let restart = RestartPolicy { ignored_exit_codes: vec![2], attempt_period };
                        let restart = (other % 7 < 3).then_some(restart);
                        ContainerSpec { restart, ..container(&format!("c{index}"), essential, on) }
                    })
                    .collect();
                let network_mode = if host { NetworkMode::Host } else { NetworkMode::Awsvpc };
                TaskSpec { cpu, network_mode, ..spec(&format!("t{number}"), containers) }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn every_stopped_task_is_told_stopped_once_and_statuses_only_rise(
        tasks in tasks(),
        luck in proptest::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..80),
    ) {
        let mut world = World {
            engine: engine(),
            now: Timestamp::from_millis(1_000_000),
            due: Vec::new(),
            running: Vec::new(),
            saved: BTreeMap::new(),
            told: BTreeMap::new(),
            launched: BTreeSet::new(),
        };
        for spec in &tasks {
            world.step(Event::TaskAccepted { spec: spec.clone(), desired: DesiredStatus::Running }, 1);
        }
        for (what, which, luck) in luck {
            world.now = world.now + Duration::from_millis(u64::from(luck) * 20);
            match what % 16 {
                0 => world.restart(luck),
                1 => world.step(Event::Tick, luck),
                2 => world.step(Event::StopRequested { task: arn(&format!("t{}", which % 5)) }, luck),
                3 if !world.running.is_empty() => {
                    let (task, container) = world.running[usize::from(which) % world.running.len()].clone();
                    world.exit(task, container, i32::from(luck % 3));
                }
                _ if !world.due.is_empty() => {
                    let event = world.due.remove(usize::from(which) % world.due.len());
                    world.step(event, luck);
                }
                _ => {}
            }
        }
        for spec in &tasks {
            world.step(Event::StopRequested { task: spec.arn.clone() }, 1);
        }
        // Fair from here on: every answer comes, time passes, nothing fails.
        for _ in 0..200 {
            while let Some(event) = world.due.pop() {
                world.step(event, 1);
            }
            world.now = world.now + Duration::from_secs(31);
            world.step(Event::Tick, 1);
        }
        prop_assert!(world.running.is_empty(), "left running: {:?}", world.running);
        for spec in &tasks {
            let task = world.engine.task(&spec.arn).unwrap();
            prop_assert_eq!(task.phase, TaskPhase::Stopped);
            let mut told = world.told.remove(&spec.arn).unwrap();
            // After a restart a submission may come again: it is the same one.
            told.dedup_by_key(|submission| submission.id);
            prop_assert!(told.windows(2).all(|pair| pair[0].id < pair[1].id && pair[0].status <= pair[1].status));
            let stopped = told.iter().filter(|submission| submission.status == ContainerStatus::Stopped).count();
            prop_assert_eq!((stopped, told.last().unwrap().status), (1, ContainerStatus::Stopped));
            for container in &spec.containers {
                let changes: Vec<_> = told
                    .iter()
                    .flat_map(|submission| &submission.containers)
                    .filter(|change| change.name == container.name)
                    .map(|change| change.status)
                    .collect();
                prop_assert!(changes.windows(2).all(|pair| pair[0] < pair[1]), "{changes:?}");
                prop_assert_eq!(changes.last(), Some(&ContainerStatus::Stopped));
            }
        }
        // The books are empty again: a task as large as the host is admitted at once.
        let whole = TaskSpec { cpu: 600, ..spec("whole", vec![container("c", true, &[])]) };
        world.step(Event::TaskAccepted { spec: whole, desired: DesiredStatus::Running }, 1);
        prop_assert_eq!(world.engine.task(&arn("whole")).unwrap().phase, TaskPhase::Active);
    }
}
