//! Clusters of growing size in process: the real engine without sockets and disk, and agents that answer at once. What is
//! measured is the engine's own time; what agents need is nobody's here. Time is virtual, so that pauses cost nothing.

use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use gantry_api::acs;
use gantry_control::call::{Call, Caller, Principal};
use gantry_control::engine::{CallId, Effect, Engine, Input};
use gantry_control::roles::{LIFETIME, Roles};
use gantry_control::service::Prepared;
use gantry_control::services::ecs;
use gantry_control::services::ecs::quotas::Quotas;
use gantry_control::services::ecs::state::{ContainerInstanceKey, RolloutState};
use gantry_control::sessions::{Channel, Opening, SessionId, SessionInput, SessionOutput};
use gantry_control::state::{Installation, State};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::lease::Terms;
use gantry_decide::random::{Random, Seeded};
use gantry_decide::time::Timestamp;
use gantry_wire::envelope::{Frame, seal};
use gantry_wire::sigv4::SessionKey;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Instances; a tenth as many services, of a hundred tasks each.
const SIZES: [usize; 3] = [100, 1000, 10_000];
const TASKS: usize = 100;
/// How long instances die, one of a hundred in each minute.
const CHURN_MINUTES: usize = 3;
/// Inputs that the engine gets at once, as the server's writer groups what waits for it.
const GROUP: usize = 256;
/// What one instance offers, and a task takes: room for twenty tasks, so that a deployment finds some.
const CPU: i64 = 20_480;
const MEMORY: i64 = 20_480;
const TASK: i64 = 512;
const ZONES: [&str; 3] = ["eu-north-1a", "eu-north-1b", "eu-north-1c"];
/// Longest virtual time for anything, and longest real one: a bench that does not end says where it stands.
const PATIENCE: Duration = Duration::from_secs(3600);
const REAL_PATIENCE: Duration = Duration::from_secs(900);

