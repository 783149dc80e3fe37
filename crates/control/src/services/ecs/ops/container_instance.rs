//! Container instances: registration by their agents, and what users do with them.

use crate::call::{Call, Principal};
use crate::page::{LIST_MAX, Page};
use crate::services::autoscaling::links as autoscaling;
use crate::services::ecs::capacity::{GROUP_ATTRIBUTE, PROVIDER_ATTRIBUTE};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::attribute::{check_attribute, is_reserved};
use crate::services::ecs::ops::candidate::InstanceCandidate;
use crate::services::ecs::ops::idempotency::{Repeated, Token};
use crate::services::ecs::placement::EXTERNAL_ATTRIBUTE;
use crate::services::ecs::state::{
    AgentVersion, Cluster, ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, FARGATE_POOL,
    InstanceResources, Task,
};
use crate::services::ecs::views::container_instance::{
    Include, asked_arn, container_instance as show, status,
};
use crate::services::ecs::{check, daemons, quotas, tags};
use crate::services::ssm;
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::ids::{ActivationId, ClusterName, ContainerInstanceId, ManagedInstanceId};
use gantry_decide::lifecycle::{ContainerStatus, DesiredStatus, LastStatus, StopCode};
use gantry_decide::placement::ZONE_ATTRIBUTE;
use gantry_decide::query::Query;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Instances that one DescribeContainerInstances takes: ECS's limit.
const DESCRIBE_MAX: usize = 100;
/// Instances that one UpdateContainerInstancesState takes: ECS's limit.
const UPDATE_MAX: usize = 10;
/// Reserved ports of an instance: ECS's limit.
const RESERVED_PORTS_MAX: usize = 100;
/// GPUs of an instance: far more than any machine has.
const DEVICES_MAX: usize = 256;
const DEVICE_ID_MAX: usize = 128;
/// Attributes in one registration: several times what the stock agent announces.
const ATTRIBUTES_MAX: usize = 500;

/// Where agents open their connections; they append `/ws`.
pub const ACS_PATH: &str = "/acs";
pub const TCS_PATH: &str = "/tcs";

/// The members of an EC2 identity document that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IdentityDocument {
    instance_id: Option<String>,
    instance_type: Option<String>,
    image_id: Option<String>,
    availability_zone: Option<String>,
}

pub fn register_container_instance(
    tx: &mut Tx<'_>,
    call: &Call,
    mut request: ecs::RegisterContainerInstanceRequest,
) -> Result<ecs::RegisterContainerInstanceResponse, EcsError> {
    let token = request.client_token.take();
    let cluster = joinable_cluster(tx, request.cluster.as_deref())?;
    let mut attributes = read_attributes(request.attributes.as_deref().unwrap_or_default())?;
    let joins = Joins::read(&call.caller.principal);
    if joins != Joins::ByKey {
        check_external(cluster.as_str(), &mut attributes)?;
    }
    let mut registered = read_resources(request.total_resources.as_deref().unwrap_or_default())?;
    registered.gpus = read_gpus(request.platform_devices.as_deref().unwrap_or_default())?;
    let tags = tags::read(request.tags.as_deref())?;
    let document = request.instance_identity_document.as_deref().unwrap_or_default();
    // Machines outside EC2 send an empty document; one that cannot be read says as little.
    let document: IdentityDocument = serde_json::from_str(document).unwrap_or_default();

    let instance = match request.container_instance_arn.as_deref().filter(|arn| !arn.is_empty()) {
        Some(arn) => {
            let instance = registered_again(tx.view(), &cluster, arn, attributes, registered)?;
            joins.check_own(&instance)?;
            instance
        }
        None => {
            // An agent that got no answer asks again, and must not become two instances.
            let token =
                Token::read(Repeated::RegisterContainerInstance, &cluster, token.as_deref(), &request)?;
            let first = token.as_ref().map(|token| token.first(tx)).transpose()?.flatten();
            if let Some(arn) = first.unwrap_or_default().first() {
                let instance = one(tx.view(), &cluster, arn)?;
                let shown = show(tx.view(), &instance, Include { tags: true, health: false });
                return Ok(ecs::RegisterContainerInstanceResponse { container_instance: Some(shown) });
            }
            check_quota(tx.view(), &cluster)?;
            let custom_attributes = attributes.keys().filter(|name| !is_reserved(name)).cloned().collect();
            let mut instance = ContainerInstance {
                cluster,
                id: ContainerInstanceId::random(tx.random),
                status: ContainerInstanceStatus::Active,
                version: 1,
                registered_at: tx.now,
                registered,
                attributes,
                custom_attributes,
                tags,
                agent_connected: false,
                disconnected_at: None,
                lost_at: None,
                agent: AgentVersion::default(),
                ec2_instance_id: None,
                sessions: 0,
                deregistered_at: None,
            };
            instance.ec2_instance_id = joins.machine(tx)?;
            describe_host(tx, &mut instance, document);
            if let Some(token) = token {
                token.remember(tx, vec![instance.arn(tx.scope).to_string()]);
            }
            instance
        }
    };
    let shown = show(tx.view(), &instance, Include { tags: true, health: false });
    tx.state.ecs.put_container_instance(instance);
    Ok(ecs::RegisterContainerInstanceResponse { container_instance: Some(shown) })
}

