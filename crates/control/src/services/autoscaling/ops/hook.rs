//! Lifecycle hooks and their actions.

use crate::call::Call;
use crate::services::autoscaling::errors::AutoScalingError;
use crate::services::autoscaling::state::{AutoScalingState, Instance, LifecycleHook};
use crate::services::autoscaling::{check, hooks, views};
use crate::tx::{Tx, View};
use gantry_api::autoscaling as shape;
use gantry_decide::ids::LifecycleHookName;
use gantry_decide::scaling::lifecycle::{ActionResult, Transition};
use std::collections::BTreeMap;

/// Hooks of a group: AWS's quota.
const HOOKS_MAX: usize = 50;
/// Seconds: AWS's limits and default.
const HEARTBEAT: std::ops::RangeInclusive<i32> = 30..=7200;
const HEARTBEAT_DEFAULT: u32 = 3600;

fn hook_name(text: &str) -> Result<LifecycleHookName, AutoScalingError> {
    text.parse().map_err(|_| AutoScalingError::invalid("Invalid lifecycle hook name."))
}

/// What a request says of a hook, over what is known of it.
struct Given<'a> {
    transition: Option<&'a str>,
    heartbeat_timeout: Option<i32>,
    default_result: Option<&'a str>,
    notification_target: Option<&'a str>,
    notification_metadata: Option<&'a str>,
    role: Option<&'a str>,
}

impl Given<'_> {
    fn over(&self, known: Option<LifecycleHook>) -> Result<LifecycleHook, AutoScalingError> {
        let transition = match self.transition {
            Some(text) => Transition::read(text).ok_or_else(|| {
                let words = Transition::ALL.map(Transition::as_str).join(" or ");
                AutoScalingError::invalid(format!("LifecycleTransition must be {words}."))
            })?,
            None => known.as_ref().map(|hook| hook.transition).ok_or_else(|| {
                AutoScalingError::invalid("LifecycleTransition is required to create a lifecycle hook.")
            })?,
        };
        let mut hook = known.unwrap_or(LifecycleHook {
            transition,
            heartbeat_timeout: HEARTBEAT_DEFAULT,
            default_result: ActionResult::Abandon,
            notification_target: None,
            notification_metadata: None,
            role: None,
        });
        hook.transition = transition;
        if let Some(seconds) = self.heartbeat_timeout {
            hook.heartbeat_timeout = check::seconds(seconds, "HeartbeatTimeout", HEARTBEAT)?;
        }
        if let Some(text) = self.default_result {
            hook.default_result = result(text)?;
        }
        if self.notification_target.is_some_and(|target| !target.is_empty()) {
            return Err(AutoScalingError::unsupported("notification targets of lifecycle hooks"));
        }
        hook.notification_metadata =
            self.notification_metadata.map(str::to_owned).or(hook.notification_metadata);
        hook.role = self.role.map(str::to_owned).or(hook.role);
        Ok(hook)
    }
}

fn result(text: &str) -> Result<ActionResult, AutoScalingError> {
    ActionResult::read(text)
        .ok_or_else(|| AutoScalingError::invalid("A lifecycle action's result is CONTINUE or ABANDON."))
}

/// The hooks that a request makes with its group.
pub fn specified(
    given: &[shape::LifecycleHookSpecification],
) -> Result<BTreeMap<LifecycleHookName, LifecycleHook>, AutoScalingError> {
    let read = |hook: &shape::LifecycleHookSpecification| {
        let given = Given {
            transition: Some(&hook.lifecycle_transition),
            heartbeat_timeout: hook.heartbeat_timeout,
            default_result: hook.default_result.as_deref(),
            notification_target: hook.notification_target_arn.as_deref(),
            notification_metadata: hook.notification_metadata.as_deref(),
            role: hook.role_arn.as_deref(),
        };
        Ok((hook_name(&hook.lifecycle_hook_name)?, given.over(None)?))
    };
    let hooks: BTreeMap<_, _> = given.iter().map(read).collect::<Result<_, AutoScalingError>>()?;
    if hooks.len() > HOOKS_MAX { Err(too_many()) } else { Ok(hooks) }
}

fn too_many() -> AutoScalingError {
    AutoScalingError::LimitExceeded(format!("At most {HOOKS_MAX} lifecycle hooks are allowed for a group."))
}

