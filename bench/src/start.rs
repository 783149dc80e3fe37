//! The start of a task: from RunTask's first byte to its reply, to the program's first line of output, and to RUNNING as
//! DescribeTasks tells it. Beside it, in turns: `docker run` and `runc run` of the same program where they are installed,
//! and the bare `unshare`. Then many at once: see [`storm`].

use crate::docker::Docker;
use crate::host::Host;
use crate::storm;
use crate::table::{Row, print};
use anyhow::{Context, Result};
use gantry_agent::runtime::logs::Reader;
use gantry_api::ecs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROUNDS: usize = 40;

pub async fn run() -> Result<()> {
    let host = Host::up()?;
    let client = host.client()?;
    for (family, image) in [("web", "nginx:latest")] {
        let definition = ecs::RegisterTaskDefinitionRequest {
            family: family.to_owned(),
            network_mode: Some(ecs::NetworkMode::Awsvpc),
            requires_compatibilities: Some(vec![ecs::Compatibility::Fargate]),
            cpu: Some("256".to_owned()),
            memory: Some("512".to_owned()),
            container_definitions: vec![ecs::ContainerDefinition {
                name: Some("web".to_owned()),
                image: Some(image.to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        };
        client.ecs::<ecs::RegisterTaskDefinition>(&definition).await?;
    }
    let subnets = vec!["subnet-1".to_owned()];
    let network = ecs::AwsVpcConfiguration { subnets, ..Default::default() };
    let run = ecs::RunTaskRequest {
        task_definition: "web".to_owned(),
        launch_type: Some(ecs::LaunchType::Fargate),
        network_configuration: Some(ecs::NetworkConfiguration { awsvpc_configuration: Some(network) }),
        ..Default::default()
    };
    let bundle = Bundle::make(&host)?;
    let (mut replied, mut speaks, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let docker = Docker::start(&layer(&host)?)?;
    let (mut with_docker, mut with_runc, mut with_unshare) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (started, at) = (Instant::now(), epoch());
        let answer = client.ecs::<ecs::RunTask>(&run).await?;
        replied.push(millis(started.elapsed()));
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
        runs.push(millis(started.elapsed()));
        speaks.push((first_line(&host, &arn).await? - at) * 1000.0);
        client.ecs::<ecs::StopTask>(&ecs::StopTaskRequest { task: arn, ..Default::default() }).await?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        if let Some(docker) = &docker {
            with_docker.push(docker.run()?);
        }
        if let Some(time) = bundle.runc(round)? {
            with_runc.push(time);
        }
        with_unshare.push(unshare()?);
    }
    let mut rows = vec![
        Row::new("RunTask replies, durable", "ms", replied),
        Row::new("the program speaks (awsvpc, all on)", "ms", speaks),
        Row::new("RUNNING is read back", "ms", runs),
    ];
    if !with_docker.is_empty() {
        rows.push(Row::new("docker run of the same program, to its end", "ms", with_docker));
    }
    if !with_runc.is_empty() {
        rows.push(Row::new("runc run of the same program, to its end", "ms", with_runc));
    }
    rows.push(Row::new("unshare of five namespaces, to its end", "ms", with_unshare));
    print("Start of a task", &rows);
    drop(docker);
    storm::run(&host, &run).await
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
        spec["process"]["args"] = serde_json::json!(["/usr/bin/gantry", "sample"]);
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
        if directory.join("usr/bin/gantry").exists() {
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
