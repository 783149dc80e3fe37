//! Hunts for planted bugs: which seed finds which, and so whether the oracles see what they are there for.

use crate::campaign::on_all_processors;
use crate::trial::attempt_all;
use gantry_decide::mutant;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Of what an oracle said, in characters: enough to know which it was.
const SAID_MAX: usize = 160;
/// The same in words, for the table.
const WORDS_MAX: usize = 12;

/// What came of the hunt for one bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunt {
    pub bug: &'static str,
    /// The first seed that finds it, and what was seen.
    pub found: Option<(u64, String)>,
}

/// Whether seeds hold while nothing is planted: those that do not find no bug.
#[derive(Default)]
struct Sound(Mutex<BTreeMap<u64, bool>>);

impl Sound {
    fn holds(&self, seed: u64) -> bool {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&seed) {
            return *known;
        }
        let holds = attempt_all(seed).is_ok();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, holds);
        holds
    }
}

/// What is seen under a seed while a bug is planted.
fn seen(bug: &'static str, seed: u64) -> Option<String> {
    mutant::plant(bug);
    let outcome = attempt_all(seed);
    mutant::plant("");
    outcome.err()
}

/// Runs seeds with the bug planted until one of them fails that holds without it.
fn one(bug: &'static str, seeds: impl IntoIterator<Item = u64>, sound: &Sound) -> Hunt {
    let found = seeds.into_iter().find_map(|seed| {
        let said = seen(bug, seed)?;
        sound.holds(seed).then(|| (seed, said.chars().take(SAID_MAX).collect()))
    });
    Hunt { bug, found }
}

/// Hunts for all of `bugs`, several at once, under the seeds that `seeds` names for each, and tells of each when it is
/// done. In the order of `bugs`.
pub fn all<Seeds: IntoIterator<Item = u64>>(
    bugs: &[&'static str],
    seeds: impl Fn(&'static str) -> Seeds + Sync,
    told: impl Fn(&Hunt) + Sync,
) -> Vec<Hunt> {
    let (next, sound) = (AtomicUsize::new(0), Sound::default());
    let hunts = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(bug) = bugs.get(index) else { return };
            let hunt = one(bug, seeds(bug), &sound);
            told(&hunt);
            hunts.lock().unwrap_or_else(PoisonError::into_inner).push((index, hunt));
        }
    };
    on_all_processors(&work);
    let mut hunts = hunts.into_inner().unwrap_or_else(PoisonError::into_inner);
    hunts.sort_by_key(|(index, _)| *index);
    hunts.into_iter().map(|(_, hunt)| hunt).collect()
}

/// The hunts as a page of documentation.
pub fn table(hunts: &[Hunt], seeds: u64) -> String {
    let found = hunts.iter().filter(|hunt| hunt.found.is_some()).count();
    let mut page = format!(
        "# Planted bugs, and the seeds that find them\n\nBugs that are planted in the decisions (`crates/decide/src/mutant.rs`), \
         with the first seed under which the simulator\nsees each, of {seeds}. `cargo xtask mutants {seeds}` writes this \
         page.\n\n{found} of {} are found.\n\n| planted bug | seed | seen as |\n| --- | --- | --- |\n",
        hunts.len()
    );
    for Hunt { bug, found } in hunts {
        // Writing to a String cannot fail.
        let _ = match found {
            Some((seed, by)) => writeln!(page, "| {bug} | {seed} | {} |", told(by)),
            None => writeln!(page, "| {bug} | none | |"),
        };
    }
    page
}

/// The bugs that are found by a page that [`table`] wrote, each with the first seed that finds it.
pub fn known(page: &str) -> Vec<(&'static str, u64)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (name, seed) = (cells.next()?, cells.next()?.parse().ok()?);
        Some((*mutant::ALL.iter().find(|bug| **bug == name)?, seed))
    };
    page.lines().filter_map(row).collect()
}

/// What an oracle said, without what differs between runs: where in the source it stands.
fn told(by: &str) -> String {
    let place = by.split(": ").next().unwrap_or_default();
    let file = place.rsplit("crates/").next().unwrap_or_default();
    let said = by.get(place.len() + 2..).unwrap_or_default().replace(['|', '\n'], " ");
    let words: Vec<&str> = said.split_whitespace().take(WORDS_MAX).collect();
    format!("`{}`: {}", file.split(':').next().unwrap_or_default(), words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_seeds_and_oracles() {
        let found = Some((12, "crates/sim/src/fleet/judge.rs:1: one | two\nthree".to_owned()));
        let hunts = [Hunt { bug: "a bug", found }, Hunt { bug: "another", found: None }];
        let page = table(&hunts, 30);
        assert!(page.contains("| a bug | 12 | `sim/src/fleet/judge.rs`: one two three |"), "{page}");
        assert_eq!(known(&page), [], "these are not planted");
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let hunt =
            |bug, found: Option<u64>| Hunt { bug, found: found.map(|seed| (seed, "a.rs:1: b".to_owned())) };
        let (first, second, third) = (mutant::ALL[0], mutant::ALL[1], mutant::ALL[2]);
        let hunts = [hunt(first, Some(3)), hunt(second, None), hunt(third, Some(0))];
        assert_eq!(known(&table(&hunts, 5)), [(first, 3), (third, 0)]);
    }
}
