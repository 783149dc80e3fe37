//! Subnets.

use super::Tags;
use gantry_decide::ids::{SubnetId, VpcId};
use gantry_decide::network::Ipv4Block;
use gantry_store::Record;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subnet {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub block: Ipv4Block,
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
