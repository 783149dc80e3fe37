//! Making tasks: from a definition and where it shall run to records placed on instances. Used by RunTask, StartTask
//! and the service controller alike.

use super::placement::{self, ADDRESS_BLOCK_ATTRIBUTE};
use super::state::{
    Container, ContainerInstanceKey, EffectiveDefinition, Eni, LaunchType, NetworkConfiguration,
    PlacementConstraint, PlacementStrategy, Tags, Task, TaskKey,
};
use crate::services::ec2;
use crate::tx::Tx;
use gantry_decide::ids::{
    AttachmentId, CapacityProviderName, ClusterName, ContainerId, EniId, TaskDefinitionId, TaskId,
};
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, HealthStatus, LastStatus};
use gantry_decide::network::Ipv4Block;
use gantry_decide::placement::{Refusal, Refusals};
use gantry_decide::random::Random;
use gantry_decide::task::NetworkMode;
use gantry_decide::task::TaskOverride;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

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
    pub constraints: Vec<PlacementConstraint>,
    pub strategies: Vec<PlacementStrategy>,
    pub group: String,
    pub started_by: Option<String>,
    pub tags: Tags,
    pub enable_execute_command: bool,
}

/// What came of a launch.
#[derive(Clone, Debug)]
pub struct Launched {
    pub tasks: Vec<Task>,
    /// Why there are no more; only when fewer were made than asked for.
    pub refusals: Option<Refusals<ContainerInstanceKey>>,
}

/// Makes up to `count` tasks on instances that placement chooses.
pub fn place(tx: &mut Tx<'_>, launch: &Launch, count: usize) -> Launched {
    let name = placement::pool_name(&launch.cluster, launch.launch_type);
    let request = placement::request(
        &launch.definition,
        launch.launch_type,
        &launch.group,
        &launch.constraints,
        &launch.strategies,
    );
    let pool = tx.state.ecs.pool(&name);
    // What is placed counts once the tasks stand in the tables.
    let placed = tx.placers.place((tx.scope, &name, &pool), &request, count, tx.random);
    drop(pool);
    let (mut tasks, mut refusals) = (Vec::with_capacity(placed.on.len()), placed.refusals);
    for instance in placed.on {
        match start_on(tx, launch, instance.clone()) {
            Ok(task) => tasks.push(task),
            Err(refusal) => refusals.get_or_insert_default().add(&instance, refusal),
        }
    }
    Launched { tasks, refusals }
}

/// Makes a task on an instance that the caller chose, if it fits there.
///
/// # Errors
/// Why it does not; nothing is changed then.
pub fn start_if_it_fits(
    tx: &mut Tx<'_>,
    launch: &Launch,
    instance: ContainerInstanceKey,
) -> Result<Task, Refusal> {
    let mut request = placement::request(&launch.definition, launch.launch_type, &launch.group, &[], &[]);
    request.constraints.clear();
    let pool = tx.state.ecs.pool(&instance.cluster);
    match pool.host(&instance).map_or(Some(Refusal::Inactive), |host| host.refuses(&request)) {
        Some(refusal) => Err(refusal),
        None => start_on(tx, launch, instance),
    }
}

fn start_on(tx: &mut Tx<'_>, launch: &Launch, instance: ContainerInstanceKey) -> Result<Task, Refusal> {
    let eni = match launch.definition.effective_network_mode() {
        NetworkMode::Awsvpc => Some(interface(tx, launch, &instance)?),
        _ => None,
    };
    let known = tx.state.ecs.container_instance(&instance);
    let availability_zone = known.and_then(|i| i.availability_zone().map(str::to_owned));
    let containers = launch.definition.container_definitions.iter().map(|container| Container {
        id: ContainerId::random(tx.random),
        name: container.name.clone(),
        image: container.image.clone(),
        last_status: ContainerStatus::Pending,
        image_digest: None,
        runtime_id: None,
        exit_code: None,
        reason: None,
        network_bindings: Vec::new(),
        health_status: HealthStatus::Unknown,
    });
    let containers = containers.collect();
    let task = Task {
        cluster: launch.cluster.clone(),
        id: TaskId::random(tx.random),
        definition_id: launch.definition_id.clone(),
        definition: launch.definition.clone(),
        overrides: launch.overrides.clone(),
        last_status: if eni.is_some() { LastStatus::Provisioning } else { LastStatus::Pending },
        desired_status: DesiredStatus::Running,
        containers,
        eni,
        instance: Some(instance),
        launch_type: launch.launch_type,
        capacity_provider: launch.capacity_provider.clone(),
        platform_version: launch.platform_version.clone(),
        availability_zone,
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
    };
    tx.state.ecs.put_task(task.clone());
    Ok(task)
}

