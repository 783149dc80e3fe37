//! What a group does next, and doing it: between the tables and the decision in `decide::scaling::group`.

use super::activity;
use super::errors::AutoScalingError;
use super::state::{ActivityStatus, AutoScalingGroup, HookWait, Instance, LaunchSource, LaunchedBy};
use crate::services::ec2::links::{self as ec2, LaunchData};
use crate::services::ecs;
use crate::tx::{Tx, View};
use gantry_decide::ids::{
    ActivityId, AutoScalingGroupName, Ec2InstanceId, LifecycleActionToken, LifecycleHookName,
};
use gantry_decide::scaling::group::{self, Group, Reason, Step, Wait};
use gantry_decide::scaling::lifecycle::{LifecycleState, MachineState, Process, Transition};
use gantry_decide::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The tag by which an instance names its group.
const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// The steps of a group that are due, and when to look again though nothing changes.
pub fn next(view: View<'_>, name: &AutoScalingGroupName) -> (Vec<Step<Ec2InstanceId>>, Option<Timestamp>) {
    let Some(group) = view.state.autoscaling.group(name) else { return (Vec::new(), None) };
    let facts = Group {
        desired: group.desired,
        zones: group.zones.clone(),
        policies: group.termination_policies.clone(),
        may_launch: group.runs(Process::Launch),
        may_terminate: group.runs(Process::Terminate),
        replaces_unhealthy: group.runs(Process::ReplaceUnhealthy) && group.runs(Process::HealthCheck),
        deleting: group.deleting,
        failures: group.failures,
        failed_at: group.failed_at,
    };
    let instances: Vec<_> =
        view.state.autoscaling.instances_of(name).map(|instance| facts_of(group, instance)).collect();
    group::next(&facts, &instances, view.now)
}

fn facts_of(group: &AutoScalingGroup, instance: &Instance) -> group::Instance<Ec2InstanceId> {
    let wait = |(name, wait): (&LifecycleHookName, &HookWait)| {
        let default = group.hooks.get(name)?.default_result;
        Some(Wait { until: wait.until, default })
    };
    group::Instance {
        key: instance.id,
        state: instance.state,
        machine: instance.machine,
        healthy: instance.healthy,
        protected: instance.protected,
        zone: instance.zone.clone(),
        launched_at: instance.launched_at,
        launch_age: instance.launch_age(),
        waits: instance.waits.iter().filter_map(wait).collect(),
    }
}

/// Carries steps out. What does not fit any more is left: the next look sees it.
pub fn carry_out(tx: &mut Tx<'_>, name: &AutoScalingGroupName, steps: Vec<Step<Ec2InstanceId>>) {
    for step in steps {
        let Some(mut group) = tx.state.autoscaling.group(name).cloned() else { return };
        match step {
            Step::Launch { zone } => launch(tx, &mut group, zone),
            Step::Launched(id) => {
                (group.failures, group.failed_at) = (0, None);
                with(tx, &group, id, |tx, instance| launched(tx, &group, instance));
            }
            Step::IntoService(id) => with(tx, &group, id, |tx, instance| {
                into_service(tx, instance);
                Kept::Yes
            }),
            Step::LaunchFailed(id) => {
                let (mut message, mut launched_at) = (String::new(), tx.now);
                with(tx, &group, id, |tx, instance| {
                    launched_at = instance.launched_at;
                    message = instance.failure.clone().unwrap_or_else(|| "The machine vanished.".to_owned());
                    let status = ActivityStatus::Failed;
                    activity::tell(tx, &instance.group, instance.activity, status, Some(&message));
                    Kept::No
                });
                failed(&mut group, launched_at, tx.now);
            }
            Step::Terminate { instance, reason } => {
                let before = in_capacity(tx, name);
                if let Some(instance) = tx.state.autoscaling.instance(&instance).cloned() {
                    let cause = cause_of(tx.now, &group, &instance, reason, before);
                    terminate(tx, &mut group, instance, cause);
                }
            }
            Step::Leave(id) => with(tx, &group, id, |tx, instance| leave(tx, &group, instance)),
            Step::Release(id) => with(tx, &group, id, |tx, instance| {
                release(tx, instance);
                Kept::Yes
            }),
            Step::Forget(id) => with(tx, &group, id, |tx, instance| {
                activity::tell(tx, &instance.group, instance.activity, ActivityStatus::Successful, None);
                ecs::links::machine_is_gone(tx, &instance.id.to_string());
                Kept::No
            }),
            Step::RemoveGroup => {
                let numbers: Vec<_> =
                    tx.state.autoscaling.activities_of(name).map(gantry_store::Record::key).collect();
                for key in numbers {
                    tx.state.autoscaling.activities.remove(&key);
                }
                tx.state.autoscaling.groups.remove(name);
                return;
            }
        }
        if matches!(tx.state.autoscaling.group(name), Some(known) if *known != group) {
            tx.state.autoscaling.groups.put(group);
        } else {
            // What happened to an instance concerns its group.
            tx.state.autoscaling.groups.edit(name, |_| {});
        }
    }
}

