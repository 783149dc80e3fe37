//! What services tell in their events and rollout reasons, in ECS's words: consoles and scripts look for them.

use crate::ids::{DeploymentId, TaskId};
use std::fmt::Write;

fn list(tasks: &[TaskId]) -> String {
    let mut text = String::new();
    for task in tasks {
        let space = if text.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{space}(task {task})");
    }
    text
}

/// `replaced` of them stand in for unhealthy ones.
pub fn started(service: &str, tasks: &[TaskId], replaced: usize) -> String {
    let mut text = format!("(service {service}) has started {} tasks: {}.", tasks.len(), list(tasks));
    if replaced > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, " Amazon ECS replaced {replaced} tasks due to an unhealthy status.");
    }
    text
}

/// A task's essential container failed its health check.
pub fn failed_health_checks(service: &str, task: TaskId) -> String {
    format!("(service {service}) (task {task}) failed container health checks.")
}

/// A load balancer found a task unhealthy at a port, of its host's `instance` where it is on one, and why.
pub fn unhealthy_target(
    teller: &str,
    task: TaskId,
    instance: Option<&str>,
    port: u16,
    group: &str,
    reason: &str,
) -> String {
    let instance = instance.map(|id| format!(" (instance {id})")).unwrap_or_default();
    format!(
        "(service {teller}) (task {task}){instance} (port {port}) is unhealthy in (target-group {group}) due to \
         (reason {reason})"
    )
}

/// What a running task lacks at its load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Group,
    /// Somebody deregistered it.
    Target,
}

pub fn lost(service: &str, deployment: DeploymentId, task: TaskId, group: &str, lost: Lost) -> String {
    format!("(service {service}) (taskSet {deployment}) (task {task}) {}", lost_ending(group, lost))
}

/// What each message of [`lost`] ends with, whatever the task.
pub fn lost_ending(group: &str, lost: Lost) -> String {
    let what = match lost {
        Lost::Group => "TARGET GROUP IS NOT FOUND",
        Lost::Target => "TARGET IS NOT FOUND",
    };
    format!("is not healthy in (target-group {group}) due to {what}")
}

/// Tasks get requests of a load balancer from now on.
pub fn registered(service: &str, count: usize, group: &str) -> String {
    format!("(service {service}) registered {count} targets in (target-group {group})")
}

/// Tasks are on their way out of their load balancers. `teller` names the task set where there is one.
pub fn draining(teller: &str, count: usize) -> String {
    format!("(service {teller}) has begun draining connections on {count} tasks.")
}

/// Tasks get no new requests of a load balancer.
pub fn deregistered(service: &str, count: usize, group: &str) -> String {
    format!("(service {service}) deregistered {count} targets in (target-group {group})")
}

/// A load balancer does not take a task.
pub fn cannot_register(service: &str, group: &str, reason: &str) -> String {
    format!("(service {service}) failed to register targets in (target-group {group}) with (error {reason})")
}

pub fn stopped(service: &str, tasks: &[TaskId]) -> String {
    format!("(service {service}) has stopped {} running tasks: {}.", tasks.len(), list(tasks))
}

pub fn steady_state(service: &str) -> String {
    format!("(service {service}) has reached a steady state.")
}

pub fn deployment_completed(service: &str, deployment: DeploymentId) -> String {
    format!("(service {service}) (deployment {deployment}) deployment completed.")
}

pub fn deployment_failed(service: &str, deployment: DeploymentId) -> String {
    format!("(service {service}) (deployment {deployment}) deployment failed: tasks failed to start.")
}

/// A deployment has failed by what its stages, its alarms or its user say.
pub fn deployment_failed_because(service: &str, deployment: DeploymentId, reason: &str) -> String {
    format!("(service {service}) (deployment {deployment}) deployment failed: {reason}")
}

pub fn rolling_back(service: &str, deployment: DeploymentId) -> String {
    format!("(service {service}) rolling back to deployment {deployment}.")
}

/// Tasks keep stopping before they reach RUNNING.
pub fn cannot_start_consistently(service: &str) -> String {
    format!(
        "(service {service}) is unable to consistently start tasks successfully. For more information, see the \
         Troubleshooting section of the Amazon ECS Developer Guide."
    )
}

/// There is no room for tasks on Fargate, or they fail there before they run; `reason` ends without a full stop.
pub fn cannot_place(service: &str, reason: &str) -> String {
    format!(
        "(service {service}) was unable to place a task. Reason: {reason}. For more information, see the Troubleshooting \
         section of the Amazon ECS Developer Guide."
    )
}

