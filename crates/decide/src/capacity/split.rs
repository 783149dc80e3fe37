//! How the tasks of a capacity provider strategy are shared among its providers.
//!
//! The base comes first; what is beyond it is shared in proportion to the weights. ECS documents the proportions and not
//! the order, so each task goes to whom it brings closest: who has the fewest beyond its base for its weight, the first
//! of equals. Tasks that are there count, so that replacements restore the proportions.

use crate::mutant;

/// What one provider gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub weight: u32,
    /// Tasks that it gets before anybody else does.
    pub base: u32,
}

/// Whose turn it is when provider `i` has `have[i]` tasks; nobody's where no provider takes more.
pub fn next(shares: &[Share], have: &[usize]) -> Option<usize> {
    let has = |i: usize| have.get(i).copied().unwrap_or(0);
    let base = |i: usize| if mutant::is("base ignored") { 0 } else { shares[i].base as usize };
    if let Some(index) = (0..shares.len()).find(|i| has(*i) < base(*i)) {
        return Some(index);
    }
    // A lone provider gets everything, whatever its weight.
    if shares.len() == 1 {
        return Some(0);
    }
    let beyond = |i: usize| has(i).saturating_sub(base(i)) as u64;
    let weight = |i: usize| u64::from(shares[i].weight);
    (0..shares.len()).filter(|i| shares[*i].weight > 0).reduce(|best, i| {
        // beyond/weight compared without division.
        if beyond(i) * weight(best) < beyond(best) * weight(i) { i } else { best }
    })
}

/// How many of `count` further tasks each provider gets beside those that it has.
pub fn grow(shares: &[Share], have: &[usize], count: usize) -> Vec<usize> {
    let mut then: Vec<usize> = (0..shares.len()).map(|i| have.get(i).copied().unwrap_or(0)).collect();
    let before = then.clone();
    for _ in 0..count {
        let Some(index) = next(shares, &then) else { break };
        then[index] += 1;
    }
    then.iter().zip(before).map(|(then, before)| then - before).collect()
}

/// How many of `count` tasks to stop each provider loses: those have to go that are most above what the provider would have
/// of the tasks that remain. Never more than it has.
pub fn shrink(shares: &[Share], have: &[usize], count: usize) -> Vec<usize> {
    let total: usize = have.iter().sum();
    let target = grow(shares, &[], total.saturating_sub(count));
    let mut left = have.to_vec();
    let mut lost = vec![0; have.len()];
    for _ in 0..count.min(total) {
        // The last of equals: the first of them is the one that grows first.
        let surplus = |i: &usize| left[*i] as i64 - target.get(*i).copied().unwrap_or(0) as i64;
        let Some(index) = (0..left.len()).filter(|i| left[*i] > 0).max_by_key(surplus) else { break };
        left[index] -= 1;
        lost[index] += 1;
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(weight: u32, base: u32) -> Share {
        Share { weight, base }
    }

    #[test]
    fn tasks_are_shared_as_ecs_documents() {
        assert_eq!(grow(&[share(1, 0), share(1, 0)], &[], 10), [5, 5]);
        assert_eq!(grow(&[share(1, 0), share(4, 0)], &[], 10), [2, 8]);
        assert_eq!(grow(&[share(1, 2), share(3, 0)], &[], 10), [4, 6]);
        assert_eq!(grow(&[share(0, 3), share(1, 0)], &[], 10), [3, 7]);
        assert_eq!(grow(&[share(0, 0)], &[], 2), [2]);
        assert_eq!(grow(&[], &[], 2), [0; 0]);
    }

    #[test]
    fn who_has_too_many_loses_first() {
        assert_eq!(grow(&[share(1, 0), share(1, 0)], &[3, 0], 3), [0, 3]);
        assert_eq!(shrink(&[share(1, 0), share(1, 0)], &[5, 1], 2), [2, 0]);
        assert_eq!(shrink(&[share(1, 0), share(1, 0)], &[5, 5], 4), [2, 2]);
        assert_eq!(shrink(&[share(1, 2), share(1, 0)], &[3, 1], 2), [1, 1]);
    }

    /// Strategies as they pass the rules: one base, and a weight where there are several.
    fn shares() -> impl Strategy<Value = Vec<Share>> {
        let weights = proptest::collection::vec(0u32..20, 1..6);
        (weights, 0usize..6, 0u32..30).prop_map(|(mut weights, with_base, base)| {
            if weights.len() > 1 && weights.iter().all(|weight| *weight == 0) {
                weights[0] = 1;
            }
            let with_base = with_base % weights.len();
            let base = |i| if i == with_base { base } else { 0 };
            weights.into_iter().enumerate().map(|(i, weight)| share(weight, base(i))).collect()
        })
    }

    proptest! {
        #[test]
        fn everybody_gets_a_fair_part(shares in shares(), count in 0usize..200) {
            let got = grow(&shares, &[], count);
            prop_assert_eq!(got.iter().sum::<usize>(), count);
            let base: usize = shares.iter().map(|share| share.base as usize).sum();
            for (i, share) in shares.iter().enumerate() {
                prop_assert!(got[i] >= (share.base as usize).min(count), "the base comes first");
                if shares.len() > 1 && share.weight == 0 {
                    prop_assert!(got[i] <= share.base as usize, "without a weight there is no more than the base");
                }
            }
            if count > base && shares.len() > 1 {
                let beyond = |i: usize| (got[i] - shares[i].base as usize) as u64;
                let weighted = (0..shares.len()).filter(|i| shares[*i].weight > 0);
                for i in weighted.clone() {
                    for j in weighted.clone() {
                        // Nobody would be closer to its part if one task of another's were its own.
                        let moved = beyond(i).saturating_sub(1) * u64::from(shares[j].weight);
                        prop_assert!(moved <= beyond(j) * u64::from(shares[i].weight));
                    }
                }
            }
        }

        #[test]
        fn one_by_one_is_as_all_at_once(shares in shares(), first in 0usize..60, more in 0usize..60) {
            let begun = grow(&shares, &[], first);
            let grown = grow(&shares, &begun, more);
            let together: Vec<usize> = begun.iter().zip(grown).map(|(a, b)| a + b).collect();
            prop_assert_eq!(together, grow(&shares, &[], first + more));
        }

        #[test]
        fn what_shrinks_is_as_if_it_had_never_grown(shares in shares(), count in 0usize..60, fewer in 0usize..60) {
            let have = grow(&shares, &[], count);
            let lost = shrink(&shares, &have, fewer);
            let left: Vec<usize> = have.iter().zip(&lost).map(|(have, lost)| have - lost).collect();
            prop_assert_eq!(left, grow(&shares, &[], count.saturating_sub(fewer)));
        }

        #[test]
        fn shrinking_takes_what_is_there(
            (shares, have) in shares().prop_flat_map(|shares| {
                let have = proptest::collection::vec(0usize..20, shares.len());
                (Just(shares), have)
            }),
            count in 0usize..100,
        ) {
            let lost = shrink(&shares, &have, count);
            prop_assert_eq!(lost.iter().sum::<usize>(), count.min(have.iter().sum()));
            prop_assert!(lost.iter().zip(&have).all(|(lost, have)| lost <= have));
        }
    }
}
