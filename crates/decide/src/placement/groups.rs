//! How many tasks of each group are on an instance.

use super::settled::Settled;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Who can be asked for the tasks of an instance by their groups.
pub(super) trait ByGroup {
    /// How many tasks of a group are here.
    fn of(&self, group: &str) -> u32;
    /// Whether a task is here whose group satisfies the condition.
    fn any(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// Asked for what does not depend on tasks.
pub(super) struct NoTasks;

impl ByGroup for NoTasks {
    fn of(&self, _group: &str) -> u32 {
        0
    }

    fn any(&self, _condition: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
}

/// The tasks of one instance, counted by group. Of an instance in a pool they are looked up there when they are asked
/// for, since few ask and an instance may have tasks of hundreds of groups.
#[derive(Clone)]
pub struct Groups {
    base: Base,
    /// What came and went since; no entry is zero.
    since: BTreeMap<Arc<str>, i64>,
    /// Tasks of all groups.
    total: u32,
}

#[derive(Clone)]
enum Base {
    Own(Arc<BTreeMap<Arc<str>, u32>>),
    /// Those of the instance with this number.
    Settled(Arc<Settled>, u32),
}

impl Groups {
    pub(super) fn settled(settled: Arc<Settled>, number: u32, total: u32) -> Groups {
        Groups { base: Base::Settled(settled, number), since: BTreeMap::new(), total }
    }

    /// How many tasks there are, of whichever groups.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Counts `more` tasks of a group, or as many less.
    pub(super) fn add(&mut self, group: &Arc<str>, more: i64) {
        self.total = plus(self.total, more);
        let count = self.since.entry(Arc::clone(group)).or_default();
        *count += more;
        if *count == 0 {
            self.since.remove(group);
        }
    }

    /// All groups that have tasks here.
    pub fn to_map(&self) -> BTreeMap<Arc<str>, u32> {
        let mut all = match &self.base {
            Base::Own(groups) => groups.as_ref().clone(),
            Base::Settled(settled, number) => settled.groups_on(*number).collect(),
        };
        for (group, more) in &self.since {
            let count = all.entry(Arc::clone(group)).or_default();
            *count = plus(*count, *more);
        }
        all.retain(|_, count| *count > 0);
        all
    }
}

fn plus(count: u32, more: i64) -> u32 {
    u32::try_from(i64::from(count) + more).unwrap_or(0)
}

impl ByGroup for Groups {
    fn of(&self, group: &str) -> u32 {
        let base = match &self.base {
            Base::Own(groups) => groups.get(group).copied().unwrap_or(0),
            Base::Settled(settled, number) => settled.tasks_on(*number, group),
        };
        plus(base, self.since.get(group).copied().unwrap_or(0))
    }

    fn any(&self, condition: &mut dyn FnMut(&str) -> bool) -> bool {
        let mut here = |group: &str| condition(group) && self.of(group) > 0;
        let base = match &self.base {
            Base::Own(groups) => groups.keys().any(|group| here(group)),
            Base::Settled(settled, _) => settled.groups().any(|group| here(group)),
        };
        base || self.since.keys().any(|group| here(group))
    }
}

impl Default for Groups {
    fn default() -> Self {
        Groups::from(BTreeMap::new())
    }
}

impl From<BTreeMap<Arc<str>, u32>> for Groups {
    fn from(groups: BTreeMap<Arc<str>, u32>) -> Self {
        let total = groups.values().sum();
        Groups { base: Base::Own(Arc::new(groups)), since: BTreeMap::new(), total }
    }
}

impl PartialEq for Groups {
    fn eq(&self, other: &Self) -> bool {
        self.to_map() == other.to_map()
    }
}

impl Eq for Groups {}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.to_map()).finish()
    }
}
