//! Managed Instances: which machines are made for tasks that wait, and of which types.
//!
//! ECS documents that it makes machines of the size that waiting tasks need, and puts several tasks on one. How it
//! chooses among types is not published: here the smallest that holds all that waits, within the user's requirements.

use super::reservation::{Size, Waiting};
use crate::scaling::instance_type::{self, Generation, Manufacturer};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// From so much to so much, or without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub min: u32,
    pub max: Option<u32>,
}

impl Range {
    fn holds(self, amount: u32) -> bool {
        self.min <= amount && self.max.is_none_or(|max| amount <= max)
    }
}

/// What machines may be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirements {
    /// Cores.
    pub cpus: Range,
    /// MiB.
    pub memory: Range,
    /// Types, with `*` for any characters; all where there are none.
    pub allowed: Vec<String>,
    pub excluded: Vec<String>,
    /// MiB a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_per_cpu: Option<Range>,
    /// Any where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manufacturers: Vec<Manufacturer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burstable: Option<Wish>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_storage: Option<Wish>,
    /// No type that is known here is of bare metal, nor has accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare_metal: Option<Wish>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerators: Option<Range>,
}

/// What may be of types that have something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    Included,
    Required,
    Excluded,
}

impl Wish {
    pub fn as_str(self) -> &'static str {
        match self {
            Wish::Included => "included",
            Wish::Required => "required",
            Wish::Excluded => "excluded",
        }
    }

    fn admits(self, has: bool) -> bool {
        match self {
            Wish::Included => true,
            Wish::Required => has,
            Wish::Excluded => !has,
        }
    }
}

/// The families that machines are made of, the least memory a core first; with the sizes that each of them has.
const FAMILIES: [&str; 3] = ["c7i", "m7i", "r7i"];
const SIZES: [&str; 9] =
    ["large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge", "48xlarge"];

/// What a host keeps for its system and agent of each machine's memory: a sixteenth, but so many MiB at least.
const SYSTEM_MEMORY_MIN: u32 = 256;
const SYSTEM_MEMORY_SHARE: u32 = 16;

/// A type that may be made, with what it offers tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    pub size: Size,
}

impl Requirements {
    /// The types that meet them, the smallest first. Those that are allowed by their full names are among them, whatever
    /// their family.
    pub fn offers(&self) -> Vec<Offer> {
        let usual =
            FAMILIES.iter().flat_map(|family| SIZES.iter().map(move |size| format!("{family}.{size}")));
        let named = self.allowed.iter().filter(|name| !name.contains('*')).cloned();
        let names: BTreeSet<String> = usual.chain(named).collect();
        let mut offers: Vec<Offer> = names.into_iter().filter_map(|name| self.offer(name)).collect();
        offers.sort_by_key(|offer| (offer.size, offer.name.clone()));
        offers
    }

    fn offer(&self, name: String) -> Option<Offer> {
        let size = instance_type::size(&name).ok()?;
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, &name));
        let fits =
            self.cpus.holds(size.cpu / 1024) && self.memory.holds(size.memory) && self.suits(&name, size);
        let allowed = (self.allowed.is_empty() || any(&self.allowed)) && !any(&self.excluded);
        let kept = (size.memory / SYSTEM_MEMORY_SHARE).max(SYSTEM_MEMORY_MIN);
        let size = Size { cpu: size.cpu, memory: size.memory.saturating_sub(kept), gpus: 0 };
        (fits && allowed).then_some(Offer { name, size })
    }
}

impl Requirements {
    /// Whether a type is what is wished for beside its size.
    fn suits(&self, name: &str, size: instance_type::Size) -> bool {
        let Some(traits) = instance_type::traits(name) else { return false };
        let admits = |wish: Option<Wish>, has| wish.is_none_or(|wish| wish.admits(has));
        let any_of = |list: &[Manufacturer]| list.is_empty() || list.contains(&traits.manufacturer);
        self.memory_per_cpu.is_none_or(|range| range.holds(size.memory / (size.cpu / 1024).max(1)))
            && any_of(&self.manufacturers)
            && (self.generations.is_empty() || self.generations.contains(&traits.generation))
            && admits(self.burstable, traits.burstable)
            && admits(self.local_storage, traits.local_storage)
            && admits(self.bare_metal, false)
            && self.accelerators.is_none_or(|range| range.holds(0))
    }
}

