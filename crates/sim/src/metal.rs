//! Clusters that grow and shrink under one seed: the real engine, an Auto Scaling group of managed scaling, machines that
//! take their time, fail and vanish, agents that do what they are told, and a Fargate pool with spot tasks.
//!
//! Smaller than [`crate::fleet`] in all that is judged there: agents here have no minds of their own, and connections only
//! end with the server.

mod agents;
mod judge;
mod machines;

use crate::calls;
use crate::rest::Rest;
use gantry_control::call::Principal;
use gantry_control::engine::{CallId, Effect, Engine, Input, Write};
use gantry_control::service::{Reply, Service};
use gantry_control::services::{autoscaling, ec2, ecs};
use gantry_control::sessions::SessionOutput;
use gantry_control::state::{ScopeState, State};
use gantry_decide::ids::{AccountId, Ec2InstanceId, Scope, SubnetId, VpcId};
use gantry_decide::random::{Random, Seeded};
use gantry_decide::time::Timestamp;
use gantry_store::Fence;
use gantry_store::memory::MemoryBackend;
use judge::Judge;
use machines::Machine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long users and faults are at work.
const TURMOIL: Duration = Duration::from_secs(1200);
/// How long everything may take to come right then: what nobody needs goes after 15 minutes, one step a minute.
const PEACE: Duration = Duration::from_secs(60 * 60);
/// When a machine may still be lost then, in milliseconds: around the time at which what nobody needs begins to go.
const LAST_LOSS: Range<u64> = 12 * 60_000..18 * 60_000;
/// CPU units of each machine of the group, and of each task there: four to a machine.
const MACHINE_CPU: u64 = 4096;
const TASK_CPU: u64 = 1024;
/// Of a task of the Fargate pool, and so that the pool has room for eight.
const FARGATE_CPU: u64 = 512;
const POOL_CPU: u64 = 4096;
/// Of the group.
const MAX_SIZE: usize = 4;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Pool,
    Machine(Ec2InstanceId),
}

/// What happens at some time.
enum What {
    Sync,
    Wake,
    Step(u64),
    Crash,
    Vanish(u64),
    Peace,
    Made(Ec2InstanceId),
    Join(Ec2InstanceId),
    Destroyed(Ec2InstanceId),
    Look,
    Connect(Host),
    Frame(u64, String),
    /// An agent tells what became of a task.
    Tell {
        host: Host,
        task: String,
        status: &'static str,
    },
}

/// Who waits for an answer.
enum Waiting {
    User,
    Joins(Ec2InstanceId),
    Tells { host: Host, task: String, status: &'static str },
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Virtual milliseconds.
    pub simulated: u64,
    pub events: u64,
    pub faults: BTreeMap<&'static str, u64>,
}

struct Metal {
    now: Timestamp,
    start: Timestamp,
    random: Seeded,
    scope: Scope,
    engine: Engine,
    backend: MemoryBackend,
    sync_due: bool,
    published: State,
    machines: BTreeMap<Ec2InstanceId, Machine>,
    pool: agents::Agent,
    sessions: BTreeMap<u64, Host>,
    queue: BTreeMap<(Timestamp, u64), What>,
    counter: u64,
    waiting: BTreeMap<CallId, Waiting>,
    wake: Timestamp,
    rest: Rest,
    judge: Judge,
    report: Report,
}

/// Runs a seed to its end.
///
/// # Panics
/// When something does not hold.
pub fn run(seed: u64) -> Report {
    let mut metal = Metal::new(seed);
    metal.set_up();
    let end = metal.start + TURMOIL + PEACE;
    while let Some(entry) = metal.queue.first_entry() {
        let ((at, _), what) = entry.remove_entry();
        if at > end {
            break;
        }
        metal.now = at;
        metal.report.events += 1;
        metal.handle(what);
    }
    metal.judge_the_end();
    metal.report.simulated = u64::try_from(metal.now.since(metal.start).as_millis()).unwrap_or(0);
    metal.report
}

impl Metal {
    fn new(seed: u64) -> Metal {
        let mut random = Seeded::new(seed ^ 0x3e7a_1000);
        let now = Timestamp::from_millis(1_900_000_000_000);
        let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().expect("a region") };
        let engine = engine(State::default(), 0, random.next_u64());
        Metal {
            now,
            start: now,
            random,
            scope,
            engine,
            backend: MemoryBackend::new(),
            sync_due: false,
            published: State::default(),
            machines: BTreeMap::new(),
            pool: agents::Agent::default(),
            sessions: BTreeMap::new(),
            queue: BTreeMap::new(),
            counter: 0,
            waiting: BTreeMap::new(),
            wake: Timestamp::NEVER,
            rest: Rest::default(),
            judge: Judge::default(),
            report: Report::default(),
        }
    }

