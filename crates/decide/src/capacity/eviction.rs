//! Which spot tasks make room for tasks that have to have it.
//!
//! For each on one host, since no other's room helps: the fewest tasks, then the least that is lost with them. Who is on its
//! way out already counts as room to come, so that nobody is stopped twice over for the same need.

use crate::placement::{Host, Request};

/// A spot task that runs, and what it gives back when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant<T> {
    pub id: T,
    pub held: Request,
}

/// Hosts as they will be once those have gone that were told to, with the spot tasks that stay.
#[derive(Clone, Debug)]
pub struct Room<T> {
    hosts: Vec<(Host, Vec<Tenant<T>>)>,
}

impl<T> Default for Room<T> {
    fn default() -> Self {
        Room { hosts: Vec::new() }
    }
}

impl<T: Clone> Room<T> {
    /// Adds a host as it is now, with what those hold who are leaving it.
    pub fn add(&mut self, mut host: Host, leaving: &[Request], staying: Vec<Tenant<T>>) {
        for held in leaving {
            host.give_back(held);
        }
        self.hosts.push((host, staying));
    }

    /// Makes room for a task in the cheapest way and counts it as there. Who has to go for it: nobody, where there is or
    /// will be room anyhow; `None` where not even all spot tasks of a host are enough.
    pub fn make(&mut self, request: &Request) -> Option<Vec<T>> {
        let ways = self.hosts.iter().enumerate();
        let ways =
            ways.filter_map(|(index, (host, staying))| Some((index, victims(host, staying, request)?)));
        let cost = |host: usize, victims: &[usize]| -> u64 {
            victims.iter().map(|victim| u64::from(self.hosts[host].1[*victim].held.cpu)).sum()
        };
        let (index, mut victims) =
            ways.min_by_key(|(index, victims)| (victims.len(), cost(*index, victims), *index))?;
        let (host, staying) = &mut self.hosts[index];
        // From the last to the first, so that the places of the others stay.
        victims.sort_unstable_by(|one, other| other.cmp(one));
        let mut gone = Vec::with_capacity(victims.len());
        for victim in victims {
            let tenant = staying.remove(victim);
            host.give_back(&tenant.held);
            gone.push(tenant.id);
        }
        host.take(request);
        Some(gone)
    }
}

/// The places of those among the tenants of a host who have to go.
fn victims<T>(host: &Host, staying: &[Tenant<T>], request: &Request) -> Option<Vec<usize>> {
    let mut host = host.clone();
    // The largest first makes the victims few; then those are spared that turn out not to be needed.
    let mut order: Vec<usize> = (0..staying.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse((staying[*i].held.cpu, staying[*i].held.memory)));
    let mut order = order.into_iter();
    let mut gone: Vec<usize> = Vec::new();
    while host.refuses(request).is_some() {
        let next = order.next()?;
        host.give_back(&staying[next].held);
        gone.push(next);
    }
    gone.retain(|i| {
        host.take(&staying[*i].held);
        let needed = host.refuses(request).is_some();
        if needed {
            host.give_back(&staying[*i].held);
        }
        needed
    });
    Some(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{Groups, Profile};
    use crate::time::Timestamp;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn request(cpu: u32, memory: u32) -> Request {
        Request { cpu, memory, group: "g".to_owned(), ..Request::default() }
    }

    fn host(cpu: u32, memory: u32, tenants: Vec<Tenant<u32>>) -> (Host, Vec<Tenant<u32>>) {
        let profile = Profile {
            active: true,
            connected: true,
            attributes: BTreeMap::new(),
            agent_version: String::new(),
            ec2_instance_id: None,
            registered_at: Timestamp::EPOCH,
        };
        let mut host = Host {
            profile: Arc::new(profile),
            free_cpu: i64::from(cpu),
            free_memory: i64::from(memory),
            free_gpus: 0,
            used_ports: Arc::default(),
            groups: Groups::default(),
        };
        for tenant in &tenants {
            host.take(&tenant.held);
        }
        (host, tenants)
    }

    fn tenant(id: u32, cpu: u32, memory: u32) -> Tenant<u32> {
        Tenant { id, held: request(cpu, memory) }
    }

    fn room(hosts: Vec<(Host, Vec<Tenant<u32>>)>) -> Room<u32> {
        let mut room = Room::default();
        for (host, staying) in hosts {
            room.add(host, &[], staying);
        }
        room
    }

    #[test]
    fn the_fewest_go_and_the_smallest_of_those() {
        let hosts = || {
            room(vec![
                host(1024, 4096, vec![tenant(1, 256, 512), tenant(2, 256, 512), tenant(3, 512, 1024)]),
                host(1024, 4096, vec![tenant(4, 1024, 2048)]),
            ])
        };
        assert_eq!(hosts().make(&request(512, 512)), Some(vec![3]));
        assert_eq!(hosts().make(&request(1024, 512)), Some(vec![4]));
        assert_eq!(hosts().make(&request(2048, 512)), None);
    }

    #[test]
    fn who_is_leaving_already_is_enough_but_only_once() {
        let (full, _) = host(1024, 4096, vec![tenant(1, 512, 512), tenant(2, 512, 512)]);
        let mut room = Room::default();
        room.add(full, &[request(512, 512)], vec![tenant(2, 512, 512)]);
        assert_eq!(room.make(&request(512, 512)), Some(vec![]));
        assert_eq!(room.make(&request(512, 512)), Some(vec![2]));
        assert_eq!(room.make(&request(512, 512)), None);
    }

    proptest! {
        #[test]
        fn room_comes_about_and_nobody_goes_in_vain(
            sizes in proptest::collection::vec((1u32..8, 1u32..8), 0..8),
            wanted in (1u32..16, 1u32..16),
        ) {
            let tenants: Vec<Tenant<u32>> =
                sizes.iter().enumerate().map(|(i, (cpu, memory))| tenant(i as u32, *cpu, *memory)).collect();
            let used: u32 = sizes.iter().map(|(cpu, _)| cpu).sum();
            let (host, tenants) = host(used.max(8), 64, tenants);
            let request = request(wanted.0, wanted.1);
            let after = |spared: Option<u32>, victims: &[u32]| {
                let mut host = host.clone();
                for gone in tenants.iter().filter(|t| victims.contains(&t.id) && Some(t.id) != spared) {
                    host.give_back(&gone.held);
                }
                host.refuses(&request)
            };
            let everybody: Vec<u32> = tenants.iter().map(|tenant| tenant.id).collect();
            match room(vec![(host.clone(), tenants.clone())]).make(&request) {
                None => prop_assert!(after(None, &everybody).is_some()),
                Some(victims) => {
                    prop_assert_eq!(after(None, &victims), None);
                    for victim in &victims {
                        prop_assert!(after(Some(*victim), &victims).is_some(), "each of them was needed");
                    }
                }
            }
        }
    }
}