/// Whether a name is of a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A machine that has room, or will.
struct Bin {
    free: Size,
    /// The groups, by number, that have a task there whose like cannot come.
    apart: BTreeSet<usize>,
}

impl Bin {
    fn new(free: Size) -> Bin {
        Bin { free, apart: BTreeSet::new() }
    }

    /// Takes a task of a group, if it fits.
    fn take(&mut self, group: usize, waiting: &Waiting) -> bool {
        let fits = waiting.size.fits_in(self.free) && !(waiting.apart && self.apart.contains(&group));
        if fits {
            self.free.cpu -= waiting.size.cpu;
            self.free.memory -= waiting.size.memory;
            self.free.gpus -= waiting.size.gpus;
            if waiting.apart {
                self.apart.insert(group);
            }
        }
        fits
    }
}

/// The machines to make for what waits, `most` at once: so many of the types in `offers`, beside those that have `room` or
/// will. Tasks that no type can hold are left out.
pub fn launches(waiting: &[Waiting], room: &[Size], offers: &[Offer], most: usize) -> Vec<String> {
    let mut groups: Vec<(usize, Waiting)> = waiting.iter().copied().enumerate().collect();
    groups.sort_by_key(|(_, group)| (!group.apart, Reverse(group.size)));
    let mut bins: Vec<Bin> = room.iter().copied().map(Bin::new).collect();
    for (number, group) in &mut groups {
        group.count = fill(&mut bins, *number, group);
    }
    groups.retain(|(_, group)| offers.iter().any(|offer| group.size.fits_in(offer.size)));
    let mut made = Vec::new();
    while made.len() < most {
        groups.retain(|(_, group)| group.count > 0);
        let Some(offer) = choose(&groups, offers) else { break };
        let mut bin = [Bin::new(offer.size)];
        for (number, group) in &mut groups {
            group.count = fill(&mut bin, *number, group);
        }
        made.push(offer.name.clone());
    }
    made
}

/// Puts a group's tasks into bins; says how many are left.
fn fill(bins: &mut [Bin], number: usize, group: &Waiting) -> usize {
    let mut left = group.count;
    for bin in bins {
        while left > 0 && bin.take(number, group) {
            left -= 1;
        }
    }
    left
}

