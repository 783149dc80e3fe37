//! Agents that do what they are told: of each task they are sent they say that it runs, and later that it ended.

use super::{Host, MACHINE_CPU, Metal, POOL_CPU, Waiting, What};
use crate::calls;
use gantry_api::acs;
use gantry_control::call::Principal;
use gantry_control::engine::Input;
use gantry_control::services::ecs;
use gantry_control::services::ecs::state::FARGATE_POOL;
use gantry_control::sessions::{self, SessionId, SessionInput};
use gantry_control::tx::View;
use gantry_decide::ids::Ec2InstanceId;
use gantry_wire::envelope::{Frame, seal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The one container of every task here.
pub const CONTAINER: &str = "app";
/// How long a task may take to end that has been told to: the warning that a spot task has.
const WARNING: std::ops::Range<u64> = 1000..120_000;

#[derive(Debug, Default)]
pub struct Agent {
    pub arn: Option<String>,
    session: Option<u64>,
    /// What runs or is about to, each with whether it was told to end.
    pub tasks: BTreeMap<String, bool>,
    /// What has ended never runs again, whoever says so.
    ended: BTreeSet<String>,
}

fn registration(cpu: u64, memory: u64, mut names: Vec<&str>, document: &Value) -> Value {
    names.push("com.amazonaws.ecs.capability.docker-remote-api.1.18");
    let attributes: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    json!({"attributes": attributes, "instanceIdentityDocument": document.to_string(),
        "totalResources": [{"name": "CPU", "type": "INTEGER", "integerValue": cpu},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": memory}]})
}

pub fn of_machine(id: Ec2InstanceId) -> Value {
    let document = json!({"availabilityZone": "eu-north-1a", "instanceId": id.to_string()});
    let mut request = registration(MACHINE_CPU, 8192, Vec::new(), &document);
    request["cluster"] = json!("default");
    request
}

pub fn of_pool() -> Value {
    let names = vec!["gantry.inline-eni", "ecs.capability.task-eni", "ecs.capability.task-cpu-mem-limit"];
    let mut request = registration(POOL_CPU, 16_384, names, &json!({"availabilityZone": "eu-north-1a"}));
    request["cluster"] = json!(FARGATE_POOL);
    request
}

/// Of a registration's answer.
pub fn arn_of(reply: &Value) -> String {
    reply["containerInstance"]["containerInstanceArn"].as_str().unwrap_or_default().to_owned()
}

impl Metal {
    fn agent(&mut self, host: Host) -> Option<&mut Agent> {
        match host {
            Host::Pool => Some(&mut self.pool),
            Host::Machine(id) => self.machines.get_mut(&id).map(|machine| &mut machine.agent),
        }
    }

    pub(super) fn connect(&mut self, host: Host) {
        let Some(agent) = self.agent(host) else { return };
        let (Some(arn), None) = (agent.arn.clone(), agent.session) else { return };
        let state = self.published.snapshot(&self.scope);
        let view = View { scope: &self.scope, state: &state, now: self.now };
        // A machine that is about to go may have been deregistered.
        let Ok(instance) = sessions::admit(view, &arn) else { return };
        self.counter += 1;
        let session = self.counter;
        if let Some(agent) = self.agent(host) {
            agent.session = Some(session);
        }
        self.sessions.insert(session, host);
        let input = calls::opening(&self.scope, instance);
        self.step(Input::Session { id: SessionId(session), input });
    }

    /// The server's process is gone, and the connections with it.
    pub(super) fn hang_up(&mut self) {
        for (_, host) in std::mem::take(&mut self.sessions) {
            if let Some(agent) = self.agent(host) {
                agent.session = None;
            }
            self.after(1..3000, What::Connect(host));
        }
    }

    /// The server ends a connection: its agent comes back.
    pub(super) fn closed(&mut self, session: u64) {
        let Some(host) = self.sessions.remove(&session) else { return };
        if let Some(agent) = self.agent(host) {
            agent.session = None;
        }
        self.after(1..3000, What::Connect(host));
    }

    /// A machine ends with all that runs on it.
    pub(super) fn end(&mut self, id: Ec2InstanceId) {
        let Some(agent) = self.agent(Host::Machine(id)) else { return };
        agent.tasks.clear();
        agent.arn = None;
        if let Some(session) = agent.session.take() {
            self.sessions.remove(&session);
            self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
        }
    }

    pub(super) fn frame(&mut self, session: u64, text: &str) {
        let Some(host) = self.sessions.get(&session).copied() else { return };
        let frame = Frame::open(text).expect("the control plane speaks plainly");
        let answer = match frame.kind.as_ref() {
            "HeartbeatMessage" => {
                let message: acs::HeartbeatMessage = frame.message().expect("a heartbeat");
                seal("HeartbeatAckRequest", &acs::HeartbeatAckRequest { message_id: message.message_id })
            }
            "PayloadMessage" => {
                let message: acs::PayloadMessage = frame.message().expect("a payload");
                for task in message.tasks.iter().flatten() {
                    let ends = task.desired_status.as_deref() == Some("STOPPED");
                    self.hand_over(host, task.arn.clone().unwrap_or_default(), ends);
                }
                let ack = acs::AckRequest { message_id: Some(message.message_id), ..Default::default() };
                seal("AckRequest", &ack)
            }
            "TaskManifestMessage" => match self.strays(host, frame.message().expect("a manifest")) {
                Some(question) => seal("TaskStopVerificationMessage", &question),
                None => return,
            },
            "TaskStopVerificationAck" => {
                let message: acs::TaskStopVerificationAck = frame.message().expect("a confirmation");
                let tasks = message.stop_tasks.into_iter().flatten().filter_map(|task| task.task_arn);
                tasks.for_each(|task| self.hand_over(host, task, true));
                return;
            }
            other => panic!("{other} was never said before"),
        };
        self.step(Input::Session { id: SessionId(session), input: SessionInput::Text(answer) });
    }

    /// A task is to run, or to end.
    fn hand_over(&mut self, host: Host, task: String, ends: bool) {
        let Some(agent) = self.agent(host) else { return };
        let before = agent.tasks.get(&task).copied();
        match (before, ends || agent.ended.contains(&task)) {
            (None, false) => {
                agent.tasks.insert(task.clone(), false);
                self.after(1000..5000, What::Tell { host, task, status: "RUNNING" });
            }
            (None, true) => self.after(1..100, What::Tell { host, task, status: "STOPPED" }),
            (Some(false), true) => {
                agent.tasks.insert(task.clone(), true);
                self.after(WARNING, What::Tell { host, task, status: "STOPPED" });
            }
            (Some(_), _) => {}
        }
    }

    fn strays(
        &mut self,
        host: Host,
        message: acs::TaskManifestMessage,
    ) -> Option<acs::TaskStopVerificationMessage> {
        let listed = message.tasks.iter().flatten();
        let wanted: BTreeSet<&str> = listed
            .filter(|task| task.desired_status.as_deref() == Some("RUNNING"))
            .filter_map(|task| task.task_arn.as_deref())
            .collect();
        let agent = self.agent(host)?;
        let strays = agent.tasks.iter().filter(|(task, ends)| !**ends && !wanted.contains(task.as_str()));
        let identify =
            |task: &String| acs::TaskIdentifier { task_arn: Some(task.clone()), ..Default::default() };
        let strays: Vec<_> = strays.map(|(task, _)| identify(task)).collect();
        (!strays.is_empty()).then_some(acs::TaskStopVerificationMessage {
            message_id: message.message_id,
            stop_candidates: Some(strays),
        })
    }

    /// Says what became of a task, as long as the host is there that it is on.
    pub(super) fn tell(&mut self, host: Host, task: String, status: &'static str) {
        let Some(agent) = self.agent(host).filter(|agent| agent.arn.is_some()) else { return };
        if status == "STOPPED" {
            agent.tasks.remove(&task);
            agent.ended.insert(task.clone());
        } else if !agent.tasks.contains_key(&task) {
            return;
        }
        let containers = json!([{"containerName": CONTAINER, "status": status}]);
        let request = json!({"task": task, "status": status, "containers": containers});
        let write = self.prepare(&ecs::SERVICE, "SubmitTaskStateChange", &request, Principal::Agent);
        self.call(write, Some(Waiting::Tells { host, task, status }));
    }
}
