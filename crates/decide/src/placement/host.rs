//! A container instance as placement sees it, and whether it can take a task.

use super::{Constraint, HostPort, Refusal, Request};
use crate::mutant;
use crate::query::Candidate;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What of an instance no task changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// ACTIVE: neither draining nor deregistered.
    pub active: bool,
    pub connected: bool,
    pub attributes: BTreeMap<String, Option<String>>,
    pub agent_version: String,
    pub ec2_instance_id: Option<String>,
    pub registered_at: Timestamp,
}

/// A container instance. Pools copy one for each task that comes or goes, so what seldom changes is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub profile: Arc<Profile>,
    /// What is not taken. Negative when an instance registered again with less than its tasks hold.
    pub free_cpu: i64,
    /// MiB.
    pub free_memory: i64,
    /// GPUs that no task holds.
    pub free_gpus: i64,
    /// Reserved at registration or held by tasks.
    pub used_ports: Arc<BTreeSet<HostPort>>,
    /// How many tasks of each group are here; no entry is zero.
    pub groups: BTreeMap<Arc<str>, u32>,
}

impl Host {
    /// The first check that the instance fails, if any.
    pub fn refuses(&self, request: &Request) -> Option<Refusal> {
        self.refuses_for_good(request).or_else(|| self.with(request, 0).refuses_now())
    }

    /// Whether a task of this kind belongs here at all: on an ACTIVE instance with the attributes that it asks for, within
    /// its constraints. What is free, and whether the agent is there just now, does not count.
    pub fn suits(&self, request: &Request) -> bool {
        let connected = Profile { connected: true, ..self.profile.as_ref().clone() };
        let host = Host { profile: Arc::new(connected), ..self.clone() };
        host.refuses_for_good(request).is_none()
    }

    /// Checks whose outcome no placement can change: they look at the profile alone.
    pub(super) fn refuses_for_good(&self, request: &Request) -> Option<Refusal> {
        let profile = &self.profile;
        if !profile.active && !mutant::is("tasks placed on draining instances") {
            return Some(Refusal::Inactive);
        }
        if !profile.connected && !mutant::is("tasks placed on silent agents") {
            return Some(Refusal::Agent);
        }
        let has = |(name, value): (&String, &Option<String>)| {
            profile.attributes.get(name).is_some_and(|own| value.is_none() || own == value)
        };
        if !request.attributes.iter().all(has) {
            return Some(Refusal::Attribute);
        }
        let now = self.with(request, 0);
        let fails = |constraint: &Constraint| match constraint {
            Constraint::MemberOf(query) => {
                !query.depends_on_tasks() && !query.matches(&now) && !mutant::is("memberOf ignored")
            }
            Constraint::DistinctInstance => false,
        };
        request.constraints.iter().any(fails).then_some(Refusal::MemberOf)
    }

    /// The instance once `more` tasks of a request are on it.
    pub(super) fn with<'a>(&'a self, request: &'a Request, more: u32) -> Burdened<'a> {
        Burdened { host: self, request, more }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.profile.attributes.get(name).map(Option::as_deref)
    }

    pub(super) fn tasks_of(&self, group: &str) -> u32 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    pub(crate) fn take(&mut self, request: &Request) {
        self.free_cpu -= i64::from(request.cpu);
        self.free_memory -= i64::from(request.memory);
        self.free_gpus -= i64::from(request.gpus);
        if !request.ports.is_empty() {
            Arc::make_mut(&mut self.used_ports).extend(request.ports.iter().copied());
        }
        match self.groups.get_mut(request.group.as_str()) {
            Some(count) => *count += 1,
            None => drop(self.groups.insert(Arc::from(request.group.as_str()), 1)),
        }
    }

    pub(crate) fn give_back(&mut self, request: &Request) {
        self.free_cpu += i64::from(request.cpu);
        self.free_memory += i64::from(request.memory);
        self.free_gpus += i64::from(request.gpus);
        if !request.ports.is_empty() && !mutant::is("ports never given back") {
            let used = Arc::make_mut(&mut self.used_ports);
            for port in &request.ports {
                used.remove(port);
            }
        }
        if let Some(count) = self.groups.get_mut(request.group.as_str()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.groups.remove(request.group.as_str());
            }
        }
    }
}

/// An instance with some tasks of a request on top of those that are there.
#[derive(Clone, Copy)]
pub(super) struct Burdened<'a> {
    host: &'a Host,
    request: &'a Request,
    more: u32,
}

impl Burdened<'_> {
    pub fn free_cpu(&self) -> i64 {
        self.host.free_cpu - i64::from(self.more) * i64::from(self.request.cpu)
    }

    pub fn free_memory(&self) -> i64 {
        self.host.free_memory - i64::from(self.more) * i64::from(self.request.memory)
    }

    fn free_gpus(&self) -> i64 {
        self.host.free_gpus - i64::from(self.more) * i64::from(self.request.gpus)
    }

    /// Tasks of the request's group.
    pub fn tasks_of_group(&self) -> u32 {
        self.host.tasks_of(&self.request.group) + self.more
    }

    /// Checks that depend on the tasks that are here.
    pub fn refuses_now(&self) -> Option<Refusal> {
        for constraint in &self.request.constraints {
            match constraint {
                Constraint::MemberOf(query) if query.depends_on_tasks() && !query.matches(self) => {
                    return Some(Refusal::MemberOf);
                }
                Constraint::DistinctInstance
                    if self.tasks_of_group() > 0 && !mutant::is("distinctInstance ignored") =>
                {
                    return Some(Refusal::DistinctInstance);
                }
                _ => {}
            }
        }
        let ports = &self.request.ports;
        if self.free_cpu() < i64::from(self.request.cpu) && !mutant::is("cpu not counted") {
            Some(Refusal::Cpu)
        } else if self.free_memory() < i64::from(self.request.memory) && !mutant::is("memory not counted") {
            Some(Refusal::Memory)
        } else if !ports.is_empty()
            && !mutant::is("ports not counted")
            && (self.more > 0 || ports.iter().any(|port| self.host.used_ports.contains(port)))
        {
            Some(Refusal::Ports)
        } else if self.free_gpus() < i64::from(self.request.gpus) {
            Some(Refusal::Gpu)
        } else {
            None
        }
    }
}

impl Candidate for Burdened<'_> {
    fn agent_connected(&self) -> bool {
        self.host.profile.connected
    }

    fn agent_version(&self) -> &str {
        &self.host.profile.agent_version
    }

    fn ec2_instance_id(&self) -> Option<&str> {
        self.host.profile.ec2_instance_id.as_deref()
    }

    fn registered_at(&self) -> Timestamp {
        self.host.profile.registered_at
    }

    fn running_tasks_count(&self) -> u64 {
        let here: u64 = self.host.groups.values().map(|count| u64::from(*count)).sum();
        here + u64::from(self.more)
    }

    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.host.groups.keys().any(|group| condition(group))
            || (self.more > 0 && condition(&self.request.group))
    }

    fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.host.attribute(name)
    }
}
