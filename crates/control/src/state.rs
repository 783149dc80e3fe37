//! All the state of a cell: per scope (account and region) one [`ScopeState`] of typed tables. Cloning is cheap,
//! because tables share what did not change; that is what snapshots and transactions are made of.

use crate::services::ecs::state::EcsState;
use gantry_decide::ids::Scope;
use gantry_store::{LoadError, Write};
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
    pub ecs: EcsState,
}

/// A row of the store that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the store holds the record '{key}', whose key is not ACCOUNT/REGION/KIND/NAME")]
    Key { key: String },
    #[error("the store holds the record '{key}', of a kind that this version of Gantry does not know")]
    Kind { key: String },
    #[error("the record '{key}' cannot be read")]
    Record {
        key: String,
        #[source]
        source: LoadError,
    },
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
                let ecs = Arc::make_mut(state).ecs.drain_writes(&prefix, out);
                changes.extend(ecs.into_iter().map(|change| (scope.clone(), change)));
            }
        }
        changes
    }

    /// Takes one row of the store, on start.
    ///
    /// # Errors
    /// When the key or the record is not one that this version writes.
    pub fn load(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        let bad_key = || StateError::Key { key: key.to_owned() };
        let mut parts = key.splitn(5, '/');
        let mut next = || parts.next().ok_or_else(bad_key);
        let (account, region, service, table, _name) = (next()?, next()?, next()?, next()?, next()?);
        let scope = Scope {
            account: account.parse().map_err(|_| bad_key())?,
            region: region.parse().map_err(|_| bad_key())?,
        };
        let state = Arc::make_mut(self.scopes.entry(scope).or_default());
        let known = match service {
            "ecs" => state.ecs.load(table, value),
            _ => Ok(false),
        };
        match known {
            Ok(true) => Ok(()),
            Ok(false) => Err(StateError::Kind { key: key.to_owned() }),
            Err(source) => Err(StateError::Record { key: key.to_owned(), source }),
        }
    }
}
