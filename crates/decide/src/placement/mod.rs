//! Which container instance a task goes to: what it asks, how instances are ruled out, how the rest are ranked.
//!
//! Constraints bind; strategies are best effort, each deciding only among the equals that the one before left.

mod explain;
mod groups;
mod host;
mod log;
mod placer;
mod pool;
mod scale_in;
mod settled;
mod shape;
mod stock;
#[cfg(test)]
mod tests;

pub use explain::Shortfall;
pub use groups::Groups;
pub use host::{Host, Profile, ZONE_ATTRIBUTE};
pub use placer::Placer;
pub use pool::Pool;
pub use scale_in::{ServiceTask, scale_in};

use crate::query::Query;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host itself; dynamic ports are nobody's concern here.
pub type HostPort = (Protocol, u16);

/// What a task needs of an instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// CPU units: 1024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    pub ports: BTreeSet<HostPort>,
    /// Whole GPUs, whichever.
    pub gpus: u32,
    /// Attributes that must be there, with this value where one is given.
    pub attributes: BTreeMap<String, Option<String>>,
    pub constraints: Vec<Constraint>,
    pub strategies: Vec<Strategy>,
    /// The task's group: its service's, or its family's unless the user chose another.
    pub group: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// No two tasks of the same group on an instance.
    DistinctInstance,
    MemberOf(Query),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Where the fewest tasks of the group run. Instances without the attribute are a bucket of their own.
    SpreadInstance,
    SpreadAttribute(String),
    /// Where the least CPU is left that still suffices.
    BinpackCpu,
    /// Where the least memory is left that still suffices.
    BinpackMemory,
    Random,
}

impl Strategy {
    /// What a service does that names no strategy: spread over zones, then over instances.
    pub fn service_default() -> Vec<Strategy> {
        vec![Strategy::SpreadAttribute(ZONE_ATTRIBUTE.to_owned()), Strategy::SpreadInstance]
    }

    /// Reads the field of a `spread` strategy: `instanceId`, its alias `host`, or `attribute:NAME`.
    pub fn spread(field: &str) -> Option<Strategy> {
        match field.strip_prefix("attribute:") {
            Some(name) => (!name.is_empty()).then(|| Strategy::SpreadAttribute(name.to_owned())),
            None => matches!(field, "instanceId" | "host").then_some(Strategy::SpreadInstance),
        }
    }

    /// Reads the field of a `binpack` strategy: `cpu` or `memory`, in any case.
    pub fn binpack(field: &str) -> Option<Strategy> {
        match field.to_ascii_lowercase().as_str() {
            "cpu" => Some(Strategy::BinpackCpu),
            "memory" => Some(Strategy::BinpackMemory),
            _ => None,
        }
    }
}

/// Why an instance cannot take a task, in the order of the checks: who fails at a later one came closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Inactive,
    Agent,
    Attribute,
    MemberOf,
    DistinctInstance,
    Cpu,
    Memory,
    Ports,
    Gpu,
    /// No address is left for a network interface of the task's own.
    Eni,
}

impl Refusal {
    /// The `reason` of a failure that RunTask and StartTask answer.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Inactive => "INACTIVE",
            Refusal::Agent => "AGENT",
            Refusal::Attribute => "ATTRIBUTE",
            Refusal::MemberOf => "MemberOf placement constraint unsatisfied.",
            Refusal::DistinctInstance => "DistinctInstance placement constraint unsatisfied.",
            Refusal::Cpu => "RESOURCE:CPU",
            Refusal::Memory => "RESOURCE:MEMORY",
            Refusal::Ports => "RESOURCE:PORTS",
            Refusal::Gpu => "RESOURCE:GPU",
            Refusal::Eni => "RESOURCE:ENI",
        }
    }

    /// What a service's event says of the instance that came closest.
    fn explanation(self) -> String {
        match self {
            Refusal::Cpu => "has insufficient CPU units available.".to_owned(),
            Refusal::Memory => "has insufficient memory available.".to_owned(),
            Refusal::Ports => "is already using a port required by your task.".to_owned(),
            Refusal::Gpu => "has insufficient GPU resource available.".to_owned(),
            Refusal::Attribute => "is missing an attribute required by your task.".to_owned(),
            Refusal::Inactive
            | Refusal::Agent
            | Refusal::MemberOf
            | Refusal::DistinctInstance
            | Refusal::Eni => {
                format!("encountered error \"{}\".", self.reason().trim_end_matches('.'))
            }
        }
    }
}

/// What came of a request for some tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<K> {
    /// The instance of each task that found one.
    pub on: Vec<K>,
    /// Why the next one found none; only when there are fewer than were asked for.
    pub refusals: Option<Refusals<K>>,
}

/// Where instances were looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Among {
    Cluster,
    CapacityProvider,
}

/// Why no instance took a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals<K> {
    /// How many instances were ruled out for each reason.
    pub counts: BTreeMap<Refusal, u32>,
    /// The instance that passed the most checks; none where there are no instances.
    pub closest: Option<(K, Refusal)>,
}

impl<K> Default for Refusals<K> {
    fn default() -> Self {
        Refusals { counts: BTreeMap::new(), closest: None }
    }
}

impl<K> Refusals<K> {
    /// Counts an instance that was ruled out.
    pub fn add(&mut self, key: &K, refusal: Refusal)
    where
        K: Clone,
    {
        *self.counts.entry(refusal).or_default() += 1;
        if self.closest.as_ref().is_none_or(|(_, closest)| *closest < refusal) {
            self.closest = Some((key.clone(), refusal));
        }
    }

    /// The event of a service that cannot place a task; `id` is the closest instance's.
    pub fn service_event(&self, service: &str, among: Among, id: impl FnOnce(&K) -> String) -> String {
        let why = match (&self.closest, among) {
            (None, Among::CapacityProvider) => {
                return format!(
                    "(service {service}) was unable to reach steady state. Reason: No Container Instances were found in \
                     your capacity provider."
                );
            }
            (None, Among::Cluster) => "Reason: No Container Instances were found in your cluster.".to_owned(),
            (Some((key, refusal)), _) => {
                format!("The closest matching (container-instance {}) {}", id(key), refusal.explanation())
            }
        };
        format!(
            "(service {service}) was unable to place a task because no container instance met all of its \
             requirements. {why} For more information, see the Troubleshooting section of the Amazon ECS \
             Developer Guide."
        )
    }
}
