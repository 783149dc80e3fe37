//! The engine with a virtual clock, a store that confirms at once or when told to, and the connections' other ends.

use crate::call::{Call, Caller, Principal};
use crate::engine::{CallId, Effect, Engine, Input};
use crate::roles::{self, LIFETIME};
use crate::service::Prepared;
use crate::services::SERVICES;
use crate::services::ecs::links::ExecNews;
use crate::services::ecs::state::{
    AgentVersion, ContainerInstance, ContainerInstanceKey, ExecSession, Task, TaskKey,
};
use crate::services::ecs::tests::world::registration;
use crate::sessions::{self, Channel, Opening, SessionId, SessionInput, SessionOutput};
use crate::tx::View;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::lease::Terms;
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;
use gantry_wire::{ApiError, Structure, json};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Publications and their acknowledgments.
pub const TELEMETRY: &[(&str, &str)] = &[
    ("PublishMetricsRequest", "AckPublishMetric"),
    ("PublishHealthRequest", "AckPublishHealth"),
    ("PublishInstanceStatusRequest", "AckPublishInstanceStatus"),
];

/// Steps at one instant beyond which the engine is spinning.
const STEPS_AT_ONCE_MAX: usize = 50;

pub struct Script {
    engine: Engine,
    pub scope: Scope,
    now: Timestamp,
    random: Seeded,
    wake: Timestamp,
    /// Whether the store keeps its confirmations to itself.
    pub hold: bool,
    unconfirmed: Vec<u64>,
    heard: BTreeMap<SessionId, Vec<SessionOutput>>,
    replies: BTreeMap<CallId, Result<Value, ApiError>>,
    last_call: u64,
    last_session: u64,
}

impl Script {
    /// A control plane with the cluster `default` and two definitions: `app`, and `checked` with a health check.
    pub fn with_cluster() -> Script {
        Script::with_lifetime(LIFETIME)
    }

