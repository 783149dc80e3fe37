//! A container instance as placement sees it, and whether it can take a task.

use super::groups::{ByGroup, Groups, NoTasks};
use super::stock::{Free, Held, whole};
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

/// A container instance.
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
    /// How many tasks of each group are here.
    pub groups: Groups,
}

/// The attribute that names an instance's Availability Zone.
pub const ZONE_ATTRIBUTE: &str = "ecs.availability-zone";

/// The room of a task that is not there yet: no constraint shall see more of it than that it is taken.
pub(super) fn room_for(request: &Request) -> Request {
    Request { group: String::new(), ..request.clone() }
}

impl Profile {
    pub fn zone(&self) -> Option<&str> {
        self.attributes.get(ZONE_ATTRIBUTE)?.as_deref()
    }

    /// Checks whose outcome no placement can change.
    pub(super) fn refuses(&self, request: &Request) -> Option<Refusal> {
        if !self.active && !mutant::is("tasks placed on draining instances") {
            return Some(Refusal::Inactive);
        }
        if !self.connected && !mutant::is("tasks placed on silent agents") {
            return Some(Refusal::Agent);
        }
        self.refuses_kind(request)
    }

    /// The same checks without those of the instance's state.
    fn refuses_kind(&self, request: &Request) -> Option<Refusal> {
        let has = |(name, value): (&String, &Option<String>)| {
            self.attributes.get(name).is_some_and(|own| value.is_none() || own == value)
        };
        if !request.attributes.iter().all(has) {
            return Some(Refusal::Attribute);
        }
        let site =
            Site { profile: self, free: Free::default(), used_ports: &BTreeSet::new(), groups: &NoTasks };
        let now = site.with(request, 0);
        let fails = |constraint: &Constraint| match constraint {
            Constraint::MemberOf(query) => {
                !query.depends_on_tasks() && !query.matches(&now) && !mutant::is("memberOf ignored")
            }
            Constraint::DistinctInstance => false,
        };
        request.constraints.iter().any(fails).then_some(Refusal::MemberOf)
    }
}

impl Host {
    /// The first check that the instance fails, if any.
    pub fn refuses(&self, request: &Request) -> Option<Refusal> {
        self.profile.refuses(request).or_else(|| self.site().with(request, 0).refuses_now())
    }

    /// Whether a task of this kind belongs here at all: on an ACTIVE instance with the attributes that it asks for, within
    /// its constraints. What is free, and whether the agent is there just now, does not count.
    pub fn suits(&self, request: &Request) -> bool {
        let active = self.profile.active || mutant::is("tasks placed on draining instances");
        active && self.profile.refuses_kind(request).is_none()
    }

    /// Whether it belongs here, and no task of its group is here yet.
    pub fn awaits(&self, request: &Request) -> bool {
        self.groups.of(&request.group) == 0 && self.suits(request)
    }

    /// Keeps room for such a task: others find what remains.
    pub fn reserve(&mut self, request: &Request) {
        self.take(&room_for(request));
    }

    /// How many tasks of a group are here.
    pub fn tasks_of(&self, group: &str) -> u32 {
        self.groups.of(group)
    }

    pub(super) fn site(&self) -> Site<'_> {
        Site { profile: &self.profile, free: self.free(), used_ports: &self.used_ports, groups: &self.groups }
    }

    pub(super) fn free(&self) -> Free {
        Free {
            cpu: self.free_cpu,
            memory: self.free_memory,
            gpus: whole(self.free_gpus),
            tasks: self.groups.total(),
        }
    }

    pub(super) fn set_free(&mut self, free: Free) {
        (self.free_cpu, self.free_memory, self.free_gpus) = (free.cpu, free.memory, i64::from(free.gpus));
    }

    pub(super) fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.profile.attributes.get(name).map(Option::as_deref)
    }

    /// Counts a task that is here, checks or not.
    pub(crate) fn take(&mut self, request: &Request) {
        self.hold(&Held::of(request));
    }

    /// Gives back what a task held.
    pub(crate) fn give_back(&mut self, request: &Request) {
        self.let_go(&Held::of(request));
    }

    pub(super) fn hold(&mut self, held: &Held) {
        let mut free = self.free();
        held.take(&mut free);
        self.set_free(free);
        held.take_ports(&mut self.used_ports);
        self.groups.add(&held.group, 1);
    }

    pub(super) fn let_go(&mut self, held: &Held) {
        let mut free = self.free();
        held.give_back(&mut free);
        self.set_free(free);
        held.give_ports_back(&mut self.used_ports);
        self.groups.add(&held.group, -1);
    }
}

/// An instance as the checks see it, wherever its figures stand.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub profile: &'a Profile,
    pub free: Free,
    pub used_ports: &'a BTreeSet<HostPort>,
    pub groups: &'a dyn ByGroup,
}

impl<'a> Site<'a> {
    /// The instance once `more` tasks of a request are on it.
    pub fn with(self, request: &'a Request, more: u32) -> Burdened<'a> {
        Burdened { site: self, request, own: None, more }
    }
}

/// An instance with some tasks of a request on top of those that are there.
#[derive(Clone, Copy)]
pub(super) struct Burdened<'a> {
    site: Site<'a>,
    request: &'a Request,
    /// Tasks of the request's group without the new ones, where somebody keeps count.
    own: Option<u32>,
    more: u32,
}

impl Burdened<'_> {
    /// Saves asking for the tasks of the request's group.
    pub fn knowing(self, own: u32) -> Self {
        Burdened { own: Some(own), ..self }
    }

    pub fn free_cpu(&self) -> i64 {
        self.site.free.cpu - i64::from(self.more) * i64::from(self.request.cpu)
    }

    pub fn free_memory(&self) -> i64 {
        self.site.free.memory - i64::from(self.more) * i64::from(self.request.memory)
    }

    fn free_gpus(&self) -> i64 {
        i64::from(self.site.free.gpus) - i64::from(self.more) * i64::from(self.request.gpus)
    }

    /// Tasks of the request's group.
    pub fn tasks_of_group(&self) -> u32 {
        self.own.unwrap_or_else(|| self.site.groups.of(&self.request.group)) + self.more
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
            && (self.more > 0 || ports.iter().any(|port| self.site.used_ports.contains(port)))
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
        self.site.profile.connected
    }

    fn agent_version(&self) -> &str {
        &self.site.profile.agent_version
    }

    fn ec2_instance_id(&self) -> Option<&str> {
        self.site.profile.ec2_instance_id.as_deref()
    }

    fn registered_at(&self) -> Timestamp {
        self.site.profile.registered_at
    }

    fn running_tasks_count(&self) -> u64 {
        u64::from(self.site.free.tasks) + u64::from(self.more)
    }

    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.site.groups.any(condition) || (self.more > 0 && condition(&self.request.group))
    }

    fn has_task_group(&self, name: &str) -> bool {
        self.site.groups.of(name) > 0 || (self.more > 0 && *self.request.group == *name)
    }

    fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.site.profile.attributes.get(name).map(Option::as_deref)
    }
}
