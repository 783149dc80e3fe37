//! ECS Exec: a command in a running container, with a terminal. The terminal's bytes do not pass here: the answer names
//! where to connect, and the container's agent is told to connect there too.

use crate::call::Call;
use crate::services::ecs::check;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{Container, ContainerInstance, ExecSession, Task, TaskKey};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ExecSessionId, Scope};
use gantry_decide::lifecycle::{ContainerStatus, LastStatus};
use gantry_wire::Secret;
use gantry_wire::data_channel::{self, token_digest};

/// The attribute of agents that answer to [`gantry_api::acs::ExecuteCommandMessage`].
pub const EXEC_ATTRIBUTE: &str = "gantry.execute-command";
/// Characters of a command. ECS publishes no figure; what a session's document takes is less.
const COMMAND_LENGTH_MAX: usize = 4096;
/// ECS's words, its apostrophe included.
const NOT_ENABLED: &str = "The execute command failed because execute command was not enabled when the task was run or \
                           the execute command agent isn\u{2019}t running. Wait and try again or run a new task with \
                           execute command enabled and try again.";

pub fn execute_command(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ecs::ExecuteCommandRequest,
) -> Result<ecs::ExecuteCommandResponse, EcsError> {
    let (task, container) = target(tx.view(), &request)?;
    let id = ExecSessionId::random(tx.random);
    let token = token(tx);
    let scope = tx.scope;
    let container_arn = EcsResource::Container(task.cluster.clone(), task.id, container.id);
    let response = ecs::ExecuteCommandResponse {
        cluster_arn: Some(scope.ecs(EcsResource::Cluster(task.cluster.clone())).to_string()),
        container_arn: Some(scope.ecs(container_arn).to_string()),
        container_name: Some(container.name.to_string()),
        interactive: Some(true),
        session: Some(ecs::Session {
            session_id: Some(id.to_string()),
            stream_url: Some(stream_url(&call.endpoint, scope, id)),
            token_value: Some(Secret::new(&token)),
        }),
        task_arn: Some(task.arn(scope).to_string()),
    };
    tx.state.ecs.exec_sessions.put(ExecSession {
        id,
        task,
        container: container.name,
        command: request.command,
        token_digest: token_digest(&token),
        made_at: tx.now,
        opened: false,
    });
    Ok(response)
}

/// The container that is meant, if it can take a command now.
fn target(view: View<'_>, request: &ecs::ExecuteCommandRequest) -> Result<(TaskKey, Container), EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    if !request.interactive {
        return Err(EcsError::invalid("Interactive is the only mode supported currently."));
    }
    if request.command.trim().is_empty() || request.command.chars().count() > COMMAND_LENGTH_MAX {
        return Err(EcsError::invalid(format!(
            "The command must have between 1 and {COMMAND_LENGTH_MAX} characters."
        )));
    }
    let key = check::task(view, cluster, &request.task)?;
    let task = key.as_ref().and_then(|key| view.state.ecs.task(key));
    let task = task.ok_or_else(|| EcsError::invalid("The task provided in the request was not found."))?;
    let container = match request.container.as_deref() {
        Some(name) => task.containers.iter().find(|container| container.name.as_str() == name),
        None if task.containers.len() > 1 => {
            let message = "A container name is required for a task with several containers.";
            return Err(EcsError::invalid(message));
        }
        None => task.containers.first(),
    };
    let container = container.ok_or_else(|| {
        EcsError::invalid("The container provided in the request was not found in the task.")
    })?;
    if task.last_status != LastStatus::Running || container.last_status != ContainerStatus::Running {
        return Err(EcsError::invalid("The task or its container is not RUNNING."));
    }
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    if !is_ready(task, instance) {
        return Err(EcsError::invalid(NOT_ENABLED));
    }
    if !instance.is_some_and(|instance| instance.agent_connected) {
        return Err(EcsError::TargetNotConnected);
    }
    Ok((TaskKey::from(task), container.clone()))
}

/// Whether a task takes commands: it was started so, and its agent can.
pub fn is_ready(task: &Task, instance: Option<&ContainerInstance>) -> bool {
    task.enable_execute_command
        && instance.is_some_and(|instance| instance.attributes.contains_key(EXEC_ATTRIBUTE))
}

/// Where a session's both sides connect.
pub fn stream_url(endpoint: &str, scope: &Scope, id: ExecSessionId) -> String {
    let base = endpoint.replacen("http", "ws", 1);
    format!("{base}{}?role=publish_subscribe", data_channel::path(scope.account, &scope.region, id))
}

/// 256 random bits, as text.
pub fn token(tx: &mut Tx<'_>) -> String {
    let mut bytes = [0; 32];
    tx.random.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