    fn set_up(&mut self) {
        let one_of = |random: &mut Seeded, from: &[u64]| from[random.below(from.len())];
        let random = &mut self.random;
        let protects = random.below(2) == 0;
        // What neither protects nor drains may lose tasks: nobody is to be blamed for it.
        let drains = !protects || random.below(2) == 0;
        let minimum = random.below(2);
        let warmup = one_of(random, &[0, 60, 300]);
        let (target, step) = (one_of(random, &[50, 75, 100]), one_of(random, &[1, 2, 10]));
        let state = |is_on| if is_on { "ENABLED" } else { "DISABLED" };
        self.judge.minimum = minimum;
        self.judge.warmup = Duration::from_secs(warmup);
        self.certain(&ecs::SERVICE, "CreateCluster", &json!({"clusterName": "default"}));
        let template =
            json!({"LaunchTemplateName": "metal", "LaunchTemplateData": {"InstanceType": "m5.xlarge"}});
        self.certain(&ec2::SERVICE, "CreateLaunchTemplate", &template);
        let group = json!({"AutoScalingGroupName": "metal", "MinSize": minimum, "MaxSize": MAX_SIZE,
            "AvailabilityZones": ["eu-north-1a"], "LaunchTemplate": {"LaunchTemplateName": "metal"},
            "NewInstancesProtectedFromScaleIn": protects});
        self.certain(&autoscaling::SERVICE, "CreateAutoScalingGroup", &group);
        let scaling = json!({"status": "ENABLED", "targetCapacity": target, "maximumScalingStepSize": step,
            "instanceWarmupPeriod": warmup});
        let provider = json!({"name": "metal", "autoScalingGroupProvider": {"autoScalingGroupArn": "metal",
            "managedScaling": scaling, "managedTerminationProtection": state(protects), "managedDraining": state(drains)}});
        self.certain(&ecs::SERVICE, "CreateCapacityProvider", &provider);
        let put = json!({"cluster": "default", "capacityProviders": ["metal", "FARGATE", "FARGATE_SPOT"],
            "defaultCapacityProviderStrategy": [{"capacityProvider": "metal", "weight": 1}]});
        self.certain(&ecs::SERVICE, "PutClusterCapacityProviders", &put);
        let pinned = format!("app@sha256:{}", "5".repeat(64));
        let container = json!({"name": agents::CONTAINER, "image": pinned, "memory": 64, "cpu": TASK_CPU});
        let definition = json!({"family": "app", "networkMode": "none", "containerDefinitions": [container]});
        self.certain(&ecs::SERVICE, "RegisterTaskDefinition", &definition);
        let container = json!({"name": agents::CONTAINER, "image": pinned});
        let definition = json!({"family": "thin", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "cpu": FARGATE_CPU.to_string(), "memory": "1024", "containerDefinitions": [container]});
        self.certain(&ecs::SERVICE, "RegisterTaskDefinition", &definition);
        let arn = self.certain(&ecs::SERVICE, "RegisterContainerInstance", &agents::of_pool());
        self.pool.arn = Some(agents::arn_of(&arn));
        self.connect(Host::Pool);
        let service =
            json!({"serviceName": "app", "taskDefinition": "app", "desiredCount": self.random.below(8)});
        self.certain(&ecs::SERVICE, "CreateService", &service);
        self.create_split();
        self.at(self.now + Duration::from_millis(1), What::Wake);
        let peace = self.now + TURMOIL;
        self.at(peace, What::Peace);
        self.after(0..1000, What::Look);
        let mut at = self.now;
        while at < peace {
            let seed = self.random.next_u64();
            self.at(at, What::Step(seed));
            at = at + Duration::from_millis(self.random.below(80_000) as u64);
        }
    }

