//! Subnets.

use super::Tags;
use gantry_decide::ids::{SubnetId, VpcId};
use gantry_decide::network::{Ipv4Block, Ipv6Block};
use gantry_store::Record;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub block: Ipv4Block,
    /// With it, tasks' interfaces have an IPv6 address too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Block>,
    /// For interfaces of others than ECS, of which there are none here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assign_ipv6: bool,
    /// The name of its availability zone.
    pub zone: String,
    pub default_for_zone: bool,
    pub map_public_ip_on_launch: bool,
    pub tags: Tags,
}

impl Record for Subnet {
    const KIND: &'static str = "ec2/subnet";
    const VERSION: u32 = 1;
    type Key = SubnetId;

    fn key(&self) -> SubnetId {
        self.id
    }

    fn path(key: &SubnetId) -> String {
        key.to_string()
    }
}
