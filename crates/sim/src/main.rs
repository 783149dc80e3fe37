//! Runs fleets from the command line, for as long as one likes, and tells what they were put through.

use gantry_sim::campaign::Campaign;
use gantry_sim::fleet::plan::Plan;
use gantry_sim::fleet::silence::{self, Silence};
#[cfg(any(feature = "mutants", debug_assertions))]
use gantry_sim::hunt::{self, Hunt};
use gantry_sim::trial::shrink;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: gantry-sim COMMAND

  run [SEEDS] [MINUTES] [FIRST]   runs seeds until so many, or so much time, have passed: 2000, 5, 0
  shrink SEED                     leaves out the steps that a failure does not need
  leases [FLEETS]                 measures how soon tasks of silent agents run elsewhere: in 20 fleets
  mutants [SEEDS] [FILE]          shows which planted bugs so many seeds find, and writes the table of it: 100,
                                  docs/planted-bugs.md; optimised it needs the feature `mutants`
  hunt BUG [SEEDS] [FIRST]        shows which of so many seeds finds one planted bug: 100, 0

GANTRY_SIM_THREADS says on how many threads, if not on all processors";

/// Where the table of the planted bugs stands, from the repository's root.
const PAGE: &str = "docs/planted-bugs.md";
/// Of the planted bugs, in percent.
#[cfg(any(feature = "mutants", debug_assertions))]
const FOUND_MIN: usize = 95;

fn run(seeds: u64, minutes: u64, first: u64) -> ExitCode {
    let campaign = Campaign { first, seeds, time: Duration::from_secs(minutes * 60), least: 0 };
    let total = campaign.run(|seed, failure| println!("seed {seed}: {failure}"));
    print!("{total}");
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures what leases promise, in so many fleets.
fn leases(fleets: u64) -> ExitCode {
    let mut all = Silence::default();
    (0..fleets).for_each(|seed| all.add(silence::measure(seed, 20)));
    let Silence { elsewhere, pauses, hangs, false_deaths, given_up_in_hangs, fences, fences_in_hangs } = &all;
    println!("{} agents fell silent; until their tasks ran elsewhere, in seconds:", elsewhere.len());
    for percent in [1, 50, 90, 99, 100] {
        println!("  p{percent:<4} {:.2}", all.percentile(percent).as_secs_f64());
    }
    println!("{pauses} agents paused for less than 2 s: {fences} hosts ended tasks");
    println!(
        "{hangs} times the server hung for up to 20 s: {fences_in_hangs} hosts ended tasks, {given_up_in_hangs} were given up"
    );
    println!("{false_deaths} instances were given up that were only slow");
    if *false_deaths == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants each bug, looks which seed finds it, and writes the table of it to `file`.
#[cfg(any(feature = "mutants", debug_assertions))]
fn mutants(seeds: u64, file: &str) -> ExitCode {
    let told = |hunt: &Hunt| match &hunt.found {
        Some((seed, by)) => println!("found   {}: seed {seed}: {by}", hunt.bug),
        None => println!("MISSED  {}", hunt.bug),
    };
    let hunts = hunt::all(gantry_decide::mutant::ALL, |_| 0..seeds, told);
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    println!("{found} of {} planted bugs are found: {} %", hunts.len(), found * 100 / hunts.len());
    if let Err(error) = std::fs::write(file, hunt::table(&hunts, seeds)) {
        eprintln!("{file}: {error}");
        return ExitCode::FAILURE;
    }
    if found * 100 >= hunts.len() * FOUND_MIN { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants one bug, and tells which seed finds it.
#[cfg(any(feature = "mutants", debug_assertions))]
fn hunt_for(bug: &str, seeds: u64, first: u64) -> ExitCode {
    let Some(bug) = gantry_decide::mutant::ALL.iter().find(|known| **known == bug) else { return usage() };
    let hunts = hunt::all(&[*bug], |_| first..first + seeds, |hunt| println!("{hunt:?}"));
    if hunts.iter().all(|hunt| hunt.found.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(any(feature = "mutants", debug_assertions)))]
fn hunt_for(_bug: &str, _seeds: u64, _first: u64) -> ExitCode {
    mutants(0, "")
}

#[cfg(not(any(feature = "mutants", debug_assertions)))]
fn mutants(_seeds: u64, _file: &str) -> ExitCode {
    eprintln!("optimised without the feature `mutants`");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, usual: u64| words.get(index).map_or(Ok(usual), |word| word.parse());
    if let [command, bug, ..] = words.as_slice()
        && command == "hunt"
    {
        return match (number(2, 100), number(3, 0)) {
            (Ok(seeds), Ok(first)) => hunt_for(bug, seeds, first),
            _ => usage(),
        };
    }
    match (words.first().map(String::as_str), number(1, 2000)) {
        (Some("run"), Ok(seeds)) => match (number(2, 5), number(3, 0)) {
            (Ok(minutes), Ok(first)) => run(seeds, minutes, first),
            _ => usage(),
        },
        (Some("shrink"), Ok(seed)) if words.len() == 2 => match shrink(seed, Plan::SMALL) {
            Some((case, failure)) => {
                println!("{failure}\n{case:?}");
                ExitCode::FAILURE
            }
            None => {
                println!("seed {seed} holds");
                ExitCode::SUCCESS
            }
        },
        (Some("leases"), _) => match number(1, 20) {
            Ok(fleets) => leases(fleets),
            Err(_) => usage(),
        },
        (Some("mutants"), _) => match number(1, 100) {
            Ok(seeds) => mutants(seeds, words.get(2).map_or(PAGE, String::as_str)),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}
