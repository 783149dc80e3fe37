//! Volumes: which directories of the host a container's mount points and its siblings' volumes mean.
//!
//! A volume without a path of the host, and a Docker volume of scope `task`, is a directory of the task's own, gone with
//! its remains. A Docker volume of scope `shared` outlives tasks: it lies under its name in `shared-volumes`, where an
//! operator may also make one. EFS volumes are file systems of the operator's, mounted for each task;
//! managed EBS volumes are made for it.

use super::container::{hash, task_id};
use super::seed::seed;
use crate::config::AgentConfig;
use crate::docker::parts;
use crate::runtime::BindMount;
use crate::storage::{self, Disk, EfsMount, Ephemeral, StorageError};
use gantry_api::acs;
use gantry_decide::task_engine::{Failure, FailureKind, TaskArn};
use std::path::{Path, PathBuf};

/// In the agent's directory: volumes of single tasks.
pub const TASK_VOLUMES: &str = "volumes";
/// In the agent's directory: where images are looked into for what volumes begin with.
pub const SCRATCH: &str = "seeds";
/// In the agent's directory: volumes that outlive tasks.
pub const SHARED_VOLUMES: &str = "shared-volumes";

/// Volumes that one image may declare: more than any has use for.
const IMAGE_VOLUMES_MAX: usize = 64;

/// A directory of the host that a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub bind: BindMount,
    pub kind: Kind,
    /// The container that says so, of whose image an empty volume begins.
    pub owner: String,
}

/// What may be done to a mount's source before its container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made where it is not there, as Docker does.
    HostPath,
    /// Made where it is not there. An empty one begins with what the image has at the mount point.
    Volume,
    /// Has to be there.
    Existing,
    /// Mounted where it is not yet.
    Efs(EfsMount),
    /// Made and mounted where it is not yet.
    Ebs(Disk),
    /// Docker keeps it, and makes it: of a task with ephemeral storage of its own, in this directory of that.
    Docker(Option<PathBuf>),
}

/// The task whose containers' mounts are asked for.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    pub agent: &'a AgentConfig,
    pub arn: &'a TaskArn,
    pub task: &'a acs::Task,
    /// The volumes that a container's image declares.
    pub of_image: &'a dyn Fn(&str) -> Vec<String>,
}

/// All mounts of a container: its own, those that its image declares, and those of the containers that it takes volumes
/// from.
///
/// # Errors
/// For volumes that the task does not have, and for kinds of volumes that this agent cannot make.
pub fn mounts(of: Of<'_>, container: &acs::Container) -> Result<Vec<Mount>, Failure> {
    let mut found = Vec::new();
    collect(of, container, false, &mut Vec::new(), &mut found)?;
    Ok(found)
}

fn collect(
    of: Of<'_>,
    container: &acs::Container,
    read_only: bool,
    seen: &mut Vec<String>,
    found: &mut Vec<Mount>,
) -> Result<(), Failure> {
    let name = container.name.as_deref().unwrap_or_default();
    if seen.iter().any(|known| known == name) {
        // Two that take from each other have the same volumes.
        return Ok(());
    }
    seen.push(name.to_owned());
    let add = |mut mount: Mount, found: &mut Vec<Mount>| {
        mount.bind.read_only |= read_only;
        if !found.iter().any(|known| known.bind.target == mount.bind.target) {
            found.push(mount);
        }
    };
    // What a container says itself goes before what it takes from others, and both before what its image says.
    for point in container.mount_points.iter().flatten() {
        let (bind, kind) = mount(of, point)?;
        add(Mount { bind, kind, owner: name.to_owned() }, found);
    }
    for from in container.volumes_from.iter().flatten() {
        let source = from.source_container.as_deref().unwrap_or_default();
        let other = of.task.containers.iter().flatten().find(|other| other.name.as_deref() == Some(source));
        let other = other.ok_or_else(|| {
            Failure::new(
                FailureKind::InvalidVolumeError,
                format!("volumesFrom: the task has no container {source}"),
            )
        })?;
        collect(of, other, read_only || from.read_only.unwrap_or(false), seen, found)?;
    }
    for path in (of.of_image)(name).into_iter().take(IMAGE_VOLUMES_MAX) {
        if let Some(mount) = of_image(of, name, path) {
            add(mount, found);
        }
    }
    Ok(())
}

