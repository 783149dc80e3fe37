//! Load balancers.

use super::{Attributes, Tags};
use gantry_decide::ids::{LoadBalancerId, SecurityGroupId, SubnetId, VpcId};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
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
