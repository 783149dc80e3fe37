//! Which credentials an agent has been given, and when each is to be replaced.
//!
//! A payload carries those of its tasks, and every new connection brings payloads of all tasks, whether the agent asks for
//! credentials (`sendCredentials`) or not. Beyond that they are replaced half-way to their end, and again until the agent
//! acknowledges. What this remembers is volatile, as all of a session's.

use crate::roles::{RoleType, Roles};
use crate::services::ecs::state::{Task, TaskKey};
use gantry_api::acs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::Scope;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two attempts to replace what is not acknowledged: an agent does so at once, unless it does not know the task.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Tasks whose credentials are replaced in one go, at most two messages each: a connection's mailbox holds several times
/// as many.
const TASKS_AT_ONCE_MAX: usize = 32;
/// Between such goes: 3,200 tasks, several times what a host runs, take less than two minutes of the hours there are.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Given {
    tasks: BTreeMap<TaskKey, Entry>,
    timers: BTreeSet<(Timestamp, TaskKey)>,
    /// Whose the credentials are that wait for their acknowledgment, by their ids.
    unacknowledged: BTreeMap<String, TaskKey>,
    not_before: Timestamp,
}

/// One task's credentials.
struct Entry {
    /// When the next are sent.
    due: Timestamp,
    /// When they are sent if all that was sent is acknowledged.
    refresh_at: Timestamp,
    /// What is not acknowledged: id and expiration.
    waiting: BTreeMap<String, String>,
}

/// What a task's definition names for a use.
fn role_arn(task: &Task, role_type: RoleType) -> Option<&str> {
    match role_type {
        RoleType::TaskApplication => task.definition.task_role_arn.as_deref(),
        RoleType::TaskExecution => task.definition.execution_role_arn.as_deref(),
    }
}

fn issue(
    roles: &Roles,
    now: Timestamp,
    scope: &Scope,
    task: &Task,
    role_type: RoleType,
) -> Option<acs::RoleCredentials> {
    let resource = EcsResource::Task(task.cluster.clone(), task.id);
    roles.issue(now, scope, resource, role_arn(task, role_type)?, role_type)
}

impl Given {
    /// Puts a task's credentials into its payload, whose own repetition sees to it that they arrive.
    pub fn put(
        &mut self,
        roles: &Roles,
        now: Timestamp,
        scope: &Scope,
        task: &Task,
        payload: &mut acs::Task,
    ) {
        payload.role_credentials = issue(roles, now, scope, task, RoleType::TaskApplication);
        payload.execution_role_credentials = issue(roles, now, scope, task, RoleType::TaskExecution);
        if payload.role_credentials.is_some() || payload.execution_role_credentials.is_some() {
            let refresh_at = roles.refresh_at(now);
            self.set(TaskKey::from(task), Entry { due: refresh_at, refresh_at, waiting: BTreeMap::new() });
        }
    }

    fn set(&mut self, task: TaskKey, entry: Entry) {
        self.forget(&task);
        self.timers.insert((entry.due, task.clone()));
        self.unacknowledged.extend(entry.waiting.keys().map(|id| (id.clone(), task.clone())));
        self.tasks.insert(task, entry);
    }

    /// The task needs no credentials any more.
    pub fn forget(&mut self, task: &TaskKey) {
        let Some(entry) = self.tasks.remove(task) else { return };
        self.timers.remove(&(entry.due, task.clone()));
        for id in entry.waiting.keys() {
            self.unacknowledged.remove(id);
        }
    }

    /// The agent has these. An acknowledgment of older ones is none.
    pub fn acknowledged(&mut self, ack: &acs::IAMRoleCredentialsAckRequest) {
        let id = ack.credentials_id.as_deref().unwrap_or_default();
        let Some(task) = self.unacknowledged.get(id).cloned() else { return };
        let Some(mut entry) = self.tasks.remove(&task) else { return };
        self.timers.remove(&(entry.due, task.clone()));
        if entry.waiting.get(id) == ack.expiration.as_ref() {
            entry.waiting.remove(id);
            self.unacknowledged.remove(id);
        }
        if entry.waiting.is_empty() {
            entry.due = entry.refresh_at;
        }
        self.set(task, entry);
    }

    pub fn wake_at(&self) -> Timestamp {
        self.timers.first().map_or(Timestamp::NEVER, |(at, _)| (*at).max(self.not_before))
    }

    /// The tasks whose credentials are to be replaced now, for [`Given::renew`].
    pub fn take_due(&mut self, now: Timestamp) -> Vec<TaskKey> {
        if self.not_before > now {
            return Vec::new();
        }
        let due = self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, task)| task.clone());
        let due: Vec<TaskKey> = due.take(TASKS_AT_ONCE_MAX).collect();
        if due.len() == TASKS_AT_ONCE_MAX {
            self.not_before = now + PAUSE;
        }
        for task in &due {
            self.forget(task);
        }
        due
    }

    /// New credentials of a task, each to be sent. They come again unless they are acknowledged.
    pub fn renew(
        &mut self,
        roles: &Roles,
        now: Timestamp,
        scope: &Scope,
        task: &Task,
    ) -> Vec<(RoleType, acs::RoleCredentials)> {
        let issue = |role_type| Some((role_type, issue(roles, now, scope, task, role_type)?));
        let issued: Vec<_> = RoleType::ALL.into_iter().filter_map(issue).collect();
        if !issued.is_empty() {
            let sent = issued.iter().map(|(_, sent)| (sent.credentials_id.clone(), sent.expiration.clone()));
            let waiting = sent.map(|(id, end)| (id.unwrap_or_default(), end.unwrap_or_default())).collect();
            let refresh_at = roles.refresh_at(now);
            let due = refresh_at.min(now + REPEAT_AFTER);
            self.set(TaskKey::from(task), Entry { due, refresh_at, waiting });
        }
        issued
    }
}
