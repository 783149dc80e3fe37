//! A fleet under one seed: the real engine with its sessions, a disk that takes its time and loses what it was not
//! asked to sync, hosts with the real task engine, and messages that take time, get lost with their connection, or come
//! twice. After every step the books are checked; once faults stop, everything must be as users asked.

use crate::agent::{self, Agent, Container};
use gantry_api::acs;
use gantry_control::call::{Call, Caller, Principal};
use gantry_control::engine::{CallId, Effect, Engine, Input};
use gantry_control::load::{Loading, Row};
use gantry_control::service::{Prepared, Reply};
use gantry_control::services::ecs::{self, state::Task};
use gantry_control::sessions::{self, Channel, Opening, SessionId, SessionInput, SessionOutput};
use gantry_control::state::State;
use gantry_control::tx::View;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::random::{Random, Seeded};
use gantry_decide::task_engine::{
    Action, Event, Exit, Failure, FailureKind, Submission, SubmitFailure, TaskArn,
};
use gantry_decide::time::Timestamp;
use gantry_store::memory::MemoryBackend;
use gantry_store::{Backend, Fence};
use gantry_wire::envelope::{Frame, seal};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

/// How a run is.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub agents: usize,
    /// How long users and faults are at work, in virtual seconds.
    pub turmoil: u64,
    /// Mean seconds between what users do.
    pub calls_every: u64,
    /// Mean seconds between faults; none at 0.
    pub faults_every: u64,
    /// Tasks of the largest service.
    pub tasks: usize,
}

impl Plan {
    pub const SMALL: Plan = Plan { agents: 5, turmoil: 600, calls_every: 10, faults_every: 7, tasks: 12 };
}

/// How long everything may take to come right once faults have stopped: the longest pauses of agents and of services
/// that could not start tasks, and some.
const PEACE: Duration = Duration::from_secs(45 * 60);

/// What happens at some time.
enum What {
    Sync,
    Wake,
    /// A frame of the control plane arrives at an agent, on a connection that may be gone.
    Frame {
        agent: usize,
        session: u64,
        text: String,
    },
    /// A frame of an agent arrives.
    Said {
        session: u64,
        text: String,
    },
    Connect {
        agent: usize,
        life: u64,
    },
    Restart {
        agent: usize,
    },
    /// Something came of an action, in the life in which it was begun.
    Happened {
        agent: usize,
        life: u64,
        event: Event,
    },
    Submit {
        agent: usize,
        life: u64,
        submission: Submission,
    },
    Exit {
        agent: usize,
        task: TaskArn,
        container: String,
        code: i32,
    },
    AgentWake {
        agent: usize,
        life: u64,
    },
    User,
    Fault,
}

/// Who waits for an answer.
enum Waiting {
    User { operation: &'static str, request: Value },
    Report { agent: usize, life: u64, task: TaskArn, id: u64 },
}

/// The run. See the module.
pub struct Fleet {
    plan: Plan,
    now: Timestamp,
    random: Seeded,
    scope: Scope,
    engine: Engine,
    backend: MemoryBackend,
    published: State,
    agents: Vec<Agent>,
    sessions: BTreeMap<u64, usize>,
    queue: BTreeMap<(Timestamp, u64), What>,
    counter: u64,
    waiting: BTreeMap<CallId, Waiting>,
    sync_due: bool,
    /// When the engine is to be woken, as far as queued.
    wake: Timestamp,
    peace_from: Timestamp,
    /// What users were told: desired counts, and tasks that were run.
    desired: BTreeMap<String, i64>,
    unsure: BTreeSet<String>,
    ran: BTreeSet<String>,
    pub told: usize,
}

const SERVICES: [&str; 3] = ["one", "two", "three"];

impl Fleet {
    /// Runs a seed to its end.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(seed: u64, plan: Plan) -> Fleet {
        let mut fleet = Fleet::new(seed, plan);
        fleet.set_up();
        let end = fleet.peace_from + PEACE;
        while let Some(entry) = fleet.queue.first_entry() {
            let ((at, _), what) = entry.remove_entry();
            if at > end {
                break;
            }
            fleet.now = at;
            fleet.handle(what);
        }
        fleet.judge();
        fleet
    }

