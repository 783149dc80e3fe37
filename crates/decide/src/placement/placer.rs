//! Places tasks on a pool, and remembers between calls what it worked out, so that a call costs what changed since the
//! last one and not the size of the cluster.
//!
//! Level-triggered: a placer finds out what leads from the pool that it saw last to the one that it is given, and looks
//! again at those instances. So it may be given the pool of a transaction that was dropped, or none of the pools between,
//! and is right all the same; a new one answers as one that has seen everything.

use super::groups::ByGroup;
use super::host::{Profile, Site};
use super::log::{Change, What};
use super::pool::Pool;
use super::settled::Settled;
use super::shape::{News, Shape};
use super::stock::{Free, Held};
use super::{HostPort, Placed, Refusals, Request};
use crate::mutant;
use crate::random::Random;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Requests of different shape whose candidates are kept; the one unused for longest goes first. A shape takes some 40
/// bytes an instance, and clusters seldom start tasks of more kinds at a time.
const SHAPES_MAX: usize = 32;
/// Changes kept for shapes that were not used lately. One that lags further behind is made anew, which takes about as
/// long at ten thousand instances; more would only push out of the processor's caches what is needed.
const CHANGES_KEPT: usize = 4096;

/// What was worked out about one pool. It has no state that matters: see the module.
#[derive(Clone, Debug)]
pub struct Placer<K: Ord + Clone> {
    seen: Option<Pool<K>>,
    /// By number, as all that follows: apart from what is seldom asked for, so that the figures of thousands stay at hand.
    free: Vec<Free>,
    spots: Vec<Option<Spot<K>>>,
    /// Changes of instances, oldest first.
    changes: VecDeque<Seen<K>>,
    /// How many changes were forgotten before the first of `changes`.
    forgotten: u64,
    /// The one used last comes last.
    shapes: Vec<Shape>,
}

/// What tasks do not change of an instance, but for its ports.
#[derive(Clone, Debug)]
struct Spot<K> {
    key: K,
    profile: Arc<Profile>,
    used_ports: Arc<BTreeSet<HostPort>>,
}

#[derive(Clone, Debug)]
struct Seen<K> {
    change: Change<K>,
    profile_changed: bool,
}

impl<K: Ord + Clone> Default for Placer<K> {
    fn default() -> Self {
        Placer {
            seen: None,
            free: Vec::new(),
            spots: Vec::new(),
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
        let mut shape = self.shape(pool, request);
        let mut on = Vec::with_capacity(count.min(self.spots.len()));
        while on.len() < count {
            let Some(number) = shape.choose(random) else { break };
            let Some(Some(spot)) = self.spots.get(number as usize) else { break };
            on.push(spot.key.clone());
            self.on_site(&InPool { pool, number }, number, |site| shape.put_more(number, site));
        }
        let refusals = (on.len() < count).then(|| self.refusals(pool, &shape));
        self.shapes.push(shape);
        Placed { on, refusals }
    }

    /// Notes what is different from the pool that was seen last.
    fn see(&mut self, pool: &Pool<K>) {
        let seen = self.seen.replace(pool.clone());
        let Some(changes) = seen.and_then(|seen| pool.since(&seen)) else { return self.begin(pool) };
        for change in changes {
            self.follow(change);
        }
        while self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
            self.forgotten += 1;
        }
    }

    /// Begins anew with a pool that nothing leads to.
    fn begin(&mut self, pool: &Pool<K>) {
        *self = Placer { seen: self.seen.take(), ..Placer::default() };
        let settled = pool.all_taken_in();
        for (key, number) in pool.numbers() {
            let Some(host) = settled.host(*number) else { continue };
            self.seat(*number);
            let (profile, used_ports) = (Arc::clone(&host.profile), Arc::clone(&host.used_ports));
            self.free[*number as usize] = host.free();
            self.spots[*number as usize] = Some(Spot { key: key.clone(), profile, used_ports });
        }
    }

    fn seat(&mut self, number: u32) {
        let index = number as usize;
        if index >= self.free.len() {
            self.free.resize(index + 1, Free::default());
            self.spots.resize_with(index + 1, || None);
        }
    }

    fn follow(&mut self, change: Change<K>) {
        self.seat(change.number);
        let index = change.number as usize;
        let mut profile_changed = false;
        match &change.what {
            What::Came(_) if mutant::is("stale free capacity") => {}
            What::Came(held) => {
                held.take(&mut self.free[index]);
                self.on_ports(index, held, Held::take_ports);
            }
            What::Went(held) => {
                held.give_back(&mut self.free[index]);
                self.on_ports(index, held, Held::give_ports_back);
            }
            What::Is(put) => {
                let spot = &mut self.spots[index];
                let old = spot.as_ref().map(|spot| Arc::as_ptr(&spot.profile));
                profile_changed = old != put.as_ref().map(|put| Arc::as_ptr(&put.1.profile));
                self.free[index] = put.as_ref().map_or_else(Free::default, |put| put.1.free());
                *spot = put.as_ref().map(|put| Spot {
                    key: put.0.clone(),
                    profile: Arc::clone(&put.1.profile),
                    used_ports: Arc::clone(&put.1.used_ports),
                });
            }
        }
        self.changes.push_back(Seen { change, profile_changed });
    }

