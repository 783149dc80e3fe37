//! The networks that every scope has from the start, as on AWS: a default VPC, a default subnet in each zone, a
//! default security group. They follow from the scope alone.

use super::{SecurityGroup, Subnet, Tags, Vpc};
use crate::services::ec2::zones;
use gantry_decide::ids::{Scope, SubnetId, VpcId};
use gantry_decide::network::Ipv4Block;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// AWS's block for default VPCs, and the size of the subnets in it.
const BASE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 0);
const VPC_BITS: u8 = 16;
const SUBNET_BITS: u8 = 20;

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

pub fn of(scope: &Scope) -> Made {
    let block = |address: Ipv4Addr, bits| Ipv4Block::around(address, bits).expect("an address has 32 bits");
    let id = VpcId::derived(&format!("{scope} default VPC"));
    let subnet = |(index, zone): (u32, zones::Zone)| Subnet {
        id: SubnetId::derived(&format!("{id} {}", zone.name)),
        vpc: id,
        block: block(Ipv4Addr::from(u32::from(BASE) + (index << (32 - SUBNET_BITS))), SUBNET_BITS),
        ipv6: None,
        assign_ipv6: false,
        zone: zone.name,
        default_for_zone: true,
        map_public_ip_on_launch: true,
        tags: Tags::new(),
    };
    Made {
        vpc: Vpc::default_of_scope(id, block(BASE, VPC_BITS)),
        subnets: (0..).zip(zones::of(&scope.region)).map(subnet).collect(),
        security_group: SecurityGroup::default_of(id),
    }
}
