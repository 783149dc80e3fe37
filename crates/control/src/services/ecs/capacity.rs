//! Capacity between the tables and the judges in `decide::capacity`: where the tasks of a capacity provider may go, which
//! tasks wait for instances to come, and which spot tasks make room for others.

use super::launch::Launch;
use super::placement::{self, InstancePool};
use super::state::{
    CapacityProvider, ContainerInstance, ContainerInstanceKey, FARGATE_POOL, LaunchType,
    ManagedInstancesProvider, ManagedScaling, ProviderKind, Service, ServiceStatus, Task, TaskKey,
};
use crate::tx::{Tx, View};
use gantry_decide::capacity::eviction::{Room, Tenant};
use gantry_decide::ids::{CapacityProviderName, ClusterName};
use gantry_decide::lifecycle::{DesiredStatus, StopCode};
use gantry_decide::placement::{Host, Request};

/// Says of an instance which Auto Scaling group it belongs to.
pub const GROUP_ATTRIBUTE: &str = "gantry.auto-scaling-group";
/// Says of a Managed Instance which capacity provider it is of.
pub const PROVIDER_ATTRIBUTE: &str = "gantry.capacity-provider";
/// What ECS says of a spot task that has to go, from the notice on.
pub const INTERRUPTED: &str = "Your Spot Task was interrupted.";
/// What ECS says where Fargate has no room.
pub const UNAVAILABLE: &str =
    "Capacity is unavailable at this time. Please try again later or in a different availability zone";

/// Why a task that found no instance may wait for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Its provider's group grows with what waits, or machines are made for it.
    ForInstances,
    /// Spot tasks may make room on Fargate.
    ForSpotTasks,
}

/// What tasks of a launch do that find no instance; `None` if they fail at once, as ECS lets them where nothing brings
/// more capacity.
pub fn waits(view: View<'_>, launch: &Launch) -> Option<Waits> {
    let kind = launch.capacity_provider.as_ref().and_then(|name| view.state.ecs.capacity_provider(name));
    match kind.map(|provider| provider.kind) {
        Some(ProviderKind::AutoScalingGroup(group)) => {
            group.managed_scaling.enabled.then_some(Waits::ForInstances)
        }
        Some(ProviderKind::ManagedInstances(_)) => Some(Waits::ForInstances),
        Some(ProviderKind::FargateSpot) => None,
        Some(ProviderKind::Fargate) => Some(Waits::ForSpotTasks),
        None => (launch.launch_type == LaunchType::Fargate).then_some(Waits::ForSpotTasks),
    }
}

/// Narrows a request down to the instances of a capacity provider. Fargate's are the whole pool.
pub fn narrow(view: View<'_>, provider: Option<&CapacityProviderName>, request: &mut Request) {
    let provider = provider.and_then(|name| view.state.ecs.capacity_provider(name));
    if let Some(group) = provider.as_ref().and_then(|provider| provider.kind.auto_scaling_group()) {
        request.attributes.insert(GROUP_ATTRIBUTE.to_owned(), Some(group.group_name().to_owned()));
    }
    if let Some(provider) = provider.filter(|provider| provider.kind.managed_instances().is_some()) {
        request.attributes.insert(PROVIDER_ATTRIBUTE.to_owned(), Some(provider.name.to_string()));
    }
}

/// The instances of a pool as those see them who are to place a task of a group: without the room that DAEMON services
/// still need. On ECS these come first on every instance, and go last.
pub fn open_to(view: View<'_>, name: &ClusterName, group: &str) -> InstancePool {
    let mut pool = view.state.ecs.pool(name);
    for (_, request) in lacking_daemons(view, name, group) {
        pool.reserve(&request, |key| could_hold(view, key, &request));
    }
    pool
}

/// The DAEMON services that lack tasks in a pool, but for that of `group`, with what a task of each asks.
fn lacking_daemons<'a>(
    view: View<'a>,
    name: &'a ClusterName,
    group: &'a str,
) -> impl Iterator<Item = (&'a Service, Request)> {
    let ecs = &view.state.ecs;
    let pool = ecs.pool(name);
    let lacks = move |service: &&Service| {
        let own = service.group();
        // Most of the time all have theirs; the count of those that shall is taken whenever an instance changes.
        let wanted = pool.len().min(service.desired_count as usize);
        own != group && service.status == ServiceStatus::Active && pool.instances_with(&own) < wanted
    };
    let lacking = ecs.daemon_services_of(name).filter(lacks);
    lacking.filter_map(move |service| Some((service, placement::daemon_request(view, service)?)))
}

/// Whether the instance could hold the task if it were empty: room that is never there is kept for nobody.
fn could_hold(view: View<'_>, key: &ContainerInstanceKey, request: &Request) -> bool {
    view.state.ecs.container_instance(key).is_some_and(|instance| placement::could_hold(instance, request))
}

/// The DAEMON services that room is kept for on an instance, from tasks of other groups than `group`.
pub fn kept_on<'a>(
    view: View<'a>,
    key: &'a ContainerInstanceKey,
    host: &Host,
    group: &'a str,
) -> Vec<(&'a Service, Request)> {
    let kept = lacking_daemons(view, &key.cluster, group);
    kept.filter(|(_, request)| host.awaits(request) && could_hold(view, key, request)).collect()
}

