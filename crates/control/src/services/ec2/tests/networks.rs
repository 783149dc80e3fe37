//! VPCs, subnets, what comes with them, and tags.

use super::{INVALID, each, filter, made_vpc, text};
use crate::services::ec2::ops::{
    cidr_block, network_interface, place, security_group, subnet, tag, vpc, vpc_part,
};
use crate::services::ecs::tests::world::{World, fails};
use gantry_decide::network::Ipv6Block;
use serde_json::{Value, json};

#[test]
fn a_scope_has_a_default_network_from_the_start() {
    let mut world = World::new();
    let shown = world.read(vpc::describe_vpcs, json!({})).unwrap();
    assert_eq!(each(&shown["Vpcs"], "CidrBlock"), ["172.31.0.0/16"]);
    assert_eq!(shown["Vpcs"][0]["IsDefault"], true);
    let id = text(&shown["Vpcs"][0]["VpcId"]);
    let subnets = world.read(subnet::describe_subnets, json!({ "Filters": filter("vpc-id", &id) })).unwrap();
    let mut zones = each(&subnets["Subnets"], "AvailabilityZone");
    zones.sort();
    assert_eq!(zones, ["eu-north-1a", "eu-north-1b", "eu-north-1c"]);
    assert_eq!(subnets["Subnets"][0]["AvailableIpAddressCount"], 4091);
    let groups = world.read(security_group::describe_security_groups, json!({})).unwrap();
    assert_eq!(each(&groups["SecurityGroups"], "GroupName"), ["default"]);
    let tables = world.read(vpc_part::describe_route_tables, json!({})).unwrap();
    assert_eq!(
        each(&tables["RouteTables"][0]["Routes"], "DestinationCidrBlock"),
        ["172.31.0.0/16", "0.0.0.0/0"]
    );
    let attributes = world.read(place::describe_account_attributes, json!({})).unwrap();
    assert_eq!(attributes["AccountAttributes"][1]["AttributeValues"][0]["AttributeValue"], id.as_str());
    // Looking stores nothing; the first write stores all of it, under the ids that were seen.
    assert!(world.rows().is_empty());
    made_vpc(&mut world, "10.0.0.0/16");
    assert!(world.rows().keys().any(|key| key.ends_with(&format!("/ec2/vpc/{id}"))));
    let before = world.read(vpc::describe_vpcs, json!({})).unwrap();
    world.restart();
    assert_eq!(world.read(vpc::describe_vpcs, json!({})).unwrap(), before);
    assert!(each(&before["Vpcs"], "VpcId").contains(&id));
}

#[test]
fn what_is_deleted_of_the_default_network_stays_away() {
    let mut world = World::new();
    let subnets = world.read(subnet::describe_subnets, json!({})).unwrap();
    let first = text(&subnets["Subnets"][0]["SubnetId"]);
    world.write(subnet::delete_subnet, json!({ "SubnetId": first })).unwrap();
    let left = world.read(subnet::describe_subnets, json!({})).unwrap();
    assert_eq!(left["Subnets"].as_array().unwrap().len(), 2);
    let again = world.write(subnet::delete_subnet, json!({ "SubnetId": first }));
    fails(again, "InvalidSubnetID.NotFound", &format!("The subnet ID '{first}' does not exist"));
}

