//! The host's own books: which tasks hold CPU, memory and ports, and who waits for them.

use super::spec::{HostPort, TaskArn, TaskSpec};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a host has for tasks: what it registered with the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// CPU units.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
    /// Ports that no task gets.
    pub reserved_ports: BTreeSet<HostPort>,
}

/// Grants resources first come, first served. A task that does not fit holds up those behind it, as in ECS: the
/// control plane may send a replacement before its predecessor has gone, and nobody is to overtake it.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: Capacity,
    // Sums of `held`. Claims come from 32-bit numbers, so that no number of tasks overflows them.
    cpu: u64,
    memory: u64,
    ports: BTreeSet<HostPort>,
    held: BTreeMap<TaskArn, Claim>,
    waiting: VecDeque<(TaskArn, Claim)>,
}

#[derive(Clone, Debug)]
struct Claim {
    cpu: u64,
    memory: u64,
    ports: Vec<HostPort>,
}

impl From<&TaskSpec> for Claim {
    fn from(spec: &TaskSpec) -> Claim {
        Claim { cpu: spec.cpu.into(), memory: spec.memory.into(), ports: spec.host_ports.clone() }
    }
}

impl Queue {
    pub(super) fn new(capacity: Capacity) -> Queue {
        let ports = capacity.reserved_ports.clone();
        Queue { capacity, cpu: 0, memory: 0, ports, held: BTreeMap::new(), waiting: VecDeque::new() }
    }

    pub(super) fn join(&mut self, spec: &TaskSpec) {
        self.waiting.push_back((spec.arn.clone(), Claim::from(spec)));
    }

    /// Books a task that runs already, room or not.
    pub(super) fn hold(&mut self, spec: &TaskSpec) {
        self.book(spec.arn.clone(), Claim::from(spec));
    }

    /// Frees what a task holds, or takes it out of the line.
    pub(super) fn leave(&mut self, task: &TaskArn) {
        self.waiting.retain(|(waiting, _)| waiting != task);
        if let Some(claim) = self.held.remove(task) {
            self.cpu -= claim.cpu;
            self.memory -= claim.memory;
            for port in &claim.ports {
                // A task found running after a restart may share a port with another one or with the reserved ones.
                let kept = self.capacity.reserved_ports.contains(port)
                    || self.held.values().any(|other| other.ports.contains(port));
                if !kept {
                    self.ports.remove(port);
                }
            }
        }
    }

    /// The next task in line, if it fits now.
    pub(super) fn admit(&mut self) -> Option<TaskArn> {
        let (_, claim) = self.waiting.front()?;
        let fits = self.cpu + claim.cpu <= self.capacity.cpu
            && self.memory + claim.memory <= self.capacity.memory
            && claim.ports.iter().all(|port| !self.ports.contains(port));
        if !fits {
            return None;
        }
        let (task, claim) = self.waiting.pop_front()?;
        self.book(task.clone(), claim);
        Some(task)
    }

    fn book(&mut self, task: TaskArn, claim: Claim) {
        self.cpu += claim.cpu;
        self.memory += claim.memory;
        self.ports.extend(claim.ports.iter().copied());
        self.held.insert(task, claim);
    }
}
