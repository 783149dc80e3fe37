//! Elastic Load Balancing's tables from stored rows, on start.

use super::{Elbv2State, Listener, LoadBalancer, Rule, Target, TargetGroup, TrustStore};
use gantry_store::{LoadError, Record, decode};

/// One stored record, read.
pub enum Row {
    LoadBalancer(Box<LoadBalancer>),
    Listener(Box<Listener>),
    Rule(Box<Rule>),
    TargetGroup(Box<TargetGroup>),
    Target(Box<Target>),
    TrustStore(Box<TrustStore>),
}

impl Row {
    /// Reads a stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        fn is<R: Record>(table: &str) -> bool {
            R::KIND.strip_prefix("elbv2/") == Some(table)
        }
        Ok(Some(if is::<LoadBalancer>(table) {
            Row::LoadBalancer(Box::new(decode(value)?))
        } else if is::<Listener>(table) {
            Row::Listener(Box::new(decode(value)?))
        } else if is::<Rule>(table) {
            Row::Rule(Box::new(decode(value)?))
        } else if is::<TargetGroup>(table) {
            Row::TargetGroup(Box::new(decode(value)?))
        } else if is::<Target>(table) {
            Row::Target(Box::new(decode(value)?))
        } else if is::<TrustStore>(table) {
            Row::TrustStore(Box::new(decode(value)?))
        } else {
            return Ok(None);
        }))
    }
}

impl Elbv2State {
    /// Takes a record on start. Does not count as a write.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::LoadBalancer(record) => self.load_balancers.adopt(*record),
            Row::Listener(record) => self.listeners.adopt(*record),
            Row::Rule(record) => self.rules.adopt(*record),
            Row::TargetGroup(record) => self.target_groups.adopt(*record),
            Row::Target(record) => self.targets.adopt(*record),
            Row::TrustStore(record) => self.trust_stores.adopt(*record),
        }
    }
}
