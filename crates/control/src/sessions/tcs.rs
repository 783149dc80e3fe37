//! One agent's telemetry session: health reports become containers' health, every publication is acknowledged. Metrics
//! are acknowledged and dropped until there is a metrics service to keep them.

use super::{Owner, SessionOutput};
use crate::services::ecs::state::{ContainerInstanceKey, ContainerInstanceStatus, TaskKey};
use crate::state::State;
use gantry_api::tcs;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::Scope;
use gantry_decide::lifecycle::HealthStatus;
use gantry_decide::time::Timestamp;
use gantry_wire::envelope::{Frame, seal};
use std::ops::ControlFlow;
use std::time::Duration;

/// Between heartbeats. Agents close a telemetry connection that is silent for 60 to 120 s.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// Tasks that one report may name: several times what the stock agent puts in one.
const TASKS_PER_REPORT_MAX: usize = 100;

type Out<'a> = dyn FnMut(SessionOutput) + 'a;

pub struct TcsSession {
    scope: Scope,
    instance: ContainerInstanceKey,
    next_heartbeat: Timestamp,
}

impl TcsSession {
    pub fn new(now: Timestamp, scope: Scope, instance: ContainerInstanceKey) -> TcsSession {
        TcsSession { scope, instance, next_heartbeat: now + HEARTBEAT_EVERY }
    }

    pub fn owner(&self) -> Owner {
        (self.scope.clone(), self.instance.clone())
    }

    pub fn wake_at(&self) -> Timestamp {
        self.next_heartbeat
    }

    /// Sends what is due. Breaks once it has closed the connection.
    pub fn deliver(&mut self, now: Timestamp, state: &State, out: &mut Out<'_>) -> ControlFlow<()> {
        let instance = state.get(&self.scope).and_then(|s| s.ecs.container_instance(&self.instance));
        if instance.is_none_or(|instance| instance.status == ContainerInstanceStatus::Inactive) {
            out(SessionOutput::Close(1008, "the container instance is deregistered"));
            return ControlFlow::Break(());
        }
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + HEARTBEAT_EVERY;
            let heartbeat = tcs::HeartbeatMessage { healthy: Some(true) };
            out(SessionOutput::Send(seal("HeartbeatMessage", &heartbeat)));
        }
        ControlFlow::Continue(())
    }

    pub fn receive(&mut self, text: &str, state: &mut State, out: &mut Out<'_>) {
        let Some(frame) = Frame::open_signed(text) else { return };
        let ack = match frame.kind.as_ref() {
            "PublishMetricsRequest" => seal("AckPublishMetric", &tcs::AckPublishMetric::default()),
            "PublishHealthRequest" => {
                // A report that does not read is acknowledged all the same: the agent would only repeat it.
                if let Ok(report) = frame.message::<tcs::PublishHealthRequest>() {
                    self.health(&report, state);
                }
                seal("AckPublishHealth", &tcs::AckPublishHealth::default())
            }
            "PublishInstanceStatusRequest" => {
                seal("AckPublishInstanceStatus", &tcs::AckPublishInstanceStatus::default())
            }
            _ => return,
        };
        out(SessionOutput::Send(ack));
    }

    /// Takes over the health of containers that run on this very instance: an agent cannot speak for others.
    fn health(&self, report: &tcs::PublishHealthRequest, state: &mut State) {
        for health in report.tasks.iter().flatten().take(TASKS_PER_REPORT_MAX) {
            let key = health.task_arn.as_deref().and_then(|arn| task_key(&self.scope, arn));
            let known = key.and_then(|key| state.get(&self.scope)?.ecs.task(&key));
            let Some(mut task) = known.cloned() else { continue };
            if task.instance.as_ref() != Some(&self.instance) || !task.is_live() {
                continue;
            }
            let before = task.clone();
            for container in health.containers.iter().flatten() {
                let status = container.health_status.as_deref().and_then(|s| s.parse::<HealthStatus>().ok());
                let name = container.container_name.as_deref().unwrap_or_default();
                // Without a health check there is nothing to report on.
                let definition = task.definition.container(name);
                let known = definition.and_then(|definition| definition.health_check.as_ref());
                let known = known.is_some().then(|| task.container(name)).flatten();
                if let (Some(status), Some(known)) = (status, known) {
                    known.health_status = status;
                }
            }
            if task != before {
                task.version += 1;
                state.edit(&self.scope).ecs.put_task(task);
            }
        }
    }
}

/// The key of a task of this scope.
pub fn task_key(scope: &Scope, arn: &str) -> Option<TaskKey> {
    let arn: EcsArn = arn.parse().ok()?;
    match arn.resource {
        EcsResource::Task(cluster, id) if &arn.scope == scope => Some(TaskKey { cluster, id }),
        _ => None,
    }
}
