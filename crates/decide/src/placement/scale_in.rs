//! Which tasks a service gives up first when it has too many: the mirror image of placement.

use super::{Host, Pool, Strategy};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// A task of the service that is to shrink.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTask<T, K> {
    pub id: T,
    /// Where it is; none while it has no instance.
    pub host: Option<K>,
    /// Not RUNNING yet: these go first.
    pub pending: bool,
    /// Protected from scale-in: never chosen.
    pub protected: bool,
    /// What it holds and would give back, in CPU units and MiB.
    pub cpu: u32,
    pub memory: u32,
}

/// Chooses up to `count` of the service's tasks, in the order in which they go. Spread takes where the most are,
/// binpack whose instance would have the most left, random anything; equals are decided at random.
pub fn scale_in<T: Clone, K: Ord + Clone>(
    pool: &Pool<K>,
    tasks: &[ServiceTask<T, K>],
    strategies: &[Strategy],
    count: usize,
    random: &mut dyn Random,
) -> Vec<T> {
    let mut left: Vec<&ServiceTask<T, K>> = tasks.iter().collect();
    let keys: BTreeSet<&K> = tasks.iter().filter_map(|task| task.host.as_ref()).collect();
    let hosts: Hosts<'_, K> = keys.into_iter().filter_map(|key| Some((key, pool.host(key)?))).collect();
    let mut freed: BTreeMap<&K, (i64, i64)> = BTreeMap::new();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let ranks = ranks(&hosts, &left, strategies, &freed);
        let choosable = |position: &usize| !left[*position].protected;
        let Some(best) = (0..left.len()).filter(choosable).map(|p| &ranks[p]).max() else { break };
        let equals: Vec<usize> = (0..left.len()).filter(choosable).filter(|p| &ranks[*p] == best).collect();
        let task = left.remove(equals[random.below(equals.len())]);
        if let Some(host) = &task.host {
            let (cpu, memory) = freed.entry(host).or_default();
            *cpu += i64::from(task.cpu);
            *memory += i64::from(task.memory);
        }
        chosen.push(task.id.clone());
    }
    chosen
}

/// The instances that tasks are on.
type Hosts<'a, K> = BTreeMap<&'a K, Host>;

/// By task: how much each strategy wants it gone; the first entry is for pending ones.
fn ranks<T, K: Ord + Clone>(
    hosts: &Hosts<'_, K>,
    tasks: &[&ServiceTask<T, K>],
    strategies: &[Strategy],
    freed: &BTreeMap<&K, (i64, i64)>,
) -> Vec<Vec<i64>> {
    let host = |task: &ServiceTask<T, K>| task.host.as_ref().and_then(|key| hosts.get(key));
    let freed = |task: &ServiceTask<T, K>| {
        task.host.as_ref().and_then(|key| freed.get(key)).copied().unwrap_or_default()
    };
    let mut ranks: Vec<Vec<i64>> = tasks.iter().map(|task| vec![i64::from(task.pending)]).collect();
    for strategy in strategies {
        let values: Vec<i64> = match strategy {
            Strategy::Random => break,
            Strategy::SpreadInstance => sizes(tasks.iter().map(|task| task.host.as_ref())),
            Strategy::SpreadAttribute(name) => {
                sizes(tasks.iter().map(|task| host(task).and_then(|host| host.attribute(name))))
            }
            Strategy::BinpackCpu => {
                let after = |task: &&ServiceTask<T, K>| {
                    host(task).map_or(0, |host| host.free_cpu) + freed(task).0 + i64::from(task.cpu)
                };
                tasks.iter().map(after).collect()
            }
            Strategy::BinpackMemory => {
                let after = |task: &&ServiceTask<T, K>| {
                    host(task).map_or(0, |host| host.free_memory) + freed(task).1 + i64::from(task.memory)
                };
                tasks.iter().map(after).collect()
            }
        };
        for (rank, value) in ranks.iter_mut().zip(values) {
            rank.push(value);
        }
    }
    ranks
}

/// By item: how many share its bucket.
fn sizes<B: Ord>(buckets: impl Iterator<Item = B>) -> Vec<i64> {
    let buckets: Vec<B> = buckets.collect();
    let mut counts: BTreeMap<&B, i64> = BTreeMap::new();
    for bucket in &buckets {
        *counts.entry(bucket).or_default() += 1;
    }
    buckets.iter().map(|bucket| counts[bucket]).collect()
}
