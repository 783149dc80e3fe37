//! A secondary index: a sorted multi-map with the same cheap snapshots as tables.

use imbl::{OrdMap, OrdSet};

/// Maps each key to a sorted set of values. A clone is O(1). Derived from tables and never stored.
pub struct Index<K, V> {
    sets: OrdMap<K, OrdSet<V>>,
}

impl<K, V> Clone for Index<K, V> {
    fn clone(&self) -> Self {
        Index { sets: self.sets.clone() }
    }
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Index { sets: OrdMap::new() }
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Index<K, V> {
    /// True if the pair is new.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        self.sets.entry(key).or_default().insert(value).is_none()
    }

    /// True if the pair was there.
    pub fn remove(&mut self, key: &K, value: &V) -> bool {
        let Some(set) = self.sets.get_mut(key) else { return false };
        let removed = set.remove(value).is_some();
        if set.is_empty() {
            self.sets.remove(key);
        }
        removed
    }

    /// The values of one key, in order.
    pub fn get<'a>(&'a self, key: &K) -> impl DoubleEndedIterator<Item = &'a V> + use<'a, K, V> {
        self.sets.get(key).into_iter().flat_map(OrdSet::iter)
    }

    pub fn contains(&self, key: &K, value: &V) -> bool {
        self.sets.get(key).is_some_and(|set| set.contains(value))
    }

    /// How many values a key has. O(1) in the number of values.
    pub fn count(&self, key: &K) -> usize {
        self.sets.get(key).map_or(0, OrdSet::len)
    }

    /// Keys that have values, in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.sets.keys()
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.sets.iter().flat_map(|(key, set)| set.iter().map(move |value| (key, value)))
    }

    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn an_index_is_a_set_of_pairs(steps in proptest::collection::vec((any::<bool>(), 0..5u8, 0..5u8), 0..80)) {
            let (mut index, mut pairs) = (Index::default(), BTreeSet::new());
            let mut before = (index.clone(), pairs.clone());
            for (n, (add, key, value)) in steps.into_iter().enumerate() {
                if add {
                    prop_assert_eq!(index.insert(key, value), pairs.insert((key, value)));
                } else {
                    prop_assert_eq!(index.remove(&key, &value), pairs.remove(&(key, value)));
                }
                prop_assert!(index.iter().map(|(k, v)| (*k, *v)).eq(pairs.iter().copied()));
                let of_key: Vec<u8> = pairs.range((key, 0)..=(key, 9)).map(|(_, v)| *v).collect();
                prop_assert!(index.get(&key).eq(of_key.iter()));
                prop_assert_eq!(index.count(&key), of_key.len());
                prop_assert_eq!(index.keys().count(), pairs.iter().map(|(k, _)| k).collect::<BTreeSet<_>>().len());
                if n == 40 {
                    before = (index.clone(), pairs.clone());
                }
            }
            prop_assert!(before.0.iter().map(|(k, v)| (*k, *v)).eq(before.1));
        }
    }
}
