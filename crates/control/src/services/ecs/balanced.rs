//! Services behind load balancers: which target groups their tasks belong to, as what, and how the balancer finds them.
//!
//! A task belongs to the groups of its deployment, from RUNNING until it is asked to stop; its containers are signalled once
//! nothing of it is left at the balancer, as on ECS. Where deployments shift traffic between two groups, see
//! [`super::advanced`].

use super::advanced::{self, Advanced};
use super::errors::EcsError;
use super::state::{Deployment, Service, ServiceRevision, Task};
use crate::services::elbv2::links;
use crate::services::elbv2::state::{AddressFamily, TargetId, TargetKey, TargetType};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::ids::{ContainerName, DeploymentId, TargetGroupId};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::mutant;
use gantry_decide::routing::{HealthState, Reason};
use gantry_decide::task::definition::TaskDefinition;
use gantry_decide::task::kinds::NetworkMode;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
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
    /// The group's partner, and what sends them traffic, where deployments shift it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Box<Advanced>>,
}

impl ServiceLoadBalancer {
    /// The group that tasks belong to: the alternate one, where they take turns.
    pub fn group(&self, alternate: bool) -> &TargetGroupId {
        match &self.advanced {
            Some(advanced) if alternate => &advanced.alternate,
            _ => &self.target_group,
        }
    }

    fn names(&self, group: &TargetGroupId) -> bool {
        self.target_group == *group
            || self.advanced.as_ref().is_some_and(|advanced| advanced.alternate == *group)
    }
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
    let name = given.container_name.as_deref().unwrap_or_default();
    let port = given.container_port.unwrap_or_default();
    let (container, container_port) = fit_one(arn, group.target_type, name, port, definition)?;
    let advanced = given.advanced_configuration.as_ref();
    let advanced = advanced.map(|given| advanced::read(view, given, group)).transpose()?;
    Ok(ServiceLoadBalancer {
        target_group: group.id.clone(),
        container,
        container_port,
        advanced: advanced.map(Box::new),
    })
}

/// Whether tasks of a definition can be targets of a group by a container's port.
fn fit_one(
    arn: &str,
    kind: TargetType,
    name: &str,
    port: i32,
    definition: &TaskDefinition,
) -> Result<(ContainerName, u16), EcsError> {
    let awsvpc = definition.effective_network_mode() == NetworkMode::Awsvpc;
    let mode = definition.effective_network_mode().as_str();
    if awsvpc != (kind == TargetType::Ip) {
        let kind = if kind == TargetType::Ip { "ip" } else { "instance" };
        return Err(EcsError::invalid(format!(
            "The provided target group {arn} has target type {kind}, which is incompatible with the {mode} network mode \
             specified in the task definition."
        )));
    }
    let container = definition.container(name).ok_or_else(|| {
        let name: String = name.chars().take(256).collect();
        EcsError::invalid(format!("The container {name} does not exist in the task definition."))
    })?;
    let mapped = |port: &u16| container.port_mappings.iter().any(|m| m.container_port == Some(*port));
    let container_port = u16::try_from(port).ok().filter(mapped).ok_or_else(|| {
        EcsError::invalid(format!("The container {name} did not have a container port {port} defined."))
    })?;
    Ok((container.name.clone(), container_port))
}

/// Whether tasks of another definition can be targets as those before were.
///
/// # Errors
/// For a definition without the containers or ports that are balanced.
pub fn fit(
    view: View<'_>,
    balanced: &[ServiceLoadBalancer],
    definition: &TaskDefinition,
) -> Result<(), EcsError> {
    for one in balanced {
        // A group that is gone keeps nobody from another definition.
        let Some(group) = view.state.elbv2.target_group(&one.target_group) else { continue };
        let arn = view.scope.balancing(one.target_group.clone()).to_string();
        let (name, port) = (one.container.as_str(), i32::from(one.container_port));
        fit_one(&arn, group.target_type, name, port, definition)?;
    }
    Ok(())
}

/// # Errors
/// When deployments shall shift traffic, and it is not said between what.
pub fn check_strategy(service: &Service) -> Result<(), EcsError> {
    let shifts = service.configuration.strategy.shifts_traffic();
    if shifts && service.load_balancers.iter().any(|one| one.advanced.is_none()) {
        return Err(EcsError::invalid(
            "advancedConfiguration field is required for all the loadBalancers when using a non-ROLLING deployment \
             strategy.",
        ));
    }
    Ok(())
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

pub fn show(view: View<'_>, balanced: &[ServiceLoadBalancer]) -> Vec<ecs::LoadBalancer> {
    let one = |balanced: &ServiceLoadBalancer| ecs::LoadBalancer {
        target_group_arn: Some(view.scope.balancing(balanced.target_group.clone()).to_string()),
        container_name: Some(balanced.container.to_string()),
        container_port: Some(i32::from(balanced.container_port)),
        advanced_configuration: balanced.advanced.as_ref().map(|advanced| advanced::show(view, advanced)),
        load_balancer_name: None,
    };
    balanced.iter().map(one).collect()
}

/// Which groups a revision's tasks belong to, where there was a choice.
pub fn resolved(view: View<'_>, revision: &ServiceRevision) -> Option<ecs::ResolvedConfiguration> {
    let one = |balanced: &ServiceLoadBalancer| {
        let advanced = balanced.advanced.as_ref()?;
        let group = balanced.group(revision.alternate).clone();
        Some(ecs::ServiceRevisionLoadBalancer {
            target_group_arn: Some(view.scope.balancing(group).to_string()),
            production_listener_rule: Some(advanced.production.arn(view.scope)),
        })
    };
    let all: Vec<_> = revision.load_balancers.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| ecs::ResolvedConfiguration { load_balancers: Some(all), ..Default::default() })
}

