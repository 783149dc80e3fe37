//! Hunts for planted bugs: which seed finds which, and so whether the oracles see what they are there for.

use crate::fleet::plan::{Case, Plan};
use crate::trial::attempt;
use gantry_decide::mutant;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of what an oracle said, in characters: enough to know which it was.
const SAID_MAX: usize = 160;

/// What came of the hunt for one bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    pub bug: &'static str,
    /// The first seed that finds it, and what was seen.
    pub found: Option<(u64, String)>,
}

/// Runs seeds with the bug planted until one of them fails that holds without it, `seeds` at most.
pub fn one(bug: &'static str, seeds: u64) -> Hunt {
    let run = |bug, seed| {
        mutant::plant(bug);
        let outcome = attempt(&Case::of(seed), Plan::SMALL);
        mutant::plant("");
        outcome.err()
    };
    let found = (0..seeds).find_map(|seed| {
        let by = run(bug, seed)?;
        run("", seed).is_none().then_some((seed, by))
    });
    let said = |by: String| by.chars().take(SAID_MAX).collect();
    Hunt { bug, found: found.map(|(seed, by)| (seed, said(by))) }
}

/// Hunts for all of `bugs`, several at once, and tells of each when it is done. In the order of `bugs`.
pub fn all(bugs: &[&'static str], seeds: u64, told: impl Fn(&Hunt) + Sync) -> Vec<Hunt> {
    let next = AtomicUsize::new(0);
    let hunts = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(bug) = bugs.get(index) else { return };
            let hunt = one(bug, seeds);
            told(&hunt);
            hunts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, hunt));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut hunts = hunts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    hunts.sort_by_key(|(index, _)| *index);
    hunts.into_iter().map(|(_, hunt)| hunt).collect()
}

/// The hunts as a page of documentation.
pub fn table(hunts: &[Hunt], seeds: u64) -> String {
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let mut page = format!(
        "# What the simulator sees\n\nBugs that are planted in the decisions (`decide/src/mutant.rs`), and how many seeds it took \
         the simulator to find\neach, of {seeds} at most. `cargo xtask mutants {seeds} docs/planted-bugs.md` writes this page. \
         {found} of {} are found.\n\n| planted bug | seeds | seen as |\n| --- | --- | --- |\n",
        hunts.len()
    );
    for Hunt { bug, found } in hunts {
        // Writing to a String cannot fail.
        let _ = match found {
            Some((seed, by)) => writeln!(page, "| {bug} | {} | {} |", seed + 1, told(by)),
            None => writeln!(page, "| {bug} | not found | |"),
        };
    }
    page
}

/// What an oracle said, without what differs between runs: where in the source it stands.
fn told(by: &str) -> String {
    let place = by.split(": ").next().unwrap_or_default();
    let file = place.rsplit("crates/").next().unwrap_or_default();
    let said = by.get(place.len() + 2..).unwrap_or_default().replace(['|', '\n'], " ");
    let words: Vec<&str> = said.split_whitespace().take(12).collect();
    format!("`{}`: {}", file.split(':').next().unwrap_or_default(), words.join(" "))
}
