//! Which target a flow goes to: by a hash of its addresses, the same as long as the same targets are in service.

use super::super::tables::{Group, Service, Table, Target};
use gantry_decide::routing::config::{Action, Stickiness};
use gantry_decide::routing::{Request, choose_group};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A flow, as the rules of a network load balancer see it: they have no more than its source.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Request for Flow {
    fn host(&self) -> &[u8] {
        b""
    }

    fn path(&self) -> &[u8] {
        b""
    }

    fn query(&self) -> &[u8] {
        b""
    }

    fn method(&self) -> &[u8] {
        b""
    }

    fn source(&self) -> IpAddr {
        self.source.ip()
    }

    fn any_header(&self, _name: &str, _found: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }
}

impl Flow {
    /// The flow's group and target; None when there is no target.
    pub fn route(&self, table: &Table, random: u64) -> Option<(Arc<Group>, Arc<Service>, Arc<Target>)> {
        let matched = table.rules.find(self);
        let Action::Forward(forward) = matched.action else { return None };
        // With group stickiness, or for datagrams, the group follows the flow as well.
        let random = if forward.stickiness.is_some() { self.hash(true) } else { random };
        let group = table.group(matched.slot, choose_group(forward, random)?)?.clone();
        let service = group.service.load_full().of_zone(|| table.zone(self.destination));
        let by_source = service.stickiness() == Some(&Stickiness::SourceIp);
        let target = service.by_hash(self.hash(by_source))?.clone();
        Some((group, service, target))
    }

    /// FNV-1a over the addresses; over the source's alone when its clients stick.
    fn hash(&self, source_alone: bool) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        let ip = |address: SocketAddr| match address.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        take(&ip(self.source));
        if !source_alone {
            take(&self.source.port().to_be_bytes());
            take(&ip(self.destination));
            take(&self.destination.port().to_be_bytes());
        }
        hash
    }
}
