//! What other services may know of ECS, and who makes machines with its Managed Instances.

use super::ops::execute_command::{stream_url, token};
use super::state::{
    ContainerInstanceKey, ContainerInstanceStatus, EcsState, Eni, ExecSession, LaunchType, ManagedInstance,
    Tags, Task, held,
};
use crate::machines::{MachineSpec, Owner, Report, Want};
use crate::tx::{Tx, View};
use gantry_decide::arn::Arn;
use gantry_decide::ids::{Ec2InstanceId, ExecSessionId, Scope};
use gantry_decide::lifecycle::StopCode;
use gantry_decide::scaling::lifecycle::MachineState;
use gantry_decide::time::Timestamp;
use gantry_wire::Secret;
use gantry_wire::data_channel::token_digest;

/// The container instances on the machine of this EC2 instance id, `i-…`.
pub fn on_machine<'a>(
    view: View<'a>,
    machine: &str,
) -> impl Iterator<Item = &'a super::state::ContainerInstance> + use<'a> {
    let all = view.state.ecs.instances_on(machine);
    all.filter(|instance| instance.status != ContainerInstanceStatus::Inactive)
}

/// A machine was terminated: its container instances are no more, as ECS deregisters those of EC2's instances, and
/// what ran there has stopped.
pub fn machine_is_gone(tx: &mut Tx<'_>, machine: &str) {
    let gone: Vec<_> = on_machine(tx.view(), machine).cloned().collect();
    for mut instance in gone {
        let key = ContainerInstanceKey { cluster: instance.cluster.clone(), id: instance.id };
        let tasks: Vec<Task> = tx.state.ecs.tasks_on(&key).cloned().collect();
        for mut task in tasks {
            let reason = format!("Host EC2 (instance {machine}) terminated.");
            task.request_stop(StopCode::TerminationNotice, &reason, tx.now);
            task.version += 1;
            tx.state.ecs.put_task(task);
        }
        instance.status = ContainerInstanceStatus::Inactive;
        instance.agent_connected = false;
        instance.deregistered_at = Some(tx.now);
        instance.version += 1;
        tx.state.ecs.put_container_instance(instance);
    }
}

/// Lets no task start on a machine any more; services start theirs elsewhere.
pub fn drain_machine(tx: &mut Tx<'_>, id: Ec2InstanceId) {
    let machine = id.to_string();
    let takes = |host: &&super::state::ContainerInstance| {
        matches!(host.status, ContainerInstanceStatus::Active | ContainerInstanceStatus::Registering)
    };
    let hosts: Vec<_> = on_machine(tx.view(), &machine).filter(takes).cloned().collect();
    for mut host in hosts {
        host.status = ContainerInstanceStatus::Draining;
        host.version += 1;
        tx.state.ecs.put_container_instance(host);
    }
}

/// The machines of Managed Instances, and what is wanted of each.
pub fn machines(state: &EcsState) -> impl Iterator<Item = (Ec2InstanceId, Want)> {
    state.managed_instances.values().filter_map(|instance| Some((instance.id, want(state, instance)?)))
}

fn want(state: &EcsState, instance: &ManagedInstance) -> Option<Want> {
    Some(match instance.machine {
        MachineState::Wanted => {
            let provider = state.capacity_providers.get(&instance.provider);
            let settings = provider.and_then(|provider| provider.kind.managed_instances());
            let propagated = provider.filter(|_| settings.is_some_and(|settings| settings.propagates_tags));
            Want::Create(Box::new(MachineSpec {
                owner: Owner::Provider {
                    name: instance.provider.clone(),
                    cluster: instance.cluster.clone(),
                    spot: settings.is_some_and(|settings| settings.spot),
                },
                zone: instance.zone.clone(),
                subnet: instance.subnet.clone(),
                instance_type: instance.instance_type.clone(),
                image_id: None,
                tags: propagated.map(|provider| provider.tags.clone()).unwrap_or_default(),
            }))
        }
        MachineState::Running | MachineState::Failed => Want::Keep,
        MachineState::Unwanted => Want::Destroy,
        MachineState::Gone => return None,
    })
}

/// Takes in what became of a Managed Instance's machine.
pub fn report(tx: &mut Tx<'_>, id: Ec2InstanceId, report: Report) {
    let now = tx.now;
    tx.state.ecs.managed_instances.edit(&id, |instance| match (instance.machine, report) {
        (MachineState::Wanted, Report::Running { .. }) => {
            instance.machine = MachineState::Running;
            instance.running_at = Some(now);
        }
        (MachineState::Wanted, Report::Failed(why)) | (MachineState::Running, Report::Lost(why)) => {
            instance.machine = MachineState::Failed;
            instance.failure = Some(why);
        }
        (MachineState::Unwanted, Report::Gone) => instance.machine = MachineState::Gone,
        _ => {}
    });
}

/// A network interface that a task holds.
#[derive(Clone, Debug)]
pub struct TaskInterface<'a> {
    pub eni: &'a Eni,
    /// The ARN of the attachment that joins it to its task.
    pub attachment: String,
    pub on_fargate: bool,
    /// The zone of the task's host, where that is known.
    pub zone: Option<&'a str>,
    pub since: Timestamp,
    /// Those of the task that ECS itself gave it.
    pub tags: Tags,
}

/// The interfaces that tasks hold now, in the order of the tasks.
pub fn task_interfaces<'a>(view: View<'a>) -> impl Iterator<Item = TaskInterface<'a>> {
    view.state.ecs.tasks().values().filter_map(move |task| interface(view.scope, task))
}

fn interface<'a>(scope: &Scope, task: &'a Task) -> Option<TaskInterface<'a>> {
    let eni = held(task)?;
    let arn = Arn {
        service: "ecs".to_owned(),
        region: scope.region.to_string(),
        account: scope.account.to_string(),
        resource: format!("attachment/{}", eni.attachment),
    };
    let managed = |(key, _): &(&String, &String)| key.starts_with("aws:ecs:");
    Some(TaskInterface {
        eni,
        attachment: arn.to_string(),
        on_fargate: task.launch_type == LaunchType::Fargate,
        zone: task.availability_zone.as_deref(),
        since: task.created_at,
        tags: task.tags.iter().filter(managed).map(|(key, value)| (key.clone(), value.clone())).collect(),
    })
}

/// What becomes of a session of ECS Exec, told by who carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecNews {
    /// Both sides have come.
    Opened,
    Ended,
}

/// Notes what became of a session. One that is forgotten already changes nothing.
pub fn exec_session(tx: &mut Tx<'_>, id: ExecSessionId, news: ExecNews) {
    let Some(known) = tx.state.ecs.exec_sessions.get(&id) else { return };
    match news {
        ExecNews::Opened if known.opened => {}
        ExecNews::Opened => {
            let opened = ExecSession { opened: true, ..known.as_ref().clone() };
            tx.state.ecs.exec_sessions.put(opened);
        }
        ExecNews::Ended => drop(tx.state.ecs.exec_sessions.remove(&id)),
    }
}

/// Lets the client of a session that goes on come again: where, and with which token; earlier ones are of no use any more.
/// None where no such session goes on.
pub fn resume_exec(tx: &mut Tx<'_>, endpoint: &str, id: ExecSessionId) -> Option<(String, Secret)> {
    let known = tx.state.ecs.exec_sessions.get(&id).filter(|session| session.opened)?;
    let known = known.as_ref().clone();
    let token = token(tx);
    tx.state.ecs.exec_sessions.put(ExecSession { token_digest: token_digest(&token), ..known });
    Some((stream_url(endpoint, tx.scope, id), Secret::new(&token)))
}
