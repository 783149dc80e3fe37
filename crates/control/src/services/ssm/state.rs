//! The tables of Systems Manager, and what must always hold between them.

use gantry_decide::ids::{ActivationId, ManagedInstanceId};
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record, Table, Write, decode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A tag list as stored.
pub type Tags = BTreeMap<String, String>;

/// What machines may join by. Its code is not here: it follows from the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activation {
    pub id: ActivationId,
    pub description: Option<String>,
    /// What machines are called that join by it.
    pub default_instance_name: Option<String>,
    /// The name of the role that machines have on AWS. Here it is only shown.
    pub iam_role: String,
    /// So many machines may join.
    pub limit: u32,
    /// So many have.
    pub count: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub tags: Tags,
}

impl Activation {
    /// Why nobody can join by it; `None` while somebody can.
    pub fn refuses(&self, now: Timestamp) -> Option<&'static str> {
        if self.expires_at <= now {
            Some("The activation has expired.")
        } else if self.count >= self.limit {
            Some("The registration limit of the activation has been reached.")
        } else {
            None
        }
    }
}

/// A machine that joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManagedInstance {
    pub id: ManagedInstanceId,
    pub activation: ActivationId,
    pub name: Option<String>,
    pub iam_role: String,
    pub registered_at: Timestamp,
}

impl Record for Activation {
    const KIND: &'static str = "ssm/activation";
    const VERSION: u32 = 1;
    type Key = ActivationId;

    fn key(&self) -> ActivationId {
        self.id
    }

    fn path(key: &ActivationId) -> String {
        key.to_string()
    }
}

impl Record for ManagedInstance {
    const KIND: &'static str = "ssm/managed-instance";
    const VERSION: u32 = 1;
    type Key = ManagedInstanceId;

    fn key(&self) -> ManagedInstanceId {
        self.id
    }

    fn path(key: &ManagedInstanceId) -> String {
        key.to_string()
    }
}

/// One record, read.
pub enum Row {
    Activation(Activation),
    ManagedInstance(ManagedInstance),
}

impl Row {
    /// Reads one stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        Ok(Some(match table {
            "activation" => Row::Activation(decode(value)?),
            "managed-instance" => Row::ManagedInstance(decode(value)?),
            _ => return Ok(None),
        }))
    }
}

/// All of Systems Manager in one scope.
#[derive(Clone, Default)]
pub struct SsmState {
    pub activations: Table<Activation>,
    pub managed_instances: Table<ManagedInstance>,
}

impl SsmState {
    /// Moves what was written since the last call to `out`.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.activations.drain_writes(prefix, out);
        self.managed_instances.drain_writes(prefix, out);
    }

    /// Takes a row of the store.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::Activation(record) => self.activations.adopt(record),
            Row::ManagedInstance(record) => self.managed_instances.adopt(record),
        }
    }

    /// Panics where the tables contradict each other. A machine outlives its activation.
    pub fn check_invariants(&self) {
        for (id, activation) in self.activations.iter() {
            assert!(activation.count <= activation.limit, "more machines joined by {id} than may");
        }
    }
}
