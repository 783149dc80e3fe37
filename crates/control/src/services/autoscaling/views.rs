//! Records to response shapes.

use super::state::{
    Activity, ActivityStatus, AutoScalingGroup, Instance, LaunchSource, LaunchedBy, LifecycleHook,
};
use gantry_api::autoscaling as shape;
use gantry_decide::ids::{LifecycleHookName, Scope};
use gantry_decide::scaling::lifecycle::LifecycleState;
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use serde_json::json;

pub fn time(at: Timestamp) -> EpochMillis {
    EpochMillis(at.as_millis())
}

fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn state(state: LifecycleState) -> shape::LifecycleState {
    match state {
        LifecycleState::Pending => shape::LifecycleState::Pending,
        LifecycleState::PendingWait => shape::LifecycleState::PendingWait,
        LifecycleState::InService => shape::LifecycleState::InService,
        LifecycleState::Terminating => shape::LifecycleState::Terminating,
        LifecycleState::TerminatingWait => shape::LifecycleState::TerminatingWait,
        LifecycleState::TerminatingProceed => shape::LifecycleState::TerminatingProceed,
    }
}

fn health(instance: &Instance) -> String {
    if instance.healthy { "Healthy" } else { "Unhealthy" }.to_owned()
}

/// How an instance was made: by a template, or by the configuration of a name.
fn launched_by(instance: &Instance) -> (Option<shape::LaunchTemplateSpecification>, Option<String>) {
    match &instance.launched_by {
        LaunchedBy::Template { id, name, version } => {
            let template = shape::LaunchTemplateSpecification {
                launch_template_id: Some(id.to_string()),
                launch_template_name: Some(name.clone()),
                version: Some(version.to_string()),
            };
            (Some(template), None)
        }
        LaunchedBy::Configuration { name, .. } => (None, Some(name.to_string())),
    }
}

fn instance(instance: &Instance) -> shape::Instance {
    let (launch_template, launch_configuration_name) = launched_by(instance);
    shape::Instance {
        instance_id: instance.id.to_string(),
        instance_type: Some(instance.instance_type.clone()),
        image_id: instance.image_id.clone(),
        availability_zone: instance.zone.clone(),
        lifecycle_state: state(instance.state),
        health_status: health(instance),
        launch_template,
        launch_configuration_name,
        protected_from_scale_in: instance.protected,
        ..Default::default()
    }
}

pub fn instance_details(instance: &Instance) -> shape::AutoScalingInstanceDetails {
    let (launch_template, launch_configuration_name) = launched_by(instance);
    shape::AutoScalingInstanceDetails {
        instance_id: instance.id.to_string(),
        instance_type: Some(instance.instance_type.clone()),
        image_id: instance.image_id.clone(),
        auto_scaling_group_name: instance.group.to_string(),
        availability_zone: instance.zone.clone(),
        lifecycle_state: instance.state.to_string(),
        // This operation alone writes it in capitals.
        health_status: health(instance).to_uppercase(),
        launch_template,
        launch_configuration_name,
        protected_from_scale_in: instance.protected,
        ..Default::default()
    }
}

pub fn tags(group: &AutoScalingGroup) -> Vec<shape::TagDescription> {
    let tag = |(key, tag): (&String, &super::state::Tag)| shape::TagDescription {
        key: Some(key.clone()),
        value: Some(tag.value.clone()),
        propagate_at_launch: Some(tag.propagate_at_launch),
        resource_id: Some(group.name.to_string()),
        resource_type: Some("auto-scaling-group".to_owned()),
    };
    group.tags.iter().map(tag).collect()
}

