//! Fleets under many seeds. `GANTRY_SIM_SEEDS` sets how many, `GANTRY_SIM_SEED` replays one.

use gantry_sim::fleet::{Fleet, Plan};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of a usual run: half a minute.
const SEEDS: u64 = 30;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn under(seed: u64, plan: Plan) -> usize {
    let run = catch_unwind(AssertUnwindSafe(|| Fleet::run(seed, plan).told));
    run.unwrap_or_else(|_| panic!("seed {seed} fails: replay it with GANTRY_SIM_SEED={seed}"))
}

#[test]
fn everything_comes_right_once_faults_stop() {
    if let Some(seed) = number("GANTRY_SIM_SEED") {
        under(seed, Plan::SMALL);
        return;
    }
    let told: usize =
        (0..number("GANTRY_SIM_SEEDS").unwrap_or(SEEDS)).map(|seed| under(seed, Plan::SMALL)).sum();
    assert!(told > 100, "users were told {told} things only");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(under(7, Plan::SMALL), under(7, Plan::SMALL));
}

#[test]
fn a_thousand_agents_are_no_other_world() {
    let plan = Plan { agents: 1000, turmoil: 60, calls_every: 10, faults_every: 1, tasks: 1000 };
    under(1, plan);
}
