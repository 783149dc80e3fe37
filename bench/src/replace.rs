//! How soon a service whose process was killed has another that runs: from SIGKILL to the replacement's RUNNING as
//! DescribeTasks tells it. No back-off applies to tasks that ran.

use crate::host::Host;
use crate::start::define;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use gantry_agent::client::Client;
use gantry_api::ecs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const ROUNDS: usize = 100;
const SERVICE: &str = "kept";
/// For one replacement before the benchmark gives up.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_micros(500);
/// Between two kills: what the one before left to do is done by then.
const PAUSE: Duration = Duration::from_millis(250);

pub async fn run() -> Result<()> {
    let host = Host::up()?;
    let client = host.client()?;
    let run = define(&host).await?;
    let service = ecs::CreateServiceRequest {
        service_name: SERVICE.to_owned(),
        task_definition: Some(run.task_definition),
        launch_type: run.launch_type,
        network_configuration: run.network_configuration,
        desired_count: Some(1),
        ..Default::default()
    };
    client.ecs::<ecs::CreateService>(&service).await?;
    let mut task = running(&client, None).await?;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        let process = process(&task)?;
        let killed = Instant::now();
        kill(process, Signal::SIGKILL)?;
        task = running(&client, Some(&task)).await?;
        times.push(killed.elapsed().as_secs_f64() * 1000.0);
    }
    print("A service's process is killed", &[Row::new("until its replacement is RUNNING", "ms", times)]);
    Ok(())
}

/// The service's task that runs, once it is another than the one before.
async fn running(client: &Client, before: Option<&str>) -> Result<String> {
    let list = ecs::ListTasksRequest { service_name: Some(SERVICE.to_owned()), ..Default::default() };
    let started = Instant::now();
    loop {
        let arns = client.ecs::<ecs::ListTasks>(&list).await?.task_arns.unwrap_or_default();
        let others: Vec<String> = arns.into_iter().filter(|arn| Some(arn.as_str()) != before).collect();
        if !others.is_empty() {
            let describe = ecs::DescribeTasksRequest { tasks: others, ..Default::default() };
            let tasks = client.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default();
            let runs = tasks.into_iter().find(|task| task.last_status.as_deref() == Some("RUNNING"));
            if let Some(arn) = runs.and_then(|task| task.task_arn) {
                return Ok(arn);
            }
        }
        ensure!(started.elapsed() < WAIT_MAX, "no task of the service runs");
        tokio::time::sleep(LOOK).await;
    }
}

/// The process of a task, by the control group that it is in.
fn process(arn: &str) -> Result<Pid> {
    let id = arn.rsplit('/').next().unwrap_or_default();
    let of_task = std::fs::read_dir("/proc")?.flatten().find_map(|entry| {
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        groups.contains(id).then(|| Pid::from_raw(pid))
    });
    of_task.context("the task has no process")
}
