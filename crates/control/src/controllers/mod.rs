//! Controllers: level-triggered loops that compare what is wanted with what is, and take the next step.
//!
//! A controller works on one key at a time (a task definition, a service). It is told which keys may need a look, but is right
//! even if every such hint is lost: all keys are looked at on start and again every [`RESYNC`]. Looking twice changes
//! nothing the second time.

use crate::services::ecs::placement::Placers;
use crate::state::{Change, State};
use crate::tx::{Tx, View};
use gantry_decide::ids::Scope;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

pub(crate) mod autoscaling;
mod client_tokens;
pub(crate) mod container_instances;
mod exec_sessions;
mod managed_daemons;
mod managed_instances;
mod managed_scaling;
pub(crate) mod provisioning;
pub(crate) mod service_targets;
pub(crate) mod services;
pub(crate) mod targets;
pub(crate) mod task_definitions;
pub(crate) mod tasks;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod traffic;

/// How often one step lets controllers react to each other. Above the longest chain of reactions, and low enough that
/// a step ends, and is told of, within milliseconds.
pub const ROUNDS_PER_STEP_MAX: usize = 8;

/// How long a lost hint can go unnoticed.
const RESYNC: Duration = Duration::from_secs(60);

/// The least pause before a key is looked at again.
pub const SOONEST: Duration = Duration::from_millis(1);

/// Everything that changed in a step.
pub type Changes = Vec<(Scope, Change)>;

/// One level-triggered loop.
pub trait Controller {
    const NAME: &'static str;
    type Key: Ord + Clone + Send + fmt::Display;
    type Plan;

