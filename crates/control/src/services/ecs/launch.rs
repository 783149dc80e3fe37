//! Making tasks: from a definition and where it shall run to records placed on instances. Used by RunTask, StartTask
//! and the service controller alike.

use super::balanced::ServiceLoadBalancer;
use super::capacity::{self, Waits};
use super::placement;
use super::state::{
    Container, ContainerInstanceKey, EffectiveDefinition, Eni, EniIpv6, LaunchType, NetworkConfiguration,
    PlacementConstraint, PlacementStrategy, StartedBy, Tags, Task, TaskKey, TaskVolume, Waiting,
};
use crate::services::ec2;
use crate::services::ec2::state::Subnet;
use crate::tx::Tx;
use gantry_decide::ids::{
    AttachmentId, CapacityProviderName, ClusterName, ContainerId, ContainerName, EniId, Scope,
    TaskDefinitionId, TaskId, VolumeId,
};
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus, LastStatus};
use gantry_decide::network::{free_address, free_ipv6_address};
use gantry_decide::placement::{Profile, Refusal, Refusals, Request};
use gantry_decide::task::NetworkMode;
use gantry_decide::task::TaskOverride;
use gantry_decide::task::launch_volume::VolumeConfiguration;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What shall start, and how.
#[derive(Clone, Debug)]
pub struct Launch {
    pub cluster: ClusterName,
    pub definition_id: TaskDefinitionId,
    pub definition: EffectiveDefinition,
    pub overrides: TaskOverride,
    pub launch_type: LaunchType,
    pub capacity_provider: Option<CapacityProviderName>,
    /// Of Fargate tasks: resolved, never LATEST.
    pub platform_version: Option<String>,
    /// Present exactly for awsvpc.
    pub network: Option<NetworkConfiguration>,
    /// Present exactly where the definition leaves a volume to the launch.
    pub volume: Option<VolumeConfiguration>,
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
    pub group: String,
    pub started_by: Option<StartedBy>,
    pub tags: Tags,
    pub enable_execute_command: bool,
    /// The target groups that its tasks belong to.
    pub balanced: Option<Arc<[ServiceLoadBalancer]>>,
    /// What images are pinned to, by container.
    pub image_digests: BTreeMap<ContainerName, String>,
}

/// What came of a launch.
#[derive(Clone, Debug, Default)]
pub struct Launched {
    /// Those that wait for an instance included.
    pub tasks: Vec<Arc<Task>>,
    /// Why there are no more; only when fewer were made than asked for.
    pub refusals: Option<Refusals<ContainerInstanceKey>>,
    /// More might have waited for instances, were there not so many already.
    pub too_many_wait: bool,
}

/// Makes up to `count` tasks on instances that placement chooses. Where capacity can come, those that find none wait.
pub fn place(tx: &mut Tx<'_>, launch: &Launch, count: usize) -> Launched {
    let name = placement::pool_name(&launch.cluster, launch.launch_type);
    let request = capacity::request_for(tx.view(), launch);
    let pool = capacity::open_to(tx.view(), &name, &launch.group);
    let leftover = launch.launch_type == LaunchType::Fargate && capacity::waits(tx.view(), launch).is_none();
    if leftover && tx.state.ecs.waiting_count(&name) > 0 {
        // What is or comes free is for those that wait.
        let mut refusals = Refusals::default();
        pool.keys().for_each(|key| refusals.add(key, Refusal::Cpu));
        return Launched { refusals: Some(refusals), ..Launched::default() };
    }
    // What is placed counts once the tasks stand in the tables.
    let placed = tx.placers.place((tx.scope, &name, &pool), &request, count, tx.random);
    let nowhere = placed.refusals.is_some()
        && launch.launch_type == LaunchType::Ec2
        && request.attributes.contains_key(capacity::GROUP_ATTRIBUTE)
        && !pool.hosts().any(|(_, host)| is_of_group(&host.profile, &request));
    drop(pool);
    let mut launched = Launched { refusals: placed.refusals, ..Launched::default() };
    if nowhere {
        launched.refusals = Some(Refusals::default());
    }
    for instance in placed.on {
        match start_on(tx, launch, instance.clone()) {
            Ok(task) => launched.tasks.push(task),
            Err(refusal) => launched.refusals.get_or_insert_default().add(&instance, refusal),
        }
    }
    wait(tx, launch, &request, count, &mut launched);
    launched
}

