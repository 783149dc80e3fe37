//! Task scale-in protection: tasks that say that they are busy are spared when their service shrinks or deploys.

use super::task::asked_task_arn;
use crate::call::Call;
use crate::services::ecs::check;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{RolloutState, ServiceKey, Task};
use crate::services::ecs::views::task::millis;
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::ids::ClusterName;
use gantry_decide::time::Timestamp;
use std::time::Duration;

/// Tasks that one UpdateTaskProtection may name: ECS's limit.
const UPDATE_MAX: usize = 10;
/// Tasks that one GetTaskProtection may name: ECS's limit.
const GET_MAX: usize = 100;
/// ECS protects for 1 minute to 48 hours, and for two hours where nothing is said.
const MINUTES: std::ops::RangeInclusive<i32> = 1..=2880;
const MINUTES_DEFAULT: i32 = 120;

pub fn update_task_protection(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateTaskProtectionRequest,
) -> Result<ecs::UpdateTaskProtectionResponse, EcsError> {
    let cluster = check::cluster(tx.view(), Some(&request.cluster))?.name.clone();
    bounded(&request.tasks, UPDATE_MAX)?;
    let minutes = request.expires_in_minutes.unwrap_or(MINUTES_DEFAULT);
    if !MINUTES.contains(&minutes) {
        return Err(EcsError::invalid(format!(
            "expiresInMinutes must be between {} and {}.",
            MINUTES.start(),
            MINUTES.end()
        )));
    }
    if request.expires_in_minutes.is_some() && !request.protection_enabled {
        return Err(EcsError::invalid("expiresInMinutes can be given only when protectionEnabled is true."));
    }
    let until = tx.now + Duration::from_secs(u64::from(minutes.unsigned_abs()) * 60);
    let (mut protected_tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &request.tasks {
        let result = service_task(tx.view(), &cluster, text)?.and_then(|(task, service)| {
            if request.protection_enabled && blocks_deployment(tx.view(), task, &service) {
                return Err("DEPLOYMENT_BLOCKED");
            }
            Ok(task.clone())
        });
        match result {
            Ok(mut task) => {
                task.protected_until = request.protection_enabled.then_some(until);
                protected_tasks.push(show(tx.view(), &task));
                tx.state.ecs.put_task(task);
            }
            Err(reason) => failures.push(failure(tx.view(), &cluster, text, reason)),
        }
    }
    Ok(ecs::UpdateTaskProtectionResponse { failures: Some(failures), protected_tasks: Some(protected_tasks) })
}

pub fn get_task_protection(
    view: View<'_>,
    _call: &Call,
    request: ecs::GetTaskProtectionRequest,
) -> Result<ecs::GetTaskProtectionResponse, EcsError> {
    let cluster = check::cluster(view, Some(&request.cluster))?.name.clone();
    let tasks = request.tasks.unwrap_or_default();
    bounded(&tasks, GET_MAX)?;
    let (mut protected_tasks, mut failures) = (Vec::new(), Vec::new());
    for text in &tasks {
        match service_task(view, &cluster, text)? {
            Ok((task, _)) => protected_tasks.push(show(view, task)),
            Err(reason) => failures.push(failure(view, &cluster, text, reason)),
        }
    }
    Ok(ecs::GetTaskProtectionResponse { failures: Some(failures), protected_tasks: Some(protected_tasks) })
}

fn bounded(tasks: &[String], max: usize) -> Result<(), EcsError> {
    match tasks.len() {
        0 => Err(EcsError::invalid("Tasks cannot be empty.")),
        count if count > max => {
            Err(EcsError::invalid(format!("At most {max} tasks can be named in one call.")))
        }
        _ => Ok(()),
    }
}

/// A live task of a service, or ECS's word for why it is none.
fn service_task<'a>(
    view: View<'a>,
    cluster: &ClusterName,
    text: &str,
) -> Result<Result<(&'a Task, ServiceKey), &'static str>, EcsError> {
    let key = check::task(view, cluster, text)?;
    let task = key.as_ref().and_then(|key| view.state.ecs.task(key)).filter(|task| task.is_live());
    Ok(match task {
        None => Err("MISSING"),
        Some(task) => task.service_key().map(|service| (task, service)).ok_or("TASK_NOT_VALID"),
    })
}

/// During a deployment no more tasks may be protected than the service shall have: it could never end.
fn blocks_deployment(view: View<'_>, task: &Task, key: &ServiceKey) -> bool {
    let Some(service) = view.state.ecs.service(key) else { return false };
    let deploying =
        service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::InProgress)
            && service.deployments.len() > 1;
    let others = view.state.ecs.tasks_of(key).filter(|other| other.id != task.id);
    let protected = others.filter(|other| other.is_protected(view.now)).count();
    deploying && protected + 1 > service.desired_count as usize
}

fn show(view: View<'_>, task: &Task) -> ecs::ProtectedTask {
    let until: Option<Timestamp> = task.protected_until.filter(|_| task.is_protected(view.now));
    ecs::ProtectedTask {
        expiration_date: millis(until),
        protection_enabled: Some(until.is_some()),
        task_arn: Some(task.arn(view.scope).to_string()),
    }
}

fn failure(view: View<'_>, cluster: &ClusterName, text: &str, reason: &str) -> ecs::Failure {
    let arn = Some(asked_task_arn(view, cluster, text));
    ecs::Failure { arn, reason: Some(reason.to_owned()), detail: None }
}
