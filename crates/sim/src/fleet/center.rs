//! The control plane's process and its disk: steps, batches, answers, and starts from what the disk kept.

use super::hosts::key_of;
use super::{Fleet, Waiting, What};
use crate::calls;
use gantry_control::call::Principal;
use gantry_control::engine::{CallId, Effect, Input};
use gantry_control::service::{Reply, Service};
use gantry_control::services::ecs;
use gantry_decide::random::Random;
use gantry_decide::task_engine::{Event, SubmitFailure};
use gantry_decide::time::Timestamp;
use gantry_store::{Batch, Fence};
use serde_json::Value;
use std::time::Duration;

/// A busy disk is asked again after this many milliseconds.
const BUSY_PAUSE: u64 = 10;

impl Fleet {
    /// The time by the server's clock.
    pub(super) fn server_now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.as_millis() + self.skew)
    }

    pub(super) fn tick(&mut self) {
        self.step(Input::Tick);
    }

    pub(super) fn step(&mut self, input: Input) {
        let now = self.server_now();
        for effect in self.engine.step(now, [input]) {
            match effect {
                Effect::Persist(batch) => self.persist(now, batch),
                Effect::Publish(state) => self.published = state,
                Effect::Reply { id, reply } => self.answer(id, reply),
                Effect::Session { id, output } => self.tell(id.0, output),
                Effect::Route(config) => self.route(config),
                Effect::Status { .. } => unreachable!("nobody asked"),
                Effect::WakeAt(at) => {
                    assert!(at > now, "a wake in the past would spin the writer");
                    // A sleep is not lengthened by a clock that is set while it lasts.
                    let at = self.now + at.since(now);
                    if at < self.wake {
                        self.wake = at;
                        self.at(at, What::Wake);
                    }
                }
            }
        }
    }

    fn persist(&mut self, now: Timestamp, batch: Batch) {
        for write in &batch.writes {
            self.trace.note(now.as_millis(), write.key.as_bytes());
            self.trace.note(0, write.value.as_deref().unwrap_or_default());
        }
        // Judged as soon as it is decided: what is durable later is no other state.
        let state = self.engine.head().snapshot(&self.scope);
        let tasks = state.ecs.tasks().len();
        assert!(tasks < super::TASKS_MAX * self.agents.len(), "{tasks} tasks: they are started without end");
        let ended = self.judge.follow(now, &state, &batch.writes);
        self.judge_ends(&ended);
        let goes_on = self.is_calm && !self.is_mended;
        if goes_on && batch.writes.iter().any(|write| write.key.contains("/ecs/service-deployment/")) {
            self.after(50..2000, What::FollowUp);
        }
        self.last_write = self.now;
        self.to_write.push_back(batch);
        self.begin_to_write();
    }

    /// One group of batches is made durable at a time; what comes meanwhile is the next.
    fn begin_to_write(&mut self) {
        if !self.write_due && !self.sync_due && !self.to_write.is_empty() {
            self.write_due = true;
            self.after(0..2, What::Write);
        }
    }

    pub(super) fn write(&mut self) {
        self.write_due = false;
        while let Some(batch) = self.to_write.front() {
            match self.backend.write(Fence(0), std::slice::from_ref(batch)) {
                Ok(()) => _ = self.to_write.pop_front(),
                Err(error) if error.retry_helps() => {
                    self.write_due = true;
                    return self.after(BUSY_PAUSE..BUSY_PAUSE + 1, What::Write);
                }
                // A server whose store is broken ends, and is started again.
                Err(_) => return self.crash_server(1),
            }
        }
        if !self.sync_due {
            self.sync_due = true;
            self.after(1..30, What::Sync);
        }
    }

    pub(super) fn sync(&mut self) {
        self.sync_due = false;
        if self.backend.sync().is_err() {
            return self.crash_server(0);
        }
        let durable = self.backend.durable_seq();
        let dies = self.dies_between && !self.to_write.is_empty() && !self.waiting.is_empty();
        self.step(Input::Durable(durable));
        if dies {
            self.dies_between = false;
            self.count("servers killed between batches");
            return self.crash_server(0);
        }
        self.begin_to_write();
    }

    pub(super) fn prepare(&mut self, operation: &str, request: &Value, principal: Principal) -> Input {
        self.prepare_of(&ecs::SERVICE, operation, request, principal)
    }

    fn prepare_of(
        &mut self,
        service: &'static Service,
        operation: &str,
        request: &Value,
        principal: Principal,
    ) -> Input {
        let asked = (operation, request);
        let write = calls::prepare(&self.scope, service, asked, principal, &mut self.random);
        self.counter += 1;
        Input::Call { id: CallId(self.counter), scope: self.scope.clone(), write }
    }

    /// A call whose answer is waited for, before anything goes wrong.
    pub(super) fn certain(&mut self, operation: &'static str, request: &Value) -> Value {
        self.certain_of(&ecs::SERVICE, operation, request)
    }

    /// The same of any service.
    pub(super) fn certain_of(
        &mut self,
        service: &'static Service,
        operation: &'static str,
        request: &Value,
    ) -> Value {
        let input = self.prepare_of(service, operation, request, Principal::Root);
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
                    Effect::Route(config) => self.route(config),
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

    /// The process ends; of what was not synced the disk keeps the first `survivors` batches. Another starts at once.
    pub(super) fn crash_server(&mut self, survivors: usize) {
        self.count("server crashes");
        self.backend.crash(survivors);
        self.to_write.clear();
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            if let Waiting::Report { agent, life, task, id, .. } = waiting {
                let event = Event::SubmitFailed { task, id, failure: SubmitFailure::Later };
                self.after(100..5000, What::Happened { agent, life, event });
            }
        }
        let (state, last_seq) = crate::stored(&mut self.backend);
        self.published = state.clone();
        self.engine = super::engine(state, last_seq, self.random.next_u64(), self.plan.terms);
        let state = self.published.snapshot(&self.scope);
        state.check_invariants();
        self.judge.begin_anew(&state);
        self.judge_what_was_told(&state);
        for (_, agent) in std::mem::take(&mut self.sessions) {
            self.agents[agent].session = None;
            let life = self.agents[agent].life;
            self.after(1..3000, What::Connect { agent, life });
        }
        self.lose_server();
        self.wake = self.now + Duration::from_millis(1);
        self.at(self.wake, What::Wake);
    }

    fn answer(&mut self, id: CallId, reply: Reply) {
        match self.waiting.remove(&id) {
            Some(Waiting::User { operation, request }) => match reply {
                Ok(response) => {
                    let text = gantry_wire::json::to_vec(response.as_ref());
                    self.trace.note(self.now.as_millis(), &text);
                    let response = serde_json::from_slice(&text).expect("a response is JSON");
                    self.note(operation, &request, &response);
                }
                Err(error) => {
                    assert!(error.status < 500, "{operation} {request} was answered {error}");
                    self.refused(&request);
                }
            },
            Some(Waiting::Report { agent, life, task, id, status }) => {
                let error = reply.err();
                assert!(error.is_none(), "a report was refused: {error:?}");
                let known = self.taken.entry(key_of(&task)).or_insert(status);
                *known = status.max(*known);
                let late = self.agents[agent].late(self.now);
                let millis = late.as_millis() as u64;
                self.after(millis + 1..millis + 50, What::Answer { agent, life, task, id });
            }
            None => {}
        }
    }
}