    /// A service of two providers on an empty pool: its tasks are shared as the strategy says.
    fn create_split(&mut self) {
        let random = &mut self.random;
        let base = random.below(4);
        let weights = [1 + random.below(3), 1 + random.below(3)];
        let count = random.below(9);
        let vpc = VpcId::derived(&format!("{} default VPC", self.scope));
        let subnet = SubnetId::derived(&format!("{vpc} eu-north-1a")).to_string();
        let strategy = json!([{"capacityProvider": "FARGATE", "base": base, "weight": weights[0]},
            {"capacityProvider": "FARGATE_SPOT", "weight": weights[1]}]);
        let service = json!({"serviceName": "thin", "taskDefinition": "thin", "desiredCount": count,
            "capacityProviderStrategy": strategy,
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet]}}});
        self.judge.subnet = subnet;
        self.certain(&ecs::SERVICE, "CreateService", &service);
        self.step(Input::Tick);
        judge::check_split(&self.head(), count, base, weights);
    }

    fn head(&self) -> Arc<ScopeState> {
        self.engine.head().snapshot(&self.scope)
    }

    fn is_peace(&self) -> bool {
        self.now >= self.start + TURMOIL
    }

    /// One in so many, as long as things go wrong.
    fn mishap(&mut self, one_in: usize) -> bool {
        !self.is_peace() && self.random.below(one_in) == 0
    }

    fn count(&mut self, fault: &'static str) {
        *self.report.faults.entry(fault).or_default() += 1;
    }

    /// Queues something some milliseconds from now.
    fn after(&mut self, millis: Range<u64>, what: What) {
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
                self.backend.sync().expect("no fault was injected");
                let durable = self.backend.durable_seq();
                self.step(Input::Durable(durable));
            }
            What::Wake => {
                self.wake = Timestamp::NEVER;
                self.rest.woken(self.now);
                self.step(Input::Tick);
            }
            What::Step(seed) => self.user(&mut Seeded::new(seed)),
            What::Crash => self.crash(),
            What::Vanish(seed) => self.vanish(&mut Seeded::new(seed)),
            What::Peace => self.make_peace(),
            What::Made(id) => self.made(id),
            What::Join(id) => self.join(id),
            What::Destroyed(id) => self.destroyed(id),
            What::Look => {
                self.look();
                self.at(self.now + machines::LOOK_EVERY, What::Look);
            }
            What::Connect(host) => self.connect(host),
            What::Frame(session, text) => self.frame(session, &text),
            What::Tell { host, task, status } => self.tell(host, task, status),
        }
    }

    /// A step of the script: what users do, and what goes wrong.
    fn user(&mut self, random: &mut Seeded) {
        match random.below(10) {
            0..=3 => self.ask("UpdateService", json!({"service": "app", "desiredCount": random.below(15)})),
            4 => self.ask("UpdateService", json!({"service": "thin", "desiredCount": random.below(9)})),
            5 => self.ask("RunTask", json!({"taskDefinition": "app", "count": 1 + random.below(4)})),
            6 => {
                let network = json!({"awsvpcConfiguration": {"subnets": [self.judge.subnet]}});
                self.ask(
                    "RunTask",
                    json!({"taskDefinition": "thin", "launchType": "FARGATE", "count": 1 + random.below(4),
                        "networkConfiguration": network}),
                );
            }
            7 => self.stop_loose(1),
            8 => self.at(self.now, What::Crash),
            _ => {
                let seed = random.next_u64();
                self.at(self.now, What::Vanish(seed));
            }
        }
    }

    /// Tasks of no service end.
    fn stop_loose(&mut self, most: usize) {
        let state = self.head();
        let loose = state.ecs.tasks().values().filter(|task| task.is_live() && task.service_key().is_none());
        let loose: Vec<String> = loose.take(most).map(|task| task.arn(&self.scope).to_string()).collect();
        loose.into_iter().for_each(|task| self.ask("StopTask", json!({"task": task})));
    }

    fn make_peace(&mut self) {
        self.stop_loose(usize::MAX);
        // Sometimes nothing is needed any more.
        let count = [0, 1, 5, 12][self.random.below(4)];
        self.ask("UpdateService", json!({"service": "app", "desiredCount": count}));
        let count = self.random.below(8);
        self.ask("UpdateService", json!({"service": "thin", "desiredCount": count}));
        if self.random.below(2) == 0 {
            // The last that goes wrong, while the group waits to shrink or does so.
            let seed = self.random.next_u64();
            self.after(LAST_LOSS, What::Vanish(seed));
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.engine.step(self.now, [input]) {
            match effect {
                Effect::Persist(batch) => {
                    let state = self.head();
                    self.judge_warnings(&state);
                    self.judge.follow(self.now, &state);
                    self.backend.write(Fence(0), &[batch]).expect("no fault was injected");
                    if !std::mem::replace(&mut self.sync_due, true) {
                        self.after(1..30, What::Sync);
                    }
                }
                Effect::Publish(state) => self.published = state,
                Effect::Reply { id, reply } => self.answer(id, reply),
                Effect::Session { id, output: SessionOutput::Send(text) } => {
                    self.at(self.now + Duration::from_millis(5), What::Frame(id.0, text));
                }
                Effect::Session { id, output: SessionOutput::Close(..) } => self.closed(id.0),
                Effect::Route(_) | Effect::Status { .. } => {}
                Effect::WakeAt(at) => {
                    if at < self.wake {
                        self.wake = at;
                        self.at(at, What::Wake);
                    }
                }
            }
        }
    }

    /// The server's process ends, and another begins with what the disk has.
    fn crash(&mut self) {
        self.count("server crashes");
        self.backend.crash(0);
        self.sync_due = false;
        let (state, last_seq) = crate::stored(&mut self.backend);
        self.published = state.clone();
        self.engine = engine(state, last_seq, self.random.next_u64());
        self.judge.follow_anew(&self.head());
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            match waiting {
                Waiting::User => {}
                Waiting::Joins(id) => self.after(1000..5000, What::Join(id)),
                Waiting::Tells { host, task, status } => {
                    self.after(1000..5000, What::Tell { host, task, status });
                }
            }
        }
        self.hang_up();
        self.wake = self.now + Duration::from_millis(1);
        self.at(self.wake, What::Wake);
    }

    fn ask(&mut self, operation: &'static str, request: Value) {
        let write = self.prepare(&ecs::SERVICE, operation, &request, Principal::Root);
        self.call(write, Some(Waiting::User));
    }

    fn call(&mut self, write: Write, waiting: Option<Waiting>) {
        self.counter += 1;
        let id = CallId(self.counter);
        self.waiting.extend(waiting.map(|waiting| (id, waiting)));
        self.step(Input::Call { id, scope: self.scope.clone(), write });
    }

    fn prepare(
        &mut self,
        service: &'static Service,
        operation: &str,
        request: &Value,
        principal: Principal,
    ) -> Write {
        calls::prepare(&self.scope, service, (operation, request), principal, &mut self.random)
    }

    /// A call whose answer is waited for, before anything goes wrong.
    fn certain(&mut self, service: &'static Service, operation: &str, request: &Value) -> Value {
        let write = self.prepare(service, operation, request, Principal::Root);
        self.counter += 1;
        let mine = CallId(self.counter);
        let mut inputs = vec![Input::Call { id: mine, scope: self.scope.clone(), write }];
        loop {
            let mut answer = None;
            for effect in self.engine.step(self.now, std::mem::take(&mut inputs)) {
                match effect {
                    Effect::Persist(batch) => {
                        self.backend.write(Fence(0), &[batch]).expect("no fault was injected");
                    }
                    Effect::Publish(state) => self.published = state,
                    Effect::Reply { id, reply } if id == mine => answer = Some(reply),
                    Effect::Session { id, output: SessionOutput::Send(text) } => {
                        self.at(self.now + Duration::from_millis(5), What::Frame(id.0, text));
                    }
                    _ => {}
                }
            }
            if let Some(reply) = answer {
                let reply: Reply = reply;
                let reply = reply.unwrap_or_else(|error| panic!("{operation}: {error}"));
                return serde_json::from_slice(&gantry_wire::json::to_vec(reply.as_ref()))
                    .expect("a response is JSON");
            }
            self.backend.sync().expect("no fault was injected");
            inputs.push(Input::Durable(self.backend.durable_seq()));
        }
    }

    fn answer(&mut self, id: CallId, reply: Reply) {
        match (self.waiting.remove(&id), reply) {
            (Some(Waiting::Joins(machine)), Ok(reply)) => {
                let reply: Value = serde_json::from_slice(&gantry_wire::json::to_vec(reply.as_ref()))
                    .expect("a response is JSON");
                self.joined(machine, &reply);
            }
            (Some(Waiting::Joins(_) | Waiting::Tells { .. }), Err(error)) => {
                panic!("an agent was refused: {error}")
            }
            (_, Err(error)) => assert!(error.status < 500, "a user was answered {error}"),
            _ => {}
        }
    }
}

/// A control plane's process on what the store holds.
fn engine(state: State, last_seq: u64, seed: u64) -> Engine {
    Engine::new(state, last_seq, Box::new(Seeded::new(seed)), crate::roles(), crate::fleet::SLOW)
}
