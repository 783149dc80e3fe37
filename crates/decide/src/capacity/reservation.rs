//! `CapacityProviderReservation`: of the instances of a capacity provider, the percentage that tasks need.
//!
//! ECS documents it as M / N × 100, where N instances are there and M are needed: those that have a task that is no
//! daemon's, and those that the waiting tasks would fill.

/// An amount of what instances offer and tasks need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// CPU units: 1024 a core.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    pub gpus: u32,
}

impl Size {
    pub(super) fn fits_in(self, room: Size) -> bool {
        self.cpu <= room.cpu && self.memory <= room.memory && self.gpus <= room.gpus
    }

    /// How many fit at most. Tasks that need nothing at all fit without end.
    fn times_in(self, room: Size) -> usize {
        let times = |need: u32, room: u32| room.checked_div(need).map_or(usize::MAX, |times| times as usize);
        times(self.cpu, room.cpu).min(times(self.memory, room.memory)).min(times(self.gpus, room.gpus))
    }
}

/// Waiting tasks that ask the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub size: Size,
    pub count: usize,
    /// Whether no two of them can be on one instance: by a fixed port of the host, or because their placement demands it.
    pub apart: bool,
}

/// A provider and what asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// N: the instances that are there.
    pub instances: usize,
    /// How many of them have a task that is no daemon's.
    pub busy: usize,
    /// What an empty instance offers beside daemons' tasks: the smallest one, where they differ. `None` while none is known.
    pub instance: Option<Size>,
    pub waiting: Vec<Waiting>,
    /// The fewest and the most instances that are added at once.
    pub steps: (u32, u32),
}

impl Situation {
    /// M: the instances that are needed.
    ///
    /// Groups that do not fit on an empty instance are left out, as ECS does: no number of instances would help them.
    /// The additional ones are between the two steps. Before any instance is known ECS adds two, to learn from.
    pub fn needed(&self) -> usize {
        let groups = || self.waiting.iter().filter(|group| group.count > 0);
        if groups().next().is_none() {
            return self.busy;
        }
        let (least, most) = (self.steps.0.max(1) as usize, self.steps.1.max(1) as usize);
        let additional = match self.instance {
            Some(instance) => {
                let fitting = groups().filter(|group| group.size.fits_in(instance));
                match pack(fitting.copied(), instance) {
                    0 => return self.busy,
                    additional => additional.clamp(least, most.max(least)),
                }
            }
            None => FIRST_INSTANCES.clamp(least, most.max(least)),
        };
        // Empty instances that are there already are among those needed: what waits does not fit on what is free of the
        // busy ones, or it would not wait.
        self.busy.saturating_add(additional)
    }

    /// The metric, in percent.
    pub fn reservation(&self) -> f64 {
        match (self.instances, self.needed()) {
            (0, 0) => 100.0,
            // A quotient that does not exist, and stands for "more".
            (0, _) => 200.0,
            (there, needed) => needed as f64 / there as f64 * 100.0,
        }
    }
}

/// Instances that ECS starts from none, whatever waits.
const FIRST_INSTANCES: usize = 2;

/// Instances that groups of tasks fill, first fit: those first that need an instance each, then the largest. Without the
/// former that is at most 11/9 of the best for one dimension, and never fewer than are needed.
fn pack(groups: impl Iterator<Item = Waiting>, instance: Size) -> usize {
    let mut groups: Vec<Waiting> = groups.collect();
    groups.sort_by_key(|group| (!group.apart, std::cmp::Reverse(group.size)));
    /// Instances alike, each with so much room, of which so many are there.
    struct Bins {
        room: Size,
        count: usize,
    }
    let mut bins: Vec<Bins> = Vec::new();
    for group in groups {
        let mut left = group.count;
        let mut filled: Vec<Bins> = Vec::new();
        for bin in &mut bins {
            let each = if group.apart { 1 } else { group.size.times_in(bin.room) };
            if left == 0 || !group.size.fits_in(bin.room) || each == 0 {
                continue;
            }
            let full = (left / each).min(bin.count);
            left -= full.saturating_mul(each).min(left);
            bin.count -= full;
            if full > 0 {
                filled.push(Bins { room: without(bin.room, group.size, each), count: full });
            }
            if left > 0 && left < each && bin.count > 0 {
                bin.count -= 1;
                filled.push(Bins { room: without(bin.room, group.size, left), count: 1 });
                left = 0;
            }
        }
        let each = if group.apart { 1 } else { group.size.times_in(instance) };
        if left > 0 && each > 0 {
            let full = left / each;
            if full > 0 {
                filled.push(Bins { room: without(instance, group.size, each), count: full });
            }
            let rest = left - full.saturating_mul(each);
            if rest > 0 {
                filled.push(Bins { room: without(instance, group.size, rest), count: 1 });
            }
        }
        bins.extend(filled);
        bins.retain(|bin| bin.count > 0);
    }
    bins.iter().map(|bin| bin.count).sum()
}