/// What a launch asks of an instance.
pub fn request_for(view: View<'_>, launch: &Launch) -> Request {
    let Launch { definition, group, constraints, strategies, .. } = launch;
    let mut request = placement::request(definition, launch.launch_type, group, constraints, strategies);
    narrow(view, launch.capacity_provider.as_ref(), &mut request);
    request
}

/// What a task that waits asks of an instance.
pub fn request_of(view: View<'_>, task: &Task) -> Request {
    let (constraints, strategies) = match &task.waiting {
        Some(waiting) => (&waiting.constraints[..], &waiting.strategies[..]),
        None => (&[][..], &[][..]),
    };
    let mut request =
        placement::request(&task.definition, task.launch_type, &task.group, constraints, strategies);
    narrow(view, task.capacity_provider.as_ref(), &mut request);
    request
}

/// The provider that an instance is of, among those of its cluster.
pub fn provider_of(view: View<'_>, instance: &ContainerInstance) -> Option<CapacityProviderName> {
    let ecs = &view.state.ecs;
    if let Some(name) = instance.attribute(PROVIDER_ATTRIBUTE) {
        return name.parse().ok();
    }
    let group = instance.attribute(GROUP_ATTRIBUTE)?;
    let associated = ecs.clusters.get(&instance.cluster)?.capacity_providers.iter();
    let of_group = |provider: &CapacityProvider| {
        provider.kind.auto_scaling_group().is_some_and(|settings| settings.group_name() == group)
    };
    associated
        .filter_map(|name| ecs.capacity_providers.get(name))
        .find(|p| of_group(p))
        .map(|p| p.name.clone())
}

/// Whether an instance has what a request asks for of its provider, if it does.
pub fn is_of_provider(instance: &ContainerInstance, request: &Request) -> bool {
    [GROUP_ATTRIBUTE, PROVIDER_ATTRIBUTE].iter().all(|name| {
        let asked = request.attributes.get(*name);
        asked.is_none_or(|asked| instance.attribute(name) == asked.as_deref())
    })
}

/// The settings by which a provider's group grows.
pub fn managed_scaling(view: View<'_>, name: &CapacityProviderName) -> Option<ManagedScaling> {
    let provider = view.state.ecs.capacity_providers.get(name).filter(|provider| provider.is_active())?;
    provider.kind.auto_scaling_group().map(|group| group.managed_scaling).filter(|scaling| scaling.enabled)
}

/// The settings of a provider of Managed Instances.
pub fn managed_instances<'a>(
    view: View<'a>,
    name: &CapacityProviderName,
) -> Option<&'a ManagedInstancesProvider> {
    let provider = view.state.ecs.capacity_providers.get(name).filter(|provider| provider.is_active())?;
    provider.kind.managed_instances()
}

/// Whether a task runs on what others leave of the Fargate pool.
pub fn is_spot(task: &Task) -> bool {
    task.capacity_provider.as_ref().and_then(CapacityProvider::built_in).map(|provider| provider.kind)
        == Some(ProviderKind::FargateSpot)
}

/// A task that waits for room on Fargate.
pub struct Need {
    pub task: TaskKey,
    /// The spot tasks that have to go for it, beside those that are told already; `None` where no room can be made.
    pub victims: Option<Vec<TaskKey>>,
}

/// The Fargate pool's room for tasks that have to have it, and who needs whom to go, in the order in which they came.
/// Those that wait already have their part of the room.
pub fn fargate_room(view: View<'_>) -> (Room<TaskKey>, Vec<Need>) {
    let ecs = &view.state.ecs;
    let pool_name: ClusterName = FARGATE_POOL.parse().expect("the pool's name is a cluster name");
    let mut room = Room::default();
    for (key, host) in ecs.pool(&pool_name).hosts() {
        let (mut leaving, mut staying) = (Vec::new(), Vec::new());
        for task in ecs.tasks_on(key) {
            let held = placement::held_by(task);
            if task.desired_status == DesiredStatus::Stopped {
                leaving.push(held);
            } else if is_spot(task) {
                staying.push(Tenant { id: TaskKey::from(task), held });
            }
        }
        room.add(host, &leaving, staying);
    }
    let waiting = ecs.waiting_in(&pool_name);
    let mut need = |task: &Task| {
        let victims = room.make(&request_of(view, task));
        Need { task: TaskKey::from(task), victims }
    };
    let needs = waiting.into_iter().map(&mut need).collect();
    (room, needs)
}

/// Gives a spot task notice: its containers are told to end at once, and are killed after their stop time-out, which
/// on Fargate is two minutes at most.
pub fn interrupt(tx: &mut Tx<'_>, key: &TaskKey) {
    let Some(mut task) = tx.state.ecs.task(key).cloned() else { return };
    if task.request_stop(StopCode::TerminationNotice, INTERRUPTED, tx.now) {
        tx.state.ecs.put_task(task);
    }
}
