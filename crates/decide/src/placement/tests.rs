//! Placement on small clusters whose right answer is known, and what must hold on any.
#![allow(clippy::unwrap_used)]

mod oracle;

use super::{
    Among, Constraint, Groups, Host, Placed, Placer, Pool, Profile, Protocol, Refusal, Request, ServiceTask,
    Strategy, scale_in,
};
use crate::query::Query;
use crate::random::{Random, Seeded};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl<K: Ord + Clone> Pool<K> {
    /// Places tasks and counts them.
    fn place(&mut self, request: &Request, count: usize, random: &mut dyn Random) -> Placed<K> {
        let placed = Placer::default().place(self, request, count, random);
        for key in &placed.on {
            self.take(key, request);
        }
        placed
    }
}

fn host(zone: &str, cpu: i64, memory: i64) -> Host {
    let profile = Profile {
        active: true,
        connected: true,
        attributes: BTreeMap::from([("ecs.availability-zone".to_owned(), Some(zone.to_owned()))]),
        agent_version: "1.86.3".to_owned(),
        ec2_instance_id: None,
        registered_at: Timestamp::EPOCH,
    };
    Host {
        profile: profile.into(),
        free_cpu: cpu,
        free_memory: memory,
        free_gpus: 2,
        used_ports: BTreeSet::from([(Protocol::Tcp, 22)]).into(),
        groups: Groups::default(),
    }
}

fn but(mut host: Host, change: impl FnOnce(&mut Profile)) -> Host {
    change(Arc::make_mut(&mut host.profile));
    host
}

/// Instances 0 to 3, two in each of two zones, with 1024 units and 1024 MiB.
fn four() -> Pool<u32> {
    let mut pool = Pool::default();
    for key in 0..4 {
        pool.put(key, host(if key < 2 { "a" } else { "b" }, 1_024, 1_024));
    }
    pool
}

fn request() -> Request {
    Request { cpu: 256, memory: 256, group: "service:web".to_owned(), ..Request::default() }
}

fn member_of(text: &str) -> Constraint {
    Constraint::MemberOf(Query::parse(text).unwrap())
}

#[test]
fn services_spread_over_zones_then_instances() {
    let mut pool = four();
    let request = Request { strategies: Strategy::service_default(), ..request() };
    let placed = pool.place(&request, 8, &mut Seeded::new(1));
    for pair in placed.on.chunks(2) {
        assert_eq!(pair.iter().filter(|key| **key < 2).count(), 1, "{:?}", placed.on);
    }
    for key in 0..4 {
        assert_eq!(placed.on.iter().filter(|on| **on == key).count(), 2);
    }
}

#[test]
fn binpack_fills_the_fullest_that_suffices() {
    let mut pool = four();
    pool.put(4, host("a", 300, 4_096));
    let request = Request { strategies: vec![Strategy::BinpackCpu], ..request() };
    let placed = pool.place(&request, 5, &mut Seeded::new(1));
    assert_eq!(placed.on[0], 4);
    assert!(placed.on[1..].iter().all(|key| *key == placed.on[1]), "{:?}", placed.on);
}

#[test]
fn each_check_refuses_and_the_closest_is_told() {
    let mut pool = Pool::default();
    let refused = |pool: &mut Pool<u32>, request: &Request| {
        let placed = pool.place(request, 1, &mut Seeded::new(1));
        assert!(placed.on.is_empty());
        placed.refusals.unwrap()
    };
    let web = request();
    assert_eq!(
        refused(&mut pool, &web).service_event("web", Among::Cluster, |key| key.to_string()),
        "(service web) was unable to place a task because no container instance met all of its requirements. \
         Reason: No Container Instances were found in your cluster. For more information, see the Troubleshooting \
         section of the Amazon ECS Developer Guide."
    );
    assert_eq!(
        refused(&mut pool, &web).service_event("web", Among::CapacityProvider, |key| key.to_string()),
        "(service web) was unable to reach steady state. Reason: No Container Instances were found in your capacity \
         provider."
    );
    pool.put(0, but(host("a", 1_024, 1_024), |profile| profile.active = false));
    assert_eq!(refused(&mut pool, &web).closest, Some((0, Refusal::Inactive)));
    pool.put(1, but(host("a", 1_024, 1_024), |profile| profile.connected = false));
    assert_eq!(refused(&mut pool, &web).closest, Some((1, Refusal::Agent)));
    pool.put(2, host("a", 255, 1_024));
    let refusals = refused(&mut pool, &web);
    assert_eq!(refusals.closest, Some((2, Refusal::Cpu)));
    assert!(refusals.service_event("web", Among::CapacityProvider, |key| key.to_string()).contains(
        "The closest matching (container-instance 2) has insufficient CPU units available. For more"
    ));
    pool.put(3, host("b", 256, 255));
    let refusals = refused(&mut pool, &web);
    assert_eq!(refusals.closest, Some((3, Refusal::Memory)));
    assert_eq!(refusals.counts.values().sum::<u32>(), 4);

    let mut pool = four();
    let ssh = Request { ports: BTreeSet::from([(Protocol::Tcp, 22)]), ..request() };
    assert_eq!(refused(&mut pool, &ssh).counts, BTreeMap::from([(Refusal::Ports, 4)]));
    let two = Request { gpus: 2, ..request() };
    let placed = Placer::default().place(&pool, &two, 6, &mut Seeded::new(1));
    assert_eq!(placed.on.len(), 4, "two of two on each");
    assert_eq!(placed.refusals.unwrap().counts, BTreeMap::from([(Refusal::Gpu, 4)]));
    let gpu = Request { attributes: BTreeMap::from([("gpu".to_owned(), None)]), ..request() };
    assert_eq!(refused(&mut pool, &gpu).counts, BTreeMap::from([(Refusal::Attribute, 4)]));
    let elsewhere =
        Request { constraints: vec![member_of("attribute:ecs.availability-zone == c")], ..request() };
    assert_eq!(refused(&mut pool, &elsewhere).counts, BTreeMap::from([(Refusal::MemberOf, 4)]));
    assert_eq!(Refusal::MemberOf.reason(), "MemberOf placement constraint unsatisfied.");
}