/// Refuses one more instance where the cluster has as many as it may.
fn check_quota(view: View<'_>, cluster: &ClusterName) -> Result<(), EcsError> {
    let pool = view.state.ecs.pool(cluster);
    let instances = view.state.ecs.container_instances();
    let registered = || {
        let registered =
            |key| instances.get(key).map(|i| i.status) != Some(ContainerInstanceStatus::Inactive);
        pool.keys().filter(|key| registered(*key)).count()
    };
    let quota = view.state.installation.quotas.container_instances;
    quotas::check("container instances of a cluster", quota, pool.len(), registered)
}

/// How a machine shows that it may join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// With a key that the operator gave it.
    ByKey,
    /// With an activation: it becomes a managed instance.
    By(ActivationId),
    /// As the managed instance that it has become.
    As(ManagedInstanceId),
}

impl Joins {
    fn read(principal: &Principal) -> Joins {
        match principal {
            Principal::Activation(id) => Joins::By(*id),
            Principal::Machine(machine) => Joins::As(machine.id),
            Principal::Root | Principal::Agent | Principal::Balancer | Principal::Role(_) => Joins::ByKey,
        }
    }

    /// The machine's id as a managed instance.
    fn machine(self, tx: &mut Tx<'_>) -> Result<Option<String>, EcsError> {
        match self {
            Joins::ByKey => Ok(None),
            Joins::As(id) => Ok(Some(id.to_string())),
            Joins::By(activation) => match ssm::links::register(tx, activation) {
                Ok(id) => Ok(Some(id.to_string())),
                Err(error) => Err(EcsError::client(error.to_string())),
            },
        }
    }

    /// Nobody takes over what another machine registered.
    fn check_own(self, instance: &ContainerInstance) -> Result<(), EcsError> {
        let own = match self {
            Joins::ByKey => true,
            Joins::By(_) => false,
            Joins::As(id) => instance.ec2_instance_id == Some(id.to_string()),
        };
        own.then_some(()).ok_or_else(|| {
            EcsError::AccessDenied("The container instance was registered by another machine.".to_owned())
        })
    }
}

/// Machines of the user's own are for tasks of the launch type EXTERNAL, whatever else they announce.
fn check_external(cluster: &str, attributes: &mut BTreeMap<String, Option<String>>) -> Result<(), EcsError> {
    if cluster == FARGATE_POOL {
        return Err(EcsError::AccessDenied(
            "A machine that joins by an activation cannot be Fargate capacity.".to_owned(),
        ));
    }
    attributes.insert(EXTERNAL_ATTRIBUTE.to_owned(), None);
    Ok(())
}

/// The cluster that an agent may join. `default` and the Fargate pool come into being with their first instance.
fn joinable_cluster(tx: &mut Tx<'_>, text: Option<&str>) -> Result<ClusterName, EcsError> {
    let name = check::cluster_name(tx.view(), text)?;
    let known = tx.state.ecs.clusters.get(&name).is_some_and(|cluster| cluster.is_active());
    let pool = name.as_str() == FARGATE_POOL;
    if !known && (pool || name == ClusterName::default_cluster()) {
        tx.state.ecs.clusters.put(Cluster::new(name.clone(), tx.now));
    } else if !pool {
        check::cluster(tx.view(), text)?;
    }
    Ok(name)
}

