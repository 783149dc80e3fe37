//! Security groups and their rules.

use super::Tags;
use gantry_decide::ids::{SecurityGroupId, SecurityGroupRuleId, VpcId};
use gantry_decide::network::{Ipv4Block, Ipv6Block, Peer, Traffic};
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the group that every VPC has, and that no user can make or delete.
pub const DEFAULT_GROUP: &str = "default";

/// Which traffic a rule is about: there are only rules that allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub direction: Direction,
    pub traffic: Traffic,
    pub peer: Peer,
    pub description: Option<String>,
    pub tags: Tags,
}

impl Rule {
    pub fn new(direction: Direction, traffic: Traffic, peer: Peer) -> Rule {
        Rule { direction, traffic, peer, description: None, tags: Tags::new() }
    }

    /// Whether both allow the same: a group has no two such rules.
    pub fn allows_the_same(&self, other: &Rule) -> bool {
        (self.direction, self.traffic) == (other.direction, other.traffic) && self.peer == other.peer
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroup {
    pub id: SecurityGroupId,
    pub vpc: VpcId,
    pub name: String,
    pub description: String,
    pub rules: BTreeMap<SecurityGroupRuleId, Rule>,
    pub tags: Tags,
}

impl SecurityGroup {
    /// A group that lets nothing in and everything out.
    pub fn new(id: SecurityGroupId, vpc: VpcId, name: &str, description: &str) -> SecurityGroup {
        let everything = Rule::new(Direction::Egress, Traffic::ALL, Peer::Ipv4(Ipv4Block::ALL));
        let rules = BTreeMap::from([(SecurityGroupRuleId::derived(&format!("{id} out")), everything)]);
        let (name, description) = (name.to_owned(), description.to_owned());
        SecurityGroup { id, vpc, name, description, rules, tags: Tags::new() }
    }

    /// The group that comes with a VPC: its members reach each other. Its id follows from the VPC's.
    pub fn default_of(vpc: VpcId) -> SecurityGroup {
        let id = SecurityGroupId::derived(&vpc.to_string());
        let mut group = SecurityGroup::new(id, vpc, DEFAULT_GROUP, "default VPC security group");
        let members = Rule::new(Direction::Ingress, Traffic::ALL, Peer::Group(id));
        group.rules.insert(SecurityGroupRuleId::derived(&format!("{id} in")), members);
        group
    }

    /// A VPC's groups let everything out by IPv6 too once it has a block, as far as nobody has changed what they let
    /// out.
    pub fn let_ipv6_out(&mut self) {
        let first = SecurityGroupRuleId::derived(&format!("{} out", self.id));
        let second = SecurityGroupRuleId::derived(&format!("{} out by IPv6", self.id));
        if self.rules_in(Direction::Egress).map(|(id, _)| *id).eq([first]) {
            let everything = Rule::new(Direction::Egress, Traffic::ALL, Peer::Ipv6(Ipv6Block::ALL));
            self.rules.insert(second, everything);
        }
    }

    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_GROUP
    }

    pub fn rules_in(&self, direction: Direction) -> impl Iterator<Item = (&SecurityGroupRuleId, &Rule)> {
        self.rules.iter().filter(move |(_, rule)| rule.direction == direction)
    }

    /// Whether a rule of this group names `other`.
    pub fn refers_to(&self, other: SecurityGroupId) -> bool {
        self.rules.values().any(|rule| rule.peer == Peer::Group(other))
    }
}

impl Record for SecurityGroup {
    const KIND: &'static str = "ec2/security-group";
    const VERSION: u32 = 1;
    type Key = SecurityGroupId;

    fn key(&self) -> SecurityGroupId {
        self.id
    }

    fn path(key: &SecurityGroupId) -> String {
        key.to_string()
    }
}
