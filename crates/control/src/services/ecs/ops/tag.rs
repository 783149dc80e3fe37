//! Tags of every resource that can have them.

use crate::call::Call;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{
    CapacityProvider, ContainerInstanceKey, ContainerInstanceStatus, DaemonKey, ServiceKey, Tags,
    TaskDefinitionStatus, TaskKey,
};
use crate::services::ecs::{check, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;

/// Keys in one UntagResource: as many as a resource can have.
const KEYS_MAX: usize = tags::TAGS_MAX;

/// The tags of the resource that an ARN names.
fn tags_of(view: View<'_>, resource: &EcsResource) -> Result<Tags, EcsError> {
    let missing = |what: &str| EcsError::ResourceNotFound(format!("The specified {what} was not found."));
    let ecs = &view.state.ecs;
    match resource {
        EcsResource::Cluster(name) => {
            match ecs.clusters.get(name).filter(|cluster| !cluster.is_fargate_pool()) {
                Some(cluster) if cluster.is_active() => Ok(cluster.tags.clone()),
                Some(_) => Err(EcsError::ClusterInactive),
                None => Err(EcsError::ClusterNotFound),
            }
        }
        EcsResource::Service(cluster, name) => {
            let key = ServiceKey { cluster: cluster.clone(), name: name.clone() };
            ecs.service(&key).map(|service| service.tags.clone()).ok_or_else(|| missing("service"))
        }
        EcsResource::TaskSet(cluster, name, id) => {
            let service = ecs.service(&ServiceKey { cluster: cluster.clone(), name: name.clone() });
            let sets = service.into_iter().flat_map(|service| &service.deployments);
            let set = sets.filter(|set| set.id == *id).find_map(|set| set.task_set.as_ref());
            set.map(|set| set.tags.clone()).ok_or_else(|| missing("task set"))
        }
        EcsResource::ServiceShort(_) => {
            Err(EcsError::invalid("Long arn format must be used for tagging operations"))
        }
        EcsResource::Task(cluster, id) => {
            let key = TaskKey { cluster: cluster.clone(), id: *id };
            ecs.task(&key).map(|task| task.tags.clone()).ok_or_else(|| missing("task"))
        }
        EcsResource::ContainerInstance(cluster, id) => {
            let key = ContainerInstanceKey { cluster: cluster.clone(), id: *id };
            let instance = ecs.container_instance(&key);
            let instance = instance.filter(|instance| instance.status != ContainerInstanceStatus::Inactive);
            instance.map(|instance| instance.tags.clone()).ok_or_else(|| missing("container instance"))
        }
        EcsResource::TaskDefinition(id) => match ecs.task_definitions.get(id) {
            Some(record) if record.status == TaskDefinitionStatus::Active => Ok(record.tags.clone()),
            Some(_) => Err(EcsError::invalid(
                "The specified task definition is inactive. Specify an active task definition and try again.",
            )),
            None => Err(missing("task definition")),
        },
        EcsResource::CapacityProvider(name) => match ecs.capacity_providers.get(name) {
            Some(provider) if provider.is_active() => Ok(provider.tags.clone()),
            _ if CapacityProvider::built_in(name).is_some() => Err(EcsError::invalid(
                "Tagging is not supported for the capacity providers FARGATE and FARGATE_SPOT.",
            )),
            _ => Err(missing("capacity provider")),
        },
        EcsResource::Daemon(cluster, name) => {
            let key = DaemonKey { cluster: cluster.clone(), name: name.clone() };
            ecs.daemons.daemons.get(&key).map(|daemon| daemon.tags.clone()).ok_or_else(|| missing("daemon"))
        }
        EcsResource::DaemonTaskDefinition(id) => {
            let record = ecs.daemons.definitions.get(id);
            record.map(|record| record.tags.clone()).ok_or_else(|| missing("daemon task definition"))
        }
        EcsResource::Container(..)
        | EcsResource::DaemonDeployment(..)
        | EcsResource::DaemonRevision(..)
        | EcsResource::ServiceDeployment(..)
        | EcsResource::ServiceRevision(..) => {
            Err(EcsError::invalid("Tagging is not supported for this kind of resource."))
        }
    }
}

fn put(tx: &mut Tx<'_>, resource: EcsResource, tags: Tags) {
    let ecs = &mut tx.state.ecs;
    match resource {
        EcsResource::Cluster(name) => {
            if let Some(cluster) = ecs.clusters.get(&name).cloned() {
                let mut cluster = cluster.as_ref().clone();
                cluster.tags = tags;
                ecs.clusters.put(cluster);
            }
        }
        EcsResource::Service(cluster, name) => {
            if let Some(mut service) = ecs.service(&ServiceKey { cluster, name }).cloned() {
                service.tags = tags;
                ecs.put_service(service);
            }
        }
        EcsResource::TaskSet(cluster, name, id) => {
            if let Some(mut service) = ecs.service(&ServiceKey { cluster, name }).cloned() {
                let set = service.deployments.iter_mut().find(|set| set.id == id);
                if let Some(set) = set.and_then(|set| set.task_set.as_mut()) {
                    set.tags = tags;
                }
                ecs.put_service(service);
            }
        }
        EcsResource::Task(cluster, id) => {
            if let Some(mut task) = ecs.task(&TaskKey { cluster, id }).cloned() {
                task.tags = tags;
                ecs.put_task(task);
            }
        }
        EcsResource::ContainerInstance(cluster, id) => {
            if let Some(mut instance) = ecs.container_instance(&ContainerInstanceKey { cluster, id }).cloned()
            {
                instance.tags = tags;
                ecs.put_container_instance(instance);
            }
        }
        EcsResource::TaskDefinition(id) => {
            if let Some(record) = ecs.task_definitions.get(&id).cloned() {
                let mut record = record.as_ref().clone();
                record.tags = tags;
                ecs.task_definitions.put(record);
            }
        }
        EcsResource::CapacityProvider(name) => {
            if let Some(provider) = ecs.capacity_providers.get(&name).cloned() {
                let mut provider = provider.as_ref().clone();
                provider.tags = tags;
                ecs.capacity_providers.put(provider);
            }
        }
        EcsResource::Daemon(cluster, name) => {
            ecs.daemons.daemons.edit(&DaemonKey { cluster, name }, |daemon| daemon.tags = tags);
        }
        EcsResource::DaemonTaskDefinition(id) => {
            ecs.daemons.definitions.edit(&id, |record| record.tags = tags);
        }
        // `tags_of` has refused these.
        EcsResource::ServiceShort(_)
        | EcsResource::Container(..)
        | EcsResource::DaemonDeployment(..)
        | EcsResource::DaemonRevision(..)
        | EcsResource::ServiceDeployment(..)
        | EcsResource::ServiceRevision(..) => {}
    }
}

pub fn tag_resource(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::TagResourceRequest,
) -> Result<ecs::TagResourceResponse, EcsError> {
    let resource = check::own_arn(tx.view(), &request.resource_arn)?;
    let more = tags::read(Some(&request.tags))?;
    if more.is_empty() {
        return Err(EcsError::invalid("Tags cannot be empty."));
    }
    let mut merged = tags_of(tx.view(), &resource)?;
    tags::merge(&mut merged, more)?;
    put(tx, resource, merged);
    Ok(ecs::TagResourceResponse::default())
}

pub fn untag_resource(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UntagResourceRequest,
) -> Result<ecs::UntagResourceResponse, EcsError> {
    let resource = check::own_arn(tx.view(), &request.resource_arn)?;
    if request.tag_keys.is_empty() {
        return Err(EcsError::invalid("Tag keys cannot be empty."));
    }
    if request.tag_keys.len() > KEYS_MAX {
        return Err(EcsError::invalid(format!("At most {KEYS_MAX} tag keys are allowed.")));
    }
    let mut left = tags_of(tx.view(), &resource)?;
    for key in &request.tag_keys {
        tags::check_key(key)?;
        left.remove(key);
    }
    put(tx, resource, left);
    Ok(ecs::UntagResourceResponse::default())
}

pub fn list_tags_for_resource(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListTagsForResourceRequest,
) -> Result<ecs::ListTagsForResourceResponse, EcsError> {
    let resource = check::own_arn(view, &request.resource_arn)?;
    let tags = match &resource {
        // Deregistered revisions cannot be tagged any more, but what they have can be read.
        EcsResource::TaskDefinition(id) if view.state.ecs.task_definitions.get(id).is_some() => {
            view.state.ecs.task_definitions.get(id).map(|record| record.tags.clone()).unwrap_or_default()
        }
        _ => tags_of(view, &resource)?,
    };
    Ok(ecs::ListTagsForResourceResponse { tags: Some(tags::show(&tags)) })
}
