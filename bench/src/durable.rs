//! Placement as users get it: signed requests to a `gantry server` on one core, thousands of agents connected over real
//! sockets, answers once the disk has synced. Every placement is checked afterwards.

use crate::api::signed;
use crate::fleet::{Fleet, ZONES};
use crate::host::Host;
use crate::load::drive;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use gantry_agent::client::Client;
use gantry_api::ecs;
use std::time::{Duration, Instant};

const AGENTS: usize = 5000;
const ROUNDS: usize = 12;
/// One round of RunTask.
const TIME: Duration = Duration::from_millis(800);
const CONNECTIONS: usize = 16;
/// How long one connection starts tasks one by one.
const ALONE: Duration = Duration::from_secs(3);
pub const TASKS_PER_CALL: i32 = 10;
/// Tasks of each service.
const SERVICE_TASKS: i32 = 1000;
const SERVICES: usize = 12;
const TASK_CPU: i32 = 16;
/// MiB.
const TASK_MEMORY: i32 = 64;
/// How long agents may take to be told everything.
const TOLD_MAX: Duration = Duration::from_secs(60);

/// Registers the task definition that is placed; returns the attributes that it asks of instances.
pub async fn define(client: &Client) -> Result<Vec<ecs::Attribute>> {
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: "bench".to_owned(),
        network_mode: Some(ecs::NetworkMode::Bridge),
        container_definitions: vec![ecs::ContainerDefinition {
            name: Some("app".to_owned()),
            image: Some("nginx:latest".to_owned()),
            cpu: Some(TASK_CPU),
            memory: Some(TASK_MEMORY),
            // These agents pull nothing: no task can tell what the tag stands for.
            version_consistency: Some(ecs::VersionConsistency::Disabled),
            port_mappings: Some(vec![ecs::PortMapping { container_port: Some(80), ..Default::default() }]),
            environment: Some(vec![ecs::KeyValuePair {
                name: Some("MODE".to_owned()),
                value: Some("production".to_owned()),
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let registered = client.ecs::<ecs::RegisterTaskDefinition>(&definition).await?;
    Ok(registered.task_definition.and_then(|definition| definition.requires_attributes).unwrap_or_default())
}

/// Ten tasks anywhere but in the third zone.
pub fn run_ten() -> ecs::RunTaskRequest {
    ecs::RunTaskRequest {
        task_definition: "bench".to_owned(),
        count: Some(TASKS_PER_CALL),
        placement_constraints: Some(vec![ecs::PlacementConstraint {
            type_: Some(ecs::PlacementConstraintType::MemberOf),
            expression: Some(format!("attribute:ecs.availability-zone != {}", ZONES[2])),
        }]),
        ..Default::default()
    }
}

pub async fn run() -> Result<()> {
    let host = Host::server_on_one_core()?;
    let client = host.client()?;
    client.ecs::<ecs::CreateCluster>(&ecs::CreateClusterRequest::default()).await?;
    let attributes = define(&client).await?;
    let fleet = Fleet::join(&host, AGENTS, &attributes).await?;
    let mut placed = 0;

    let one = ecs::RunTaskRequest { count: Some(1), ..run_ten() };
    let alone = drive(host.address(), signed(&host, "RunTask", &one), 1, ALONE).await?;
    placed += alone.latencies.len();
    all_told(&fleet, placed).await?;

    let (mut rates, mut per_core, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let request = signed(&host, "RunTask", &run_ten());
        let (start, cpu) = (Instant::now(), host.cpu_seconds()?);
        let outcome = drive(host.address(), request, CONNECTIONS, TIME).await?;
        let tasks = outcome.latencies.len() * TASKS_PER_CALL as usize;
        placed += tasks;
        rates.push(tasks as f64 / start.elapsed().as_secs_f64());
        all_told(&fleet, placed).await?;
        per_core.push(tasks as f64 / (host.cpu_seconds()? - cpu));
        latencies.extend(outcome.latencies);
    }
    let (mut service_rates, mut service_per_core) = (Vec::new(), Vec::new());
    for number in 0..SERVICES {
        let request = ecs::CreateServiceRequest {
            service_name: format!("bench-{number}"),
            task_definition: Some("bench".to_owned()),
            desired_count: Some(SERVICE_TASKS),
            ..Default::default()
        };
        let (start, cpu) = (Instant::now(), host.cpu_seconds()?);
        client.ecs::<ecs::CreateService>(&request).await?;
        placed += SERVICE_TASKS as usize;
        all_told(&fleet, placed).await?;
        service_rates.push(f64::from(SERVICE_TASKS) / start.elapsed().as_secs_f64());
        service_per_core.push(f64::from(SERVICE_TASKS) / (host.cpu_seconds()? - cpu));
    }
    let memory = host.memory()?;
    let in_zone = |group: &str, zone: &str| group.starts_with("service:") || zone != ZONES[2];
    fleet.check(&client, placed, (TASK_CPU, TASK_MEMORY), in_zone).await?;
    print(
        &format!("Durable placement with {AGENTS} connected agents, {placed} tasks, all checked"),
        &[
            Row::new("RunTask of one on one connection, latency", "ms", alone.latencies),
            Row::new("RunTask of ten, tasks answered durably", "tasks/s", rates),
            Row::new("the same by the server's processor time", "tasks/s", per_core),
            Row::new("RunTask of ten, latency", "ms", latencies),
            Row::new("CreateService of a thousand, to the agents", "tasks/s", service_rates),
            Row::new("the same by the server's processor time", "tasks/s", service_per_core),
            Row::new("resident at the end", "MiB", vec![memory]),
        ],
    );
    Ok(())
}

/// Waits until the agents know of so many tasks.
pub async fn all_told(fleet: &Fleet, tasks: usize) -> Result<()> {
    let start = Instant::now();
    while fleet.tasks() < tasks {
        let told = || format!("{} of {tasks} tasks came to agents", fleet.tasks());
        Some(()).filter(|()| start.elapsed() < TOLD_MAX).with_context(told)?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    ensure!(fleet.tasks() == tasks, "agents were told of {} tasks, not of {tasks}", fleet.tasks());
    Ok(())
}