    /// The same with credentials of tasks that last so long.
    pub fn with_lifetime(lifetime: Duration) -> Script {
        let mut script = Script {
            engine: Engine::new(
                crate::state::State::default(),
                0,
                Box::new(Seeded::new(11)),
                roles::for_tests(lifetime),
                Terms::USUAL,
            ),
            scope: Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() },
            now: Timestamp::from_millis(1_000_000),
            random: Seeded::new(5),
            wake: Timestamp::EPOCH,
            hold: false,
            unconfirmed: Vec::new(),
            heard: BTreeMap::new(),
            replies: BTreeMap::new(),
            last_call: 0,
            last_session: 0,
        };
        script.call("CreateCluster", json!({"clusterName": "default"})).unwrap();
        let app = json!({"name": "app", "image": "app:1", "memory": 16});
        let mut checked = app.clone();
        checked["healthCheck"] = json!({"command": ["CMD-SHELL", "true"]});
        let plain = json!({"name": "plain", "image": "app:1", "memory": 16});
        for (family, containers) in [("app", json!([app])), ("checked", json!([checked, plain]))] {
            script
                .call("RegisterTaskDefinition", json!({"family": family, "containerDefinitions": containers}))
                .unwrap();
        }
        script
    }

    /// Steps at the present time, and on while something is due at once or confirmed.
    fn step(&mut self, inputs: Vec<Input>) {
        let mut inputs = inputs;
        for _ in 0..STEPS_AT_ONCE_MAX {
            for effect in self.engine.step(self.now, std::mem::take(&mut inputs)) {
                match effect {
                    Effect::Persist(batch) => self.unconfirmed.push(batch.seq),
                    Effect::Publish(_) | Effect::Route(_) | Effect::Status { .. } => {}
                    Effect::Reply { id, reply } => {
                        let reply = reply.map(|reply| value(reply.as_ref()));
                        self.replies.insert(id, reply);
                    }
                    Effect::Session { id, output } => self.heard.entry(id).or_default().push(output),
                    Effect::WakeAt(at) => self.wake = at,
                }
            }
            let state = self.engine.head().snapshot(&self.scope);
            state.ecs.check_invariants();
            if !self.hold {
                inputs.extend(self.unconfirmed.drain(..).map(Input::Durable));
            }
            if self.wake <= self.now {
                self.wake = Timestamp::NEVER;
                inputs.push(Input::Tick);
            }
            if inputs.is_empty() {
                return;
            }
        }
        panic!("the engine wants to be woken again and again");
    }

    /// The store confirms what it holds.
    pub fn confirm(&mut self) {
        self.hold = false;
        self.step(Vec::new());
    }

    /// Lets time pass, stepping whenever the engine asked for it.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.wake <= until {
            self.now = self.now.max(self.wake);
            self.step(Vec::new());
        }
        self.now = until;
    }

    /// A new process on the same state. Connections are gone without a word.
    pub fn restart(&mut self) {
        let state = self.engine.head().clone();
        self.engine =
            Engine::new(state, 1_000, Box::new(Seeded::new(12)), roles::for_tests(LIFETIME), Terms::USUAL);
        self.heard.clear();
        self.wake = Timestamp::EPOCH;
        self.step(Vec::new());
    }

    /// Calls a write operation of ECS as root. `null` when its answer is held back.
    pub fn call(&mut self, operation: &str, request: Value) -> Result<Value, ApiError> {
        self.call_of("ecs", operation, request)
    }

    /// The same of a service by its signing name.
    pub fn call_of(&mut self, service: &str, operation: &str, request: Value) -> Result<Value, ApiError> {
        let caller = Caller {
            scope: self.scope.clone(),
            principal: Principal::Root,
            access_key_id: "AKIAEXAMPLE".to_owned(),
        };
        let call = Call { caller, request_id: RequestId::random(&mut self.random), endpoint: String::new() };
        let service = SERVICES.iter().find(|known| known.model.signing_name == service).unwrap();
        let mut read = |shape: &mut dyn Structure| json::read(shape, request.to_string().as_bytes());
        let prepared = (service.operation(operation)?.prepare)(call, &mut read)?;
        let Prepared::Write(write) = prepared else { panic!("{operation} only reads") };
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.step(vec![Input::Call { id, scope: self.scope.clone(), write }]);
        self.replies.remove(&id).unwrap_or(Ok(Value::Null))
    }

    /// Registers an instance with room for thousands of tasks; its ARN.
    pub fn register(&mut self) -> String {
        let names = [
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
            "com.amazonaws.ecs.capability.docker-remote-api.1.24",
            "ecs.capability.container-health-check",
        ];
        self.register_in("default", &names.map(|name| json!({"name": name})))
    }

    pub fn register_in(&mut self, cluster: &str, attributes: &[Value]) -> String {
        let mut request = registration(cluster);
        request["totalResources"][1]["integerValue"] = json!(1_000_000);
        request["attributes"].as_array_mut().unwrap().extend(attributes.iter().cloned());
        let reply = self.call("RegisterContainerInstance", request).unwrap();
        reply["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned()
    }

    pub fn run(&mut self, count: u32) -> Vec<String> {
        self.run_of("app", count)
    }

    pub fn run_checked(&mut self, count: u32) -> Vec<String> {
        self.run_of("checked", count)
    }

    fn run_of(&mut self, definition: &str, count: u32) -> Vec<String> {
        let reply = self.call("RunTask", json!({"taskDefinition": definition, "count": count})).unwrap();
        assert!(reply.is_null() || reply["failures"] == json!([]), "{reply}");
        let tasks = reply["tasks"].as_array().cloned().unwrap_or_default();
        tasks.iter().map(|task| task["taskArn"].as_str().unwrap().to_owned()).collect()
    }

    /// What the server asks before it lets a connection in.
    pub fn admit(&self, instance: &str) -> Result<ContainerInstanceKey, ApiError> {
        let state = self.engine.head().snapshot(&self.scope);
        sessions::admit(View { scope: &self.scope, state: &state, now: self.now }, instance)
    }

    pub fn connect(&mut self, instance: &str) -> SessionId {
        self.open(instance, Channel::Acs)
    }

    pub fn connect_telemetry(&mut self, instance: &str) -> SessionId {
        self.open(instance, Channel::Tcs)
    }

    fn open(&mut self, instance: &str, channel: Channel) -> SessionId {
        let id = self.unopened();
        let agent = AgentVersion {
            version: "1.105.1".to_owned(),
            hash: "a8b3e7d3".to_owned(),
            docker: "DockerVersion: 20.10".to_owned(),
        };
        let (scope, instance) = (self.scope.clone(), instance_key(instance));
        let endpoint = "http://127.0.0.1:4580".to_owned();
        let opening = Opening { scope, instance, channel, agent, endpoint };
        self.step(vec![Input::Session { id, input: SessionInput::Opened(opening) }]);
        id
    }

    pub fn unopened(&mut self) -> SessionId {
        self.last_session += 1;
        SessionId(self.last_session)
    }

    pub fn close(&mut self, id: SessionId) {
        self.step(vec![Input::Session { id, input: SessionInput::Closed }]);
    }

    pub fn text(&mut self, id: SessionId, text: &str) {
        self.step(vec![Input::Session { id, input: SessionInput::Text(text.to_owned()) }]);
    }

    pub fn say(&mut self, id: SessionId, kind: &str, message: &Value) {
        self.text(id, &json!({"type": kind, "message": message}).to_string());
    }

    /// As telemetry is sent.
    pub fn say_signed(&mut self, id: SessionId, kind: &str, message: &Value) {
        let envelope = json!({"type": kind, "message": message});
        self.text(id, &format!("Authorization: AWS4\r\nHost: h\r\nX-Amz-Date: d\r\n\r\n{envelope}"));
    }

    pub fn acknowledge(&mut self, id: SessionId, message: &Value) {
        let ack = json!({"cluster": message["clusterArn"], "containerInstance": message["containerInstanceArn"],
            "messageId": message["messageId"]});
        self.say(id, "AckRequest", &ack);
    }

    /// Answers the heartbeats among what was heard; their number.
    pub fn answer_heartbeats(&mut self, id: SessionId, heard: &[SessionOutput]) -> usize {
        let beats: Vec<Value> =
            messages(heard).into_iter().filter(|message| message["healthy"] == json!(true)).collect();
        for beat in &beats {
            self.say(id, "HeartbeatAckRequest", &json!({"messageId": beat["messageId"]}));
        }
        beats.len()
    }

    /// What a connection was told since the last time.
    pub fn heard(&mut self, id: SessionId) -> Vec<SessionOutput> {
        self.heard.remove(&id).unwrap_or_default()
    }

    pub fn instance(&self, arn: &str) -> ContainerInstance {
        let state = self.engine.head().snapshot(&self.scope);
        state.ecs.container_instance(&instance_key(arn)).unwrap().clone()
    }

    /// Tells what became of a session of ECS Exec.
    pub fn exec_news(&mut self, id: &str, news: ExecNews) {
        let (scope, id) = (self.scope.clone(), id.parse().unwrap());
        self.step(vec![Input::ExecSession { scope, id, news }]);
    }

    pub fn exec_sessions(&self) -> Vec<ExecSession> {
        let state = self.engine.head().snapshot(&self.scope);
        state.ecs.exec_sessions.iter().map(|(_, session)| session.as_ref().clone()).collect()
    }

    pub fn task(&self, arn: &str) -> Task {
        let EcsResource::Task(cluster, id) = arn.parse::<EcsArn>().unwrap().resource else { panic!("{arn}") };
        let state = self.engine.head().snapshot(&self.scope);
        state.ecs.task(&TaskKey { cluster, id }).unwrap().clone()
    }

    /// All tasks and instances, to be compared.
    pub fn records(&self) -> (Vec<Task>, Vec<ContainerInstance>) {
        let state = self.engine.head().snapshot(&self.scope);
        let tasks = state.ecs.tasks().iter().map(|(_, task)| task.as_ref().clone()).collect();
        let instances = state.ecs.container_instances().iter().map(|(_, i)| i.as_ref().clone()).collect();
        (tasks, instances)
    }
}

fn instance_key(arn: &str) -> ContainerInstanceKey {
    match arn.parse::<EcsArn>().unwrap().resource {
        EcsResource::ContainerInstance(cluster, id) => ContainerInstanceKey { cluster, id },
        other => panic!("{other:?}"),
    }
}

fn value(shape: &dyn Structure) -> Value {
    serde_json::from_slice(&json::to_vec(shape)).unwrap()
}

fn frames(heard: &[SessionOutput]) -> Vec<Value> {
    let frames = heard.iter().filter_map(|output| match output {
        SessionOutput::Send(text) => Some(serde_json::from_str(text).unwrap()),
        SessionOutput::Close(..) => None,
    });
    frames.collect()
}

/// The types of the messages heard.
pub fn kinds(heard: &[SessionOutput]) -> Vec<String> {
    frames(heard).iter().map(|frame| frame["type"].as_str().unwrap().to_owned()).collect()
}

/// The messages heard, out of their envelopes.
pub fn messages(heard: &[SessionOutput]) -> Vec<Value> {
    frames(heard).into_iter().map(|mut frame| frame["message"].take()).collect()
}