#[test]
fn vpcs_are_made_and_deleted_with_what_belongs_to_them() {
    let mut world = World::new();
    let id = made_vpc(&mut world, "10.1.2.3/16");
    let shown = world.read(vpc::describe_vpcs, json!({ "VpcIds": [id] })).unwrap();
    assert_eq!(shown["Vpcs"][0]["CidrBlock"], "10.1.0.0/16");
    for (operation, list) in [("default", "NetworkAcls"), ("association.main", "RouteTables")] {
        let filters = json!([{"Name": "vpc-id", "Values": [id]}, {"Name": operation, "Values": ["true"]}]);
        let reply = match list {
            "NetworkAcls" => world.read(vpc_part::describe_network_acls, json!({ "Filters": filters })),
            _ => world.read(vpc_part::describe_route_tables, json!({ "Filters": filters })),
        };
        assert_eq!(reply.unwrap()[list].as_array().unwrap().len(), 1, "{list}");
    }
    let attribute = |world: &mut World, name: &str| {
        world.read(vpc::describe_vpc_attribute, json!({ "VpcId": id, "Attribute": name })).unwrap()
    };
    assert_eq!(attribute(&mut world, "enableDnsHostnames")["EnableDnsHostnames"]["Value"], false);
    let change = json!({ "VpcId": id, "EnableDnsHostnames": { "Value": true } });
    world.write(vpc::modify_vpc_attribute, change).unwrap();
    assert_eq!(attribute(&mut world, "enableDnsHostnames")["EnableDnsHostnames"]["Value"], true);

    let request = json!({ "VpcId": id, "CidrBlock": "10.1.1.0/24" });
    let made = world.write(subnet::create_subnet, request).unwrap();
    let dependent = format!("The vpc '{id}' has dependencies and cannot be deleted.");
    fails(world.write(vpc::delete_vpc, json!({ "VpcId": id })), "DependencyViolation", &dependent);
    world.write(subnet::delete_subnet, json!({ "SubnetId": made["Subnet"]["SubnetId"] })).unwrap();
    let dry = world.write(vpc::delete_vpc, json!({ "VpcId": id, "DryRun": true })).unwrap_err();
    assert_eq!((dry.code.as_ref(), dry.status), ("DryRunOperation", 412));
    world.write(vpc::delete_vpc, json!({ "VpcId": id })).unwrap();
    let gone = format!("The vpc ID '{id}' does not exist");
    fails(world.write(vpc::delete_vpc, json!({ "VpcId": id })), "InvalidVpcID.NotFound", &gone);
}

#[test]
fn blocks_that_do_not_fit_are_refused() {
    let mut world = World::new();
    for (block, code) in
        [("10.0.0.0/8", "InvalidVpc.Range"), ("10.0.0.0/29", "InvalidVpc.Range"), ("x", INVALID)]
    {
        let error = world.write(vpc::create_vpc, json!({ "CidrBlock": block })).unwrap_err();
        assert_eq!(error.code, code, "{block}");
    }
    assert_eq!(world.write(vpc::create_vpc, json!({})).unwrap_err().code, "MissingParameter");
    let id = made_vpc(&mut world, "10.0.0.0/16");
    let mut make =
        |block: &str| world.write(subnet::create_subnet, json!({ "VpcId": id, "CidrBlock": block }));
    make("10.0.0.0/20").unwrap();
    fails(
        make("10.0.8.0/24"),
        "InvalidSubnet.Conflict",
        "The CIDR '10.0.8.0/24' conflicts with another subnet",
    );
    fails(make("10.1.0.0/24"), "InvalidSubnet.Range", "The CIDR '10.1.0.0/24' is invalid.");
    assert_eq!(make("10.0.16.0/24").unwrap()["Subnet"]["AvailabilityZone"], "eu-north-1b");
    let zone = json!({ "VpcId": id, "CidrBlock": "10.0.32.0/24", "AvailabilityZone": "eu-north-1z" });
    let error = world.write(subnet::create_subnet, zone).unwrap_err();
    assert!(error.message.ends_with("zones: eu-north-1a, eu-north-1b, eu-north-1c."), "{error}");
}

