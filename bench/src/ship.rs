//! How many lines a second come from containers into CloudWatch Logs, and that none is lost or repeated: tasks that write
//! for some seconds by the driver `awslogs`, and then what their streams hold.

use crate::host::Host;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use gantry_agent::client::Client;
use gantry_api::{ecs, logs};
use std::time::{Duration, Instant};

/// Tasks that write at once.
const TASKS: u64 = 5;
/// Of each: so many lines of a hundred bytes in each of so many tenths of a second.
const LINES: u64 = 1000;
const TENTHS: u64 = 100;
/// How numbered lines begin. What the program reports beside them is left out.
const NUMBERED: &str = "line ";
const WAIT_MAX: Duration = Duration::from_secs(120);

pub async fn run() -> Result<()> {
    let host = Host::up()?;
    let client = host.client()?;
    define(&client).await?;
    let before = host.cpu_seconds()?;
    let run = ecs::RunTaskRequest {
        task_definition: "writes".to_owned(),
        count: Some(TASKS as i32),
        ..Default::default()
    };
    let answer = client.ecs::<ecs::RunTask>(&run).await?;
    let arns: Vec<String> = answer.tasks.into_iter().flatten().filter_map(|task| task.task_arn).collect();
    ensure!(arns.len() as u64 == TASKS, "not placed: {:?}", answer.failures);
    let describe = ecs::DescribeTasksRequest { tasks: arns.clone(), ..Default::default() };
    let started = Instant::now();
    loop {
        let tasks = client.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default();
        if tasks.iter().all(|task| task.last_status.as_deref() == Some("STOPPED")) {
            break;
        }
        ensure!(started.elapsed() < WAIT_MAX, "the tasks do not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = Instant::now();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for arn in &arns {
        let stream = format!("ecs/app/{}", arn.rsplit('/').next().unwrap_or_default());
        let times = lines(&client, &stream).await?;
        first = first.min(times.0);
        last = last.max(times.1);
    }
    let late = ended.elapsed().as_secs_f64() * 1000.0;
    let total = (TASKS * LINES * TENTHS) as f64;
    let written = total / ((last - first) as f64 / 1000.0);
    let processor = (host.cpu_seconds()? - before) * 1000.0 / (total / 10_000.0);
    print(
        &format!("{total} lines of {TASKS} tasks, none lost or repeated"),
        &[
            Row::new("written, by their times", "lines/s", vec![written]),
            Row::new("all are read, after the last task ended", "ms", vec![late]),
            Row::new("processor time of 10,000, server and agent", "ms", vec![processor]),
        ],
    );
    Ok(())
}

async fn define(client: &Client) -> Result<()> {
    let pair = |name: &str, value: u64| ecs::KeyValuePair {
        name: Some(name.to_owned()),
        value: Some(value.to_string()),
    };
    let settings =
        [("JOB_LINES", LINES), ("JOB_RANGES", TENTHS), ("JOB_SECONDS", TENTHS / 10)].map(|(n, v)| pair(n, v));
    // What cannot be sent at once waits, as much as there may be.
    let options = [("mode".to_owned(), "blocking".to_owned())];
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: "writes".to_owned(),
        network_mode: Some(ecs::NetworkMode::None),
        container_definitions: vec![ecs::ContainerDefinition {
            name: Some("app".to_owned()),
            image: Some("my-batch-job:latest".to_owned()),
            memory: Some(64),
            environment: Some(settings.into()),
            log_configuration: Some(ecs::LogConfiguration {
                log_driver: ecs::LogDriver::Awslogs,
                options: Some(options.into()),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    client.ecs::<ecs::RegisterTaskDefinition>(&definition).await?;
    Ok(())
}

/// Reads a stream until it has all its lines, each once and in its place; the times of the first and the last.
async fn lines(client: &Client, stream: &str) -> Result<(i64, i64)> {
    let started = Instant::now();
    let (mut next, mut times, mut token) = (0, (i64::MAX, i64::MIN), None);
    while next < LINES * TENTHS {
        let page = logs::GetLogEventsRequest {
            log_group_name: Some("/ecs/writes".to_owned()),
            log_stream_name: stream.to_owned(),
            start_from_head: Some(true),
            next_token: token.clone(),
            ..Default::default()
        };
        let page = client.logs::<logs::GetLogEvents>(&page).await?;
        for event in page.events.unwrap_or_default() {
            let (text, at) = (event.message.unwrap_or_default(), event.timestamp.unwrap_or_default());
            let Some(rest) = text.strip_prefix(NUMBERED) else { continue };
            let number: u64 = rest.split(' ').next().context("a number")?.parse()?;
            ensure!(number == next, "{stream} has line {number} where {next} should be");
            next += 1;
            times = (times.0.min(at), times.1.max(at));
        }
        token = page.next_forward_token;
        ensure!(started.elapsed() < WAIT_MAX, "{stream} has {next} lines");
    }
    Ok(times)
}
