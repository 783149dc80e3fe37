//! From samples of containers to what a report says of them.

use super::usage::{Sample, Traffic, Usage};
use crate::driver::{ContainerSnapshot, TaskSnapshot};
use crate::runtime::{ContainerId, Runtime};
use gantry_api::tcs::{
    ContainerMetric, CounterSet, NetworkStatsSet, RestartStatsSet, StatsSet, StorageStatsSet, TaskMetric,
};
use gantry_decide::time::Timestamp;
use std::collections::BTreeMap;

const BYTES_PER_MIB: u64 = 1 << 20;

/// What was reported of each container last.
#[derive(Debug, Default)]
pub struct Reported(BTreeMap<ContainerId, (Timestamp, u32)>);

impl Reported {
    /// What is new of these tasks. Containers without two samples since the last report have nothing to tell.
    pub fn since_last<R: Runtime>(&mut self, usage: &Usage<R>, tasks: &[TaskSnapshot]) -> Vec<TaskMetric> {
        let mut next = BTreeMap::new();
        let mut found = Vec::new();
        for task in tasks {
            let mut metrics = Vec::new();
            for one in &task.containers {
                let last = self.0.get(&one.id).copied();
                let samples = usage.since(&one.id, last.map(|(at, _)| at));
                match (metric(one, &samples, last.map_or(0, |(_, restarts)| restarts)), samples.last()) {
                    (Some(metric), Some(latest)) => {
                        next.insert(one.id.clone(), (latest.at, one.restarts));
                        metrics.push(metric);
                    }
                    _ => next.extend(last.map(|last| (one.id.clone(), last))),
                }
            }
            if !metrics.is_empty() {
                let payload = task.known.task();
                found.push(TaskMetric {
                    task_arn: Some(task.arn.0.clone()),
                    task_definition_family: payload.family.clone(),
                    task_definition_version: payload.version.clone(),
                    container_metrics: Some(metrics),
                });
            }
        }
        self.0 = next;
        found
    }
}

/// The first sample is only there to compare with.
fn metric(one: &ContainerSnapshot, samples: &[Sample], restarts: u32) -> Option<ContainerMetric> {
    let pairs: Vec<(&Sample, &Sample)> = samples.windows(2).map(|pair| (&pair[0], &pair[1])).collect();
    if pairs.is_empty() {
        return None;
    }
    let latest = || pairs.iter().map(|(_, now)| *now);
    let storage = StorageStatsSet {
        read_size_bytes: counters(latest().map(|now| now.stats.read_bytes)),
        write_size_bytes: counters(latest().map(|now| now.stats.written_bytes)),
    };
    let again = one.restarts.saturating_sub(restarts);
    Some(ContainerMetric {
        container_name: Some(one.name.clone()),
        cpu_stats_set: values(pairs.iter().filter_map(|(before, now)| now.cpu_percent_since(before))),
        // Whole MiB, as the stock agent tells it.
        memory_stats_set: values(latest().map(|now| (now.memory() / BYTES_PER_MIB) as f64)),
        network_stats_set: network(&pairs),
        storage_stats_set: Some(storage),
        restart_stats_set: (again > 0).then(|| RestartStatsSet { restart_count: Some(i64::from(again)) }),
    })
}

/// `None` where the container has no network of its own.
fn network(pairs: &[(&Sample, &Sample)]) -> Option<NetworkStatsSet> {
    let traffic: Vec<Traffic> = pairs.iter().filter_map(|(_, now)| now.traffic()).collect();
    if traffic.is_empty() {
        return None;
    }
    let of = |what: fn(&Traffic) -> u64| counters(traffic.iter().map(what));
    let rates: Vec<(f64, f64)> = pairs.iter().filter_map(|(before, now)| now.rates_since(before)).collect();
    Some(NetworkStatsSet {
        rx_bytes: of(|t| t.rx_bytes),
        rx_packets: of(|t| t.rx_packets),
        rx_errors: of(|t| t.rx_errors),
        rx_dropped: of(|t| t.rx_dropped),
        tx_bytes: of(|t| t.tx_bytes),
        tx_packets: of(|t| t.tx_packets),
        tx_errors: of(|t| t.tx_errors),
        tx_dropped: of(|t| t.tx_dropped),
        rx_bytes_per_second: values(rates.iter().map(|(received, _)| *received)),
        tx_bytes_per_second: values(rates.iter().map(|(_, sent)| *sent)),
    })
}

fn values(all: impl Iterator<Item = f64>) -> Option<StatsSet> {
    let all: Vec<f64> = all.collect();
    let least = all.iter().copied().reduce(f64::min)?;
    Some(StatsSet {
        min: Some(least),
        max: all.iter().copied().reduce(f64::max),
        sum: Some(all.iter().sum()),
        sample_count: i32::try_from(all.len()).ok(),
    })
}

/// What does not fit a signed number goes into the members for overflow.
fn counters(all: impl Iterator<Item = u64>) -> Option<CounterSet> {
    const MAX: u64 = i64::MAX as u64;
    let all: Vec<u64> = all.collect();
    let sum = all.iter().fold(0u64, |sum, one| sum.saturating_add(*one));
    let split = |value: u64| {
        let over = value.saturating_sub(MAX);
        (Some(value.min(MAX).cast_signed()), (over > 0).then(|| over.cast_signed()))
    };
    let ((min, overflow_min), (max, overflow_max)) = (split(*all.iter().min()?), split(*all.iter().max()?));
    let (sum, overflow_sum) = split(sum);
    let sample_count = i32::try_from(all.len()).ok();
    Some(CounterSet { min, overflow_min, max, overflow_max, sum, overflow_sum, sample_count })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn counters_beyond_the_signed_range_overflow() {
        let set = counters([5, u64::MAX].into_iter()).unwrap();
        assert_eq!((set.min, set.overflow_min), (Some(5), None));
        assert_eq!((set.max, set.overflow_max), (Some(i64::MAX), Some(i64::MIN)));
        assert_eq!(set.sample_count, Some(2));
        assert_eq!(counters([].into_iter()), None);
        let set = values([1.0, 4.0].into_iter()).unwrap();
        assert_eq!((set.min, set.max, set.sum, set.sample_count), (Some(1.0), Some(4.0), Some(5.0), Some(2)));
    }
}
