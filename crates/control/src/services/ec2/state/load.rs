//! EC2's tables from stored rows, on start.

use super::{Defaults, Ec2State, LaunchTemplate, LaunchTemplateVersion, SecurityGroup, Subnet, Vpc};
use gantry_store::{LoadError, Record, decode};

/// One stored record, read.
pub enum Row {
    Vpc(Box<Vpc>),
    Subnet(Subnet),
    SecurityGroup(Box<SecurityGroup>),
    LaunchTemplate(Box<LaunchTemplate>),
    LaunchTemplateVersion(Box<LaunchTemplateVersion>),
    Defaults(Defaults),
}

impl Row {
    /// Reads a stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        fn is<R: Record>(table: &str) -> bool {
            R::KIND.strip_prefix("ec2/") == Some(table)
        }
        Ok(Some(if is::<Vpc>(table) {
            Row::Vpc(Box::new(decode(value)?))
        } else if is::<Subnet>(table) {
            Row::Subnet(decode(value)?)
        } else if is::<SecurityGroup>(table) {
            Row::SecurityGroup(Box::new(decode(value)?))
        } else if is::<LaunchTemplate>(table) {
            Row::LaunchTemplate(Box::new(decode(value)?))
        } else if is::<LaunchTemplateVersion>(table) {
            Row::LaunchTemplateVersion(Box::new(decode(value)?))
        } else if is::<Defaults>(table) {
            Row::Defaults(decode(value)?)
        } else {
            return Ok(None);
        }))
    }
}

impl Ec2State {
    /// Takes a record on start. Does not count as a write.
    pub(crate) fn adopt(&mut self, row: Row) {
        match row {
            Row::Vpc(record) => self.vpcs.adopt(*record),
            Row::Subnet(record) => self.subnets.adopt(record),
            Row::SecurityGroup(record) => self.security_groups.adopt(*record),
            Row::LaunchTemplate(record) => self.launch_templates.adopt(*record),
            Row::LaunchTemplateVersion(record) => self.launch_template_versions.adopt(*record),
            Row::Defaults(record) => self.defaults.adopt(record),
        }
    }
}