/// A volume that an image declares, without a name: as long-lived as the task. Its directory's name cannot be that of a
/// volume with one.
fn of_image(of: Of<'_>, container: &str, path: String) -> Option<Mount> {
    let is_below_root = path.starts_with('/') && !path.trim_matches('/').is_empty();
    let name = format!(".{:016x}", hash(&format!("{container}:{path}")));
    let (source, kind) = match of.agent.runtime.is_docker() {
        true => {
            let volume = parts::own_volume(of.agent, of.arn, &name);
            let directory = within_ephemeral(of, &volume);
            (PathBuf::from(volume), Kind::Docker(directory))
        }
        false => (empty_volumes(of).join(name), Kind::Volume),
    };
    let bind = BindMount { source, target: path, read_only: false };
    is_below_root.then(|| Mount { bind, kind, owner: container.to_owned() })
}

fn of_task_directory(agent: &AgentConfig, arn: &TaskArn) -> PathBuf {
    agent.data_dir.join(TASK_VOLUMES).join(task_id(arn))
}

/// The task's ephemeral storage, if it has its own.
pub fn ephemeral(agent: &AgentConfig, arn: &TaskArn, task: &acs::Task) -> Option<Ephemeral> {
    Ephemeral::of(task, &agent.name, &task_id(arn), &of_task_directory(agent, arn))
}

/// Where a volume that Docker keeps is in the task's ephemeral storage, if that has its own.
fn within_ephemeral(of: Of<'_>, volume: &str) -> Option<PathBuf> {
    ephemeral(of.agent, of.arn, of.task).map(|ephemeral| ephemeral.volumes().join(volume))
}

/// Where volumes are that begin empty and go with their task.
fn empty_volumes(of: Of<'_>) -> PathBuf {
    let ephemeral = ephemeral(of.agent, of.arn, of.task);
    ephemeral.map_or_else(|| of_task_directory(of.agent, of.arn), |ephemeral| ephemeral.volumes())
}

fn mount(of: Of<'_>, point: &acs::MountPoint) -> Result<(BindMount, Kind), Failure> {
    let Of { agent, arn, task, .. } = of;
    let name = point.source_volume.as_deref().unwrap_or_default();
    let invalid =
        |text: &str| Failure::new(FailureKind::InvalidVolumeError, format!("volume {name}: {text}"));
    let volume = task.volumes.iter().flatten().find(|volume| volume.name.as_deref() == Some(name));
    let volume = volume.ok_or_else(|| invalid("the task has no such volume"))?;
    let safe = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !safe || name.is_empty() {
        return Err(invalid("its name cannot name a directory"));
    }
    let of_task = || empty_volumes(of).join(name);
    let of_host = volume.host.as_ref().and_then(|host| host.source_path.as_deref());
    let is_docker_s = volume.docker_volume_configuration.is_some()
        || of_host.is_none_or(str::is_empty) && volume.host.is_some();
    let (source, kind) = if agent.runtime.is_docker() && is_docker_s {
        let name = parts::volume_name(agent, arn, volume);
        let directory = if parts::begins_empty(volume) { within_ephemeral(of, &name) } else { None };
        (PathBuf::from(name), Kind::Docker(directory))
    } else if let Some(docker) = &volume.docker_volume_configuration {
        docker_volume(agent, name, docker, of_task)?
    } else if let Some(host) = &volume.host {
        match host.source_path.as_deref().filter(|path| !path.is_empty()) {
            Some(path) if path.starts_with('/') => (PathBuf::from(path), Kind::HostPath),
            Some(_) => return Err(invalid("the source path is not absolute")),
            None => (of_task(), Kind::Volume),
        }
    } else if let Some(efs) = &volume.efs_volume_configuration {
        let wanted = EfsMount::read(&agent.efs, efs).map_err(|error| efs_failure(&error))?;
        (storage::place(&agent.name, &task_id(arn), name), Kind::Efs(wanted))
    } else if volume.type_.as_deref().is_none_or(str::is_empty) {
        let of_task = of_task_directory(agent, arn);
        let disk =
            Disk::read(task, name, &of_task, &agent.data_dir).map_err(|error| ebs_failure(name, &error))?;
        (storage::place(&agent.name, &task_id(arn), name), Kind::Ebs(disk))
    } else {
        return Err(invalid("this agent has no FSx file systems"));
    };
    let bind = BindMount {
        source,
        target: point.container_path.clone().unwrap_or_default(),
        read_only: point.read_only.unwrap_or(false),
    };
    Ok((bind, kind))
}

