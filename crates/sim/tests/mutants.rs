//! The oracles are not blind: planted bugs under the seeds that found them when all of them were hunted for last. Any change
//! of the control plane draws other worlds; then a few other seeds may find them, and the page is to be made anew.
#![cfg(any(feature = "mutants", debug_assertions))]

use gantry_decide::mutant;
use gantry_sim::hunt;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What `cargo xtask mutants` wrote last.
const PAGE: &str = include_str!("../../../docs/planted-bugs.md");
/// Seeds that are tried besides the one of the page.
const OTHERS: u64 = 3;
/// No bug is begun with after so long: builds for development take seconds for a seed.
const TIME: Duration = Duration::from_secs(45);
/// In percent of the bugs that were tried. The hunt asks for more; here, worlds may be others than those that it saw.
const FOUND_MIN: usize = 60;

#[test]
fn what_is_planted_is_found() {
    let (start, tried) = (Instant::now(), Mutex::new(BTreeSet::new()));
    let known = hunt::known(PAGE);
    let seeds = |bug| {
        let seed = known.get(bug).copied().filter(|_| start.elapsed() < TIME);
        if seed.is_some() {
            tried.lock().unwrap_or_else(PoisonError::into_inner).insert(bug);
        }
        seed.into_iter().chain(seed.map(|_| 0..OTHERS).into_iter().flatten())
    };
    let hunts = hunt::all(mutant::ALL, seeds, |_| {});
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let hunts = hunts.iter().filter(|hunt| tried.contains(hunt.bug));
    let missed: Vec<_> = hunts.filter(|hunt| hunt.found.is_none()).map(|hunt| hunt.bug).collect();
    let found = tried.len() - missed.len();
    // Past the harness, which shows only what failing tests print.
    let _ = writeln!(std::io::stderr(), "{found} of {} planted bugs are found, not {missed:?}", tried.len());
    assert!(
        found > 0 && found * 100 >= tried.len() * FOUND_MIN,
        "the seeds of docs/planted-bugs.md do not find {missed:?}: `cargo xtask mutants` writes it anew"
    );
}
