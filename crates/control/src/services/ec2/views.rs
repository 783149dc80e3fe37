//! Records to response shapes.

use super::interface::Interface;
use super::state::{
    Direction, Ec2State, LaunchTemplate, LaunchTemplateVersion, Rule, SecurityGroup, Subnet, Tags, Vpc,
};
use super::zones;
use gantry_api::ec2;
use gantry_decide::ids::{Scope, SecurityGroupId, SecurityGroupRuleId, derived_digits};
use gantry_decide::network::{Peer, Traffic};
use gantry_wire::EpochMillis;
use std::net::Ipv6Addr;

/// The account of the interfaces' other end on Fargate, as AWS shows it.
const FARGATE_OWNER: &str = "amazon-aws";
/// What EC2 writes where a rule has no ports.
const NO_PORT: i32 = -1;

pub fn arn(scope: &Scope, kind: &str, id: impl std::fmt::Display) -> String {
    format!("arn:aws:ec2:{scope_region}:{}:{kind}/{id}", scope.account, scope_region = scope.region)
}

/// The form of an id of an association: it follows from what is associated.
pub fn association_id(prefix: &str, of: impl ToString) -> String {
    format!("{prefix}{}", derived_digits(&of.to_string()))
}

pub fn tags(tags: &Tags) -> Option<Vec<ec2::Tag>> {
    let tag =
        |(key, value): (&String, &String)| ec2::Tag { key: Some(key.clone()), value: Some(value.clone()) };
    Some(tags.iter().map(tag).collect())
}

pub fn launch_template(template: &LaunchTemplate) -> ec2::LaunchTemplate {
    ec2::LaunchTemplate {
        launch_template_id: Some(template.id.to_string()),
        launch_template_name: Some(template.name.clone()),
        create_time: Some(EpochMillis(template.created_at.as_millis())),
        created_by: Some(template.created_by.clone()),
        default_version_number: i64::try_from(template.default_version).ok(),
        latest_version_number: i64::try_from(template.latest_version).ok(),
        tags: tags(&template.tags),
        operator: None,
    }
}

pub fn launch_template_version(
    template: &LaunchTemplate,
    version: &LaunchTemplateVersion,
    data: ec2::ResponseLaunchTemplateData,
) -> ec2::LaunchTemplateVersion {
    ec2::LaunchTemplateVersion {
        launch_template_id: Some(template.id.to_string()),
        launch_template_name: Some(template.name.clone()),
        version_number: i64::try_from(version.number).ok(),
        version_description: version.description.clone(),
        create_time: Some(EpochMillis(version.created_at.as_millis())),
        created_by: Some(version.created_by.clone()),
        default_version: Some(version.number == template.default_version),
        launch_template_data: Some(data),
        operator: None,
    }
}

/// One set of DHCP options serves every VPC of a scope.
fn dhcp_options_id(scope: &Scope) -> String {
    association_id("dopt-", format!("{scope} DHCP options"))
}

pub fn vpc(scope: &Scope, vpc: &Vpc) -> ec2::Vpc {
    let state =
        ec2::VpcCidrBlockState { state: Some(ec2::VpcCidrBlockStateCode::Associated), status_message: None };
    ec2::Vpc {
        vpc_id: Some(vpc.id.to_string()),
        owner_id: Some(scope.account.to_string()),
        cidr_block: Some(vpc.block.to_string()),
        cidr_block_association_set: Some(vec![ec2::VpcCidrBlockAssociation {
            association_id: Some(vpc_association(vpc)),
            cidr_block: Some(vpc.block.to_string()),
            cidr_block_state: Some(state),
        }]),
        ipv6_cidr_block_association_set: vpc_ipv6(scope, vpc).map(|association| vec![association]),
        dhcp_options_id: Some(dhcp_options_id(scope)),
        instance_tenancy: Some(ec2::Tenancy::Default),
        is_default: Some(vpc.is_default),
        state: Some(ec2::VpcState::Available),
        tags: tags(&vpc.tags),
        ..Default::default()
    }
}

