//! All the state of a cell: per scope (account and region) one [`ScopeState`] of typed tables. Cloning is cheap,
//! because tables share what did not change; that is what snapshots and transactions are made of.

use crate::services::ec2::state::Ec2State;
use crate::services::ecs::state::EcsState;
use crate::services::logs::state::LogsState;
use gantry_decide::ids::Scope;
use gantry_store::Write;
use imbl::OrdMap;
use std::sync::Arc;

pub use crate::services::ecs::state::Change;

/// Every scope's state.
#[derive(Clone, Default)]
pub struct State {
    scopes: OrdMap<Scope, Arc<ScopeState>>,
    /// Scopes replaced since writes were last drained.
    touched: OrdMap<Scope, ()>,
}

/// One account's state in one region. A request never sees more than its caller's.
#[derive(Clone, Default)]
pub struct ScopeState {
    pub ec2: Ec2State,
    pub ecs: EcsState,
    pub logs: LogsState,
}

impl ScopeState {
    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        self.ec2.check_invariants();
        self.ecs.check_invariants();
        self.logs.check_invariants();
    }
}

impl State {
    pub fn get(&self, scope: &Scope) -> Option<&ScopeState> {
        self.scopes.get(scope).map(Arc::as_ref)
    }

    /// A private copy to work on; empty for a scope that nobody has used.
    pub fn scope(&self, scope: &Scope) -> ScopeState {
        self.get(scope).cloned().unwrap_or_default()
    }

    /// What readers of a scope see, also before anything was written there.
    pub fn snapshot(&self, scope: &Scope) -> Arc<ScopeState> {
        self.scopes.get(scope).cloned().unwrap_or_default()
    }

    pub fn replace(&mut self, scope: &Scope, state: ScopeState) {
        self.scopes.insert(scope.clone(), Arc::new(state));
        self.touched.insert(scope.clone(), ());
    }

    pub fn scopes(&self) -> impl Iterator<Item = (&Scope, &ScopeState)> {
        self.scopes.iter().map(|(scope, state)| (scope, state.as_ref()))
    }

    /// Moves what was written since the last call to `out`, and returns what changed, for the controllers.
    pub fn drain_writes(&mut self, out: &mut Vec<Write>) -> Vec<(Scope, Change)> {
        let mut changes = Vec::new();
        for (scope, ()) in std::mem::take(&mut self.touched) {
            if let Some(state) = self.scopes.get_mut(&scope) {
                let prefix = format!("{scope}/");
                let state = Arc::make_mut(state);
                // Nothing is controlled by what these tables say.
                state.ec2.drain_writes(&prefix, out);
                state.logs.drain_writes(&prefix, out);
                let ecs = state.ecs.drain_writes(&prefix, out);
                changes.extend(ecs.into_iter().map(|change| (scope.clone(), change)));
            }
        }
        changes
    }

    /// Takes a scope as it was loaded.
    pub(crate) fn adopt(&mut self, scope: Scope, state: ScopeState) {
        self.scopes.insert(scope, Arc::new(state));
    }
}
