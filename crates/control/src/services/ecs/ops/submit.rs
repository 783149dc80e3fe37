//! What agents report of their tasks. They tell facts; ECS's words for them (RUNNING since when, stopped why) are made
//! here.
//!
//! A report can be repeated, late or about a task that is forgotten: states only move forward, and what changes nothing
//! is acknowledged like everything else, because an agent sends again, without end, what is refused.

use crate::call::Call;
use crate::services::ecs::check;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{NetworkBinding, Task};
use crate::tx::Tx;
use gantry_api::ecs;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, LastStatus, StopCode};
use gantry_decide::mutant;
use gantry_decide::task::PortRange;
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;

const ACKNOWLEDGED: &str = "ACK";
/// ECS's limit for a container's `reason`, in characters.
const REASON_LENGTH_MAX: usize = 1024;
/// ECS's limit for `runtimeId` and image digests, in characters.
const ID_LENGTH_MAX: usize = 255;
/// Ports of one container: several times ECS's limit for a definition's.
const BINDINGS_MAX: usize = 1000;
pub const ESSENTIAL_EXITED: &str = "Essential container in task exited";

pub fn submit_task_state_change(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::SubmitTaskStateChangeRequest,
) -> Result<ecs::SubmitTaskStateChangeResponse, EcsError> {
    let acknowledged = ecs::SubmitTaskStateChangeResponse { acknowledgment: Some(ACKNOWLEDGED.to_owned()) };
    let Some(before) = reported(tx, request.task.as_deref())? else { return Ok(acknowledged) };
    let mut task = before.clone();
    for change in request.containers.iter().flatten() {
        container(&mut task, change)?;
    }
    let time = |at: Option<EpochMillis>| at.map(|at| Timestamp::from_millis(at.0));
    task.pull_started_at = task.pull_started_at.or(time(request.pull_started_at));
    task.pull_stopped_at = task.pull_stopped_at.or(time(request.pull_stopped_at));
    task.execution_stopped_at = task.execution_stopped_at.or(time(request.execution_stopped_at));
    match request.status.as_deref() {
        // A confirmation of an attachment, or news of containers only.
        None | Some("") => {}
        Some(word) => match word.parse::<ContainerStatus>() {
            Ok(ContainerStatus::Pending) => {}
            Ok(ContainerStatus::Running) => running(&mut task, tx.now),
            Ok(ContainerStatus::Stopped) => stopped(&mut task, request.reason.as_deref(), tx.now),
            Err(_) => return Err(EcsError::invalid("Invalid status.")),
        },
    }
    if task != before {
        task.version += 1;
        tx.state.ecs.put_task(task);
    }
    Ok(acknowledged)
}

pub fn submit_container_state_change(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::SubmitContainerStateChangeRequest,
) -> Result<ecs::SubmitContainerStateChangeResponse, EcsError> {
    let acknowledged =
        ecs::SubmitContainerStateChangeResponse { acknowledgment: Some(ACKNOWLEDGED.to_owned()) };
    let Some(before) = reported(tx, request.task.as_deref())? else { return Ok(acknowledged) };
    let mut task = before.clone();
    let change = ecs::ContainerStateChange {
        container_name: request.container_name,
        exit_code: request.exit_code,
        image_digest: None,
        network_bindings: request.network_bindings,
        reason: request.reason,
        runtime_id: request.runtime_id,
        status: request.status,
    };
    container(&mut task, &change)?;
    if task != before {
        task.version += 1;
        tx.state.ecs.put_task(task);
    }
    Ok(acknowledged)
}

/// Interfaces and volumes of ours need no confirmation; a stock agent's is taken note of.
pub fn submit_attachment_state_changes(
    _tx: &mut Tx<'_>,
    _call: &Call,
    _request: ecs::SubmitAttachmentStateChangesRequest,
) -> Result<ecs::SubmitAttachmentStateChangesResponse, EcsError> {
    Ok(ecs::SubmitAttachmentStateChangesResponse { acknowledgment: Some(ACKNOWLEDGED.to_owned()) })
}