fn read_attributes(given: &[ecs::Attribute]) -> Result<BTreeMap<String, Option<String>>, EcsError> {
    if given.len() > ATTRIBUTES_MAX {
        return Err(EcsError::invalid(format!("At most {ATTRIBUTES_MAX} attributes are allowed.")));
    }
    let mut read = BTreeMap::new();
    for attribute in given {
        // An agent insists that values come back unchanged, so they are kept as they are; a user's must fit the rules.
        if !is_reserved(&attribute.name) {
            check_attribute(&attribute.name, attribute.value.as_deref())?;
        }
        read.insert(attribute.name.clone(), attribute.value.clone().filter(|value| !value.is_empty()));
    }
    Ok(read)
}

fn read_resources(given: &[ecs::Resource]) -> Result<InstanceResources, EcsError> {
    let mut read = InstanceResources::default();
    for resource in given {
        let name = resource.name.as_deref().unwrap_or_default();
        let amount = || {
            let amount = resource.integer_value.and_then(|n| u32::try_from(n).ok());
            amount
                .filter(|n| *n > 0)
                .ok_or_else(|| EcsError::invalid(format!("Invalid value of the resource {name}.")))
        };
        let ports = || {
            let texts = resource.string_set_value.as_deref().unwrap_or_default();
            if texts.len() > RESERVED_PORTS_MAX {
                return Err(EcsError::invalid(format!(
                    "At most {RESERVED_PORTS_MAX} ports can be reserved."
                )));
            }
            let ports: Result<BTreeSet<u16>, _> = texts.iter().map(|text| text.parse()).collect();
            ports.map_err(|_| EcsError::invalid(format!("Invalid value of the resource {name}.")))
        };
        match name {
            "CPU" => read.cpu = amount()?,
            "MEMORY" => read.memory = amount()?,
            "PORTS" => read.reserved_ports_tcp = ports()?,
            "PORTS_UDP" => read.reserved_ports_udp = ports()?,
            // Resources of kinds that nothing is placed by.
            _ => {}
        }
    }
    if read.cpu == 0 || read.memory == 0 {
        return Err(EcsError::invalid("The resources CPU and MEMORY are required."));
    }
    Ok(read)
}

/// The GPUs among an agent's devices; nothing is placed by others.
fn read_gpus(given: &[ecs::PlatformDevice]) -> Result<BTreeSet<String>, EcsError> {
    let gpus = given.iter().filter(|device| device.type_.as_str() == "GPU");
    let gpus: BTreeSet<String> = gpus.map(|device| device.id.clone()).collect();
    let fits = |id: &String| !id.is_empty() && id.len() <= DEVICE_ID_MAX;
    if gpus.len() > DEVICES_MAX || !gpus.iter().all(fits) {
        return Err(EcsError::invalid("Invalid platform devices."));
    }
    Ok(gpus)
}

/// An agent that registered before and came back: its capabilities and resources are new, the rest is kept.
fn registered_again(
    view: View<'_>,
    cluster: &ClusterName,
    arn: &str,
    mut attributes: BTreeMap<String, Option<String>>,
    registered: InstanceResources,
) -> Result<ContainerInstance, EcsError> {
    let known = check::container_instance(view, cluster, arn)?
        .and_then(|key| view.state.ecs.container_instance(&key));
    let known = known.filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
    let mut instance =
        known.ok_or_else(|| EcsError::client("The referenced container instance was not found."))?.clone();
    // The agent's word counts where it gives one, because it insists on getting its attributes back unchanged. It
    // leaves out its custom attributes on a return, and never knew what the user or the server added: those stay.
    for (name, value) in &instance.attributes {
        let kept = instance.custom_attributes.contains(name) || is_of_host(name);
        if kept && attributes.get(name).is_none_or(Option::is_none) {
            attributes.insert(name.clone(), value.clone());
        }
    }
    instance.custom_attributes = attributes.keys().filter(|name| !is_reserved(name)).cloned().collect();
    instance.attributes = attributes;
    instance.registered = registered;
    instance.version += 1;
    Ok(instance)
}

/// Attributes that the server adds to what the agent sends.
fn is_of_host(name: &str) -> bool {
    [ZONE_ATTRIBUTE, "ecs.ami-id", "ecs.instance-type", GROUP_ATTRIBUTE, PROVIDER_ATTRIBUTE].contains(&name)
}

