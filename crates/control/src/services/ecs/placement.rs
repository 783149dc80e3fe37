//! Placement between the tables and the judge in `decide`: what a task asks of an instance, and what an instance has.

use super::state::{
    ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, FARGATE_POOL, LaunchType,
    PlacementConstraint, PlacementStrategy, Service, Task,
};
use crate::tx::View;
use gantry_decide::ids::{ClusterName, Scope};
use gantry_decide::placement::{
    Constraint, Host, HostPort, Placed, Placer, Pool, Profile, Protocol, Request, Strategy,
};
use gantry_decide::query::Query;
use gantry_decide::random::Random;
use gantry_decide::task::definition::TaskDefinition;
use gantry_decide::task::{NetworkMode, ResourceType, TransportProtocol};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

/// The instances of a cluster, or of the Fargate pool, with what is free on them.
pub type InstancePool = Pool<ContainerInstanceKey>;

/// Pools whose placers are kept. Each takes some hundred bytes an instance; one used again later starts anew.
const PLACERS_MAX: usize = 64;

/// What placement worked out before, by pool. It only saves time: every answer rests on the tables.
#[derive(Default)]
pub struct Placers {
    /// The one used last comes last.
    known: Vec<(Scope, ClusterName, Placer<ContainerInstanceKey>)>,
}

impl Placers {
    /// Chooses instances of a scope's pool for up to `count` tasks; see [`Placer::place`].
    pub fn place(
        &mut self,
        (scope, name, pool): (&Scope, &ClusterName, &InstancePool),
        request: &Request,
        count: usize,
        random: &mut dyn Random,
    ) -> Placed<ContainerInstanceKey> {
        let known = self.known.iter().rposition(|(its, pool, _)| pool == name && its == scope);
        let mut entry = match known {
            Some(index) => self.known.remove(index),
            None => {
                if self.known.len() >= PLACERS_MAX {
                    self.known.remove(0);
                }
                (scope.clone(), name.clone(), Placer::default())
            }
        };
        let placed = entry.2.place(pool, request, count, random);
        self.known.push(entry);
        placed
    }
}

/// Had by agents that make the network interfaces of tasks by themselves, as their payloads say. awsvpc tasks go nowhere
/// else: there is no VPC around us whose interfaces could be attached.
pub const INLINE_ENI_ATTRIBUTE: &str = "gantry.inline-eni";
/// Beginnings of capabilities that a stock agent has and that need what payloads do not carry yet. A task that asks for
/// one goes nowhere, rather than to run without its secrets, files or volumes.
const NOT_CARRIED: &[&str] = &[
    "ecs.capability.fault-injection",
    "ecs.capability.firelens.options.config.s3",
    "ecs.capability.gmsa",
    "ecs.capability.storage.s3-files",
];
/// In what an agent of ours tells that it makes managed volumes by itself, from what the payload says. Tasks with one go
/// nowhere else: there is no EBS around us whose volumes could be attached.
const INLINE_VOLUMES_ATTRIBUTE: &str = "gantry.inline-ebs";
/// Asked of an instance for those; no agent has it.
const NOBODY_ATTRIBUTE: &str = "gantry.not-carried";
/// Machines of the user's own, in ECS's sense of launch type EXTERNAL.
pub const EXTERNAL_ATTRIBUTE: &str = "ecs.capability.external";

/// The cluster whose instances tasks of a launch type are placed on.
pub fn pool_name(cluster: &ClusterName, launch_type: LaunchType) -> ClusterName {
    match launch_type {
        LaunchType::Fargate => FARGATE_POOL.parse().expect("the pool's name is a cluster name"),
        LaunchType::Ec2 | LaunchType::External | LaunchType::ManagedInstances => cluster.clone(),
    }
}

/// The instance as placement sees it, with the tasks that are on it.
pub fn host<'a>(instance: &ContainerInstance, tasks: impl Iterator<Item = &'a Task>) -> Host {
    let port = |protocol| move |port: &u16| (protocol, *port);
    let registered = &instance.registered;
    let mut used_ports: BTreeSet<HostPort> = BTreeSet::new();
    used_ports.extend(registered.reserved_ports_tcp.iter().map(port(Protocol::Tcp)));
    used_ports.extend(registered.reserved_ports_udp.iter().map(port(Protocol::Udp)));
    let mut free_cpu = i64::from(registered.cpu);
    let mut free_memory = i64::from(registered.memory);
    let mut free_gpus = i64::try_from(registered.gpus.len()).unwrap_or(i64::MAX);
    let mut groups: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    // Most tasks of an instance share few definitions, and on start there are tasks by the hundred thousand.
    let mut known: Option<(&Arc<TaskDefinition>, Request)> = None;
    for task in tasks {
        let definition = task.definition.shared();
        if !known.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, definition)) {
            known = Some((definition, held_by(task)));
        }
        if let Some((_, held)) = &known {
            free_cpu -= i64::from(held.cpu);
            free_memory -= i64::from(held.memory);
            free_gpus -= i64::from(held.gpus);
            used_ports.extend(&held.ports);
        }
        match groups.get_mut(task.group.as_str()) {
            Some(count) => *count += 1,
            None => drop(groups.insert(Arc::from(task.group.as_str()), 1)),
        }
    }
    let profile = Profile {
        active: instance.status == ContainerInstanceStatus::Active,
        connected: instance.agent_connected,
        attributes: instance.attributes.clone(),
        agent_version: instance.agent.version.clone(),
        ec2_instance_id: instance.ec2_instance_id.clone(),
        registered_at: instance.registered_at,
    };
    Host {
        profile: profile.into(),
        free_cpu,
        free_memory,
        free_gpus,
        used_ports: used_ports.into(),
        groups: groups.into(),
    }
}

