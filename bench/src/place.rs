//! Placement in process, the judge alone: tasks per second on a pool of 5,000 instances, by strategy, and how the cost of
//! a placement grows with the cluster.

use crate::table::{Row, print};
use anyhow::Result;
use gantry_decide::placement::{Constraint, Host, Placer, Pool, Profile, Request, Strategy};
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

const INSTANCES: u32 = 5000;
const ROUNDS: usize = 20;
/// Calls of one round, each for ten tasks.
const CALLS: usize = 10_000;
const TASKS_PER_CALL: usize = 10;

/// Clusters whose placements are compared, each with a hundred tasks an instance.
const SIZES: [u32; 3] = [100, 1000, 10_000];
const TASKS_PER_INSTANCE: u32 = 100;
/// Services of which tasks are there.
const GROUPS: u32 = 1000;
/// Tasks of the service that is placed, once it goes on as before: for each that comes one goes.
const STANDING: usize = 50;
const GROWTH_CALLS: usize = 2000;

/// What is placed, by name.
fn kinds() -> Vec<(&'static str, Vec<Strategy>, Vec<Constraint>)> {
    vec![
        ("random", Vec::new(), Vec::new()),
        ("binpack by memory", vec![Strategy::BinpackMemory], Vec::new()),
        ("spread over zones, then instances", Strategy::service_default(), Vec::new()),
        ("distinctInstance", Vec::new(), vec![Constraint::DistinctInstance]),
    ]
}

fn request(strategies: &[Strategy], constraints: &[Constraint]) -> Request {
    Request {
        cpu: 64,
        memory: 128,
        group: "service:web".to_owned(),
        strategies: strategies.to_vec(),
        constraints: constraints.to_vec(),
        ..Request::default()
    }
}

pub fn run() -> Result<()> {
    let mut rows = Vec::new();
    for (name, strategies, constraints) in kinds() {
        let request = request(&strategies, &constraints);
        // Of one service no more than one goes to an instance.
        let calls = if constraints.is_empty() { CALLS } else { INSTANCES as usize / TASKS_PER_CALL };
        let mut rates = Vec::new();
        for round in 0..ROUNDS {
            let mut pool = pool(INSTANCES, 0);
            let mut random = Seeded::new(round as u64);
            let mut placer = Placer::default();
            placer.place(&pool, &request, 1, &mut random);
            let mut placed = 0;
            let start = Instant::now();
            for _ in 0..calls {
                let mut transaction = pool.clone();
                for key in placer.place(&pool, &request, TASKS_PER_CALL, &mut random).on {
                    transaction.take(&key, &request);
                    placed += 1;
                }
                pool = transaction;
            }
            rates.push(placed as f64 / start.elapsed().as_secs_f64());
            anyhow::ensure!(placed == calls * TASKS_PER_CALL, "{placed} placed");
        }
        rows.push(Row::new(name, "tasks/s", rates));
    }
    print("Placement at 5,000 instances, ten tasks a call", &rows);
    grow()
}

/// How the cost of a placement grows with the instances, in a cluster that goes on as before.
fn grow() -> Result<()> {
    let mut rows = Vec::new();
    for (name, strategies, constraints) in kinds() {
        let request = request(&strategies, &constraints);
        let mut least = Vec::new();
        for instances in SIZES {
            let mut pool = pool(instances, TASKS_PER_INSTANCE);
            let (mut random, mut placer) = (Seeded::new(1), Placer::default());
            let mut standing = VecDeque::new();
            let mut nanos = Vec::new();
            for _ in 0..ROUNDS {
                let start = Instant::now();
                for _ in 0..GROWTH_CALLS / TASKS_PER_CALL {
                    let mut transaction = pool.clone();
                    for key in placer.place(&pool, &request, TASKS_PER_CALL, &mut random).on {
                        transaction.take(&key, &request);
                        standing.push_back(key);
                    }
                    while standing.len() > STANDING {
                        standing.pop_front().iter().for_each(|key| transaction.release(key, &request));
                    }
                    pool = transaction;
                }
                nanos.push(start.elapsed().as_nanos() as f64 / GROWTH_CALLS as f64);
            }
            anyhow::ensure!(standing.len() == STANDING, "{} stand", standing.len());
            // What a placement takes when nothing disturbs it.
            least.push(nanos.iter().copied().fold(f64::INFINITY, f64::min));
            rows.push(Row::new(format!("{name}, {instances} instances"), "ns", nanos));
        }
        println!(
            "{name}: {:.2} times as long at {} instances as at {}",
            least[2] / least[0],
            SIZES[2],
            SIZES[0]
        );
    }
    print("One task comes and one goes, a hundred tasks an instance", &rows);
    Ok(())
}

fn pool(instances: u32, tasks: u32) -> Pool<u32> {
    let mut pool = Pool::default();
    for key in 0..instances {
        let zone = format!("eu-north-1{}", char::from(b'a' + (key % 3) as u8));
        let attributes = BTreeMap::from([("ecs.availability-zone".to_owned(), Some(zone))]);
        let profile = Profile {
            active: true,
            connected: true,
            attributes,
            agent_version: "1.0.0".to_owned(),
            ec2_instance_id: None,
            registered_at: Timestamp::EPOCH,
        };
        let mut groups: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for task in 0..tasks {
            let group = (key.wrapping_mul(7919) + task * 31) % GROUPS;
            *groups.entry(Arc::from(format!("service:s{group}"))).or_default() += 1;
        }
        pool.put(
            key,
            Host {
                profile: Arc::new(profile),
                free_cpu: 4096,
                free_gpus: 0,
                free_memory: 16_000 + i64::from(key % 97),
                used_ports: Arc::new(BTreeSet::new()),
                groups: groups.into(),
            },
        );
    }
    pool
}