    fn on_ports(&mut self, index: usize, held: &Held, act: impl Fn(&Held, &mut Arc<BTreeSet<HostPort>>)) {
        if held.has_ports()
            && let Some(spot) = &mut self.spots[index]
        {
            act(held, &mut spot.used_ports);
        }
    }

    /// Shows an instance; none where the number is vacant.
    fn on_site<R>(&self, groups: &dyn ByGroup, number: u32, look: impl FnOnce(Option<Site<'_>>) -> R) -> R {
        let index = number as usize;
        let Some(Some(spot)) = self.spots.get(index) else { return look(None) };
        let (profile, used_ports) = (spot.profile.as_ref(), spot.used_ports.as_ref());
        look(Some(Site { profile, free: self.free[index], used_ports, groups }))
    }

    /// Takes out the shape of a request, up to date.
    fn shape(&mut self, pool: &Pool<K>, request: &Request) -> Shape {
        let known = self.shapes.iter().rposition(|shape| shape.serves(request));
        let now = self.forgotten + self.changes.len() as u64;
        let known = known.map(|index| self.shapes.remove(index)).filter(|shape| !shape.is_overgrown());
        let lag = known.as_ref().and_then(|shape| shape.up_to().checked_sub(self.forgotten));
        let mut shape = match (known, lag) {
            (Some(mut shape), Some(looked_at)) => {
                let looked_at = usize::try_from(looked_at).unwrap_or(usize::MAX).min(self.changes.len());
                for seen in self.changes.range(looked_at..) {
                    shape.note(seen.change.number, seen.news(&shape));
                }
                shape.forget_more();
                while let Some(number) = shape.next_noted() {
                    self.on_site(&InPool { pool, number }, number, |site| shape.look(number, site));
                }
                shape
            }
            _ => self.new_shape(pool, request),
        };
        shape.set_up_to(now);
        shape
    }

    fn new_shape(&mut self, pool: &Pool<K>, request: &Request) -> Shape {
        let mut shape = self.alike(request).unwrap_or_else(|| Shape::new(request.clone()));
        if self.shapes.len() >= SHAPES_MAX {
            self.shapes.remove(0);
        }
        let settled = pool.all_taken_in();
        let mut own = vec![0; self.spots.len()];
        if shape.is_by_group() {
            for (number, tasks) in settled.tasks_of(&request.group) {
                if let Some(own) = own.get_mut(number as usize) {
                    *own = tasks;
                }
            }
        }
        for (number, own) in (0..).zip(own) {
            shape.note(number, News::Anew { own, profile_changed: false });
        }
        while let Some(number) = shape.next_noted() {
            self.on_site(&AllOf { settled: &settled, number }, number, |site| shape.look(number, site));
        }
        shape
    }

    /// A new shape that knows of the instances' profiles what one for another service knew.
    fn alike(&self, request: &Request) -> Option<Shape> {
        let mut known = self.shapes.iter().rev().filter(|known| !known.is_overgrown());
        let (mut shape, up_to) = known.find_map(|known| Some((known.alike(request)?, known.up_to())))?;
        let looked_at = usize::try_from(up_to.checked_sub(self.forgotten)?).ok()?.min(self.changes.len());
        for seen in self.changes.range(looked_at..).filter(|seen| seen.profile_changed) {
            shape.unseat(seen.change.number);
        }
        Some(shape)
    }

    /// Why the next task finds no instance: all of them are asked, in the order of their keys.
    fn refusals(&self, pool: &Pool<K>, shape: &Shape) -> Refusals<K> {
        let mut refusals = Refusals::default();
        let settled = pool.all_taken_in();
        for (key, number) in pool.numbers() {
            let groups = AllOf { settled: &settled, number: *number };
            let refusal = self.on_site(&groups, *number, |site| shape.refuses(*number, site?));
            if let Some(refusal) = refusal {
                refusals.add(key, refusal);
            }
        }
        refusals
    }
}

impl<K> Seen<K> {
    /// What the change says to a shape.
    fn news(&self, shape: &Shape) -> News {
        let of_own = |held: &Held| shape.is_by_group() && shape.is_of(&held.group);
        match &self.change.what {
            What::Came(held) if of_own(held) => News::Came,
            What::Went(held) if of_own(held) => News::Went,
            What::Came(_) | What::Went(_) => News::OfOthers,
            What::Is(put) => {
                let count = |put: &Arc<(K, super::Host)>| put.1.groups.of(shape.group());
                let own = put.as_ref().filter(|_| shape.is_by_group()).map_or(0, count);
                News::Anew { own, profile_changed: self.profile_changed }
            }
        }
    }
}

/// The tasks of an instance in a pool, for the few who ask for groups by more than one name.
struct InPool<'a, K: Ord + Clone> {
    pool: &'a Pool<K>,
    number: u32,
}

impl<K: Ord + Clone> ByGroup for InPool<'_, K> {
    fn of(&self, group: &str) -> u32 {
        self.pool.numbered(self.number).map_or(0, |host| host.groups.of(group))
    }

    fn any(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.pool.numbered(self.number).is_some_and(|host| host.groups.any(condition))
    }
}

/// The same once all changes are taken in.
struct AllOf<'a> {
    settled: &'a Settled,
    number: u32,
}

impl ByGroup for AllOf<'_> {
    fn of(&self, group: &str) -> u32 {
        self.settled.tasks_on(self.number, group)
    }

    fn any(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        self.settled.groups().any(|group| condition(group) && self.of(group) > 0)
    }
}