/// Adds what ECS itself tells about a host: its instance id, zone, type and image.
fn describe_host(tx: &mut Tx<'_>, instance: &mut ContainerInstance, document: IdentityDocument) {
    // What EC2 knows of the machine counts, and no word of the agent's own.
    let machine = document.instance_id.as_deref();
    let group = machine.and_then(|machine| autoscaling::group_of(&tx.state.autoscaling, machine));
    if let Some(group) = group {
        instance.attributes.insert(GROUP_ATTRIBUTE.to_owned(), Some(group.to_string()));
    }
    if let Some(id) = machine.and_then(|machine| machine.parse().ok())
        && let Some(provider) = daemons::join(tx, id, &instance.cluster)
    {
        instance.attributes.insert(PROVIDER_ATTRIBUTE.to_owned(), Some(provider.to_string()));
        // Its daemons come first; without any it is let in at once.
        instance.status = ContainerInstanceStatus::Registering;
    }
    let prefix = if instance.attributes.contains_key(EXTERNAL_ATTRIBUTE) { "mi" } else { "i" };
    let made_up = || {
        let digits = format!("{:016x}", tx.random.next_u64());
        // As long as EC2's ids: 17 digits.
        format!("{prefix}-0{digits}")
    };
    if instance.ec2_instance_id.is_none() {
        instance.ec2_instance_id = Some(document.instance_id.unwrap_or_else(made_up));
    }
    // A machine of the user's own is in the region's first zone unless it says otherwise.
    let zone = document.availability_zone.unwrap_or_else(|| format!("{}a", tx.scope.region));
    let told = [
        (ZONE_ATTRIBUTE, Some(zone)),
        ("ecs.ami-id", document.image_id),
        ("ecs.instance-type", document.instance_type),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            instance.attributes.entry(name.to_owned()).or_insert(Some(value));
        }
    }
}

/// The instance that a single-instance operation names.
fn one(view: View<'_>, cluster: &ClusterName, text: &str) -> Result<ContainerInstance, EcsError> {
    let key = check::container_instance(view, cluster, text)?;
    let instance = key.and_then(|key| view.state.ecs.container_instance(&key)).cloned();
    instance.ok_or_else(|| EcsError::invalid("The referenced container instance was not found."))
}

pub fn deregister_container_instance(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeregisterContainerInstanceRequest,
) -> Result<ecs::DeregisterContainerInstanceResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    let mut instance = one(tx.view(), &cluster, &request.container_instance)?;
    if instance.status != ContainerInstanceStatus::Inactive {
        let key = ContainerInstanceKey { cluster, id: instance.id };
        let tasks: Vec<_> = tx.state.ecs.tasks_on(&key).cloned().collect();
        if !tasks.is_empty() && !request.force.unwrap_or(false) {
            return Err(EcsError::invalid("Found running tasks on the instance."));
        }
        for task in tasks {
            orphan(tx, task);
        }
        instance.status = ContainerInstanceStatus::Inactive;
        instance.agent_connected = false;
        instance.deregistered_at = Some(tx.now);
        instance.version += 1;
        tx.state.ecs.put_container_instance(instance.clone());
    }
    let shown = show(tx.view(), &instance, Include { tags: true, health: false });
    Ok(ecs::DeregisterContainerInstanceResponse { container_instance: Some(shown) })
}

/// Gives a task up: its containers may still run, but nobody will hear of them again, so it counts as stopped.
fn orphan(tx: &mut Tx<'_>, mut task: Task) {
    task.desired_status = DesiredStatus::Stopped;
    task.last_status = LastStatus::Stopped;
    task.stop_code.get_or_insert(StopCode::UserInitiated);
    task.stopped_reason.get_or_insert_with(|| "Container instance deregistration forced by user".to_owned());
    task.stopping_at.get_or_insert(tx.now);
    task.stopped_at = Some(tx.now);
    for container in &mut task.containers {
        container.last_status = ContainerStatus::Stopped;
    }
    if let Some(eni) = &mut task.eni {
        eni.attached = false;
    }
    task.version += 1;
    tx.state.ecs.put_task(task);
}

pub fn describe_container_instances(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeContainerInstancesRequest,
) -> Result<ecs::DescribeContainerInstancesResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    if request.container_instances.is_empty() {
        return Err(EcsError::invalid("Container instances cannot be empty."));
    }
    if request.container_instances.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DESCRIBE_MAX} container instances are allowed in one call."
        )));
    }
    let has = |name: &str| request.include.iter().flatten().any(|field| field.as_str() == name);
    let include = Include { tags: has("TAGS"), health: has("CONTAINER_INSTANCE_HEALTH") };
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for text in &request.container_instances {
        let key = check::container_instance(view, cluster, text)?;
        match key.and_then(|key| view.state.ecs.container_instance(&key)) {
            Some(instance) => instances.push(show(view, instance, include)),
            None => failures.push(failure(asked_arn(view, cluster, text), "MISSING")),
        }
    }
    Ok(ecs::DescribeContainerInstancesResponse {
        container_instances: Some(instances),
        failures: Some(failures),
    })
}

