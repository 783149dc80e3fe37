//! Fleets under many seeds. `GANTRY_SIM_SEED` replays one, `GANTRY_SIM_SEEDS` and `GANTRY_SIM_SECONDS` set how many are
//! run, whichever ends first.

use gantry_sim::campaign::Campaign;
use gantry_sim::fleet::plan::{Case, Plan};
use gantry_sim::fleet::{Fleet, Report};
use gantry_sim::trial::attempt;
use std::io::Write;
use std::time::Duration;

/// Of a usual run.
const SEEDS: u64 = 2000;
const SECONDS: u64 = 150;
/// So many are run however long it takes: fewer prove little.
const SEEDS_MIN: u64 = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn under(case: &Case, plan: Plan) -> Report {
    attempt(case, plan).unwrap_or_else(|failure| panic!("{}", told(case.seed, &failure)))
}

fn told(seed: u64, failure: &str) -> String {
    format!(
        "seed {seed} fails: {failure}\n`cargo xtask sim shrink {seed}` makes it small, and here GANTRY_SIM_SEED={seed} replays it"
    )
}

#[test]
fn everything_comes_right_once_faults_stop() {
    if let Some(seed) = number("GANTRY_SIM_SEED") {
        println!("{:?}", Fleet::run(&Case::of(seed), Plan::SMALL));
        return;
    }
    let campaign = Campaign {
        first: 0,
        seeds: number("GANTRY_SIM_SEEDS").unwrap_or(SEEDS),
        time: Duration::from_secs(number("GANTRY_SIM_SECONDS").unwrap_or(SECONDS)),
        least: SEEDS_MIN,
    };
    let total = campaign.run(|_, _| {});
    // Past the harness, which shows only what failing tests print.
    let _ = write!(std::io::stderr(), "{total}");
    let failures: Vec<String> = total.failed.iter().map(|(seed, failure)| told(*seed, failure)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(total.sum.told > 10 * total.held, "users were told too little to prove anything");
}

#[test]
fn a_seed_replays_bit_by_bit() {
    let case = Case::of(7);
    let (one, other) = (under(&case, Plan::SMALL), under(&case, Plan::SMALL));
    assert_eq!(one, other);
    assert_ne!(one.hash, under(&Case::of(8), Plan::SMALL).hash);
    let _ = writeln!(std::io::stderr(), "seed 7 ran twice: {:016x}, {:016x}", one.hash, other.hash);
}

#[test]
fn hundreds_of_agents_are_no_other_world() {
    let plan =
        Plan { agents: 300, turmoil: 120, calls_every: 10, faults_every: 1, tasks: 300, ..Plan::SMALL };
    under(&Case::of(1), plan);
}
