//! Load balancers.

use super::{Attributes, Tags};
use gantry_decide::ids::{LoadBalancerId, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::network::Ipv4Block;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    InternetFacing,
    Internal,
}

/// Where a load balancer is: one subnet in each of its zones, and its address there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub subnet: SubnetId,
    pub zone: String,
    pub address: Ipv4Addr,
}

/// The operator's pool of addresses for load balancers. Unless told otherwise a part of the loopback block that nothing
/// else uses, 127.64.0.0 to 127.127.255.255: every address of it is a machine's own without being configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancerAddresses(pub Ipv4Block);

impl Default for BalancerAddresses {
    fn default() -> Self {
        let block = Ipv4Block::around(Ipv4Addr::new(127, 64, 0, 0), 10);
        BalancerAddresses(block.expect("an address has more bits than that"))
    }
}

impl BalancerAddresses {
    /// An address that is not in `taken`, looked for from a place that `random` names. None when there is no other.
    pub fn free(self, taken: &BTreeSet<Ipv4Addr>, random: &mut dyn Random) -> Option<Ipv4Addr> {
        let size = 1_u64 << (32 - u32::from(self.0.bits()));
        let start = random.below(usize::try_from(size).unwrap_or(usize::MAX)) as u64;
        // The ends of small blocks look like networks and broadcasts to people.
        let odd = |address: &Ipv4Addr| matches!(address.octets()[3], 0 | 255);
        (0..size)
            .map(|step| Ipv4Addr::from(u32::from(self.0.base()) + ((start + step) % size) as u32))
            .find(|address| !odd(address) && !taken.contains(address))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    pub id: LoadBalancerId,
    pub scheme: Scheme,
    pub vpc: VpcId,
    pub places: Vec<Place>,
    pub security_groups: Vec<SecurityGroupId>,
    pub created_at: Timestamp,
    pub attributes: Attributes,
    pub tags: Tags,
}

/// Domain under which load balancers have their names. Browsers and most resolvers look for names below `localhost` on
/// the machine itself.
pub const DOMAIN: &str = "elb.localhost";

impl LoadBalancer {
    /// What `DNSName` shows: the name, and digits by which no two are alike.
    pub fn dns_name(&self) -> String {
        let internal = if self.scheme == Scheme::Internal { "internal-" } else { "" };
        format!("{internal}{}-{}.{DOMAIN}", self.id.name, self.id.number() % 10_000_000_000)
            .to_ascii_lowercase()
    }

    /// The short name that people type: what it is among several of that name is not told.
    pub fn short_name(&self) -> String {
        format!("{}.{DOMAIN}", self.id.name).to_ascii_lowercase()
    }
}

impl Record for LoadBalancer {
    const KIND: &'static str = "elbv2/load-balancer";
    const VERSION: u32 = 1;
    type Key = LoadBalancerId;

    fn key(&self) -> LoadBalancerId {
        self.id.clone()
    }

    fn path(key: &LoadBalancerId) -> String {
        key.to_string()
    }
}