#[test]
fn constraints_see_the_tasks_placed_before() {
    let mut pool = four();
    let distinct = Request { constraints: vec![Constraint::DistinctInstance], ..request() };
    let placed = pool.place(&distinct, 5, &mut Seeded::new(1));
    assert_eq!(placed.on.iter().collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(placed.refusals.unwrap().counts, BTreeMap::from([(Refusal::DistinctInstance, 4)]));

    let mut pool = four();
    let apart = Request { constraints: vec![member_of("runningTasksCount < 2")], ..request() };
    assert_eq!(pool.place(&apart, 20, &mut Seeded::new(1)).on.len(), 8);
}

#[test]
fn ports_are_held_per_protocol_and_given_back() {
    let mut pool = four();
    let tcp = Request { ports: BTreeSet::from([(Protocol::Tcp, 80)]), ..request() };
    let udp = Request { ports: BTreeSet::from([(Protocol::Udp, 80)]), ..request() };
    assert_eq!(pool.place(&tcp, 9, &mut Seeded::new(1)).on.len(), 4);
    assert_eq!(pool.place(&udp, 9, &mut Seeded::new(1)).on.len(), 4);
    pool.release(&2, &tcp);
    assert_eq!(pool.place(&tcp, 9, &mut Seeded::new(1)).on, vec![2]);
}

#[test]
fn what_daemons_need_is_left_to_them() {
    let mut pool = four();
    let agent = Request { cpu: 0, memory: 800, group: "service:agent".to_owned(), ..Request::default() };
    let agent = Request { constraints: vec![member_of("attribute:ecs.availability-zone == a")], ..agent };
    pool.take(&0, &agent);
    assert_eq!(pool.instances_with("service:agent"), 1);
    // 1 is still to get one, and those of the other zone get none.
    pool.reserve(&Request { memory: 5_000, ..agent.clone() }, |_| false);
    assert_eq!(
        pool,
        {
            let mut all = four();
            all.take(&0, &agent);
            all
        },
        "what no instance could hold is kept on none"
    );
    pool.reserve(&agent, |_| true);
    assert_eq!(pool.place(&request(), 20, &mut Seeded::new(1)).on.len(), 8);
    assert_eq!(pool.host(&1).unwrap().free_memory, 224);
    // Room is no task.
    let near = Request {
        constraints: vec![member_of("task:group == service:agent")],
        group: "g".to_owned(),
        ..Request::default()
    };
    assert_eq!(Placer::default().place(&pool, &near, 2, &mut Seeded::new(1)).on, vec![0, 0]);
}

#[test]
fn scale_in_takes_pending_then_the_crowded_and_never_the_protected() {
    let pool = four();
    let task = |id: u32, host: u32| ServiceTask {
        id,
        host: Some(host),
        pending: false,
        protected: false,
        cpu: 256,
        memory: 256,
    };
    let tasks = [
        task(0, 0),
        task(1, 1),
        ServiceTask { protected: true, ..task(2, 1) },
        task(3, 2),
        ServiceTask { pending: true, ..task(4, 3) },
    ];
    let chosen = scale_in(&pool, &tasks, &Strategy::service_default(), 9, &mut Seeded::new(1));
    assert_eq!(chosen[..2], [4, 1]);
    assert_eq!(chosen.len(), 4);
    assert!(!chosen.contains(&2));
}

/// The plain reading: whoever is left is ranked anew for each that goes. The best, as they stand in `left`.
fn best_to_go(
    pool: &Pool<u32>,
    left: &[ServiceTask<u32, u32>],
    gone: &[ServiceTask<u32, u32>],
    strategies: &[Strategy],
) -> Vec<u32> {
    let host = |task: &ServiceTask<u32, u32>| task.host.and_then(|key| pool.host(&key));
    let zone = |task: &ServiceTask<u32, u32>| {
        host(task).map(|host| host.attribute("ecs.availability-zone").map(|zone| zone.map(str::to_owned)))
    };
    let freed = |task: &ServiceTask<u32, u32>, of: fn(&ServiceTask<u32, u32>) -> u32| -> i64 {
        let same = gone.iter().filter(|other| other.host.is_some() && other.host == task.host);
        same.chain([task]).map(|task| i64::from(of(task))).sum()
    };
    let rank = |task: &ServiceTask<u32, u32>| -> Vec<i64> {
        let value = |strategy: &Strategy| match strategy {
            Strategy::SpreadInstance => left.iter().filter(|other| other.host == task.host).count() as i64,
            Strategy::SpreadAttribute(_) => {
                left.iter().filter(|other| zone(other).flatten() == zone(task).flatten()).count() as i64
            }
            Strategy::BinpackCpu => host(task).map_or(0, |host| host.free_cpu) + freed(task, |task| task.cpu),
            Strategy::BinpackMemory => {
                host(task).map_or(0, |host| host.free_memory) + freed(task, |task| task.memory)
            }
            Strategy::Random => unreachable!(),
        };
        let ranked = strategies.iter().take_while(|strategy| **strategy != Strategy::Random);
        std::iter::once(i64::from(task.pending)).chain(ranked.map(value)).collect()
    };
    let open = || left.iter().filter(|task| !task.protected);
    let best = open().map(rank).max();
    open().filter(|task| Some(rank(task)) == best).map(|task| task.id).collect()
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Vec<Strategy>> {
    prop::collection::vec(
        prop::sample::select(vec![
            Strategy::SpreadInstance,
            Strategy::SpreadAttribute("ecs.availability-zone".to_owned()),
            Strategy::BinpackCpu,
            Strategy::BinpackMemory,
            Strategy::Random,
        ]),
        0..4,
    )
}

proptest! {
    #[test]
    fn who_goes_is_among_the_best_to_go_each_time(
        tasks in prop::collection::vec((prop::option::of(0u32..6), any::<bool>(), 0u8..5, 0u32..3, 0u32..3), 0..14),
        strategies in strategies(), count in 0usize..16, seed in any::<u64>(),
    ) {
        // Nobody knows 4 and 5.
        let pool = four();
        let task = |(id, (host, pending, luck, cpu, memory)): (usize, (Option<u32>, bool, u8, u32, u32))| ServiceTask {
            id: id as u32, host, pending, protected: luck == 0, cpu, memory,
        };
        let mut left: Vec<ServiceTask<u32, u32>> = tasks.into_iter().enumerate().map(task).collect();
        let open = left.iter().filter(|task| !task.protected).count();
        let chosen = scale_in(&pool, &left, &strategies, count, &mut Seeded::new(seed));
        prop_assert_eq!(chosen.len(), open.min(count));
        let mut gone = Vec::new();
        for id in chosen {
            let best = best_to_go(&pool, &left, &gone, &strategies);
            prop_assert!(best.contains(&id), "{id} is not among {best:?}");
            let position = left.iter().position(|task| task.id == id).unwrap();
            gone.push(left.remove(position));
        }
    }

    #[test]
    fn nothing_is_overcommitted_nothing_that_fits_is_refused_and_release_undoes(
        hosts in prop::collection::vec((0i64..2_048, 0i64..2_048, any::<bool>()), 0..12),
        cpu in 1u32..600, memory in 1u32..600, count in 0usize..40, port in any::<bool>(),
        strategies in strategies(), seed in any::<u64>(),
    ) {
        let mut pool = Pool::default();
        for (key, (cpu, memory, connected)) in hosts.iter().enumerate() {
            pool.put(key, but(host(["a", "b", "c"][key % 3], *cpu, *memory), |profile| profile.connected = *connected));
        }
        let before = pool.clone();
        let ports = if port { BTreeSet::from([(Protocol::Tcp, 80)]) } else { BTreeSet::new() };
        let request = Request { cpu, memory, ports, strategies, ..request() };
        let room = |(free_cpu, free_memory, connected): &(i64, i64, bool)| {
            let most = if port { 1 } else { i64::MAX };
            if *connected { (free_cpu / i64::from(cpu)).min(free_memory / i64::from(memory)).min(most) } else { 0 }
        };
        let room = hosts.iter().map(room).sum::<i64>() as usize;
        let placed = pool.place(&request, count, &mut Seeded::new(seed));
        prop_assert_eq!(placed.on.len(), room.min(count));
        prop_assert_eq!(placed.refusals.is_some(), room < count);
        if let Some(refusals) = &placed.refusals {
            prop_assert_eq!(refusals.counts.values().sum::<u32>() as usize, hosts.len());
        }
        for key in 0..hosts.len() {
            let host = pool.host(&key).unwrap();
            prop_assert!(host.free_cpu >= 0 && host.free_memory >= 0);
        }
        for key in &placed.on {
            pool.release(key, &request);
        }
        prop_assert_eq!(pool, before);
    }
}
