//! Where the tasks of other hosts are.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What agents are told of the interfaces of a scope's tasks. In the order in which it was sent, each counts on those
/// before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Nothing that was told before counts any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// Addresses of tasks, each with that of its host. The agent's own tasks are among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub at: BTreeMap<IpAddr, Ipv4Addr>,
    /// Addresses that nobody has any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<IpAddr>,
}

impl Neighbours {
    pub fn is_empty(&self) -> bool {
        !self.complete && self.at.is_empty() && self.gone.is_empty()
    }
}
