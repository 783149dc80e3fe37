//! Tasks: the steps between what users ask for and what agents report. What needs no agent is done here; what has
//! ended is forgotten after an hour.

use super::{Controller, LookAgain};
use crate::services::ecs::state::{ContainerInstance, ContainerInstanceStatus, Task, TaskKey};
use crate::services::ecs::{balanced, capacity};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::ids::TargetGroupId;
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, LastStatus, StopCode};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_store::Record;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a stopped task stays describable: ECS's least.
const RETENTION: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Tasks;

/// The next step of one task.
pub enum Step {
    /// Its network interface is there: the agent may have it.
    HandOver,
    /// Nothing has to be drained any more.
    Signal,
    /// Nothing of it is left on any host.
    End,
    /// Its instance is gone, and nobody will hear of it again.
    Abandon,
    /// Its instance's agent was silent for too long.
    Lose,
    Forget,
}

impl Controller for Tasks {
    const NAME: &'static str = "tasks";
    type Key = TaskKey;
    type Plan = Step;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<TaskKey>) {
        match change {
            Change::Task(key) => {
                keys.insert(key.clone());
            }
            // What has drained may be signalled.
            Change::Targets(group) => keys.extend(draining(view, group)),
            Change::ContainerInstance(key) => {
                if view.state.ecs.container_instance(key).is_none_or(ContainerInstance::is_gone) {
                    keys.extend(view.state.ecs.tasks_on(key).map(TaskKey::from));
                }
            }
            Change::Cluster(_)
            | Change::CapacityProvider(_)
            | Change::TaskDefinition(_)
            | Change::Service(_)
            | Change::Alarm(_)
            | Change::AutoScalingGroup(_)
            | Change::ManagedInstance(_)
            | Change::Daemon(_)
            | Change::SecurityGroup(_)
            | Change::Routing
            | Change::ExecSession(_) => {}
        }
    }

    fn all(view: View<'_>) -> Vec<TaskKey> {
        view.state.ecs.tasks().iter().map(|(key, _)| key.clone()).collect()
    }

    fn plan(view: View<'_>, key: &TaskKey, _random: &mut dyn Random) -> (Option<Step>, LookAgain) {
        let Some(task) = view.state.ecs.task(key) else { return (None, None) };
        let step = next(view, task);
        let look_again = match task.stopped_at {
            Some(at) if step.is_none() => Some(at + RETENTION),
            _ => None,
        };
        (step, look_again)
    }

    fn apply(tx: &mut Tx<'_>, key: &TaskKey, step: Step) {
        let Some(mut task) = tx.state.ecs.task(key).cloned() else { return };
        task.version += 1;
        match step {
            Step::HandOver => {
                task.last_status = LastStatus::Pending;
                task.connectivity_at = Some(tx.now);
            }
            Step::Signal => task.last_status = LastStatus::Stopping,
            Step::End => end(&mut task, tx),
            Step::Abandon => {
                task.request_stop(
                    StopCode::UserInitiated,
                    "Container instance deregistration forced by user",
                    tx.now,
                );
                end(&mut task, tx);
            }
            Step::Lose => {
                let host = task.instance.as_ref().and_then(|key| tx.state.ecs.container_instance(key));
                let host = host.and_then(|host| host.ec2_instance_id.clone()).unwrap_or_default();
                let reason = format!("Host EC2 (instance {host}) is unreachable.");
                task.request_stop(StopCode::TerminationNotice, &reason, tx.now);
                end(&mut task, tx);
            }
            Step::Forget => return tx.state.ecs.remove_task(key),
        }
        tx.state.ecs.put_task(task);
    }
}

/// Tasks that wait for their targets in a group.
fn draining(view: View<'_>, group: &TargetGroupId) -> Vec<TaskKey> {
    let waiting = |task: &&Task| task.last_status == LastStatus::Deactivating;
    let mut tasks = Vec::new();
    for service in balanced::services_of_group(view, group) {
        tasks.extend(view.state.ecs.tasks_of(&service.key()).filter(waiting).map(TaskKey::from));
    }
    tasks
}

fn next(view: View<'_>, task: &Task) -> Option<Step> {
    if task.last_status == LastStatus::Stopped {
        let hasty = mutant::is("stopped tasks forgotten at once");
        let forgotten = task.stopped_at.is_some_and(|at| at + RETENTION <= view.now) || hasty;
        return forgotten.then_some(Step::Forget);
    }
    if task.waiting.is_some() {
        return (task.desired_status == DesiredStatus::Stopped).then_some(Step::End);
    }
    let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
    if instance.is_none_or(|instance| instance.status == ContainerInstanceStatus::Inactive) {
        return Some(Step::Abandon);
    }
    if instance.is_some_and(|instance| instance.lost_at.is_some())
        && !mutant::is("lost agents keep their tasks")
    {
        return Some(Step::Lose);
    }
    match (task.desired_status, task.last_status) {
        (_, LastStatus::Deprovisioning) => Some(Step::End),
        (DesiredStatus::Stopped, _) if !task.sent || mutant::is("stopped without the agent's word") => {
            Some(Step::End)
        }
        (DesiredStatus::Stopped, _) if capacity::is_spot(task) && mutant::is("spot tasks go unwarned") => {
            Some(Step::End)
        }
        (DesiredStatus::Running, LastStatus::Provisioning) => Some(Step::HandOver),
        (DesiredStatus::Stopped, LastStatus::Deactivating) => {
            let hasty = mutant::is("draining not waited for") || mutant::is("deregistered after the stop");
            (!balanced::is_known(view, task) || hasty).then_some(Step::Signal)
        }
        _ => None,
    }
}

fn end(task: &mut Task, tx: &Tx<'_>) {
    task.last_status = LastStatus::Stopped;
    task.stopped_at = Some(tx.now);
    task.waiting = None;
    if task.stop_code == Some(StopCode::TerminationNotice) && capacity::is_spot(task) {
        // The notice has been carried out.
        task.stop_code = Some(StopCode::SpotInterruption);
    }
    for container in &mut task.containers {
        container.last_status = ContainerStatus::Stopped;
    }
    if let Some(eni) = &mut task.eni {
        eni.attached = false;
    }
}