/// The key of a task.
impl From<&Task> for TaskKey {
    fn from(task: &Task) -> TaskKey {
        TaskKey { cluster: task.cluster.clone(), id: task.id }
    }
}

/// A free address of the instance's block, as a network interface of one of the wanted subnets.
fn interface(tx: &mut Tx<'_>, launch: &Launch, instance: &ContainerInstanceKey) -> Result<Eni, Refusal> {
    let ecs = &tx.state.ecs;
    let block = ecs
        .container_instance(instance)
        .and_then(|record| record.attribute(ADDRESS_BLOCK_ATTRIBUTE))
        .and_then(read_block)
        .ok_or(Refusal::Eni)?;
    let taken: BTreeSet<Ipv4Addr> =
        ecs.tasks_on(instance).filter_map(|task| task.eni.as_ref()).map(|eni| eni.address).collect();
    let address = free_address(block, &taken, tx.random).ok_or(Refusal::Eni)?;
    let network = launch.network.clone().unwrap_or_default();
    let subnet = match network.subnets.as_slice() {
        [] => String::new(),
        subnets => subnets[tx.random.below(subnets.len())].clone(),
    };
    let security_groups = match network.security_groups {
        none if none.is_empty() => ec2::links::default_group(tx.view(), &subnet).into_iter().collect(),
        groups => groups,
    };
    let dashed = address.to_string().replace('.', "-");
    let octets = address.octets();
    Ok(Eni {
        attachment: AttachmentId::random(tx.random),
        id: EniId::random(tx.random),
        subnet,
        security_groups,
        // Locally administered, and as unique as the address that it carries.
        mac: format!("0a:58:{:02x}:{:02x}:{:02x}:{:02x}", octets[0], octets[1], octets[2], octets[3]),
        address,
        gateway: Ipv4Addr::from(u32::from(block.base()) + 1),
        prefix_length: block.bits(),
        private_dns_name: format!("ip-{dashed}.{}.compute.internal", tx.scope.region),
        attached: true,
    })
}

/// The block that an agent gives its tasks addresses of.
fn read_block(text: &str) -> Option<Ipv4Block> {
    // Smaller than /28 leaves no room beside the reserved addresses; /8 is the largest private block.
    text.parse().ok().filter(|block: &Ipv4Block| (8..=28).contains(&block.bits()))
}

/// A random free address. A VPC keeps the first four and the last of a subnet for itself. Random rather than lowest, so
/// that an address just released is seldom the next one given.
fn free_address(block: Ipv4Block, taken: &BTreeSet<Ipv4Addr>, random: &mut dyn Random) -> Option<Ipv4Addr> {
    const RESERVED_FIRST: u32 = 4;
    let usable = block.usable();
    let start = random.below(usable as usize) as u32;
    (0..usable)
        .map(|step| RESERVED_FIRST + (start + step) % usable)
        .map(|offset| Ipv4Addr::from(u32::from(block.base()) + offset))
        .find(|address| !taken.contains(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_decide::random::Seeded;

    #[test]
    fn addresses_are_unique_until_the_block_is_full() {
        let block = read_block("10.9.0.21/28").unwrap();
        let mut taken = BTreeSet::new();
        let random = &mut Seeded::new(3);
        while let Some(address) = free_address(block, &taken, random) {
            assert!(taken.insert(address));
            assert!((20..31).contains(&address.octets()[3]), "{address} is reserved");
        }
        assert_eq!(taken.len(), 11);
    }

    #[test]
    fn odd_blocks_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/x", "10.0.0.0/0", "a/24"] {
            assert_eq!(read_block(text), None, "{text}");
        }
    }
}
