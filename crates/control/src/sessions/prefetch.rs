//! Hints to agents which images tasks of a service are going to need, so that they are there when the tasks come.
//!
//! An extension of ours: only agents that announce [`PREFETCH_ATTRIBUTE`] hear of it, once for each deployment and again
//! when its tags are resolved. Nobody acknowledges a hint, and none is needed for a task to run.

use super::SessionOutput;
use crate::services::ecs::placement::{self, InstancePool};
use crate::services::ecs::state::{
    ContainerInstance, Deployment, Service, ServiceKey, ServiceStatus, TaskDefinitionRecord,
};
use crate::state::ScopeState;
use gantry_api::acs;
use gantry_decide::ids::{ClusterName, DeploymentId, RequestId, Scope};
use gantry_decide::placement::{Refusal, Request};
use gantry_decide::random::Random;
use gantry_decide::task::ContainerDefinition;
use gantry_store::Record;
use gantry_wire::envelope::seal;
use std::cell::OnceCell;

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

/// What agents are told of one service, worked out as far as it is the same for all of them: in a large cluster few are
/// told at all.
pub struct Hint<'a> {
    scope: &'a Scope,
    key: &'a ServiceKey,
    /// None once the service is gone: it needs no image any more.
    ahead: Option<Ahead<'a>>,
}

/// What is fetched ahead, and where.
struct Ahead<'a> {
    service: &'a Service,
    primary: &'a Deployment,
    definition: &'a TaskDefinitionRecord,
    /// Whose instances the service's tasks are placed on.
    cluster: ClusterName,
    pool: InstancePool,
    request: OnceCell<Request>,
}

impl<'a> Hint<'a> {
    /// None where nobody is told anything.
    pub fn of(scope: &'a Scope, state: &'a ScopeState, key: &'a ServiceKey) -> Option<Hint<'a>> {
        let service = state.ecs.service(key).filter(|service| service.status == ServiceStatus::Active);
        let ahead = match service {
            Some(service) => Some(Ahead::of(state, service)?),
            None => None,
        };
        Some(Hint { scope, key, ahead })
    }

    /// What to tell an instance's agent; nothing if the service's tasks would not come here.
    pub fn tell(&self, instance: &ContainerInstance, random: &mut dyn Random) -> Option<SessionOutput> {
        let concerned = is_told(instance) && self.ahead.as_ref().is_none_or(|ahead| ahead.concerns(instance));
        if !concerned {
            return None;
        }
        let message = acs::PrefetchImagesMessage {
            message_id: Some(RequestId::random(random).to_string()),
            service_arn: Some(self.key.arn(self.scope).to_string()),
            images: Some(self.ahead.as_ref().map_or_else(Vec::new, Ahead::images)),
        };
        Some(SessionOutput::Send(seal("PrefetchImagesMessage", &message)))
    }
}

/// Whether the instance's agent fetches images ahead.
pub fn is_told(instance: &ContainerInstance) -> bool {
    instance.attributes.contains_key(PREFETCH_ATTRIBUTE)
}

impl<'a> Ahead<'a> {
    fn of(state: &'a ScopeState, service: &'a Service) -> Option<Ahead<'a>> {
        let primary = service.primary()?;
        let definition = state.ecs.task_definitions.get(&primary.task_definition)?;
        let cluster = placement::pool_name(&service.cluster, primary.compute.launch_type());
        let pool = state.ecs.pool(&cluster);
        Some(Ahead { service, primary, definition, cluster, pool, request: OnceCell::new() })
    }

    /// Whether the instance is one of those that fetch, and tasks may come to it. What costs least is asked first.
    fn concerns(&self, instance: &ContainerInstance) -> bool {
        let hosts = u64::try_from(self.pool.len()).unwrap_or(u64::MAX);
        let wanted = (u64::from(self.service.desired_count) * 2).max(HOSTS_MIN);
        if instance.cluster != self.cluster
            || hosts > wanted && share(self.primary.id, instance) % hosts >= wanted
        {
            return false;
        }
        let request = self.request.get_or_init(|| {
            placement::request(
                &self.definition.definition,
                self.primary.compute.launch_type(),
                &self.service.group(),
                &self.service.placement_constraints,
                &[],
            )
        });
        let never = [Refusal::Inactive, Refusal::Attribute, Refusal::MemberOf];
        let host = self.pool.host(&instance.key());
        host.is_some_and(|host| host.refuses(request).is_none_or(|refusal| !never.contains(&refusal)))
    }

    fn images(&self) -> Vec<String> {
        let digests = self.primary.image_digests.as_ref();
        let containers = self.definition.definition.container_definitions.iter();
        // Credentials of a task's own are given to the task alone.
        let open = containers.filter(|container| container.repository_credentials.is_none());
        let name = |container: &ContainerDefinition| match digests
            .and_then(|digests| digests.get(&container.name))
        {
            Some(digest) => format!("{}@{digest}", container.image),
            None => container.image.clone(),
        };
        open.map(name).collect()
    }
}

/// A number that spreads deployments evenly over instances: FNV-1a.
fn share(deployment: DeploymentId, instance: &ContainerInstance) -> u64 {
    let bytes = deployment.number().to_be_bytes().into_iter().chain(instance.id.to_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
