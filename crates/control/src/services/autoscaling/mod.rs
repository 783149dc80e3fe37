//! EC2 Auto Scaling: groups of machines that are kept at a number.
//!
//! Groups, their instances and hooks are records here; what a group does next is decided in `decide::scaling::group` and
//! carried out by the controller `autoscaling`. The machines themselves are an instance provider's, which acts outside:
//! `links` tells it what is wanted and takes its reports. `activity` keeps the story of each group.

mod activity;
mod authorize;
mod check;
pub mod errors;
mod hooks;
pub mod links;
pub(crate) mod ops;
pub mod state;
pub mod steps;
#[cfg(test)]
mod tests;
mod views;

use crate::service::Service;
use gantry_api::autoscaling;

pub static SERVICE: Service = Service {
    model: autoscaling::SERVICE,
    operations: crate::operations! { autoscaling;
        write CompleteLifecycleAction => authorize::complete_lifecycle_action, ops::hook::complete_lifecycle_action;
        write CreateAutoScalingGroup => authorize::create_auto_scaling_group, ops::group::create_auto_scaling_group;
        write CreateLaunchConfiguration => authorize::create_launch_configuration, ops::launch_configuration::create_launch_configuration;
        write CreateOrUpdateTags => authorize::create_or_update_tags, ops::tag::create_or_update_tags;
        write DeleteAutoScalingGroup => authorize::delete_auto_scaling_group, ops::group::delete_auto_scaling_group;
        write DeleteLaunchConfiguration => authorize::delete_launch_configuration, ops::launch_configuration::delete_launch_configuration;
        write DeleteLifecycleHook => authorize::delete_lifecycle_hook, ops::hook::delete_lifecycle_hook;
        write DeleteTags => authorize::delete_tags, ops::tag::delete_tags;
        read DescribeAutoScalingGroups => authorize::describe_auto_scaling_groups, ops::group::describe_auto_scaling_groups;
        read DescribeAutoScalingInstances => authorize::describe_auto_scaling_instances, ops::instance::describe_auto_scaling_instances;
        read DescribeLaunchConfigurations => authorize::describe_launch_configurations, ops::launch_configuration::describe_launch_configurations;
        read DescribeLifecycleHookTypes => authorize::describe_lifecycle_hook_types, ops::word::describe_lifecycle_hook_types;
        read DescribeLifecycleHooks => authorize::describe_lifecycle_hooks, ops::hook::describe_lifecycle_hooks;
        read DescribeScalingActivities => authorize::describe_scaling_activities, ops::activity::describe_scaling_activities;
        read DescribeScalingProcessTypes => authorize::describe_scaling_process_types, ops::word::describe_scaling_process_types;
        read DescribeTags => authorize::describe_tags, ops::tag::describe_tags;
        read DescribeTerminationPolicyTypes => authorize::describe_termination_policy_types, ops::word::describe_termination_policy_types;
        write PutLifecycleHook => authorize::put_lifecycle_hook, ops::hook::put_lifecycle_hook;
        write RecordLifecycleActionHeartbeat => authorize::record_lifecycle_action_heartbeat, ops::hook::record_lifecycle_action_heartbeat;
        write ResumeProcesses => authorize::resume_processes, ops::process::resume_processes;
        write SetDesiredCapacity => authorize::set_desired_capacity, ops::group::set_desired_capacity;
        write SetInstanceHealth => authorize::set_instance_health, ops::instance::set_instance_health;
        write SetInstanceProtection => authorize::set_instance_protection, ops::instance::set_instance_protection;
        write SuspendProcesses => authorize::suspend_processes, ops::process::suspend_processes;
        write TerminateInstanceInAutoScalingGroup => authorize::terminate_instance_in_auto_scaling_group, ops::instance::terminate_instance_in_auto_scaling_group;
        write UpdateAutoScalingGroup => authorize::update_auto_scaling_group, ops::group::update_auto_scaling_group;
    },
    // Machines are always made by a group: there is none to attach, and nobody who would keep a detached one.
    later: &["AttachInstances", "DetachInstances"],
};