/// The smallest type that holds one task of each group that has to be apart and all of the others, or else the largest
/// that holds the largest task.
fn choose<'a>(groups: &[(usize, Waiting)], offers: &'a [Offer]) -> Option<&'a Offer> {
    let mut all = Size::default();
    for (_, group) in groups {
        let count = if group.apart { 1 } else { u32::try_from(group.count).unwrap_or(u32::MAX) };
        all.cpu = all.cpu.saturating_add(group.size.cpu.saturating_mul(count));
        all.memory = all.memory.saturating_add(group.size.memory.saturating_mul(count));
    }
    let (_, largest) = groups.iter().max_by_key(|(_, group)| group.size)?;
    let holds_all = offers.iter().find(|offer| all.fits_in(offer.size));
    holds_all.or_else(|| offers.iter().rev().find(|offer| largest.size.fits_in(offer.size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn waiting(cpu: u32, memory: u32, count: usize) -> Waiting {
        Waiting { size: Size { cpu, memory, gpus: 0 }, count, apart: false }
    }

    fn small() -> Vec<Offer> {
        let cpus = Range { min: 2, max: Some(4) };
        Requirements { cpus, ..Requirements::default() }.offers()
    }

    #[test]
    fn types_are_those_that_meet_the_requirements() {
        let names: Vec<String> = small().into_iter().map(|offer| offer.name).collect();
        assert_eq!(names, ["c7i.large", "m7i.large", "r7i.large", "c7i.xlarge", "m7i.xlarge", "r7i.xlarge"]);
        let named = |allowed: &[&str], excluded: &[&str]| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let wanted =
                Requirements { allowed: texts(allowed), excluded: texts(excluded), ..Default::default() };
            wanted.offers().into_iter().map(|offer| offer.name).collect::<Vec<_>>()
        };
        assert_eq!(named(&["t3.medium"], &[]), ["t3.medium"]);
        assert_eq!(named(&["m7i.*large"], &["*xlarge"]), ["m7i.large"]);
        assert!(named(&["p5.48xlarge"], &[]).is_empty(), "no type is known of it");
    }

    #[test]
    fn what_is_wished_for_beside_the_size_is_met() {
        let texts = ["t3.medium", "m3.large", "m7g.large", "m7gd.large", "c6a.large"];
        let all = || Requirements { allowed: texts.map(str::to_owned).to_vec(), ..Default::default() };
        let names = |wanted: Requirements| {
            let mut names: Vec<String> = wanted.offers().into_iter().map(|offer| offer.name).collect();
            names.sort_by_key(|name| texts.iter().position(|text| text == name));
            names
        };
        assert_eq!(names(all()), texts);
        let wish = |wish: Wish| Some(wish);
        let graviton = vec![Manufacturer::AmazonWebServices];
        for (wanted, left) in [
            (Requirements { burstable: wish(Wish::Required), ..all() }, &texts[..1]),
            (Requirements { burstable: wish(Wish::Excluded), ..all() }, &texts[1..]),
            (Requirements { local_storage: wish(Wish::Required), ..all() }, &texts[3..4]),
            (Requirements { generations: vec![Generation::Previous], ..all() }, &texts[1..2]),
            (Requirements { manufacturers: graviton, ..all() }, &texts[2..4]),
            (Requirements { bare_metal: wish(Wish::Included), ..all() }, &texts[..]),
            (Requirements { bare_metal: wish(Wish::Required), ..all() }, &[]),
            (Requirements { accelerators: Some(Range { min: 0, max: Some(0) }), ..all() }, &texts[..]),
            (Requirements { accelerators: Some(Range { min: 1, max: None }), ..all() }, &[]),
            (Requirements { memory_per_cpu: Some(Range { min: 4096, max: None }), ..all() }, &texts[1..4]),
        ] {
            assert_eq!(names(wanted.clone()), left, "{wanted:?}");
        }
    }

    #[test]
    fn machines_are_of_the_size_that_waits() {
        let offers = small();
        assert_eq!(launches(&[waiting(512, 256, 3)], &[], &offers, 9), ["c7i.large"]);
        assert_eq!(launches(&[waiting(512, 6000, 1)], &[], &offers, 9), ["m7i.large"]);
        assert_eq!(launches(&[waiting(1024, 2000, 4)], &[], &offers, 9), ["m7i.xlarge"]);
        assert_eq!(launches(&[waiting(2048, 1000, 4)], &[], &offers, 9), ["r7i.xlarge", "c7i.xlarge"]);
        assert!(launches(&[waiting(8192, 1000, 1)], &[], &offers, 9).is_empty(), "no type holds it");
        let coming = Size { cpu: 1024, memory: 4000, gpus: 0 };
        assert_eq!(launches(&[waiting(512, 256, 3)], &[coming], &offers, 9), ["c7i.large"]);
        assert!(launches(&[waiting(512, 256, 2)], &[coming], &offers, 9).is_empty(), "they wait for it");
        let apart = Waiting { apart: true, ..waiting(256, 256, 3) };
        assert_eq!(launches(&[apart], &[coming], &offers, 9).len(), 2);
        assert_eq!(launches(&[waiting(2048, 1000, 100)], &[], &offers, 9).len(), 9);
    }

    proptest! {
        #[test]
        fn what_is_made_holds_what_waits(
            groups in prop::collection::vec((1u32..4000, 1u32..30_000, 0usize..20, any::<bool>()), 0..6),
        ) {
            let offers = small();
            let groups: Vec<Waiting> = groups.into_iter()
                .map(|(cpu, memory, count, apart)| Waiting { apart, ..waiting(cpu, memory, count) })
                .collect();
            let made = launches(&groups, &[], &offers, usize::MAX);
            let room: Vec<Size> = made.iter()
                .map(|name| offers.iter().find(|offer| offer.name == *name).map(|offer| offer.size).unwrap_or_default())
                .collect();
            // Once they are there, nothing more is wanted for the same tasks.
            let total = |of: fn(&Size) -> u32| room.iter().map(of).map(u64::from).sum::<u64>();
            let fits = |group: &&Waiting| offers.iter().any(|offer| group.size.fits_in(offer.size));
            let needed: u64 = groups.iter().filter(fits).map(|g| u64::from(g.size.cpu) * g.count as u64).sum();
            prop_assert!(total(|size| size.cpu) >= needed);
            let each = groups.iter().filter(fits).map(|group| group.count).sum::<usize>();
            prop_assert!(made.len() <= each, "a machine for each task at most");
        }
    }
}