    fn new(seed: u64, plan: Plan) -> Fleet {
        let mut random = Seeded::new(seed);
        let now = Timestamp::from_millis(1_900_000_000_000);
        Fleet {
            plan,
            now,
            scope: Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().expect("a region") },
            engine: Engine::new(
                State::default(),
                0,
                Box::new(Seeded::new(random.next_u64())),
                crate::roles(),
            ),
            random,
            backend: MemoryBackend::new(),
            published: State::default(),
            agents: Vec::new(),
            sessions: BTreeMap::new(),
            queue: BTreeMap::new(),
            counter: 0,
            waiting: BTreeMap::new(),
            sync_due: false,
            wake: Timestamp::NEVER,
            peace_from: now + Duration::from_secs(plan.turmoil),
            desired: BTreeMap::new(),
            unsure: BTreeSet::new(),
            ran: BTreeSet::new(),
            told: 0,
        }
    }

    fn set_up(&mut self) {
        for family in ["a", "b"] {
            self.certain(
                "RegisterTaskDefinition",
                &json!({"family": family, "networkMode": "none",
                "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 100}]}),
            );
        }
        let attribute = json!({"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"});
        for _ in 0..self.plan.agents {
            let reply = self.certain("RegisterContainerInstance", &json!({"attributes": [attribute], "totalResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": 4096}, {"name": "MEMORY", "type": "INTEGER", "integerValue": 1000}]}));
            let arn =
                reply["containerInstance"]["containerInstanceArn"].as_str().unwrap_or_default().to_owned();
            self.agents.push(Agent::new(arn));
        }
        for agent in 0..self.agents.len() {
            self.after(0..500, What::Restart { agent });
        }
        for name in SERVICES {
            let count = 1 + self.random.below(self.plan.tasks);
            let request = json!({"serviceName": name, "taskDefinition": "a", "desiredCount": count});
            self.certain("CreateService", &request);
            self.desired.insert(name.to_owned(), count as i64);
        }
        self.after(0..1000, What::User);
        if self.plan.faults_every > 0 {
            self.after(0..1000, What::Fault);
        }
    }

    /// Queues something some milliseconds from now.
    fn after(&mut self, millis: std::ops::Range<u64>, what: What) {
        let span = usize::try_from(millis.end - millis.start).expect("short spans").max(1);
        let at = self.now + Duration::from_millis(millis.start + self.random.below(span) as u64);
        self.at(at, what);
    }

    fn at(&mut self, at: Timestamp, what: What) {
        self.counter += 1;
        self.queue.insert((at, self.counter), what);
    }

    fn handle(&mut self, what: What) {
        match what {
            What::Sync => {
                self.sync_due = false;
                self.sync();
            }
            What::Wake => {
                self.wake = Timestamp::NEVER;
                self.step(Input::Tick);
            }
            What::Frame { agent, session, text } => {
                if self.agents[agent].session == Some(session) {
                    self.hear(agent, &text);
                }
            }
            What::Said { session, text } => {
                if self.sessions.contains_key(&session) {
                    self.step(Input::Session { id: SessionId(session), input: SessionInput::Text(text) });
                }
            }
            What::Connect { agent, life } => self.connect(agent, life),
            What::Restart { agent } => {
                if self.agents[agent].engine.is_none() {
                    let actions = self.agents[agent].start(self.now);
                    self.perform(agent, actions);
                    let life = self.agents[agent].life;
                    self.after(1..200, What::Connect { agent, life });
                }
            }
            What::Happened { agent, life, event } => {
                if self.agents[agent].life == life {
                    let actions = self.agents[agent].step(self.now, event);
                    self.perform(agent, actions);
                }
            }
            What::Submit { agent, life, submission } => self.submit(agent, life, &submission),
            What::Exit { agent, task, container, code } => self.exit(agent, task, container, code),
            What::AgentWake { agent, life } => {
                if self.agents[agent].life == life {
                    let actions = self.agents[agent].step(self.now, Event::Tick);
                    self.perform(agent, actions);
                }
            }
            What::User => {
                if self.now < self.peace_from {
                    self.user();
                    let span = self.plan.calls_every * 2000;
                    self.after(0..span, What::User);
                }
            }
            What::Fault => {
                if self.now < self.peace_from {
                    self.fault();
                    let span = self.plan.faults_every * 2000;
                    self.after(0..span, What::Fault);
                }
            }
        }
    }

    // The control plane and its disk.

    fn step(&mut self, input: Input) {
        for effect in self.engine.step(self.now, [input]) {
            match effect {
                Effect::Persist(batch) => {
                    self.backend.write(Fence(0), &[batch]).expect("no fault was injected");
                    if !self.sync_due {
                        self.sync_due = true;
                        self.after(1..30, What::Sync);
                    }
                }
                Effect::Publish(state) => {
                    self.published = state;
                    self.check_books();
                }
                Effect::Reply { id, reply } => self.answer(id, reply),
                Effect::Session { id, output } => self.tell(id.0, output),
                Effect::Status { .. } => unreachable!("nobody asked"),
                Effect::WakeAt(at) => {
                    assert!(at > self.now, "a wake in the past would spin the writer");
                    if at < self.wake {
                        self.wake = at;
                        self.at(at, What::Wake);
                    }
                }
            }
        }
    }

    fn sync(&mut self) {
        self.backend.sync().expect("no fault was injected");
        let durable = self.backend.durable_seq();
        self.step(Input::Durable(durable));
    }

    fn prepare(&mut self, operation: &str, request: &Value, principal: Principal) -> Input {
        let caller = Caller { scope: self.scope.clone(), principal, access_key_id: "AKIASIM".to_owned() };
        let call = Call { caller, request_id: RequestId::random(&mut self.random), endpoint: String::new() };
        let operation = ecs::SERVICE.operation(operation).expect("a served operation");
        let body = request.to_string();
        let prepared =
            (operation.prepare)(call, &mut |shape| gantry_wire::json::read(shape, body.as_bytes()));
        let Ok(Prepared::Write(write)) = prepared else { panic!("{request} is no acceptable write") };
        self.counter += 1;
        Input::Call { id: CallId(self.counter), scope: self.scope.clone(), write }
    }

    /// A call whose answer is waited for, before anything goes wrong.
    fn certain(&mut self, operation: &'static str, request: &Value) -> Value {
        let input = self.prepare(operation, request, Principal::Root);
        let mut answer = None;
        let Input::Call { id: mine, .. } = &input else { unreachable!("a call was made") };
        let mine = *mine;
        let mut inputs = vec![input];
        while answer.is_none() {
            for effect in self.engine.step(self.now, std::mem::take(&mut inputs)) {
                match effect {
                    Effect::Persist(batch) => {
                        self.backend.write(Fence(0), &[batch]).expect("no fault was injected");
                    }
                    Effect::Publish(state) => self.published = state,
                    Effect::Reply { id, reply } if id == mine => answer = Some(reply),
                    _ => {}
                }
            }
            self.backend.sync().expect("no fault was injected");
            inputs.push(Input::Durable(self.backend.durable_seq()));
        }
        let reply = answer.expect("it was answered").unwrap_or_else(|error| panic!("{operation}: {error}"));
        serde_json::from_slice(&gantry_wire::json::to_vec(reply.as_ref())).expect("a response is JSON")
    }

    fn crash_server(&mut self) {
        let survivors = self.random.below(4);
        self.backend.crash(survivors);
        self.waiting.retain(|_, waiting| matches!(waiting, Waiting::Report { .. }));
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            if let Waiting::Report { agent, life, task, id } = waiting {
                let event = Event::SubmitFailed { task, id, failure: SubmitFailure::Later };
                self.after(100..5000, What::Happened { agent, life, event });
            }
        }
        let mut loading = Loading::default();
        let load = |key: &str, value: &[u8]| {
            let row = Row::read(key, value);
            loading.take(row.unwrap_or_else(|error| panic!("the store's own record: {error:?}")));
            ControlFlow::Continue(())
        };
        let last_seq = self.backend.load(&mut { load }).expect("memory can be read");
        let state = loading.finish().expect("definitions are stored with their tasks");
        self.published = state.clone();
        self.engine =
            Engine::new(state, last_seq, Box::new(Seeded::new(self.random.next_u64())), crate::roles());
        self.wake = Timestamp::NEVER;
        for (_, agent) in std::mem::take(&mut self.sessions) {
            self.agents[agent].session = None;
            let life = self.agents[agent].life;
            self.after(1..3000, What::Connect { agent, life });
        }
        self.step(Input::Tick);
    }

    fn answer(&mut self, id: CallId, reply: Reply) {
        match self.waiting.remove(&id) {
            Some(Waiting::User { operation, request }) => match reply {
                Ok(response) => {
                    let text = gantry_wire::json::to_vec(response.as_ref());
                    let response = serde_json::from_slice(&text).expect("a response is JSON");
                    self.note(operation, &request, &response);
                }
                Err(error) => assert!(error.status < 500, "{operation} {request} was answered {error}"),
            },
            Some(Waiting::Report { agent, life, task, id }) => {
                let error = reply.err();
                assert!(error.is_none(), "a report was refused: {error:?}");
                // The answer may get lost, and the agent reports once more.
                let lost = self.now < self.peace_from && self.random.below(10) == 0;
                let event = if lost {
                    Event::SubmitFailed { task, id, failure: SubmitFailure::Later }
                } else {
                    Event::Submitted { task, id }
                };
                self.after(1..50, What::Happened { agent, life, event });
            }
            None => {}
        }
    }

    // Connections.

    fn connect(&mut self, agent: usize, life: u64) {
        let host = &self.agents[agent];
        if host.life != life || host.session.is_some() {
            return;
        }
        let state = self.published.scope(&self.scope);
        let view = View { scope: &self.scope, state: &state, now: self.now };
        let instance = sessions::admit(view, &host.instance_arn).expect("instances stay registered");
        self.counter += 1;
        let session = self.counter;
        self.agents[agent].session = Some(session);
        self.sessions.insert(session, agent);
        let opening = Opening {
            scope: self.scope.clone(),
            instance,
            channel: Channel::Acs,
            agent: Default::default(),
            endpoint: String::new(),
        };
        self.step(Input::Session { id: SessionId(session), input: SessionInput::Opened(opening) });
    }

    /// Both sides learn of it, the agent comes back by itself.
    fn cut(&mut self, agent: usize) {
        let Some(session) = self.agents[agent].session.take() else { return };
        self.sessions.remove(&session);
        self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
        let life = self.agents[agent].life;
        self.after(1..5000, What::Connect { agent, life });
    }

    fn tell(&mut self, session: u64, output: SessionOutput) {
        let Some(agent) = self.sessions.get(&session).copied() else { return };
        match output {
            // In the order in which they were said: a connection delivers so.
            SessionOutput::Send(text) => {
                let at = self.now + Duration::from_millis(5);
                self.at(at, What::Frame { agent, session, text });
            }
            SessionOutput::Close(..) => self.cut(agent),
        }
    }

    fn say(&mut self, agent: usize, text: String) {
        if let Some(session) = self.agents[agent].session {
            let at = self.now + Duration::from_millis(5);
            self.at(at, What::Said { session, text });
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
                    let actions = self.agents[agent].step(self.now, Event::TaskAccepted { spec, desired });
                    self.perform(agent, actions);
                }
                let ack = acs::AckRequest { message_id: Some(message.message_id), ..Default::default() };
                self.say(agent, seal("AckRequest", &ack));
            }
            "TaskManifestMessage" => {
                let message: acs::TaskManifestMessage = frame.message().expect("a manifest");
                let wanted: BTreeSet<&str> = message
                    .tasks
                    .iter()
                    .flatten()
                    .filter(|task| task.desired_status.as_deref() == Some("RUNNING"))
                    .filter_map(|task| task.task_arn.as_deref())
                    .collect();
                let Some(engine) = &self.agents[agent].engine else { return };
                let candidates = engine.tasks().filter(|task| {
                    task.desired == DesiredStatus::Running && !wanted.contains(task.spec.arn.0.as_str())
                });
                let candidates: Vec<acs::TaskIdentifier> = candidates
                    .map(|task| acs::TaskIdentifier {
                        task_arn: Some(task.spec.arn.0.clone()),
                        ..Default::default()
                    })
                    .collect();
                if !candidates.is_empty() {
                    let question = acs::TaskStopVerificationMessage {
                        message_id: message.message_id,
                        stop_candidates: Some(candidates),
                    };
                    self.say(agent, seal("TaskStopVerificationMessage", &question));
                }
            }
            "TaskStopVerificationAck" => {
                let message: acs::TaskStopVerificationAck = frame.message().expect("a confirmation");
                for task in message.stop_tasks.into_iter().flatten().filter_map(|task| task.task_arn) {
                    let actions =
                        self.agents[agent].step(self.now, Event::StopRequested { task: TaskArn(task) });
                    self.perform(agent, actions);
                }
            }
            other => panic!("{other} was never said before"),
        }
    }

    // Hosts.

    fn perform(&mut self, agent: usize, actions: Vec<Action>) {
        let life = self.agents[agent].life;
        for action in actions {
            match action {
                Action::Persist { task } => {
                    let host = &mut self.agents[agent];
                    let state = host.engine.as_ref().and_then(|engine| engine.task(&task)).cloned();
                    host.disk.extend(state.map(|state| (task, state)));
                }
                Action::PrepareImage { task, container } => {
                    let fails = self.now < self.peace_from && self.random.below(40) == 0;
                    let event = if fails {
                        let failure = Failure::new(FailureKind::CannotPullContainerError, "no such image");
                        Event::ImageFailed { task, container, failure, pull: None }
                    } else {
                        Event::ImageReady { task, container, digest: None, pull: None }
                    };
                    self.after(5..3000, What::Happened { agent, life, event });
                }
                Action::SetUpNetwork { task } => {
                    let event = Event::NetworkSetUp { task, result: Ok(()) };
                    self.after(1..10, What::Happened { agent, life, event });
                }
                Action::TearDownNetwork { task } => {
                    self.after(
                        1..100,
                        What::Happened { agent, life, event: Event::NetworkTornDown { task } },
                    );
                }
                Action::Launch { task, container } | Action::Restart { task, container } => {
                    let key = (task.clone(), container.clone());
                    self.agents[agent].runtime.insert(key, Container::Running);
                    let event = Event::ContainerStarted {
                        task,
                        container,
                        runtime_id: "r".to_owned(),
                        bindings: Vec::new(),
                    };
                    self.after(5..200, What::Happened { agent, life, event });
                }
                Action::Signal { task, container, .. } => {
                    self.after(1..2000, What::Exit { agent, task, container, code: 143 });
                }
                Action::RemoveContainer { task, container } => {
                    self.agents[agent].runtime.remove(&(task, container));
                }
                Action::Submit(submission) => {
                    if self.now < self.peace_from && self.random.below(20) == 0 {
                        // It came through twice.
                        let submission = submission.clone();
                        self.after(1..500, What::Submit { agent, life, submission });
                    }
                    self.after(1..50, What::Submit { agent, life, submission });
                }
                Action::Forget { task } => _ = self.agents[agent].disk.remove(&task),
                Action::WakeAt(at) => {
                    let at = at.max(self.now + Duration::from_millis(1));
                    self.at(at, What::AgentWake { agent, life });
                }
            }
        }
    }

    fn exit(&mut self, agent: usize, task: TaskArn, container: String, code: i32) {
        let exit = Exit { code: Some(code), out_of_memory: false, at: self.now };
        let host = &mut self.agents[agent];
        let Some(state) = host.runtime.get_mut(&(task.clone(), container.clone())) else { return };
        if *state == Container::Running {
            *state = Container::Exited(exit);
            let life = host.life;
            // Not before it is known to have started.
            let event = Event::ContainerExited { task, container, exit };
            self.after(250..300, What::Happened { agent, life, event });
        }
    }

    fn submit(&mut self, agent: usize, life: u64, submission: &Submission) {
        let (task, id) = (submission.task.clone(), submission.id);
        if self.now < self.peace_from && self.random.below(10) == 0 {
            let event = Event::SubmitFailed { task, id, failure: SubmitFailure::Later };
            return self.after(10..1000, What::Happened { agent, life, event });
        }
        let containers: Vec<Value> = submission
            .containers
            .iter()
            .map(|change| json!({"containerName": change.name, "status": change.status.as_str(), "exitCode": change.exit_code}))
            .collect();
        let request = json!({"task": task.0, "status": submission.status.as_str(), "reason": submission.reason,
                             "containers": containers});
        let input = self.prepare("SubmitTaskStateChange", &request, Principal::Agent);
        if let Input::Call { id: call, .. } = &input {
            self.waiting.insert(*call, Waiting::Report { agent, life, task, id });
        }
        self.step(input);
    }

    // Users and faults.

    fn user(&mut self) {
        let name = SERVICES[self.random.below(SERVICES.len())];
        let count = self.random.below(self.plan.tasks + 1);
        let family = ["a", "b"][self.random.below(2)];
        let (operation, request) = match self.random.below(6) {
            0 | 1 => ("UpdateService", json!({"service": name, "desiredCount": count})),
            2 => ("UpdateService", json!({"service": name, "taskDefinition": family})),
            3 => ("UpdateService", json!({"service": name, "forceNewDeployment": true})),
            4 => ("RunTask", json!({"taskDefinition": family, "count": 1 + self.random.below(3)})),
            _ => {
                let state = self.published.scope(&self.scope);
                let tasks: Vec<&Task> = state.ecs.tasks().iter().map(|(_, task)| task.as_ref()).collect();
                if tasks.is_empty() {
                    return;
                }
                let task = tasks[self.random.below(tasks.len())];
                ("StopTask", json!({"task": task.arn(&self.scope).to_string()}))
            }
        };
        if request.get("desiredCount").is_some() {
            self.unsure.insert(name.to_owned());
        }
        let input = self.prepare(operation, &request, Principal::Root);
        if let Input::Call { id, .. } = &input {
            self.waiting.insert(*id, Waiting::User { operation, request });
        }
        self.step(input);
    }

    /// Remembers what a user was told.
    fn note(&mut self, operation: &str, request: &Value, response: &Value) {
        self.told += 1;
        if let (Some(name), Some(count)) = (request["service"].as_str(), request["desiredCount"].as_i64()) {
            self.desired.insert(name.to_owned(), count);
            self.unsure.remove(name);
        }
        if operation == "RunTask" {
            let tasks = response["tasks"].as_array().into_iter().flatten();
            self.ran.extend(tasks.filter_map(|task| Some(task["taskArn"].as_str()?.to_owned())));
        }
    }

    fn fault(&mut self) {
        let agent = self.random.below(self.agents.len());
        match self.random.below(10) {
            0 => self.crash_server(),
            1..=3 => {
                if let Some(session) = self.agents[agent].session {
                    self.sessions.remove(&session);
                    self.agents[agent].die();
                    self.step(Input::Session { id: SessionId(session), input: SessionInput::Closed });
                } else {
                    self.agents[agent].die();
                }
                self.after(500..30_000, What::Restart { agent });
            }
            4..=6 => self.cut(agent),
            _ => {
                let running: Vec<(TaskArn, String)> = self.agents[agent]
                    .runtime
                    .iter()
                    .filter(|(_, container)| **container == Container::Running)
                    .map(|(key, _)| key.clone())
                    .collect();
                if !running.is_empty() {
                    let (task, container) = running[self.random.below(running.len())].clone();
                    self.after(1..2, What::Exit { agent, task, container, code: 1 });
                }
            }
        }
    }

    // What must hold.

    fn check_books(&self) {
        let state = self.published.scope(&self.scope);
        // The whole check is linear in all there is: for a large fleet it is made at the end alone.
        if self.agents.len() <= 20 {
            state.check_invariants();
        }
        let name = "default".parse().expect("a cluster name");
        let pool = state.ecs.pool(&name);
        for (key, _) in state.ecs.container_instances().iter() {
            let host = pool.host(key).expect("every instance is in its pool");
            assert!(host.free_cpu >= 0 && host.free_memory >= 0, "{key:?} holds more than it has");
        }
    }

    /// Peace has lasted: everything must be as users asked, on the hosts too.
    fn judge(&self) {
        let state = self.published.scope(&self.scope);
        state.check_invariants();
        let room = self.agents.len() * 10;
        let wanted: i64 = self.desired.values().sum();
        for (name, desired) in self.desired.iter().filter(|(name, _)| !self.unsure.contains(*name)) {
            let found = state.ecs.services().values().find(|service| service.name.as_str() == name);
            let found = found.unwrap_or_else(|| panic!("the service {name} is lost"));
            assert_eq!(i64::from(found.desired_count), *desired, "{name} is not what was acknowledged");
        }
        let mut live: BTreeSet<TaskArn> = BTreeSet::new();
        for (key, task) in state.ecs.tasks().iter().filter(|(_, task)| task.is_live()) {
            assert_eq!(
                (task.last_status, task.desired_status),
                (LastStatus::Running, DesiredStatus::Running),
                "{key:?}"
            );
            live.insert(TaskArn(task.arn(&self.scope).to_string()));
        }
        let on_hosts: BTreeSet<TaskArn> = self.agents.iter().flat_map(Agent::running).cloned().collect();
        let lost: Vec<_> = live.difference(&on_hosts).collect();
        let stray: Vec<_> = on_hosts.difference(&live).collect();
        assert!(lost.is_empty() && stray.is_empty(), "not on hosts: {lost:?}; on hosts alone: {stray:?}");
        for service in state.ecs.services().values() {
            let key = gantry_store::Record::key(service.as_ref());
            let running = state.ecs.tasks_of(&key).count();
            let short = usize::try_from(wanted).unwrap_or(0) + self.ran.len() > room;
            let enough = running == service.desired_count as usize;
            assert!(enough || short, "{} has {running} of {} tasks", service.name, service.desired_count);
            if enough && !short {
                let primary = service.primary().expect("a service has a deployment");
                let newest =
                    state.ecs.tasks_of(&key).all(|task| task.definition_id == primary.task_definition);
                assert!(newest, "{} still runs an older revision", service.name);
            }
        }
        // Tasks are describable for an hour after their end, which no run lasts after the last was run.
        for arn in &self.ran {
            let EcsResource::Task(cluster, id) = arn.parse::<EcsArn>().expect("an ARN of ours").resource
            else {
                panic!("{arn} is no task's");
            };
            let key = ecs::state::TaskKey { cluster, id };
            assert!(state.ecs.task(&key).is_some(), "the acknowledged task {arn} is lost");
        }
    }
}
