//! Campaigns: many seeds on all processors, and a sum of what they were put through.

use crate::fleet::Report;
use crate::trial::attempt_all;
use std::fmt::{self, Display, Formatter};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many seeds are run, whichever ends first.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    pub first: u64,
    pub seeds: u64,
    pub time: Duration,
    /// So many are run however long it takes: fewer prove little.
    pub least: u64,
}

/// What came of a campaign.
#[derive(Debug, Default)]
pub struct Total {
    pub held: u64,
    /// In the order in which they failed, each with what was seen.
    pub failed: Vec<(u64, String)>,
    /// Of those that held. Its hash is of no run.
    pub sum: Report,
    pub took: Duration,
}

impl Campaign {
    /// Runs it; `told` hears of each failure at once.
    pub fn run(self, told: impl Fn(u64, &str) + Sync) -> Total {
        let start = Instant::now();
        let next = AtomicU64::new(0);
        let total = Mutex::new(Total::default());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.seeds || index >= self.least && start.elapsed() >= self.time {
                    return;
                }
                let seed = self.first + index;
                let outcome = attempt_all(seed);
                let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match outcome {
                    Ok(report) => total.add(report),
                    Err(failure) => {
                        told(seed, &failure);
                        total.failed.push((seed, failure));
                    }
                }
            }
        };
        on_all_processors(&work);
        let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        total.took = start.elapsed();
        total
    }
}

/// Does the same on as many threads as there are processors, or as the environment says.
pub(crate) fn on_all_processors(work: &(impl Fn() + Sync)) {
    let told = std::env::var("GANTRY_SIM_THREADS").ok().and_then(|text| text.parse().ok());
    let threads =
        told.or_else(|| std::thread::available_parallelism().ok()).map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
}

impl Total {
    fn add(&mut self, report: Report) {
        self.held += 1;
        self.sum.simulated += report.simulated;
        self.sum.events += report.events;
        self.sum.told += report.told;
        self.sum.launched += report.launched;
        for (fault, count) in report.faults {
            *self.sum.faults.entry(fault).or_default() += count;
        }
    }
}

impl Display for Total {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Total { held, failed, sum, took } = self;
        let failed: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        writeln!(f, "{held} seeds held, {} failed: {failed:?}", failed.len())?;
        let (simulated, took) = (sum.simulated as f64 / 1000.0, took.as_secs_f64());
        writeln!(
            f,
            "{:.0} cluster-hours in {took:.0} s, {:.0} times real time; {} events, {} answers, {} tasks launched",
            simulated / 3600.0,
            simulated / took.max(f64::EPSILON),
            sum.events,
            sum.told,
            sum.launched
        )?;
        sum.faults.iter().try_for_each(|(fault, count)| writeln!(f, "{count:>8} {fault}"))
    }
}
