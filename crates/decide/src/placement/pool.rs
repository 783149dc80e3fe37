//! The instances of a cluster with what is free on them: what placement looks at, kept true with every task.

use super::{Host, Request};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// The instances of one cluster. A clone shares what does not change, so that transactions can work on their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool<K: Ord + Clone> {
    seats: OrdMap<K, Arc<Seat>>,
    /// Numbers below `numbers` that no host has.
    vacant: OrdSet<u32>,
    numbers: u32,
}

/// A host under its small number, by which a [`super::Placer`] keeps what it knows in plain arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub number: u32,
    pub host: Host,
}

impl<K: Ord + Clone> Default for Pool<K> {
    fn default() -> Self {
        Pool { seats: OrdMap::new(), vacant: OrdSet::new(), numbers: 0 }
    }
}

impl<K: Ord + Clone> Pool<K> {
    pub fn put(&mut self, key: K, mut host: Host) {
        let known = self.seats.get(&key);
        if let Some(known) = known.filter(|known| known.host.profile == host.profile) {
            // The same allocation tells a placer that its verdict on the profile still holds.
            host.profile = Arc::clone(&known.host.profile);
        }
        let number =
            known.map(|known| known.number).or_else(|| self.vacant.remove_min()).unwrap_or_else(|| {
                self.numbers += 1;
                self.numbers - 1
            });
        self.seats.insert(key, Arc::new(Seat { number, host }));
    }

    pub fn remove(&mut self, key: &K) -> Option<Host> {
        let seat = self.seats.remove(key)?;
        self.vacant.insert(seat.number);
        Some(Arc::unwrap_or_clone(seat).host)
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub fn host(&self, key: &K) -> Option<&Host> {
        self.seats.get(key).map(|seat| &seat.host)
    }

    /// All instances, in the order of their keys.
    pub fn hosts(&self) -> impl Iterator<Item = (&K, &Host)> {
        self.seats.iter().map(|(key, seat)| (key, &seat.host))
    }

    /// Counts a task that is on the instance, checks or not.
    pub fn take(&mut self, key: &K, request: &Request) {
        if let Some(seat) = self.seats.get_mut(key) {
            Arc::make_mut(seat).host.take(request);
        }
    }

    /// Gives back what a task held.
    pub fn release(&mut self, key: &K, request: &Request) {
        if let Some(seat) = self.seats.get_mut(key) {
            Arc::make_mut(seat).host.give_back(request);
        }
    }

    pub(super) fn seats(&self) -> &OrdMap<K, Arc<Seat>> {
        &self.seats
    }
}
