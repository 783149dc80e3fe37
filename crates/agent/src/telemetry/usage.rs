//! What containers use: samples taken every few seconds, kept until they are reported.

use crate::runtime::cgroup::Stats;
use crate::runtime::{ContainerId, Runtime, RuntimeError};
use gantry_decide::time::Timestamp;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::time::Duration;

/// Samples kept of a container: those of one report, those of the last, and one to compare the first with. The stock
/// agent keeps more, at one a second.
const SAMPLES_MAX: usize = 16;
/// Nanoseconds of the kernel's clock tick, in which `/proc/stat` counts: 100 Hz for programs on every Linux.
const TICK_NANOS: u64 = 10_000_000;

/// Counters of the interfaces of a network namespace, by name, loopback left out.
pub type Interfaces = BTreeMap<String, Traffic>;

/// An interface's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl std::ops::Add for Traffic {
    type Output = Traffic;

    fn add(self, other: Traffic) -> Traffic {
        Traffic {
            rx_bytes: self.rx_bytes + other.rx_bytes,
            rx_packets: self.rx_packets + other.rx_packets,
            rx_errors: self.rx_errors + other.rx_errors,
            rx_dropped: self.rx_dropped + other.rx_dropped,
            tx_bytes: self.tx_bytes + other.tx_bytes,
            tx_packets: self.tx_packets + other.tx_packets,
            tx_errors: self.tx_errors + other.tx_errors,
            tx_dropped: self.tx_dropped + other.tx_dropped,
        }
    }
}

/// What a container had used at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub at: Timestamp,
    pub stats: Stats,
    /// Nanoseconds of CPU time of the whole host, idle time included.
    pub host_cpu_nanos: u64,
    /// Empty where the container has no network of its own.
    pub interfaces: Interfaces,
}

impl Sample {
    /// Bytes of memory without the part of the file cache that the kernel gives up first.
    pub fn memory(&self) -> u64 {
        self.stats.memory_bytes.saturating_sub(self.stats.inactive_file_bytes)
    }

    /// Percent of the whole host's CPU time since an earlier sample; `None` when no time has passed.
    pub fn cpu_percent_since(&self, earlier: &Sample) -> Option<f64> {
        let seconds = self.at.since(earlier.at).as_secs_f64();
        let used = self.stats.cpu_nanos.saturating_sub(earlier.stats.cpu_nanos) as f64 / 1e9;
        (seconds > 0.0).then(|| 100.0 * used / seconds / f64::from(cores()))
    }

    /// Bytes a second that were received and sent since an earlier sample.
    pub fn rates_since(&self, earlier: &Sample) -> Option<(f64, f64)> {
        let seconds = self.at.since(earlier.at).as_secs_f64();
        let (now, then) = (self.traffic()?, earlier.traffic()?);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (seconds > 0.0).then(|| (rate(now.rx_bytes, then.rx_bytes), rate(now.tx_bytes, then.tx_bytes)))
    }

    /// Of all interfaces together; `None` without any.
    pub fn traffic(&self) -> Option<Traffic> {
        self.interfaces.values().copied().reduce(std::ops::Add::add)
    }
}

pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Takes samples, and remembers the latest of each container.
pub struct Usage<R> {
    runtime: R,
    history: Mutex<BTreeMap<ContainerId, VecDeque<Sample>>>,
}

impl<R: Runtime> Usage<R> {
    pub fn new(runtime: R) -> Usage<R> {
        Usage { runtime, history: Mutex::default() }
    }

    /// Looks what a container has used until now. `pid` is a process of a container with a network of its own.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn look(&self, id: &ContainerId, pid: Option<i32>) -> Result<Sample, RuntimeError> {
        let stats = self.runtime.stats(id).await?;
        let interfaces = pid.map(interfaces_of).unwrap_or_default();
        Ok(Sample { at: crate::driver::now(), stats, host_cpu_nanos: host_cpu_nanos(), interfaces })
    }

    /// Looks, and keeps what it saw for the next report. A container that does not run has nothing to keep.
    pub async fn sample(&self, id: &ContainerId, pid: Option<i32>) {
        let Ok(sample) = self.look(id, pid).await else { return };
        let mut history = self.history.lock();
        let samples = history.entry(id.clone()).or_default();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The latest sample that is at least so old; for comparisons.
    pub fn before(&self, id: &ContainerId, now: Timestamp, age: Duration) -> Option<Sample> {
        let history = self.history.lock();
        history.get(id)?.iter().rev().find(|sample| now.since(sample.at) >= age).cloned()
    }

    /// The samples since `last`, which itself comes first when it is still known.
    pub fn since(&self, id: &ContainerId, last: Option<Timestamp>) -> Vec<Sample> {
        let history = self.history.lock();
        let samples = history.get(id).into_iter().flatten();
        samples.filter(|sample| last.is_none_or(|last| sample.at >= last)).cloned().collect()
    }

    /// Forgets all containers but these.
    pub fn retain(&self, running: impl Fn(&ContainerId) -> bool) {
        self.history.lock().retain(|id, _| running(id));
    }
}

fn host_cpu_nanos() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // The last two, a guest's time, are counted in the first two already.
    let ticks = line.split_ascii_whitespace().skip(1).take(8).filter_map(|number| number.parse::<u64>().ok());
    ticks.sum::<u64>() * TICK_NANOS
}

fn interfaces_of(pid: i32) -> Interfaces {
    read_interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn read_interfaces(text: &str) -> Interfaces {
    let line = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let numbers: Vec<u64> = counters.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            _,
            _,
            _,
            _,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
            ..,
        ] = numbers[..]
        else {
            return None;
        };
        let traffic = Traffic {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        };
        Some((name.trim().to_owned(), traffic))
    };
    text.lines().filter_map(line).filter(|(name, _)| name != "lo").collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample(at: i64, cpu_nanos: u64, rx_bytes: u64) -> Sample {
        let traffic = Traffic { rx_bytes, ..Traffic::default() };
        Sample {
            at: Timestamp::from_millis(at),
            stats: Stats {
                cpu_nanos,
                memory_bytes: 10 << 20,
                inactive_file_bytes: 4 << 20,
                ..Stats::default()
            },
            host_cpu_nanos: 0,
            interfaces: BTreeMap::from([("eth0".to_owned(), traffic)]),
        }
    }

    #[test]
    fn use_is_told_in_parts_of_the_host_and_by_the_second() {
        let (first, second) = (sample(0, 0, 1000), sample(2000, 1_000_000_000, 5000));
        let whole = second.cpu_percent_since(&first).unwrap() * f64::from(cores());
        assert!((whole - 50.0).abs() < 1e-9, "{whole}");
        assert_eq!(second.rates_since(&first), Some((2000.0, 0.0)));
        assert_eq!(second.memory(), 6 << 20);
        assert_eq!(first.cpu_percent_since(&first), None);
    }

    #[test]
    fn interfaces_are_read_without_loopback() {
        let text = "Inter-|   Receive                                                |  Transmit\n\
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n\
                    lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\n\
                    eth0:   100     2    3    4    0     0          0         0   500     6    7    8    0     0       0          0\n";
        let read = read_interfaces(text);
        let expected = Traffic {
            rx_bytes: 100,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 500,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
        };
        assert_eq!(read, BTreeMap::from([("eth0".to_owned(), expected)]));
    }
}
