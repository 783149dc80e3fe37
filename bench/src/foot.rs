//! The footprint: from exec to the first correct answer, resident memory when idle, and both with 100,000 tasks known.

use crate::api::signed;
use crate::durable::{TASKS_PER_CALL, all_told, define, run_ten};
use crate::fleet::Fleet;
use crate::host::{Host, endpoint, program, spawn};
use crate::load::drive;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use gantry_api::ecs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;
const TASKS: usize = 100_000;
/// Instances that hold them.
const AGENTS: usize = 200;
const RESTARTS: usize = 10;
/// How long a process is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run() -> Result<()> {
    let program = program()?;
    let mut rows = Vec::new();
    for command in ["server", "up"] {
        let mut times = Vec::new();
        let directory = tempfile::tempdir()?;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut child = spawn(Command::new(&program).arg(command), directory.path())?;
            let address = endpoint(directory.path())?;
            let mut stream = TcpStream::connect(address.trim_start_matches("http://"))?;
            stream
                .write_all(b"GET /_gantry/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            child.kill()?;
            child.wait()?;
            std::fs::remove_file(directory.path().join("endpoint"))?;
        }
        let _ = Command::new(&program).args(["sweep", "--data-dir"]).arg(directory.path()).output();
        rows.push(Row::new(format!("gantry {command}: exec to the first answer"), "ms", times));
    }
    let host = Host::up()?;
    tokio::time::sleep(SETTLE).await;
    rows.push(Row::new("gantry up: resident, idle", "MiB", vec![host.memory()?]));
    drop(host);
    print("Footprint", &rows);
    with_tasks().await
}

/// Places the tasks through the API, then kills and restarts the server that knows them.
async fn with_tasks() -> Result<()> {
    let mut host = Host::server_in(tempfile::tempdir()?)?;
    let client = host.client()?;
    client.ecs::<ecs::CreateCluster>(&ecs::CreateClusterRequest::default()).await?;
    let fleet = Fleet::join(&host, AGENTS, &define(&client).await?).await?;
    tokio::time::sleep(SETTLE).await;
    let before = host.memory()?;
    let mut tasks = 0;
    while tasks < TASKS {
        let outcome =
            drive(host.address(), signed(&host, "RunTask", &run_ten()), 8, Duration::from_millis(250))
                .await?;
        tasks += outcome.latencies.len() * TASKS_PER_CALL as usize;
        all_told(&fleet, tasks).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let per_100_000 = |growth: f64| growth * TASKS as f64 / tasks as f64;
    let growth = per_100_000(host.memory()? - before);
    let listed = client.ecs::<ecs::ListTasks>(&ecs::ListTasksRequest::default()).await?;
    let describe =
        ecs::DescribeTasksRequest { tasks: listed.task_arns.unwrap_or_default(), ..Default::default() };
    drop(fleet);

    let (mut times, mut processor, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        let directory = host.kill()?;
        let start = Instant::now();
        host = Host::server_in(directory)?;
        let described = host.client()?.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default();
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        processor.push(host.cpu_seconds()? * 1000.0);
        ensure!(described.len() == describe.tasks.len(), "{} tasks are known", described.len());
        tokio::time::sleep(SETTLE).await;
        memory.push(per_100_000(host.memory()? - before));
    }
    let size = std::fs::metadata(host.directory.path().join("gantry.db")).context("the store's file")?.len();
    print(
        &format!("Footprint with {tasks} tasks on {AGENTS} instances"),
        &[
            Row::new("growth of resident memory by 100,000 tasks", "MiB", vec![growth]),
            Row::new("the same after a restart", "MiB", memory),
            Row::new("kill -9, then exec to a hundred tasks described", "ms", times),
            Row::new("processor time that it took", "ms", processor),
            Row::new("the store's file", "MiB", vec![size as f64 / f64::from(1 << 20)]),
        ],
    );
    Ok(())
}