/// A VPC with a provided IPv6 block, and that.
fn dual_stack_vpc(world: &mut World) -> (String, Ipv6Block) {
    let request = json!({ "CidrBlock": "10.0.0.0/16", "AmazonProvidedIpv6CidrBlock": true });
    let made = &world.write(vpc::create_vpc, request).unwrap()["Vpc"];
    let block = text(&made["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]);
    (text(&made["VpcId"]), block.parse().unwrap())
}

/// The block of that number of 64 bits in a VPC's.
fn part(of: Ipv6Block, number: u128) -> String {
    Ipv6Block::around((u128::from(of.base()) | number << 64).into(), 64).unwrap().to_string()
}

#[test]
fn vpcs_and_subnets_get_ipv6_blocks_and_lose_them() {
    let mut world = World::new();
    let id = made_vpc(&mut world, "10.0.0.0/16");
    let request = json!({ "VpcId": id, "CidrBlock": "10.0.0.0/24" });
    let subnet = text(&world.write(subnet::create_subnet, request).unwrap()["Subnet"]["SubnetId"]);
    let request = json!({ "VpcId": id, "AmazonProvidedIpv6CidrBlock": true });
    let made = world.write(cidr_block::associate_vpc_cidr_block, request.clone()).unwrap();
    let made = &made["Ipv6CidrBlockAssociation"];
    assert_eq!(made["Ipv6CidrBlockState"]["State"], "associated");
    let (association, block) = (text(&made["AssociationId"]), text(&made["Ipv6CidrBlock"]));
    let again = world.write(cidr_block::associate_vpc_cidr_block, request).unwrap_err();
    assert_eq!(again.code, "CidrLimitExceeded");
    let block: Ipv6Block = block.parse().unwrap();
    // What goes out by IPv4 goes out by IPv6 too from now on.
    let default = json!({ "Filters": filter("vpc-id", &id) });
    let groups = world.read(security_group::describe_security_groups, default).unwrap();
    let out = &groups["SecurityGroups"][0]["IpPermissionsEgress"][0];
    assert_eq!(
        (&out["IpRanges"][0]["CidrIp"], &out["Ipv6Ranges"][0]["CidrIpv6"]),
        (&json!("0.0.0.0/0"), &json!("::/0"))
    );

    let mut associate = |subnet: &str, block: &str| {
        let request = json!({ "SubnetId": subnet, "Ipv6CidrBlock": block });
        world.write(cidr_block::associate_subnet_cidr_block, request)
    };
    for (block, code) in [
        ("x", INVALID),
        ("fd00::/64", "InvalidSubnet.Range"),
        (&format!("{}/62", block.base()), "InvalidSubnet.Range"),
    ] {
        assert_eq!(associate(&subnet, block).unwrap_err().code, code, "{block}");
    }
    let of_subnet = associate(&subnet, &part(block, 1)).unwrap();
    let of_subnet = text(&of_subnet["Ipv6CidrBlockAssociation"]["AssociationId"]);
    assert_eq!(associate(&subnet, &part(block, 2)).unwrap_err().code, "CidrLimitExceeded");
    let request = json!({ "VpcId": id, "CidrBlock": "10.0.1.0/24", "Ipv6CidrBlock": part(block, 1) });
    assert_eq!(world.write(subnet::create_subnet, request).unwrap_err().code, "InvalidSubnet.Conflict");
    let change = json!({ "SubnetId": subnet, "AssignIpv6AddressOnCreation": { "Value": true } });
    world.write(subnet::modify_subnet_attribute, change.clone()).unwrap();
    let same = json!({ "Filters": filter("ipv6-cidr-block-association.ipv6-cidr-block", &part(block, 1)) });
    let shown = world.read(subnet::describe_subnets, same).unwrap();
    assert_eq!(each(&shown["Subnets"], "SubnetId"), [subnet.as_str()]);
    assert_eq!(shown["Subnets"][0]["AssignIpv6AddressOnCreation"], true);
    world.restart();
    world.state.check_invariants();

    let disassociate = json!({ "AssociationId": association });
    fails(
        world.write(cidr_block::disassociate_vpc_cidr_block, disassociate.clone()),
        "InvalidCidrBlock.InUse",
        &format!("The vpc {id} currently has a subnet within CIDR block {block}"),
    );
    world.write(cidr_block::disassociate_subnet_cidr_block, json!({ "AssociationId": of_subnet })).unwrap();
    let again =
        world.write(cidr_block::disassociate_subnet_cidr_block, json!({ "AssociationId": of_subnet }));
    assert_eq!(again.unwrap_err().code, "InvalidSubnetCidrBlockAssociationID.NotFound");
    assert_eq!(world.write(subnet::modify_subnet_attribute, change).unwrap_err().code, INVALID);
    world.write(cidr_block::disassociate_vpc_cidr_block, disassociate.clone()).unwrap();
    let again = world.write(cidr_block::disassociate_vpc_cidr_block, disassociate).unwrap_err();
    assert_eq!(again.code, "InvalidVpcCidrBlockAssociationID.NotFound");
    let shown = world.read(vpc::describe_vpcs, json!({ "VpcIds": [id] })).unwrap();
    let primary = json!({ "AssociationId": shown["Vpcs"][0]["CidrBlockAssociationSet"][0]["AssociationId"] });
    let refused = world.write(cidr_block::disassociate_vpc_cidr_block, primary).unwrap_err();
    assert_eq!(refused.code, "OperationNotPermitted");
}

#[test]
fn tasks_of_subnets_with_ipv6_have_two_addresses() {
    const CAPABLE: &str = "ecs.capability.task-eni.ipv6";
    let mut world = World::new();
    let (vpc, block) = dual_stack_vpc(&mut world);
    let request = json!({ "VpcId": vpc, "CidrBlock": "10.0.1.0/24", "Ipv6CidrBlock": part(block, 9) });
    let made = world.write(subnet::create_subnet, request).unwrap();
    let subnet = text(&made["Subnet"]["SubnetId"]);
    let task = world.run_in_subnet(&subnet, &[CAPABLE]);
    let own = &task["containers"][0]["networkInterfaces"][0];
    let address = text(&own["ipv6Address"]);
    assert!(part(block, 9).parse::<Ipv6Block>().unwrap().contains(address.parse().unwrap()), "{address}");
    let same = json!({ "Filters": filter("ipv6-addresses.ipv6-address", &address) });
    let shown = world.read(network_interface::describe_network_interfaces, same).unwrap();
    assert_eq!(shown["NetworkInterfaces"][0]["PrivateIpAddress"], own["privateIpv4Address"]);
    assert_eq!(shown["NetworkInterfaces"][0]["Ipv6Addresses"][0]["Ipv6Address"], address.as_str());
    world.state.check_invariants();
    let association = json!({ "AssociationId":
        made["Subnet"]["Ipv6CidrBlockAssociationSet"][0]["AssociationId"] });
    let held = world.write(cidr_block::disassociate_subnet_cidr_block, association).unwrap_err();
    assert_eq!(held.code, "DependencyViolation");
    // A host whose kernel has no IPv6 says so.
    let mut world = World::new();
    let (vpc, block) = dual_stack_vpc(&mut world);
    let request = json!({ "VpcId": vpc, "CidrBlock": "10.0.1.0/24", "Ipv6CidrBlock": part(block, 9) });
    let subnet = text(&world.write(subnet::create_subnet, request).unwrap()["Subnet"]["SubnetId"]);
    let task = world.run_in_subnet(&subnet, &[]);
    assert_eq!(task["containers"][0]["networkInterfaces"][0].get("ipv6Address"), None);
}

#[test]
fn lists_come_in_pages() {
    let mut world = World::new();
    let id = made_vpc(&mut world, "10.0.0.0/16");
    for number in 0..12 {
        let request = json!({ "VpcId": id, "CidrBlock": format!("10.0.{number}.0/24") });
        world.write(subnet::create_subnet, request).unwrap();
    }
    let (mut seen, mut token) = (Vec::new(), Value::Null);
    loop {
        let request = json!({ "Filters": filter("vpc-id", &id), "MaxResults": 5, "NextToken": token });
        let mut page = world.read(subnet::describe_subnets, request).unwrap();
        seen.extend(each(&page["Subnets"], "SubnetId"));
        token = page["NextToken"].take();
        if token.is_null() {
            break;
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 12);
    let error = |world: &mut World, request| world.read(subnet::describe_subnets, request).unwrap_err().code;
    assert_eq!(error(&mut world, json!({ "NextToken": "x" })), "InvalidNextToken");
    assert_eq!(error(&mut world, json!({ "MaxResults": 4 })), INVALID);
    let both = json!({ "MaxResults": 5, "SubnetIds": [seen[0]] });
    assert_eq!(error(&mut world, both), "InvalidParameterCombination");
    assert_eq!(error(&mut world, json!({ "Filters": filter("colour", "red") })), INVALID);
    assert_eq!(error(&mut world, json!({ "SubnetIds": ["subnet-x"] })), "InvalidSubnetID.Malformed");
    assert_eq!(error(&mut world, json!({ "SubnetIds": ["subnet-01234567"] })), "InvalidSubnetID.NotFound");
}

#[test]
fn everything_with_an_id_can_be_tagged() {
    let mut world = World::new();
    let specified = json!([{ "ResourceType": "vpc", "Tags": [{ "Key": "Name", "Value": "blue" }] }]);
    let request = json!({ "CidrBlock": "10.0.0.0/16", "TagSpecifications": specified });
    let made = text(&world.write(vpc::create_vpc, request).unwrap()["Vpc"]["VpcId"]);
    let tables = json!({ "Filters": filter("vpc-id", &made) });
    let table = world.read(vpc_part::describe_route_tables, tables).unwrap();
    let table = text(&table["RouteTables"][0]["RouteTableId"]);
    let rules =
        world.read(crate::services::ec2::ops::rule::describe_security_group_rules, json!({})).unwrap();
    let rule = text(&rules["SecurityGroupRules"][0]["SecurityGroupRuleId"]);
    let request = json!({ "Resources": [table, rule], "Tags": [{ "Key": "team", "Value": "a b" }] });
    world.write(tag::create_tags, request).unwrap();
    let shown = world.read(tag::describe_tags, json!({ "Filters": filter("tag:team", "a*") })).unwrap();
    let mut types = each(&shown["Tags"], "ResourceType");
    types.sort();
    assert_eq!(types, ["route-table", "security-group-rule"]);
    let named = world.read(vpc::describe_vpcs, json!({ "Filters": filter("tag:Name", "blue") })).unwrap();
    assert_eq!(each(&named["Vpcs"], "VpcId"), [made.as_str()]);
    let other = json!({ "Resources": [table], "Tags": [{ "Key": "team", "Value": "c" }] });
    world.write(tag::delete_tags, other).unwrap();
    world.write(tag::delete_tags, json!({ "Resources": [rule] })).unwrap();
    let left = world.read(tag::describe_tags, json!({ "Filters": filter("key", "team") })).unwrap();
    assert_eq!(each(&left["Tags"], "ResourceId"), [table.as_str()]);
    for (resource, key, code) in [
        (made.as_str(), "aws:x", INVALID),
        (made.as_str(), "", "InvalidTagKey.Malformed"),
        ("i-0123456789abcdef0", "x", "InvalidID"),
        ("vpc-0123456789abcdef0", "x", "InvalidVpcID.NotFound"),
    ] {
        let request = json!({ "Resources": [resource], "Tags": [{ "Key": key }] });
        assert_eq!(world.write(tag::create_tags, request).unwrap_err().code, code, "{resource} {key}");
    }
}

#[test]
fn interfaces_of_tasks_are_seen_and_hold_what_they_use() {
    let mut world = World::new();
    let subnets = world.read(subnet::describe_subnets, json!({})).unwrap();
    let own = text(&subnets["Subnets"][0]["SubnetId"]);
    let request = json!({ "GroupName": "web", "Description": "web" });
    let group = text(&world.write(security_group::create_security_group, request).unwrap()["GroupId"]);
    let task = world.run_on_fargate(&own, &[&group]);
    let shown = world.read(network_interface::describe_network_interfaces, json!({})).unwrap();
    let interface = &shown["NetworkInterfaces"][0];
    assert_eq!(
        (interface["SubnetId"].as_str(), interface["Status"].as_str()),
        (Some(own.as_str()), Some("in-use"))
    );
    assert_eq!(interface["VpcId"], subnets["Subnets"][0]["VpcId"]);
    assert_eq!(interface["Groups"][0]["GroupName"], "web");
    let description = text(&interface["Description"]);
    assert!(description.ends_with(task["attachments"][0]["id"].as_str().unwrap()), "{description}");
    let some = json!({ "Filters": filter("group-id", &group) });
    let found = world.read(network_interface::describe_network_interfaces, some).unwrap();
    assert_eq!(found["NetworkInterfaces"].as_array().unwrap().len(), 1);

    let after = world.read(subnet::describe_subnets, json!({ "SubnetIds": [own] })).unwrap();
    assert_eq!(after["Subnets"][0]["AvailableIpAddressCount"], 4090);
    let dependent = format!("The subnet '{own}' has dependencies and cannot be deleted.");
    fails(world.write(subnet::delete_subnet, json!({ "SubnetId": own })), "DependencyViolation", &dependent);
    let dependent = format!("resource {group} has a dependent object");
    let deleted = world.write(security_group::delete_security_group, json!({ "GroupId": group }));
    fails(deleted, "DependencyViolation", &dependent);
}

#[test]
fn interfaces_without_a_group_have_their_vpc_s_default() {
    let mut world = World::new();
    let subnets = world.read(subnet::describe_subnets, json!({})).unwrap();
    world.run_on_fargate(&text(&subnets["Subnets"][0]["SubnetId"]), &[]);
    let shown = world.read(network_interface::describe_network_interfaces, json!({})).unwrap();
    assert_eq!(shown["NetworkInterfaces"][0]["Groups"][0]["GroupName"], "default");
    // A placeholder means the default VPC's, which are shown in its stead.
    let task = world.run_on_fargate("subnet-2", &["sg-web"]);
    let address = text(&task["attachments"][0]["details"][4]["value"]);
    let same = json!({ "Filters": filter("addresses.private-ip-address", &address) });
    let shown = world.read(network_interface::describe_network_interfaces, same).unwrap();
    let second = json!({ "Filters": filter("availability-zone", "eu-north-1b") });
    let second = world.read(subnet::describe_subnets, second).unwrap();
    assert_eq!(shown["NetworkInterfaces"][0]["SubnetId"], second["Subnets"][0]["SubnetId"]);
    assert_eq!(shown["NetworkInterfaces"][0]["Groups"][0]["GroupName"], "default");
}

#[test]
fn tasks_spread_over_their_subnets_until_all_are_full() {
    let mut world = World::new();
    let made = world.write(vpc::create_vpc, json!({ "CidrBlock": "10.7.0.0/16" })).unwrap();
    let id = text(&made["Vpc"]["VpcId"]);
    let mut subnet_in = |block: &str| {
        let request = json!({ "VpcId": id, "CidrBlock": block });
        text(&world.write(subnet::create_subnet, request).unwrap()["Subnet"]["SubnetId"])
    };
    let subnets = [subnet_in("10.7.1.0/28"), subnet_in("10.7.2.0/27")];
    let ran = world.run_many_on_fargate(&subnets, 11 + 27 + 1);
    let mut addresses: Vec<String> = ran
        .iter()
        .map(|task| text(&task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]))
        .collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 11 + 27, "each has its own, and the last has none");
    // Without host names in their VPC, interfaces have none either.
    let shown = world.read(network_interface::describe_network_interfaces, json!({})).unwrap();
    assert_eq!(shown["NetworkInterfaces"][0].get("PrivateDnsName"), None);
    let first: Vec<_> =
        ran[..8].iter().map(|task| text(&task["attachments"][0]["details"][0]["value"])).collect();
    for subnet in &subnets {
        assert_eq!(first.iter().filter(|id| *id == subnet).count(), 4, "they take turns");
    }
    let left = world.read(subnet::describe_subnets, json!({ "SubnetIds": subnets })).unwrap();
    assert_eq!(left["Subnets"][0]["AvailableIpAddressCount"], 0);
}
