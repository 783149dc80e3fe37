//! Runs fleets from the command line, for as long as one likes, and tells what they were put through.

use gantry_sim::fleet::Report;
use gantry_sim::fleet::plan::{Case, Plan};
use gantry_sim::trial::{attempt, keep_panics, shrink};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const USAGE: &str = "usage: gantry-sim COMMAND

  run [SEEDS] [MINUTES] [FIRST]   runs seeds until so many, or so much time, have passed: 2000, 5, 0
  shrink SEED                     leaves out the steps that a failure does not need
  mutants [SEEDS]                 shows which planted bugs so many seeds find: 300; needs the feature `mutants`";

/// Of the planted bugs, in percent.
#[cfg(feature = "mutants")]
const FOUND_MIN: usize = 95;

/// What all runs did together.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<u64>,
    sum: Report,
}

impl Total {
    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.sum.simulated += report.simulated;
        self.sum.events += report.events;
        self.sum.told += report.told;
        self.sum.launched += report.launched;
        for (fault, count) in report.faults {
            *self.sum.faults.entry(fault).or_default() += count;
        }
    }
}

fn run(seeds: u64, minutes: u64, first: u64) -> ExitCode {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(minutes * 60);
    let next = AtomicU64::new(first);
    let total = Mutex::new(Total::default());
    let work = || {
        while Instant::now() < deadline {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let outcome = attempt(&Case::of(seed), Plan::SMALL);
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match outcome {
                Ok(report) => total.add(report),
                Err(failure) => {
                    println!("seed {seed}: {failure}");
                    total.failed.push(seed);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let Total { seeds, failed, sum } = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (simulated, took) = (sum.simulated as f64 / 1000.0, start.elapsed().as_secs_f64());
    println!("{seeds} seeds held, {} failed: {failed:?}", failed.len());
    println!(
        "{:.0} cluster-hours in {took:.0} s, {:.0} times real time; {} events, {} answers, {} tasks launched",
        simulated / 3600.0,
        simulated / took,
        sum.events,
        sum.told,
        sum.launched
    );
    for (fault, count) in &sum.faults {
        println!("{count:>8} {fault}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants each bug and looks which seed finds it.
#[cfg(feature = "mutants")]
fn mutants(seeds: u64) -> ExitCode {
    use gantry_decide::mutant;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let found = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        while let Some(name) = mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            mutant::plant(name);
            let failure =
                (0..seeds).find_map(|seed| Some((seed, attempt(&Case::of(seed), Plan::SMALL).err()?)));
            mutant::plant("");
            match failure {
                Some((seed, failure)) => {
                    found.fetch_add(1, Ordering::Relaxed);
                    let failure: String = failure.chars().take(120).collect();
                    println!("found   {name}: seed {seed}: {failure}");
                }
                None => println!("MISSED  {name}"),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (found, all) = (found.into_inner(), mutant::ALL.len());
    println!("{found} of {all} planted bugs are found: {} %", found * 100 / all);
    if found * 100 >= all * FOUND_MIN { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(feature = "mutants"))]
fn mutants(_seeds: u64) -> ExitCode {
    eprintln!("built without the feature `mutants`");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    keep_panics();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, usual: u64| words.get(index).map_or(Ok(usual), |word| word.parse());
    match (words.first().map(String::as_str), number(1, 2000), number(2, 5), number(3, 0)) {
        (Some("run"), Ok(seeds), Ok(minutes), Ok(first)) => run(seeds, minutes, first),
        (Some("shrink"), Ok(seed), ..) if words.len() == 2 => match shrink(seed, Plan::SMALL) {
            Some((case, failure)) => {
                println!("{failure}\n{case:?}");
                ExitCode::FAILURE
            }
            None => {
                println!("seed {seed} holds");
                ExitCode::SUCCESS
            }
        },
        (Some("mutants"), ..) => match number(1, 300) {
            Ok(seeds) => mutants(seeds),
            Err(_) => ExitCode::FAILURE,
        },
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}
