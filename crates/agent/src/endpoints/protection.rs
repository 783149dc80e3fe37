//! Task protection, asked for by the task itself: handed on to the control plane, for this task alone, with its role's
//! credentials, as ECS's agent does.

use super::serve::Answer;
use crate::client::{Client, ClientError};
use crate::driver::TaskSnapshot;
use gantry_api::ecs;
use gantry_wire::xml::iso8601;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// How long the control plane may take, as with the stock agent: SDKs give up after 5 s.
const CALL_MAX: Duration = Duration::from_secs(4);

/// What a task asks for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Wanted {
    protection_enabled: Option<bool>,
    expires_in_minutes: Option<i32>,
}

/// For a task without a role, or without its credentials.
pub fn no_role(task: &TaskSnapshot) -> Answer {
    let text = "Invalid Request: no task IAM role credentials available for task";
    problem(StatusCode::FORBIDDEN, &task.arn.0, "AccessDeniedException", text)
}

/// Changes a task's protection. `client` signs with the task's role.
pub async fn put(client: &Client, cluster: &str, task: &TaskSnapshot, body: &[u8]) -> Answer {
    let invalid =
        |text: &str| problem(StatusCode::BAD_REQUEST, &task.arn.0, "InvalidParameterException", text);
    let Ok(wanted) = serde_json::from_slice::<Wanted>(body) else {
        return invalid("UpdateTaskProtection: the body does not read");
    };
    let Some(protection_enabled) = wanted.protection_enabled else {
        return invalid("UpdateTaskProtection: ProtectionEnabled is missing");
    };
    let request = ecs::UpdateTaskProtectionRequest {
        cluster: cluster_of(task, cluster),
        protection_enabled,
        expires_in_minutes: wanted.expires_in_minutes,
        tasks: vec![task.arn.0.clone()],
    };
    let done = timeout(CALL_MAX, client.ecs::<ecs::UpdateTaskProtection>(&request)).await;
    answer(task, done.map(|done| done.map(|response| (response.protected_tasks, response.failures))).ok())
}

/// Tells a task's protection.
pub async fn get(client: &Client, cluster: &str, task: &TaskSnapshot) -> Answer {
    let request = ecs::GetTaskProtectionRequest {
        cluster: cluster_of(task, cluster),
        tasks: Some(vec![task.arn.0.clone()]),
    };
    let done = timeout(CALL_MAX, client.ecs::<ecs::GetTaskProtection>(&request)).await;
    answer(task, done.map(|done| done.map(|response| (response.protected_tasks, response.failures))).ok())
}

/// The task's own cluster: that of tasks on Fargate capacity is not their agent's.
fn cluster_of(task: &TaskSnapshot, own: &str) -> String {
    task.known.task().task_cluster_arn.clone().unwrap_or_else(|| own.to_owned())
}

type Done = Result<(Option<Vec<ecs::ProtectedTask>>, Option<Vec<ecs::Failure>>), ClientError>;

/// In the words of ECS's agent. `None`: there was no answer in time.
fn answer(task: &TaskSnapshot, done: Option<Done>) -> Answer {
    let arn = &task.arn.0;
    let Some(done) = done else {
        return problem(
            StatusCode::GATEWAY_TIMEOUT,
            arn,
            "RequestCanceled",
            "Timed out calling ECS Task Protection API",
        );
    };
    match done {
        Ok((tasks, failures)) => {
            if let Some(failure) = failures.into_iter().flatten().next() {
                let failure = json!({"Arn": failure.arn, "Reason": failure.reason, "Detail": failure.detail});
                return (StatusCode::OK, json!({"failure": failure}));
            }
            let protection = tasks.into_iter().flatten().next().unwrap_or_default();
            let mut shown = json!({
                "ProtectionEnabled": protection.protection_enabled.unwrap_or(false),
                "TaskArn": protection.task_arn.as_deref().unwrap_or(arn),
            });
            if let Some(until) = protection.expiration_date {
                shown["ExpirationDate"] = Value::String(iso8601(until));
            }
            (StatusCode::OK, json!({"protection": shown}))
        }
        Err(ClientError::Api { error, .. }) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            problem(status, arn, &error.code, &error.message)
        }
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, arn, "ServerException", &error.to_string()),
    }
}

fn problem(status: StatusCode, arn: &str, code: &str, message: &str) -> Answer {
    (status, json!({"error": {"Arn": arn, "Code": code, "Message": message}}))
}
