//! The tables of CloudWatch.

use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::ids::AlarmName;
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record, Table, Write, decode};
use serde::{Deserialize, Serialize};

/// What an alarm says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub name: AlarmName,
    pub state: AlarmState,
    pub reason: String,
    /// When it came to say so.
    pub since: Timestamp,
}

impl Record for Alarm {
    const KIND: &'static str = "cloudwatch/alarm";
    const VERSION: u32 = 1;
    type Key = AlarmName;

    fn key(&self) -> AlarmName {
        self.name.clone()
    }

    fn path(key: &AlarmName) -> String {
        key.to_string()
    }
}

/// One record, read.
pub enum Row {
    Alarm(Alarm),
}

impl Row {
    /// Reads one stored record; `None` if no table is named so.
    ///
    /// # Errors
    /// When it is not what this version writes.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        Ok(Some(match table {
            "alarm" => Row::Alarm(decode(value)?),
            _ => return Ok(None),
        }))
    }
}

/// All of CloudWatch in one scope.
#[derive(Clone, Default)]
pub struct CloudWatchState {
    pub alarms: Table<Alarm>,
}

impl CloudWatchState {
    /// Moves what was written since the last call to `out`.
    pub fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.alarms.drain_writes(prefix, out);
    }

    /// Takes a row of the store.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::Alarm(record) => self.alarms.adopt(record),
        }
    }
}
