//! VPCs with what lives and dies with them: the main route table, the default access list, the door to the internet.

use super::Tags;
use gantry_decide::ids::{InternetGatewayId, NetworkAclId, RouteTableId, VpcId};
use gantry_decide::network::{Ipv4Block, Ipv6Block};
use gantry_store::Record;
use serde::{Deserialize, Serialize};

/// Something that belongs to a VPC and has an id and tags of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part<Id> {
    pub id: Id,
    pub tags: Tags,
}

impl<Id> Part<Id> {
    fn new(id: Id) -> Part<Id> {
        Part { id, tags: Tags::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vpc {
    pub id: VpcId,
    pub block: Ipv4Block,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Block>,
    pub is_default: bool,
    pub dns_support: bool,
    pub dns_hostnames: bool,
    pub address_usage_metrics: bool,
    pub route_table: Part<RouteTableId>,
    pub network_acl: Part<NetworkAclId>,
    pub internet_gateway: Option<Part<InternetGatewayId>>,
    pub tags: Tags,
}

impl Vpc {
    /// A VPC as EC2 makes it on request. The ids of its parts follow from its own.
    pub fn new(id: VpcId, block: Ipv4Block) -> Vpc {
        let name = id.to_string();
        Vpc {
            id,
            block,
            ipv6: None,
            is_default: false,
            dns_support: true,
            dns_hostnames: false,
            address_usage_metrics: false,
            route_table: Part::new(RouteTableId::derived(&name)),
            network_acl: Part::new(NetworkAclId::derived(&name)),
            internet_gateway: None,
            tags: Tags::new(),
        }
    }

    /// A scope's default VPC: it has a door to the internet, and its hosts have names.
    pub fn default_of_scope(id: VpcId, block: Ipv4Block) -> Vpc {
        let internet_gateway = Some(Part::new(InternetGatewayId::derived(&id.to_string())));
        Vpc { is_default: true, dns_hostnames: true, internet_gateway, ..Vpc::new(id, block) }
    }
}

impl Record for Vpc {
    const KIND: &'static str = "ec2/vpc";
    const VERSION: u32 = 1;
    type Key = VpcId;

    fn key(&self) -> VpcId {
        self.id
    }

    fn path(key: &VpcId) -> String {
        key.to_string()
    }
}
