//! The network interfaces that tasks hold, by what is asked of them: follows from the tasks alone.

use super::{Eni, Task, TaskKey};
use gantry_store::Index;
use imbl::OrdMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// See the module. A clone is cheap.
#[derive(Clone, Default)]
pub struct Interfaces {
    /// No address is given twice in a scope, whatever VPCs there are: hosts route them all.
    by_address: OrdMap<Ipv4Addr, TaskKey>,
    by_ipv6: OrdMap<Ipv6Addr, TaskKey>,
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

    pub fn is_ipv6_taken(&self, address: Ipv6Addr) -> bool {
        self.by_ipv6.contains_key(&address)
    }

    /// The task that has an address.
    pub fn holder(&self, address: IpAddr) -> Option<&TaskKey> {
        match address {
            IpAddr::V4(address) => self.by_address.get(&address),
            IpAddr::V6(address) => self.by_ipv6.get(&address),
        }
    }

    /// The tasks that have an interface.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskKey> {
        self.by_address.values()
    }

    /// How many interfaces there are in a subnet.
    pub fn count_in(&self, subnet: &str) -> usize {
        self.by_subnet.count(&subnet.to_owned())
    }

    /// Whether an interface in a subnet has an IPv6 address. `tasks` are those that have the interfaces.
    pub fn has_ipv6_in(&self, subnet: &str, tasks: &super::EcsState) -> bool {
        let mut keys = self.by_subnet.get(&subnet.to_owned());
        keys.any(|key| tasks.task(key).and_then(held).is_some_and(|eni| eni.ipv6.is_some()))
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
            if let Some(ipv6) = eni.ipv6 {
                self.by_ipv6.remove(&ipv6.address);
            }
            self.by_subnet.remove(&eni.subnet, key);
            for group in &eni.security_groups {
                self.by_group.remove(group, key);
            }
        }
        if let Some(eni) = new {
            self.by_address.insert(eni.address, key.clone());
            if let Some(ipv6) = eni.ipv6 {
                self.by_ipv6.insert(ipv6.address, key.clone());
            }
            self.by_subnet.insert(eni.subnet.clone(), key.clone());
            for group in &eni.security_groups {
                self.by_group.insert(group.clone(), key.clone());
            }
        }
    }

    /// Panics where this contradicts the tasks.
    pub(super) fn check(&self, tasks: &super::EcsState) {
        let (mut count, mut with_ipv6) = (0, 0);
        for (key, task) in tasks.tasks().iter() {
            let Some(eni) = held(task) else { continue };
            count += 1;
            with_ipv6 += usize::from(eni.ipv6.is_some());
            for address in eni.addresses() {
                assert_eq!(self.holder(address), Some(key), "{address} is given twice or to nobody");
            }
            assert!(self.by_subnet.contains(&eni.subnet, key), "{key:?} is missing from its subnet");
            for group in &eni.security_groups {
                assert!(self.by_group.contains(group, key), "{key:?} is missing from its group");
            }
        }
        let held = (self.by_address.len(), self.by_ipv6.len());
        assert_eq!(held, (count, with_ipv6), "an address is held by no task");
        assert_eq!(self.by_subnet.iter().count(), count, "a subnet has an interface of no task");
    }
}