/// Whether the instance could hold the task if no other were there.
pub fn could_hold(instance: &ContainerInstance, request: &Request) -> bool {
    let all = &instance.registered;
    let is_reserved = |(protocol, port): &HostPort| match protocol {
        Protocol::Tcp => all.reserved_ports_tcp.contains(port),
        Protocol::Udp => all.reserved_ports_udp.contains(port),
    };
    request.cpu <= all.cpu
        && request.memory <= all.memory
        && request.gpus as usize <= all.gpus.len()
        && !request.ports.iter().any(is_reserved)
}

/// What a task holds on its instance until it is STOPPED.
pub fn held_by(task: &Task) -> Request {
    resources(&task.definition, &task.group)
}

fn resources(definition: &TaskDefinition, group: &str) -> Request {
    let mut ports = BTreeSet::new();
    if definition.effective_network_mode() != NetworkMode::Awsvpc {
        for mapping in definition.container_definitions.iter().flat_map(|c| &c.port_mappings) {
            if let Some(port) = mapping.host_port.filter(|port| *port != 0) {
                let protocol = match mapping.protocol {
                    TransportProtocol::Tcp => Protocol::Tcp,
                    TransportProtocol::Udp => Protocol::Udp,
                };
                ports.insert((protocol, port));
            }
        }
    }
    Request {
        cpu: definition.reserved_cpu().0,
        memory: definition.reserved_memory().0,
        gpus: definition.container_definitions.iter().map(|container| container.gpus()).sum(),
        ports,
        group: group.to_owned(),
        ..Request::default()
    }
}

/// What a task to be placed asks of an instance.
///
/// Constraints and strategies were read before. A stored constraint that is none is never satisfied, a strategy that is
/// none counts for nothing.
pub fn request(
    definition: &TaskDefinition,
    launch_type: LaunchType,
    group: &str,
    constraints: &[PlacementConstraint],
    strategies: &[PlacementStrategy],
) -> Request {
    let mut request = resources(definition, group);
    if definition.effective_network_mode() == NetworkMode::Awsvpc {
        request.attributes.insert(INLINE_ENI_ATTRIBUTE.to_owned(), None);
    }
    if definition.volume_configured_at_launch().is_some() {
        request.attributes.insert(INLINE_VOLUMES_ATTRIBUTE.to_owned(), None);
    }
    for required in &definition.requires_attributes {
        request.attributes.insert(required.name.clone(), required.value.clone());
        if NOT_CARRIED.iter().any(|start| required.name.starts_with(start)) {
            request.attributes.insert(NOBODY_ATTRIBUTE.to_owned(), None);
        }
    }
    // Nor does any agent have Elastic Inference.
    let mut requirements =
        definition.container_definitions.iter().flat_map(|c| c.resource_requirements.iter().flatten());
    if requirements.any(|requirement| requirement.kind != ResourceType::Gpu) {
        request.attributes.insert(NOBODY_ATTRIBUTE.to_owned(), None);
    }
    let platform = definition.runtime_platform.as_ref();
    if let Some(architecture) = platform.and_then(|platform| platform.cpu_architecture) {
        let name = architecture.as_str().to_ascii_lowercase();
        request.attributes.insert("ecs.cpu-architecture".to_owned(), Some(name));
    }
    if launch_type == LaunchType::Fargate {
        // Whoever offers the pool spreads nothing and is chosen by nothing: its instances are alike to users.
        return request;
    }
    if launch_type == LaunchType::External {
        request.attributes.insert(EXTERNAL_ATTRIBUTE.to_owned(), None);
    } else if launch_type == LaunchType::Ec2 {
        request.constraints.push(Constraint::MemberOf(OF_NOBODY_ELSE.clone()));
    }
    let mut expressions: Vec<&str> =
        definition.placement_constraints.iter().map(|constraint| constraint.expression.as_str()).collect();
    for constraint in constraints {
        match constraint {
            PlacementConstraint::DistinctInstance => request.constraints.push(Constraint::DistinctInstance),
            PlacementConstraint::MemberOf(expression) => expressions.push(expression),
        }
    }
    for expression in expressions {
        match Query::parse(expression) {
            Ok(query) => request.constraints.push(Constraint::MemberOf(query)),
            Err(_) => _ = request.attributes.insert(NOBODY_ATTRIBUTE.to_owned(), None),
        }
    }
    request.strategies.extend(strategies.iter().filter_map(|strategy| match strategy {
        PlacementStrategy::Random => Some(Strategy::Random),
        PlacementStrategy::Spread(field) => Strategy::spread(field),
        PlacementStrategy::Binpack(field) => Strategy::binpack(field),
    }));
    request
}

/// What a DAEMON service's task asks of an instance; none where its definition is gone.
pub fn daemon_request(view: View<'_>, service: &Service) -> Option<Request> {
    let primary = service.primary()?;
    let record = view.state.ecs.task_definitions.get(&primary.task_definition)?;
    let (launch_type, group) = (primary.compute.launch_type(), service.group());
    Some(request(&record.definition, launch_type, &group, &service.placement_constraints, &[]))
}

/// What tasks of the launch type EC2 ask: machines of the user's own and Managed Instances are for others.
static OF_NOBODY_ELSE: LazyLock<Query> = LazyLock::new(|| {
    let text = "attribute:ecs.capability.external !exists and attribute:gantry.capacity-provider !exists";
    Query::parse(text).expect("a test places with it")
});