/// In ECS's words.
fn efs_failure(error: &StorageError) -> Failure {
    let text = format!("failed to invoke EFS utils commands to set up EFS volumes: {}", error.text());
    Failure::new(FailureKind::ResourceInitializationError, text)
}

fn ebs_failure(volume: &str, error: &StorageError) -> Failure {
    let text = format!("failed to set up the EBS volume {volume}: {}", error.text());
    Failure::new(FailureKind::ResourceInitializationError, text)
}

fn docker_volume(
    agent: &AgentConfig,
    name: &str,
    docker: &acs::DockerVolumeConfiguration,
    of_task: impl Fn() -> PathBuf,
) -> Result<(PathBuf, Kind), Failure> {
    let failed =
        |text: String| Failure::new(FailureKind::CannotCreateVolumeError, format!("volume {name}: {text}"));
    if let Some(driver) = docker.driver.as_deref().filter(|driver| !matches!(*driver, "" | "local")) {
        return Err(failed(format!("this agent has no volume driver {driver}, only local")));
    }
    let options = docker.driver_opts.clone().unwrap_or_default();
    if !options.is_empty() {
        // Of the local driver's mounts only those of directories of the host need no file system of their own.
        let is_bind = options.get("o").is_some_and(|o| o.split(',').any(|o| matches!(o, "bind" | "rbind")));
        let path = options.get("device").filter(|path| is_bind && path.starts_with('/'));
        return path.map(|path| (PathBuf::from(path), Kind::Existing)).ok_or_else(|| {
            failed(
                "of the local driver's options only `o: bind` with a `device` path is supported".to_owned(),
            )
        });
    }
    if docker.scope.as_deref() != Some("shared") {
        return Ok((of_task(), Kind::Volume));
    }
    let path = agent.data_dir.join(SHARED_VOLUMES).join(name);
    match docker.autoprovision {
        Some(true) => Ok((path, Kind::Volume)),
        _ if path.is_dir() => Ok((path, Kind::Volume)),
        _ => Err(failed("no such volume, and autoprovision is off".to_owned())),
    }
}

/// Makes what has to be made of a mount's source, for an image of these layers. `scratch` is a directory that is not
/// there.
///
/// # Errors
/// When it cannot be, or is not there.
pub fn provide(mount: &Mount, layers: &[PathBuf], scratch: &Path) -> Result<(), Failure> {
    let source = &mount.bind.source;
    let failed =
        |text: String| Failure::new(FailureKind::InvalidVolumeError, format!("{}: {text}", source.display()));
    let made = match &mount.kind {
        Kind::Ebs(disk) => {
            let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return disk.provide(source).map_err(|error| ebs_failure(&name, &error));
        }
        Kind::Efs(wanted) => return wanted.provide(source).map_err(|error| efs_failure(&error)),
        Kind::Docker(None) => Ok(()),
        Kind::Docker(Some(directory)) => std::fs::create_dir_all(directory),
        Kind::Existing if source.exists() => Ok(()),
        Kind::Existing => return Err(failed("no such directory".to_owned())),
        Kind::HostPath if source.exists() => Ok(()),
        Kind::HostPath => std::fs::create_dir_all(source),
        Kind::Volume => std::fs::create_dir_all(source).and_then(|()| {
            let is_empty = std::fs::read_dir(source)?.next().is_none();
            // Of an image that is not known any more nothing can be had.
            if is_empty && !layers.is_empty() {
                seed(layers, &mount.bind.target, source, scratch)
            } else {
                Ok(())
            }
        }),
    };
    made.map_err(|error| failed(error.to_string()))
}
