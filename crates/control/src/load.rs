//! From the store's rows to the state, on start. Reading a row is most of the work and rests on nothing else, so a
//! driver may spread it over threads; rows are taken in any order, and what rests on others (a task's definition, the
//! indexes) is found once, at the end.

use crate::services::acm::state as acm;
use crate::services::autoscaling::state as autoscaling;
use crate::services::cloudwatch::state as cloudwatch;
use crate::services::ec2::state as ec2;
use crate::services::ecs::state as ecs;
use crate::services::elbv2::state as elbv2;
use crate::services::logs::state as logs;
use crate::services::ssm::state as ssm;
use crate::state::{ScopeState, State};
use gantry_decide::ids::Scope;
use gantry_store::{LoadError, Record};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    scope: Scope,
    record: Service,
}

/// Whose record it is.
enum Service {
    Acm(acm::Row),
    AutoScaling(autoscaling::Row),
    CloudWatch(cloudwatch::Row),
    Ec2(ec2::Row),
    Ecs(ecs::Row),
    Elbv2(elbv2::Row),
    Logs(logs::Row),
    Ssm(ssm::Row),
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
            "acm" => acm::Row::read(table, value).map(|row| row.map(Service::Acm)),
            "autoscaling" => autoscaling::Row::read(table, value).map(|row| row.map(Service::AutoScaling)),
            "cloudwatch" => cloudwatch::Row::read(table, value).map(|row| row.map(Service::CloudWatch)),
            "ec2" => ec2::Row::read(table, value).map(|row| row.map(Service::Ec2)),
            "ecs" => ecs::Row::read(table, value).map(|row| row.map(Service::Ecs)),
            "elbv2" => elbv2::Row::read(table, value).map(|row| row.map(Service::Elbv2)),
            "logs" => logs::Row::read(table, value).map(|row| row.map(Service::Logs)),
            "ssm" => ssm::Row::read(table, value).map(|row| row.map(Service::Ssm)),
            _ => Ok(None),
        };
        match record {
            Ok(Some(record)) => Ok(Row { scope, record }),
            Ok(None) => Err(StateError::Kind { key: key.to_owned() }),
            Err(source) => Err(StateError::Record { key: key.to_owned(), source }),
        }
    }
}

/// The state while it is being loaded.
#[derive(Default)]
pub struct Loading {
    scopes: BTreeMap<Scope, Loaded>,
}

/// One scope's.
#[derive(Default)]
struct Loaded {
    state: ScopeState,
    /// Tasks that came before their definitions.
    early: Vec<Arc<ecs::Task>>,
}

impl Loading {
    /// Takes the next row.
    pub fn take(&mut self, row: Row) {
        let Row { scope, record } = row;
        let loaded = self.scopes.entry(scope).or_default();
        match record {
            Service::Acm(row) => loaded.state.acm.adopt(row),
            Service::AutoScaling(row) => loaded.state.autoscaling.adopt(row),
            Service::CloudWatch(row) => loaded.state.cloudwatch.adopt(row),
            Service::Ec2(row) => loaded.state.ec2.adopt(row),
            Service::Ecs(row) => loaded.early.extend(loaded.state.ecs.adopt(row)),
            Service::Elbv2(row) => loaded.state.elbv2.adopt(row),
            Service::Logs(row) => loaded.state.logs.adopt(row),
            Service::Ssm(row) => loaded.state.ssm.adopt(row),
        }
    }

    /// Everything was taken.
    ///
    /// # Errors
    /// When a row needs another that is not there.
    pub fn finish(self) -> Result<State, StateError> {
        let mut state = State::default();
        for (scope, Loaded { state: mut loaded, early }) in self.scopes {
            for task in early {
                if let Some(task) = loaded.ecs.adopt(ecs::Row::Task(task)) {
                    let key = format!("{scope}/{}/{}", ecs::Task::KIND, ecs::Task::path(&task.key()));
                    let wanted = ecs::TaskDefinitionRecord::path(&task.definition_id);
                    let source = LoadError::Missing { kind: ecs::Task::KIND, wanted };
                    return Err(StateError::Record { key, source });
                }
            }
            loaded.ecs.derive_indexes();
            state.adopt(scope, loaded);
        }
        Ok(state)
    }
}
