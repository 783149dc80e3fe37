//! The instances of a cluster with what is free on them: what placement looks at, kept true with every task.
//!
//! A task that comes or goes is only noted, which costs the same in clusters of any size; what was noted is taken in for
//! many tasks at once. Who asks for an instance gets it with what is noted of it.

use super::Request;
use super::host::{Host, Profile, room_for};
use super::log::{Change, Log, What};
use super::settled::Settled;
use super::stock::Held;
use imbl::{OrdMap, OrdSet};
use std::sync::{Arc, Weak};

/// Changes that are noted before they are taken in. Taking them in copies 24 bytes an instance: at ten thousand instances
/// that are 230 a change. Asking for one instance looks at all of them, some microseconds at most.
const NOTED_MAX: usize = if cfg!(test) { 16 } else { 1024 };

/// The instances of one cluster. A clone shares what does not change, so that transactions can work on their own.
#[derive(Clone, Debug)]
pub struct Pool<K: Ord + Clone> {
    /// Small numbers, by which a [`super::Placer`] keeps what it knows in plain arrays.
    numbers: OrdMap<K, u32>,
    /// How many instances are in which Availability Zone; no count is zero.
    zones: OrdMap<String, u32>,
    /// Numbers below `ever` that no instance has.
    vacant: OrdSet<u32>,
    ever: u32,
    settled: Arc<Settled>,
    /// What happened since.
    noted: Log<K>,
    /// What became `settled`, and by which changes: so that who saw that finds the way.
    made_of: Option<(Weak<Settled>, Log<K>)>,
}

impl<K: Ord + Clone> Default for Pool<K> {
    fn default() -> Self {
        Pool {
            numbers: OrdMap::new(),
            zones: OrdMap::new(),
            vacant: OrdSet::new(),
            ever: 0,
            settled: Arc::default(),
            noted: Log::default(),
            made_of: None,
        }
    }
}

/// Whether the same instances have the same: how that came about does not matter.
impl<K: Ord + Clone> PartialEq for Pool<K> {
    fn eq(&self, other: &Self) -> bool {
        self.hosts().eq(other.hosts())
    }
}

impl<K: Ord + Clone> Pool<K> {
    pub fn put(&mut self, key: K, mut host: Host) {
        let known = self.numbers.get(&key).copied();
        let profile = known.and_then(|number| self.profile(number)).cloned();
        if profile.as_ref().and_then(|profile| profile.zone()) != host.profile.zone() {
            self.leave_zone(profile.as_deref());
            if let Some(zone) = host.profile.zone() {
                *self.zones.entry(zone.to_owned()).or_default() += 1;
            }
        }
        if let Some(profile) = profile.filter(|profile| *profile == host.profile) {
            // The same allocation tells a placer that its verdict on the profile still holds.
            host.profile = profile;
        }
        let number = known.or_else(|| self.vacant.remove_min()).unwrap_or_else(|| {
            self.ever += 1;
            self.ever - 1
        });
        if known.is_none() {
            self.numbers.insert(key.clone(), number);
        }
        self.note(number, What::Is(Some(Arc::new((key, host)))));
    }

    pub fn remove(&mut self, key: &K) {
        if let Some(number) = self.numbers.remove(key) {
            let profile = self.profile(number).cloned();
            self.leave_zone(profile.as_deref());
            self.vacant.insert(number);
            self.note(number, What::Is(None));
        }
    }

    fn leave_zone(&mut self, profile: Option<&Profile>) {
        let Some(zone) = profile.and_then(Profile::zone) else { return };
        if let Some(count) = self.zones.get_mut(zone) {
            *count -= 1;
            if *count == 0 {
                self.zones.remove(zone);
            }
        }
    }

