//! Agents' connections. What is said on one arrives in its order, or is lost with it.

use super::{Fleet, What};
use crate::{agent, calls};
use gantry_api::acs;
use gantry_control::engine::Input;
use gantry_control::sessions::{self, SessionId, SessionInput, SessionOutput};
use gantry_control::tx::View;
use gantry_decide::lifecycle::DesiredStatus;
use gantry_decide::task_engine::{Event, TaskArn};
use gantry_decide::time::Timestamp;
use gantry_wire::envelope::{Frame, seal};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a message is on its way.
const LATENCY: Duration = Duration::from_millis(5);

impl Fleet {
    pub(super) fn connect(&mut self, agent: usize, life: u64) {
        let host = &self.agents[agent];
        if host.life != life || host.session.is_some() {
            return;
        }
        if host.cut_off > self.now {
            let at = host.cut_off;
            return self.at(at, What::Connect { agent, life });
        }
        self.dial(agent);
        if self.server_down > self.now {
            self.refuse(agent);
            return self.after(500..2000, What::Connect { agent, life });
        }
        let state = self.published.snapshot(&self.scope);
        let view = View { scope: &self.scope, state: &state, now: self.server_now() };
        let instance =
            sessions::admit(view, &self.agents[agent].instance_arn).expect("instances stay registered");
        self.counter += 1;
        let session = self.counter;
        self.agents[agent].session = Some(session);
        self.agents[agent].hears = self.now;
        self.sessions.insert(session, agent);
        let input = calls::opening(&self.scope, instance);
        self.step(Input::Session { id: SessionId(session), input });
        if self.agents[agent].lease.is_some() {
            self.at(self.now + self.plan.terms.renew_every, What::Renew { agent, session });
        }
    }

    pub(super) fn closed(&mut self, session: u64) {
        if self.sessions.remove(&session).is_some() {
            self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
        }
    }

    /// Both sides learn of it, the agent comes back by itself.
    pub(super) fn cut(&mut self, agent: usize) {
        let Some(session) = self.agents[agent].session.take() else { return };
        self.sessions.remove(&session);
        self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
        let life = self.agents[agent].life;
        self.after(1..5000, What::Connect { agent, life });
    }

    /// When a message that is sent now arrives: a network that is down holds it up, the transport repeats it.
    fn arrival(&self, agent: usize) -> Timestamp {
        self.now.max(self.agents[agent].cut_off) + LATENCY
    }

    /// The same of what the control plane says, which may be late by itself.
    fn arrival_at(&mut self, agent: usize) -> Timestamp {
        let at = self.arrival(agent);
        let host = &mut self.agents[agent];
        host.hears = host.hears.max(at + host.late(self.now));
        host.hears
    }

    pub(super) fn tell(&mut self, session: u64, output: SessionOutput) {
        let Some(agent) = self.sessions.get(&session).copied() else { return };
        match output {
            SessionOutput::Send(text) => {
                self.trace.note(self.now.as_millis(), text.as_bytes());
                let at = self.arrival_at(agent);
                self.at(at, What::Frame { agent, session, text });
            }
            SessionOutput::Close(..) if self.agents[agent].session == Some(session) => self.cut(agent),
            // What is left of the connection ends after what was said on it.
            SessionOutput::Close(..) => self.after(1..50, What::Closed { session }),
        }
    }

    pub(super) fn say(&mut self, agent: usize, text: String) {
        if let Some(session) = self.agents[agent].session {
            self.trace.note(self.now.as_millis(), text.as_bytes());
            self.at(self.arrival(agent), What::Said { session, text });
        }
    }

    pub(super) fn frame(&mut self, agent: usize, session: u64, text: &str) {
        if self.agents[agent].session == Some(session) {
            self.hear(agent, text);
        }
    }

    pub(super) fn said(&mut self, session: u64, text: String) {
        if self.sessions.contains_key(&session) {
            self.step(Input::Session { id: SessionId(session), input: SessionInput::Text(text) });
        }
    }

    fn hear(&mut self, agent: usize, text: &str) {
        let frame = Frame::open(text).expect("the control plane speaks plainly");
        match frame.kind.as_ref() {
            "HeartbeatMessage" => {
                let message: acs::HeartbeatMessage = frame.message().expect("a heartbeat");
                let ack = acs::HeartbeatAckRequest { message_id: message.message_id };
                self.say(agent, seal("HeartbeatAckRequest", &ack));
            }
            "PayloadMessage" => {
                let message: acs::PayloadMessage = frame.message().expect("a payload");
                for task in message.tasks.iter().flatten() {
                    let (spec, desired) = agent::spec(task);
                    if desired == DesiredStatus::Stopped {
                        self.told_to_stop(agent, spec.arn.clone());
                    }
                    let actions = self.agents[agent].step(self.now, Event::TaskAccepted { spec, desired });
                    self.perform(agent, actions);
                }
                let ack = acs::AckRequest { message_id: Some(message.message_id), ..Default::default() };
                self.say(agent, seal("AckRequest", &ack));
            }
            "LeaseMessage" => self.leased(agent, frame.message().expect("a lease")),
            "TaskManifestMessage" => self.manifest(agent, frame.message().expect("a manifest")),
            "TaskStopVerificationAck" => {
                let message: acs::TaskStopVerificationAck = frame.message().expect("a confirmation");
                for task in message.stop_tasks.into_iter().flatten().filter_map(|task| task.task_arn) {
                    let task = TaskArn(task);
                    self.told_to_stop(agent, task.clone());
                    let event = Event::StopRequested { task };
                    let actions = self.agents[agent].step(self.now, event);
                    self.perform(agent, actions);
                }
            }
            other => panic!("{other} was never said before"),
        }
    }

    /// Asks about the tasks that the control plane does not list as running.
    fn manifest(&mut self, agent: usize, message: acs::TaskManifestMessage) {
        let listed = message.tasks.iter().flatten();
        let wanted: BTreeSet<&str> = listed
            .filter(|task| task.desired_status.as_deref() == Some("RUNNING"))
            .filter_map(|task| task.task_arn.as_deref())
            .collect();
        let Some(engine) = &self.agents[agent].engine else { return };
        let candidates = engine.tasks().filter(|task| {
            task.desired == DesiredStatus::Running && !wanted.contains(task.spec.arn.0.as_str())
        });
        let identify =
            |arn: &TaskArn| acs::TaskIdentifier { task_arn: Some(arn.0.clone()), ..Default::default() };
        let candidates: Vec<_> = candidates.map(|task| identify(&task.spec.arn)).collect();
        if !candidates.is_empty() {
            let question = acs::TaskStopVerificationMessage {
                message_id: message.message_id,
                stop_candidates: Some(candidates),
            };
            self.say(agent, seal("TaskStopVerificationMessage", &question));
        }
    }
}
