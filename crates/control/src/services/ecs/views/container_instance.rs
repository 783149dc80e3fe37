//! Container instances as the API shows them.

use crate::services::ecs::capacity;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, InstanceResources, Task,
};
use crate::services::ecs::tags;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ClusterName, ContainerInstanceId};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::task::TransportProtocol;
use gantry_wire::EpochMillis;
use std::collections::BTreeSet;

/// The optional parts of a container instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    pub tags: bool,
    pub health: bool,
}

pub fn container_instance(
    view: View<'_>,
    instance: &ContainerInstance,
    include: Include,
) -> ecs::ContainerInstance {
    let key = ContainerInstanceKey { cluster: instance.cluster.clone(), id: instance.id };
    let live: Vec<&Task> = view.state.ecs.tasks_on(&key).collect();
    let wanted = || live.iter().filter(|task| task.desired_status == DesiredStatus::Running);
    let count = |running: bool| {
        let tasks = wanted().filter(|task| (task.last_status == LastStatus::Running) == running).count();
        Some(i32::try_from(tasks).unwrap_or(i32::MAX))
    };
    let known = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let agent = &instance.agent;
    let with_gpus = !instance.registered.gpus.is_empty();
    ecs::ContainerInstance {
        container_instance_arn: Some(instance.arn(view.scope).to_string()),
        capacity_provider_name: capacity::provider_of(view, instance).map(|name| name.to_string()),
        ec2_instance_id: instance.ec2_instance_id.clone(),
        version: Some(i64::try_from(instance.version).unwrap_or(i64::MAX)),
        version_info: Some(ecs::VersionInfo {
            agent_version: known(&agent.version),
            agent_hash: known(&agent.hash),
            docker_version: known(&agent.docker),
        }),
        remaining_resources: Some(show_resources(&remaining(&instance.registered, &live), with_gpus)),
        registered_resources: Some(show_resources(&instance.registered, with_gpus)),
        status: Some(status(instance.status).to_owned()),
        agent_connected: Some(instance.agent_connected),
        running_tasks_count: count(true),
        pending_tasks_count: count(false),
        attributes: Some(
            instance
                .attributes
                .iter()
                .map(|(name, value)| show_attribute(name, value.as_deref(), None))
                .collect(),
        ),
        registered_at: Some(EpochMillis(instance.registered_at.as_millis())),
        attachments: Some(Vec::new()),
        tags: Some(if include.tags { tags::show(&instance.tags) } else { Vec::new() }),
        health_status: include.health.then(|| health(instance)),
        ..Default::default()
    }
}

/// One attribute; `target` is the ARN of the instance where a list mixes several.
pub fn show_attribute(name: &str, value: Option<&str>, target: Option<String>) -> ecs::Attribute {
    ecs::Attribute {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        target_type: None,
        target_id: target,
    }
}

pub fn status(status: ContainerInstanceStatus) -> &'static str {
    match status {
        ContainerInstanceStatus::Registering => "REGISTERING",
        ContainerInstanceStatus::Active => "ACTIVE",
        ContainerInstanceStatus::Draining => "DRAINING",
        ContainerInstanceStatus::Inactive => "INACTIVE",
    }
}

/// The full ARN of an instance that was asked for by id or ARN: `failures` names what is missing by it.
pub fn asked_arn(view: View<'_>, cluster: &ClusterName, text: &str) -> String {
    if text.starts_with("arn:") {
        return text.to_owned();
    }
    match text.parse::<ContainerInstanceId>() {
        Ok(id) => view.scope.ecs(EcsResource::ContainerInstance(cluster.clone(), id)).to_string(),
        Err(_) => {
            format!(
                "arn:aws:ecs:{}:{}:container-instance/{cluster}/{text}",
                view.scope.region, view.scope.account
            )
        }
    }
}

/// What the live tasks leave of an instance. Ports of their static mappings join the reserved ones.
fn remaining(registered: &InstanceResources, live: &[&Task]) -> InstanceResources {
    let mut left = registered.clone();
    for task in live {
        left.cpu = left.cpu.saturating_sub(task.definition.reserved_cpu().0);
        left.memory = left.memory.saturating_sub(task.definition.reserved_memory().0);
        for id in task.containers.iter().flat_map(|container| &container.gpu_ids) {
            left.gpus.remove(id);
        }
        if task.eni.is_some() {
            // Ports of an interface of its own are not the host's.
            continue;
        }
        for mapping in task.definition.container_definitions.iter().flat_map(|c| &c.port_mappings) {
            if let Some(port) = mapping.host_port.filter(|port| *port != 0) {
                match mapping.protocol {
                    TransportProtocol::Tcp => left.reserved_ports_tcp.insert(port),
                    TransportProtocol::Udp => left.reserved_ports_udp.insert(port),
                };
            }
        }
    }
    left
}

/// GPUs show where the instance has some, be they all taken.
fn show_resources(resources: &InstanceResources, with_gpus: bool) -> Vec<ecs::Resource> {
    // Unused number members are 0, as ECS shows them.
    let shape = |name: &str, kind: &str, number: u32, set: Option<Vec<String>>| ecs::Resource {
        name: Some(name.to_owned()),
        type_: Some(kind.to_owned()),
        double_value: Some(0.0),
        long_value: Some(0),
        integer_value: Some(i32::try_from(number).unwrap_or(i32::MAX)),
        string_set_value: set,
    };
    let ports = |set: &BTreeSet<u16>| Some(set.iter().map(ToString::to_string).collect());
    let gpus = || Some(resources.gpus.iter().cloned().collect());
    let gpus = with_gpus.then(|| shape("GPU", "STRINGSET", 0, gpus()));
    let common = [
        shape("CPU", "INTEGER", resources.cpu, None),
        shape("MEMORY", "INTEGER", resources.memory, None),
        shape("PORTS", "STRINGSET", 0, ports(&resources.reserved_ports_tcp)),
        shape("PORTS_UDP", "STRINGSET", 0, ports(&resources.reserved_ports_udp)),
    ];
    common.into_iter().chain(gpus).collect()
}

/// What is known about an instance's health: whether its agent is there.
fn health(instance: &ContainerInstance) -> ecs::ContainerInstanceHealthStatus {
    let state = if instance.agent_connected { "OK" } else { "INSUFFICIENT_DATA" };
    ecs::ContainerInstanceHealthStatus { overall_status: state.parse().ok(), details: Some(Vec::new()) }
}
