//! Hints to agents which images tasks of a service are going to need, so that they are there when the tasks come.
//!
//! An extension of ours: only agents that announce [`PREFETCH_ATTRIBUTE`] hear of it, once for each deployment and again
//! when its tags are resolved. Nobody acknowledges a hint, and none is needed for a task to run.

use super::SessionOutput;
use crate::services::ecs::placement;
use crate::services::ecs::state::{ContainerInstance, Service, ServiceKey, ServiceStatus};
use crate::state::ScopeState;
use gantry_api::acs;
use gantry_decide::ids::{ClusterName, DeploymentId, RequestId, Scope};
use gantry_decide::placement::Refusal;
use gantry_decide::random::Random;
use gantry_store::Record;
use gantry_wire::envelope::seal;

/// What an agent announces that fetches images ahead.
pub const PREFETCH_ATTRIBUTE: &str = "gantry.image-prefetch";
/// Hosts that fetch a service's images ahead, or twice its desired count if that is more: a registry must not be asked
/// by a thousand hosts for a service of one task.
const HOSTS_MIN: u64 = 10;

/// What a hint depends on: another one follows when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hinted {
    deployment: Option<DeploymentId>,
    resolved: bool,
}

impl Hinted {
    pub fn of(service: Option<&Service>) -> Hinted {
        let primary =
            service.filter(|service| service.status == ServiceStatus::Active).and_then(Service::primary);
        Hinted {
            deployment: primary.map(|primary| primary.id),
            resolved: primary.is_some_and(|primary| primary.image_digests.is_some()),
        }
    }
}

/// The cluster whose instances the service's tasks are placed on.
pub fn pool(service: &Service) -> Option<ClusterName> {
    let primary = service.primary()?;
    Some(placement::pool_name(&service.cluster, primary.compute.launch_type()))
}

/// What to tell an instance's agent of a service; nothing if its tasks would not come here. A service that is gone needs
/// no image any more.
pub fn hint(
    scope: &Scope,
    state: &ScopeState,
    key: &ServiceKey,
    instance: &ContainerInstance,
    random: &mut dyn Random,
) -> Option<SessionOutput> {
    if !instance.attributes.contains_key(PREFETCH_ATTRIBUTE) {
        return None;
    }
    let service = state.ecs.service(key).filter(|service| service.status == ServiceStatus::Active);
    let images = match service {
        Some(service) => images(state, service, instance)?,
        None => Vec::new(),
    };
    let message = acs::PrefetchImagesMessage {
        message_id: Some(RequestId::random(random).to_string()),
        service_arn: Some(key.arn(scope).to_string()),
        images: Some(images),
    };
    Some(SessionOutput::Send(seal("PrefetchImagesMessage", &message)))
}

fn images(state: &ScopeState, service: &Service, instance: &ContainerInstance) -> Option<Vec<String>> {
    let primary = service.primary()?;
    let cluster = pool(service).filter(|cluster| *cluster == instance.key().cluster)?;
    let record = state.ecs.task_definitions.get(&primary.task_definition)?;
    let pool = state.ecs.pool(&cluster);
    let request = placement::request(
        &record.definition,
        primary.compute.launch_type(),
        &service.group(),
        &service.placement_constraints,
        &[],
    );
    let never = [Refusal::Inactive, Refusal::Attribute, Refusal::MemberOf];
    if pool.host(&instance.key())?.refuses(&request).is_some_and(|refusal| never.contains(&refusal)) {
        return None;
    }
    let hosts = u64::try_from(pool.len()).unwrap_or(u64::MAX);
    let wanted = (u64::from(service.desired_count) * 2).max(HOSTS_MIN);
    if hosts > wanted && share(primary.id, instance) % hosts >= wanted {
        return None;
    }
    let digests = primary.image_digests.as_ref();
    let containers = record.definition.container_definitions.iter();
    // Credentials of a task's own are given to the task alone.
    let open = containers.filter(|container| container.repository_credentials.is_none());
    let name = |container: &gantry_decide::task::ContainerDefinition| match digests
        .and_then(|digests| digests.get(&container.name))
    {
        Some(digest) => format!("{}@{digest}", container.image),
        None => container.image.clone(),
    };
    Some(open.map(name).collect())
}

/// A number that spreads deployments evenly over instances: FNV-1a.
fn share(deployment: DeploymentId, instance: &ContainerInstance) -> u64 {
    let text = format!("{deployment} {}", instance.id);
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
