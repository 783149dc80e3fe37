//! The network interfaces that tasks hold, by what is asked of them: follows from the tasks alone.

use super::{Eni, Task, TaskKey};
use gantry_store::Index;
use imbl::OrdMap;
use std::net::Ipv4Addr;

/// See the module. A clone is cheap.
#[derive(Clone, Default)]
pub struct Interfaces {
    /// No address is given twice in a scope, whatever VPCs there are: hosts route them all.
    by_address: OrdMap<Ipv4Addr, TaskKey>,
    by_subnet: Index<String, TaskKey>,
    by_group: Index<String, TaskKey>,
}

/// The interface that a task holds now.
pub fn held(task: &Task) -> Option<&Eni> {
    task.eni.as_ref().filter(|eni| eni.attached)
}

impl Interfaces {
    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.by_address.contains_key(&address) && !gantry_decide::mutant::is("one address given twice")
    }

    /// The task that has an address.
    pub fn holder(&self, address: Ipv4Addr) -> Option<&TaskKey> {
        self.by_address.get(&address)
    }

    /// The tasks that have an interface.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskKey> {
        self.by_address.values()
    }

    /// How many interfaces there are in a subnet.
    pub fn count_in(&self, subnet: &str) -> usize {
        self.by_subnet.count(&subnet.to_owned())
    }

    /// The tasks whose interfaces are in a security group.
    pub fn in_group<'a>(&'a self, group: &str) -> impl Iterator<Item = &'a TaskKey> + use<'a> {
        self.by_group.get(&group.to_owned())
    }

    /// Replaces what a task held by what it holds.
    pub(super) fn change(&mut self, key: &TaskKey, old: Option<&Task>, new: Option<&Task>) {
        let (old, new) = (old.and_then(held), new.and_then(held));
        if old.map(|eni| eni.id) == new.map(|eni| eni.id) {
            return;
        }
        if let Some(eni) = old {
            self.by_address.remove(&eni.address);
            self.by_subnet.remove(&eni.subnet, key);
            for group in &eni.security_groups {
                self.by_group.remove(group, key);
            }
        }
        if let Some(eni) = new {
            self.by_address.insert(eni.address, key.clone());
            self.by_subnet.insert(eni.subnet.clone(), key.clone());
            for group in &eni.security_groups {
                self.by_group.insert(group.clone(), key.clone());
            }
        }
    }

    /// Panics where this contradicts the tasks.
    pub(super) fn check(&self, tasks: &super::EcsState) {
        let mut count = 0;
        for (key, task) in tasks.tasks().iter() {
            let Some(eni) = held(task) else { continue };
            count += 1;
            assert_eq!(
                self.by_address.get(&eni.address),
                Some(key),
                "{} is given twice or to nobody",
                eni.address
            );
            assert!(self.by_subnet.contains(&eni.subnet, key), "{key:?} is missing from its subnet");
            for group in &eni.security_groups {
                assert!(self.by_group.contains(group, key), "{key:?} is missing from its group");
            }
        }
        assert_eq!(self.by_address.len(), count, "an address is held by no task");
        assert_eq!(self.by_subnet.iter().count(), count, "a subnet has an interface of no task");
    }
}
