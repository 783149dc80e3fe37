//! What the control plane says: from a message to the engine's events, and its answer.

use super::container::container_id;
use super::{Driver, Entry, Known};
use crate::agent::{OUTGOING_MAX, OsRandom};
use crate::exec;
use crate::protocol::payload;
use crate::runtime::Runtime;
use gantry_api::acs;
use gantry_decide::ids::RequestId;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task_engine::{ContainerSpec, Event, TaskArn};
use gantry_wire::envelope::{Frame, seal};
use gantry_wire::json;
use std::sync::Arc;

impl<R: Runtime> Driver<R> {
    /// Takes one message of the control plane. True for a manifest: everything before it is agreed upon.
    pub(super) fn message(&mut self, text: &str) -> bool {
        let Some(frame) = Frame::open(text) else {
            tracing::warn!("a message of the control plane does not read");
            return false;
        };
        match frame.kind.as_ref() {
            "HeartbeatMessage" => {
                if let Ok(message) = frame.message::<acs::HeartbeatMessage>() {
                    self.send(
                        "HeartbeatAckRequest",
                        &acs::HeartbeatAckRequest { message_id: message.message_id },
                    );
                }
            }
            "PayloadMessage" => match frame.message::<acs::PayloadMessage>() {
                Ok(message) => self.payload(message),
                Err(error) => tracing::warn!(%error, "a payload does not read"),
            },
            "TaskManifestMessage" => {
                if let Ok(message) = frame.message::<acs::TaskManifestMessage>() {
                    self.manifest(&message);
                    return true;
                }
            }
            "TaskStopVerificationAck" => {
                if let Ok(message) = frame.message::<acs::TaskStopVerificationAck>() {
                    for task in self.manifests.confirmed(&message) {
                        self.step(Event::StopRequested { task });
                    }
                }
            }
            "IAMRoleCredentialsMessage" => {
                if let Ok(message) = frame.message::<acs::IAMRoleCredentialsMessage>() {
                    self.credentials(message);
                }
            }
            "PrefetchImagesMessage" => {
                if let Ok(message) = frame.message::<acs::PrefetchImagesMessage>() {
                    let images = message.images.unwrap_or_default();
                    self.hands.images.want(message.service_arn.unwrap_or_default(), &images);
                }
            }
            "ExecuteCommandMessage" => {
                if let Ok(message) = frame.message::<acs::ExecuteCommandMessage>() {
                    self.execute(message);
                }
            }
            "SecurityGroupsMessage" => match frame.message::<acs::SecurityGroupsMessage>() {
                Ok(message) => self.security_groups(&message),
                Err(error) => tracing::warn!(%error, "news of security groups do not read"),
            },
            "NeighboursMessage" => match frame.message::<acs::NeighboursMessage>() {
                Ok(message) => self.neighbours(&message),
                Err(error) => tracing::warn!(%error, "news of other hosts' tasks do not read"),
            },
            kind => tracing::debug!(kind, "a message that asks for nothing here"),
        }
        false
    }

    /// Keeps a role's new credentials. Those of a task that is not here have no use, and are not acknowledged.
    fn credentials(&mut self, message: acs::IAMRoleCredentialsMessage) {
        let task = TaskArn(message.task_arn);
        if !self.tasks.contains_key(&task) {
            return;
        }
        let ack = acs::IAMRoleCredentialsAckRequest {
            message_id: Some(message.message_id),
            credentials_id: message.role_credentials.credentials_id.clone(),
            expiration: message.role_credentials.expiration.clone(),
        };
        self.hands.credentials.put(&task, message.role_credentials);
        self.send("IAMRoleCredentialsAckRequest", &ack);
    }

    /// Takes news of security groups, before anything that is told later: a task that comes next is guarded by them.
    fn security_groups(&self, message: &acs::SecurityGroupsMessage) {
        let news = match serde_json::from_str(&message.news) {
            Ok(news) => news,
            Err(error) => return tracing::warn!(%error, "news of security groups do not read"),
        };
        // A few system calls; nothing else of the loop may come first.
        let heard = tokio::task::block_in_place(|| self.hands.network.hear(news));
        if let Err(error) = heard {
            tracing::error!(%error, "security groups are not in force");
        }
    }

    /// Takes news of other hosts' tasks.
    fn neighbours(&self, message: &acs::NeighboursMessage) {
        let news = match serde_json::from_str(&message.news) {
            Ok(news) => news,
            Err(error) => return tracing::warn!(%error, "news of other hosts' tasks do not read"),
        };
        if let Err(error) = tokio::task::block_in_place(|| self.hands.network.meet(news)) {
            tracing::error!(%error, "tasks of other hosts are not reached");
        }
    }

