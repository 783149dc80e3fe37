//! The one writer: applies calls and controllers' plans to the state, and says what to do about it.
//!
//! Sans-IO: [`Engine::step`] takes the time and a group of inputs and returns effects. Whatever tells anyone anything
//! (a reply, a published snapshot) is held back until the batch that it rests on is durable;
//! only then does [`Input::Durable`] release it. So nothing that was acknowledged can be lost, and nothing that was
//! lost was ever seen. The writer never waits for the disk: batches queue while it syncs.

use crate::controllers::{self, Changes, Controllers};
use crate::roles::Roles;
use crate::routing::{self, TargetNews};
use crate::service::Reply;
use crate::services::ecs::links::ExecNews;
use crate::services::ecs::placement::Placers;
use crate::services::{ecs, elbv2};
use crate::sessions::{PullStatus, SessionId, SessionInput, SessionOutput, Sessions};
use crate::state::{Change, State};
use crate::tx::Tx;
use gantry_decide::ids::{ExecSessionId, Scope};
use gantry_decide::lease::Terms;
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_decide::routing::config::RoutingConfig;
use gantry_decide::time::Timestamp;
use gantry_store::Batch;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Names a call whose answer somebody waits for; chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// A write bound to its request; see [`crate::service::Prepared::Write`].
pub type Write = Box<dyn FnOnce(&mut Tx<'_>) -> Reply + Send>;

/// Everything that can wake the engine.
pub enum Input {
    /// A decoded, authorised write.
    Call { id: CallId, scope: Scope, write: Write },
    /// Something happened on an agent's connection.
    Session { id: SessionId, input: SessionInput },
    /// A balancer tells of a target.
    Target(TargetNews),
    /// Something became of a session of ECS Exec.
    ExecSession { scope: Scope, id: ExecSessionId, news: ExecNews },
    /// The batch of this number, and all before it, are on disk.
    Durable(u64),
    /// Time has passed; see [`Effect::WakeAt`].
    Tick,
    /// Somebody wants to know how the engine does.
    Status(CallId),
}

/// What the driver must do. In order.
pub enum Effect {
    /// Append to the store; answer with [`Input::Durable`] when it is there.
    Persist(Batch),
    /// Readers may see this state from now on.
    Publish(State),
    Reply {
        id: CallId,
        reply: Reply,
    },
    /// Say something on an agent's connection.
    Session {
        id: SessionId,
        output: SessionOutput,
    },
    /// Tell balancers; replaces what they were told before.
    Route(Arc<RoutingConfig>),
    /// Answers [`Input::Status`]. Rests on nothing, so it never waits for the disk.
    Status {
        id: CallId,
        status: EngineStatus,
    },
    /// Call [`Engine::step`] with [`Input::Tick`] at this time at the latest. Replaces earlier wishes.
    WakeAt(Timestamp),
}

/// How the engine does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct EngineStatus {
    /// The number of the last batch written, and of the last known to be on disk.
    pub last_batch: u64,
    pub durable_batch: u64,
    /// Agents that are connected.
    pub agents: usize,
    /// What tasks wait for, as their agents told it last.
    pub pulls: Vec<PullStatus>,
    pub controllers: Vec<controllers::Status>,
}

/// Effects that wait for a batch to be durable.
struct Held {
    seq: u64,
    effects: Vec<Effect>,
}

/// The control plane of one cell.
pub struct Engine {
    /// All that was applied, durable or not: what the next transaction sees.
    head: State,
    last_seq: u64,
    durable_seq: u64,
    held: VecDeque<Held>,
    controllers: Controllers,
    sessions: Sessions,
    /// Changes made after the controllers' last turn, by sessions or by themselves: they see them in the next step.
    late: Changes,
    random: Box<dyn Random + Send>,
    placers: Placers,
    /// What balancers were told last, and whether that may be out of date.
    routing: Arc<RoutingConfig>,
    routing_due: bool,
}

impl Engine {
    /// An engine on loaded state. `last_seq` is the number of the last batch in the store, 0 for an empty one. `roles`
    /// issues the credentials that agents are sent; `terms` says how long silent ones are waited for.
    pub fn new(
        state: State,
        last_seq: u64,
        random: Box<dyn Random + Send>,
        roles: Roles,
        terms: Terms,
    ) -> Engine {
        Engine {
            head: state,
            last_seq,
            durable_seq: last_seq,
            held: VecDeque::new(),
            controllers: Controllers::default(),
            sessions: Sessions::new(roles, terms),
            late: Changes::new(),
            random,
            placers: Placers::default(),
            routing: Arc::default(),
            routing_due: true,
        }
    }

    /// The state with everything applied, durable or not. For the driver's first publication and for tests.
    pub fn head(&self) -> &State {
        &self.head
    }

