//! What the operations on services ask of IAM.

use super::resources::{arn_of, cluster_arn, cluster_name};
use crate::call::Demand;
use gantry_api::ecs;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::Scope;

fn service_arn(scope: &Scope, cluster: Option<&str>, text: &str) -> String {
    arn_of(scope, text, |name| Some(EcsResource::Service(cluster_name(cluster)?, name.parse().ok()?)))
}

pub fn create_service(request: &ecs::CreateServiceRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:CreateService", service_arn(scope, request.cluster.as_deref(), &request.service_name))
}

pub fn update_service(request: &ecs::UpdateServiceRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:UpdateService", service_arn(scope, request.cluster.as_deref(), &request.service))
}

pub fn delete_service(request: &ecs::DeleteServiceRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:DeleteService", service_arn(scope, request.cluster.as_deref(), &request.service))
}

pub fn describe_services(request: &ecs::DescribeServicesRequest, scope: &Scope) -> Demand {
    let on = |text: &String| service_arn(scope, request.cluster.as_deref(), text);
    Demand { action: "ecs:DescribeServices", resources: request.services.iter().map(on).collect() }
}

pub fn list_services(request: &ecs::ListServicesRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:ListServices", cluster_arn(scope, request.cluster.as_deref()))
}

pub fn describe_service_deployments(request: &ecs::DescribeServiceDeploymentsRequest, _: &Scope) -> Demand {
    Demand { action: "ecs:DescribeServiceDeployments", resources: request.service_deployment_arns.clone() }
}

pub fn describe_service_revisions(request: &ecs::DescribeServiceRevisionsRequest, _: &Scope) -> Demand {
    Demand { action: "ecs:DescribeServiceRevisions", resources: request.service_revision_arns.clone() }
}

pub fn list_service_deployments(request: &ecs::ListServiceDeploymentsRequest, scope: &Scope) -> Demand {
    let service = service_arn(scope, request.cluster.as_deref(), &request.service);
    Demand::on("ecs:ListServiceDeployments", service)
}

pub fn continue_service_deployment(request: &ecs::ContinueServiceDeploymentRequest, _: &Scope) -> Demand {
    Demand::on("ecs:ContinueServiceDeployment", request.service_deployment_arn.clone())
}

pub fn stop_service_deployment(request: &ecs::StopServiceDeploymentRequest, _: &Scope) -> Demand {
    Demand::on("ecs:StopServiceDeployment", request.service_deployment_arn.clone())
}

/// Task sets are named by their id or ARN, those of a service that are not named at all.
fn task_set_arn(scope: &Scope, cluster: &str, service: &str, text: &str) -> String {
    arn_of(scope, text, |id| {
        let EcsArn { resource, .. } = service_arn(scope, Some(cluster), service).parse().ok()?;
        let EcsResource::Service(cluster, name) = resource else { return None };
        Some(EcsResource::TaskSet(cluster, name, id.parse().ok()?))
    })
}

pub fn create_task_set(request: &ecs::CreateTaskSetRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:CreateTaskSet", service_arn(scope, Some(&request.cluster), &request.service))
}

pub fn update_task_set(request: &ecs::UpdateTaskSetRequest, scope: &Scope) -> Demand {
    let set = task_set_arn(scope, &request.cluster, &request.service, &request.task_set);
    Demand::on("ecs:UpdateTaskSet", set)
}

pub fn delete_task_set(request: &ecs::DeleteTaskSetRequest, scope: &Scope) -> Demand {
    let set = task_set_arn(scope, &request.cluster, &request.service, &request.task_set);
    Demand::on("ecs:DeleteTaskSet", set)
}

pub fn describe_task_sets(request: &ecs::DescribeTaskSetsRequest, scope: &Scope) -> Demand {
    let named = request.task_sets.as_deref().unwrap_or_default();
    let on = |text: &String| task_set_arn(scope, &request.cluster, &request.service, text);
    let mut resources: Vec<_> = named.iter().map(on).collect();
    if resources.is_empty() {
        resources.push(service_arn(scope, Some(&request.cluster), &request.service));
    }
    Demand { action: "ecs:DescribeTaskSets", resources }
}

pub fn update_service_primary_task_set(
    request: &ecs::UpdateServicePrimaryTaskSetRequest,
    scope: &Scope,
) -> Demand {
    let service = service_arn(scope, Some(&request.cluster), &request.service);
    Demand::on("ecs:UpdateServicePrimaryTaskSet", service)
}