/// Whether an instance is of the Auto Scaling group that a request asks for, if it does.
fn is_of_group(profile: &Profile, request: &Request) -> bool {
    let wanted = request.attributes.get(capacity::GROUP_ATTRIBUTE);
    wanted.is_none_or(|wanted| profile.attributes.get(capacity::GROUP_ATTRIBUTE) == Some(wanted))
}

/// Lets those of `count` tasks wait that found no instance, where they may.
fn wait(tx: &mut Tx<'_>, launch: &Launch, request: &Request, count: usize, launched: &mut Launched) {
    // No instance that comes, and no task that goes, brings addresses.
    let lacks_address = launched.refusals.as_ref().and_then(|refusals| refusals.closest.as_ref());
    if launched.tasks.len() >= count || lacks_address.is_some_and(|(_, refusal)| *refusal == Refusal::Eni) {
        return;
    }
    let mut victims = Vec::new();
    match capacity::waits(tx.view(), launch) {
        None => return,
        Some(Waits::ForInstances) => {
            let name = placement::pool_name(&launch.cluster, launch.launch_type);
            let most = tx.state.installation.quotas.provisioning_tasks as usize;
            while launched.tasks.len() < count {
                launched.too_many_wait = tx.state.ecs.waiting_count(&name) >= most;
                if launched.too_many_wait {
                    return;
                }
                launched.tasks.push(put_waiting(tx, launch));
            }
        }
        Some(Waits::ForSpotTasks) => {
            let (mut room, _) = capacity::fargate_room(tx.view());
            while launched.tasks.len() < count {
                let Some(more) = room.make(request) else { break };
                victims.extend(more);
                launched.tasks.push(put_waiting(tx, launch));
            }
        }
    }
    for victim in &victims {
        capacity::interrupt(tx, victim);
    }
    if launched.tasks.len() == count {
        launched.refusals = None;
    }
}

fn put_waiting(tx: &mut Tx<'_>, launch: &Launch) -> Arc<Task> {
    let mut task = draft(tx, launch);
    task.last_status = LastStatus::Provisioning;
    task.waiting = Some(Box::new(Waiting {
        network: launch.network.clone(),
        constraints: launch.constraints.clone(),
        strategies: launch.strategies.clone(),
    }));
    let task = Arc::new(task);
    tx.state.ecs.put_task(Arc::clone(&task));
    task
}

/// Gives a task that waits an instance, if there is one with room for it.
pub fn place_waiting(tx: &mut Tx<'_>, key: &TaskKey) {
    let Some(mut task) = tx.state.ecs.task(key).filter(|task| task.is_waiting()).cloned() else { return };
    let request = capacity::request_of(tx.view(), &task);
    let Some(waiting) = task.waiting.take() else { return };
    let name = placement::pool_name(&task.cluster, task.launch_type);
    let pool = capacity::open_to(tx.view(), &name, &task.group);
    let placed = tx.placers.place((tx.scope, &name, &pool), &request, 1, tx.random);
    drop(pool);
    let Some(instance) = placed.on.into_iter().next() else { return };
    // Its deployment may have learnt since what the images' tags stand for.
    let service = task.service_key().and_then(|key| tx.state.ecs.service(&key));
    let deployment = service.and_then(|service| service.deployment_of(&task));
    for (name, digest) in deployment.and_then(|d| d.image_digests.clone()).unwrap_or_default() {
        if let Some(container) = task.container(name.as_str()) {
            container.pinned_digest.get_or_insert(digest);
        }
    }
    if settle(tx, &mut task, waiting.network.as_ref(), instance).is_ok() {
        task.version += 1;
        tx.state.ecs.put_task(task);
    }
}

/// Makes a task on an instance that the caller chose, if it fits there.
///
/// # Errors
/// Why it does not; nothing is changed then.
pub fn start_if_it_fits(
    tx: &mut Tx<'_>,
    launch: &Launch,
    instance: ContainerInstanceKey,
) -> Result<Arc<Task>, Refusal> {
    let mut request = placement::request(&launch.definition, launch.launch_type, &launch.group, &[], &[]);
    request.constraints.clear();
    let pool = tx.state.ecs.pool(&instance.cluster);
    match pool.host(&instance).map_or(Some(Refusal::Inactive), |host| host.refuses(&request)) {
        Some(refusal) => Err(refusal),
        None => start_on(tx, launch, instance),
    }
}

