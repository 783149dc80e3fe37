//! The world of one run: the engine, its store, the clock, and the users' open calls.

use crate::calls;
use crate::oracle::{Oracle, cluster_of};
use crate::workload::Ask;
use gantry_control::call::Principal;
use gantry_control::engine::{CallId, Effect, Engine, Input};
use gantry_control::service::Reply;
use gantry_control::services::ecs;
use gantry_control::state::State;
use gantry_decide::ids::{AccountId, Scope};
use gantry_decide::lease::Terms;
use gantry_decide::random::{Random, Seeded};
use gantry_decide::time::Timestamp;
use gantry_store::Fence;
use gantry_store::memory::MemoryBackend;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub struct World {
    now: Timestamp,
    random: Seeded,
    scope: Scope,
    engine: Engine,
    backend: MemoryBackend,
    /// What readers see.
    published: State,
    open: BTreeMap<CallId, Ask>,
    next_call: u64,
    oracle: Oracle,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Seeded::new(seed);
        let region = "eu-north-1".parse().expect("a region");
        World {
            now: Timestamp::from_millis(1_900_000_000_000),
            scope: Scope { account: AccountId::DEFAULT, region },
            engine: Engine::new(
                State::default(),
                0,
                Box::new(Seeded::new(random.next_u64())),
                crate::roles(),
                Terms::USUAL,
            ),
            random,
            backend: MemoryBackend::new(),
            published: State::default(),
            open: BTreeMap::new(),
            next_call: 1,
            oracle: Oracle::default(),
        }
    }

    /// A user calls. The answer comes later, or never.
    pub fn call(&mut self, ask: Ask) {
        let asked = (ask.operation, &ask.request);
        let write = calls::prepare(&self.scope, &ecs::SERVICE, asked, Principal::Root, &mut self.random);
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.oracle.asked(ask.operation, &ask.request);
        self.open.insert(id, ask);
        self.step(vec![Input::Call { id, scope: self.scope.clone(), write }]);
    }

    /// The disk finishes what it was given.
    pub fn sync(&mut self) {
        self.backend.sync().expect("no fault was injected");
        let durable = self.backend.durable_seq();
        self.step(vec![Input::Durable(durable)]);
    }

    pub fn pass_time(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.step(vec![Input::Tick]);
    }

    /// The process dies; of what was not synced the disk keeps the first `survivors` batches. A new process starts
    /// from what is there. Open calls are never answered.
    pub fn crash(&mut self, survivors: usize) {
        self.backend.crash(survivors);
        self.open.clear();
        let (state, last_seq) = crate::stored(&mut self.backend);
        self.published = state.clone();
        self.engine = Engine::new(
            state,
            last_seq,
            Box::new(Seeded::new(self.random.next_u64())),
            crate::roles(),
            Terms::USUAL,
        );
    }

    /// No more faults: everything open is answered.
    pub fn settle(&mut self) {
        self.sync();
        self.pass_time(120_000);
        self.sync();
        assert!(self.open.is_empty(), "without faults every call is answered, but {:?} are not", self.open);
    }

    /// Judges what readers see. Panics with seed and step where it is not what was acknowledged.
    pub fn check(&self, seed: u64, step: usize) {
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.oracle.judge(&self.published.scope(&self.scope));
        }));
        assert!(judged.is_ok(), "seed {seed}, step {step}: see the message above");
    }

    pub fn acknowledged(&self) -> usize {
        self.oracle.acknowledged
    }

    fn step(&mut self, inputs: Vec<Input>) {
        for effect in self.engine.step(self.now, inputs) {
            match effect {
                Effect::Persist(batch) => {
                    self.backend.write(Fence(0), &[batch]).expect("no fault was injected")
                }
                Effect::Publish(state) => self.published = state,
                Effect::Reply { id, reply } => self.answer(id, reply),
                // No agents live in this world, and nobody asks how it does.
                Effect::Session { .. } | Effect::Route(_) | Effect::Status { .. } | Effect::WakeAt(_) => {}
            }
        }
    }

    fn answer(&mut self, id: CallId, reply: Reply) {
        let ask = self.open.remove(&id).expect("a call is answered once");
        let still_open: BTreeSet<String> =
            self.open.values().filter_map(|ask| cluster_of(ask.operation, &ask.request)).collect();
        match reply {
            Ok(response) => {
                let text = gantry_wire::json::to_vec(response.as_ref());
                let response: Value = serde_json::from_slice(&text).expect("a response is JSON");
                self.oracle.answered(ask.operation, &ask.request, &response, &still_open);
            }
            Err(error) => assert!(error.status < 500, "{ask:?} was answered {error}"),
        }
    }
}
