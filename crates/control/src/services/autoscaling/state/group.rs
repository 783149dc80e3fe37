//! Auto Scaling groups and their lifecycle hooks.

use gantry_decide::ids::{
    AutoScalingGroupId, AutoScalingGroupName, LaunchConfigurationName, LaunchTemplateId, LifecycleHookName,
    Scope,
};
use gantry_decide::scaling::lifecycle::{ActionResult, Process, Transition};
use gantry_decide::scaling::termination::TerminationPolicy;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By what a group's instances are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaunchSource {
    Template {
        id: LaunchTemplateId,
        /// A number, `$Default` or `$Latest`, as given.
        version: String,
        name: String,
    },
    Configuration(LaunchConfigurationName),
}

/// A tag's value, and whether the group's instances get it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub value: String,
    pub propagate_at_launch: bool,
}

/// A hook that holds instances at a turn of their lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleHook {
    pub transition: Transition,
    /// Seconds until an action that nobody answers counts as `default_result`.
    pub heartbeat_timeout: u32,
    pub default_result: ActionResult,
    pub notification_target: Option<String>,
    pub notification_metadata: Option<String>,
    pub role: Option<String>,
}

/// Seconds for which heartbeats can hold an instance: 48 hours.
const GLOBAL_TIMEOUT_MAX: u32 = 48 * 3600;
/// Heartbeats that one action takes.
const HEARTBEATS_MAX: u32 = 100;

impl LifecycleHook {
    /// Seconds for which it can hold an instance, whatever the heartbeats.
    pub fn global_timeout(&self) -> u32 {
        self.heartbeat_timeout.saturating_mul(HEARTBEATS_MAX).min(GLOBAL_TIMEOUT_MAX)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoScalingGroup {
    pub name: AutoScalingGroupName,
    pub id: AutoScalingGroupId,
    pub created_at: Timestamp,
    pub min_size: u32,
    pub max_size: u32,
    pub desired: u32,
    pub launch: LaunchSource,
    pub zones: Vec<String>,
    /// As given, separated by commas; empty where zones were given.
    pub subnets: String,
    pub default_cooldown: u32,
    pub health_check_type: String,
    pub health_check_grace_period: u32,
    pub new_instances_protected: bool,
    pub termination_policies: Vec<TerminationPolicy>,
    /// With the reason of each.
    pub suspended: BTreeMap<Process, String>,
    pub tags: BTreeMap<String, Tag>,
    pub hooks: BTreeMap<LifecycleHookName, LifecycleHook>,
    pub default_instance_warmup: Option<u32>,
    pub max_instance_lifetime: Option<u32>,
    pub capacity_rebalance: bool,
    pub service_linked_role: Option<String>,
    /// DeleteAutoScalingGroup was called: it goes with its last instance.
    pub deleting: bool,
    /// Rounds of launches that failed since one succeeded, and when the last launch did.
    pub failures: u32,
    pub failed_at: Option<Timestamp>,
    /// The number of the next activity.
    pub next_activity: u64,
    /// Why the desired capacity is what it is: told by the next activities.
    pub cause: String,
}

impl AutoScalingGroup {
    pub fn arn(&self, scope: &Scope) -> String {
        group_arn(scope, &self.id.to_string(), self.name.as_str())
    }

    /// Whether a process may run.
    pub fn runs(&self, process: Process) -> bool {
        !self.suspended.contains_key(&process)
    }

    /// The hooks of a transition.
    pub fn hooks_at(&self, at: Transition) -> impl Iterator<Item = (&LifecycleHookName, &LifecycleHook)> {
        self.hooks.iter().filter(move |(_, hook)| hook.transition == at)
    }
}

/// The ARN of a group, of which the id may be `*` where only its name is known.
pub fn group_arn(scope: &Scope, id: &str, name: &str) -> String {
    let (region, account) = (&scope.region, scope.account);
    format!("arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{id}:autoScalingGroupName/{name}")
}

impl Record for AutoScalingGroup {
    const KIND: &'static str = "autoscaling/group";
    const VERSION: u32 = 1;
    type Key = AutoScalingGroupName;

    fn key(&self) -> AutoScalingGroupName {
        self.name.clone()
    }

    fn path(key: &AutoScalingGroupName) -> String {
        key.to_string()
    }
}
