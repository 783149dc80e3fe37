//! Security groups and their rules.

use super::{INVALID, each, filter, made_vpc, text};
use crate::services::ec2::ops::rule::{
    authorize_egress, authorize_ingress, describe_security_group_rules, revoke_egress, revoke_ingress,
};
use crate::services::ec2::ops::rule_change::{
    modify_security_group_rules, update_security_group_rule_descriptions_egress,
    update_security_group_rule_descriptions_ingress,
};
use crate::services::ec2::ops::security_group::{
    create_security_group, delete_security_group, describe_security_groups,
};
use crate::services::ecs::tests::world::{World, fails};
use serde_json::{Value, json};

fn made(world: &mut World, name: &str, vpc: &str) -> String {
    let request = json!({ "GroupName": name, "Description": "a group", "VpcId": vpc });
    text(&world.write(create_security_group, request).unwrap()["GroupId"])
}

fn shown(world: &mut World, group: &str) -> Value {
    world.read(describe_security_groups, json!({ "GroupIds": [group] })).unwrap()["SecurityGroups"][0].take()
}

fn tcp(port: i32, block: &str) -> Value {
    json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{ "CidrIp": block }] })
}

fn world() -> (World, String, String) {
    let mut world = World::new();
    let vpc = made_vpc(&mut world, "10.0.0.0/16");
    let group = made(&mut world, "web", &vpc);
    (world, vpc, group)
}

