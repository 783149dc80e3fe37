//! What the operations on services ask of IAM.

use super::resources::{arn_of, cluster_arn, cluster_name};
use crate::call::Demand;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
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
