//! The instances of a cluster with what is free on them; tasks are placed on it and released from it.

use super::{Constraint, HostPort, Refusal, Refusals, Request, Strategy};
use crate::query::Candidate;
use crate::random::Random;
use crate::time::Timestamp;
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A container instance as placement sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// ACTIVE: neither draining nor deregistered.
    pub active: bool,
    pub connected: bool,
    /// What is not taken. Negative when an instance registered again with less than its tasks hold.
    pub free_cpu: i64,
    /// MiB.
    pub free_memory: i64,
    /// Reserved at registration or held by tasks.
    pub used_ports: BTreeSet<HostPort>,
    pub attributes: Arc<BTreeMap<String, Option<String>>>,
    /// How many tasks of each group are here; no entry is zero.
    pub groups: BTreeMap<String, u32>,
    pub agent_version: String,
    pub ec2_instance_id: Option<String>,
    pub registered_at: Timestamp,
}

impl Host {
    /// The first check that the instance fails, if any.
    pub fn refuses(&self, request: &Request) -> Option<Refusal> {
        self.refuses_for_good(request).or_else(|| self.refuses_now(request))
    }

    /// Checks whose outcome no placement of the same request can change.
    fn refuses_for_good(&self, request: &Request) -> Option<Refusal> {
        if !self.active {
            return Some(Refusal::Inactive);
        }
        if !self.connected {
            return Some(Refusal::Agent);
        }
        let has = |(name, value): (&String, &Option<String>)| {
            self.attributes.get(name).is_some_and(|own| value.is_none() || own == value)
        };
        if !request.attributes.iter().all(has) {
            return Some(Refusal::Attribute);
        }
        let fails = |constraint: &Constraint| match constraint {
            Constraint::MemberOf(query) => !query.depends_on_tasks() && !query.matches(self),
            Constraint::DistinctInstance => false,
        };
        request.constraints.iter().any(fails).then_some(Refusal::MemberOf)
    }

    /// Checks that depend on the tasks that are here.
    fn refuses_now(&self, request: &Request) -> Option<Refusal> {
        for constraint in &request.constraints {
            match constraint {
                Constraint::MemberOf(query) if query.depends_on_tasks() && !query.matches(self) => {
                    return Some(Refusal::MemberOf);
                }
                Constraint::DistinctInstance if self.tasks_of(&request.group) > 0 => {
                    return Some(Refusal::DistinctInstance);
                }
                _ => {}
            }
        }
        if self.free_cpu < i64::from(request.cpu) {
            Some(Refusal::Cpu)
        } else if self.free_memory < i64::from(request.memory) {
            Some(Refusal::Memory)
        } else if request.ports.iter().any(|port| self.used_ports.contains(port)) {
            Some(Refusal::Ports)
        } else {
            None
        }
    }

    pub(super) fn tasks_of(&self, group: &str) -> u32 {
        self.groups.get(group).copied().unwrap_or(0)
    }

    fn take(&mut self, request: &Request) {
        self.free_cpu -= i64::from(request.cpu);
        self.free_memory -= i64::from(request.memory);
        self.used_ports.extend(request.ports.iter().copied());
        *self.groups.entry(request.group.clone()).or_default() += 1;
    }

    fn give_back(&mut self, request: &Request) {
        self.free_cpu += i64::from(request.cpu);
        self.free_memory += i64::from(request.memory);
        for port in &request.ports {
            self.used_ports.remove(port);
        }
        if let Some(count) = self.groups.get_mut(&request.group) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.groups.remove(&request.group);
            }
        }
    }
}

impl Candidate for Host {
    fn agent_connected(&self) -> bool {
        self.connected
    }

    fn agent_version(&self) -> &str {
        &self.agent_version
    }

    fn ec2_instance_id(&self) -> Option<&str> {
        self.ec2_instance_id.as_deref()
    }

    fn registered_at(&self) -> Timestamp {
        self.registered_at
    }

    fn running_tasks_count(&self) -> u64 {
        self.groups.values().map(|count| u64::from(*count)).sum()
    }

    fn any_task_group(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.groups.keys().any(|group| condition(group))
    }

    fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.attributes.get(name).map(Option::as_deref)
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

/// The instances of one cluster. A clone shares what does not change, so that transactions can work on their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool<K: Ord + Clone> {
    hosts: OrdMap<K, Host>,
}

impl<K: Ord + Clone> Default for Pool<K> {
    fn default() -> Self {
        Pool { hosts: OrdMap::new() }
    }
}

/// How good an instance is by each strategy in turn: the smallest wins.
type Rank = [i64; STRATEGIES_MAX];

/// ECS's own limit. Strategies beyond it are not looked at.
const STRATEGIES_MAX: usize = 5;

/// What one strategy looks at, prepared for a whole request.
enum Measure {
    Instance,
    /// By candidate: its bucket, an index of the counts.
    Bucket {
        of: Vec<usize>,
        counts: Vec<i64>,
    },
    Cpu,
    Memory,
}

/// An instance in the running for a request.
struct Candidacy<'a, K> {
    /// Its place among all instances.
    index: usize,
    key: &'a K,
    host: &'a Host,
    /// With the tasks that this request has put there.
    changed: Option<Host>,
}

impl<K> Candidacy<'_, K> {
    fn now(&self) -> &Host {
        self.changed.as_ref().unwrap_or(self.host)
    }
}

