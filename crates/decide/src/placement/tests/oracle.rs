//! The placer against the plain reading of the rules, which asks every instance for every task.

use super::*;
use crate::placement::groups::ByGroup;
use crate::placement::{HostPort, Refusals};
use proptest::strategy::Strategy as _;

/// The equally best instances for one more task.
fn best(pool: &Pool<u32>, request: &Request) -> BTreeSet<u32> {
    let all: Vec<(u32, Host)> = pool.hosts().map(|(key, host)| (*key, host)).collect();
    let hosts = || all.iter().map(|(key, host)| (*key, host));
    let bucket_size = |attribute: &str, of: &Host| -> i64 {
        let same = hosts().filter(|(_, host)| host.attribute(attribute) == of.attribute(attribute));
        same.map(|(_, host)| i64::from(host.groups.of(&request.group))).sum()
    };
    let mut left: Vec<(u32, &Host)> = hosts().filter(|(_, host)| host.refuses(request).is_none()).collect();
    for strategy in request.strategies.iter().take(5) {
        let value = |host: &Host| match strategy {
            Strategy::SpreadInstance => i64::from(host.groups.of(&request.group)),
            Strategy::SpreadAttribute(name) => bucket_size(name, host),
            Strategy::BinpackCpu => host.free_cpu,
            Strategy::BinpackMemory => host.free_memory,
            Strategy::Random => 0,
        };
        if *strategy == Strategy::Random {
            break;
        }
        let least = left.iter().map(|(_, host)| value(host)).min();
        left.retain(|(_, host)| Some(value(host)) == least);
    }
    left.into_iter().map(|(key, _)| key).collect()
}

fn why_none(pool: &Pool<u32>, request: &Request) -> BTreeMap<Refusal, u32> {
    let mut refusals = Refusals::default();
    for (key, host) in pool.hosts() {
        if let Some(refusal) = host.refuses(request) {
            refusals.add(key, refusal);
        }
    }
    refusals.counts
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, Host),
    Remove(u32),
    Release(u32, usize),
    /// Keep what was placed, or drop it as a failed transaction does.
    Place {
        request: usize,
        count: usize,
        keep: bool,
    },
    /// Go on from an earlier pool, as a leader does that lost what was not durable.
    Rewind,
}

fn hosts() -> impl proptest::strategy::Strategy<Value = Host> {
    let zones = prop::sample::select(vec!["a", "b", "c"]);
    let racks = prop::option::of(prop::sample::select(vec!["r1", "r2"]));
    (zones, racks, 0i64..2_000, 0i64..2_000, 0u8..10).prop_map(|(zone, rack, cpu, memory, luck)| {
        but(host(zone, cpu, memory), |profile| {
            profile.connected = luck != 0;
            profile.active = luck != 1;
            if let Some(rack) = rack {
                profile.attributes.insert("rack".to_owned(), Some(rack.to_owned()));
            }
        })
    })
}

