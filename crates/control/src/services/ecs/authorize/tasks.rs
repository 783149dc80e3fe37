//! What the operations on tasks, and agents' reports on them, ask of IAM.

use super::resources::{arn_of, cluster_arn, cluster_name, definition_arn, instance_arn};
use crate::call::Demand;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::Scope;

fn task_arn(scope: &Scope, cluster: Option<&str>, text: &str) -> String {
    arn_of(scope, text, |id| Some(EcsResource::Task(cluster_name(cluster)?, id.parse().ok()?)))
}

pub fn run_task(request: &ecs::RunTaskRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:RunTask", definition_arn(scope, &request.task_definition))
}

pub fn start_task(request: &ecs::StartTaskRequest, scope: &Scope) -> Demand {
    let on = |text: &String| instance_arn(scope, request.cluster.as_deref(), text);
    let mut resources = vec![definition_arn(scope, &request.task_definition)];
    resources.extend(request.container_instances.iter().map(on));
    Demand { action: "ecs:StartTask", resources }
}

pub fn stop_task(request: &ecs::StopTaskRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:StopTask", task_arn(scope, request.cluster.as_deref(), &request.task))
}

pub fn describe_tasks(request: &ecs::DescribeTasksRequest, scope: &Scope) -> Demand {
    let on = |text: &String| task_arn(scope, request.cluster.as_deref(), text);
    Demand { action: "ecs:DescribeTasks", resources: request.tasks.iter().map(on).collect() }
}

pub fn execute_command(request: &ecs::ExecuteCommandRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:ExecuteCommand", task_arn(scope, request.cluster.as_deref(), &request.task))
}

pub fn list_tasks(request: &ecs::ListTasksRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:ListTasks", cluster_arn(scope, request.cluster.as_deref()))
}

pub fn submit_task_state_change(request: &ecs::SubmitTaskStateChangeRequest, scope: &Scope) -> Demand {
    Demand::on("ecs:SubmitTaskStateChange", cluster_arn(scope, request.cluster.as_deref()))
}

pub fn submit_container_state_change(
    request: &ecs::SubmitContainerStateChangeRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ecs:SubmitContainerStateChange", cluster_arn(scope, request.cluster.as_deref()))
}

pub fn submit_attachment_state_changes(
    request: &ecs::SubmitAttachmentStateChangesRequest,
    scope: &Scope,
) -> Demand {
    Demand::on("ecs:SubmitAttachmentStateChanges", cluster_arn(scope, request.cluster.as_deref()))
}

pub fn update_task_protection(request: &ecs::UpdateTaskProtectionRequest, scope: &Scope) -> Demand {
    let on = |text: &String| task_arn(scope, Some(&request.cluster), text);
    Demand { action: "ecs:UpdateTaskProtection", resources: request.tasks.iter().map(on).collect() }
}

pub fn get_task_protection(request: &ecs::GetTaskProtectionRequest, scope: &Scope) -> Demand {
    let on = |text: &String| task_arn(scope, Some(&request.cluster), text);
    Demand { action: "ecs:GetTaskProtection", resources: request.tasks.iter().flatten().map(on).collect() }
}