/// The id of a VPC's IPv4 block there.
pub fn vpc_association(vpc: &Vpc) -> String {
    association_id("vpc-cidr-assoc-", vpc.id)
}

/// The id of a VPC's IPv6 block there, if it has one.
pub fn vpc_ipv6_association(vpc: &Vpc) -> Option<String> {
    Some(association_id("vpc-cidr-assoc-", format!("{} {}", vpc.id, vpc.ipv6?)))
}

pub fn vpc_ipv6(scope: &Scope, vpc: &Vpc) -> Option<ec2::VpcIpv6CidrBlockAssociation> {
    let state =
        ec2::VpcCidrBlockState { state: Some(ec2::VpcCidrBlockStateCode::Associated), status_message: None };
    Some(ec2::VpcIpv6CidrBlockAssociation {
        association_id: vpc_ipv6_association(vpc),
        ipv6_cidr_block: Some(vpc.ipv6?.to_string()),
        ipv6_cidr_block_state: Some(state),
        network_border_group: Some(scope.region.to_string()),
        // As EC2 calls its own.
        ipv6_pool: Some("Amazon".to_owned()),
        ip_source: Some(ec2::IpSource::Amazon),
        ipv6_address_attribute: Some(ec2::Ipv6AddressAttribute::Private),
    })
}

/// The id of a subnet's IPv6 block there, if it has one.
pub fn subnet_ipv6_association(subnet: &Subnet) -> Option<String> {
    Some(association_id("subnet-cidr-assoc-", format!("{} {}", subnet.id, subnet.ipv6?)))
}

pub fn subnet_ipv6(subnet: &Subnet) -> Option<ec2::SubnetIpv6CidrBlockAssociation> {
    let state = ec2::SubnetCidrBlockStateCode::Associated;
    Some(ec2::SubnetIpv6CidrBlockAssociation {
        association_id: subnet_ipv6_association(subnet),
        ipv6_cidr_block: Some(subnet.ipv6?.to_string()),
        ipv6_cidr_block_state: Some(ec2::SubnetCidrBlockState { state: Some(state), status_message: None }),
        ip_source: Some(ec2::IpSource::Amazon),
        ipv6_address_attribute: Some(ec2::Ipv6AddressAttribute::Private),
    })
}

/// `taken` is the number of addresses that interfaces hold.
pub fn subnet(scope: &Scope, subnet: &Subnet, taken: usize) -> ec2::Subnet {
    let zone = zones::of(&scope.region).into_iter().find(|zone| zone.name == subnet.zone);
    let free = subnet.block.usable().saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
    ec2::Subnet {
        subnet_id: Some(subnet.id.to_string()),
        subnet_arn: Some(arn(scope, "subnet", subnet.id)),
        owner_id: Some(scope.account.to_string()),
        vpc_id: Some(subnet.vpc.to_string()),
        state: Some(ec2::SubnetState::Available),
        cidr_block: Some(subnet.block.to_string()),
        available_ip_address_count: Some(i32::try_from(free).unwrap_or(i32::MAX)),
        availability_zone: Some(subnet.zone.clone()),
        availability_zone_id: zone.map(|zone| zone.id),
        default_for_az: Some(subnet.default_for_zone),
        map_public_ip_on_launch: Some(subnet.map_public_ip_on_launch),
        assign_ipv6_address_on_creation: Some(subnet.assign_ipv6),
        ipv6_cidr_block_association_set: Some(subnet_ipv6(subnet).into_iter().collect()),
        ipv6_native: Some(false),
        enable_dns64: Some(false),
        map_customer_owned_ip_on_launch: Some(false),
        private_dns_name_options_on_launch: Some(ec2::PrivateDnsNameOptionsOnLaunch {
            hostname_type: Some(ec2::HostnameType::IpName),
            enable_resource_name_dns_a_record: Some(false),
            enable_resource_name_dns_aaaa_record: Some(false),
        }),
        tags: tags(&subnet.tags),
        ..Default::default()
    }
}

