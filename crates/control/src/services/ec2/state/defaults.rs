//! The networks that every scope has from the start, as on AWS: a default VPC, a default subnet in each zone, a
//! default security group. They follow from the scope, and from the block that the operator has for default VPCs.

use super::{SecurityGroup, Subnet, Tags, Vpc};
use crate::services::ec2::zones;
use gantry_decide::ids::{Scope, SubnetId, VpcId};
use gantry_decide::network::Ipv4Block;
use gantry_store::Record;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A default VPC has room for sixteen subnets, as AWS's of 20 bits in a VPC of 16 have.
const SUBNET_BITS_MORE: u8 = 4;
/// EC2's limits for VPCs and their subnets.
const VPC_BITS_MIN: u8 = 16;
const SUBNET_BITS_MAX: u8 = 28;

/// The block of default VPCs: 172.31.0.0/16, as on AWS, unless the operator says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultVpcBlock(Ipv4Block);

/// A block that no default VPC can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no block of a default VPC: it has between {VPC_BITS_MIN} and {most} bits, as 10.31.0.0/16", most = SUBNET_BITS_MAX - SUBNET_BITS_MORE)]
pub struct NoDefaultVpcBlock(String);

impl DefaultVpcBlock {
    pub fn block(self) -> Ipv4Block {
        self.0
    }
}

impl Default for DefaultVpcBlock {
    fn default() -> Self {
        let block = Ipv4Block::around(Ipv4Addr::new(172, 31, 0, 0), VPC_BITS_MIN);
        DefaultVpcBlock(block.expect("an address has 32 bits"))
    }
}

impl FromStr for DefaultVpcBlock {
    type Err = NoDefaultVpcBlock;

    fn from_str(text: &str) -> Result<DefaultVpcBlock, NoDefaultVpcBlock> {
        let has_room =
            |block: &Ipv4Block| (VPC_BITS_MIN..=SUBNET_BITS_MAX - SUBNET_BITS_MORE).contains(&block.bits());
        let block = text.parse().ok().filter(has_room);
        block.map(DefaultVpcBlock).ok_or_else(|| NoDefaultVpcBlock(text.chars().take(64).collect()))
    }
}

impl<'de> Deserialize<'de> for DefaultVpcBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Says that the default networks are among the stored records: what is missing of them then was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Defaults {}

impl Record for Defaults {
    const KIND: &'static str = "ec2/defaults";
    const VERSION: u32 = 1;
    type Key = ();

    fn key(&self) {}

    fn path((): &()) -> String {
        "made".to_owned()
    }
}

/// The default networks of a scope.
pub struct Made {
    pub vpc: Vpc,
    pub subnets: Vec<Subnet>,
    pub security_group: SecurityGroup,
}

pub fn of(scope: &Scope, DefaultVpcBlock(whole): DefaultVpcBlock) -> Made {
    let bits = whole.bits() + SUBNET_BITS_MORE;
    let part = |index: u32| {
        let base = Ipv4Addr::from(u32::from(whole.base()) + (index << (32 - bits)));
        Ipv4Block::around(base, bits).expect("a default VPC's subnets have at most 28 bits")
    };
    let id = VpcId::derived(&format!("{scope} default VPC"));
    let subnet = |(index, zone): (u32, zones::Zone)| Subnet {
        id: SubnetId::derived(&format!("{id} {}", zone.name)),
        vpc: id,
        block: part(index),
        ipv6: None,
        assign_ipv6: false,
        zone: zone.name,
        default_for_zone: true,
        map_public_ip_on_launch: true,
        tags: Tags::new(),
    };
    Made {
        vpc: Vpc::default_of_scope(id, whole),
        subnets: (0..).zip(zones::of(&scope.region)).map(subnet).collect(),
        security_group: SecurityGroup::default_of(id),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn default_networks_are_in_the_operator_s_block() {
        let scope = Scope { account: "123456789012".parse().unwrap(), region: "eu-north-1".parse().unwrap() };
        let blocks = |block: DefaultVpcBlock| {
            let made = of(&scope, block);
            assert!(made.subnets.iter().all(|subnet| made.vpc.block.covers(subnet.block)));
            (made.vpc.block.to_string(), made.subnets[1].block.to_string())
        };
        let usual = ("172.31.0.0/16".to_owned(), "172.31.16.0/20".to_owned());
        assert_eq!(blocks(DefaultVpcBlock::default()), usual);
        let own = ("10.77.5.0/24".to_owned(), "10.77.5.16/28".to_owned());
        assert_eq!(blocks("10.77.5.0/24".parse().unwrap()), own);
        for wrong in ["10.0.0.0/15", "10.0.0.0/25", "10.0.0.0", "x/16"] {
            assert!(wrong.parse::<DefaultVpcBlock>().is_err(), "{wrong}");
        }
    }
}