/// Whether an instance's record is kept after a step.
enum Kept {
    Yes,
    No,
}

/// Changes an instance that is there still.
fn with(
    tx: &mut Tx<'_>,
    group: &AutoScalingGroup,
    id: Ec2InstanceId,
    change: impl FnOnce(&mut Tx<'_>, &mut Instance) -> Kept,
) {
    let Some(mut instance) = tx.state.autoscaling.instance(&id).filter(|i| i.group == group.name).cloned()
    else {
        return;
    };
    match change(tx, &mut instance) {
        Kept::Yes => drop(tx.state.autoscaling.instances.put(instance)),
        Kept::No => drop(tx.state.autoscaling.instances.remove(&id)),
    }
}

fn failed(group: &mut AutoScalingGroup, launched_at: Timestamp, now: Timestamp) {
    group.failures = group::failed_rounds(group.failures, group.failed_at, launched_at);
    group.failed_at = Some(now);
}

fn in_capacity(tx: &Tx<'_>, name: &AutoScalingGroupName) -> usize {
    tx.state.autoscaling.instances_of(name).filter(|instance| instance.state.counts()).count()
}

/// By what a group's next instance is made.
///
/// # Errors
/// When its launch template or configuration is gone.
pub fn source(view: View<'_>, launch: &LaunchSource) -> Result<(LaunchedBy, LaunchData), AutoScalingError> {
    match launch {
        LaunchSource::Template { id, version, .. } => {
            let state = &view.state.ec2;
            let found = ec2::launch_template(state, Some(&id.to_string()), None).and_then(|template| {
                let version = ec2::launch_template_version(state, template, version)?;
                Ok((template, version))
            });
            let (template, version) = found.map_err(|error| {
                let message = "You must use a valid fully-formed launch template.";
                AutoScalingError::invalid(format!("{message} {error}"))
            })?;
            let by = LaunchedBy::Template { id: *id, name: template.name.clone(), version: version.number };
            Ok((by, version.data.clone()))
        }
        LaunchSource::Configuration(name) => {
            let found = view.state.autoscaling.launch_configurations.get(name);
            let configuration = found.ok_or_else(|| {
                AutoScalingError::invalid(format!(
                    "Launch configuration name not found - Launch configuration {name} not found"
                ))
            })?;
            let by = LaunchedBy::Configuration { name: name.clone(), created_at: configuration.created_at };
            Ok((by, configuration.data.clone()))
        }
    }
}

/// Makes an instance, whose machine the provider is to make.
fn launch(tx: &mut Tx<'_>, group: &mut AutoScalingGroup, zone: String) {
    let subnets: Vec<&str> =
        group.subnets.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let state = tx.state.ec2.seen(tx.scope);
    let lies_there = |name: &&&str| ec2::subnet(&state, name).is_some_and(|subnet| subnet.zone == zone);
    let subnet = subnets.iter().find(lies_there).map(|name| (*name).to_owned());
    let found = source(tx.view(), &group.launch);
    let (by, data, failure) = match found {
        Ok((by, data)) if data.instance_type().is_none() => {
            (Some(by), Some(data), Some("The launch template names no instance type.".to_owned()))
        }
        Ok((by, data)) => (Some(by), Some(data), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    let before = in_capacity(tx, &group.name);
    let tags = group.tags.iter().filter(|(_, tag)| tag.propagate_at_launch);
    let mut tags: BTreeMap<String, String> =
        tags.map(|(key, tag)| (key.clone(), tag.value.clone())).collect();
    tags.insert(GROUP_TAG.to_owned(), group.name.to_string());
    let placeholder =
        LaunchedBy::Configuration { name: "none".parse().expect("a name"), created_at: Timestamp::EPOCH };
    let mut instance = Instance {
        id: Ec2InstanceId::random(tx.random),
        group: group.name.clone(),
        state: LifecycleState::Pending,
        machine: MachineState::Wanted,
        failure: None,
        healthy: true,
        protected: group.new_instances_protected,
        zone,
        subnet,
        instance_type: data.as_ref().and_then(LaunchData::instance_type).unwrap_or_default().to_owned(),
        image_id: data.as_ref().and_then(LaunchData::image_id).map(str::to_owned),
        launched_by: by.unwrap_or(placeholder),
        data,
        tags,
        launched_at: tx.now,
        in_service_at: None,
        waits: BTreeMap::new(),
        activity: ActivityId::random(tx.random),
        address: None,
    };
    let now = activity::at(tx.now);
    let cause = format!(
        "{}At {now} an instance was started in response to a difference between desired and actual capacity, \
         increasing the capacity from {before} to {}.",
        told_cause(group),
        before + 1,
    );
    let description = match &failure {
        None => format!("Launching a new EC2 instance: {}", instance.id),
        Some(reason) => format!("Launching a new EC2 instance.  Status Reason: {reason}"),
    };
    let status = ActivityStatus::PreInService;
    instance.activity = activity::begin(tx, group, &instance, description, cause, status);
    match failure {
        None => drop(tx.state.autoscaling.instances.put(instance)),
        Some(reason) => {
            activity::tell(tx, &group.name, instance.activity, ActivityStatus::Failed, Some(&reason));
            failed(group, tx.now, tx.now);
        }
    }
}

/// Why the group wants what it wants, as the first sentence of a cause.
fn told_cause(group: &AutoScalingGroup) -> String {
    if group.cause.is_empty() { String::new() } else { format!("{}  ", group.cause) }
}

fn launched(tx: &mut Tx<'_>, group: &AutoScalingGroup, instance: &mut Instance) -> Kept {
    instance.waits = waits(tx, group, Transition::Launching);
    if instance.waits.is_empty() {
        into_service(tx, instance);
    } else {
        instance.state = LifecycleState::PendingWait;
        activity::tell(tx, &group.name, instance.activity, ActivityStatus::MidLifecycleAction, None);
    }
    Kept::Yes
}

fn into_service(tx: &mut Tx<'_>, instance: &mut Instance) {
    instance.state = LifecycleState::InService;
    instance.in_service_at = Some(tx.now);
    instance.waits.clear();
    activity::tell(tx, &instance.group, instance.activity, ActivityStatus::Successful, None);
}

/// The actions by which a transition's hooks hold an instance from now on.
fn waits(tx: &mut Tx<'_>, group: &AutoScalingGroup, at: Transition) -> BTreeMap<LifecycleHookName, HookWait> {
    let now = tx.now;
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    let wait =
        |random: &mut dyn gantry_decide::random::Random, hook: &super::state::LifecycleHook| HookWait {
            token: LifecycleActionToken::random(random),
            until: now + seconds(hook.heartbeat_timeout),
            at_last: now + seconds(hook.global_timeout()),
        };
    group.hooks_at(at).map(|(name, hook)| (name.clone(), wait(tx.random, hook))).collect()
}

fn cause_of(
    now: Timestamp,
    group: &AutoScalingGroup,
    instance: &Instance,
    reason: Reason,
    before: usize,
) -> String {
    let (now, id) = (activity::at(now), instance.id);
    let out = format!("At {now} an instance was taken out of service in response to");
    match reason {
        Reason::Surplus => format!(
            "{}{out} a difference between desired and actual capacity, shrinking the capacity from {before} to {}.  \
             At {now} instance {id} was selected for termination.",
            told_cause(group),
            before.saturating_sub(1),
        ),
        Reason::Unhealthy if instance.machine == MachineState::Running => {
            format!("{out} a user health-check.")
        }
        Reason::Unhealthy => {
            format!("{out} an EC2 health check indicating it has been terminated or stopped.")
        }
        Reason::LaunchAbandoned => format!("{out} a lifecycle action that was abandoned."),
        Reason::GroupDeleted => format!("{out} the deletion of its Auto Scaling group."),
    }
}

/// Chooses an instance to go. `group` is written by the caller.
pub fn terminate(tx: &mut Tx<'_>, group: &mut AutoScalingGroup, mut instance: Instance, cause: String) {
    activity::tell(tx, &group.name, instance.activity, ActivityStatus::Cancelled, None);
    let description = format!("Terminating EC2 instance: {}", instance.id);
    instance.activity = activity::begin(tx, group, &instance, description, cause, ActivityStatus::InProgress);
    instance.state = LifecycleState::Terminating;
    instance.waits.clear();
    tx.state.autoscaling.instances.put(instance);
}

fn leave(tx: &mut Tx<'_>, group: &AutoScalingGroup, instance: &mut Instance) -> Kept {
    // Hooks are for what served: nobody has anything to save on another.
    let served = instance.in_service_at.is_some() && instance.machine == MachineState::Running;
    if served && !group.deleting {
        instance.waits = waits(tx, group, Transition::Terminating);
    }
    if instance.waits.is_empty() {
        release(tx, instance);
    } else {
        instance.state = LifecycleState::TerminatingWait;
        activity::tell(tx, &group.name, instance.activity, ActivityStatus::MidLifecycleAction, None);
    }
    Kept::Yes
}

fn release(tx: &mut Tx<'_>, instance: &mut Instance) {
    instance.state = LifecycleState::TerminatingProceed;
    instance.waits.clear();
    if instance.machine != MachineState::Gone {
        instance.machine = MachineState::Unwanted;
    }
    activity::tell(tx, &instance.group, instance.activity, ActivityStatus::InProgress, None);
}
