//! `gantry status`: what there is and how it does, on one screen.

use crate::api::{self, Api, ApiArgs};
use anyhow::Result;
use clap::Args;
use gantry_api::ecs;
use gantry_decide::time::Timestamp;
use gantry_server::endpoint::EngineStatus;
use gantry_server::os::now;
use std::io::Write;

/// Clusters that one call describes.
const DESCRIBED_MAX: usize = 100;

/// Show clusters, services and tasks, and how the server does
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run(arguments: &StatusArgs, out: &mut impl Write) -> Result<()> {
    let api = arguments.api.connect()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(show(&api, out))
}

async fn show(api: &Api, out: &mut impl Write) -> Result<()> {
    let status = api.status().await?;
    let clusters = clusters(api).await?;
    if clusters.is_empty() {
        writeln!(out, "There is no cluster yet: aws ecs create-cluster")?;
    }
    for cluster in clusters {
        let name = cluster.cluster_name.clone().unwrap_or_default();
        writeln!(
            out,
            "cluster {name}: {} instances, {} services, {} tasks running, {} pending",
            cluster.registered_container_instances_count.unwrap_or(0),
            cluster.active_services_count.unwrap_or(0),
            cluster.running_tasks_count.unwrap_or(0),
            cluster.pending_tasks_count.unwrap_or(0),
        )?;
        for service in services(api, &name).await? {
            writeln!(
                out,
                "  service {:24} {:9} {}/{} running, {} pending  {}",
                service.service_name.as_deref().unwrap_or_default(),
                service.status.as_deref().unwrap_or_default(),
                service.running_count.unwrap_or(0),
                service.desired_count.unwrap_or(0),
                service.pending_count.unwrap_or(0),
                last(service.task_definition.as_deref()),
            )?;
            if let Some(event) = service.events.iter().flatten().next() {
                writeln!(out, "          {}", event.message.as_deref().unwrap_or_default())?;
            }
        }
        for task in tasks(api, &name).await? {
            writeln!(
                out,
                "  task {}  {:14} {:8} {:24} {}",
                last(task.task_arn.as_deref()),
                task.last_status.as_deref().unwrap_or_default(),
                task.launch_type.as_ref().map(|kind| kind.as_str()).unwrap_or_default(),
                last(task.task_definition_arn.as_deref()),
                task.stopped_reason.as_deref().unwrap_or_default(),
            )?;
            for pull in status.pulls.iter().filter(|pull| Some(&pull.task) == task.task_arn.as_ref()) {
                writeln!(
                    out,
                    "          {} waits for {}: {}",
                    pull.container,
                    pull.image,
                    came(pull.done, pull.total)
                )?;
            }
        }
    }
    server(&status, now(), out)
}

/// The control plane itself: what its controllers did last, and wait for.
fn server(status: &EngineStatus, now: Timestamp, out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "server: {} agents connected, {} batches written, {} of them on disk",
        status.agents, status.last_batch, status.durable_batch
    )?;
    for controller in &status.controllers {
        write!(out, "  controller {:17} {} changes", controller.name, controller.applied)?;
        if let Some((at, key)) = &controller.last_applied {
            write!(out, ", the last to {key} {} s ago", now.since(*at).as_secs())?;
        }
        if let Some(at) = controller.next_look {
            write!(out, "; {} keys wait, the first for {} s", controller.waiting, at.since(now).as_secs())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// How much of an image is here.
fn came(done: Option<u64>, total: Option<u64>) -> String {
    // Hundredths, since many layers are small.
    let mib = |bytes: u64| format!("{:.2}", bytes as f64 / f64::from(1 << 20));
    match (done, total) {
        (Some(done), Some(total)) if total > 0 => format!("{} of {} MiB have come", mib(done), mib(total)),
        _ => "nothing has come yet".to_owned(),
    }
}

fn last(arn: Option<&str>) -> &str {
    api::last(arn.unwrap_or_default())
}

async fn clusters(api: &Api) -> Result<Vec<ecs::Cluster>> {
    let mut all = Vec::new();
    for arns in api.clusters().await?.chunks(DESCRIBED_MAX) {
        let request = ecs::DescribeClustersRequest { clusters: Some(arns.to_vec()), ..Default::default() };
        all.extend(api.call::<ecs::DescribeClusters>(request).await?.clusters.unwrap_or_default());
    }
    Ok(all)
}

async fn services(api: &Api, cluster: &str) -> Result<Vec<ecs::Service>> {
    let mut all = Vec::new();
    let mut next_token = None;
    loop {
        let request = ecs::ListServicesRequest {
            cluster: Some(cluster.to_owned()),
            max_results: Some(10),
            next_token,
            ..Default::default()
        };
        let page = api.call::<ecs::ListServices>(request).await?;
        let services = page.service_arns.unwrap_or_default();
        if !services.is_empty() {
            let request = ecs::DescribeServicesRequest {
                cluster: Some(cluster.to_owned()),
                services,
                ..Default::default()
            };
            all.extend(api.call::<ecs::DescribeServices>(request).await?.services.unwrap_or_default());
        }
        next_token = page.next_token;
        if next_token.is_none() {
            return Ok(all);
        }
    }
}

async fn tasks(api: &Api, cluster: &str) -> Result<Vec<ecs::Task>> {
    let mut all = Vec::new();
    for desired in [ecs::DesiredStatus::Running, ecs::DesiredStatus::Stopped] {
        for tasks in api.tasks(cluster, desired).await? {
            let request =
                ecs::DescribeTasksRequest { cluster: Some(cluster.to_owned()), tasks, ..Default::default() };
            all.extend(api.call::<ecs::DescribeTasks>(request).await?.tasks.unwrap_or_default());
        }
    }
    Ok(all)
}
