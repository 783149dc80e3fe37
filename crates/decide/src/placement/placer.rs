//! Places tasks on a pool, and remembers between calls what it worked out, so that a call costs what changed since the
//! last one and not the size of the cluster.
//!
//! Level-triggered: a placer compares the pool that it is given with the one that it saw last (shared parts are skipped)
//! and looks again at the instances that differ. So it may be given the pool of a transaction that was dropped, or none
//! of the pools between, and is right all the same; a new one answers as one that has seen everything.

use super::pool::{Pool, Seat};
use super::shape::Shape;
use super::{Placed, Refusals, Request};
use crate::random::Random;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use std::collections::VecDeque;
use std::sync::Arc;

/// Requests of different shape whose candidates are kept; the one unused for longest goes first. A shape takes some 20
/// bytes an instance, and clusters seldom start tasks of more kinds at a time.
const SHAPES_MAX: usize = 32;
/// Changes kept for shapes that were not used lately, at least. One that lags further behind than there are instances
/// is quicker made anew.
const CHANGES_KEPT_MIN: usize = 1024;

/// What was worked out about one pool. It has no state that matters: see the module.
#[derive(Clone, Debug)]
pub struct Placer<K: Ord + Clone> {
    seen: OrdMap<K, Arc<Seat>>,
    /// By number.
    hosts: Vec<Option<(K, Arc<Seat>)>>,
    /// Numbers of hosts that changed, oldest first, each with whether its profile did.
    changes: VecDeque<(u32, bool)>,
    /// How many changes were forgotten before the first of `changes`.
    forgotten: u64,
    /// The one used last comes last.
    shapes: Vec<Shape>,
}

impl<K: Ord + Clone> Default for Placer<K> {
    fn default() -> Self {
        Placer {
            seen: OrdMap::new(),
            hosts: Vec::new(),
            changes: VecDeque::new(),
            forgotten: 0,
            shapes: Vec::new(),
        }
    }
}

impl<K: Ord + Clone> Placer<K> {
    /// Chooses instances for up to `count` tasks that ask the same, one after the other. Who still equals after all
    /// strategies is chosen at random. Changes nothing in the pool: tasks count once they are taken there.
    pub fn place(
        &mut self,
        pool: &Pool<K>,
        request: &Request,
        count: usize,
        random: &mut dyn Random,
    ) -> Placed<K> {
        self.see(pool);
        let mut shape = self.shape(request);
        let mut on = Vec::with_capacity(count);
        while on.len() < count {
            let Some(number) = shape.choose(random) else { break };
            let Some((key, seat)) = self.hosts.get(number as usize).and_then(Option::as_ref) else { break };
            shape.put_more(number, &seat.host);
            on.push(key.clone());
        }
        let refusals = (on.len() < count).then(|| refusals(pool, request, &shape));
        self.shapes.push(shape);
        Placed { on, refusals }
    }

    /// Notes what is different from the pool that was seen last.
    fn see(&mut self, pool: &Pool<K>) {
        let seen = std::mem::replace(&mut self.seen, pool.seats().clone());
        // A number may pass from one host to another: all are vacated before any is given.
        let mut put: Vec<(&K, &Arc<Seat>)> = Vec::new();
        for difference in seen.diff(pool.seats()) {
            match difference {
                DiffItem::Add(key, seat) => put.push((key, seat)),
                DiffItem::Remove(_, seat) => self.set(seat.number, None),
                DiffItem::Update { old: (_, old), new: (key, new) } => {
                    if old.number != new.number {
                        self.set(old.number, None);
                    }
                    put.push((key, new));
                }
            }
        }
        for (key, seat) in put {
            self.set(seat.number, Some((key, seat)));
        }
        let kept = CHANGES_KEPT_MIN.max(self.hosts.len());
        while self.changes.len() > kept {
            self.changes.pop_front();
            self.forgotten += 1;
        }
    }

    fn set(&mut self, number: u32, host: Option<(&K, &Arc<Seat>)>) {
        let index = number as usize;
        if index >= self.hosts.len() {
            self.hosts.resize(index + 1, None);
        }
        let place = &mut self.hosts[index];
        let profile_changed = match (place, host) {
            // The key is the same: a number that passes to another host is vacated between.
            (Some((_, old)), Some((_, new))) if Arc::ptr_eq(&old.host.profile, &new.host.profile) => {
                if !crate::mutant::is("stale free capacity") {
                    *old = Arc::clone(new);
                }
                false
            }
            (place, host) => {
                *place = host.map(|(key, seat)| (key.clone(), Arc::clone(seat)));
                true
            }
        };
        self.changes.push_back((number, profile_changed));
    }

    /// Takes out the shape of a request, up to date.
    fn shape(&mut self, request: &Request) -> Shape {
        let known = self.shapes.iter().rposition(|shape| shape.serves(request));
        let now = self.forgotten + self.changes.len() as u64;
        let mut shape = match known {
            Some(index) => self.shapes.remove(index),
            None => {
                if self.shapes.len() >= SHAPES_MAX {
                    self.shapes.remove(0);
                }
                Shape::new(request.clone())
            }
        };
        let host = |number: u32| {
            self.hosts.get(number as usize).and_then(Option::as_ref).map(|(_, seat)| &seat.host)
        };
        match shape.up_to().checked_sub(self.forgotten) {
            Some(looked_at) if known.is_some() && !shape.is_overgrown() => {
                let looked_at = usize::try_from(looked_at).unwrap_or(usize::MAX).min(self.changes.len());
                for (number, profile_changed) in self.changes.range(looked_at..) {
                    shape.look(*number, host(*number), *profile_changed);
                }
                shape.forget_more(host);
            }
            _ => {
                shape = Shape::new(request.clone());
                for number in 0..self.hosts.len() as u32 {
                    shape.look(number, host(number), true);
                }
            }
        }
        shape.set_up_to(now);
        shape
    }
}

/// Why the next task finds no instance: all of them are asked, in the order of their keys.
fn refusals<K: Ord + Clone>(pool: &Pool<K>, request: &Request, shape: &Shape) -> Refusals<K> {
    let mut refusals = Refusals::default();
    let mut others = Vec::new();
    for (key, seat) in pool.seats() {
        match seat.host.refuses_for_good(request) {
            Some(refusal) => refusals.add(key, refusal),
            None => others.push((key, seat)),
        }
    }
    for (key, seat) in others {
        if let Some(refusal) = seat.host.with(request, shape.more_on(seat.number)).refuses_now() {
            refusals.add(key, refusal);
        }
    }
    refusals
}
