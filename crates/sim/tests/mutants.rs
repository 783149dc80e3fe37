//! The oracles are not blind: a sample of planted bugs, each of which few seeds are enough to find. `cargo xtask mutants`
//! hunts for all of them, and docs/planted-bugs.md tells of the last hunt.
#![cfg(any(feature = "mutants", debug_assertions))]

use gantry_sim::hunt;

/// Of different kinds, and seen by different oracles.
const SAMPLE: &[&str] = &[
    "maximum rounded up",
    "one task too many stopped",
    "memory not counted",
    "distinctInstance ignored",
    "answers before they are durable",
    "stop not told",
    "stopped without the agent's word",
    "lease never ends for the agent",
];
/// Far more than it takes on average: a change of the world draws other worlds.
const SEEDS: u64 = 40;

#[test]
fn what_is_planted_is_found() {
    let hunts = hunt::all(SAMPLE, |_| 0..SEEDS, |hunt| println!("{hunt:?}"));
    let missed: Vec<_> = hunts.iter().filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.bug).collect();
    assert!(missed.is_empty(), "{SEEDS} seeds do not find {missed:?}");
}