/// Sends an agent back to where it came in: control plane and telemetry have the same address.
pub fn discover_poll_endpoint(
    _view: View<'_>,
    call: &Call,
    _request: ecs::DiscoverPollEndpointRequest,
) -> Result<ecs::DiscoverPollEndpointResponse, EcsError> {
    let endpoint = |path: &str| Some(format!("{}{path}", call.endpoint));
    Ok(ecs::DiscoverPollEndpointResponse {
        endpoint: endpoint(ACS_PATH),
        telemetry_endpoint: endpoint(TCS_PATH),
        service_connect_endpoint: None,
    })
}

fn failure(arn: String, reason: &str) -> ecs::Failure {
    ecs::Failure { arn: Some(arn), reason: Some(reason.to_owned()), detail: None }
}

pub fn list_container_instances(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListContainerInstancesRequest,
) -> Result<ecs::ListContainerInstancesResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster.as_deref())?.name;
    let filter = match request.filter.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(Query::parse(text).map_err(|error| EcsError::invalid(error.to_string()))?),
    };
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let wanted = |instance: &ContainerInstance| match request.status {
        // A status that no instance of ours can have finds nothing.
        Some(wanted) => status(instance.status) == wanted.as_str(),
        None => instance.status != ContainerInstanceStatus::Inactive,
    };
    let instances = view.state.ecs.container_instances().iter();
    let instances = instances.filter(|(key, instance)| &key.cluster == cluster && wanted(instance));
    let meant = |key: &ContainerInstanceKey, instance: &ContainerInstance| match &filter {
        Some(filter) => {
            let tasks = view.state.ecs.tasks_on(key).collect();
            filter.matches(&InstanceCandidate { instance, tasks })
        }
        None => true,
    };
    let instances = instances.filter(|(key, instance)| meant(key, instance));
    let (container_instance_arns, next_token) = page.cut(
        instances.map(|(_, instance)| instance),
        |instance| instance.id.to_string(),
        |instance| instance.arn(view.scope).to_string(),
    );
    Ok(ecs::ListContainerInstancesResponse {
        container_instance_arns: Some(container_instance_arns),
        next_token,
    })
}

pub fn update_container_instances_state(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateContainerInstancesStateRequest,
) -> Result<ecs::UpdateContainerInstancesStateResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    if request.container_instances.is_empty() {
        return Err(EcsError::invalid("Container instances cannot be empty."));
    }
    if request.container_instances.len() > UPDATE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {UPDATE_MAX} container instances are allowed in one call."
        )));
    }
    let wanted = match request.status.as_str() {
        "ACTIVE" => ContainerInstanceStatus::Active,
        "DRAINING" => ContainerInstanceStatus::Draining,
        _ => return Err(EcsError::invalid("Container instance status should be one of [ACTIVE, DRAINING]")),
    };
    let (mut instances, mut failures) = (Vec::new(), Vec::new());
    for text in &request.container_instances {
        let key = check::container_instance(tx.view(), &cluster, text)?;
        match key.and_then(|key| tx.state.ecs.container_instance(&key)).cloned() {
            None => failures.push(failure(asked_arn(tx.view(), &cluster, text), "MISSING")),
            Some(instance) if instance.status == ContainerInstanceStatus::Inactive => {
                failures.push(failure(instance.arn(tx.scope).to_string(), "INACTIVE"));
            }
            Some(mut instance) => {
                if instance.status != wanted {
                    instance.status = wanted;
                    instance.version += 1;
                    tx.state.ecs.put_container_instance(instance.clone());
                }
                instances.push(show(tx.view(), &instance, Include { tags: true, health: false }));
            }
        }
    }
    Ok(ecs::UpdateContainerInstancesStateResponse {
        container_instances: Some(instances),
        failures: Some(failures),
    })
}

/// Agents are updated by who runs them: there is never an update to send.
pub fn update_container_agent(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateContainerAgentRequest,
) -> Result<ecs::UpdateContainerAgentResponse, EcsError> {
    let cluster = check::cluster(tx.view(), request.cluster.as_deref())?.name.clone();
    one(tx.view(), &cluster, &request.container_instance)?;
    Err(EcsError::NoUpdateAvailable)
}
