//! From the store's rows to the state, on start. Reading a row is most of the work and rests on nothing else, so a
//! driver may spread it over threads; rows are taken in the order of their keys, and what follows from all of them is
//! derived once, at the end.

use crate::services::ec2::state as ec2;
use crate::services::ecs::state as ecs;
use crate::services::logs::state as logs;
use crate::state::{ScopeState, State};
use gantry_decide::ids::Scope;
use gantry_store::LoadError;
use std::collections::BTreeMap;

/// A row of the store that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the store holds the record '{key}', whose key is not ACCOUNT/REGION/SERVICE/KIND/NAME")]
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

/// One row, read.
pub struct Row {
    key: String,
    scope: Scope,
    record: Service,
}

/// Whose record it is.
enum Service {
    Ec2(ec2::Row),
    Ecs(ecs::Row),
    Logs(logs::Row),
}

impl Row {
    /// Reads a stored key and value.
    ///
    /// # Errors
    /// When they are not what this version writes.
    pub fn read(key: &str, value: &[u8]) -> Result<Row, StateError> {
        let bad_key = || StateError::Key { key: key.to_owned() };
        let mut parts = key.splitn(5, '/');
        let mut next = || parts.next().ok_or_else(bad_key);
        let (account, region, service, table, _name) = (next()?, next()?, next()?, next()?, next()?);
        let scope = Scope {
            account: account.parse().map_err(|_| bad_key())?,
            region: region.parse().map_err(|_| bad_key())?,
        };
        let record = match service {
            "ec2" => ec2::Row::read(table, value).map(|row| row.map(Service::Ec2)),
            "ecs" => ecs::Row::read(table, value).map(|row| row.map(Service::Ecs)),
            "logs" => logs::Row::read(table, value).map(|row| row.map(Service::Logs)),
            _ => Ok(None),
        };
        match record {
            Ok(Some(record)) => Ok(Row { key: key.to_owned(), scope, record }),
            Ok(None) => Err(StateError::Kind { key: key.to_owned() }),
            Err(source) => Err(StateError::Record { key: key.to_owned(), source }),
        }
    }
}

/// The state while it is being loaded.
#[derive(Default)]
pub struct Loading {
    scopes: BTreeMap<Scope, ScopeState>,
}

impl Loading {
    /// Takes the next row, in the order of the stored keys.
    ///
    /// # Errors
    /// When the row needs another that should have come before it.
    pub fn take(&mut self, row: Row) -> Result<(), StateError> {
        let Row { key, scope, record } = row;
        let state = self.scopes.entry(scope).or_default();
        match record {
            Service::Ec2(row) => state.ec2.adopt(row),
            Service::Ecs(row) => state.ecs.adopt(row).map_err(|source| StateError::Record { key, source })?,
            Service::Logs(row) => state.logs.adopt(row),
        }
        Ok(())
    }

    /// Everything was taken.
    pub fn finish(self) -> State {
        let mut state = State::default();
        for (scope, mut loaded) in self.scopes {
            loaded.ecs.derive_indexes();
            state.adopt(scope, loaded);
        }
        state
    }
}