/// What was asked for with a deployment.
pub fn asked<'a>(service: &'a Service, deployment: &'a Deployment) -> &'a [ServiceLoadBalancer] {
    deployment.load_balancers.as_ref().unwrap_or(&service.load_balancers)
}

/// The groups that a deployment's tasks belong to.
pub fn groups(service: &Service, deployment: &Deployment) -> Option<Arc<[ServiceLoadBalancer]>> {
    let asked = asked(service, deployment);
    let one = |balanced: &ServiceLoadBalancer| ServiceLoadBalancer {
        target_group: balanced.group(deployment.alternate).clone(),
        advanced: None,
        ..balanced.clone()
    };
    (!asked.is_empty()).then(|| asked.iter().map(one).collect())
}

/// The groups that a task belongs to.
pub fn of_task<'a>(service: &'a Service, task: &'a Task) -> &'a [ServiceLoadBalancer] {
    if let Some(groups) = &task.balanced {
        return groups;
    }
    if service.load_balancers.is_empty() {
        return &[];
    }
    // A task of an older Gantry has those of its service. One of ours has none, as its deployment shows.
    let knows = service.deployment_of(task).is_some_and(|deployment| deployment.load_balancers.is_some());
    if knows { &[] } else { &service.load_balancers }
}

/// The services whose tasks are in a group, or may still drain there.
pub fn services_of_group<'a>(
    view: View<'a>,
    group: &'a TargetGroupId,
) -> impl Iterator<Item = &'a Arc<Service>> {
    view.state.ecs.services().values().filter(move |service| {
        service.former_groups.contains(group)
            || service.load_balancers.iter().chain(of_deployments(service)).any(|one| one.names(group))
    })
}

fn of_deployments(service: &Service) -> impl Iterator<Item = &ServiceLoadBalancer> {
    service.deployments.iter().filter_map(|deployment| deployment.load_balancers.as_ref()).flatten()
}

/// Takes deployments away that have come to their end. Their tasks may drain for a while longer.
pub fn forget(view: View<'_>, service: &mut Service, finished: &[DeploymentId]) {
    if finished.is_empty() {
        return;
    }
    let groups = |one: &ServiceLoadBalancer| [one.group(false).clone(), one.group(true).clone()];
    let mut former: BTreeSet<TargetGroupId> =
        std::mem::take(&mut service.former_groups).into_iter().collect();
    former.extend(of_deployments(service).flat_map(groups));
    service.deployments.retain(|deployment| !finished.contains(&deployment.id));
    let named = |group: &TargetGroupId| {
        service.load_balancers.iter().chain(of_deployments(service)).any(|one| one.names(group))
    };
    former.retain(|group| !named(group) && view.state.elbv2.targets_of(group).next().is_some());
    service.former_groups = former.into_iter().collect();
}

/// The service of a task that belongs to target groups.
pub fn service_of<'a>(view: View<'a>, task: &Task) -> Option<&'a Service> {
    let service = view.state.ecs.service(&task.service_key()?)?;
    (!of_task(service, task).is_empty()).then_some(service)
}

/// As what a task is registered, as far as that is known: its address, or its host's published port.
pub fn targets(view: View<'_>, service: &Service, task: &Task) -> Vec<TargetKey> {
    let target = |balanced: &ServiceLoadBalancer| {
        let group = view.state.elbv2.target_group(&balanced.target_group)?;
        let (id, port) = match group.target_type {
            TargetType::Ip => {
                let eni = task.eni.as_ref()?;
                let address = match group.address_family {
                    AddressFamily::Ipv4 => IpAddr::V4(eni.address),
                    // None in a subnet without such addresses: the task gets no requests.
                    AddressFamily::Ipv6 => IpAddr::V6(eni.ipv6?.address),
                };
                (TargetId::Ip(address), balanced.container_port)
            }
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
    of_task(service, task).iter().filter_map(target).collect()
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
    /// Nobody asks: it belongs to no target group.
    None,
    /// One of its targets has yet to become healthy. It counts as it is now until then, at the latest.
    Waits(Option<Timestamp>),
    Healthy,
    /// One of its targets is unhealthy, for this reason, and its grace is over.
    Unhealthy(TargetKey, Option<Reason>),
}

pub fn verdict(view: View<'_>, service: &Service, task: &Task) -> Verdict {
    let groups = of_task(service, task).len();
    if groups == 0 {
        return Verdict::None;
    }
    let keys = targets(view, service, task);
    let mut verdict = if keys.len() == groups { Verdict::Healthy } else { Verdict::Waits(None) };
    for key in keys {
        let target = view.state.elbv2.targets.get(&key).filter(|target| target.task == Some(task.id));
        let health = target.and_then(|target| target.health).map(|(health, _)| health);
        match health.map(|health| (health.state, health.reason)) {
            // Nobody checks it: it is used.
            Some((HealthState::Healthy | HealthState::Unavailable, _)) => {}
            Some(_) if mutant::is("unhealthy targets count as healthy") => {}
            None if mutant::is("targets count before anybody looked") => {}
            Some((HealthState::Unhealthy | HealthState::UnhealthyDraining, reason)) => {
                let grace = Duration::from_secs(service.health_check_grace_period_seconds.into());
                let until = task.started_at.map(|at| at + grace).filter(|until| *until > view.now);
                if until.is_none() {
                    return Verdict::Unhealthy(key, reason);
                }
                verdict = Verdict::Waits(until);
            }
            _ if verdict == Verdict::Healthy => verdict = Verdict::Waits(None),
            _ => {}
        }
    }
    verdict
}
