//! The start of a task: from RunTask's first byte to its reply, to the program's first line of output, and to RUNNING as
//! DescribeTasks tells it. Beside it, in turns: `docker run` and `runc run` of the same program where they are installed,
//! and the bare `unshare`. Then the same with containers of Docker Engine's, and on both many at once: see [`storm`].

use crate::docker::Docker;
use crate::host::Host;
use crate::storm;
use crate::table::{Row, print};
use anyhow::{Context, Result};
use gantry_agent::client::Client;
use gantry_agent::runtime::logs::Reader;
use gantry_api::ecs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROUNDS: usize = 40;

/// Tasks at once, natively and on Docker.
const STORM: usize = 500;
const STORM_ON_DOCKER: usize = 100;

pub async fn run() -> Result<()> {
    let host = Host::up()?;
    let (client, run) = (host.client()?, define(&host).await?);
    let bundle = Bundle::make(&host)?;
    let docker = Docker::start(&layer(&host)?)?;
    let mut times = Times::default();
    let (mut with_docker, mut with_runc, mut with_unshare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        times.take(&host, &client, &run).await?;
        if let Some(docker) = &docker {
            with_docker.push(docker.run()?);
        }
        if let Some(time) = bundle.runc(round)? {
            with_runc.push(time);
        }
        with_unshare.push(unshare()?);
    }
    let mut rows = times.rows();
    if !with_docker.is_empty() {
        rows.push(Row::new("docker run of the same program, to its end", "ms", with_docker));
    }
    if !with_runc.is_empty() {
        rows.push(Row::new("runc run of the same program, to its end", "ms", with_runc));
    }
    rows.push(Row::new("unshare of five namespaces, to its end", "ms", with_unshare));
    print("Start of a task", &rows);
    storm::run(&host, &run, STORM, || Ok(0.0)).await?;
    drop(host);
    match docker {
        Some(docker) => on_docker(&docker).await,
        None => Ok(()),
    }
}

/// Nothing but many tasks at once.
pub async fn storm() -> Result<()> {
    let host = Host::up()?;
    let run = define(&host).await?;
    storm::run(&host, &run, STORM, || Ok(0.0)).await
}

/// Tasks whose containers are Docker's, beside `docker run`.
async fn on_docker(docker: &Docker) -> Result<()> {
    let host = Host::up_on(docker.variables())?;
    let (client, run) = (host.client()?, define(&host).await?);
    let (mut times, mut alone) = (Times::default(), Vec::new());
    for _ in 0..ROUNDS {
        times.take(&host, &client, &run).await?;
        alone.push(docker.run()?);
    }
    let mut rows = times.rows();
    rows.push(Row::new("docker run of the same program, to its end", "ms", alone));
    print("Start of a task on Docker Engine", &rows);
    storm::run(&host, &run, STORM_ON_DOCKER, || docker.memory()).await
}

