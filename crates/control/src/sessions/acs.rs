//! One agent's ACS session: which tasks it was told of, which messages it has not acknowledged, its heartbeats.
//!
//! Level-triggered like a controller: the session compares the tables with what it told the agent and sends the
//! difference. A payload that is not acknowledged is sent again a bounded number of times; a repetition is harmless,
//! because agents never start a task twice.

use super::credentials::Given;
use super::security::{self, Security};
use super::tcs::task_key;
use super::{Owner, SessionOutput, payload};
use crate::roles::Roles;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceKey, ContainerInstanceStatus, ExecSession, SEQUENCE_PER_SESSION,
    Task, TaskKey,
};
use crate::state::{ScopeState, State};
use gantry_api::acs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{ClusterName, RequestId, Scope};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use gantry_wire::envelope::{Frame, seal};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// Between heartbeats. Agents drop a connection that is silent for 60 to 120 s.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// An agent answers a heartbeat at once. Two periods without an answer mean that nobody is there.
const HEARTBEAT_ANSWER_MAX: Duration = Duration::from_secs(60);
/// An agent acknowledges a payload once it has saved it; on a busy disk that takes seconds.
const REDELIVER_AFTER: Duration = Duration::from_secs(15);
/// A payload with a task that an agent cannot read is never acknowledged, so repetition must end. The task's own
/// STOPPED report is the answer then.
const DELIVERIES_MAX: u32 = 4;
/// Tasks in one payload: bounds the frame to about a megabyte.
const TASKS_PER_PAYLOAD_MAX: usize = 50;
/// Payloads that may wait for their acknowledgment: 3,200 tasks, several times what a host runs, and well below what a
/// connection's mailbox holds. Whatever is to be told beyond waits in the tables.
const UNACKNOWLEDGED_MAX: usize = 64;
/// After this a connection is closed, and the agent opens another. Agents do so themselves after 30 to 35 minutes; one
/// that does not would some day use up its session's numbers.
const AGE_MAX: Duration = Duration::from_secs(60 * 60);

type Out<'a> = dyn FnMut(SessionOutput) + 'a;

/// Pulls of one agent that are kept: more than anybody reads.
const PULLS_MAX: usize = 100;

/// How far the pull is that a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct PullStatus {
    pub task: String,
    pub container: String,
    pub image: String,
    /// Bytes that have come, of those that have to; absent while nobody knows.
    pub done: Option<u64>,
    pub total: Option<u64>,
}

impl From<acs::PullStatus> for PullStatus {
    fn from(told: acs::PullStatus) -> PullStatus {
        let bytes = |bytes: Option<i64>| bytes.and_then(|bytes| u64::try_from(bytes).ok());
        PullStatus {
            task: told.task_arn.unwrap_or_default(),
            container: told.container_name.unwrap_or_default(),
            image: told.image.unwrap_or_default(),
            done: bytes(told.done_bytes),
            total: bytes(told.total_bytes),
        }
    }
}

/// A payload that waits for its acknowledgment. It is compiled anew for each delivery, so that a repetition never tells
/// what is no longer true.
struct Unacknowledged {
    tasks: Vec<TaskKey>,
    again_at: Timestamp,
    deliveries: u32,
}

pub struct AcsSession {
    scope: Scope,
    /// The base URL under which the agent reaches the control plane.
    endpoint: String,
    instance: ContainerInstanceKey,
    /// Number of the last message; see [`SEQUENCE_PER_SESSION`].
    sequence: i64,
    /// What the agent was last told each task should be.
    told: BTreeMap<TaskKey, DesiredStatus>,
    /// Tasks that changed since the last delivery.
    dirty: BTreeSet<TaskKey>,
    credentials: Given,
    security: Security,
    manifest_due: bool,
    /// The manifest whose stop candidates may still come.
    manifest_id: Option<String>,
    unacknowledged: BTreeMap<String, Unacknowledged>,
    next_heartbeat: Timestamp,
    heartbeat_unanswered_since: Option<Timestamp>,
    expires: Timestamp,
    /// A lease that the agent has just asked for.
    lease_asked: Option<acs::LeaseRequest>,
    /// The pulls that the agent told of last.
    pulls: Vec<PullStatus>,
}

