//! What the operations on managed daemons ask of IAM.

use super::resources::{arn_of, cluster_arn, cluster_name};
use crate::call::Demand;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::Scope;

fn definition_arn(scope: &Scope, text: &str) -> String {
    arn_of(scope, text, |id| id.parse().ok().map(EcsResource::DaemonTaskDefinition))
}

pub fn register_daemon_task_definition(_: &ecs::RegisterDaemonTaskDefinitionRequest, _: &Scope) -> Demand {
    Demand::on_all("ecs:RegisterDaemonTaskDefinition")
}

pub fn list_daemon_task_definitions(_: &ecs::ListDaemonTaskDefinitionsRequest, _: &Scope) -> Demand {
    Demand::on_all("ecs:ListDaemonTaskDefinitions")
}

pub fn describe_daemon_task_definition(
    request: &ecs::DescribeDaemonTaskDefinitionRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ecs:DescribeDaemonTaskDefinition", definition_arn(scope, &request.daemon_task_definition))
}

pub fn delete_daemon_task_definition(
    request: &ecs::DeleteDaemonTaskDefinitionRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ecs:DeleteDaemonTaskDefinition", definition_arn(scope, &request.daemon_task_definition))
}

pub fn create_daemon(request: &ecs::CreateDaemonRequest, scope: &Scope) -> Demand {
    let name = |text: &str| {
        Some(EcsResource::Daemon(cluster_name(request.cluster_arn.as_deref())?, text.parse().ok()?))
    };
    Demand::on("ecs:CreateDaemon", arn_of(scope, &request.daemon_name, name))
}

pub fn update_daemon(request: &ecs::UpdateDaemonRequest, _: &Scope) -> Demand {
    Demand::on("ecs:UpdateDaemon", request.daemon_arn.clone())
}

pub fn delete_daemon(request: &ecs::DeleteDaemonRequest, _: &Scope) -> Demand {
    Demand::on("ecs:DeleteDaemon", request.daemon_arn.clone())
}

pub fn describe_daemon(request: &ecs::DescribeDaemonRequest, _: &Scope) -> Demand {
    Demand::on("ecs:DescribeDaemon", request.daemon_arn.clone())
}

pub fn list_daemons(request: &ecs::ListDaemonsRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:ListDaemons", cluster_arn(scope, request.cluster_arn.as_deref()))
}

pub fn list_daemon_deployments(request: &ecs::ListDaemonDeploymentsRequest, _: &Scope) -> Demand {
    Demand::on("ecs:ListDaemonDeployments", request.daemon_arn.clone())
}

pub fn describe_daemon_deployments(request: &ecs::DescribeDaemonDeploymentsRequest, _: &Scope) -> Demand {
    Demand { action: "ecs:DescribeDaemonDeployments", resources: request.daemon_deployment_arns.clone() }
}

pub fn describe_daemon_revisions(request: &ecs::DescribeDaemonRevisionsRequest, _: &Scope) -> Demand {
    Demand { action: "ecs:DescribeDaemonRevisions", resources: request.daemon_revision_arns.clone() }
}