/// Rules of the same traffic are one permission with several peers, in the order of the rules' ids.
fn permissions(scope: &Scope, group: &SecurityGroup, direction: Direction) -> Vec<ec2::IpPermission> {
    let mut permissions: Vec<(Traffic, ec2::IpPermission)> = Vec::new();
    for (_, rule) in group.rules_in(direction) {
        let at = permissions.iter().position(|(traffic, _)| *traffic == rule.traffic).unwrap_or_else(|| {
            let permission = ec2::IpPermission {
                ip_protocol: Some(rule.traffic.protocol.to_string()),
                from_port: rule.traffic.ports.map(|ports| ports.from),
                to_port: rule.traffic.ports.map(|ports| ports.to),
                ip_ranges: Some(Vec::new()),
                ipv6_ranges: Some(Vec::new()),
                prefix_list_ids: Some(Vec::new()),
                user_id_group_pairs: Some(Vec::new()),
            };
            permissions.push((rule.traffic, permission));
            permissions.len() - 1
        });
        let permission = &mut permissions[at].1;
        let description = rule.description.clone();
        match &rule.peer {
            Peer::Ipv4(block) => {
                let range = ec2::IpRange { cidr_ip: Some(block.to_string()), description };
                permission.ip_ranges.get_or_insert_default().push(range);
            }
            Peer::Ipv6(block) => {
                let range = ec2::Ipv6Range { cidr_ipv6: Some(block.to_string()), description };
                permission.ipv6_ranges.get_or_insert_default().push(range);
            }
            Peer::Group(id) => {
                let pair = ec2::UserIdGroupPair {
                    group_id: Some(id.to_string()),
                    user_id: Some(scope.account.to_string()),
                    description,
                    ..Default::default()
                };
                permission.user_id_group_pairs.get_or_insert_default().push(pair);
            }
        }
    }
    permissions.into_iter().map(|(_, permission)| permission).collect()
}

pub fn security_group(scope: &Scope, group: &SecurityGroup) -> ec2::SecurityGroup {
    ec2::SecurityGroup {
        group_id: Some(group.id.to_string()),
        group_name: Some(group.name.clone()),
        description: Some(group.description.clone()),
        owner_id: Some(scope.account.to_string()),
        security_group_arn: Some(arn(scope, "security-group", group.id)),
        vpc_id: Some(group.vpc.to_string()),
        ip_permissions: Some(permissions(scope, group, Direction::Ingress)),
        ip_permissions_egress: Some(permissions(scope, group, Direction::Egress)),
        tags: tags(&group.tags),
    }
}

pub fn rule(
    scope: &Scope,
    group: SecurityGroupId,
    id: SecurityGroupRuleId,
    rule: &Rule,
) -> ec2::SecurityGroupRule {
    let account = scope.account.to_string();
    let referenced = match &rule.peer {
        Peer::Group(id) => Some(ec2::ReferencedSecurityGroup {
            group_id: Some(id.to_string()),
            user_id: Some(account.clone()),
            ..Default::default()
        }),
        Peer::Ipv4(_) | Peer::Ipv6(_) => None,
    };
    let block =
        |wanted: fn(&Peer) -> bool| Some(&rule.peer).filter(|peer| wanted(peer)).map(ToString::to_string);
    ec2::SecurityGroupRule {
        security_group_rule_id: Some(id.to_string()),
        security_group_rule_arn: Some(arn(scope, "security-group-rule", id)),
        group_id: Some(group.to_string()),
        group_owner_id: Some(account),
        is_egress: Some(rule.direction == Direction::Egress),
        ip_protocol: Some(rule.traffic.protocol.to_string()),
        from_port: Some(rule.traffic.ports.map_or(NO_PORT, |ports| ports.from)),
        to_port: Some(rule.traffic.ports.map_or(NO_PORT, |ports| ports.to)),
        cidr_ipv4: block(|peer| matches!(peer, Peer::Ipv4(_))),
        cidr_ipv6: block(|peer| matches!(peer, Peer::Ipv6(_))),
        referenced_group_info: referenced,
        description: rule.description.clone(),
        tags: tags(&rule.tags),
        ..Default::default()
    }
}

