//! Load balancers.

use super::{Attributes, Tags};
use crate::state::Installation;
use gantry_decide::ids::{LoadBalancerId, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::network::{Ipv4Block, Ipv6Block};
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    InternetFacing,
    Internal,
}

/// By which addresses clients reach a load balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressType {
    #[default]
    Ipv4,
    #[serde(rename = "dualstack")]
    DualStack,
    /// By IPv6 alone.
    #[serde(rename = "dualstack-without-public-ipv4")]
    WithoutPublicIpv4,
}

impl AddressType {
    pub fn has_ipv6(self) -> bool {
        self != AddressType::Ipv4
    }
}

/// Where a load balancer is: one subnet in each of its zones, and its addresses there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub subnet: SubnetId,
    pub zone: String,
    pub address: Ipv4Addr,
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
}

/// The operator's pools of addresses for load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancerAddresses {
    /// Unless told otherwise a part of the loopback block that nothing else uses, 127.64.0.0 to 127.127.255.255: every
    /// address of it is a machine's own without being configured.
    pub ipv4: Ipv4Block,
    /// None: the installation's own block, [`own_ipv6_block`].
    pub ipv6: Option<Ipv6Block>,
}

impl Default for BalancerAddresses {
    fn default() -> Self {
        let block = Ipv4Block::around(Ipv4Addr::new(127, 64, 0, 0), 10);
        BalancerAddresses { ipv4: block.expect("an address has more bits than that"), ipv6: None }
    }
}

/// Bits of the block of an installation's own.
const OWN_BITS: u8 = 64;

/// A block of unique local addresses (RFC 4193) that no other installation has. Balancers lead it to their machines
/// themselves: of IPv6 a machine has one loopback address.
pub fn own_ipv6_block(installation: &Installation) -> Ipv6Block {
    let mut bytes = installation.key().id("addresses of load balancers", "");
    bytes[0] = 0xfd;
    Ipv6Block::around(Ipv6Addr::from(bytes), OWN_BITS).expect("an address has more bits than that")
}

impl BalancerAddresses {
    /// An address that is not in `taken`, looked for from a place that `random` names. None when there is no other.
    pub fn free(self, taken: &BTreeSet<Ipv4Addr>, random: &mut dyn Random) -> Option<Ipv4Addr> {
        let size = 1_u64 << (32 - u32::from(self.ipv4.bits()));
        let start = random.below(usize::try_from(size).unwrap_or(usize::MAX)) as u64;
        // The ends of small blocks look like networks and broadcasts to people.
        let odd = |address: &Ipv4Addr| matches!(address.octets()[3], 0 | 255);
        (0..size)
            .map(|step| Ipv4Addr::from(u32::from(self.ipv4.base()) + ((start + step) % size) as u32))
            .find(|address| !odd(address) && !taken.contains(address))
    }
}

/// An address of a block that is not in `taken`, as above.
pub fn free_ipv6(block: Ipv6Block, taken: &BTreeSet<Ipv6Addr>, random: &mut dyn Random) -> Option<Ipv6Addr> {
    // Most of a block's addresses are free: few have to be looked at, and of a small block these are all.
    let size = 1_u128.checked_shl(128 - u32::from(block.bits())).unwrap_or(u128::MAX);
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let start = u128::from_be_bytes(bytes) % size;
    (0..size.min(taken.len() as u128 + 2))
        .map(|step| Ipv6Addr::from(u128::from(block.base()) + (start + step) % size))
        // The first one is every router's (RFC 4291, 2.6.1).
        .find(|address| (*address != block.base() || size == 1) && !taken.contains(address))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadBalancer {
    pub id: LoadBalancerId,
    pub scheme: Scheme,
    #[serde(default)]
    pub address_type: AddressType,
    /// Whether datagrams of IPv6 clients may go to targets: `EnablePrefixForIpv6SourceNat`.
    #[serde(default)]
    pub source_nat: bool,
    /// `EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic` is off: there is no such traffic, it is only shown.
    #[serde(default)]
    pub private_link_unfiltered: bool,
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
    /// Where clients reach it, and in which zone that is.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.places.iter().flat_map(|place| {
            let ipv4 = (self.address_type != AddressType::WithoutPublicIpv4).then_some(place.address);
            let ipv6 = place.ipv6.filter(|_| self.address_type.has_ipv6());
            let both = [ipv4.map(IpAddr::V4), ipv6.map(IpAddr::V6)];
            both.into_iter().flatten().map(|ip| (ip, place.zone.as_str()))
        })
    }

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
