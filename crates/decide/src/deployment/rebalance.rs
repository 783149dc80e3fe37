//! Availability Zone rebalancing: the next move that spreads a service's tasks evenly over its zones.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// How many tasks are in which zone.
pub type Spread = BTreeMap<String, u32>;

/// One task more in one zone, and then one less in another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub from: String,
    pub to: String,
}

/// The next move; `None` when the tasks are balanced: each zone that the service may use has as many as any other, or one
/// less, and no other zone has any. `spread` has all of the service's tasks.
pub fn next_move(zones: &BTreeSet<String>, spread: &Spread) -> Option<Move> {
    let count = |zone: &String| spread.get(zone).copied().unwrap_or_default();
    let poorest = zones.iter().min_by_key(|zone| count(zone))?;
    let strayed = spread.iter().find(|(zone, count)| **count > 0 && !zones.contains(*zone));
    let from = match strayed {
        Some((zone, _)) => zone,
        // Of equals the last by name, so that it is never the poorest.
        None => {
            zones.iter().max_by_key(|zone| count(zone)).filter(|zone| count(zone) >= count(poorest) + 2)?
        }
    };
    Some(Move { from: from.clone(), to: poorest.clone() })
}

/// As ECS's events tell it: "3 tasks in a, 1 tasks in b". Zones without tasks are told of too.
pub fn told(zones: &BTreeSet<String>, spread: &Spread) -> String {
    let mut text = String::new();
    let all: BTreeSet<&String> = zones.iter().chain(spread.keys()).collect();
    for zone in all {
        let count = spread.get(zone).copied().unwrap_or_default();
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{count} tasks in {zone}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zones(names: &str) -> BTreeSet<String> {
        names.chars().map(String::from).collect()
    }

    fn spread(counts: &[(&str, u32)]) -> Spread {
        counts.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect()
    }

    #[test]
    fn the_documented_example() {
        let now = spread(&[("a", 3), ("b", 1), ("c", 1)]);
        let next = next_move(&zones("abc"), &now);
        assert_eq!(next, Some(Move { from: "a".to_owned(), to: "b".to_owned() }));
        assert_eq!(told(&zones("abc"), &now), "3 tasks in a, 1 tasks in b, 1 tasks in c");
        assert_eq!(next_move(&zones("abc"), &spread(&[("a", 2), ("b", 2), ("c", 1)])), None);
        assert_eq!(next_move(&zones("a"), &spread(&[("a", 5)])), None);
        assert_eq!(next_move(&zones(""), &spread(&[("a", 5)])), None);
        // Who is where the service may not be any more goes first.
        let strayed = next_move(&zones("ab"), &spread(&[("a", 2), ("b", 1), ("z", 1)]));
        assert_eq!(strayed, Some(Move { from: "z".to_owned(), to: "b".to_owned() }));
    }

    proptest! {
        #[test]
        fn moves_end_in_balance(counts in prop::collection::btree_map("[a-f]", 0u32..20, 0..6), names in "[a-e]{1,5}") {
            let (zones, mut now) = (zones(&names), counts);
            let total: u32 = now.values().sum();
            // Every move takes one from above the mean, or from outside, to below it.
            for _ in 0..=total {
                let Some(next) = next_move(&zones, &now) else { break };
                *now.entry(next.to).or_default() += 1;
                *now.entry(next.from).or_default() -= 1;
            }
            prop_assert_eq!(next_move(&zones, &now), None);
            let share = total / zones.len() as u32;
            for zone in &zones {
                let count = now.get(zone).copied().unwrap_or_default();
                prop_assert!(count == share || count == share + 1, "{:?}", now);
            }
        }
    }
}