pub fn revoked_rule(
    group: SecurityGroupId,
    id: SecurityGroupRuleId,
    rule: &Rule,
) -> ec2::RevokedSecurityGroupRule {
    let peer = rule.peer.to_string();
    let (cidr_ipv4, cidr_ipv6, referenced_group_id) = match &rule.peer {
        Peer::Ipv4(_) => (Some(peer), None, None),
        Peer::Ipv6(_) => (None, Some(peer), None),
        Peer::Group(_) => (None, None, Some(peer)),
    };
    ec2::RevokedSecurityGroupRule {
        security_group_rule_id: Some(id.to_string()),
        group_id: Some(group.to_string()),
        is_egress: Some(rule.direction == Direction::Egress),
        ip_protocol: Some(rule.traffic.protocol.to_string()),
        from_port: Some(rule.traffic.ports.map_or(NO_PORT, |ports| ports.from)),
        to_port: Some(rule.traffic.ports.map_or(NO_PORT, |ports| ports.to)),
        cidr_ipv4,
        cidr_ipv6,
        referenced_group_id,
        description: rule.description.clone(),
        prefix_list_id: None,
    }
}

/// The main route table: every subnet without one of its own uses it, and no others can be made.
pub fn route_table(scope: &Scope, vpc: &Vpc) -> ec2::RouteTable {
    let route = |block: String, gateway: String, origin| ec2::Route {
        destination_cidr_block: Some(block),
        gateway_id: Some(gateway),
        origin: Some(origin),
        state: Some(ec2::RouteState::Active),
        ..Default::default()
    };
    let local = route(vpc.block.to_string(), "local".to_owned(), ec2::RouteOrigin::CreateRouteTable);
    let local_ipv6 = vpc.ipv6.map(|block| ec2::Route {
        destination_cidr_block: None,
        destination_ipv6_cidr_block: Some(block.to_string()),
        ..local.clone()
    });
    let out = vpc
        .internet_gateway
        .as_ref()
        .map(|gateway| route("0.0.0.0/0".to_owned(), gateway.id.to_string(), ec2::RouteOrigin::CreateRoute));
    let state = ec2::RouteTableAssociationState {
        state: Some(ec2::RouteTableAssociationStateCode::Associated),
        status_message: None,
    };
    ec2::RouteTable {
        route_table_id: Some(vpc.route_table.id.to_string()),
        vpc_id: Some(vpc.id.to_string()),
        owner_id: Some(scope.account.to_string()),
        routes: Some([local].into_iter().chain(local_ipv6).chain(out).collect()),
        associations: Some(vec![ec2::RouteTableAssociation {
            main: Some(true),
            route_table_association_id: Some(association_id("rtbassoc-", vpc.route_table.id)),
            route_table_id: Some(vpc.route_table.id.to_string()),
            association_state: Some(state),
            ..Default::default()
        }]),
        propagating_vgws: Some(Vec::new()),
        tags: tags(&vpc.route_table.tags),
    }
}

/// The default access list: everything passes, in both directions.
pub fn network_acl(scope: &Scope, ec2_state: &Ec2State, vpc: &Vpc) -> ec2::NetworkAcl {
    const FIRST: i32 = 100;
    /// The number of the rule that AWS shows as `*`.
    const LAST: i32 = 32767;
    let entry = |egress, number, action| ec2::NetworkAclEntry {
        cidr_block: Some("0.0.0.0/0".to_owned()),
        egress: Some(egress),
        protocol: Some("-1".to_owned()),
        rule_action: Some(action),
        rule_number: Some(number),
        ..Default::default()
    };
    let both =
        |egress| [entry(egress, FIRST, ec2::RuleAction::Allow), entry(egress, LAST, ec2::RuleAction::Deny)];
    let association = |subnet: &Subnet| ec2::NetworkAclAssociation {
        network_acl_association_id: Some(association_id("aclassoc-", subnet.id)),
        network_acl_id: Some(vpc.network_acl.id.to_string()),
        subnet_id: Some(subnet.id.to_string()),
    };
    ec2::NetworkAcl {
        network_acl_id: Some(vpc.network_acl.id.to_string()),
        vpc_id: Some(vpc.id.to_string()),
        owner_id: Some(scope.account.to_string()),
        is_default: Some(true),
        entries: Some(both(true).into_iter().chain(both(false)).collect()),
        associations: Some(ec2_state.subnets_of(vpc.id).map(association).collect()),
        tags: tags(&vpc.network_acl.tags),
    }
}

