//! A payload's task, read: what it takes to run it.

use crate::health::Check;
use crate::protocol::docker::LogConfig;
use crate::protocol::payload::{self, CompiledTask, ContainerConfig as Docker, PayloadError};
use gantry_api::acs;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task::{IpcMode, NetworkMode, PidMode};
use gantry_decide::task_engine::TaskSpec;
use gantry_wire::json;
use std::collections::BTreeMap;

/// See the module.
pub struct Known {
    task: acs::Task,
    mode: NetworkMode,
    pub(super) pid_mode: Option<PidMode>,
    pub(super) ipc_mode: Option<IpcMode>,
    /// Whether a container of the agent's own holds what the others share.
    pub(super) pause: bool,
    docker: BTreeMap<String, Docker>,
}

impl Known {
    pub(super) fn new(task: acs::Task, compiled: CompiledTask) -> (Known, TaskSpec, DesiredStatus) {
        let CompiledTask { spec, desired, pid_mode, ipc_mode, containers } = compiled;
        let (mode, pause) = (spec.network_mode, spec.pause);
        (Known { task, mode, pid_mode, ipc_mode, pause, docker: containers }, spec, desired)
    }

    /// Reads what was saved.
    pub(super) fn read(payload: &str) -> Result<Known, PayloadError> {
        let task: acs::Task = json::from_slice(payload.as_bytes()).unwrap_or_default();
        let compiled = payload::compile(&task)?;
        Ok(Known::new(task, compiled).0)
    }

    /// As it came, without secrets.
    pub fn task(&self) -> &acs::Task {
        &self.task
    }

    pub fn mode(&self) -> NetworkMode {
        self.mode
    }

    pub fn container(&self, name: &str) -> Option<&acs::Container> {
        self.task.containers.iter().flatten().find(|container| container.name.as_deref() == Some(name))
    }

    /// The parts of a container that the payload carries in the Docker API's form.
    pub fn docker(&self, name: &str) -> Option<&Docker> {
        self.docker.get(name)
    }

    /// A container's log driver and its options, but for those that are secrets.
    pub fn log(&self, container: &str) -> Option<&LogConfig> {
        self.docker.get(container)?.host_config.log_config.as_ref()
    }

    pub(super) fn check(&self, container: &str) -> Option<Check> {
        Check::read(self.docker.get(container)?.config.healthcheck.as_ref()?)
    }

    /// The ids of the GPUs that are a container's.
    pub fn gpus(&self, container: &str) -> Vec<&str> {
        let of = |association: &&acs::Association| {
            let mut containers = association.containers.iter().flatten();
            association.type_.as_deref() == Some("gpu") && containers.any(|name| name == container)
        };
        let associations = self.task.associations.iter().flatten().filter(of);
        associations.filter_map(|association| association.name.as_deref()).collect()
    }

    /// The id under which the task's programs find their role's credentials, if it has a role.
    pub fn role_credentials(&self) -> Option<&str> {
        self.task.role_credentials.as_ref()?.credentials_id.as_deref().filter(|id| !id.is_empty())
    }

    /// Whether this is the id of one of the task's roles.
    pub fn has_credentials(&self, id: &str) -> bool {
        let roles = [&self.task.role_credentials, &self.task.execution_role_credentials];
        roles.into_iter().flatten().any(|role| role.credentials_id.as_deref() == Some(id))
    }
}
