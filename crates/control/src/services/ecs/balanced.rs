//! Services behind load balancers: which target groups their tasks belong to, as what, and how the balancer finds them.
//!
//! A task belongs to a group from RUNNING until it is asked to stop; its containers are signalled once nothing of it is
//! left at the balancer, as on ECS.

use super::errors::EcsError;
use super::state::{Service, Task};
use crate::services::elbv2::links;
use crate::services::elbv2::state::{TargetId, TargetKey, TargetType};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::ids::{ContainerName, TargetGroupId};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::routing::{HealthState, Reason};
use gantry_decide::task::definition::TaskDefinition;
use gantry_decide::task::kinds::NetworkMode;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// Target groups of one service: ECS's limit.
const GROUPS_MAX: usize = 5;
/// Seconds of grace: ECS's limit.
const GRACE_MAX: i32 = i32::MAX;

/// A target group that a service's tasks belong to, by one port of one of their containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLoadBalancer {
    pub target_group: TargetGroupId,
    pub container: ContainerName,
    pub container_port: u16,
}

/// Reads what a request says of load balancers, for tasks of a definition.
///
/// # Errors
/// For what ECS refuses.
pub fn read(
    view: View<'_>,
    given: Option<&[ecs::LoadBalancer]>,
    definition: &TaskDefinition,
) -> Result<Vec<ServiceLoadBalancer>, EcsError> {
    let given = given.unwrap_or_default();
    if given.len() > GROUPS_MAX {
        return Err(EcsError::invalid(format!("load balancers can have at most {GROUPS_MAX} items.")));
    }
    given.iter().map(|one| read_one(view, one, definition)).collect()
}

fn read_one(
    view: View<'_>,
    given: &ecs::LoadBalancer,
    definition: &TaskDefinition,
) -> Result<ServiceLoadBalancer, EcsError> {
    if given.load_balancer_name.is_some() {
        return Err(EcsError::UnsupportedFeature(
            "Gantry has no Classic Load Balancers: name a target group of an Application or Network Load Balancer."
                .to_owned(),
        ));
    }
    if given.advanced_configuration.is_some() {
        return Err(super::ops::service::later("loadBalancers with an advancedConfiguration"));
    }
    let arn = given.target_group_arn.as_deref().unwrap_or_default();
    let shown: String = arn.chars().take(256).collect();
    let group = links::target_group(view, arn).ok_or_else(|| {
        EcsError::invalid(format!(
            "Unable to assume role and validate the specified targetGroupArn: {shown}."
        ))
    })?;
    if !links::is_used(view, &group.id) {
        return Err(EcsError::invalid(format!(
            "The target group with targetGroupArn {arn} does not have an associated load balancer."
        )));
    }
    let awsvpc = definition.effective_network_mode() == NetworkMode::Awsvpc;
    let (kind, mode) = (group.target_type, definition.effective_network_mode().as_str());
    if awsvpc != (kind == TargetType::Ip) {
        let kind = if kind == TargetType::Ip { "ip" } else { "instance" };
        return Err(EcsError::invalid(format!(
            "The provided target group {arn} has target type {kind}, which is incompatible with the {mode} network mode \
             specified in the task definition."
        )));
    }
    let name = given.container_name.as_deref().unwrap_or_default();
    let container = definition.container(name).ok_or_else(|| {
        let name: String = name.chars().take(256).collect();
        EcsError::invalid(format!("The container {name} does not exist in the task definition."))
    })?;
    let port = given.container_port.and_then(|port| u16::try_from(port).ok());
    let mapped = |port: &u16| container.port_mappings.iter().any(|m| m.container_port == Some(*port));
    let container_port = port.filter(mapped).ok_or_else(|| {
        EcsError::invalid(format!(
            "The container {name} did not have a container port {} defined.",
            given.container_port.unwrap_or_default()
        ))
    })?;
    Ok(ServiceLoadBalancer {
        target_group: group.id.clone(),
        container: container.name.clone(),
        container_port,
    })
}

/// # Errors
/// For a period that ECS refuses, and for one without load balancers.
pub fn grace_period(given: Option<i32>, balanced: bool) -> Result<u32, EcsError> {
    match given {
        None => Ok(0),
        Some(_) if !balanced => Err(EcsError::invalid(
            "Health check grace period is only valid for services configured to use load balancers",
        )),
        Some(seconds) => {
            let message = format!("The health check grace period must be between 0 and {GRACE_MAX} seconds.");
            u32::try_from(seconds).map_err(|_| EcsError::invalid(message))
        }
    }
}

