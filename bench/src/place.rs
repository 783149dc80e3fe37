//! Placement in process: tasks per second on a pool of 5,000 instances, by strategy.

use crate::table::{Row, print};
use anyhow::Result;
use gantry_decide::placement::{Host, Placer, Pool, Profile, Request, Strategy};
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

const INSTANCES: u32 = 5000;
const ROUNDS: usize = 20;
/// Calls of one round, each for ten tasks.
const CALLS: usize = 10_000;

pub fn run() -> Result<()> {
    let mut rows = Vec::new();
    for (name, strategies) in [
        ("random", Vec::new()),
        ("binpack by memory", vec![Strategy::BinpackMemory]),
        ("spread over zones, then instances", Strategy::service_default()),
    ] {
        let mut rates = Vec::new();
        for round in 0..ROUNDS {
            let mut pool = pool();
            let mut random = Seeded::new(round as u64);
            let request = Request {
                cpu: 64,
                memory: 128,
                group: "service:web".to_owned(),
                strategies: strategies.clone(),
                ..Request::default()
            };
            let mut placer = Placer::default();
            placer.place(&pool, &request, 1, &mut random);
            let mut placed = 0;
            let start = Instant::now();
            for _ in 0..CALLS {
                let mut transaction = pool.clone();
                for key in placer.place(&pool, &request, 10, &mut random).on {
                    transaction.take(&key, &request);
                    placed += 1;
                }
                pool = transaction;
            }
            rates.push(placed as f64 / start.elapsed().as_secs_f64());
            anyhow::ensure!(placed == CALLS * 10, "{placed} placed");
        }
        rows.push(Row::new(name, "tasks/s", rates));
    }
    print("Placement at 5,000 instances, ten tasks a call", &rows);
    Ok(())
}

fn pool() -> Pool<u32> {
    let mut pool = Pool::default();
    for key in 0..INSTANCES {
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
        pool.put(
            key,
            Host {
                profile: Arc::new(profile),
                free_cpu: 4096,
                free_gpus: 0,
                free_memory: 16_000 + i64::from(key % 97),
                used_ports: Arc::new(BTreeSet::new()),
                groups: BTreeMap::new(),
            },
        );
    }
    pool
}