#[test]
fn groups_let_everything_out_and_nothing_in() {
    let (mut world, vpc, group) = world();
    let group = shown(&mut world, &group);
    assert_eq!(group["IpPermissions"], json!([]));
    assert_eq!(group["IpPermissionsEgress"][0]["IpProtocol"], "-1");
    assert_eq!(group["IpPermissionsEgress"][0]["IpRanges"][0]["CidrIp"], "0.0.0.0/0");
    let filters = json!([{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]);
    let own = world.read(describe_security_groups, json!({ "Filters": filters })).unwrap();
    let own = &own["SecurityGroups"][0];
    assert_eq!(own["IpPermissions"][0]["UserIdGroupPairs"][0]["GroupId"], own["GroupId"]);
}

#[test]
fn names_are_unique_in_a_vpc() {
    let (mut world, vpc, _) = world();
    let again = json!({ "GroupName": "web", "Description": "x", "VpcId": vpc });
    let message = format!("The security group 'web' already exists for VPC '{vpc}'");
    fails(world.write(create_security_group, again), "InvalidGroup.Duplicate", &message);
    let other = made_vpc(&mut world, "10.9.0.0/16");
    made(&mut world, "web", &other);
    for (name, code) in
        [("default", "InvalidGroup.Reserved"), ("sg-x", INVALID), ("a\u{e9}", INVALID), ("", INVALID)]
    {
        let request = json!({ "GroupName": name, "Description": "x", "VpcId": vpc });
        assert_eq!(world.write(create_security_group, request).unwrap_err().code, code, "{name}");
    }
    // Without a VPC it is made in the default one, where names are enough.
    let request = json!({ "GroupName": "named", "Description": "x" });
    let made = world.write(create_security_group, request).unwrap();
    let found = world.read(describe_security_groups, json!({ "GroupNames": ["named"] })).unwrap();
    assert_eq!(each(&found["SecurityGroups"], "GroupId"), [text(&made["GroupId"])]);
    let missing = world.read(describe_security_groups, json!({ "GroupNames": ["web"] })).unwrap_err();
    assert_eq!(missing.code, "InvalidGroup.NotFound");
}

#[test]
fn rules_come_and_go() {
    let (mut world, _, group) = world();
    let range = json!([{ "CidrIp": "10.1.2.3/8", "Description": "home" }, { "CidrIp": "192.168.0.0/16" }]);
    let permission = json!({ "IpProtocol": "6", "FromPort": 80, "ToPort": 90, "IpRanges": range,
                             "Ipv6Ranges": [{ "CidrIpv6": "::/0" }], "UserIdGroupPairs": [{ "GroupId": group }] });
    let request = json!({ "GroupId": group, "IpPermissions": [permission, tcp(22, "0.0.0.0/0")] });
    let reply = world.write(authorize_ingress, request).unwrap();
    assert_eq!(reply["SecurityGroupRules"].as_array().unwrap().len(), 5);
    let permissions = shown(&mut world, &group)["IpPermissions"].take();
    let ports = permissions.as_array().unwrap().iter().find(|p| p["FromPort"] == 80).unwrap().clone();
    assert_eq!((ports["IpProtocol"].as_str(), ports["IpRanges"].as_array().unwrap().len()), (Some("tcp"), 2));
    assert_eq!(ports["UserIdGroupPairs"][0]["GroupId"], group.as_str());

    let duplicate = json!({ "GroupId": group, "IpPermissions": [tcp(22, "0.0.0.0/0")] });
    let message =
        "the specified rule \"peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW\" already exists";
    fails(world.write(authorize_ingress, duplicate.clone()), "InvalidPermission.Duplicate", message);
    let revoked = world.write(revoke_ingress, duplicate.clone()).unwrap();
    assert_eq!(revoked["RevokedSecurityGroupRules"][0]["CidrIpv4"], "0.0.0.0/0");
    let missing = "The specified rule does not exist in this security group.";
    fails(world.write(revoke_ingress, duplicate), "InvalidPermission.NotFound", missing);

    let rules = json!({ "Filters": filter("group-id", &group) });
    let rules = world.read(describe_security_group_rules, rules).unwrap()["SecurityGroupRules"].take();
    assert_eq!(rules.as_array().unwrap().len(), 5, "four in and one out");
    let out = rules.as_array().unwrap().iter().find(|rule| rule["IsEgress"] == true).unwrap().clone();
    assert_eq!((out["FromPort"].as_i64(), out["IpProtocol"].as_str()), (Some(-1), Some("-1")));
    let by_id = json!({ "GroupId": group, "SecurityGroupRuleIds": [out["SecurityGroupRuleId"]] });
    assert_eq!(
        world.write(revoke_ingress, by_id.clone()).unwrap_err().code,
        "InvalidSecurityGroupRuleId.NotFound",
        "it is a rule of the other direction"
    );
    world.write(revoke_egress, by_id).unwrap();
    assert_eq!(shown(&mut world, &group)["IpPermissionsEgress"], json!([]));
    world
        .write(authorize_egress, json!({ "GroupId": group, "IpPermissions": [tcp(443, "::1/8")] }))
        .unwrap_err();
    world
        .write(authorize_egress, json!({ "GroupId": group, "IpPermissions": [tcp(443, "0.0.0.0/0")] }))
        .unwrap();
    let old = json!({ "GroupId": group, "IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIp": "10.0.0.0/8" });
    world.write(authorize_ingress, old).unwrap();
}

#[test]
fn rules_change_in_place() {
    let (mut world, _, group) = world();
    let rules = json!([tcp(22, "10.0.0.0/8"), tcp(80, "0.0.0.0/0")]);
    let tags = json!([{"ResourceType": "security-group-rule", "Tags": [{"Key": "team", "Value": "blue"}]}]);
    let request = json!({ "GroupId": group, "IpPermissions": rules, "TagSpecifications": tags });
    let made = world.write(authorize_ingress, request).unwrap()["SecurityGroupRules"].take();
    let [ssh, web] = [22, 80].map(|port| {
        text(&made.as_array().unwrap().iter().find(|rule| rule["FromPort"] == port).unwrap()["SecurityGroupRuleId"])
    });
    let to = |id: &str, rule: Value| json!({ "SecurityGroupRuleId": id, "SecurityGroupRule": rule });
    let port = |port: i32, more: Value| {
        let mut rule = json!({ "IpProtocol": "tcp", "FromPort": port, "ToPort": port });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let modify = |world: &mut World, updates: Value| {
        world.write(modify_security_group_rules, json!({ "GroupId": group, "SecurityGroupRules": updates }))
    };
    // Two may exchange what they allow; but no two may allow the same.
    let everyone = json!({ "CidrIpv4": "0.0.0.0/0" });
    let members = json!({ "ReferencedGroupId": group, "Description": "ours" });
    let both = json!([to(&ssh, port(80, everyone.clone())), to(&web, port(22, members))]);
    assert_eq!(modify(&mut world, both).unwrap()["Return"], true);
    let shown = world
        .read(describe_security_group_rules, json!({ "SecurityGroupRuleIds": [ssh, web] }))
        .unwrap()["SecurityGroupRules"]
        .take();
    let of =
        |id: &str| shown.as_array().unwrap().iter().find(|rule| rule["SecurityGroupRuleId"] == id).unwrap();
    assert_eq!((of(&ssh)["FromPort"].as_i64(), of(&ssh)["CidrIpv4"].as_str()), (Some(80), Some("0.0.0.0/0")));
    assert_eq!(of(&web)["ReferencedGroupInfo"]["GroupId"], group.as_str());
    assert_eq!((&of(&web)["Description"], &of(&web)["IsEgress"]), (&json!("ours"), &json!(false)));
    assert_eq!(of(&web)["Tags"], json!([{"Key": "team", "Value": "blue"}]));
    let same = modify(&mut world, json!([to(&web, port(80, everyone.clone()))])).unwrap_err();
    assert_eq!(same.code, "InvalidPermission.Duplicate");
    for (update, code) in [
        (to("sgr-0123456789abcdef0", port(1, everyone.clone())), "InvalidSecurityGroupRuleId.NotFound"),
        (to("rule", port(1, everyone)), "InvalidSecurityGroupRuleId.Malformed"),
        (json!({ "SecurityGroupRuleId": web }), "MissingParameter"),
        (to(&web, port(1, json!({}))), "MissingParameter"),
        (to(&web, port(1, json!({ "CidrIpv4": "ten" }))), INVALID),
        (
            to(&web, port(1, json!({ "CidrIpv4": "0.0.0.0/0", "CidrIpv6": "::/0" }))),
            "InvalidParameterCombination",
        ),
        (to(&web, port(1, json!({ "PrefixListId": "pl-1" }))), "UnsupportedOperation"),
    ] {
        assert_eq!(modify(&mut world, json!([update.clone()])).unwrap_err().code, code, "{update}");
    }
}

#[test]
fn what_is_said_of_rules_changes() {
    let (mut world, _, group) = world();
    let request = json!({ "GroupId": group, "IpPermissions": [tcp(22, "10.0.0.0/8")] });
    world.write(authorize_ingress, request).unwrap();
    let said = |world: &mut World| {
        shown(world, &group)["IpPermissions"][0]["IpRanges"][0]["Description"].as_str().map(str::to_owned)
    };
    let mut permission = tcp(22, "10.0.0.0/8");
    permission["IpRanges"][0]["Description"] = json!("home");
    let by_permission = json!({ "GroupId": group, "IpPermissions": [permission] });
    let describe = update_security_group_rule_descriptions_ingress;
    assert_eq!(world.write(describe, by_permission).unwrap()["Return"], true);
    assert_eq!(said(&mut world).as_deref(), Some("home"));
    let rules = json!({ "Filters": filter("group-id", &group) });
    let rules = world.read(describe_security_group_rules, rules).unwrap()["SecurityGroupRules"].take();
    let id = |egress: bool| {
        text(
            &rules.as_array().unwrap().iter().find(|r| r["IsEgress"] == egress).unwrap()["SecurityGroupRuleId"],
        )
    };
    let by_id = |id: String| {
        let described = json!([{ "SecurityGroupRuleId": id, "Description": "office" }]);
        json!({ "GroupId": group, "SecurityGroupRuleDescriptions": described })
    };
    world.write(describe, by_id(id(false))).unwrap();
    assert_eq!(said(&mut world).as_deref(), Some("office"));
    let other = world.write(describe, by_id(id(true))).unwrap_err();
    assert_eq!(other.code, "InvalidSecurityGroupRuleId.NotFound", "it is a rule of the other direction");
    world.write(update_security_group_rule_descriptions_egress, by_id(id(true))).unwrap();
    assert_eq!(shown(&mut world, &group)["IpPermissionsEgress"][0]["IpRanges"][0]["Description"], "office");
    let unknown = json!({ "GroupId": group, "IpPermissions": [tcp(23, "10.0.0.0/8")] });
    assert_eq!(world.write(describe, unknown).unwrap_err().code, "InvalidPermission.NotFound");
    assert_eq!(world.write(describe, json!({ "GroupId": group })).unwrap_err().code, "MissingParameter");
    // One that is left out is taken away.
    let without = json!({ "GroupId": group, "IpPermissions": [tcp(22, "10.0.0.0/8")] });
    world.write(describe, without).unwrap();
    assert_eq!(said(&mut world), None);
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let (mut world, _, group) = world();
    let elsewhere = made_vpc(&mut world, "10.9.0.0/16");
    let foreign = made(&mut world, "foreign", &elsewhere);
    let pair = |id: &str| json!({ "IpProtocol": "-1", "UserIdGroupPairs": [{ "GroupId": id }] });
    let twice = json!([tcp(1, "0.0.0.0/0"), tcp(1, "0.0.0.0/0")]);
    for (permissions, code) in [
        (json!([]), "MissingParameter"),
        (json!([{ "IpProtocol": "tcp", "FromPort": 1, "ToPort": 2 }]), "MissingParameter"),
        (json!([{ "IpRanges": [{ "CidrIp": "0.0.0.0/0" }] }]), "MissingParameter"),
        (json!([tcp(70_000, "0.0.0.0/0")]), INVALID),
        (json!([tcp(80, "0.0.0.0")]), INVALID),
        (json!([{ "IpProtocol": "xyz", "IpRanges": [{ "CidrIp": "0.0.0.0/0" }] }]), INVALID),
        (twice, INVALID),
        (json!([pair("sg-0123456789abcdef0")]), "InvalidGroup.NotFound"),
        (json!([pair(&foreign)]), "InvalidGroup.NotFound"),
        (
            json!([{ "IpProtocol": "-1", "PrefixListIds": [{ "PrefixListId": "pl-1" }] }]),
            "UnsupportedOperation",
        ),
    ] {
        let request = json!({ "GroupId": group, "IpPermissions": permissions });
        let error = world.write(authorize_ingress, request).unwrap_err();
        assert_eq!(error.code, code, "{permissions}: {error}");
    }
    assert_eq!(shown(&mut world, &group)["IpPermissions"], json!([]), "nothing of it was kept");
    let ranges: Vec<Value> = (0..61).map(|n| json!({ "CidrIp": format!("10.0.{n}.0/24") })).collect();
    let many = json!({ "GroupId": group, "IpPermissions": [{ "IpProtocol": "-1", "IpRanges": ranges }] });
    assert_eq!(world.write(authorize_ingress, many).unwrap_err().code, "RulesPerSecurityGroupLimitExceeded");
}

#[test]
fn groups_in_use_stay() {
    let (mut world, vpc, group) = world();
    let user = made(&mut world, "user", &vpc);
    let permission = json!([{ "IpProtocol": "-1", "UserIdGroupPairs": [{ "GroupId": group }] }]);
    let request = json!({ "GroupId": user, "IpPermissions": permission });
    world.write(authorize_ingress, request.clone()).unwrap();
    let message = format!("resource {group} has a dependent object");
    let delete = json!({ "GroupId": group });
    fails(world.write(delete_security_group, delete.clone()), "DependencyViolation", &message);
    world.write(revoke_ingress, request).unwrap();
    world.write(delete_security_group, delete).unwrap();
    let own = json!({ "Filters": [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}] });
    let own = text(&world.read(describe_security_groups, own).unwrap()["SecurityGroups"][0]["GroupId"]);
    let message = format!("the specified group: \"{own}\" name: \"default\" cannot be deleted by a user");
    fails(world.write(delete_security_group, json!({ "GroupId": own })), "CannotDelete", &message);
    let dry = json!({ "GroupId": user, "DryRun": true });
    assert_eq!(world.write(delete_security_group, dry).unwrap_err().status, 412);
    assert_eq!(shown(&mut world, &user)["GroupName"], "user");
}
