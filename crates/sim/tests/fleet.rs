//! Fleets under many seeds. `GANTRY_SIM_SEED` replays one, `GANTRY_SIM_SEEDS` and `GANTRY_SIM_SECONDS` set how many are
//! run, whichever ends first.

use gantry_sim::fleet::plan::{Case, Plan};
use gantry_sim::fleet::{Fleet, Report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Of a usual run.
const SEEDS: u64 = 2000;
const SECONDS: u64 = 60;
/// So many are run however long it takes: fewer prove little.
const SEEDS_MIN: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn under(case: &Case, plan: Plan) -> Report {
    let run = catch_unwind(AssertUnwindSafe(|| Fleet::run(case, plan)));
    run.unwrap_or_else(|_| {
        let seed = case.seed;
        panic!(
            "seed {seed} fails: GANTRY_SIM_SEED={seed} replays it, `gantry-sim shrink {seed}` makes it small"
        )
    })
}

#[test]
fn everything_comes_right_once_faults_stop() {
    if let Some(seed) = number("GANTRY_SIM_SEED") {
        println!("{:?}", under(&Case::of(seed), Plan::SMALL));
        return;
    }
    let seeds = number("GANTRY_SIM_SEEDS").unwrap_or(SEEDS);
    let deadline = Instant::now() + Duration::from_secs(number("GANTRY_SIM_SECONDS").unwrap_or(SECONDS));
    let (next, told) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || (seed >= SEEDS_MIN && Instant::now() > deadline) {
                return;
            }
            told.fetch_add(under(&Case::of(seed), Plan::SMALL).told, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let ran = next.into_inner().min(seeds);
    println!("{ran} seeds held, users were told {} things", told.load(Ordering::Relaxed));
    assert!(told.into_inner() > 10 * seeds.min(SEEDS_MIN), "users were told too little to prove anything");
}

#[test]
fn a_seed_replays_bit_by_bit() {
    let case = Case::of(7);
    let (one, other) = (under(&case, Plan::SMALL), under(&case, Plan::SMALL));
    assert_eq!(one, other);
    assert_ne!(one.hash, under(&Case::of(8), Plan::SMALL).hash);
}

#[test]
fn hundreds_of_agents_are_no_other_world() {
    let plan =
        Plan { agents: 300, turmoil: 120, calls_every: 10, faults_every: 1, tasks: 300, ..Plan::SMALL };
    under(&Case::of(1), plan);
}
