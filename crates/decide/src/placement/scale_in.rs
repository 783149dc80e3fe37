//! Which tasks a service gives up first when it has too many: the mirror image of placement.

use super::{Host, Pool, Strategy};
use crate::random::Random;
use std::cmp::Ordering;
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
    let keys: BTreeSet<&K> = tasks.iter().filter_map(|task| task.host.as_ref()).collect();
    let hosts: Hosts<'_, K> = keys.into_iter().map(|key| (key, pool.host(key))).collect();
    let ranked = strategies.iter().take_while(|strategy| **strategy != Strategy::Random);
    let mut measures: Vec<Measure> = ranked.map(|strategy| Measure::of(strategy, tasks, &hosts)).collect();
    let mut left: Vec<usize> = (0..tasks.len()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let rank = |task: usize| {
            let values = measures.iter().map(move |measure| measure.value(task));
            std::iter::once(i64::from(tasks[task].pending)).chain(values)
        };
        // Positions in `left` of those that equal the best.
        let mut equals: Vec<usize> = Vec::new();
        for (position, task) in left.iter().enumerate().filter(|(_, task)| !tasks[**task].protected) {
            match equals.first().map_or(Ordering::Equal, |best| rank(*task).cmp(rank(left[*best]))) {
                Ordering::Less => continue,
                Ordering::Equal => {}
                Ordering::Greater => equals.clear(),
            }
            equals.push(position);
        }
        if equals.is_empty() {
            break;
        }
        let task = left.remove(equals[random.below(equals.len())]);
        measures.iter_mut().for_each(|measure| measure.goes(task));
        chosen.push(tasks[task].id.clone());
    }
    chosen
}

/// The instances that tasks are on, as far as they are known.
type Hosts<'a, K> = BTreeMap<&'a K, Option<Host>>;

/// How much a strategy wants each task gone. What tasks share is kept once, so that to take one away costs nothing more.
struct Measure {
    /// By task, the place in `shared`.
    at: Vec<usize>,
    /// Of spread how many tasks are left in the bucket, of binpack what is free on the instance.
    shared: Vec<i64>,
    /// By task, what it adds to that as it goes.
    gives: Vec<i64>,
    /// Whether what it would give is counted before it goes.
    ahead: bool,
}

impl Measure {
    fn of<T, K: Ord>(strategy: &Strategy, tasks: &[ServiceTask<T, K>], hosts: &Hosts<'_, K>) -> Measure {
        let host = |task: &ServiceTask<T, K>| task.host.as_ref().and_then(|key| hosts.get(key)?.as_ref());
        match strategy {
            Strategy::SpreadInstance | Strategy::Random => {
                Measure::spread(tasks.iter().map(|task| task.host.as_ref()))
            }
            Strategy::SpreadAttribute(name) => {
                Measure::spread(tasks.iter().map(|task| host(task).and_then(|host| host.attribute(name))))
            }
            Strategy::BinpackCpu => {
                let free = |task: &ServiceTask<T, K>| host(task).map_or(0, |host| host.free_cpu);
                Measure::binpack(tasks, free, |task| i64::from(task.cpu))
            }
            Strategy::BinpackMemory => {
                let free = |task: &ServiceTask<T, K>| host(task).map_or(0, |host| host.free_memory);
                Measure::binpack(tasks, free, |task| i64::from(task.memory))
            }
        }
    }

    fn spread<B: Ord>(buckets: impl Iterator<Item = B>) -> Measure {
        let (mut numbers, mut at, mut shared) = (BTreeMap::new(), Vec::new(), Vec::new());
        for bucket in buckets {
            let number = *numbers.entry(bucket).or_insert(shared.len());
            if number == shared.len() {
                shared.push(0);
            }
            shared[number] += 1;
            at.push(number);
        }
        let gives = vec![-1; at.len()];
        Measure { at, shared, gives, ahead: false }
    }

    fn binpack<T, K: Ord>(
        tasks: &[ServiceTask<T, K>],
        free: impl Fn(&ServiceTask<T, K>) -> i64,
        gives: impl Fn(&ServiceTask<T, K>) -> i64,
    ) -> Measure {
        let (mut numbers, mut at, mut shared) = (BTreeMap::new(), Vec::new(), Vec::new());
        for task in tasks {
            // Each task without an instance is by itself.
            let number = match &task.host {
                Some(key) => *numbers.entry(key).or_insert(shared.len()),
                None => shared.len(),
            };
            if number == shared.len() {
                shared.push(free(task));
            }
            at.push(number);
        }
        Measure { at, shared, gives: tasks.iter().map(gives).collect(), ahead: true }
    }

    fn value(&self, task: usize) -> i64 {
        self.shared[self.at[task]] + if self.ahead { self.gives[task] } else { 0 }
    }

    fn goes(&mut self, task: usize) {
        self.shared[self.at[task]] += self.gives[task];
    }
}
