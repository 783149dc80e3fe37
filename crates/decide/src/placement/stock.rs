//! What is free on an instance, and what a task takes of it.

use super::{HostPort, Request};
use crate::mutant;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is free on an instance, in as few bytes as can be: pools copy these of all their instances at times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Free {
    /// CPU units.
    pub cpu: i64,
    /// MiB.
    pub memory: i64,
    pub gpus: i32,
    /// Not what is free, but how many tasks are here.
    pub tasks: u32,
}

/// What a task holds on its instance: the part of its request that counts after it is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    cpu: i64,
    memory: i64,
    gpus: i32,
    ports: BTreeSet<HostPort>,
    pub group: Arc<str>,
}

impl Held {
    pub fn of(request: &Request) -> Held {
        Held {
            cpu: i64::from(request.cpu),
            memory: i64::from(request.memory),
            gpus: whole(i64::from(request.gpus)),
            ports: request.ports.clone(),
            group: Arc::from(request.group.as_str()),
        }
    }

    /// Whether it is what this request's task holds.
    pub fn is_of(&self, request: &Request) -> bool {
        self.cpu == i64::from(request.cpu)
            && self.memory == i64::from(request.memory)
            && self.gpus == whole(i64::from(request.gpus))
            && *self.group == *request.group
            && self.ports == request.ports
    }

    /// Whether ports of the host are among it, which are kept apart from the rest.
    pub fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    pub fn take(&self, free: &mut Free) {
        free.cpu -= self.cpu;
        free.memory -= self.memory;
        free.gpus = free.gpus.saturating_sub(self.gpus);
        free.tasks += 1;
    }

    pub fn give_back(&self, free: &mut Free) {
        free.cpu += self.cpu;
        free.memory += self.memory;
        free.gpus = free.gpus.saturating_add(self.gpus);
        free.tasks = free.tasks.saturating_sub(1);
    }

    pub fn take_ports(&self, used: &mut Arc<BTreeSet<HostPort>>) {
        if self.has_ports() {
            Arc::make_mut(used).extend(self.ports.iter().copied());
        }
    }

    pub fn give_ports_back(&self, used: &mut Arc<BTreeSet<HostPort>>) {
        if self.has_ports() && !mutant::is("ports never given back") {
            let used = Arc::make_mut(used);
            used.retain(|port| !self.ports.contains(port));
        }
    }
}

/// A count of GPUs as [`Free`] keeps it. No machine has two billion of them.
pub(super) fn whole(gpus: i64) -> i32 {
    i32::try_from(gpus).unwrap_or(if gpus < 0 { i32::MIN } else { i32::MAX })
}