/// The door of a VPC that has one.
pub fn internet_gateway(scope: &Scope, vpc: &Vpc) -> Option<ec2::InternetGateway> {
    let gateway = vpc.internet_gateway.as_ref()?;
    // A gateway's attachment has a state of its own name, `available`, which the model's enum does not have.
    let attachment = ec2::InternetGatewayAttachment {
        state: Some(ec2::AttachmentStatus::Attached),
        vpc_id: Some(vpc.id.to_string()),
    };
    Some(ec2::InternetGateway {
        internet_gateway_id: Some(gateway.id.to_string()),
        owner_id: Some(scope.account.to_string()),
        attachments: Some(vec![attachment]),
        tags: tags(&gateway.tags),
    })
}

pub fn attachment_id(interface: &Interface) -> String {
    association_id("eni-attach-", interface.id)
}

pub fn attachment_owner(scope: &Scope, interface: &Interface) -> String {
    if interface.on_fargate { FARGATE_OWNER.to_owned() } else { scope.account.to_string() }
}

pub fn network_interface(scope: &Scope, interface: &Interface) -> ec2::NetworkInterface {
    let address = interface.address.to_string();
    let group = |(id, name): &(String, Option<String>)| ec2::GroupIdentifier {
        group_id: Some(id.clone()),
        group_name: name.clone(),
    };
    let ipv6 = |address: &Ipv6Addr| ec2::NetworkInterfaceIpv6Address {
        ipv6_address: Some(address.to_string()),
        is_primary_ipv6: Some(false),
        public_ipv6_dns_name: None,
    };
    let zone = interface.zone.as_ref();
    let dns_name = Some(interface.dns_name.clone()).filter(|name| !name.is_empty());
    let zone_id = zones::of(&scope.region).into_iter().find(|known| Some(&known.name) == zone);
    ec2::NetworkInterface {
        network_interface_id: Some(interface.id.to_string()),
        attachment: Some(ec2::NetworkInterfaceAttachment {
            attachment_id: Some(attachment_id(interface)),
            attach_time: Some(EpochMillis(interface.since.as_millis())),
            delete_on_termination: Some(true),
            // The first is the host's own.
            device_index: Some(1),
            instance_owner_id: Some(attachment_owner(scope, interface)),
            status: Some(ec2::AttachmentStatus::Attached),
            ..Default::default()
        }),
        availability_zone: zone.cloned(),
        availability_zone_id: zone_id.map(|zone| zone.id),
        description: Some(interface.description.clone()),
        groups: Some(interface.groups.iter().map(group).collect()),
        interface_type: Some(ec2::NetworkInterfaceType::Interface),
        ipv6_address: interface.ipv6.map(|address| address.to_string()),
        ipv6_addresses: Some(interface.ipv6.iter().map(ipv6).collect()),
        mac_address: Some(interface.mac.clone()),
        owner_id: Some(scope.account.to_string()),
        private_dns_name: dns_name.clone(),
        private_ip_address: Some(address.clone()),
        private_ip_addresses: Some(vec![ec2::NetworkInterfacePrivateIpAddress {
            primary: Some(true),
            private_dns_name: dns_name,
            private_ip_address: Some(address),
            association: None,
        }]),
        requester_managed: Some(true),
        source_dest_check: Some(true),
        status: Some(ec2::NetworkInterfaceStatus::InUse),
        subnet_id: Some(interface.subnet.clone()),
        vpc_id: interface.vpc.map(|vpc| vpc.to_string()),
        tag_set: tags(&interface.tags),
        ..Default::default()
    }
}