/// Registers the task; how it is run.
pub async fn define(host: &Host) -> Result<ecs::RunTaskRequest> {
    let definition = ecs::RegisterTaskDefinitionRequest {
        family: "web".to_owned(),
        network_mode: Some(ecs::NetworkMode::Awsvpc),
        requires_compatibilities: Some(vec![ecs::Compatibility::Fargate]),
        cpu: Some("256".to_owned()),
        memory: Some("512".to_owned()),
        container_definitions: vec![ecs::ContainerDefinition {
            name: Some("web".to_owned()),
            image: Some("nginx:latest".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    };
    host.client()?.ecs::<ecs::RegisterTaskDefinition>(&definition).await?;
    let subnets = vec!["subnet-1".to_owned()];
    let network = ecs::AwsVpcConfiguration { subnets, ..Default::default() };
    Ok(ecs::RunTaskRequest {
        task_definition: "web".to_owned(),
        launch_type: Some(ecs::LaunchType::Fargate),
        network_configuration: Some(ecs::NetworkConfiguration { awsvpc_configuration: Some(network) }),
        ..Default::default()
    })
}

/// Of starts, in milliseconds.
#[derive(Default)]
struct Times {
    replied: Vec<f64>,
    speaks: Vec<f64>,
    runs: Vec<f64>,
}

impl Times {
    /// Starts one task, and stops it.
    async fn take(&mut self, host: &Host, client: &Client, run: &ecs::RunTaskRequest) -> Result<()> {
        let (started, at) = (Instant::now(), epoch());
        let answer = client.ecs::<ecs::RunTask>(run).await?;
        self.replied.push(millis(started.elapsed()));
        let arn = answer.tasks.iter().flatten().next().and_then(|task| task.task_arn.clone());
        let arn = arn.with_context(|| format!("not placed: {:?}", answer.failures))?;
        let describe = ecs::DescribeTasksRequest { tasks: vec![arn.clone()], ..Default::default() };
        loop {
            let tasks = client.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default();
            if tasks.iter().any(|task| task.last_status.as_deref() == Some("RUNNING")) {
                break;
            }
            anyhow::ensure!(started.elapsed() < Duration::from_secs(30), "the task does not start");
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        self.runs.push(millis(started.elapsed()));
        self.speaks.push((first_line(host, &arn).await? - at) * 1000.0);
        client.ecs::<ecs::StopTask>(&ecs::StopTaskRequest { task: arn, ..Default::default() }).await?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        Ok(())
    }

    fn rows(self) -> Vec<Row> {
        vec![
            Row::new("RunTask replies, durable", "ms", self.replied),
            Row::new("the program speaks (awsvpc, all on)", "ms", self.speaks),
            Row::new("RUNNING is read back", "ms", self.runs),
        ]
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// When the task's program wrote its first line.
async fn first_line(host: &Host, arn: &str) -> Result<f64> {
    let id = arn.rsplit('/').next().unwrap_or_default();
    let path = host.directory.path().join(format!("agents/fargate/logs/{id}/web.log"));
    let start = Instant::now();
    loop {
        if let Some(line) = Reader::open(&path).read()? {
            return Ok(line.at.0 as f64 + f64::from(line.at.1) / 1e9);
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(10), "the program says nothing");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The same image for runc, with its default specification.
struct Bundle(Option<PathBuf>);

impl Bundle {
    fn make(host: &Host) -> Result<Bundle> {
        if Command::new("runc").arg("--version").output().is_err() {
            println!("runc is not installed (Debian's runc): no peer for the start");
            return Ok(Bundle(None));
        }
        let directory = host.directory.path().join("runc");
        std::fs::create_dir_all(&directory)?;
        let layer = layer(host)?;
        std::os::unix::fs::symlink(&layer, directory.join("rootfs"))?;
        let made = Command::new("runc").arg("spec").current_dir(&directory).status()?;
        anyhow::ensure!(made.success(), "runc spec failed");
        let file = directory.join("config.json");
        let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = serde_json::json!(["/usr/bin/sample"]);
        // As much as this machine's root has: the default is more.
        spec["process"]["rlimits"] = serde_json::json!([]);
        spec["root"]["path"] = layer.to_string_lossy().into();
        std::fs::write(file, spec.to_string())?;
        Ok(Bundle(Some(directory)))
    }

    fn runc(&self, round: usize) -> Result<Option<f64>> {
        let Some(directory) = &self.0 else { return Ok(None) };
        let start = Instant::now();
        Command::new("runc")
            .args(["run", "--bundle"])
            .arg(directory)
            .arg(format!("gantry-bench-{}-{round}", std::process::id()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        Ok(Some(millis(start.elapsed())))
    }
}

fn layer(host: &Host) -> Result<PathBuf> {
    find_layer(&host.directory.path().join("images")).context("the sample image's layer")
}

/// The directory that holds the sample's program.
fn find_layer(images: &Path) -> Option<PathBuf> {
    let mut waiting = vec![images.to_owned()];
    while let Some(directory) = waiting.pop() {
        if directory.join("usr/bin/sample").exists() {
            return Some(directory);
        }
        let entries = std::fs::read_dir(&directory).ok()?;
        waiting.extend(
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()),
        );
    }
    None
}

fn unshare() -> Result<f64> {
    let start = Instant::now();
    let done = Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "/bin/true"])
        .status()?;
    anyhow::ensure!(done.success(), "unshare failed");
    Ok(millis(start.elapsed()))
}
