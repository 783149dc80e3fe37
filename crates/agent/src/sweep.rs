//! Taking everything off a host that carries an agent's name: containers, networks, control groups.

use crate::agent::{AgentError, check_name};
use crate::docker::{DockerRuntime, firewall};
use crate::driver::container::task_id;
use crate::network::{LINKS, bridge_name};
use crate::runtime::Runtime;
use crate::runtime::cgroup;
use crate::runtime::native::{NativeRuntime, Places};
use crate::state::{AgentState, Change};
use std::collections::BTreeSet;
use std::path::Path;

/// Removes all containers and whatever else carries the agent's name on this host.
pub(crate) async fn clear<R: Runtime>(name: &str, data_dir: &Path, runtime: &R) -> Result<(), AgentError> {
    for (id, _) in runtime.list().await? {
        runtime.remove(&id).await?;
    }
    let mut state = AgentState::open(&data_dir.join("state"))?;
    for saved in state.tasks()? {
        let arn = &saved.task.spec.arn;
        runtime.remove_task_group(&format!("/gantry/{name}/{}", task_id(arn))).await?;
        state.save(&[Change::Forget(arn.clone())])?;
    }
    for kind in ["logs", "volumes"] {
        // Gone is what is wanted.
        let _ = std::fs::remove_dir_all(data_dir.join(kind));
    }
    crate::storage::release_others(name, |_| false);
    crate::lease::guard::remove(name);
    remove_groups_below(name);
    runtime.close().await;
    let name = name.to_owned();
    let removed = tokio::task::spawn_blocking(move || crate::network::remove_all(&name)).await;
    removed.map_err(|error| AgentError::Thread(error.into()))??;
    Ok(())
}

/// Removes the agent's control groups, whose containers are gone.
fn remove_groups_below(name: &str) {
    for group in groups_below(name) {
        cgroup::remove(&group);
    }
    cgroup::remove(&format!("/gantry/{name}"));
    cgroup::remove("/gantry");
}

fn groups_below(name: &str) -> BTreeSet<String> {
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let tasks = hierarchies.flat_map(|hierarchy| {
        let entries = std::fs::read_dir(hierarchy.join("gantry").join(name)).into_iter().flatten().flatten();
        let directories = entries.filter(|entry| entry.path().is_dir());
        directories.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    });
    tasks.map(|task| format!("/gantry/{name}/{task}")).collect()
}

/// What an agent has on this host: containers, networks, control groups.
///
/// # Errors
/// When its directory cannot be read.
pub async fn leftovers(data_dir: &Path, name: &str) -> Result<Vec<String>, AgentError> {
    let mut found = crate::network::leftovers(name);
    let places = Places::of(name, data_dir);
    let mut containers = BTreeSet::new();
    for place in [places.containers, places.written] {
        match std::fs::read_dir(place) {
            Ok(entries) => containers.extend(entries.flatten().map(|entry| entry.file_name())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(AgentError::Sweep(error)),
        }
    }
    found.extend(containers.iter().map(|name| format!("container {}", name.to_string_lossy())));
    if let Some(docker) = docker(data_dir, name).await? {
        found.extend(docker.leftovers().await?);
    }
    found.extend(crate::storage::leftovers(name).into_iter().map(|task| format!("volumes of task {task}")));
    found.extend(groups_below(name).into_iter().map(|group| format!("control group {group}")));
    Ok(found)
}

/// Kills and removes everything on this host that carries an agent's name. The agent must not run. Nothing there is no
/// error.
///
/// # Errors
/// When something cannot be removed.
pub async fn sweep(data_dir: &Path, name: &str, program: &Path) -> Result<(), AgentError> {
    check_name(name)?;
    match docker(data_dir, name).await? {
        Some(docker) => {
            clear(name, data_dir, &docker).await?;
            firewall::withdraw(&bridge_name(name)).await;
            if !crate::network::has_links() {
                firewall::withdraw(LINKS).await;
            }
            Ok(())
        }
        None => {
            let places = Places::of(name, data_dir);
            clear(name, data_dir, &NativeRuntime::open(places.clone(), program)?).await?;
            // Not empty, it is of use still.
            let _ = std::fs::remove_dir(places.containers);
            Ok(())
        }
    }
}

/// The engine that has the agent's containers, if one has.
async fn docker(data_dir: &Path, name: &str) -> Result<Option<DockerRuntime>, AgentError> {
    let directory = data_dir.join("state");
    if !directory.exists() {
        return Ok(None);
    }
    let Some(socket) = AgentState::open(&directory)?.instance()?.and_then(|instance| instance.docker) else {
        return Ok(None);
    };
    Ok(Some(DockerRuntime::connect(&socket, name).await?))
}