/// [`cannot_place`]'s reason where Fargate has no room.
pub const NO_CAPACITY: &str =
    "Capacity is unavailable at this time. Please try again later or in a different availability zone";

/// [`cannot_place`]'s reason, if a task stopped on Fargate for one: its image or its resources could not be had.
pub fn placement_failure(stopped_reason: &str) -> Option<&str> {
    let told = ["CannotPullContainerError:", "ResourceInitializationError:"];
    let is_told = told.iter().any(|prefix| stopped_reason.starts_with(prefix));
    is_told.then(|| stopped_reason.trim_end_matches('.'))
}

/// So many tasks of a deployment found no address in their subnets.
pub fn could_not_launch(service: &str, count: usize, deployment: DeploymentId) -> String {
    format!(
        "(service {service}) could not launch {count} tasks for deployment {deployment}. Reason: RESOURCE:ENI."
    )
}

/// `spread` as [`super::rebalance::told`] says it.
pub fn not_balanced(service: &str, spread: &str) -> String {
    format!("(service {service}) is not AZ balanced with {spread}. AZ Rebalancing in progress.")
}

pub fn balanced(service: &str, spread: &str) -> String {
    format!("(service {service}) is AZ balanced with {spread}.")
}

pub fn rebalance_started(service: &str, zone: &str, task: TaskId) -> String {
    format!("(service {service}) has started 1 tasks in {zone} to AZ Rebalance: {}.", list(&[task]))
}

pub fn rebalance_stopped_task(service: &str, zone: &str, task: TaskId) -> String {
    format!(
        "(service {service}) has stopped 1 running tasks in {zone} due to AZ rebalancing: {}.",
        list(&[task])
    )
}

pub fn rebalance_found_no_place(service: &str, zone: &str) -> String {
    format!(
        "(service {service}) is unable to place a task in {zone} because no container instance met all of its \
         requirements."
    )
}

/// Every task that could go is protected.
pub fn rebalance_is_protected(service: &str) -> String {
    format!(
        "(service {service}) was unable to AZ Rebalance because the service was unable to scale in due to Reason: The \
         number of protected tasks are more than the desired count of tasks."
    )
}

/// Something else comes first.
pub fn rebalance_ended(service: &str) -> String {
    format!("(service {service}) stopped AZ Rebalancing.")
}

/// The percentages leave no room to start first nor to stop first.
pub fn blocked(service: &str) -> String {
    format!(
        "(service {service}) was unable to stop or start tasks during a deployment because of the service \
         deployment configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
    )
}

/// Tasks are to go, and those that could are protected from scale-in.
pub fn protected(service: &str, deployment: DeploymentId) -> String {
    format!(
        "(service {service}) was unable to reach steady state because (taskSet {deployment}) was unable to scale in. \
         Reason: The number of protected tasks are more than the desired count of tasks."
    )
}

/// Too many tasks of the cluster wait for instances already.
pub fn too_many_provisioning(service: &str) -> String {
    format!(
        "(service {service}) was unable to place tasks in your cluster because the tasks provisioning capacity limit was \
         exceeded."
    )
}

/// `rolloutStateReason` while a deployment goes on.
pub fn in_progress_reason(deployment: DeploymentId) -> String {
    format!("ECS deployment {deployment} in progress.")
}

/// `rolloutStateReason` of a deployment that arrived.
pub fn completed_reason(deployment: DeploymentId) -> String {
    format!("ECS deployment {deployment} completed.")
}

/// `rolloutStateReason` of a deployment that the circuit breaker failed.
pub const CIRCUIT_BREAKER_REASON: &str = "ECS deployment circuit breaker: tasks failed to start.";

/// What follows "deployment failed:" of a deployment that an alarm failed.
pub const ALARM_REASON: &str = "alarm detected.";

/// `rolloutStateReason` of the deployment that a rollback starts, by the circuit breaker or otherwise.
pub fn rolling_back_reason(deployment: DeploymentId, by_breaker: bool) -> String {
    let by = if by_breaker { " circuit breaker:" } else { "" };
    format!("ECS deployment{by} rolling back to deploymentId {deployment}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seeded;

    #[test]
    fn several_tasks_are_listed_as_ecs_lists_them() {
        let random = &mut Seeded::new(3);
        let (a, b) = (TaskId::random(random), TaskId::random(random));
        assert_eq!(started("web", &[a], 0), format!("(service web) has started 1 tasks: (task {a})."));
        assert_eq!(
            stopped("web", &[a, b]),
            format!("(service web) has stopped 2 running tasks: (task {a}) (task {b}).")
        );
    }
}