    /// Applies `inputs` in order as one group: one batch is made of all that they and the controllers changed.
    pub fn step(&mut self, now: Timestamp, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        let mut visible = Vec::new();
        let mut released = Vec::new();
        let mut inquiries = Vec::new();
        self.sessions.look(now, &mut self.head);
        for input in inputs {
            match input {
                Input::Call { id, scope, write } => {
                    let reply = self.transact(now, &scope, write);
                    visible.push(Effect::Reply { id, reply });
                }
                Input::Session { id, input } => self.sessions.handle(now, id, input, &mut self.head),
                Input::Target(news) => self.note_target(now, &news),
                Input::ExecSession { scope, id, news } => self.note_exec(now, &scope, id, news),
                Input::Durable(seq) => self.durable(seq, &mut released),
                Input::Tick => {}
                Input::Status(id) => inquiries.push(id),
            }
        }

        // Whatever woke us, what is due is due.
        self.controllers.tick(now);
        let mut news = self.head.drain_changes();
        let mut changes = news.clone();
        news.append(&mut self.late);
        // Controllers react to what changed, and to each other's changes, until nothing moves. Much work, such as the
        // thousand tasks of a new service, takes several steps: what is left is taken up at once in the next one.
        let mut rounds = 0;
        let mut unfinished = false;
        while self.controllers.run(now, &mut self.head, self.random.as_mut(), &mut self.placers, &news) {
            news = self.head.drain_changes();
            changes.extend(news.iter().cloned());
            rounds += 1;
            unfinished = rounds == controllers::ROUNDS_PER_STEP_MAX;
            if unfinished {
                self.late = news;
                break;
            }
        }
        // Agents are told last, of what all of this came to.
        self.sessions.deliver(now, &mut self.head, &changes, self.random.as_mut());
        let by_sessions = self.head.drain_changes().into_iter();
        // That a task was handed to its agent concerns nobody else.
        self.late.extend(by_sessions.filter(|(_, change)| matches!(change, Change::ContainerInstance(_))));
        let told = self.sessions.take_outputs().into_iter();
        visible.extend(told.map(|(id, output)| Effect::Session { id, output }));

        let mut effects = released;
        let writes = self.head.drain_writes();
        if !writes.is_empty() {
            self.last_seq += 1;
            effects.push(Effect::Persist(Batch::ordered(self.last_seq, writes)));
            visible.insert(0, Effect::Publish(self.head.clone()));
        }
        self.routing_due |= changes.iter().any(|(_, change)| {
            matches!(change, Change::Routing | Change::Targets(_) | Change::ContainerInstance(_))
        });
        visible.extend(self.route());
        // An answer that changed nothing may still rest on what others changed a moment ago, so it waits for that too.
        if self.durable_seq == self.last_seq || mutant::is("answers before they are durable") {
            effects.append(&mut visible);
        } else if !visible.is_empty() {
            match self.held.back_mut() {
                Some(held) if held.seq == self.last_seq => held.effects.append(&mut visible),
                _ => self.held.push_back(Held { seq: self.last_seq, effects: visible }),
            }
        }
        let urgent = self.sessions.take_urgent().into_iter();
        effects.extend(urgent.map(|(id, output)| Effect::Session { id, output }));
        effects.extend(inquiries.into_iter().map(|id| Effect::Status { id, status: self.status() }));
        let due = self.controllers.wake_at().min(self.sessions.wake_at(now));
        let wake = if unfinished { now + controllers::SOONEST } else { due };
        if wake < Timestamp::NEVER {
            effects.push(Effect::WakeAt(wake));
        }
        effects
    }

    fn status(&self) -> EngineStatus {
        EngineStatus {
            last_batch: self.last_seq,
            durable_batch: self.durable_seq,
            agents: self.sessions.agents(),
            pulls: self.sessions.pulls(),
            controllers: self.controllers.status(),
        }
    }

    /// Runs a write on a private copy of the scope's state; keeps the copy only if the write succeeded.
    fn transact(&mut self, now: Timestamp, scope: &Scope, write: Write) -> Reply {
        let mut state = self.head.scope(scope);
        let (random, placers) = (self.random.as_mut(), &mut self.placers);
        let mut tx = Tx { scope, state: &mut state, now, random, placers };
        let reply = write(&mut tx)?;
        self.head.replace(scope, state);
        Ok(reply)
    }

    fn note_exec(&mut self, now: Timestamp, scope: &Scope, id: ExecSessionId, news: ExecNews) {
        let (random, placers) = (self.random.as_mut(), &mut self.placers);
        let mut tx = Tx { scope, state: self.head.edit(scope), now, random, placers };
        ecs::links::exec_session(&mut tx, id, news);
    }

    fn note_target(&mut self, now: Timestamp, news: &TargetNews) {
        // What a balancer tells of nobody's target must not make a scope.
        let Some(scope) = news.scope().filter(|scope| self.head.get(scope).is_some()) else { return };
        let (random, placers) = (self.random.as_mut(), &mut self.placers);
        let mut tx = Tx { scope: &scope, state: self.head.edit(&scope), now, random, placers };
        match news {
            TargetNews::Health(report) => elbv2::links::report(&mut tx, report),
            TargetNews::Drained { group, target } => elbv2::links::drained(&mut tx, group, target),
        }
    }

    /// What balancers have to be told, if it is another than they were told last. Its generation is the number of the
    /// batch that it rests on, so that it goes on rising after a restart.
    fn route(&mut self) -> Option<Effect> {
        if !std::mem::take(&mut self.routing_due) {
            return None;
        }
        let told = self.routing.generation;
        let config = routing::compile(&self.head, told);
        if config == *self.routing {
            return None;
        }
        self.routing = Arc::new(RoutingConfig { generation: self.last_seq.max(told + 1), ..config });
        Some(Effect::Route(Arc::clone(&self.routing)))
    }

    fn durable(&mut self, seq: u64, released: &mut Vec<Effect>) {
        assert!(
            seq <= self.last_seq,
            "the store confirmed batch {seq}, but only {} were written",
            self.last_seq
        );
        self.durable_seq = self.durable_seq.max(seq);
        let early = u64::from(mutant::is("released one batch too early"));
        while self.held.front().is_some_and(|held| held.seq <= self.durable_seq + early) {
            if let Some(held) = self.held.pop_front() {
                released.extend(held.effects);
            }
        }
    }
}