/// Makes a managed daemon's task on its instance, which takes no others yet, if it fits there.
///
/// # Errors
/// Why it does not; nothing is changed then.
pub fn start_before_others(
    tx: &mut Tx<'_>,
    launch: &Launch,
    instance: ContainerInstanceKey,
) -> Result<Arc<Task>, Refusal> {
    let mut request = placement::request(&launch.definition, launch.launch_type, &launch.group, &[], &[]);
    request.constraints.clear();
    let pool = tx.state.ecs.pool(&instance.cluster);
    let open = pool.host(&instance).map(|mut host| {
        host.profile = Arc::new(Profile { active: true, ..host.profile.as_ref().clone() });
        host
    });
    match open.map_or(Some(Refusal::Inactive), |host| host.refuses(&request)) {
        Some(refusal) => Err(refusal),
        None => start_on(tx, launch, instance),
    }
}

fn start_on(tx: &mut Tx<'_>, launch: &Launch, instance: ContainerInstanceKey) -> Result<Arc<Task>, Refusal> {
    let mut task = draft(tx, launch);
    settle(tx, &mut task, launch.network.as_ref(), instance)?;
    let task = Arc::new(task);
    tx.state.ecs.put_task(Arc::clone(&task));
    Ok(task)
}

/// Gives a task its instance, and what it has of it: an interface, GPUs.
fn settle(
    tx: &mut Tx<'_>,
    task: &mut Task,
    network: Option<&NetworkConfiguration>,
    instance: ContainerInstanceKey,
) -> Result<(), Refusal> {
    let known = tx.state.ecs.container_instance(&instance);
    let mut availability_zone = known.and_then(|i| i.availability_zone().map(str::to_owned));
    let knows_ipv6 = known.is_some_and(|i| i.attributes.contains_key(IPV6_ATTRIBUTE));
    if task.definition.effective_network_mode() == NetworkMode::Awsvpc {
        let (eni, zone) =
            interface(tx, network, task.launch_type, (availability_zone.as_deref(), knows_ipv6))?;
        if task.launch_type == LaunchType::Fargate {
            // Where its hosts are is nobody's business: a task is where its subnet is.
            availability_zone = Some(zone);
        }
        task.eni = Some(eni);
    }
    let mut gpus = free_gpus(tx, &instance);
    for (container, definition) in task.containers.iter_mut().zip(&task.definition.container_definitions) {
        container.gpu_ids = gpus.by_ref().take(definition.gpus() as usize).collect();
    }
    task.last_status = if task.eni.is_some() { LastStatus::Provisioning } else { LastStatus::Pending };
    task.instance = Some(instance);
    task.availability_zone = availability_zone;
    Ok(())
}

/// A task that is nowhere yet.
fn draft(tx: &mut Tx<'_>, launch: &Launch) -> Task {
    let containers = launch.definition.container_definitions.iter().map(|container| Container {
        gpu_ids: Vec::new(),
        id: ContainerId::random(tx.random),
        name: container.name.clone(),
        image: container.image.clone(),
        last_status: ContainerStatus::Pending,
        image_digest: None,
        pinned_digest: launch.image_digests.get(&container.name).cloned(),
        runtime_id: None,
        exit_code: None,
        reason: None,
        network_bindings: Vec::new(),
        health_status: HealthStatus::Unknown,
    });
    let containers = containers.collect();
    Task {
        cluster: launch.cluster.clone(),
        id: TaskId::new(tx.now, tx.random),
        definition_id: launch.definition_id.clone(),
        definition: launch.definition.clone(),
        overrides: launch.overrides.clone(),
        last_status: LastStatus::Provisioning,
        desired_status: DesiredStatus::Running,
        containers,
        eni: None,
        volume: launch.volume.as_ref().map(|volume| {
            Box::new(TaskVolume {
                attachment: AttachmentId::random(tx.random),
                id: VolumeId::random(tx.random),
                configuration: volume.clone(),
            })
        }),
        instance: None,
        balanced: launch.balanced.clone(),
        waiting: None,
        launch_type: launch.launch_type,
        capacity_provider: launch.capacity_provider.clone(),
        platform_version: launch.platform_version.clone(),
        availability_zone: None,
        group: launch.group.clone(),
        started_by: launch.started_by.clone(),
        tags: launch.tags.clone(),
        enable_execute_command: launch.enable_execute_command,
        sent: false,
        accounted: false,
        protected_until: None,
        version: 1,
        created_at: tx.now,
        connectivity_at: None,
        pull_started_at: None,
        pull_stopped_at: None,
        started_at: None,
        stopping_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        stop_code: None,
        stopped_reason: None,
    }
}

