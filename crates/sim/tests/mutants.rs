//! The oracles are not blind: planted bugs that docs/planted-bugs.md says few seeds are enough to find are found.
//! `cargo xtask mutants` hunts for all of them, and writes that page.
#![cfg(any(feature = "mutants", debug_assertions))]

use gantry_sim::hunt;

/// What the last hunt found.
const PAGE: &str = include_str!("../../../docs/planted-bugs.md");
/// Bugs that the first seeds find are found by most.
const EASY: u64 = 8;
/// Far more than those take on average: a change of the world draws other worlds.
const SEEDS: u64 = 40;
/// One of so many is hunted for: neighbours on the page are alike, and each costs some seconds.
const ONE_OF: usize = 5;
/// Fewer of them prove little.
const BUGS_MIN: usize = 10;

#[test]
fn what_is_planted_is_found() {
    let known = hunt::known(PAGE);
    let easy: Vec<(&str, u64)> = known.into_iter().filter(|(_, seed)| *seed < EASY).step_by(ONE_OF).collect();
    let bugs: Vec<&str> = easy.iter().map(|(bug, _)| *bug).collect();
    assert!(bugs.len() >= BUGS_MIN, "the page names {} of them", bugs.len());
    // Where it was found last it is found again, as long as the world is the same.
    let seeds = |bug: &str| {
        let last = easy.iter().find(|(known, _)| *known == bug).map(|(_, seed)| *seed);
        last.into_iter().chain(0..SEEDS)
    };
    let hunts = hunt::all(&bugs, seeds, |hunt| println!("{hunt:?}"));
    let missed: Vec<_> = hunts.iter().filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.bug).collect();
    assert!(missed.is_empty(), "{SEEDS} seeds do not find {missed:?}");
}
