//! What Docker is told of a task's container beside what every runtime is: names, labels, volumes of its own.

use super::create::{AGENT_LABEL, GROUP_LABEL};
use crate::config::AgentConfig;
use crate::driver::container::{Parts, cluster, container_id, hash, task_group, task_id};
use crate::driver::reach::{interface, requests};
use crate::driver::volumes::{Kind, ephemeral};
use crate::logs::LogDriver;
use crate::runtime::{EngineParts, EngineVolume};
use gantry_api::acs;
use gantry_decide::task_engine::TaskArn;
use std::collections::BTreeMap;
use std::path::Path;

/// Characters of a container's name that are kept of each of its parts, so that Docker takes the whole.
const PART_MAX: usize = 100;

/// What Docker is told of a container of a task.
pub fn of_container(parts: &Parts<'_>) -> EngineParts {
    let Parts { config, arn, known, container, docker, .. } = parts;
    let name = container.name.as_deref().unwrap_or_default();
    let link = |link: &String| {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        (container_id(arn, target), alias.to_owned())
    };
    let mut docker = (*docker).clone();
    let own_log_driver = matches!(parts.log, LogDriver::Engine);
    if let Some(given) = parts.fetched.filter(|_| own_log_driver) {
        let log = docker.host_config.log_config.get_or_insert_default();
        *log = log.with_secrets(&given.log_options);
    }
    EngineParts {
        name: shown_name(arn, known.task(), name),
        // By its name, for people to read, unless that says which of several it is: of an image that never was in a
        // registry, Docker knows no digest but the id.
        image: match parts.image.name.digest() {
            Some(_) => parts.image.config_digest.to_string(),
            None => parts.image.name.familiar(),
        },
        labels: labels(config, arn, known.task(), name),
        docker,
        ports: requests(container),
        links: container.links.iter().flatten().map(link).collect(),
        volumes: volumes(config, arn, known.task(), parts),
        layer_bytes: ephemeral(config, arn, known.task()).map(|ephemeral| ephemeral.bytes()),
        own_log_driver,
    }
}

/// What Docker is told of the container that holds what the others share. Names that belong to the task's network are
/// its.
pub fn of_pause(agent: &AgentConfig, arn: &TaskArn, task: &acs::Task, name: &str) -> EngineParts {
    let mut parts = EngineParts {
        name: shown_name(arn, task, name),
        image: super::pause::IMAGE.to_owned(),
        labels: labels(agent, arn, task, name),
        ..EngineParts::default()
    };
    if let Some((interface, host)) = interface(task)
        && !host.is_empty()
    {
        parts.docker.host_config.extra_hosts = Some(vec![format!("{host}:{}", interface.address)]);
    }
    let drop_all = Some(vec!["ALL".to_owned()]);
    parts.docker.host_config.cap_drop = drop_all;
    parts.docker.host_config.security_opt = Some(vec!["no-new-privileges".to_owned()]);
    parts
}

/// As the stock agent names containers, with a number that follows from the task.
fn shown_name(arn: &TaskArn, task: &acs::Task, container: &str) -> String {
    let part = |text: &str| -> String { text.chars().take(PART_MAX).collect() };
    let plain: String = container.chars().filter(char::is_ascii_alphanumeric).take(PART_MAX).collect();
    format!(
        "ecs-{}-{}-{plain}-{:016x}",
        part(task.family.as_deref().unwrap_or_default()),
        part(task.version.as_deref().unwrap_or_default()),
        hash(&format!("{}/{container}", arn.0))
    )
}

/// ECS's labels, which go before the user's.
fn labels(agent: &AgentConfig, arn: &TaskArn, task: &acs::Task, container: &str) -> BTreeMap<String, String> {
    let all = [
        ("cluster", cluster(agent, task)),
        ("container-name", container),
        ("task-arn", &arn.0),
        ("task-definition-family", task.family.as_deref().unwrap_or_default()),
        ("task-definition-version", task.version.as_deref().unwrap_or_default()),
    ];
    all.into_iter().map(|(name, value)| (format!("com.amazonaws.ecs.{name}"), value.to_owned())).collect()
}

/// The name of a volume that Docker keeps for a task's volume.
pub fn volume_name(agent: &AgentConfig, arn: &TaskArn, volume: &acs::Volume) -> String {
    let name = volume.name.as_deref().unwrap_or_default();
    match &volume.docker_volume_configuration {
        Some(docker) if docker.scope.as_deref() == Some("shared") => name.to_owned(),
        _ => own_volume(agent, arn, name),
    }
}

/// Whether a volume of Docker's goes with its task, and is a directory of this host like any other.
pub fn begins_empty(volume: &acs::Volume) -> bool {
    volume.docker_volume_configuration.as_ref().is_none_or(|docker| {
        let is_local = matches!(docker.driver.as_deref(), None | Some("" | "local"));
        let has_options = docker.driver_opts.as_ref().is_some_and(|options| !options.is_empty());
        docker.scope.as_deref() != Some("shared") && is_local && !has_options
    })
}

/// The name of a volume that goes with its task.
pub fn own_volume(agent: &AgentConfig, arn: &TaskArn, name: &str) -> String {
    format!("ecs-{}-{}-{name}", agent.name, task_id(arn))
}

/// The volumes that a container mounts and Docker keeps.
fn volumes(agent: &AgentConfig, arn: &TaskArn, task: &acs::Task, parts: &Parts<'_>) -> Vec<EngineVolume> {
    let of_task = BTreeMap::from([
        (AGENT_LABEL.to_owned(), agent.name.clone()),
        (GROUP_LABEL.to_owned(), task_group(agent, arn)),
    ]);
    let mounted = parts.mounts.iter().filter(|mount| !mount.bind.source.is_absolute());
    let mut all: BTreeMap<String, EngineVolume> = BTreeMap::new();
    for mount in mounted {
        let name = mount.bind.source.to_string_lossy().into_owned();
        let declared = task.volumes.iter().flatten().find(|volume| volume_name(agent, arn, volume) == name);
        let docker = declared.and_then(|volume| volume.docker_volume_configuration.as_ref());
        let shared = docker.is_some_and(|docker| docker.scope.as_deref() == Some("shared"));
        let mut labels = docker.and_then(|docker| docker.labels.clone()).unwrap_or_default();
        if !shared {
            labels.extend(of_task.clone());
        }
        let volume = EngineVolume {
            name: name.clone(),
            driver: docker.and_then(|docker| docker.driver.clone()).filter(|driver| !driver.is_empty()),
            options: match &mount.kind {
                Kind::Docker(Some(directory)) => within(directory),
                _ => docker.and_then(|docker| docker.driver_opts.clone()).unwrap_or_default(),
            },
            labels,
            make: !shared || docker.is_some_and(|docker| docker.autoprovision == Some(true)),
        };
        all.insert(name, volume);
    }
    all.into_values().collect()
}

/// What tells Docker's `local` driver that a volume is this directory.
fn within(directory: &Path) -> BTreeMap<String, String> {
    let device = directory.display().to_string();
    let options = [("type", "none"), ("o", "bind"), ("device", device.as_str())];
    options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
