//! What others may do with Auto Scaling: ECS's capacity providers with groups, and who makes machines with those that
//! groups want (`machines.rs`).

use super::hooks;
use super::state::{AutoScalingGroup, AutoScalingState, Instance, LifecycleHook, Tag};
use crate::machines::{MachineSpec, Owner, Report, Want};
use crate::tx::{Tx, View};
use gantry_decide::ids::{AutoScalingGroupName, Ec2InstanceId, LifecycleHookName};
use gantry_decide::mutant;
use gantry_decide::scaling::lifecycle::{ActionResult, MachineState, Process, Transition};

/// Every machine of a scope's groups, and what is wanted of it.
pub fn machines(state: &AutoScalingState) -> impl Iterator<Item = (Ec2InstanceId, Want)> {
    state.instances.values().filter_map(|instance| Some((instance.id, want(instance)?)))
}

fn want(instance: &Instance) -> Option<Want> {
    Some(match instance.machine {
        MachineState::Wanted => Want::Create(Box::new(MachineSpec {
            owner: Owner::Group { name: instance.group.clone(), data: instance.data.clone() },
            zone: instance.zone.clone(),
            subnet: instance.subnet.clone(),
            instance_type: instance.instance_type.clone(),
            image_id: instance.image_id.clone(),
            tags: instance.tags.clone(),
        })),
        MachineState::Running | MachineState::Failed => Want::Keep,
        MachineState::Unwanted => Want::Destroy,
        MachineState::Gone => return None,
    })
}

/// Takes in what became of a machine.
pub fn report(tx: &mut Tx<'_>, id: Ec2InstanceId, report: Report) {
    let Some(mut instance) = tx.state.autoscaling.instance(&id).cloned() else { return };
    match (instance.machine, report) {
        (MachineState::Wanted, Report::Running { address }) => {
            instance.machine = MachineState::Running;
            instance.address = address;
            // It may hold secrets, and nobody needs it any more.
            instance.data = None;
        }
        (MachineState::Wanted, Report::Failed(why)) | (MachineState::Running, Report::Lost(why)) => {
            instance.machine = MachineState::Failed;
            instance.failure = Some(why);
        }
        (MachineState::Unwanted, Report::Gone) => instance.machine = MachineState::Gone,
        _ => return,
    }
    tx.state.autoscaling.instances.put(instance);
}

/// A group's instances that count towards its capacity.
pub fn counted<'a>(
    state: &'a AutoScalingState,
    group: &AutoScalingGroup,
) -> impl Iterator<Item = &'a Instance> {
    state.instances_of(&group.name).filter(|instance| instance.state.counts())
}

/// The group of the machine of this EC2 instance id.
pub fn group_of(state: &AutoScalingState, machine: &str) -> Option<AutoScalingGroupName> {
    Some(state.instance(&machine.parse().ok()?)?.group.clone())
}

/// Sets what a group wants, within its bounds, for a reason that its activities tell; unless alarms are suspended.
pub fn set_desired(tx: &mut Tx<'_>, name: &AutoScalingGroupName, desired: u32, reason: &str) {
    let now = super::activity::at(tx.now);
    tx.state.autoscaling.groups.edit(name, |group| {
        let most = if mutant::is("maximum size ignored") { u32::MAX } else { group.max_size };
        let desired = desired.clamp(group.min_size, most);
        if desired != group.desired && !group.deleting && group.runs(Process::AlarmNotification) {
            let before = group.desired;
            group.desired = desired;
            group.cause =
                format!("At {now} {reason} changing the desired capacity from {before} to {desired}.");
        }
    });
}

/// Protects an instance from scale-in, or does so no more.
pub fn protect(tx: &mut Tx<'_>, id: Ec2InstanceId, protected: bool) {
    tx.state.autoscaling.instances.edit(&id, |instance| instance.protected = protected);
}

/// Puts the hook by which ECS drains instances that are to go, or takes it away.
pub fn hold_terminations(tx: &mut Tx<'_>, name: &AutoScalingGroupName, hook: &LifecycleHookName, hold: bool) {
    let Some(mut group) = tx.state.autoscaling.group(name).cloned() else { return };
    if !hold {
        return hooks::remove(tx, group, hook);
    }
    group.hooks.insert(
        hook.clone(),
        LifecycleHook {
            transition: Transition::Terminating,
            heartbeat_timeout: DRAINING_HEARTBEAT,
            default_result: ActionResult::Continue,
            notification_target: None,
            notification_metadata: None,
            role: None,
        },
    );
    tx.state.autoscaling.groups.put(group);
}

/// Seconds; renewed while tasks are left.
const DRAINING_HEARTBEAT: u32 = 3600;

/// Lets an instance go that a hook of ours holds.
pub fn let_go(tx: &mut Tx<'_>, id: Ec2InstanceId, hook: &LifecycleHookName) {
    if let Some(instance) = tx.state.autoscaling.instance(&id).cloned() {
        hooks::complete(tx, instance, hook, ActionResult::Continue);
    }
}

/// Holds an instance for another heartbeat.
pub fn hold_on(tx: &mut Tx<'_>, id: Ec2InstanceId, hook: &LifecycleHookName) {
    let Some(instance) = tx.state.autoscaling.instance(&id).cloned() else { return };
    let Some(group) = tx.state.autoscaling.group(&instance.group).cloned() else { return };
    // One that is not held any more needs no heartbeat.
    let _ = hooks::heartbeat(tx, &group, instance, hook);
}

/// Marks a group as one that ECS manages, as ECS does by this tag.
pub fn mark_managed(tx: &mut Tx<'_>, name: &AutoScalingGroupName) {
    tx.state.autoscaling.groups.edit(name, |group| {
        let tag = Tag { value: String::new(), propagate_at_launch: true };
        group.tags.insert(MANAGED_TAG.to_owned(), tag);
    });
}

/// The tag of groups that ECS manages.
pub const MANAGED_TAG: &str = "AmazonECSManaged";

/// The group that an ARN names, or a name alone.
pub fn group<'a>(view: View<'a>, text: &str) -> Option<&'a AutoScalingGroup> {
    let name = text.rsplit_once("autoScalingGroupName/").map_or(text, |(_, name)| name);
    let group = view.state.autoscaling.group(&name.parse().ok()?)?;
    (name == text || group.arn(view.scope) == text).then_some(group)
}
