//! What a request may name: a service, a task or an instance, by ARN, name or the first characters of an id.

use super::errors::GantryError;
use crate::services::ecs::check::{cluster_name, own_arn};
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceKey, Service, ServiceKey, Task, TaskKey,
};
use crate::tx::View;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ClusterName, ContainerInstanceId, ServiceName, TaskId};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Things that an error lists when several are meant.
const COULD_BE_MAX: usize = 8;
/// Hexadecimal digits of an id.
const ID_LENGTH: usize = 32;

/// Something in the tables that can be explained.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Service(&'a Service),
    Task(&'a Task),
    Instance(&'a ContainerInstance),
}

impl Subject<'_> {
    pub fn resource(&self) -> EcsResource {
        match self {
            Subject::Service(service) => EcsResource::Service(service.cluster.clone(), service.name.clone()),
            Subject::Task(task) => EcsResource::Task(task.cluster.clone(), task.id),
            Subject::Instance(instance) => {
                EcsResource::ContainerInstance(instance.cluster.clone(), instance.id)
            }
        }
    }
}

/// What a text means.
#[derive(Clone, Debug)]
pub enum Meant<'a> {
    /// Something that is there.
    Known(Subject<'a>),
    /// What an ARN names, which is not there any more.
    Gone(EcsResource),
    /// Something that is not there, if it ever was: the text itself, of the characters of names and ids.
    Unknown(String),
}

/// The cluster that a request names, if it names one.
///
/// # Errors
/// For one that does not exist, and for text that can name none.
pub fn cluster(view: View<'_>, text: Option<&str>) -> Result<Option<ClusterName>, GantryError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let name = cluster_name(view, Some(text))?;
    // The Fargate pool is there with its first host.
    if view.state.ecs.clusters.contains_key(&name) || !view.state.ecs.pool(&name).is_empty() {
        return Ok(Some(name));
    }
    Err(crate::services::ecs::errors::EcsError::ClusterNotFound.into())
}

/// What is meant, in `cluster` or in any.
///
/// # Errors
/// When several things are meant, or the text can mean none.
pub fn subject<'a>(
    view: View<'a>,
    cluster: Option<&ClusterName>,
    text: &str,
) -> Result<Meant<'a>, GantryError> {
    let ecs = &view.state.ecs;
    if text.starts_with("arn:") {
        return named(view, cluster, own_arn(view, text)?);
    }
    // As events name it.
    if let Some(resource) = text.parse::<EcsResource>().ok().filter(|_| text.contains('/')) {
        return named(view, cluster, resource);
    }
    let belongs = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !text.chars().all(belongs) {
        let message = "A subject is an ARN or its last part, the name of a service, or the id of a task or container instance.";
        return Err(GantryError::InvalidParameter(message.to_owned()));
    }
    let inside = |of: &ClusterName| cluster.is_none_or(|wanted| wanted == of);
    let services = ecs.services().values().filter(|service| service.name.as_str() == text);
    let mut found: Vec<Subject<'a>> = services
        .filter(|service| inside(&service.cluster))
        .map(|service| Subject::Service(service.as_ref()))
        .collect();
    // A name is meant as such before it is taken for the beginning of an id.
    if found.is_empty() {
        if let Some(ids) = ids::<TaskId>(text) {
            let keys = |cluster: &ClusterName| {
                let key = |id: &TaskId| TaskKey { cluster: cluster.clone(), id: *id };
                key(ids.start())..=key(ids.end())
            };
            let clusters = ecs.clusters.values().map(|cluster| &cluster.name).filter(|name| inside(name));
            let tasks = clusters.flat_map(|name| ecs.tasks().range(keys(name)).take(COULD_BE_MAX + 1));
            found.extend(tasks.map(|(_, task)| Subject::Task(task.as_ref())));
        }
        if let Some(ids) = ids::<ContainerInstanceId>(text) {
            let instances = ecs.container_instances().values();
            let instances = instances.filter(|i| ids.contains(&i.id) && inside(&i.cluster));
            found.extend(instances.take(COULD_BE_MAX + 1).map(|i| Subject::Instance(i.as_ref())));
        }
    }
    match found.as_slice() {
        [] => Ok(Meant::Unknown(text.to_owned())),
        [one] => Ok(Meant::Known(*one)),
        several => Err(ambiguous(text, several.iter().map(Subject::resource))),
    }
}

/// The error that lists what could be meant.
pub fn ambiguous(text: &str, resources: impl IntoIterator<Item = EcsResource>) -> GantryError {
    let mut could_be: Vec<String> = resources.into_iter().map(|resource| resource.to_string()).collect();
    if could_be.len() > COULD_BE_MAX {
        could_be.truncate(COULD_BE_MAX);
        could_be.push("and more".to_owned());
    }
    GantryError::AmbiguousSubject { text: text.to_owned(), could_be }
}

/// What an ARN names.
fn named<'a>(
    view: View<'a>,
    cluster: Option<&ClusterName>,
    resource: EcsResource,
) -> Result<Meant<'a>, GantryError> {
    let ecs = &view.state.ecs;
    let service = |cluster: ClusterName, name: ServiceName| {
        let key = ServiceKey { cluster: cluster.clone(), name: name.clone() };
        let known = ecs.service(&key).map(|service| Meant::Known(Subject::Service(service)));
        known.unwrap_or(Meant::Gone(EcsResource::Service(cluster, name)))
    };
    Ok(match resource {
        EcsResource::Service(cluster, name)
        | EcsResource::TaskSet(cluster, name, _)
        | EcsResource::ServiceDeployment(cluster, name, _)
        | EcsResource::ServiceRevision(cluster, name, _) => service(cluster, name),
        EcsResource::ServiceShort(name) => {
            service(cluster.cloned().unwrap_or_else(ClusterName::default_cluster), name)
        }
        EcsResource::Task(cluster, id) | EcsResource::Container(cluster, id, _) => {
            let known = ecs.task(&TaskKey { cluster: cluster.clone(), id });
            known
                .map_or(Meant::Gone(EcsResource::Task(cluster, id)), |task| Meant::Known(Subject::Task(task)))
        }
        EcsResource::ContainerInstance(cluster, id) => {
            let known = ecs.container_instance(&ContainerInstanceKey { cluster: cluster.clone(), id });
            let gone = Meant::Gone(EcsResource::ContainerInstance(cluster, id));
            known.map_or(gone, |instance| Meant::Known(Subject::Instance(instance)))
        }
        EcsResource::Cluster(_)
        | EcsResource::TaskDefinition(_)
        | EcsResource::CapacityProvider(_)
        | EcsResource::Daemon(..)
        | EcsResource::DaemonTaskDefinition(_)
        | EcsResource::DaemonDeployment(..)
        | EcsResource::DaemonRevision(..) => {
            let message = "Services, tasks and container instances can be explained.";
            return Err(GantryError::InvalidParameter(message.to_owned()));
        }
    })
}

/// The ids that begin with these digits.
fn ids<I: FromStr>(digits: &str) -> Option<RangeInclusive<I>> {
    let filled = |with: &str| {
        let missing = ID_LENGTH.checked_sub(digits.len())?;
        format!("{digits}{}", with.repeat(missing)).parse().ok()
    };
    Some(filled("0")?..=filled("f")?)
}
