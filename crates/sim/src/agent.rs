//! A simulated host: the real task engine, a runtime that only remembers, and a disk. What takes time on a real host
//! is an event of the fleet's here.

use gantry_api::acs;
use gantry_decide::lease::Holder;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::{
    Action, Capacity, ContainerSpec, EngineConfig, Event, Exit, Found, Task, TaskArn, TaskEngine, TaskSpec,
};
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// More than any simulated task asks for: the control plane's books are the ones on trial.
const PLENTY: Capacity =
    Capacity { cpu: u64::MAX / 4, memory: u64::MAX / 4, reserved_ports: BTreeSet::new() };

/// What the runtime knows of a container. It outlives the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Running,
    Exited(Exit),
}

#[derive(Debug)]
pub struct Agent {
    pub instance_arn: String,
    /// Counts the lives of the agent's process: what belongs to an earlier one comes too late.
    pub life: u64,
    /// None while the process is dead.
    pub engine: Option<TaskEngine>,
    pub disk: BTreeMap<TaskArn, Task>,
    pub runtime: BTreeMap<(TaskArn, String), Container>,
    /// The open connection.
    pub session: Option<u64>,
    /// Until then the process does nothing.
    pub stalls: Timestamp,
    /// Until then nothing of the network reaches it.
    pub cut_off: Timestamp,
    /// Kept by the host's guard, which outlives the agent; none for an agent that holds no leases.
    pub lease: Option<Holder>,
    /// The lease was over: containers were ended, and what the process knows of them is not true any more.
    pub fenced: bool,
    /// What it was told to stop: whoever watches the host remembers that, whatever its process does.
    pub told: BTreeSet<TaskArn>,
    /// Until then what the control plane says takes so much longer to arrive.
    pub lag: (Timestamp, Duration),
    /// When the last of it arrives: nothing overtakes.
    pub hears: Timestamp,
}

impl Agent {
    pub fn new(instance_arn: String, lease: Option<Holder>) -> Agent {
        Agent {
            instance_arn,
            life: 0,
            engine: None,
            disk: BTreeMap::new(),
            runtime: BTreeMap::new(),
            session: None,
            stalls: Timestamp::EPOCH,
            cut_off: Timestamp::EPOCH,
            lease,
            fenced: false,
            told: BTreeSet::new(),
            lag: (Timestamp::EPOCH, Duration::ZERO),
            hears: Timestamp::EPOCH,
        }
    }

    /// The process starts: takes up what is on its disk, and what runs.
    pub fn start(&mut self, now: Timestamp) -> Vec<Action> {
        self.life += 1;
        let mut engine = TaskEngine::new(EngineConfig::new(PLENTY));
        let mut actions = Vec::new();
        let mut saved: Vec<Task> = self.disk.values().cloned().collect();
        saved.sort_by_key(|task| (task.accepted_at, task.spec.arn.clone()));
        for task in saved {
            let arn = task.spec.arn.clone();
            let containers = task.spec.containers.iter().filter_map(|container| {
                let found = match *self.runtime.get(&(arn.clone(), container.name.clone()))? {
                    Container::Running => Found::Running { runtime_id: "r".to_owned(), bindings: Vec::new() },
                    Container::Exited(exit) => Found::Exited { runtime_id: "r".to_owned(), exit },
                };
                Some((container.name.clone(), found))
            });
            let containers = containers.collect();
            actions.extend(engine.step(now, Event::Recovered { task: Box::new(task), containers }));
        }
        self.runtime.retain(|(arn, _), _| self.disk.contains_key(arn));
        self.engine = Some(engine);
        actions
    }

    /// How much longer what the control plane says takes now.
    pub fn late(&self, now: Timestamp) -> Duration {
        if self.lag.0 > now { self.lag.1 } else { Duration::ZERO }
    }

    pub fn die(&mut self) {
        self.life += 1;
        self.engine = None;
        self.session = None;
    }

    /// The host is gone at once, with all that runs on it. What it comes back with is on its disk.
    pub fn lose_power(&mut self) {
        self.die();
        self.runtime.clear();
        // What it has of a lease goes too: tasks of before have to end, for others may have them now.
        self.fenced = self.lease.is_some() && !self.disk.is_empty();
        if let Some(lease) = &mut self.lease {
            lease.fenced();
        }
    }

    pub fn step(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        self.engine.as_mut().map(|engine| engine.step(now, event)).unwrap_or_default()
    }

    /// The tasks of which a container runs.
    pub fn running(&self) -> impl Iterator<Item = &TaskArn> {
        let running = self.runtime.iter().filter(|(_, container)| **container == Container::Running);
        running.map(|((arn, _), _)| arn)
    }
}

/// What a payload's task means to the engine. Simulated tasks have one kind of network and plain containers.
pub fn spec(task: &acs::Task) -> (TaskSpec, DesiredStatus) {
    let containers = task.containers.iter().flatten().map(|container| ContainerSpec {
        name: container.name.clone().unwrap_or_default(),
        essential: container.essential.unwrap_or(false),
        depends_on: Vec::new(),
        start_timeout: None,
        stop_timeout: None,
        volumes_from: Vec::new(),
        restart: None,
    });
    let spec = TaskSpec {
        arn: TaskArn(task.arn.clone().unwrap_or_default()),
        network_mode: NetworkMode::None,
        pause: false,
        waits_for_resources: false,
        cpu: 0,
        memory: 0,
        host_ports: Vec::new(),
        containers: containers.collect(),
    };
    let stopped = task.desired_status.as_deref() == Some("STOPPED");
    (spec, if stopped { DesiredStatus::Stopped } else { DesiredStatus::Running })
}
