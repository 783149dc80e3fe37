//! What the loop tells those who only show it: endpoints of tasks, telemetry.

use super::container::container_id;
use super::{Driver, Entry, Known};
use crate::health::Report;
use crate::runtime::{ContainerId, Runtime};
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task::NetworkMode;
use gantry_decide::task_engine::{Exit, KnownStatus, NetworkBinding, PullTimes, Task, TaskArn, TaskPhase};
use gantry_decide::time::Timestamp;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Which tasks are asked for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// All that are not over.
    Running,
    Task(TaskArn),
    /// That with a container of this endpoint id.
    Key(String),
    /// Those with a running container of this address, in bridge mode: of two, the end of one was not heard of yet.
    Address(Ipv4Addr),
}

/// A task at one time.
#[derive(Clone)]
pub struct TaskSnapshot {
    pub arn: TaskArn,
    pub known: Arc<Known>,
    pub desired: DesiredStatus,
    pub status: KnownStatus,
    pub pull: Option<PullTimes>,
    pub execution_stopped_at: Option<Timestamp>,
    /// In the order of the payload.
    pub containers: Vec<ContainerSnapshot>,
}

/// A container at one time.
#[derive(Clone)]
pub struct ContainerSnapshot {
    pub name: String,
    /// By which it asks its agent.
    pub key: Option<String>,
    pub id: ContainerId,
    /// By which users know it.
    pub runtime_id: String,
    /// Of its first process on the host.
    pub pid: Option<i32>,
    pub desired: DesiredStatus,
    pub status: KnownStatus,
    /// Only with a health check, and after the first result.
    pub health: Option<Report>,
    /// Of the image's configuration, if it is here.
    pub image_id: Option<String>,
    pub bindings: Vec<NetworkBinding>,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    pub restarts: u32,
    pub exit: Option<Exit>,
    /// Its own address, in bridge mode.
    pub address: Option<Ipv4Addr>,
}

impl TaskSnapshot {
    pub fn of_key(&self, key: &str) -> Option<&ContainerSnapshot> {
        self.containers.iter().find(|container| container.key.as_deref() == Some(key))
    }

    /// A process by which a container's traffic can be seen, if it has a network that is not the host's.
    pub fn pid_of_own_network(&self, one: &ContainerSnapshot) -> Option<i32> {
        one.pid.filter(|_| matches!(self.known.mode(), NetworkMode::Awsvpc | NetworkMode::Bridge))
    }
}

impl<R: Runtime> Driver<R> {
    /// The tasks that are asked for.
    pub(super) fn describe(&self, asked: &Asked) -> Vec<TaskSnapshot> {
        let task = match asked {
            Asked::Running => {
                let running = self.engine.tasks().filter(|task| task.phase != TaskPhase::Stopped);
                return running.filter_map(|task| self.snapshot(task)).collect();
            }
            Asked::Task(arn) => self.engine.task(arn),
            Asked::Key(key) => {
                let has_key = |entry: &Entry| entry.keys.values().any(|known| known == key);
                let found = self.tasks.iter().find(|(_, entry)| has_key(entry));
                found.and_then(|(arn, _)| self.engine.task(arn))
            }
            Asked::Address(address) => {
                // One that has ended has given its address up.
                let runs = |arn: &TaskArn, name: &str| {
                    let container = self.engine.task(arn).and_then(|task| task.container(name));
                    container.is_some_and(|container| container.known == KnownStatus::Running)
                };
                let has_it = |(arn, entry): &(&TaskArn, &Entry)| {
                    entry.bridged.iter().any(|(name, at)| at.address == *address && runs(arn, name))
                };
                let holders = self.tasks.iter().filter(has_it);
                return holders.filter_map(|(arn, _)| self.snapshot(self.engine.task(arn)?)).collect();
            }
        };
        task.and_then(|task| self.snapshot(task)).into_iter().collect()
    }

    fn snapshot(&self, task: &Task) -> Option<TaskSnapshot> {
        let arn = &task.spec.arn;
        let entry = self.tasks.get(arn)?;
        let images = entry.image_digests();
        let containers = task.containers().map(|container| {
            let name = container.spec.name.as_str();
            let id = container_id(arn, name);
            // A program may ask before its start was heard of here.
            let runtime_id = container.runtime_id.map(str::to_owned);
            ContainerSnapshot {
                name: name.to_owned(),
                key: entry.keys.get(name).cloned(),
                runtime_id: runtime_id.unwrap_or_else(|| self.hands.runtime.runtime_id(&id)),
                id,
                pid: entry.pids.get(name).copied().filter(|_| container.known == KnownStatus::Running),
                desired: container.desired,
                status: container.known,
                health: entry.health.get(name).cloned(),
                image_id: images.get(name).map(ToString::to_string),
                bindings: container.bindings.to_vec(),
                started_at: container.started_at,
                restarts: container.restarts,
                exit: container.exit,
                address: entry.bridged.get(name).map(|bridged| bridged.address),
            }
        });
        Some(TaskSnapshot {
            arn: arn.clone(),
            known: Arc::clone(entry.known.as_ref()?),
            desired: task.desired,
            status: task.known(),
            pull: task.pull_times(),
            execution_stopped_at: task.execution_stopped_at(),
            containers: containers.collect(),
        })
    }
}