pub fn group<'a>(
    scope: &Scope,
    group: &AutoScalingGroup,
    instances: impl Iterator<Item = &'a Instance>,
) -> shape::AutoScalingGroup {
    let (launch_template, launch_configuration_name) = match &group.launch {
        LaunchSource::Template { id, version, name } => {
            let template = shape::LaunchTemplateSpecification {
                launch_template_id: Some(id.to_string()),
                launch_template_name: Some(name.clone()),
                version: Some(version.clone()),
            };
            (Some(template), None)
        }
        LaunchSource::Configuration(name) => (None, Some(name.to_string())),
    };
    let suspended = group.suspended.iter().map(|(process, reason)| shape::SuspendedProcess {
        process_name: Some(process.as_str().to_owned()),
        suspension_reason: Some(reason.clone()),
    });
    let policies = group.termination_policies.iter().map(|policy| policy.as_str().to_owned());
    shape::AutoScalingGroup {
        auto_scaling_group_name: group.name.to_string(),
        auto_scaling_group_arn: Some(group.arn(scope)),
        launch_template,
        launch_configuration_name,
        min_size: number(group.min_size),
        max_size: number(group.max_size),
        desired_capacity: number(group.desired),
        default_cooldown: number(group.default_cooldown),
        availability_zones: group.zones.clone(),
        load_balancer_names: Some(Vec::new()),
        target_group_ar_ns: Some(Vec::new()),
        health_check_type: group.health_check_type.clone(),
        health_check_grace_period: Some(number(group.health_check_grace_period)),
        instances: Some(instances.map(instance).collect()),
        created_time: time(group.created_at),
        suspended_processes: Some(suspended.collect()),
        vpc_zone_identifier: Some(group.subnets.clone()),
        enabled_metrics: Some(Vec::new()),
        status: group.deleting.then(|| "Delete in progress".to_owned()),
        tags: Some(tags(group)),
        termination_policies: Some(policies.collect()),
        new_instances_protected_from_scale_in: Some(group.new_instances_protected),
        service_linked_role_arn: group.service_linked_role.clone(),
        max_instance_lifetime: group.max_instance_lifetime.map(number),
        capacity_rebalance: Some(group.capacity_rebalance),
        default_instance_warmup: group.default_instance_warmup.map(number),
        traffic_sources: Some(Vec::new()),
        ..Default::default()
    }
}

pub fn hook(
    group: &AutoScalingGroup,
    (name, hook): (&LifecycleHookName, &LifecycleHook),
) -> shape::LifecycleHook {
    shape::LifecycleHook {
        lifecycle_hook_name: Some(name.to_string()),
        auto_scaling_group_name: Some(group.name.to_string()),
        lifecycle_transition: Some(hook.transition.as_str().to_owned()),
        notification_target_arn: hook.notification_target.clone(),
        role_arn: hook.role.clone(),
        notification_metadata: hook.notification_metadata.clone(),
        heartbeat_timeout: Some(number(hook.heartbeat_timeout)),
        global_timeout: Some(number(hook.global_timeout())),
        default_result: Some(hook.default_result.as_str().to_owned()),
    }
}

pub fn activity(scope: &Scope, group: &AutoScalingGroup, activity: &Activity) -> shape::Activity {
    let (status_code, progress) = match activity.status {
        ActivityStatus::PreInService => (shape::ScalingActivityStatusCode::PreInService, 30),
        ActivityStatus::MidLifecycleAction => (shape::ScalingActivityStatusCode::MidLifecycleAction, 60),
        ActivityStatus::InProgress => (shape::ScalingActivityStatusCode::InProgress, 50),
        ActivityStatus::Successful => (shape::ScalingActivityStatusCode::Successful, 100),
        ActivityStatus::Failed => (shape::ScalingActivityStatusCode::Failed, 100),
        ActivityStatus::Cancelled => (shape::ScalingActivityStatusCode::Cancelled, 100),
    };
    let details = json!({ "Subnet ID": activity.subnet, "Availability Zone": activity.zone });
    shape::Activity {
        activity_id: activity.id.to_string(),
        auto_scaling_group_name: activity.group.to_string(),
        auto_scaling_group_arn: Some(group.arn(scope)),
        description: Some(activity.description.clone()),
        cause: activity.cause.clone(),
        start_time: time(activity.started_at),
        end_time: activity.ended_at.map(time),
        status_code,
        status_message: activity.status_message.clone(),
        progress: Some(progress),
        details: Some(details.to_string()),
        ..Default::default()
    }
}
