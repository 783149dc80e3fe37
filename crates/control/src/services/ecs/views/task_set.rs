//! Task sets as the API shows them.

use super::service::{asked_platform, compute, count, integer, network};
use crate::services::ecs::state::{
    ContainerInstanceStatus, Deployment, LaunchType, Service, ServiceKey, Task, TaskSet,
};
use crate::services::ecs::views::task::millis;
use crate::services::ecs::{balanced, tags};
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::DeploymentId;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_store::Record;

/// All of a service, without their tags.
pub fn all(view: View<'_>, service: &Service) -> Vec<ecs::TaskSet> {
    service.deployments.iter().filter_map(|deployment| task_set(view, service, deployment, false)).collect()
}

pub fn arn(view: View<'_>, service: ServiceKey, id: DeploymentId) -> String {
    view.scope.ecs(EcsResource::TaskSet(service.cluster, service.name, id)).to_string()
}

/// What is a task set; its tags only where they were asked for.
pub fn task_set(
    view: View<'_>,
    service: &Service,
    deployment: &Deployment,
    with_tags: bool,
) -> Option<ecs::TaskSet> {
    let set = deployment.task_set.as_ref()?;
    let own = |task: &&Task| {
        task.desired_status == DesiredStatus::Running && task.deployment() == Some(deployment.id)
    };
    let tasks: Vec<&Task> = view.state.ecs.tasks_of(&service.key()).filter(own).collect();
    let (launch_type, strategy) = compute(Some(&deployment.compute));
    let fargate = deployment.compute.launch_type() == LaunchType::Fargate;
    let scope = view.scope;
    Some(ecs::TaskSet {
        capacity_provider_strategy: strategy,
        cluster_arn: Some(scope.ecs(EcsResource::Cluster(service.cluster.clone())).to_string()),
        computed_desired_count: Some(integer(service.computed(set))),
        created_at: millis(Some(deployment.created_at)),
        external_id: set.external_id.clone(),
        id: Some(deployment.id.to_string()),
        launch_type,
        load_balancers: Some(balanced::show(view, deployment.load_balancers.as_deref().unwrap_or_default())),
        network_configuration: deployment.network.as_ref().map(network),
        pending_count: Some(count(&tasks, |task| task.last_status < LastStatus::Running)),
        platform_family: fargate.then(|| "Linux".to_owned()),
        platform_version: fargate.then(|| asked_platform(deployment)),
        running_count: Some(count(&tasks, |task| task.last_status == LastStatus::Running)),
        scale: Some(ecs::Scale { unit: Some(ecs::ScaleUnit::Percent), value: Some(set.scale.percent()) }),
        service_arn: Some(service.arn(scope).to_string()),
        service_registries: Some(Vec::new()),
        stability_status: Some(stability(view, service, set, &tasks)),
        // ECS documents it as the time at which the status was looked up.
        stability_status_at: millis(Some(view.now)),
        status: Some(set.status.as_str().to_owned()),
        tags: with_tags.then(|| tags::show(&set.tags)),
        task_definition: Some(
            scope.ecs(EcsResource::TaskDefinition(deployment.task_definition.clone())).to_string(),
        ),
        task_set_arn: Some(arn(view, service.key(), deployment.id)),
        updated_at: millis(Some(deployment.updated_at)),
        ..Default::default()
    })
}

/// Steady is, as ECS documents it, who has exactly the tasks it shall have, all of which run and are well, none on an
/// instance that is being emptied.
fn stability(view: View<'_>, service: &Service, set: &TaskSet, tasks: &[&Task]) -> ecs::StabilityStatus {
    let stays = |task: &&Task| {
        let instance = task.instance.as_ref().and_then(|key| view.state.ecs.container_instance(key));
        task.last_status == LastStatus::Running
            && !instance.is_some_and(|instance| instance.status == ContainerInstanceStatus::Draining)
    };
    let counted = tasks.len() == service.computed(set) as usize;
    match set.steady && counted && tasks.iter().all(stays) {
        true => ecs::StabilityStatus::SteadyState,
        false => ecs::StabilityStatus::Stabilizing,
    }
}