pub fn view(view: View<'_>, service: &Service) -> Vec<ecs::LoadBalancer> {
    let one = |balanced: &ServiceLoadBalancer| ecs::LoadBalancer {
        target_group_arn: Some(view.scope.balancing(balanced.target_group.clone()).to_string()),
        container_name: Some(balanced.container.to_string()),
        container_port: Some(i32::from(balanced.container_port)),
        ..Default::default()
    };
    service.load_balancers.iter().map(one).collect()
}

/// The service of a task, if it has load balancers.
pub fn service_of<'a>(view: View<'a>, task: &Task) -> Option<&'a Service> {
    let service = view.state.ecs.service(&task.service_key()?)?;
    (!service.load_balancers.is_empty()).then_some(service)
}

/// As what a task is registered, as far as that is known: its address, or its host's published port.
pub fn targets(view: View<'_>, service: &Service, task: &Task) -> Vec<TargetKey> {
    let target = |balanced: &ServiceLoadBalancer| {
        let group = view.state.elbv2.target_group(&balanced.target_group)?;
        let (id, port) = match group.target_type {
            TargetType::Ip => (TargetId::Ip(IpAddr::V4(task.eni.as_ref()?.address)), balanced.container_port),
            TargetType::Instance => {
                let instance = view.state.ecs.container_instance(task.instance.as_ref()?)?;
                let container = task.containers.iter().find(|c| c.name == balanced.container)?;
                let mut bindings = container.network_bindings.iter();
                let host_port = bindings.find_map(|binding| {
                    let offset = balanced.container_port.checked_sub(binding.container_port)?;
                    (offset <= binding.more).then(|| binding.host_port.checked_add(offset))?
                });
                (TargetId::Instance(instance.ec2_instance_id.clone()?), host_port?)
            }
        };
        Some(TargetKey { group: group.id.clone(), id, port })
    };
    service.load_balancers.iter().filter_map(target).collect()
}

/// Whether a task shall get requests.
pub fn belongs(task: &Task) -> bool {
    task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
}

/// Whether something of a task is left at the balancer: it is registered, or drains.
pub fn is_known(view: View<'_>, task: &Task) -> bool {
    let Some(service) = service_of(view, task) else { return false };
    let own = |key: &TargetKey| view.state.elbv2.targets.get(key).is_some_and(|t| t.task == Some(task.id));
    targets(view, service, task).iter().any(own)
}

/// How a task does by its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody asks: its service has no load balancers.
    None,
    /// One of its targets has yet to become healthy. It counts as it is now until then, at the latest.
    Waits(Option<Timestamp>),
    Healthy,
    /// One of its targets is unhealthy, in this group and for this reason, and its grace is over.
    Unhealthy(TargetGroupId, Option<Reason>),
}

pub fn verdict(view: View<'_>, service: &Service, task: &Task) -> Verdict {
    if service.load_balancers.is_empty() {
        return Verdict::None;
    }
    let keys = targets(view, service, task);
    let mut verdict =
        if keys.len() == service.load_balancers.len() { Verdict::Healthy } else { Verdict::Waits(None) };
    for key in keys {
        let target = view.state.elbv2.targets.get(&key).filter(|target| target.task == Some(task.id));
        let health = target.and_then(|target| target.health).map(|(health, _)| health);
        match health.map(|health| (health.state, health.reason)) {
            // Nobody checks it: it is used.
            Some((HealthState::Healthy | HealthState::Unavailable, _)) => {}
            Some((HealthState::Unhealthy | HealthState::UnhealthyDraining, reason)) => {
                let grace = Duration::from_secs(service.health_check_grace_period_seconds.into());
                let until = task.started_at.map(|at| at + grace).filter(|until| *until > view.now);
                if until.is_none() {
                    return Verdict::Unhealthy(key.group, reason);
                }
                verdict = Verdict::Waits(until);
            }
            _ if verdict == Verdict::Healthy => verdict = Verdict::Waits(None),
            _ => {}
        }
    }
    verdict
}
