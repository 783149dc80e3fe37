//! Auto Scaling's tables from stored rows, on start.

use super::{Activity, AutoScalingGroup, AutoScalingState, Instance, LaunchConfiguration};
use gantry_store::{LoadError, Record, decode};

/// One stored record, read.
pub enum Row {
    Group(Box<AutoScalingGroup>),
    Instance(Box<Instance>),
    Activity(Box<Activity>),
    LaunchConfiguration(Box<LaunchConfiguration>),
}

impl Row {
    /// Reads a stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        fn is<R: Record>(table: &str) -> bool {
            R::KIND.strip_prefix("autoscaling/") == Some(table)
        }
        Ok(Some(if is::<AutoScalingGroup>(table) {
            Row::Group(Box::new(decode(value)?))
        } else if is::<Instance>(table) {
            Row::Instance(Box::new(decode(value)?))
        } else if is::<Activity>(table) {
            Row::Activity(Box::new(decode(value)?))
        } else if is::<LaunchConfiguration>(table) {
            Row::LaunchConfiguration(Box::new(decode(value)?))
        } else {
            return Ok(None);
        }))
    }
}

impl AutoScalingState {
    /// Takes a record on start. Does not count as a write.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::Group(record) => self.groups.adopt(*record),
            Row::Instance(record) => self.instances.adopt(*record),
            Row::Activity(record) => self.activities.adopt(*record),
            Row::LaunchConfiguration(record) => self.launch_configurations.adopt(*record),
        }
    }
}
