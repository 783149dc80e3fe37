//! A fleet under one seed: the real engine with its sessions, a disk that takes its time, fails, and loses what it was
//! not asked to sync, hosts with the real task engine, clocks that step, and messages that take time, get lost with
//! their connection, or come twice. Every step is judged; once faults stop, everything must become as users asked.

mod balancers;
mod center;
mod ending;
mod faults;
mod hosts;
mod judge;
mod leases;
pub mod plan;
mod sets;
mod shifts;
pub mod silence;
mod stops;
mod trace;
mod users;
mod wires;
mod words;

pub use leases::SLOW;

use crate::agent::Agent;
use crate::rest::Rest;
use balancers::{Balancers, Saying};
use gantry_control::engine::{CallId, Engine};
use gantry_control::services::ecs::state::TaskKey;
use gantry_control::state::State;
use gantry_decide::ids::{AccountId, Scope, SubnetId, VpcId};
use gantry_decide::lease::Terms;
use gantry_decide::lifecycle::ContainerStatus;
use gantry_decide::random::{Random, Seeded};
use gantry_decide::routing::config::RoutingConfig;
use gantry_decide::task_engine::{Event, Submission, TaskArn};
use gantry_decide::time::Timestamp;
use gantry_store::Batch;
use gantry_store::memory::MemoryBackend;
use judge::Judge;
use plan::{Case, Plan, Script};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use trace::Trace;

