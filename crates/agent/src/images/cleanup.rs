//! Which images to give up: the rules of ECS's automated image cleanup, as a function.

use super::policy::PullBehavior;
use super::reference::Reference;
use super::store::{ImageRecord, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// `ECS_NUM_IMAGES_DELETE_PER_CYCLE`, `ECS_IMAGE_MINIMUM_CLEANUP_AGE` and `ECS_EXCLUDE_UNTRACKED_IMAGE`. How often is
/// the caller's (`ECS_IMAGE_CLEANUP_INTERVAL`, 30 minutes unless set).
#[derive(Clone, Debug)]
pub struct CleanupRules {
    /// Names removed in one round.
    pub per_round: usize,
    /// How long an image stays after it came.
    pub minimum_age: Duration,
    /// Never removed.
    pub excluded: BTreeSet<Reference>,
}

impl Default for CleanupRules {
    fn default() -> Self {
        CleanupRules { per_round: 5, minimum_age: Duration::from_secs(3600), excluded: BTreeSet::new() }
    }
}

/// The names to remove now, the longest unused first. Never those of images that containers run on (`in_use`) or that
/// no registry would give back. `last_used` and `now` are in milliseconds since 1970; an image that was never used counts
/// as used when it came.
pub fn select_for_cleanup(
    records: &[ImageRecord],
    in_use: &BTreeSet<Reference>,
    last_used: &BTreeMap<Reference, u64>,
    now: u64,
    behavior: PullBehavior,
    rules: &CleanupRules,
) -> Vec<Reference> {
    // Someone who prefers the cache wants it kept.
    if behavior == PullBehavior::PreferCached {
        return Vec::new();
    }
    let minimum_age = u64::try_from(rules.minimum_age.as_millis()).unwrap_or(u64::MAX);
    let mut candidates: Vec<(u64, &Reference)> = records
        .iter()
        .filter(|r| r.source == Source::Pulled)
        .filter(|r| now.saturating_sub(r.stored_at) >= minimum_age)
        .filter(|r| !in_use.contains(&r.name) && !rules.excluded.contains(&r.name))
        .map(|r| (last_used.get(&r.name).copied().unwrap_or(r.stored_at), &r.name))
        .collect();
    candidates.sort();
    candidates.into_iter().take(rules.per_round).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::ImageConfig;
    use super::super::digest::Digest;
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn record(name: &str, stored_at: u64, source: Source) -> ImageRecord {
        let digest = Digest::of(name.as_bytes());
        let config = ImageConfig::default();
        let name = name.parse().unwrap();
        ImageRecord {
            name,
            digest,
            manifest_digest: digest,
            config_digest: digest,
            config,
            layers: Vec::new(),
            source,
            stored_at,
        }
    }

    fn names(names: &[&str]) -> BTreeSet<Reference> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_what_is_needed_stays() {
        let mut records: Vec<_> = (0..8).map(|i| record(&format!("old{i}"), i, Source::Pulled)).collect();
        records.push(record("young", 10 * HOUR - 1, Source::Pulled));
        records.push(record("loaded", 0, Source::Loaded));
        records.push(record("sample", 0, Source::Sample));
        let in_use = names(&["old0"]);
        let last_used = BTreeMap::from([("old1".parse().unwrap(), 9 * HOUR)]);
        let rules = CleanupRules { excluded: names(&["old2"]), ..CleanupRules::default() };
        let select = |behavior| {
            let selected = select_for_cleanup(&records, &in_use, &last_used, 10 * HOUR, behavior, &rules);
            selected.iter().map(Reference::familiar).collect::<Vec<_>>()
        };
        let expected = ["old3:latest", "old4:latest", "old5:latest", "old6:latest", "old7:latest"];
        assert_eq!(select(PullBehavior::Default), expected);
        assert!(select(PullBehavior::PreferCached).is_empty());
        let rules = CleanupRules { per_round: 100, ..CleanupRules::default() };
        let all = select_for_cleanup(&records, &in_use, &last_used, 10 * HOUR, PullBehavior::Once, &rules);
        assert_eq!(all.last().unwrap().familiar(), "old1:latest");
        assert_eq!(all.len(), 7);
    }
}