    /// Begins a session of ECS Exec, which from then on is nobody's business here.
    fn execute(&mut self, message: acs::ExecuteCommandMessage) {
        let task = TaskArn(message.task_arn);
        if !self.tasks.contains_key(&task) {
            return tracing::warn!(%task, "a command for a task that is not here");
        }
        let Ok(permit) = Arc::clone(&self.exec_sessions).try_acquire_owned() else {
            return tracing::warn!(%task, "too many ECS Exec sessions");
        };
        let Some(path) = exec::path(&task.0, &message.session_id) else {
            return tracing::warn!(%task, "a command for a task of no account");
        };
        let container = container_id(&task, &message.container_name);
        let asked = exec::Asked { session: message.session_id, path, container, command: message.command };
        let hands = Arc::clone(&self.hands);
        tokio::spawn(async move {
            exec::run(&hands.client, &hands.config.endpoint, &hands.runtime, asked, Box::new(OsRandom)).await;
            drop(permit);
        });
    }

    fn send(&self, kind: &str, message: &dyn gantry_wire::Structure) {
        // Without a connection it is of no use: the next one begins anew.
        let _ = self.acs.try_send(seal(kind, message));
    }

    fn payload(&mut self, message: acs::PayloadMessage) {
        self.manifests.payload(&message);
        self.note_timeline();
        let tasks = message.tasks.unwrap_or_default();
        let is_stop =
            |task: &acs::Task| task.desired_status.as_deref() == Some(DesiredStatus::Stopped.as_str());
        // What is to stop makes room for what is to run.
        let (stops, runs): (Vec<_>, Vec<_>) = tasks.into_iter().partition(is_stop);
        let mut all_read = true;
        for mut task in stops.into_iter().chain(runs) {
            let arn = TaskArn(task.arn.clone().unwrap_or_default());
            let taken = self.hands.credentials.take(&arn, &mut task);
            if !self.accept(arn, task) {
                all_read = false;
                continue;
            }
            // One that is left out costs a repetition at most; it must not take the place of the payload's own.
            for (credentials_id, expiration) in taken {
                if self.acs.capacity() < OUTGOING_MAX / 2 {
                    break;
                }
                let message_id = Some(message.message_id.clone());
                let ack = acs::IAMRoleCredentialsAckRequest { message_id, credentials_id, expiration };
                self.send("IAMRoleCredentialsAckRequest", &ack);
            }
        }
        if !all_read {
            // As the stock agent has it: the STOPPED report of the bad task is the answer.
            return;
        }
        let ack = acs::AckRequest {
            cluster: Some(message.cluster_arn),
            container_instance: Some(message.container_instance_arn),
            message_id: Some(message.message_id),
        };
        let (saver, acs) = (self.saver.clone(), self.acs.clone());
        tokio::spawn(async move {
            if saver.saved().await {
                let _ = acs.try_send(seal("AckRequest", &ack));
            }
        });
    }

    /// Hands a payload's task, without its secrets, to the engine. False if it makes no sense.
    fn accept(&mut self, arn: TaskArn, task: acs::Task) -> bool {
        match payload::compile(&task) {
            Ok(compiled) => {
                let payload = Some(json::to_string(&task));
                let (known, spec, desired) = Known::new(task, compiled);
                let key = |container: &ContainerSpec| {
                    (container.name.clone(), RequestId::random(&mut OsRandom).to_string())
                };
                self.tasks.entry(arn).or_insert_with(|| Entry {
                    payload,
                    known: Some(Arc::new(known)),
                    keys: spec.containers.iter().map(key).collect(),
                    ..Entry::default()
                });
                self.step(Event::TaskAccepted { spec, desired });
                true
            }
            Err(error) => {
                tracing::warn!(task = %arn, %error, "a task of a payload cannot be run");
                if !arn.0.is_empty() {
                    self.step(Event::TaskRejected { task: arn, failure: error.failure() });
                }
                false
            }
        }
    }

    fn manifest(&mut self, message: &acs::TaskManifestMessage) {
        let Some(question) = self.manifests.manifest(message, self.engine.tasks()) else { return };
        self.note_timeline();
        let ack = acs::AckRequest {
            cluster: message.cluster_arn.clone(),
            container_instance: message.container_instance_arn.clone(),
            message_id: message.message_id.clone(),
        };
        self.send("AckRequest", &ack);
        if let Some(question) = question {
            self.send("TaskStopVerificationMessage", &question);
        }
    }

    fn note_timeline(&mut self) {
        if self.manifests.timeline() > self.instance.timeline {
            self.instance.timeline = self.manifests.timeline();
            self.saver.save_instance(self.instance.clone());
        }
    }
}