impl<K: Ord + Clone> Pool<K> {
    pub fn put(&mut self, key: K, host: Host) {
        self.hosts.insert(key, host);
    }

    pub fn remove(&mut self, key: &K) -> Option<Host> {
        self.hosts.remove(key)
    }

    pub fn host(&self, key: &K) -> Option<&Host> {
        self.hosts.get(key)
    }

    /// Counts a task that is on the instance already, checks or not: how a pool is built from what runs.
    pub fn take(&mut self, key: &K, request: &Request) {
        if let Some(host) = self.hosts.get_mut(key) {
            host.take(request);
        }
    }

    /// Gives back what a task held.
    pub fn release(&mut self, key: &K, request: &Request) {
        if let Some(host) = self.hosts.get_mut(key) {
            host.give_back(request);
        }
    }

    /// Places up to `count` tasks that ask the same, one after the other. Who still equals after all strategies is
    /// chosen at random. Constraints on attributes are evaluated once per instance, not per task.
    pub fn place(&mut self, request: &Request, count: usize, random: &mut dyn Random) -> Placed<K> {
        let mut refusals = Refusals::default();
        let mut measures = self.measures(request);
        let mut candidates: Vec<Candidacy<'_, K>> = Vec::new();
        for (index, (key, host)) in self.hosts.iter().enumerate() {
            match host.refuses_for_good(request) {
                Some(refusal) => refusals.add(key, refusal),
                None => candidates.push(Candidacy { index, key, host, changed: None }),
            }
        }
        // A task changes only the instance that it lands on: all others keep their answer and their rank, but for
        // the buckets that they share.
        let judge = |measures: &[Measure], index: usize, host: &Host| {
            host.refuses_now(request).is_none().then(|| rank(measures, index, host, request))
        };
        let mut ranks: Vec<Option<Rank>> =
            candidates.iter().map(|candidate| judge(&measures, candidate.index, candidate.host)).collect();
        let mut on = Vec::new();
        let mut equals = Vec::new();
        while on.len() < count {
            let mut best: Option<Rank> = None;
            equals.clear();
            for (position, rank) in ranks.iter().enumerate() {
                let Some(rank) = *rank else { continue };
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                    equals.clear();
                }
                if best == Some(rank) {
                    equals.push(position);
                }
            }
            if equals.is_empty() {
                for candidate in &candidates {
                    if let Some(refusal) = candidate.now().refuses_now(request) {
                        refusals.add(candidate.key, refusal);
                    }
                }
                break;
            }
            let chosen = equals[random.below(equals.len())];
            let candidate = &mut candidates[chosen];
            candidate.changed.get_or_insert_with(|| candidate.host.clone()).take(request);
            on.push(candidate.key.clone());
            let index = candidate.index;
            for (slot, measure) in measures.iter_mut().enumerate() {
                let Measure::Bucket { of, counts } = measure else { continue };
                counts[of[index]] += 1;
                for (other, rank) in candidates.iter().zip(&mut ranks) {
                    if let Some(rank) = rank.as_mut().filter(|_| of[other.index] == of[index]) {
                        rank[slot] += 1;
                    }
                }
            }
            ranks[chosen] = judge(&measures, index, candidates[chosen].now());
        }
        let changed: Vec<(K, Host)> = candidates
            .into_iter()
            .filter_map(|candidate| Some((candidate.key.clone(), candidate.changed?)))
            .collect();
        self.hosts.extend(changed);
        let refusals = (on.len() < count).then_some(refusals);
        Placed { on, refusals }
    }

    /// Nothing after a random strategy has a say: random leaves no equals.
    fn measures(&self, request: &Request) -> Vec<Measure> {
        let ranked = request.strategies.iter().take_while(|strategy| **strategy != Strategy::Random);
        let measure = |strategy: &Strategy| match strategy {
            Strategy::SpreadAttribute(name) => Some(self.buckets(name, &request.group)),
            Strategy::SpreadInstance => Some(Measure::Instance),
            Strategy::BinpackCpu => Some(Measure::Cpu),
            Strategy::BinpackMemory => Some(Measure::Memory),
            Strategy::Random => None,
        };
        ranked.take(STRATEGIES_MAX).filter_map(measure).collect()
    }

    fn buckets(&self, attribute: &str, group: &str) -> Measure {
        let mut known: BTreeMap<Option<Option<&str>>, usize> = BTreeMap::new();
        let (mut of, mut counts) = (Vec::with_capacity(self.hosts.len()), Vec::new());
        for host in self.hosts.values() {
            let bucket = *known.entry(host.attribute(attribute)).or_insert_with(|| {
                counts.push(0);
                counts.len() - 1
            });
            counts[bucket] += i64::from(host.tasks_of(group));
            of.push(bucket);
        }
        Measure::Bucket { of, counts }
    }
}

fn rank(measures: &[Measure], index: usize, host: &Host, request: &Request) -> Rank {
    let mut rank = Rank::default();
    for (value, measure) in rank.iter_mut().zip(measures) {
        *value = match measure {
            Measure::Instance => i64::from(host.tasks_of(&request.group)),
            Measure::Bucket { of, counts } => counts[of[index]],
            Measure::Cpu => host.free_cpu,
            Measure::Memory => host.free_memory,
        };
    }
    rank
}