fn without(room: Size, size: Size, times: usize) -> Size {
    let times = u32::try_from(times).unwrap_or(u32::MAX);
    let less = |room: u32, size: u32| room.saturating_sub(size.saturating_mul(times));
    Size {
        cpu: less(room.cpu, size.cpu),
        memory: less(room.memory, size.memory),
        gpus: less(room.gpus, size.gpus),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(cpu: u32, memory: u32) -> Size {
        Size { cpu, memory, gpus: 0 }
    }

    fn waiting(cpu: u32, memory: u32, count: usize) -> Waiting {
        Waiting { size: size(cpu, memory), count, apart: false }
    }

    fn situation(instances: usize, busy: usize, waiting: Vec<Waiting>) -> Situation {
        Situation { instances, busy, instance: Some(size(2048, 4096)), waiting, steps: (1, 10_000) }
    }

    #[test]
    fn the_metric_is_what_is_needed_of_what_is_there() {
        assert_eq!(situation(0, 0, vec![]).reservation(), 100.0);
        assert_eq!(situation(4, 4, vec![]).reservation(), 100.0);
        assert_eq!(situation(4, 1, vec![]).reservation(), 25.0);
        // Five tasks of half an instance each, on top of what is full.
        assert_eq!(situation(2, 2, vec![waiting(1024, 256, 5)]).reservation(), 250.0);
        assert_eq!(situation(0, 0, vec![waiting(1024, 256, 5)]).reservation(), 200.0);
    }

    #[test]
    fn from_no_instance_two_are_needed_and_what_never_fits_needs_none() {
        let first = Situation { instance: None, ..situation(0, 0, vec![waiting(256, 256, 50)]) };
        assert_eq!(first.needed(), 2);
        assert_eq!(situation(1, 0, vec![waiting(4096, 256, 3)]).needed(), 0);
        assert_eq!(situation(1, 1, vec![waiting(4096, 256, 3), waiting(256, 256, 1)]).needed(), 2);
    }

    #[test]
    fn steps_bound_what_is_added() {
        let many = |steps| Situation { steps, ..situation(1, 1, vec![waiting(2048, 256, 20)]) };
        assert_eq!(many((1, 5)).needed(), 6);
        assert_eq!(many((30, 50)).needed(), 31);
        assert_eq!(many((1, 10_000)).needed(), 21);
    }

    #[test]
    fn tasks_that_must_be_apart_need_an_instance_each() {
        let apart = Waiting { apart: true, ..waiting(64, 64, 3) };
        assert_eq!(situation(0, 0, vec![apart]).needed(), 3);
        // Others fit beside them.
        assert_eq!(situation(0, 0, vec![apart, waiting(1024, 64, 3)]).needed(), 3);
    }

    proptest! {
        #[test]
        fn all_that_fit_have_room(
            groups in proptest::collection::vec((0u32..2048, 1u32..4096, 0usize..40, any::<bool>()), 0..6),
        ) {
            let room = size(2048, 4096);
            let groups: Vec<Waiting> = groups
                .into_iter()
                .map(|(cpu, memory, count, apart)| Waiting { apart, ..waiting(cpu, memory, count) })
                .collect();
            let bins = pack(groups.iter().copied(), room) as u64;
            let sum = |of: fn(&Waiting) -> u32| groups.iter().map(|g| u64::from(of(g)) * g.count as u64).sum::<u64>();
            prop_assert!(bins * 2048 >= sum(|g| g.size.cpu), "no instance has more CPU than it offers");
            prop_assert!(bins * 4096 >= sum(|g| g.size.memory), "nor memory");
            let apart = groups.iter().filter(|g| g.apart).map(|g| g.count).max().unwrap_or(0);
            prop_assert!(bins >= apart as u64);
            let tasks: usize = groups.iter().map(|g| g.count).sum();
            prop_assert!(bins <= tasks as u64, "no instance stays empty");
        }

        #[test]
        fn more_tasks_never_need_fewer_instances(cpu in 1u32..2048, memory in 1u32..4096, count in 0usize..100) {
            let needed = |count| situation(3, 1, vec![waiting(cpu, memory, count)]).needed();
            prop_assert!(needed(count) <= needed(count + 1));
        }
    }
}