pub fn put_lifecycle_hook(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::PutLifecycleHookType,
) -> Result<shape::PutLifecycleHookAnswer, AutoScalingError> {
    let mut group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    let name = hook_name(&request.lifecycle_hook_name)?;
    let given = Given {
        transition: request.lifecycle_transition.as_deref(),
        heartbeat_timeout: request.heartbeat_timeout,
        default_result: request.default_result.as_deref(),
        notification_target: request.notification_target_arn.as_deref(),
        notification_metadata: request.notification_metadata.as_deref(),
        role: request.role_arn.as_deref(),
    };
    let hook = given.over(group.hooks.get(&name).cloned())?;
    group.hooks.insert(name, hook);
    if group.hooks.len() > HOOKS_MAX {
        return Err(too_many());
    }
    tx.state.autoscaling.groups.put(group);
    Ok(shape::PutLifecycleHookAnswer::default())
}

pub fn describe_lifecycle_hooks(
    view: View<'_>,
    _call: &Call,
    request: shape::DescribeLifecycleHooksType,
) -> Result<shape::DescribeLifecycleHooksAnswer, AutoScalingError> {
    let group = check::group(&view.state.autoscaling, &request.auto_scaling_group_name)?;
    let wanted = request.lifecycle_hook_names.as_deref().unwrap_or_default();
    let hooks =
        group.hooks.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(&name.to_string()));
    let hooks = hooks.map(|hook| views::hook(group, hook)).collect();
    Ok(shape::DescribeLifecycleHooksAnswer { lifecycle_hooks: Some(hooks) })
}

pub fn delete_lifecycle_hook(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::DeleteLifecycleHookType,
) -> Result<shape::DeleteLifecycleHookAnswer, AutoScalingError> {
    let group = check::living_group(&tx.state.autoscaling, &request.auto_scaling_group_name)?;
    let name = hook_name(&request.lifecycle_hook_name)?;
    if !group.hooks.contains_key(&name) {
        return Err(AutoScalingError::invalid(format!("No Lifecycle Hook found with name: {name}")));
    }
    hooks::remove(tx, group, &name);
    Ok(shape::DeleteLifecycleHookAnswer::default())
}

/// The instance of a group that an action holds, by its token or by its id.
fn held(
    state: &AutoScalingState,
    group: &str,
    hook: &LifecycleHookName,
    token: Option<&str>,
    instance: Option<&str>,
) -> Result<Instance, AutoScalingError> {
    let group = check::group(state, group)?;
    let mut held = state.instances_of(&group.name).filter_map(|held| Some((held, held.waits.get(hook)?)));
    let (found, by) = match (token, instance) {
        (Some(token), _) => {
            (held.find(|(_, wait)| wait.token.to_string() == token), format!("token {token}"))
        }
        (None, Some(id)) => (held.find(|(held, _)| held.id.to_string() == id), format!("instance ID {id}")),
        (None, None) => {
            return Err(AutoScalingError::invalid(
                "A lifecycle action is named by its token or its instance.",
            ));
        }
    };
    let found = found.map(|(held, _)| held.clone());
    found.ok_or_else(|| {
        let by: String = by.chars().take(80).collect();
        AutoScalingError::invalid(format!("No active Lifecycle Action found with {by}"))
    })
}

pub fn complete_lifecycle_action(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::CompleteLifecycleActionType,
) -> Result<shape::CompleteLifecycleActionAnswer, AutoScalingError> {
    let hook = hook_name(&request.lifecycle_hook_name)?;
    let result = result(&request.lifecycle_action_result)?;
    let (token, id) = (request.lifecycle_action_token.as_deref(), request.instance_id.as_deref());
    let instance = held(&tx.state.autoscaling, &request.auto_scaling_group_name, &hook, token, id)?;
    hooks::complete(tx, instance, &hook, result);
    Ok(shape::CompleteLifecycleActionAnswer::default())
}

pub fn record_lifecycle_action_heartbeat(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: shape::RecordLifecycleActionHeartbeatType,
) -> Result<shape::RecordLifecycleActionHeartbeatAnswer, AutoScalingError> {
    let hook = hook_name(&request.lifecycle_hook_name)?;
    let (token, id) = (request.lifecycle_action_token.as_deref(), request.instance_id.as_deref());
    let instance = held(&tx.state.autoscaling, &request.auto_scaling_group_name, &hook, token, id)?;
    let group = check::group(&tx.state.autoscaling, &request.auto_scaling_group_name)?.clone();
    hooks::heartbeat(tx, &group, instance, &hook)?;
    Ok(shape::RecordLifecycleActionHeartbeatAnswer::default())
}