fn requests() -> impl proptest::strategy::Strategy<Value = Vec<Request>> {
    let strategy = prop::sample::select(vec![
        Strategy::SpreadInstance,
        Strategy::SpreadAttribute("ecs.availability-zone".to_owned()),
        Strategy::SpreadAttribute("rack".to_owned()),
        Strategy::BinpackCpu,
        Strategy::BinpackMemory,
        Strategy::Random,
    ]);
    let constraint = prop::sample::select(vec![
        Constraint::DistinctInstance,
        member_of("attribute:ecs.availability-zone != c"),
        member_of("attribute:rack exists"),
        member_of("runningTasksCount < 3"),
        member_of("not (task:group == service:api)"),
    ]);
    let port: HostPort = (Protocol::Tcp, 80);
    let request = (
        (0u32..400, 0u32..400),
        prop::option::of(Just(port)),
        prop::collection::vec(constraint, 0..2),
        prop::collection::vec(strategy, 0..4),
        prop::sample::select(vec!["service:web", "service:api", "family:batch"]),
    );
    let request = request.prop_map(|((cpu, memory), port, constraints, strategies, group)| Request {
        cpu,
        memory,
        ports: port.into_iter().collect(),
        constraints,
        strategies,
        group: group.to_owned(),
        ..Request::default()
    });
    // Others alike, of another group and size.
    let alike =
        |request: &Request| Request { group: "service:other".to_owned(), cpu: 100, ..request.clone() };
    let all = (prop::collection::vec(request, 1..4), any::<bool>());
    all.prop_map(move |(mut requests, more)| {
        let others: Vec<Request> = requests.iter().filter(|_| more).map(alike).collect();
        requests.extend(others);
        requests
    })
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u32..14, hosts()).prop_map(|(key, host)| Step::Put(key, host)),
        1 => (0u32..14).prop_map(Step::Remove),
        2 => (0u32..14, 0usize..6).prop_map(|(key, request)| Step::Release(key, request)),
        6 => (0usize..6, 0usize..12, prop::bool::weighted(0.8))
            .prop_map(|(request, count, keep)| Step::Place { request, count, keep }),
        1 => Just(Step::Rewind),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_placer_that_remembers_chooses_among_the_best_whatever_happened_before(
        start in prop::collection::vec(hosts(), 0..10), requests in requests(), steps in steps(), seed in any::<u64>(),
    ) {
        let (mut pool, mut placer, mut random) = (Pool::default(), Placer::default(), Seeded::new(seed));
        for (key, host) in start.into_iter().enumerate() {
            pool.put(key as u32, host);
        }
        // The same kept one by one.
        let mut model: BTreeMap<u32, Host> = pool.hosts().map(|(key, host)| (*key, host)).collect();
        let mut earlier = (pool.clone(), model.clone());
        let mut held: Vec<(u32, usize)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            if n % 7 == 3 {
                earlier = (pool.clone(), model.clone());
            }
            match step {
                Step::Put(key, host) => {
                    pool.put(key, host.clone());
                    model.insert(key, host);
                    held.retain(|(on, _)| *on != key);
                }
                Step::Remove(key) => {
                    pool.remove(&key);
                    model.remove(&key);
                    held.retain(|(on, _)| *on != key);
                }
                Step::Rewind => {
                    (pool, model) = earlier.clone();
                    held.clear();
                }
                Step::Release(key, request) => {
                    if let Some(position) = held.iter().position(|task| *task == (key, request)) {
                        held.remove(position);
                        pool.release(&key, &requests[request]);
                        model.get_mut(&key).unwrap().give_back(&requests[request]);
                    }
                }
                Step::Place { request, count, keep } => {
                    let number = request % requests.len();
                    let request = &requests[number];
                    let placed = placer.place(&pool, request, count, &mut random);
                    let mut after = pool.clone();
                    for key in &placed.on {
                        let best = best(&after, request);
                        prop_assert!(best.contains(key), "{key} is not among {best:?}");
                        after.take(key, request);
                    }
                    prop_assert_eq!(placed.refusals.is_some(), placed.on.len() < count);
                    if let Some(refusals) = placed.refusals {
                        prop_assert_eq!(best(&after, request), BTreeSet::new());
                        prop_assert_eq!(refusals.counts, why_none(&after, request));
                    }
                    if keep {
                        for key in &placed.on {
                            model.get_mut(key).unwrap().take(request);
                        }
                        held.extend(placed.on.iter().map(|key| (*key, number)));
                        pool = after;
                    }
                }
            }
            prop_assert!(pool.hosts().eq(model.iter().map(|(key, host)| (key, host.clone()))));
            let zones: BTreeSet<&str> = model.values().filter_map(|host| host.profile.zone()).collect();
            prop_assert!(pool.zones().eq(zones));
            prop_assert_eq!(pool.keys().map(|key| pool.host(key)).collect::<Vec<_>>(),
                model.values().cloned().map(Some).collect::<Vec<_>>());
            prop_assert_eq!(pool.len(), model.len());
        }
    }
}

#[test]
fn equals_have_equal_chances() {
    let (pool, mut placer, mut random) = (four(), Placer::default(), Seeded::new(5));
    let mut times = [0; 4];
    for _ in 0..4_000 {
        for key in placer.place(&pool, &request(), 1, &mut random).on {
            times[key as usize] += 1;
        }
    }
    assert!(times.iter().all(|times| (850..1_150).contains(times)), "{times:?}");
}

#[test]
fn more_kinds_of_requests_than_are_remembered_are_served_too() {
    let (mut pool, mut placer, mut random) = (four(), Placer::default(), Seeded::new(5));
    for round in 0..100 {
        let request = Request { cpu: round % 40, memory: 1, ..request() };
        let placed = placer.place(&pool, &request, 1, &mut random);
        assert_eq!(placed.on.len(), 1, "{round}");
        pool.take(&placed.on[0], &request);
    }
}