    /// The Availability Zones that have instances, whatever their state.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        self.zones.keys().map(String::as_str)
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// All instances' keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.numbers.keys()
    }

    pub fn host(&self, key: &K) -> Option<Host> {
        self.numbers.get(key).and_then(|number| self.numbered(*number))
    }

    /// All instances, in the order of their keys. Quicker than to ask for many of them by key.
    pub fn hosts(&self) -> impl Iterator<Item = (&K, Host)> {
        let settled = self.all_taken_in();
        self.numbers.iter().filter_map(move |(key, number)| Some((key, settled.host(*number)?)))
    }

    /// The instances to which such a task belongs at all; see [`Host::suits`].
    pub fn suitable(&self, request: &Request) -> Vec<K> {
        self.hosts().filter(|(_, host)| host.suits(request)).map(|(key, _)| key.clone()).collect()
    }

    /// Counts a task that is on the instance, checks or not.
    pub fn take(&mut self, key: &K, request: &Request) {
        if let Some(number) = self.numbers.get(key).copied() {
            let held = self.held(request);
            self.note(number, What::Came(held));
        }
    }

    /// Gives back what a task held.
    pub fn release(&mut self, key: &K, request: &Request) {
        if let Some(number) = self.numbers.get(key).copied() {
            let held = self.held(request);
            self.note(number, What::Went(held));
        }
    }

    /// How many instances have tasks of a group.
    pub fn instances_with(&self, group: &str) -> usize {
        let concerns = |change: &Change<K>| match &change.what {
            What::Came(held) | What::Went(held) => *held.group == *group,
            What::Is(_) => true,
        };
        match self.noted.backwards().any(concerns) {
            true => self.all_taken_in().instances_with(group),
            false => self.settled.instances_with(group),
        }
    }

    /// Keeps room for a task of the request's group on each instance that awaits one and could hold it if it were empty:
    /// others find what remains. On ECS the tasks of daemons come before all others on an instance, and what they need is
    /// reserved.
    pub fn reserve(&mut self, request: &Request, could_hold: impl Fn(&K) -> bool) {
        let room = room_for(request);
        let lacks = |(key, host): &(&K, Host)| host.awaits(request) && could_hold(key);
        let lacking: Vec<K> = self.hosts().filter(lacks).map(|(key, _)| key.clone()).collect();
        for key in lacking {
            self.take(&key, &room);
        }
    }

    /// What such a task holds: most often the same as that which came or went before it.
    fn held(&self, request: &Request) -> Arc<Held> {
        match self.noted.newest().map(|change| &change.what) {
            Some(What::Came(held) | What::Went(held)) if held.is_of(request) => Arc::clone(held),
            _ => Arc::new(Held::of(request)),
        }
    }

    fn note(&mut self, number: u32, what: What<K>) {
        self.noted.push(Change { number, what });
        if self.noted.len() >= NOTED_MAX {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        let noted = std::mem::take(&mut self.noted);
        let before = Arc::downgrade(&self.settled);
        Arc::make_mut(&mut self.settled).take_in(noted.forwards());
        self.made_of = Some((before, noted));
    }

    /// The instances with all that is noted.
    pub(super) fn all_taken_in(&self) -> Arc<Settled> {
        let mut settled = Arc::clone(&self.settled);
        if !self.noted.is_empty() {
            Arc::make_mut(&mut settled).take_in(self.noted.forwards());
        }
        settled
    }

    /// The numbers of all instances, by key.
    pub(super) fn numbers(&self) -> &OrdMap<K, u32> {
        &self.numbers
    }

    /// The instance with a number.
    pub(super) fn numbered(&self, number: u32) -> Option<Host> {
        let mut later = Vec::new();
        let mut put = None;
        for change in self.noted.backwards().filter(|change| change.number == number) {
            match &change.what {
                What::Is(host) => {
                    put = Some(host);
                    break;
                }
                what => later.push(what),
            }
        }
        let mut host = match put {
            Some(put) => put.as_ref()?.1.clone(),
            None => self.settled.host(number)?,
        };
        for what in later.into_iter().rev() {
            match what {
                What::Came(held) => host.hold(held),
                What::Went(held) => host.let_go(held),
                What::Is(_) => {}
            }
        }
        Some(host)
    }

    fn profile(&self, number: u32) -> Option<&Arc<Profile>> {
        let put = self.noted.backwards().filter(|change| change.number == number);
        let mut put = put.filter_map(|change| match &change.what {
            What::Is(host) => Some(host.as_ref().map(|host| &host.1.profile)),
            What::Came(_) | What::Went(_) => None,
        });
        put.next().unwrap_or_else(|| self.settled.profile(number))
    }

    /// The changes that lead from an earlier pool, or one that went another way, to this one; none where that cannot be
    /// told any more.
    pub(super) fn since(&self, earlier: &Pool<K>) -> Option<Vec<Change<K>>> {
        let mut changes = Vec::new();
        let mut follow = |from: &Log<K>, to: &Log<K>| -> Option<()> {
            let (undo, redo) = from.to(to);
            for change in undo {
                changes.push(change.undone()?);
            }
            changes.extend(redo.into_iter().cloned());
            Some(())
        };
        if Arc::ptr_eq(&self.settled, &earlier.settled) {
            follow(&earlier.noted, &self.noted)?;
        } else {
            let (before, noted) = self.made_of.as_ref()?;
            if !std::ptr::eq(before.as_ptr(), Arc::as_ptr(&earlier.settled)) {
                return None;
            }
            follow(&earlier.noted, noted)?;
            follow(&Log::default(), &self.noted)?;
        }
        Some(changes)
    }
}
