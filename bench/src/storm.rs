//! Many tasks at once on one host: how many come to RUNNING in a second, what they take of memory while they idle, and
//! what is left of them when they have been stopped.

use crate::host::Host;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use gantry_agent::client::Client;
use gantry_api::ecs;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What RunTask takes at most.
const BATCH: usize = 10;
/// What DescribeTasks takes at most.
const LOOK: usize = 100;
/// Requests on the way at once.
const CALLS: usize = 10;
const RUN_MAX: Duration = Duration::from_secs(120);
/// From the last RUNNING to the measurement of memory: what a start leaves to do is done by then.
const SETTLE: Duration = Duration::from_secs(2);

/// `tasks` is a multiple of a hundred. `peer` tells what an engine takes of memory beside, in KiB.
pub async fn run(
    host: &Host,
    run: &ecs::RunTaskRequest,
    tasks: usize,
    peer: impl Fn() -> Result<f64>,
) -> Result<()> {
    let client = host.client()?;
    let before = (Remains::of(host)?, memory(host)?, peer()?);
    let (started, mut arns) = (Instant::now(), Vec::new());
    let many = ecs::RunTaskRequest { count: Some(BATCH as i32), ..run.clone() };
    for _ in 0..tasks / BATCH / CALLS {
        for answer in try_join_all((0..CALLS).map(|_| client.ecs::<ecs::RunTask>(&many))).await? {
            ensure!(
                answer.failures.as_deref().unwrap_or_default().is_empty(),
                "not placed: {:?}",
                answer.failures
            );
            arns.extend(answer.tasks.unwrap_or_default().into_iter().filter_map(|task| task.task_arn));
        }
    }
    ensure!(arns.len() == tasks, "{} of {tasks} were placed", arns.len());
    let placed = started.elapsed();
    wait_for(&client, &arns, "RUNNING").await?;
    let rate = tasks as f64 / started.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let (shims, agent) = memory(host)?;
    let engine = peer()?;
    let per_task = |now: f64, before: f64| (now - before) / tasks as f64;
    let stopping = Instant::now();
    for some in arns.chunks(CALLS) {
        let stop = |arn: &String| ecs::StopTaskRequest { task: arn.clone(), ..Default::default() };
        let requests: Vec<_> = some.iter().map(stop).collect();
        try_join_all(requests.iter().map(|request| client.ecs::<ecs::StopTask>(request))).await?;
    }
    wait_for(&client, &arns, "STOPPED").await?;
    let stopped = tasks as f64 / stopping.elapsed().as_secs_f64();
    print(
        &format!("{tasks} tasks at once on {}, none lost", host.runtime()),
        &[
            Row::new("placed, durable", "tasks/s", vec![tasks as f64 / placed.as_secs_f64()]),
            Row::new("from the first byte to all RUNNING", "tasks/s", vec![rate]),
            Row::new("from the first StopTask to all STOPPED", "tasks/s", vec![stopped]),
            Row::new("shim of an idle task (PSS)", "KiB", vec![per_task(shims, before.1.0)]),
            Row::new("server and agents for it (PSS)", "KiB", vec![per_task(agent, before.1.1)]),
            Row::new("the engine for it (PSS)", "KiB", vec![per_task(engine, before.2)]),
        ],
    );
    let left = loop {
        let left = Remains::of(host)?;
        if left == before.0 || stopping.elapsed() > RUN_MAX {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("before: {:?}\nafter all have stopped: {left:?}", before.0);
    ensure!(left == before.0, "something is left");
    Ok(())
}

/// Looks at tasks until the last has come to a status. Who looks takes time from who works: so it is at one of those
/// that are waited for, until that has come to it.
async fn wait_for(client: &Client, arns: &[String], status: &str) -> Result<()> {
    let started = Instant::now();
    let (mut waiting, mut look) = (arns.to_vec(), 1);
    while !waiting.is_empty() {
        // The last ones, which come to it last.
        let some = waiting.split_off(waiting.len().saturating_sub(look));
        let before = waiting.len();
        let describe = ecs::DescribeTasksRequest { tasks: some, ..Default::default() };
        let tasks = client.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default();
        for task in tasks {
            let last = task.last_status.as_deref().unwrap_or_default();
            ensure!(status == "STOPPED" || last != "STOPPED", "a task stopped: {:?}", task.stopped_reason);
            if last != status {
                waiting.push(task.task_arn.context("a task's ARN")?);
            }
        }
        ensure!(started.elapsed() < RUN_MAX, "{} tasks do not come to {status}", waiting.len());
        look = if waiting.len() == before { LOOK } else { 1 };
        if look == 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// What the host has of an installation.
#[derive(Debug, PartialEq, Eq)]
struct Remains {
    /// By kind, as `gantry sweep --list` tells them; containers' directories are kept for their logs.
    listed: BTreeMap<String, usize>,
    mounts: usize,
    /// Ports of its bridges.
    links: usize,
}

impl Remains {
    fn of(host: &Host) -> Result<Remains> {
        let listed = host.leftovers()?;
        let mut remains = Remains { listed: BTreeMap::new(), mounts: 0, links: 0 };
        for line in listed.lines().filter(|line| !line.contains("container ")) {
            let (kind, name) = line.rsplit_once(' ').unwrap_or((line, ""));
            *remains.listed.entry(kind.to_owned()).or_default() += 1;
            if kind == "link" {
                let ports = std::fs::read_dir(format!("/sys/class/net/{name}/brif"));
                remains.links += ports.map_or(0, Iterator::count);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let directory = host.directory.path().to_string_lossy().into_owned();
        remains.mounts = mounts.lines().filter(|line| line.contains(&directory)).count();
        Ok(remains)
    }
}

/// KiB that the installation's shims, and the server with the agents, take: shared pages by their share.
fn memory(host: &Host) -> Result<(f64, f64)> {
    let (mut shims, mut agent) = (0.0, 0.0);
    let program = host.program_id()?;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        let own = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) == Some(host.pid());
        if own {
            agent += pss(&process);
        } else if name.trim() == "gantry-shim" && host.is_program(&process, program) {
            shims += pss(&process);
        }
    }
    Ok((shims, agent))
}

pub fn pss(process: &Path) -> f64 {
    let rollup = std::fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0.0)
}
