//! The state of a pool's instances up to some change: figures in one plain array, all that seldom changes beside it.
//!
//! Tasks are counted by group first and instance second: who places tasks of a group asks for few instances then, however
//! many tasks of others there are.

use super::groups::Groups;
use super::log::{Change, What};
use super::stock::Free;
use super::{Host, HostPort, Profile};
use imbl::OrdMap;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// See the module. Instances go by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    free: Vec<Free>,
    /// Of all numbers that are not vacant.
    fixed: OrdMap<u32, Fixed>,
    /// No count is zero, and no group without tasks.
    groups: OrdMap<Arc<str>, OrdMap<u32, u32>>,
}

#[derive(Clone, Debug)]
struct Fixed {
    profile: Arc<Profile>,
    used_ports: Arc<BTreeSet<HostPort>>,
}

/// A change of the count of a group's tasks on an instance.
type Counted<'a> = (&'a Arc<str>, u32, i64);

impl Settled {
    /// The instance, which goes on to look up its tasks here.
    pub fn host(self: &Arc<Self>, number: u32) -> Option<Host> {
        let (fixed, free) = (self.fixed.get(&number)?, self.free(number));
        Some(Host {
            profile: Arc::clone(&fixed.profile),
            free_cpu: free.cpu,
            free_memory: free.memory,
            free_gpus: i64::from(free.gpus),
            used_ports: Arc::clone(&fixed.used_ports),
            groups: Groups::settled(Arc::clone(self), number, free.tasks),
        })
    }

    fn free(&self, number: u32) -> Free {
        self.free.get(number as usize).copied().unwrap_or_default()
    }

    pub fn profile(&self, number: u32) -> Option<&Arc<Profile>> {
        self.fixed.get(&number).map(|fixed| &fixed.profile)
    }

    /// How many tasks of a group are on an instance.
    pub fn tasks_on(&self, number: u32, group: &str) -> u32 {
        self.groups.get(group).and_then(|on| on.get(&number)).copied().unwrap_or(0)
    }

    /// The instances with tasks of a group, and how many.
    pub fn tasks_of(&self, group: &str) -> impl Iterator<Item = (u32, u32)> {
        self.groups.get(group).into_iter().flatten().map(|(number, count)| (*number, *count))
    }

    /// How many instances have tasks of a group.
    pub fn instances_with(&self, group: &str) -> usize {
        self.groups.get(group).map_or(0, OrdMap::len)
    }

    /// All groups with tasks somewhere.
    pub fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }

    pub fn groups_on(&self, number: u32) -> impl Iterator<Item = (Arc<str>, u32)> {
        self.groups.iter().filter_map(move |(group, on)| Some((Arc::clone(group), *on.get(&number)?)))
    }

    /// Takes in changes, the oldest first.
    pub fn take_in<'a, K: 'a>(&mut self, changes: impl Iterator<Item = &'a Change<K>>) {
        let mut counted: Vec<Counted<'a>> = Vec::new();
        for Change { number, what } in changes {
            let index = *number as usize;
            if index >= self.free.len() {
                self.free.resize(index + 1, Free::default());
            }
            match what {
                What::Came(held) => {
                    held.take(&mut self.free[index]);
                    if let Some(fixed) = held.has_ports().then(|| self.fixed.get_mut(number)).flatten() {
                        held.take_ports(&mut fixed.used_ports);
                    }
                    counted.push((&held.group, *number, 1));
                }
                What::Went(held) => {
                    held.give_back(&mut self.free[index]);
                    if let Some(fixed) = held.has_ports().then(|| self.fixed.get_mut(number)).flatten() {
                        held.give_ports_back(&mut fixed.used_ports);
                    }
                    counted.push((&held.group, *number, -1));
                }
                What::Is(host) => {
                    self.count(std::mem::take(&mut counted));
                    self.put(*number, host.as_deref().map(|(_, host)| host));
                }
            }
        }
        self.count(counted);
    }

    fn put(&mut self, number: u32, host: Option<&Host>) {
        let groups = host.map_or_else(BTreeMap::new, |host| host.groups.to_map());
        let index = number as usize;
        let (before, tasks) = (self.free[index].tasks, groups.values().sum());
        // Instances that are put again have the same tasks nearly always.
        let same =
            before == tasks && groups.iter().all(|(group, count)| self.tasks_on(number, group) == *count);
        if !same {
            let old: Vec<(Arc<str>, u32)> =
                if before == 0 { Vec::new() } else { self.groups_on(number).collect() };
            let gone = old.iter().map(|(group, count)| (group, number, -i64::from(*count)));
            let come = groups.iter().map(|(group, count)| (group, number, i64::from(*count)));
            self.count(gone.chain(come).collect());
        }
        match host {
            Some(host) => {
                self.free[index] = Free { tasks, ..host.free() };
                let (profile, used_ports) = (Arc::clone(&host.profile), Arc::clone(&host.used_ports));
                self.fixed.insert(number, Fixed { profile, used_ports });
            }
            None => {
                self.free[index] = Free::default();
                self.fixed.remove(&number);
            }
        }
    }

    /// Most of what comes goes again: what is left is counted once for each group and instance.
    fn count(&mut self, mut counted: Vec<Counted<'_>>) {
        let by_group = |one: &Arc<str>, other: &Arc<str>| {
            if Arc::ptr_eq(one, other) { Ordering::Equal } else { one.cmp(other) }
        };
        counted.sort_unstable_by(|one, other| by_group(one.0, other.0).then(one.1.cmp(&other.1)));
        for of_group in counted.chunk_by(|one, other| by_group(one.0, other.0).is_eq()) {
            let group = of_group[0].0;
            let on_each = of_group.chunk_by(|one, other| one.1 == other.1);
            let sums = on_each.map(|same| (same[0].1, same.iter().map(|(.., more)| more).sum::<i64>()));
            let sums: Vec<(u32, i64)> = sums.filter(|(_, more)| *more != 0).collect();
            if sums.is_empty() {
                continue;
            }
            let on = self.groups.entry(Arc::clone(group)).or_default();
            for (number, more) in sums {
                let count = i64::from(on.get(&number).copied().unwrap_or(0)) + more;
                match u32::try_from(count) {
                    Ok(count) if count > 0 => drop(on.insert(number, count)),
                    _ => drop(on.remove(&number)),
                }
            }
            if on.is_empty() {
                self.groups.remove(group);
            }
        }
    }
}