impl AcsSession {
    /// A session of an instance whose `sessions` counter was just raised.
    pub fn open(now: Timestamp, scope: Scope, endpoint: String, instance: &ContainerInstance) -> AcsSession {
        let sessions = i64::try_from(instance.sessions).unwrap_or(i64::MAX);
        AcsSession {
            scope,
            endpoint,
            instance: instance.key(),
            sequence: sessions.saturating_mul(SEQUENCE_PER_SESSION),
            told: BTreeMap::new(),
            dirty: BTreeSet::new(),
            credentials: Given::default(),
            security: Security::default(),
            manifest_due: true,
            manifest_id: None,
            unacknowledged: BTreeMap::new(),
            next_heartbeat: now + HEARTBEAT_EVERY,
            heartbeat_unanswered_since: None,
            expires: now + AGE_MAX,
            lease_asked: None,
            pulls: Vec::new(),
        }
    }

    pub fn owner(&self) -> Owner {
        (self.scope.clone(), self.instance.clone())
    }

    pub fn lease_asked(&mut self) -> Option<acs::LeaseRequest> {
        self.lease_asked.take()
    }

    /// The pulls that tasks of this instance wait for.
    pub fn pulls(&self) -> &[PullStatus] {
        &self.pulls
    }

    /// A task of this instance changed.
    pub fn note(&mut self, task: TaskKey) {
        self.dirty.insert(task);
    }

    /// What the agent is told of security groups.
    pub fn security(&mut self) -> &mut Security {
        &mut self.security
    }

    /// Asks the agent to run a command. It is told once: who asked waits for the answer, and asks again.
    pub fn execute(&self, asked: &ExecSession, random: &mut dyn Random) -> SessionOutput {
        let message = acs::ExecuteCommandMessage {
            message_id: RequestId::random(random).to_string(),
            task_arn: asked.task.arn(&self.scope).text(),
            container_name: asked.container.to_string(),
            command: asked.command.clone(),
            session_id: asked.id.to_string(),
        };
        SessionOutput::Send(seal("ExecuteCommandMessage", &message))
    }

    /// When something is due by itself. Everything else is delivered in the step in which it came up.
    pub fn wake_at(&self) -> Timestamp {
        let again = self.unacknowledged.values().map(|waiting| waiting.again_at);
        let others = self.next_heartbeat.min(self.expires).min(self.credentials.wake_at());
        again.fold(others, Timestamp::min)
    }

    /// Handles one frame of the agent; true if there may be something to deliver now. What does not read is ignored: an
    /// agent of another version may say more.
    pub fn receive(&mut self, text: &str, state: &State, out: &mut Out<'_>) -> bool {
        let Some(frame) = Frame::open(text) else { return false };
        match frame.kind.as_ref() {
            "HeartbeatAckRequest" => self.heartbeat_unanswered_since = None,
            "AckRequest" => {
                if let Ok(ack) = frame.message::<acs::AckRequest>() {
                    self.unacknowledged.remove(ack.message_id.as_deref().unwrap_or_default());
                }
            }
            "LeaseRequest" => self.lease_asked = frame.message().ok(),
            "PullProgress" => {
                if let Ok(progress) = frame.message::<acs::PullProgress>() {
                    let told = progress.pulls.into_iter().flatten().take(PULLS_MAX);
                    self.pulls = told.map(PullStatus::from).collect();
                }
            }
            "IAMRoleCredentialsAckRequest" => {
                if let Ok(ack) = frame.message() {
                    self.credentials.acknowledged(&ack);
                }
            }
            "TaskStopVerificationMessage" => {
                if let Ok(message) = frame.message() {
                    self.verify_stops(message, state, out);
                }
            }
            _ => {}
        }
        // What waited for room among the unacknowledged.
        !self.dirty.is_empty()
    }