    /// The keys that a change concerns.
    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<Self::Key>);
    /// Every key there is.
    fn all(view: View<'_>) -> Vec<Self::Key>;
    /// Whether this key is looked at before the others of a round.
    fn goes_first(_view: View<'_>, _key: &Self::Key) -> bool {
        false
    }
    /// What to do next, decided from a snapshot alone; `None` when nothing is to be done.
    fn plan(view: View<'_>, key: &Self::Key, random: &mut dyn Random) -> (Option<Self::Plan>, LookAgain);
    /// Does it, after checking that what the plan relied on still holds.
    fn apply(tx: &mut Tx<'_>, key: &Self::Key, plan: Self::Plan);
}

/// When a controller wants to see a key again although nothing changed.
pub type LookAgain = Option<Timestamp>;

/// How a controller does, for `gantry status`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Status {
    pub name: String,
    pub last_round: Timestamp,
    /// Plans applied since start.
    pub applied: u64,
    /// What the last of them was about, and when it was applied.
    pub last_applied: Option<(Timestamp, String)>,
    /// Keys that wait for a time.
    pub waiting: usize,
    /// When the first of them is looked at again, whatever happens before.
    pub next_look: Option<Timestamp>,
}

/// A controller with its queue and timers.
struct Driver<C: Controller> {
    queue: BTreeSet<(Scope, C::Key)>,
    timers: Timers<(Scope, C::Key)>,
    last_round: Timestamp,
    applied: u64,
    last_applied: Option<(Timestamp, C::Key)>,
}

/// When which key wants to be looked at again; each key at most once.
struct Timers<K> {
    at: BTreeMap<K, Timestamp>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { at: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    fn set(&mut self, key: K, at: Option<Timestamp>) {
        if let Some(old) = self.at.remove(&key) {
            self.order.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.at.insert(key.clone(), at);
            self.order.insert((at, key));
        }
    }

    /// Takes a key whose time has come.
    fn due(&mut self, now: Timestamp) -> Option<K> {
        let (at, _) = self.order.first()?;
        if *at > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.at.remove(&key);
        Some(key)
    }

    fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }
}

impl<C: Controller> Default for Driver<C> {
    fn default() -> Self {
        Driver {
            queue: BTreeSet::new(),
            timers: Timers::default(),
            last_round: Timestamp::EPOCH,
            applied: 0,
            last_applied: None,
        }
    }
}

impl<C: Controller> Driver<C> {
    fn resync(&mut self, now: Timestamp, state: &State) {
        for (scope, scope_state) in state.scopes() {
            let view = View { scope, state: scope_state, now };
            self.queue.extend(C::all(view).into_iter().map(|key| (scope.clone(), key)));
        }
    }

    fn note(&mut self, now: Timestamp, state: &State, changes: &Changes) {
        let mut keys = BTreeSet::new();
        for (scope, change) in changes {
            if let Some(scope_state) = state.get(scope) {
                C::watches(View { scope, state: scope_state, now }, change, &mut keys);
                self.queue.extend(std::mem::take(&mut keys).into_iter().map(|key| (scope.clone(), key)));
            }
        }
    }

    fn due(&mut self, now: Timestamp) {
        while let Some(key) = self.timers.due(now) {
            self.queue.insert(key);
        }
    }

    /// Works off the queue. True if anything was changed.
    fn run(
        &mut self,
        now: Timestamp,
        state: &mut State,
        random: &mut dyn Random,
        placers: &mut Placers,
    ) -> bool {
        let mut changed = false;
        let first = |(scope, key): &(Scope, C::Key)| {
            state.get(scope).is_some_and(|state| C::goes_first(View { scope, state, now }, key))
        };
        let (first, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.queue).into_iter().partition(first);
        for (scope, key) in first.into_iter().chain(others) {
            let Some(scope_state) = state.get(&scope) else { continue };
            let (plan, look_again) = C::plan(View { scope: &scope, state: scope_state, now }, &key, random);
            if let Some(plan) = plan {
                let (random, placers) = (&mut *random, &mut *placers);
                let mut tx = Tx { scope: &scope, state: state.edit(&scope), now, random, placers };
                C::apply(&mut tx, &key, plan);
                self.applied += 1;
                self.last_applied = Some((now, key.clone()));
                changed = true;
            }
            // A time that is past would wake the engine at once and forever.
            let look_again = look_again.map(|at| at.max(now + SOONEST));
            self.timers.set((scope, key), look_again);
        }
        self.last_round = now;
        changed
    }

    fn wake_at(&self) -> Timestamp {
        self.timers.next().unwrap_or(Timestamp::NEVER)
    }

    fn status(&self) -> Status {
        Status {
            name: C::NAME.to_owned(),
            last_round: self.last_round,
            applied: self.applied,
            last_applied: self.last_applied.as_ref().map(|(at, key)| (*at, key.to_string())),
            waiting: self.timers.at.len(),
            next_look: self.timers.next(),
        }
    }
}

/// All controllers, in the order in which they react within a round.
#[derive(Default)]
pub struct Controllers {
    next_resync: Timestamp,
    autoscaling: Driver<autoscaling::AutoScaling>,
    client_tokens: Driver<client_tokens::ClientTokens>,
    container_instances: Driver<container_instances::ContainerInstances>,
    exec_sessions: Driver<exec_sessions::ExecSessions>,
    managed_scaling: Driver<managed_scaling::ManagedScaling>,
    provisioning: Driver<provisioning::Provisioning>,
    managed_daemons: Driver<managed_daemons::ManagedDaemons>,
    managed_instances: Driver<managed_instances::ManagedInstances>,
    services: Driver<services::Services>,
    task_definitions: Driver<task_definitions::TaskDefinitions>,
    service_targets: Driver<service_targets::ServiceTargets>,
    targets: Driver<targets::Targets>,
    tasks: Driver<tasks::Tasks>,
    traffic: Driver<traffic::TrafficRules>,
}

/// Calls the same method on every controller.
macro_rules! each {
    ($self:ident, $driver:ident => $body:expr) => {{
        let $driver = &mut $self.autoscaling;
        $body;
        let $driver = &mut $self.client_tokens;
        $body;
        let $driver = &mut $self.container_instances;
        $body;
        let $driver = &mut $self.exec_sessions;
        $body;
        let $driver = &mut $self.managed_scaling;
        $body;
        // Daemons first: what is left on a new instance is for tasks that wait.
        let $driver = &mut $self.services;
        $body;
        let $driver = &mut $self.provisioning;
        $body;
        let $driver = &mut $self.managed_daemons;
        $body;
        // After the tasks have gone where there is room.
        let $driver = &mut $self.managed_instances;
        $body;
        let $driver = &mut $self.task_definitions;
        $body;
        let $driver = &mut $self.service_targets;
        $body;
        let $driver = &mut $self.targets;
        $body;
        let $driver = &mut $self.tasks;
        $body;
        let $driver = &mut $self.traffic;
        $body;
    }};
}

impl Controllers {
    pub fn tick(&mut self, now: Timestamp) {
        each!(self, driver => driver.due(now));
    }

    /// One round on what changed. True if anything was changed by it.
    pub fn run(
        &mut self,
        now: Timestamp,
        state: &mut State,
        random: &mut dyn Random,
        placers: &mut Placers,
        changes: &Changes,
    ) -> bool {
        if now >= self.next_resync {
            self.next_resync = now + RESYNC;
            each!(self, driver => driver.resync(now, state));
        }
        let mut changed = false;
        each!(self, driver => {
            driver.note(now, state, changes);
            changed |= driver.run(now, state, random, placers);
        });
        changed
    }

    pub fn wake_at(&self) -> Timestamp {
        let wishes = [
            self.autoscaling.wake_at(),
            self.client_tokens.wake_at(),
            self.container_instances.wake_at(),
            self.exec_sessions.wake_at(),
            self.managed_scaling.wake_at(),
            self.provisioning.wake_at(),
            self.managed_daemons.wake_at(),
            self.managed_instances.wake_at(),
            self.services.wake_at(),
            self.task_definitions.wake_at(),
            self.service_targets.wake_at(),
            self.targets.wake_at(),
            self.tasks.wake_at(),
            self.traffic.wake_at(),
        ];
        wishes.into_iter().fold(self.next_resync, Timestamp::min)
    }

    pub fn status(&self) -> Vec<Status> {
        vec![
            self.autoscaling.status(),
            self.client_tokens.status(),
            self.container_instances.status(),
            self.exec_sessions.status(),
            self.managed_scaling.status(),
            self.provisioning.status(),
            self.managed_daemons.status(),
            self.managed_instances.status(),
            self.services.status(),
            self.task_definitions.status(),
            self.service_targets.status(),
            self.targets.status(),
            self.tasks.status(),
            self.traffic.status(),
        ]
    }
}
