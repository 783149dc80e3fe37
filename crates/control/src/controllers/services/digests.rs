//! Version consistency: what the tags of a deployment's images stand for, so that all its tasks run the same.
//!
//! As ECS documents it: the first task of a deployment establishes the digests, and the others wait for it; what starts
//! later uses them. When three attempts have failed the deployment goes on without.

use crate::services::ecs::state::{Container, Deployment, Service, Task};
use crate::tx::View;
use gantry_decide::ids::ContainerName;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::task::VersionConsistency;
use gantry_store::Record;
use std::collections::BTreeMap;

/// Failed attempts after which tags stay tags.
const ATTEMPTS_MAX: u32 = 3;

/// By container; those without stay as the definition names them.
pub type Digests = BTreeMap<ContainerName, String>;

/// What is to be done about a deployment's digests.
#[derive(Clone, Debug, PartialEq)]
pub enum Establishing {
    /// They are known, or there is nothing to find out.
    Done,
    /// They have just become known.
    Now(Digests),
    /// A task is to be started that tells them.
    ByOneTask,
    /// That task has yet to tell them.
    Waits,
    /// Too many have failed to.
    InVain,
}

/// How far the primary deployment is.
pub fn establishing(view: View<'_>, service: &Service, primary: &Deployment) -> Establishing {
    if primary.image_digests.is_some() {
        return Establishing::Done;
    }
    let Some(record) = view.state.ecs.task_definitions.get(&primary.task_definition) else {
        return Establishing::Done;
    };
    let tagged: Vec<&ContainerName> = record
        .definition
        .container_definitions
        .iter()
        .filter(|container| {
            container.version_consistency != Some(VersionConsistency::Disabled)
                && !container.image.contains('@')
        })
        .map(|container| &container.name)
        .collect();
    if tagged.is_empty() {
        return Establishing::Done;
    }
    let mut waits = false;
    for task in view.state.ecs.in_books_of(&service.key()) {
        if task.deployment() != Some(primary.id) {
            continue;
        }
        let told = digests_of(task, &tagged);
        // Images that no registry gave have none to tell: a task that runs has told all it will.
        if told.len() == tagged.len() || task.started_at.is_some() {
            return Establishing::Now(told);
        }
        waits |= may_tell(view, task);
    }
    match waits {
        true => Establishing::Waits,
        false if primary.failures.starts >= ATTEMPTS_MAX => Establishing::InVain,
        false => Establishing::ByOneTask,
    }
}

fn digests_of(task: &Task, tagged: &[&ContainerName]) -> Digests {
    let told = |container: &Container| Some((container.name.clone(), container.image_digest.clone()?));
    task.containers.iter().filter(|container| tagged.contains(&&container.name)).filter_map(told).collect()
}

/// It is on its way up, on an instance that is there.
fn may_tell(view: View<'_>, task: &Task) -> bool {
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    task.desired_status == DesiredStatus::Running
        && task.last_status < LastStatus::Running
        && instance.is_some_and(|instance| instance.agent_connected)
}