    /// The agent runs tasks that the manifest did not list as running: confirms those that should indeed stop.
    fn verify_stops(&mut self, message: acs::TaskStopVerificationMessage, state: &State, out: &mut Out<'_>) {
        if self.manifest_id.is_none() || message.message_id != self.manifest_id {
            return;
        }
        let scope_state = state.snapshot(&self.scope);
        let should_run = |candidate: &acs::TaskIdentifier| {
            let key = task_key(&self.scope, candidate.task_arn.as_deref()?)?;
            let task = scope_state.ecs.task(&key)?;
            let here = task.instance.as_ref() == Some(&self.instance);
            Some(here && task.is_live() && task.wanted_of_agent() == DesiredStatus::Running)
        };
        let mut stop = message.stop_candidates.unwrap_or_default();
        if mutant::is("stops of strays not confirmed") {
            return;
        }
        stop.retain(|candidate| should_run(candidate) != Some(true));
        let ack = acs::TaskStopVerificationAck {
            message_id: self.manifest_id.take(),
            generated_at: None,
            stop_tasks: Some(stop),
        };
        out(SessionOutput::Send(seal("TaskStopVerificationAck", &ack)));
    }

    /// Sends what is due, and notes in the tables which tasks went out for the first time. Breaks once it has closed
    /// the connection.
    pub fn deliver(
        &mut self,
        now: Timestamp,
        state: &mut State,
        roles: &Roles,
        random: &mut dyn Random,
        out: &mut Out<'_>,
    ) -> ControlFlow<()> {
        if self.heartbeat_unanswered_since.is_some_and(|since| since + HEARTBEAT_ANSWER_MAX <= now) {
            out(SessionOutput::Close(1001, "heartbeats are not answered"));
            return ControlFlow::Break(());
        }
        if self.expires <= now {
            out(SessionOutput::Close(1000, "the connection is old; open another"));
            return ControlFlow::Break(());
        }
        // Shared, and let go of before anything is changed, which then happens in place.
        let before = state.snapshot(&self.scope);
        let instance = before.ecs.container_instance(&self.instance);
        if instance.is_none_or(|instance| instance.status == ContainerInstanceStatus::Inactive) {
            self.dismiss(now, &before, random, out);
            return ControlFlow::Break(());
        }
        if std::mem::take(&mut self.manifest_due) {
            self.send_manifest(now, &before, random, out);
        }
        if instance.is_some_and(|instance| instance.attributes.contains_key(security::ATTRIBUTE))
            && let Some(news) = self.security.news(&self.scope, &before, self.dirty.iter())
        {
            let news = serde_json::to_string(&news).expect("names and texts are JSON");
            let message = acs::SecurityGroupsMessage { news };
            out(SessionOutput::Send(seal("SecurityGroupsMessage", &message)));
        }
        self.send_again(now, &before, roles, out);
        let due = self.due(&before);
        self.renew_credentials(now, &before, roles, random, out);
        drop(before);
        self.send_changes(now, due, state, roles, random, out);
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + HEARTBEAT_EVERY;
            self.heartbeat_unanswered_since.get_or_insert(now);
            let message_id = Some(RequestId::random(random).to_string());
            let heartbeat = acs::HeartbeatMessage { message_id, healthy: Some(true) };
            out(SessionOutput::Send(seal("HeartbeatMessage", &heartbeat)));
        }
        ControlFlow::Continue(())
    }

    /// The instance was deregistered: its agent is told to stop what it still runs, and sent away.
    fn dismiss(&mut self, now: Timestamp, state: &ScopeState, random: &mut dyn Random, out: &mut Out<'_>) {
        let told = std::mem::take(&mut self.told).into_iter();
        let running = told.filter(|(_, told)| *told == DesiredStatus::Running);
        let tasks: Vec<&Task> = running.filter_map(|(key, _)| state.ecs.task(&key)).collect();
        for tasks in tasks.chunks(TASKS_PER_PAYLOAD_MAX) {
            let tasks =
                tasks.iter().map(|task| payload::compile(&self.scope, &self.endpoint, task)).collect();
            let message_id = RequestId::random(random).to_string();
            self.send_payload(now, message_id, tasks, out);
        }
        out(SessionOutput::Close(1000, "the container instance is deregistered"));
    }

    /// Lists the tasks that the agent should have, and marks all of them for delivery: the agent may have lost some.
    fn send_manifest(
        &mut self,
        now: Timestamp,
        state: &ScopeState,
        random: &mut dyn Random,
        out: &mut Out<'_>,
    ) {
        self.sequence += 1;
        let message_id = RequestId::random(random).to_string();
        let identify = |task: &Task| acs::TaskIdentifier {
            task_arn: Some(task.arn(&self.scope).text()),
            desired_status: Some(task.wanted_of_agent().as_str().to_owned()),
            task_cluster_arn: Some(self.cluster_arn(&task.cluster)),
        };
        let manifest = acs::TaskManifestMessage {
            message_id: Some(message_id.clone()),
            cluster_arn: Some(self.cluster_arn(&self.instance.cluster)),
            container_instance_arn: Some(self.instance.arn(&self.scope).text()),
            timeline: Some(self.sequence),
            generated_at: Some(now.as_millis()),
            tasks: Some(state.ecs.tasks_on(&self.instance).map(identify).collect()),
        };
        if !mutant::is("no news after a reconnect") {
            self.dirty.extend(state.ecs.tasks_on(&self.instance).map(TaskKey::from));
        }
        out(SessionOutput::Send(seal("TaskManifestMessage", &manifest)));
        self.manifest_id = Some(message_id);
    }

    /// The task, if the agent has to do with it: before PENDING there is nothing for it to do, after STOPPING it has
    /// done all.
    fn with_agent<'a>(&self, state: &'a ScopeState, key: &TaskKey) -> Option<&'a Task> {
        let task = state.ecs.task(key).filter(|task| task.instance.as_ref() == Some(&self.instance))?;
        (LastStatus::Pending..=LastStatus::Stopping).contains(&task.last_status).then_some(task)
    }

    /// Repeats payloads that are not acknowledged, and gives up those that were repeated in vain.
    fn send_again(&mut self, now: Timestamp, state: &ScopeState, roles: &Roles, out: &mut Out<'_>) {
        let waiting = self.unacknowledged.iter().filter(|(_, waiting)| waiting.again_at <= now);
        let due: Vec<String> = waiting.map(|(message_id, _)| message_id.clone()).collect();
        for message_id in due {
            let Some(mut waiting) = self.unacknowledged.remove(&message_id) else { continue };
            waiting.tasks.retain(|key| self.with_agent(state, key).is_some());
            if waiting.tasks.is_empty() || waiting.deliveries >= DELIVERIES_MAX {
                continue;
            }
            waiting.deliveries += 1;
            waiting.again_at = now + REDELIVER_AFTER * waiting.deliveries;
            let tasks = waiting.tasks.iter().filter_map(|key| state.ecs.task(key));
            let tasks = tasks.map(|task| self.compile(now, roles, task)).collect();
            self.send_payload(now, message_id.clone(), tasks, out);
            self.unacknowledged.insert(message_id, waiting);
        }
    }

    /// The changed tasks that the agent is to be told of now, those to stop first.
    fn due(&mut self, state: &ScopeState) -> Vec<(DesiredStatus, TaskKey)> {
        let mut due = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            match self.with_agent(state, &key).map(Task::wanted_of_agent) {
                Some(DesiredStatus::Stopped)
                    if mutant::is("stop not told") && self.told.contains_key(&key) => {}
                Some(desired) if self.told.get(&key) != Some(&desired) => due.push((desired, key)),
                Some(_) => {}
                None => {
                    if !state.ecs.task(&key).is_some_and(Task::is_live) {
                        self.told.remove(&key);
                        self.credentials.forget(&key);
                    }
                }
            }
        }
        due.sort_by_key(|(desired, _)| *desired != DesiredStatus::Stopped);
        let room = UNACKNOWLEDGED_MAX.saturating_sub(self.unacknowledged.len()) * TASKS_PER_PAYLOAD_MAX;
        self.dirty.extend(due.split_off(due.len().min(room)).into_iter().map(|(_, key)| key));
        due
    }

    /// Sends payloads, and notes which tasks went out for the first time.
    fn send_changes(
        &mut self,
        now: Timestamp,
        due: Vec<(DesiredStatus, TaskKey)>,
        state: &mut State,
        roles: &Roles,
        random: &mut dyn Random,
        out: &mut Out<'_>,
    ) {
        for some in due.chunks(TASKS_PER_PAYLOAD_MAX) {
            let mut tasks = Vec::with_capacity(some.len());
            for (desired, key) in some {
                let known = state.get(&self.scope).and_then(|state| state.ecs.task(key));
                let Some(task) = known else { continue };
                tasks.push(self.compile(now, roles, task));
                self.told.insert(key.clone(), *desired);
                if !task.sent && !mutant::is("hand-over not remembered") {
                    state.edit(&self.scope).ecs.note_sent(key);
                }
            }
            let message_id = RequestId::random(random).to_string();
            self.send_payload(now, message_id.clone(), tasks, out);
            let tasks = some.iter().map(|(_, key)| key.clone()).collect();
            let waiting = Unacknowledged { tasks, again_at: now + REDELIVER_AFTER, deliveries: 1 };
            self.unacknowledged.insert(message_id, waiting);
        }
    }

    /// A task as its agent is sent it, with its roles' credentials.
    fn compile(&mut self, now: Timestamp, roles: &Roles, task: &Task) -> acs::Task {
        let mut payload = payload::compile(&self.scope, &self.endpoint, task);
        self.credentials.put(roles, now, &self.scope, task, &mut payload);
        payload
    }

    /// Replaces credentials well before they end.
    fn renew_credentials(
        &mut self,
        now: Timestamp,
        state: &ScopeState,
        roles: &Roles,
        random: &mut dyn Random,
        out: &mut Out<'_>,
    ) {
        for key in self.credentials.take_due(now) {
            let Some(task) = self.with_agent(state, &key) else { continue };
            for (role_type, role_credentials) in self.credentials.renew(roles, now, &self.scope, task) {
                let message = acs::IAMRoleCredentialsMessage {
                    message_id: RequestId::random(random).to_string(),
                    task_arn: task.arn(&self.scope).to_string(),
                    task_cluster_arn: Some(self.cluster_arn(&key.cluster)),
                    role_type: role_type.as_str().to_owned(),
                    role_credentials,
                };
                out(SessionOutput::Send(seal("IAMRoleCredentialsMessage", &message)));
            }
        }
    }

    fn send_payload(&mut self, now: Timestamp, message_id: String, tasks: Vec<acs::Task>, out: &mut Out<'_>) {
        self.sequence += 1;
        let message = acs::PayloadMessage {
            message_id,
            cluster_arn: self.cluster_arn(&self.instance.cluster),
            container_instance_arn: self.instance.arn(&self.scope).text(),
            seq_num: Some(self.sequence),
            timeline: Some(self.sequence),
            generated_at: Some(now.as_millis()),
            tasks: Some(tasks),
        };
        out(SessionOutput::Send(seal("PayloadMessage", &message)));
    }

    fn cluster_arn(&self, cluster: &ClusterName) -> String {
        self.scope.ecs(EcsResource::Cluster(cluster.clone())).text()
    }
}
