//! Lifecycle actions and how they are answered, by users and by ECS's managed draining alike.

use super::errors::AutoScalingError;
use super::state::{AutoScalingGroup, Instance};
use super::steps;
use crate::tx::Tx;
use gantry_decide::ids::LifecycleHookName;
use gantry_decide::scaling::lifecycle::{ActionResult, LifecycleState, Transition};
use std::time::Duration;

/// Ends an action. A launch that is abandoned is undone; a termination goes on either way, and abandoning it ends its
/// other actions too.
pub fn complete(tx: &mut Tx<'_>, mut instance: Instance, hook: &LifecycleHookName, result: ActionResult) {
    instance.waits.remove(hook);
    match (instance.state, result) {
        (LifecycleState::PendingWait, ActionResult::Abandon) => return abandon_launch(tx, instance),
        (_, ActionResult::Abandon) => instance.waits.clear(),
        _ => {}
    }
    tx.state.autoscaling.instances.put(instance);
}

fn abandon_launch(tx: &mut Tx<'_>, instance: Instance) {
    let Some(mut group) = tx.state.autoscaling.group(&instance.group).cloned() else { return };
    let now = super::activity::at(tx.now);
    let cause = format!(
        "At {now} an instance was taken out of service in response to a lifecycle action that was abandoned."
    );
    steps::terminate(tx, &mut group, instance, cause);
    tx.state.autoscaling.groups.put(group);
}

/// Holds an action up for another heartbeat.
///
/// # Errors
/// When the hook does not hold the instance.
pub fn heartbeat(
    tx: &mut Tx<'_>,
    group: &AutoScalingGroup,
    mut instance: Instance,
    name: &LifecycleHookName,
) -> Result<(), AutoScalingError> {
    let hook = group.hooks.get(name);
    let (Some(hook), Some(wait)) = (hook, instance.waits.get_mut(name)) else {
        return Err(AutoScalingError::invalid(format!(
            "No active Lifecycle Action found with instance ID {}",
            instance.id
        )));
    };
    let beat = Duration::from_secs(u64::from(hook.heartbeat_timeout));
    wait.until = (tx.now + beat).min(wait.at_last);
    tx.state.autoscaling.instances.put(instance);
    Ok(())
}

/// Removes a hook. What it holds goes on as if launches were abandoned and terminations continued, as on AWS.
pub fn remove(tx: &mut Tx<'_>, mut group: AutoScalingGroup, name: &LifecycleHookName) {
    let Some(hook) = group.hooks.get(name).cloned() else { return };
    let result = match hook.transition {
        Transition::Launching => ActionResult::Abandon,
        Transition::Terminating => ActionResult::Continue,
    };
    let held: Vec<Instance> = tx
        .state
        .autoscaling
        .instances_of(&group.name)
        .filter(|i| i.waits.contains_key(name))
        .cloned()
        .collect();
    for instance in held {
        complete(tx, instance, name, result);
    }
    // An abandoned launch wrote the group.
    if let Some(known) = tx.state.autoscaling.group(&group.name) {
        group = known.clone();
    }
    group.hooks.remove(name);
    tx.state.autoscaling.groups.put(group);
}