/// The GPUs of an instance that no task holds, which placement has counted.
fn free_gpus(tx: &Tx<'_>, instance: &ContainerInstanceKey) -> std::vec::IntoIter<String> {
    let ecs = &tx.state.ecs;
    let all = ecs.container_instance(instance).map(|record| record.registered.gpus.clone());
    let mut free = all.unwrap_or_default();
    if !free.is_empty() {
        for id in
            ecs.tasks_on(instance).flat_map(|task| &task.containers).flat_map(|container| &container.gpu_ids)
        {
            free.remove(id);
        }
    }
    free.into_iter().collect::<Vec<_>>().into_iter()
}

/// The key of a task.
impl From<&Task> for TaskKey {
    fn from(task: &Task) -> TaskKey {
        TaskKey { cluster: task.cluster.clone(), id: task.id }
    }
}

/// An interface in one of the wanted subnets: on Fargate in that with the fewest, so that tasks spread over the zones;
/// on an instance in one of the instance's zone, where there is such a one. It has an IPv6 address too where both the
/// subnet has a block and the host can do it.
fn interface(
    tx: &mut Tx<'_>,
    network: Option<&NetworkConfiguration>,
    launch_type: LaunchType,
    (zone, knows_ipv6): (Option<&str>, bool),
) -> Result<(Eni, String), Refusal> {
    let network = network.ok_or(Refusal::Eni)?;
    // From now on the default networks are among what is stored.
    tx.state.ec2.seen_mut(tx.scope);
    let (ec2, interfaces) = (&tx.state.ec2, tx.state.ecs.interfaces());
    // What was there when it was asked for may have been deleted since.
    let (subnets, groups) =
        ec2::links::networks(ec2, &network.subnets, &network.security_groups).map_err(|_| Refusal::Eni)?;
    let free =
        |subnet: &&Subnet| interfaces.count_in(&subnet.id.to_string()) < subnet.block.usable() as usize;
    let mut subnets: Vec<&Subnet> = subnets.into_iter().filter(free).collect();
    subnets.sort_by_cached_key(|subnet| {
        let elsewhere = launch_type != LaunchType::Fargate && Some(subnet.zone.as_str()) != zone;
        (elsewhere, interfaces.count_in(&subnet.id.to_string()))
    });
    for subnet in subnets {
        let taken = |address| interfaces.is_taken(address);
        let Some(address) = free_address(subnet.block, taken, tx.random) else { continue };
        let octets = address.octets();
        let ipv6 = subnet.ipv6.filter(|_| knows_ipv6).and_then(|block| {
            let address = free_ipv6_address(block, |address| interfaces.is_ipv6_taken(address), tx.random)?;
            Some(EniIpv6 { address, prefix_length: block.bits() })
        });
        let eni = Eni {
            attachment: AttachmentId::random(tx.random),
            id: EniId::random(tx.random),
            subnet: subnet.id.to_string(),
            security_groups: groups.iter().map(ToString::to_string).collect(),
            // Locally administered, and as unique as the address that it carries.
            mac: format!("0a:58:{:02x}:{:02x}:{:02x}:{:02x}", octets[0], octets[1], octets[2], octets[3]),
            address,
            gateway: subnet.block.router(),
            prefix_length: subnet.block.bits(),
            ipv6,
            private_dns_name: if ec2::links::has_host_names(ec2, subnet.vpc) {
                host_name(tx.scope, address)
            } else {
                String::new()
            },
            attached: true,
        };
        return Ok((eni, subnet.zone.clone()));
    }
    Err(Refusal::Eni)
}

/// How agents say that interfaces on their host may have IPv6 addresses.
const IPV6_ATTRIBUTE: &str = "ecs.capability.task-eni.ipv6";

/// What EC2 calls a host of this address.
fn host_name(scope: &Scope, address: Ipv4Addr) -> String {
    let dashed = address.to_string().replace('.', "-");
    match scope.region.as_str() {
        // The first region, whose names are older than the rule.
        "us-east-1" => format!("ip-{dashed}.ec2.internal"),
        region => format!("ip-{dashed}.{region}.compute.internal"),
    }
}