pub fn run() -> Result<()> {
    let (mut rates, mut handed, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for size in SIZES {
        let memory = resident()?;
        let mut cell = Cell::new();
        for index in 0..size {
            cell.join(index)?;
        }
        cell.settle()?;
        cell.tell(&format!("{size} instances joined"));
        let services = size / 10;
        let filled = cell.fill(services, size)?;
        cell.tell(&format!("{} tasks of {services} services", cell.tasks));
        let tasks = cell.tasks;
        let fill: Duration = filled.iter().sum();
        let grown = resident()?.saturating_sub(memory);
        let (churn, replaced) = cell.churn(size)?;
        cell.tell(&format!("{replaced} tasks of dead instances replaced"));
        let roll = cell.roll(services)?;
        cell.tell("all services updated");
        let rate = |count: usize, time: Duration| vec![count as f64 / time.as_secs_f64()];
        rates.push(Row::new(format!("{size} instances: fill {tasks} tasks"), "tasks/s", rate(tasks, fill)));
        rates.push(Row::new(
            format!("{size}: replace {replaced} of dead instances"),
            "tasks/s",
            rate(replaced, churn),
        ));
        rates.push(Row::new(
            format!("{size}: rolling update of {services} services"),
            "tasks/s",
            rate(tasks, roll),
        ));
        let millis = filled.iter().map(|time| time.as_secs_f64() * 1000.0);
        handed.push(Row::new(format!("{size} instances"), "ms", millis.collect()));
        let each = |time: Duration, count: usize| vec![time.as_secs_f64() * 1e6 / count as f64];
        costs.push(Row::new(
            format!("{size} instances: a task, from call to RUNNING"),
            "us",
            each(fill, tasks),
        ));
        costs.push(Row::new(
            format!("{size} instances: memory of a task"),
            "KiB",
            vec![grown as f64 / tasks as f64],
        ));
    }
    print("A cluster in process, engine time only", &rates);
    print("From CreateService until its tasks, 100 of most, are handed to agents", &handed);
    print("How it grows", &costs);
    Ok(())
}

/// KiB.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A control plane whose disk takes no time, and agents that do at once what they are told.
struct Cell {
    now: Timestamp,
    random: Seeded,
    scope: Scope,
    engine: Engine,
    published: State,
    queue: VecDeque<Input>,
    wake: Timestamp,
    calls: u64,
    /// By session, from 1; none once it is dead.
    agents: Vec<Option<ContainerInstanceKey>>,
    /// How many tasks it was told to start and not to stop, by session.
    here: Vec<usize>,
    /// Tasks that services shall have, that agents were told to start, and that run on those that live.
    tasks: usize,
    started: usize,
    running: usize,
    steps: usize,
    since: Instant,
    /// What the engine took.
    took: Duration,
    answer: Option<Value>,
}

impl Cell {
    fn new() -> Cell {
        let mut random = Seeded::new(1);
        let seed = random.next_u64();
        // Instances that die shall be missed soon.
        let terms = Terms { without: Duration::from_secs(3), ..Terms::USUAL };
        let roles = Roles::new(SessionKey::new(&[1; SessionKey::LENGTH]), LIFETIME);
        // What is measured is larger than what ECS allows.
        let quotas = Quotas { container_instances: 1_000_000, tasks: 1_000_000, ..Quotas::default() };
        let mut state = State::default();
        state.install(Installation { quotas, ..Installation::default() });
        Cell {
            now: Timestamp::from_millis(1_900_000_000_000),
            random,
            scope: Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().expect("a region") },
            engine: Engine::new(state, 0, Box::new(Seeded::new(seed)), roles, terms),
            published: State::default(),
            queue: VecDeque::new(),
            wake: Timestamp::NEVER,
            calls: 0,
            agents: vec![None],
            here: vec![0],
            tasks: 0,
            started: 0,
            running: 0,
            steps: 0,
            since: Instant::now(),
            took: Duration::ZERO,
            answer: None,
        }
    }

    /// Shows that it goes on.
    fn tell(&mut self, what: &str) {
        let since = std::mem::replace(&mut self.since, Instant::now());
        eprintln!(
            "{what}: {:.1?}, the engine {:.1?} in {} steps so far",
            since.elapsed(),
            self.took,
            self.steps
        );
    }

    /// Handles what waits, as far as no time has to pass.
    fn settle(&mut self) -> Result<()> {
        while !self.queue.is_empty() || self.wake <= self.now {
            if self.wake <= self.now {
                self.wake = Timestamp::NEVER;
                self.queue.push_back(Input::Tick);
            }
            let group: Vec<Input> = self.queue.drain(..self.queue.len().min(GROUP)).collect();
            let start = Instant::now();
            let effects = self.engine.step(self.now, group);
            self.took += start.elapsed();
            self.steps += 1;
            for effect in effects {
                self.take(effect)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Persist(batch) => self.queue.push_front(Input::Durable(batch.seq)),
            Effect::Publish(state) => self.published = state,
            Effect::Reply { reply, .. } => {
                let reply = reply.map_err(|error| anyhow::anyhow!("{error}"))?;
                self.answer = Some(serde_json::from_slice(&gantry_wire::json::to_vec(reply.as_ref()))?);
            }
            Effect::Session { id, output: SessionOutput::Send(text) } => self.told(id, &text)?,
            Effect::Session { .. } | Effect::Route(_) | Effect::Status { .. } => {}
            Effect::WakeAt(at) => self.wake = at,
        }
        Ok(())
    }

    fn input(&mut self, operation: &str, request: &Value, principal: Principal) -> Result<Input> {
        let caller = Caller { scope: self.scope.clone(), principal, access_key_id: "AKIABENCH".to_owned() };
        let call = Call { caller, request_id: RequestId::random(&mut self.random), endpoint: String::new() };
        let operation = ecs::SERVICE.operation(operation).context("no such operation")?;
        let body = request.to_string();
        let prepared =
            (operation.prepare)(call, &mut |shape| gantry_wire::json::read(shape, body.as_bytes()));
        let Ok(Prepared::Write(write)) = prepared else { anyhow::bail!("{request} is no acceptable write") };
        self.calls += 1;
        Ok(Input::Call { id: CallId(self.calls), scope: self.scope.clone(), write })
    }

    fn call(&mut self, operation: &str, request: &Value) -> Result<Value> {
        let input = self.input(operation, request, Principal::Root)?;
        self.queue.push_back(input);
        self.settle()?;
        self.answer.take().context("no answer")
    }

    /// Lets time pass until it is as asked.
    fn wait_for(&mut self, what: &str, is_so: impl Fn(&Cell) -> bool) -> Result<()> {
        let end = self.now + PATIENCE;
        self.settle()?;
        while !is_so(self) {
            ensure!(self.wake <= end, "in vain: {what}");
            ensure!(
                self.since.elapsed() < REAL_PATIENCE,
                "no end: {what}; {} of {} tasks run, {} were started",
                self.running,
                self.tasks,
                self.started
            );
            self.now = self.now.max(self.wake);
            self.settle()?;
        }
        Ok(())
    }

    fn join(&mut self, index: usize) -> Result<()> {
        let document = json!({"availabilityZone": ZONES[index % ZONES.len()]}).to_string();
        let integer =
            |name: &str, value: i64| json!({"name": name, "type": "INTEGER", "integerValue": value});
        let request = json!({"instanceIdentityDocument": document,
            "attributes": [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}],
            "totalResources": [integer("CPU", CPU), integer("MEMORY", MEMORY)]});
        let reply = self.call("RegisterContainerInstance", &request)?;
        let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap_or_default();
        let EcsResource::ContainerInstance(cluster, id) = arn.parse::<EcsArn>()?.resource else {
            anyhow::bail!("{arn} is no instance");
        };
        let instance = ContainerInstanceKey { cluster, id };
        let opening = Opening {
            scope: self.scope.clone(),
            instance: instance.clone(),
            channel: Channel::Acs,
            agent: Default::default(),
            endpoint: String::new(),
        };
        let id = SessionId(self.agents.len() as u64);
        self.agents.push(Some(instance));
        self.here.push(0);
        self.queue.push_back(Input::Session { id, input: SessionInput::Opened(opening) });
        Ok(())
    }

    /// An agent hears something: tasks start and stop at once.
    fn told(&mut self, id: SessionId, text: &str) -> Result<()> {
        if self.agents[id.0 as usize].is_none() {
            return Ok(());
        }
        let frame = Frame::open(text).context("an agent hears no envelope")?;
        let text = match frame.kind.as_ref() {
            "HeartbeatMessage" => {
                let message: acs::HeartbeatMessage = frame.message()?;
                seal("HeartbeatAckRequest", &acs::HeartbeatAckRequest { message_id: message.message_id })
            }
            "PayloadMessage" => {
                let message: acs::PayloadMessage = frame.message()?;
                for task in message.tasks.iter().flatten() {
                    let stops = task.desired_status.as_deref() == Some("STOPPED");
                    let status = if stops { "STOPPED" } else { "RUNNING" };
                    let here = &mut self.here[id.0 as usize];
                    if stops {
                        *here -= 1;
                        self.running -= 1;
                    } else {
                        *here += 1;
                        self.started += 1;
                        self.running += 1;
                    }
                    let request = json!({"task": task.arn, "status": status,
                        "containers": [{"containerName": "app", "status": status, "exitCode": stops.then_some(0)}]});
                    let report = self.input("SubmitTaskStateChange", &request, Principal::Agent)?;
                    self.queue.push_back(report);
                }
                let ack = acs::AckRequest { message_id: Some(message.message_id), ..Default::default() };
                seal("AckRequest", &ack)
            }
            _ => return Ok(()),
        };
        self.queue.push_back(Input::Session { id, input: SessionInput::Text(text) });
        Ok(())
    }

    fn define(&mut self) -> Result<()> {
        let container = json!({"name": "app", "image": "app:1", "memory": TASK, "cpu": TASK,
            "versionConsistency": "disabled"});
        let definition = json!({"family": "app", "networkMode": "none", "containerDefinitions": [container]});
        self.call("RegisterTaskDefinition", &definition).map(drop)
    }

    /// Creates services one after the other; what the engine took for each, until its tasks run.
    fn fill(&mut self, services: usize, instances: usize) -> Result<Vec<Duration>> {
        self.define()?;
        let mut took = Vec::new();
        for index in 0..services {
            let mut request = json!({"serviceName": format!("s{index}"), "taskDefinition": "app"});
            let mut count = TASKS;
            match index % 3 {
                0 => request["placementStrategy"] = json!([{"type": "binpack", "field": "memory"}]),
                1 => {
                    request["placementStrategy"] = json!([{"type": "spread", "field": "attribute:ecs.availability-zone"},
                        {"type": "spread", "field": "instanceId"}]);
                }
                _ => {
                    // Old and new ones have to find instances of their own.
                    count = count.min(instances * 2 / 5);
                    request["placementConstraints"] = json!([{"type": "distinctInstance"}]);
                    request["deploymentConfiguration"] = json!({"minimumHealthyPercent": 50});
                }
            }
            request["desiredCount"] = json!(count);
            self.tasks += count;
            let (before, wanted) = (self.took, self.started + count);
            self.call("CreateService", &request)?;
            self.wait_for("a service's tasks", |cell| cell.started >= wanted)?;
            took.push(self.took - before);
        }
        Ok(took)
    }

    /// One of a hundred instances dies in each minute; what the engine took, and how many tasks were replaced.
    fn churn(&mut self, instances: usize) -> Result<(Duration, usize)> {
        let (before, started) = (self.took, self.started);
        let wanted = self.tasks;
        for _ in 0..CHURN_MINUTES {
            for _ in 0..instances / 100 {
                let agent = 1 + self.random.below(instances);
                if self.agents[agent].take().is_some() {
                    self.running -= self.here[agent];
                    let id = SessionId(agent as u64);
                    self.queue.push_back(Input::Session { id, input: SessionInput::Closed });
                }
            }
            let end = self.now + Duration::from_secs(60);
            self.wait_for("a minute", |cell| cell.wake > end)?;
            self.now = end;
        }
        self.wait_for("the tasks of dead instances elsewhere", |cell| cell.running == wanted)?;
        Ok((self.took - before, self.started - started))
    }

    /// All services are deployed anew at once; what the engine took until all have arrived.
    fn roll(&mut self, services: usize) -> Result<Duration> {
        self.define()?;
        let before = self.took;
        for index in 0..services {
            let request = json!({"service": format!("s{index}"), "taskDefinition": "app"});
            let input = self.input("UpdateService", &request, Principal::Root)?;
            self.queue.push_back(input);
        }
        self.wait_for("all deployments", |cell| {
            let state = cell.published.snapshot(&cell.scope);
            state.ecs.services().values().all(|service| {
                service.deployments.len() == 1
                    && service
                        .primary()
                        .is_some_and(|primary| primary.rollout_state == RolloutState::Completed)
            })
        })?;
        Ok(self.took - before)
    }
}
