//! What Auto Scaling's operations ask of IAM.

use super::state::{configuration_arn, group_arn};
use crate::call::Demand;
use gantry_api::autoscaling;
use gantry_decide::ids::Scope;

/// Operations that know no resource.
macro_rules! on_all {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(_: &autoscaling::$request, _: &Scope) -> Demand {
            Demand::on_all($action)
        }
    )*};
}

/// Operations on the group that their request names.
macro_rules! on_group {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(request: &autoscaling::$request, scope: &Scope) -> Demand {
            Demand::on($action, group_arn(scope, "*", &request.auto_scaling_group_name))
        }
    )*};
}

on_all! {
    describe_auto_scaling_groups AutoScalingGroupNamesType "autoscaling:DescribeAutoScalingGroups";
    describe_auto_scaling_instances DescribeAutoScalingInstancesType "autoscaling:DescribeAutoScalingInstances";
    describe_launch_configurations LaunchConfigurationNamesType "autoscaling:DescribeLaunchConfigurations";
    describe_lifecycle_hook_types DescribeLifecycleHookTypesRequest "autoscaling:DescribeLifecycleHookTypes";
    describe_lifecycle_hooks DescribeLifecycleHooksType "autoscaling:DescribeLifecycleHooks";
    describe_scaling_activities DescribeScalingActivitiesType "autoscaling:DescribeScalingActivities";
    describe_scaling_process_types DescribeScalingProcessTypesRequest "autoscaling:DescribeScalingProcessTypes";
    describe_tags DescribeTagsType "autoscaling:DescribeTags";
    describe_termination_policy_types DescribeTerminationPolicyTypesRequest "autoscaling:DescribeTerminationPolicyTypes";
}

on_group! {
    complete_lifecycle_action CompleteLifecycleActionType "autoscaling:CompleteLifecycleAction";
    create_auto_scaling_group CreateAutoScalingGroupType "autoscaling:CreateAutoScalingGroup";
    delete_auto_scaling_group DeleteAutoScalingGroupType "autoscaling:DeleteAutoScalingGroup";
    delete_lifecycle_hook DeleteLifecycleHookType "autoscaling:DeleteLifecycleHook";
    put_lifecycle_hook PutLifecycleHookType "autoscaling:PutLifecycleHook";
    record_lifecycle_action_heartbeat RecordLifecycleActionHeartbeatType "autoscaling:RecordLifecycleActionHeartbeat";
    resume_processes ScalingProcessQuery "autoscaling:ResumeProcesses";
    set_desired_capacity SetDesiredCapacityType "autoscaling:SetDesiredCapacity";
    set_instance_protection SetInstanceProtectionQuery "autoscaling:SetInstanceProtection";
    suspend_processes ScalingProcessQuery "autoscaling:SuspendProcesses";
    update_auto_scaling_group UpdateAutoScalingGroupType "autoscaling:UpdateAutoScalingGroup";
}

/// An instance's group is not in the request: it may be any.
fn any_group(action: &'static str, scope: &Scope) -> Demand {
    Demand::on(action, group_arn(scope, "*", "*"))
}

pub fn set_instance_health(_: &autoscaling::SetInstanceHealthQuery, scope: &Scope) -> Demand {
    any_group("autoscaling:SetInstanceHealth", scope)
}

pub fn terminate_instance_in_auto_scaling_group(
    _: &autoscaling::TerminateInstanceInAutoScalingGroupType,
    scope: &Scope,
) -> Demand {
    any_group("autoscaling:TerminateInstanceInAutoScalingGroup", scope)
}

fn tagged(action: &'static str, tags: &[autoscaling::Tag], scope: &Scope) -> Demand {
    let group = |tag: &autoscaling::Tag| group_arn(scope, "*", tag.resource_id.as_deref().unwrap_or("*"));
    Demand { action, resources: tags.iter().map(group).collect() }
}

pub fn create_or_update_tags(request: &autoscaling::CreateOrUpdateTagsType, scope: &Scope) -> Demand {
    tagged("autoscaling:CreateOrUpdateTags", &request.tags, scope)
}

pub fn delete_tags(request: &autoscaling::DeleteTagsType, scope: &Scope) -> Demand {
    tagged("autoscaling:DeleteTags", &request.tags, scope)
}

pub fn create_launch_configuration(
    request: &autoscaling::CreateLaunchConfigurationType,
    scope: &Scope,
) -> Demand {
    let resource = configuration_arn(scope, "*", &request.launch_configuration_name);
    Demand::on("autoscaling:CreateLaunchConfiguration", resource)
}

pub fn delete_launch_configuration(
    request: &autoscaling::LaunchConfigurationNameType,
    scope: &Scope,
) -> Demand {
    let resource = configuration_arn(scope, "*", &request.launch_configuration_name);
    Demand::on("autoscaling:DeleteLaunchConfiguration", resource)
}