/// The task that is meant; `None` for one that is forgotten, or has ended: nothing changes it any more.
fn reported(tx: &Tx<'_>, text: Option<&str>) -> Result<Option<Task>, EcsError> {
    let arn: EcsArn = text.unwrap_or_default().parse()?;
    if &arn.scope != tx.scope {
        check::own_arn(tx.view(), text.unwrap_or_default())?;
    }
    let EcsResource::Task(cluster, id) = arn.resource else {
        return Err(EcsError::invalid("Invalid task identifier."));
    };
    let key = crate::services::ecs::state::TaskKey { cluster, id };
    Ok(tx.state.ecs.task(&key).filter(|task| task.is_live()).cloned())
}

/// Merges one container's news. A container that the task does not have is the agent's own affair.
fn container(task: &mut Task, change: &ecs::ContainerStateChange) -> Result<(), EcsError> {
    let Some(known) = change.container_name.as_deref().and_then(|name| task.container(name)) else {
        return Ok(());
    };
    let bounded =
        |text: &Option<String>, max: usize| text.as_ref().map(|text| text.chars().take(max).collect());
    if let Some(word) = change.status.as_deref().filter(|word| !word.is_empty()) {
        let status: ContainerStatus = word.parse().map_err(|_| EcsError::invalid("Invalid status."))?;
        known.last_status = known.last_status.max(status);
    }
    known.runtime_id = bounded(&change.runtime_id, ID_LENGTH_MAX).or(known.runtime_id.take());
    known.image_digest = bounded(&change.image_digest, ID_LENGTH_MAX).or(known.image_digest.take());
    known.reason = bounded(&change.reason, REASON_LENGTH_MAX)
        .filter(|reason: &String| !reason.is_empty())
        .or(known.reason.take());
    known.exit_code = change.exit_code.or(known.exit_code);
    if let Some(bindings) = change.network_bindings.as_ref().filter(|bindings| !bindings.is_empty()) {
        known.network_bindings = bindings.iter().take(BINDINGS_MAX).filter_map(binding).collect();
    }
    Ok(())
}

fn binding(binding: &ecs::NetworkBinding) -> Option<NetworkBinding> {
    let range = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<PortRange>().ok());
    let (container_port, host_port, more) =
        match (range(&binding.container_port_range), range(&binding.host_port_range)) {
            (Some(container), Some(host)) => (container.first, host.first, container.last - container.first),
            _ => {
                let port = |number: Option<i32>| u16::try_from(number?).ok();
                (port(binding.container_port)?, port(binding.host_port)?, 0)
            }
        };
    Some(NetworkBinding {
        bind_ip: binding.bind_ip.clone()?.parse::<std::net::IpAddr>().ok()?.to_string(),
        container_port,
        host_port,
        more,
        protocol: binding.protocol.as_ref().map_or("tcp", |protocol| protocol.as_str()).to_owned(),
    })
}

fn running(task: &mut Task, now: Timestamp) {
    if task.started_at.is_none() {
        task.started_at = Some(now);
        task.connectivity_at.get_or_insert(now);
    }
    let next = match task.desired_status {
        DesiredStatus::Running => LastStatus::Running,
        // It ran for a moment although it is to stop.
        DesiredStatus::Stopped => LastStatus::Stopping,
    };
    // One that was RUNNING before drains in peace, however often it is told of.
    let comes = task.last_status < LastStatus::Running && task.last_status.may_become(next);
    if comes || mutant::is("late reports believed") {
        task.last_status = next;
    }
}

fn stopped(task: &mut Task, reason: Option<&str>, now: Timestamp) {
    for container in &mut task.containers {
        container.last_status = ContainerStatus::Stopped;
    }
    if task.desired_status == DesiredStatus::Running {
        if mutant::is("ends of tasks not believed") {
            return;
        }
        let (code, reason) = why(task, reason.unwrap_or_default());
        task.request_stop(code, &reason, now);
    }
    if task.last_status.may_become(LastStatus::Deprovisioning) {
        task.last_status = LastStatus::Deprovisioning;
    }
}

/// Why a task ended that nobody stopped.
fn why(task: &Task, reason: &str) -> (StopCode, String) {
    let ran = task.started_at.is_some() || task.containers.iter().any(|c| c.exit_code.is_some());
    if ran {
        return (StopCode::EssentialContainerExited, ESSENTIAL_EXITED.to_owned());
    }
    let of_container = || task.containers.iter().find_map(|container| container.reason.clone());
    let text = Some(reason.to_owned()).filter(|reason| !reason.is_empty()).or_else(of_container);
    (StopCode::TaskFailedToStart, text.unwrap_or_else(|| "Task failed to start".to_owned()))
}
