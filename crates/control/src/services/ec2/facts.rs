//! By what filters see the records: the names are EC2's, of each kind those that mean something here.

use super::errors::Kind;
use super::filter::{Described, Fact};
use super::state::{Direction, LaunchTemplate, Rule, SecurityGroup, Subnet, Tags, Vpc};
use super::{views, zones};
use gantry_decide::ids::{SecurityGroupId, SecurityGroupRuleId};
use gantry_decide::network::Peer;

fn one(value: impl ToString) -> Vec<String> {
    vec![value.to_string()]
}

impl Described for Vpc {
    const FACTS: &'static [Fact<Self>] = &[
        ("cidr", |_, vpc| one(vpc.block)),
        ("cidr-block", |_, vpc| one(vpc.block)),
        ("cidrBlock", |_, vpc| one(vpc.block)),
        ("cidr-block-association.cidr-block", |_, vpc| one(vpc.block)),
        ("cidr-block-association.association-id", |_, vpc| one(views::vpc_association(vpc))),
        ("cidr-block-association.state", |_, _| one("associated")),
        ("ipv6-cidr-block-association.association-id", |_, vpc| {
            views::vpc_ipv6_association(vpc).into_iter().collect()
        }),
        ("ipv6-cidr-block-association.ipv6-cidr-block", |_, vpc| vpc.ipv6.iter().flat_map(one).collect()),
        ("ipv6-cidr-block-association.state", |_, vpc| {
            vpc.ipv6.iter().flat_map(|_| one("associated")).collect()
        }),
        ("is-default", |_, vpc| one(vpc.is_default)),
        ("isDefault", |_, vpc| one(vpc.is_default)),
        ("owner-id", |scope, _| one(scope.account)),
        ("state", |_, _| one("available")),
        ("vpc-id", |_, vpc| one(vpc.id)),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Described for Subnet {
    const FACTS: &'static [Fact<Self>] = &[
        ("availability-zone", |_, subnet| one(&subnet.zone)),
        ("availabilityZone", |_, subnet| one(&subnet.zone)),
        ("availability-zone-id", |scope, subnet| {
            let zones = zones::of(&scope.region).into_iter().filter(|zone| zone.name == subnet.zone);
            zones.map(|zone| zone.id).collect()
        }),
        ("cidr", |_, subnet| one(subnet.block)),
        ("cidr-block", |_, subnet| one(subnet.block)),
        ("cidrBlock", |_, subnet| one(subnet.block)),
        ("default-for-az", |_, subnet| one(subnet.default_for_zone)),
        ("defaultForAz", |_, subnet| one(subnet.default_for_zone)),
        ("ipv6-cidr-block-association.association-id", |_, subnet| {
            views::subnet_ipv6_association(subnet).into_iter().collect()
        }),
        ("ipv6-cidr-block-association.ipv6-cidr-block", |_, subnet| {
            subnet.ipv6.iter().flat_map(one).collect()
        }),
        ("ipv6-cidr-block-association.state", |_, subnet| {
            subnet.ipv6.iter().flat_map(|_| one("associated")).collect()
        }),
        ("map-public-ip-on-launch", |_, subnet| one(subnet.map_public_ip_on_launch)),
        ("owner-id", |scope, _| one(scope.account)),
        ("state", |_, _| one("available")),
        ("subnet-arn", |scope, subnet| one(views::arn(scope, "subnet", subnet.id))),
        ("subnet-id", |_, subnet| one(subnet.id)),
        ("vpc-id", |_, subnet| one(subnet.vpc)),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

/// What the rules of one direction say, each rule once.
fn said(group: &SecurityGroup, direction: Direction, of: impl Fn(&Rule) -> Option<String>) -> Vec<String> {
    group.rules_in(direction).filter_map(|(_, rule)| of(rule)).collect()
}

fn ipv4(rule: &Rule) -> Option<String> {
    matches!(rule.peer, Peer::Ipv4(_)).then(|| rule.peer.to_string())
}

fn ipv6(rule: &Rule) -> Option<String> {
    matches!(rule.peer, Peer::Ipv6(_)).then(|| rule.peer.to_string())
}

fn peer_group(rule: &Rule) -> Option<String> {
    matches!(rule.peer, Peer::Group(_)).then(|| rule.peer.to_string())
}

fn from_port(rule: &Rule) -> Option<String> {
    rule.traffic.ports.map(|ports| ports.from.to_string())
}

fn to_port(rule: &Rule) -> Option<String> {
    rule.traffic.ports.map(|ports| ports.to.to_string())
}

fn protocol(rule: &Rule) -> Option<String> {
    Some(rule.traffic.protocol.to_string())
}

impl Described for LaunchTemplate {
    const FACTS: &'static [Fact<Self>] = &[("launch-template-name", |_, template| one(&template.name))];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Described for SecurityGroup {
    const FACTS: &'static [Fact<Self>] = &[
        ("description", |_, group| one(&group.description)),
        ("egress.ip-permission.cidr", |_, group| said(group, Direction::Egress, ipv4)),
        ("egress.ip-permission.from-port", |_, group| said(group, Direction::Egress, from_port)),
        ("egress.ip-permission.group-id", |_, group| said(group, Direction::Egress, peer_group)),
        ("egress.ip-permission.ipv6-cidr", |_, group| said(group, Direction::Egress, ipv6)),
        ("egress.ip-permission.protocol", |_, group| said(group, Direction::Egress, protocol)),
        ("egress.ip-permission.to-port", |_, group| said(group, Direction::Egress, to_port)),
        ("group-id", |_, group| one(group.id)),
        ("group-name", |_, group| one(&group.name)),
        ("ip-permission.cidr", |_, group| said(group, Direction::Ingress, ipv4)),
        ("ip-permission.from-port", |_, group| said(group, Direction::Ingress, from_port)),
        ("ip-permission.group-id", |_, group| said(group, Direction::Ingress, peer_group)),
        ("ip-permission.ipv6-cidr", |_, group| said(group, Direction::Ingress, ipv6)),
        ("ip-permission.protocol", |_, group| said(group, Direction::Ingress, protocol)),
        ("ip-permission.to-port", |_, group| said(group, Direction::Ingress, to_port)),
        ("owner-id", |scope, _| one(scope.account)),
        ("vpc-id", |_, group| one(group.vpc)),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

/// A rule with the group that it is of.
#[derive(Clone, Debug)]
pub struct GroupRule {
    pub group: SecurityGroupId,
    pub id: SecurityGroupRuleId,
    pub rule: Rule,
}

impl Described for GroupRule {
    const FACTS: &'static [Fact<Self>] =
        &[("group-id", |_, rule| one(rule.group)), ("security-group-rule-id", |_, rule| one(rule.id))];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.rule.tags
    }
}

/// A VPC seen as its main route table.
#[derive(Clone, Debug)]
pub struct RouteTable(pub Vpc);

impl Described for RouteTable {
    const FACTS: &'static [Fact<Self>] = &[
        ("association.main", |_, _| one(true)),
        ("association.route-table-association-id", |_, table| {
            one(views::association_id("rtbassoc-", table.0.route_table.id))
        }),
        ("association.route-table-id", |_, table| one(table.0.route_table.id)),
        // Subnets follow the main table without being associated with it.
        ("association.subnet-id", |_, _| Vec::new()),
        ("owner-id", |scope, _| one(scope.account)),
        ("route-table-id", |_, table| one(table.0.route_table.id)),
        ("vpc-id", |_, table| one(table.0.id)),
    ];

    fn id(&self) -> String {
        self.0.route_table.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.0.route_table.tags
    }
}

/// A VPC seen as its default access list.
#[derive(Clone, Debug)]
pub struct NetworkAcl(pub Vpc);

impl Described for NetworkAcl {
    const FACTS: &'static [Fact<Self>] = &[
        ("association.network-acl-id", |_, acl| one(acl.0.network_acl.id)),
        ("default", |_, _| one(true)),
        ("network-acl-id", |_, acl| one(acl.0.network_acl.id)),
        ("owner-id", |scope, _| one(scope.account)),
        ("vpc-id", |_, acl| one(acl.0.id)),
    ];

    fn id(&self) -> String {
        self.0.network_acl.id.to_string()
    }

    fn tags(&self) -> &Tags {
        &self.0.network_acl.tags
    }
}

/// A VPC seen as its door to the internet.
#[derive(Clone, Debug)]
pub struct InternetGateway(pub Vpc);

impl Described for InternetGateway {
    const FACTS: &'static [Fact<Self>] = &[
        ("attachment.state", |_, _| one("available")),
        ("attachment.vpc-id", |_, gateway| one(gateway.0.id)),
        ("internet-gateway-id", |_, gateway| vec![gateway.id()]),
        ("owner-id", |scope, _| one(scope.account)),
    ];

    fn id(&self) -> String {
        self.0.internet_gateway.as_ref().map(|gateway| gateway.id.to_string()).unwrap_or_default()
    }

    fn tags(&self) -> &Tags {
        static NONE: Tags = Tags::new();
        self.0.internet_gateway.as_ref().map_or(&NONE, |gateway| &gateway.tags)
    }
}

/// A tag with what carries it.
#[derive(Clone, Debug)]
pub struct CarriedTag {
    pub kind: Kind,
    pub resource: String,
    pub key: String,
    pub value: String,
}