/// What happens at some time.
enum What {
    /// The disk takes up what waits for it.
    Write,
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
    /// The server learns that a connection is gone.
    Closed {
        session: u64,
    },
    /// An agent asks for a new lease.
    Renew {
        agent: usize,
        session: u64,
    },
    /// A host's guard looks at the lease.
    Guard {
        agent: usize,
    },
    /// An agent hears what its guard did.
    Fenced {
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
    /// The answer to a report arrives.
    Answer {
        agent: usize,
        life: u64,
        task: TaskArn,
        id: u64,
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
    /// A task that an agent was told to stop has to have ended.
    Overdue {
        agent: usize,
        life: u64,
        task: TaskArn,
    },
    /// An agent's network is down for so long.
    Part {
        agent: usize,
        time: Duration,
    },
    /// Balancers look at their targets.
    Probe,
    Dial {
        balancer: usize,
    },
    /// What a balancer is told arrives.
    Serve {
        balancer: usize,
        session: u64,
        config: Arc<RoutingConfig>,
    },
    /// What a balancer says arrives.
    Tells {
        balancer: usize,
        session: u64,
        sayings: Vec<Saying>,
    },
    /// A user looks at how far deployments are.
    FollowUp,
    /// A step of the script, by its number.
    Step(usize),
    /// Faults are over.
    Peace,
    /// What could come right by itself has.
    Mend,
    /// Whether nothing is under way any more.
    Look,
}

/// Who waits for an answer.
enum Waiting {
    User { operation: &'static str, request: Value },
    Report { agent: usize, life: u64, task: TaskArn, id: u64, status: ContainerStatus },
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Virtual milliseconds.
    pub simulated: u64,
    /// What happened, of any kind.
    pub events: u64,
    /// Answers that users got.
    pub told: u64,
    /// Tasks that ran.
    pub launched: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Of all that was written, said and answered, in its order.
    pub hash: u64,
}

/// A control plane's process on what the store holds.
fn engine(state: State, last_seq: u64, seed: u64, terms: Terms) -> Engine {
    Engine::new(state, last_seq, Box::new(Seeded::new(seed)), crate::roles(), terms)
}

/// Events for each host, at most: twenty times as many as usual. Who makes more spins.
const EVENTS_MAX: u64 = 120_000;
/// Tasks for each host that the state knows of at once, those of the last hour that have ended included.
const TASKS_MAX: usize = 500;

/// The run. See the module.
pub struct Fleet {
    plan: Plan,
    script: Script,
    now: Timestamp,
    /// How far the server's clock is ahead of the true time, in milliseconds.
    skew: i64,
    /// When it was last set.
    skewed: Timestamp,
    random: Seeded,
    scope: Scope,
    subnet: String,
    engine: Engine,
    backend: MemoryBackend,
    to_write: VecDeque<Batch>,
    write_due: bool,
    sync_due: bool,
    /// The server dies as soon as something is durable and something else, that somebody waits for, is not.
    dies_between: bool,
    /// Until then the disk does nothing.
    disk_stalls: Timestamp,
    /// Until then the server's process does nothing.
    server_stalls: Timestamp,
    /// Until then there is no server, and who asks is told so.
    server_down: Timestamp,
    /// Until then no image can be had.
    no_images: Timestamp,
    published: State,
    balancers: Balancers,
    agents: Vec<Agent>,
    sessions: BTreeMap<u64, usize>,
    queue: BTreeMap<(Timestamp, u64), What>,
    counter: u64,
    waiting: BTreeMap<CallId, Waiting>,
    /// When the engine is to be woken, as far as queued.
    wake: Timestamp,
    peace_from: Timestamp,
    /// All has come right once, and users go on.
    is_calm: bool,
    /// What only users can mend they have.
    is_mended: bool,
    /// When the run is over.
    ends: Timestamp,
    last_write: Timestamp,
    /// The services of which users deployed once more.
    followed_up: BTreeSet<&'static str>,
    /// What users were told: desired counts, and tasks that were run.
    desired: BTreeMap<String, i64>,
    unsure: BTreeSet<String>,
    ran: BTreeSet<String>,
    /// What agents were told to have reported.
    taken: BTreeMap<TaskKey, ContainerStatus>,
    rest: Rest,
    judge: Judge,
    trace: Trace,
    report: Report,
}

impl Fleet {
    /// Runs a case to its end.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn run(case: &Case, plan: Plan) -> Report {
        let mut fleet = Fleet::new(case.seed, plan, Script::of(case.seed, plan));
        fleet.set_up();
        fleet.begin(case);
        let start = fleet.now;
        while let Some(entry) = fleet.queue.first_entry() {
            let ((at, _), what) = entry.remove_entry();
            if at > fleet.ends {
                break;
            }
            fleet.now = at;
            fleet.report.events += 1;
            let most = EVENTS_MAX * fleet.agents.len() as u64;
            assert!(fleet.report.events < most, "it never comes to rest: {most} events");
            fleet.handle(what);
        }
        fleet.judge_the_end();
        fleet.report.simulated = u64::try_from(fleet.now.since(start).as_millis()).unwrap_or(0);
        fleet.report.hash = fleet.trace.hash();
        fleet.report
    }

    fn new(seed: u64, plan: Plan, script: Script) -> Fleet {
        let mut random = Seeded::new(seed);
        let now = Timestamp::from_millis(1_900_000_000_000);
        let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().expect("a region") };
        let vpc = VpcId::derived(&format!("{scope} default VPC"));
        let engine = engine(State::default(), 0, random.next_u64(), plan.terms);
        Fleet {
            plan,
            now,
            skew: 0,
            skewed: Timestamp::EPOCH,
            subnet: SubnetId::derived(&format!("{vpc} eu-north-1a")).to_string(),
            scope,
            engine,
            random,
            backend: MemoryBackend::new(),
            to_write: VecDeque::new(),
            write_due: false,
            sync_due: false,
            dies_between: false,
            disk_stalls: Timestamp::EPOCH,
            server_stalls: Timestamp::EPOCH,
            server_down: Timestamp::EPOCH,
            no_images: Timestamp::EPOCH,
            published: State::default(),
            balancers: Balancers::default(),
            agents: Vec::new(),
            sessions: BTreeMap::new(),
            queue: BTreeMap::new(),
            counter: 0,
            waiting: BTreeMap::new(),
            wake: Timestamp::NEVER,
            peace_from: now + Duration::from_secs(plan.turmoil),
            is_calm: false,
            is_mended: false,
            ends: Timestamp::NEVER,
            last_write: now,
            followed_up: BTreeSet::new(),
            desired: BTreeMap::new(),
            unsure: BTreeSet::new(),
            ran: BTreeSet::new(),
            taken: BTreeMap::new(),
            rest: Rest::default(),
            judge: Judge::new(&script.wishes),
            script,
            trace: Trace::default(),
            report: Report::default(),
        }
    }

    fn begin(&mut self, case: &Case) {
        for (index, step) in self.script.steps.clone().into_iter().enumerate() {
            if case.only.as_ref().is_none_or(|only| only.contains(&index)) {
                self.at(self.now + Duration::from_millis(step.at), What::Step(index));
            }
        }
        self.at(self.peace_from, What::Peace);
        self.at(self.peace_from + ending::BY_ITSELF, What::Mend);
    }

    fn is_peace(&self) -> bool {
        self.now >= self.peace_from
    }

    /// One in so many, as long as things go wrong.
    fn mishap(&mut self, one_in: usize) -> bool {
        !self.is_peace() && self.plan.faults_every > 0 && self.random.below(one_in) == 0
    }

    fn count(&mut self, fault: &'static str) {
        *self.report.faults.entry(fault).or_default() += 1;
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

    /// Whether whoever is to handle it does nothing at this time; then it is handled later, in the same order.
    fn stalled_until(&self, what: &What) -> Option<Timestamp> {
        let until = match what {
            What::Write | What::Sync => self.disk_stalls.max(self.server_stalls).max(self.server_down),
            What::Wake | What::Closed { .. } | What::Peace => self.server_stalls.max(self.server_down),
            What::Said { .. } | What::Submit { .. } | What::Connect { .. } | What::Tells { .. } => {
                self.server_stalls
            }
            _ => Timestamp::EPOCH,
        };
        let agent = match what {
            What::Frame { agent, .. }
            | What::Connect { agent, .. }
            | What::Happened { agent, .. }
            | What::Answer { agent, .. }
            | What::Renew { agent, .. }
            | What::Fenced { agent, .. }
            | What::Submit { agent, .. }
            | What::AgentWake { agent, .. } => self.agents[*agent].stalls,
            _ => Timestamp::EPOCH,
        };
        Some(until.max(agent)).filter(|until| *until > self.now)
    }

    fn handle(&mut self, what: What) {
        if let Some(until) = self.stalled_until(&what) {
            return self.at(until, what);
        }
        match what {
            What::Write => self.write(),
            What::Sync => self.sync(),
            What::Wake => {
                self.wake = Timestamp::NEVER;
                self.rest.woken(self.now);
                self.tick();
            }
            What::Frame { agent, session, text } => self.frame(agent, session, &text),
            What::Said { session, text } => self.said(session, text),
            What::Connect { agent, life } => self.connect(agent, life),
            What::Closed { session } => self.closed(session),
            What::Renew { agent, session } => self.renew(agent, session),
            What::Guard { agent } => self.guard(agent),
            What::Fenced { agent, life } => self.hear_of_fence(agent, life),
            What::Restart { agent } => self.restart(agent),
            What::Happened { agent, life, event } => self.happened(agent, life, event),
            What::Answer { agent, life, task, id } => self.answered(agent, life, task, id),
            What::Submit { agent, life, submission } => self.submit(agent, life, &submission),
            What::Exit { agent, task, container, code } => self.exit(agent, task, container, code),
            What::AgentWake { agent, life } => self.happened(agent, life, Event::Tick),
            What::Overdue { agent, life, task } => self.judge_stop(agent, life, task),
            What::Part { agent, time } => self.agents[agent].cut_off = self.now + time,
            What::Probe => self.probe(),
            What::Dial { balancer } => self.dial_in(balancer),
            What::Serve { balancer, session, config } => self.serve(balancer, session, config),
            What::Tells { balancer, session, sayings } => self.heard_of(balancer, session, sayings),
            What::FollowUp => self.follow_up(),
            What::Step(index) => {
                let step = self.script.steps[index];
                let mut random = Seeded::new(step.seed);
                if step.is_fault {
                    self.fault(&mut random);
                } else if self.server_down <= self.now {
                    self.user(&mut random);
                }
            }
            What::Peace => self.make_peace(),
            What::Mend => self.mend(),
            What::Look => self.look(),
        }
    }
}
