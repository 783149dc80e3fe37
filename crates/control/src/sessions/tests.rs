//! Scripts on agents' connections, through the engine: what is said when, and that nothing is said before it is
//! durable.
#![allow(clippy::unwrap_used)]

use super::{Channel, Opening, SessionId, SessionInput, SessionOutput};
use crate::call::{Call, Caller, Principal};
use crate::engine::{CallId, Effect, Engine, Input};
use crate::service::{Prepared, Reply};
use crate::services::SERVICES;
use crate::services::ecs::state::{AgentVersion, ContainerInstance, ContainerInstanceKey};
use crate::state::State;
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;
use gantry_wire::json;
use serde_json::{Value, json};
use std::time::Duration;

/// An engine whose disk obeys at a word.
struct Bench {
    engine: Engine,
    now: Timestamp,
    scope: Scope,
    random: Seeded,
    /// The last batch that was to be written.
    written: u64,
    said: Vec<(u64, Value)>,
    closed: Vec<u64>,
    replies: Vec<Reply>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            engine: Engine::new(State::default(), 0, Box::new(Seeded::new(1))),
            now: Timestamp::from_millis(1_000_000),
            scope: Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() },
            random: Seeded::new(2),
            written: 0,
            said: Vec::new(),
            closed: Vec::new(),
            replies: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.engine.step(self.now, [input]) {
            match effect {
                Effect::Persist(batch) => self.written = batch.seq,
                Effect::Reply { reply, .. } => self.replies.push(reply),
                Effect::Session { id, output: SessionOutput::Send(text) } => {
                    self.said.push((id.0, serde_json::from_str(&text).unwrap()));
                }
                Effect::Session { id, output: SessionOutput::Close(..) } => self.closed.push(id.0),
                Effect::Publish(_) | Effect::WakeAt(_) => {}
            }
        }
    }

    fn sync(&mut self) {
        self.step(Input::Durable(self.written));
    }

    fn call(&mut self, operation: &str, request: &Value) -> Value {
        let service = SERVICES.iter().find(|service| service.model.name == "ecs").unwrap();
        let caller = Caller {
            scope: self.scope.clone(),
            principal: Principal::Root,
            access_key_id: "AKIAEXAMPLE".to_owned(),
        };
        let call = Call { caller, request_id: RequestId::random(&mut self.random), endpoint: String::new() };
        let body = request.to_string();
        let prepared = (service.operation(operation).unwrap().prepare)(call, &mut |shape| {
            json::read(shape, body.as_bytes())
        });
        let Ok(Prepared::Write(write)) = prepared else { panic!("{operation} is no write") };
        self.step(Input::Call { id: CallId(1), scope: self.scope.clone(), write });
        self.sync();
        let reply = self.replies.pop().unwrap().unwrap();
        serde_json::from_slice(&json::to_vec(reply.as_ref())).unwrap()
    }

    fn session(&mut self, id: u64, input: SessionInput) {
        self.step(Input::Session { id: SessionId(id), input });
    }

    fn connect(&mut self, id: u64) {
        let instance = self.instance();
        let opening = Opening {
            scope: self.scope.clone(),
            instance: ContainerInstanceKey { cluster: instance.cluster, id: instance.id },
            channel: Channel::Acs,
            agent: AgentVersion { version: "9.9".to_owned(), ..AgentVersion::default() },
        };
        self.session(id, SessionInput::Opened(opening));
        self.sync();
    }

    fn instance(&self) -> ContainerInstance {
        let state = self.engine.head().get(&self.scope).unwrap();
        state.ecs.container_instances().iter().next().unwrap().1.as_ref().clone()
    }

    /// What was said since the last time, by type.
    fn heard(&mut self) -> Vec<(String, Value)> {
        let said = std::mem::take(&mut self.said).into_iter();
        said.map(|(_, mut frame)| (frame["type"].as_str().unwrap().to_owned(), frame["message"].take()))
            .collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.step(Input::Tick);
        self.sync();
    }

    fn with_task() -> (Bench, String) {
        let mut bench = Bench::new();
        let attributes = ["docker-remote-api.1.18", "docker-remote-api.1.21", "logging-driver.awslogs"];
        let attributes =
            attributes.map(|name| json!({"name": format!("com.amazonaws.ecs.capability.{name}")}));
        bench.call("RegisterContainerInstance", &json!({"attributes": attributes, "totalResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 2048}, {"name": "MEMORY", "type": "INTEGER", "integerValue": 4000}]}));
        bench.call(
            "RegisterTaskDefinition",
            &json!({"family": "app", "containerDefinitions": [
            {"name": "app", "image": "app:1", "memory": 128, "environment": [{"name": "A", "value": "b"}],
             "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "g"}}}]}),
        );
        bench.connect(1);
        let heard = bench.heard();
        assert_eq!(heard[0].0, "TaskManifestMessage");
        assert_eq!(heard[0].1["tasks"], json!([]));
        let ran = bench.call("RunTask", &json!({"taskDefinition": "app"}));
        (bench, ran["tasks"][0]["taskArn"].as_str().unwrap_or_default().to_owned())
    }
}

fn kinds(heard: &[(String, Value)]) -> Vec<&str> {
    heard.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[test]
fn a_task_is_sent_once_it_is_durable_and_again_until_it_is_acknowledged() {
    let (mut bench, arn) = Bench::with_task();
    let heard = bench.heard();
    assert_eq!(kinds(&heard), ["PayloadMessage"]);
    let task = &heard[0].1["tasks"][0];
    assert_eq!(
        (&task["arn"], &task["desiredStatus"], &task["networkMode"]),
        (&json!(arn), &json!("RUNNING"), &json!("bridge"))
    );
    assert_eq!(task["containers"][0]["environment"], json!({"A": "b"}));
    let host: Value =
        serde_json::from_str(task["containers"][0]["dockerConfig"]["hostConfig"].as_str().unwrap()).unwrap();
    assert_eq!(host["NetworkMode"], "bridge");
    let message = heard[0].1["messageId"].clone();
    bench.pass(16);
    assert_eq!(bench.heard()[0].1["messageId"], message, "no answer: once more");
    let ack = json!({"type": "AckRequest", "message": {"messageId": message}});
    bench.session(1, SessionInput::Text(ack.to_string()));
    bench.pass(60);
    assert_eq!(kinds(&bench.heard()), ["HeartbeatMessage"]);

    // Nothing is said of a stop before it is on the disk.
    let body = json!({"task": arn});
    let stopped = bench.call("StopTask", &body);
    assert_eq!(stopped["task"]["desiredStatus"], "STOPPED");
    let heard = bench.heard();
    assert_eq!(kinds(&heard), ["PayloadMessage"]);
    assert_eq!(heard[0].1["tasks"][0]["desiredStatus"], "STOPPED");
}

#[test]
fn a_silent_agent_is_cut_off_and_a_returning_one_is_told_everything() {
    let (mut bench, arn) = Bench::with_task();
    bench.heard();
    assert!(bench.instance().agent_connected);
    for _ in 0..4 {
        bench.pass(31);
    }
    assert_eq!(bench.closed, [1], "heartbeats were not answered");
    bench.session(1, SessionInput::Closed);
    bench.sync();
    assert!(!bench.instance().agent_connected);
    bench.heard();
    bench.connect(2);
    let heard = bench.heard();
    assert_eq!(kinds(&heard), ["TaskManifestMessage", "PayloadMessage"]);
    assert_eq!(heard[0].1["tasks"][0]["taskArn"], json!(arn));
    let (manifest, payload) =
        (heard[0].1["timeline"].as_i64().unwrap(), heard[1].1["seqNum"].as_i64().unwrap());
    assert!(manifest < payload, "numbers rise");
    // A second connection of the same agent takes over; the end of the first is no news then.
    bench.connect(3);
    assert_eq!(bench.closed, [1, 2]);
    bench.session(2, SessionInput::Closed);
    bench.sync();
    assert!(bench.instance().agent_connected);
    assert!(bench.heard()[0].1["timeline"].as_i64().unwrap() > payload, "also across connections");
}

#[test]
fn only_what_should_not_run_is_confirmed_to_stop() {
    let (mut bench, arn) = Bench::with_task();
    bench.heard();
    bench.connect(2);
    let manifest = bench.heard()[0].1["messageId"].clone();
    let stranger = arn.replace(&arn[arn.len() - 4..], "0000");
    let ask = |id: &Value| {
        let candidates = json!([{"taskArn": arn}, {"taskArn": stranger}, {"taskArn": "nonsense"}]);
        json!({"type": "TaskStopVerificationMessage", "message": {"messageId": id, "stopCandidates": candidates}}).to_string()
    };
    bench.session(2, SessionInput::Text(ask(&json!("another"))));
    assert!(bench.heard().is_empty());
    bench.session(2, SessionInput::Text(ask(&manifest)));
    let heard = bench.heard();
    assert_eq!(kinds(&heard), ["TaskStopVerificationAck"]);
    let stop = heard[0].1["stopTasks"].as_array().unwrap();
    assert_eq!(
        stop.iter().map(|task| task["taskArn"].as_str().unwrap()).collect::<Vec<_>>(),
        [stranger.as_str(), "nonsense"]
    );
    for nonsense in ["", "{", "[]", "{\"type\":1}", "{\"type\":\"AckRequest\",\"message\":[]}"] {
        bench.session(2, SessionInput::Text(nonsense.to_owned()));
    }
}

#[test]
fn a_deregistered_agent_is_told_to_stop_and_sent_away() {
    let (mut bench, arn) = Bench::with_task();
    bench.heard();
    let instance = bench.instance().id.to_string();
    bench.call("DeregisterContainerInstance", &json!({"containerInstance": instance, "force": true}));
    let heard = bench.heard();
    assert_eq!(kinds(&heard), ["PayloadMessage"]);
    assert_eq!(
        (&heard[0].1["tasks"][0]["arn"], &heard[0].1["tasks"][0]["desiredStatus"]),
        (&json!(arn), &json!("STOPPED"))
    );
    assert_eq!(bench.closed, [1]);
}

#[test]
fn agents_that_do_not_return_after_a_restart_count_as_gone() {
    let (bench, _) = Bench::with_task();
    let mut next = Bench::new();
    next.engine = Engine::new(bench.engine.head().clone(), bench.written, Box::new(Seeded::new(9)));
    next.written = bench.written;
    next.now = bench.now;
    next.pass(1);
    assert!(next.instance().agent_connected, "it may be on its way");
    next.pass(200);
    assert!(!next.instance().agent_connected);
}
