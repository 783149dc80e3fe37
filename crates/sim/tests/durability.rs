//! Whatever was acknowledged is there after any crash, and nothing contradicts itself. `GANTRY_SIM_SEEDS` runs more
//! seeds, `GANTRY_SIM_SEED` replays one.

use gantry_sim::{Faults, run};

/// Seeds of an ordinary run: half a minute, not optimised.
const SEEDS: u64 = 100;
const STEPS: usize = 400;

#[test]
fn what_was_acknowledged_survives() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("GANTRY_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GANTRY_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let (mut crashes, mut acknowledged) = (0, 0);
    for seed in seeds.clone() {
        let summary = run(seed, STEPS, Faults::default());
        crashes += summary.crashes;
        acknowledged += summary.acknowledged;
    }
    println!("{} seeds, {crashes} crashes, {acknowledged} acknowledged writes, none lost", seeds.count());
    assert!(acknowledged > 0, "a run in which nothing is acknowledged proves nothing");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(7, STEPS, Faults::default()), run(7, STEPS, Faults::default()));
}
