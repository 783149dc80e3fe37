//! Target groups, their health checks and their targets.

use super::{VALIDATION, group, text, vpc, website};
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::links;
use crate::services::elbv2::ops::{attribute, listener, target, target_group};
use crate::state::Installation;
use gantry_decide::routing::config::{TargetGroupArn, TargetId, TargetKey};
use gantry_decide::routing::{HealthReport, HealthState, Reason, TargetHealth};
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn groups_have_targets_of_one_family_of_addresses() {
    let mut world = World::new();
    let six = group(&mut world, "six", json!({ "IpAddressType": "ipv6" }));
    let of = json!({ "TargetGroupArns": [six] });
    world.restart();
    let shown = world.read(target_group::describe_target_groups, of).unwrap();
    assert_eq!(shown["TargetGroups"][0]["IpAddressType"], "ipv6");
    let register = |id: &str| json!({ "TargetGroupArn": six, "Targets": [{ "Id": id }] });
    world.write(target::register_targets, register("fd00::7")).unwrap();
    let error = world.write(target::register_targets, register("10.0.0.7"));
    fails(error, VALIDATION, "The IP address '10.0.0.7' is not a valid IPv6 address");
    let error = world.write(target::register_targets, register("ff02::1")).unwrap_err();
    assert_eq!(error.code, "InvalidTarget");
    let request = json!({
        "Name": "of-instances", "Protocol": "HTTP", "Port": 80, "VpcId": vpc(&mut world),
        "TargetType": "instance", "IpAddressType": "ipv6",
    });
    let error = world.write(target_group::create_target_group, request).unwrap_err();
    assert_eq!(error.code, "InvalidConfigurationRequest");
}

#[test]
fn targets_have_addresses_of_vpcs_or_private_ones() {
    let mut world = World::new();
    let (four, six) =
        (group(&mut world, "four", json!({})), group(&mut world, "six", json!({ "IpAddressType": "ipv6" })));
    let register = |world: &mut World, id: &str, zone: Value| {
        let group = if id.contains(':') { &six } else { &four };
        let targets = json!([{ "Id": id, "AvailabilityZone": zone }]);
        let request = json!({ "TargetGroupArn": group, "Targets": targets });
        world.write(target::register_targets, request).map(drop).map_err(|error| error.code)
    };
    for id in ["172.31.0.7", "10.1.2.3", "192.168.0.1", "100.64.0.1", "100.127.255.1", "fd00::1"] {
        assert_eq!(register(&mut world, id, Value::Null), Ok(()), "{id}");
    }
    let loopback = ["127.0.0.1", "127.64.0.1", "::1", "::ffff:127.0.0.1"];
    let never = [
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "0.0.0.1",
        "8.8.8.8",
        "100.128.0.1",
        "240.0.0.1",
        "fe80::1",
        "ff02::1",
        "::",
        "2001:db8::7",
        "::ffff:8.8.8.8",
    ];
    for id in loopback.into_iter().chain(never) {
        assert_eq!(register(&mut world, id, Value::Null), Err("InvalidTarget".into()), "{id}");
    }
    for (zone, expected) in [("all", Ok(())), ("eu-north-1a", Ok(())), ("mars-1a", Err(VALIDATION.into()))] {
        assert_eq!(register(&mut world, "10.0.0.9", json!(zone)), expected, "{zone}");
    }
    // The operator's word is about loopback alone.
    world.state.installation = Arc::new(Installation { loopback_targets: true, ..Installation::default() });
    for id in loopback {
        assert_eq!(register(&mut world, id, Value::Null), Ok(()), "{id}");
    }
    for id in never {
        assert_eq!(register(&mut world, id, Value::Null), Err("InvalidTarget".into()), "{id}");
    }
}

#[test]
fn groups_have_the_defaults_of_their_protocol() {
    let mut world = World::new();
    for (name, protocol, wanted) in [
        ("http", "HTTP", json!(["HTTP", "/", 5, { "HttpCode": "200" }, "HTTP1"])),
        ("tcp", "TCP", json!(["TCP", null, 10, null, null])),
    ] {
        let arn = group(&mut world, name, json!({ "Protocol": protocol }));
        let shown =
            world.read(target_group::describe_target_groups, json!({ "TargetGroupArns": [arn] })).unwrap();
        let shown = &shown["TargetGroups"][0];
        let seen = json!([
            shown["HealthCheckProtocol"],
            shown["HealthCheckPath"],
            shown["HealthCheckTimeoutSeconds"],
            shown["Matcher"],
            shown["ProtocolVersion"],
        ]);
        assert_eq!(seen, wanted);
        assert_eq!((&shown["HealthCheckPort"], &shown["TargetType"]), (&json!("traffic-port"), &json!("ip")));
        assert_eq!(
            (&shown["HealthyThresholdCount"], &shown["UnhealthyThresholdCount"]),
            (&json!(5), &json!(2))
        );
    }
    let grpc = group(&mut world, "grpc", json!({ "ProtocolVersion": "GRPC" }));
    let change =
        json!({ "TargetGroupArn": grpc, "Matcher": { "GrpcCode": "0-99" }, "HealthCheckIntervalSeconds": 5 });
    let changed = world.write(target_group::modify_target_group, change).unwrap()["TargetGroups"][0].take();
    assert_eq!(changed["Matcher"], json!({ "GrpcCode": "0-99" }));
    assert_eq!(changed["HealthCheckPath"], "/AWS.ALB/healthcheck");
    assert_eq!(changed["HealthCheckTimeoutSeconds"], 4, "the default gives way to a short interval");
    let over_http =
        group(&mut world, "over-http", json!({ "Protocol": "TCP", "HealthCheckProtocol": "HTTP" }));
    let shown =
        world.read(target_group::describe_target_groups, json!({ "TargetGroupArns": [over_http] })).unwrap();
    assert_eq!(shown["TargetGroups"][0]["Matcher"], json!({ "HttpCode": "200-399" }));
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let mut world = World::new();
    let vpc = vpc(&mut world);
    let base = json!({ "Name": "web", "Protocol": "HTTP", "Port": 80, "VpcId": vpc });
    for (more, code) in [
        (json!({ "VpcId": null }), VALIDATION),
        (json!({ "HealthCheckEnabled": false }), VALIDATION),
        (json!({ "HealthCheckEnabled": false, "TargetType": "ip" }), VALIDATION),
        (json!({ "VpcId": "vpc-0123456789abcdef0" }), VALIDATION),
        (json!({ "Protocol": null }), VALIDATION),
        (json!({ "Protocol": "GENEVE" }), "InvalidConfigurationRequest"),
        (json!({ "TargetType": "lambda" }), "InvalidConfigurationRequest"),
        (json!({ "ProtocolVersion": "HTTP3" }), VALIDATION),
        (json!({ "Protocol": "TCP", "ProtocolVersion": "HTTP1" }), VALIDATION),
        (json!({ "Protocol": "TCP", "HealthCheckPath": "/" }), VALIDATION),
        (json!({ "HealthCheckProtocol": "TCP" }), VALIDATION),
        (json!({ "HealthCheckPath": "x" }), VALIDATION),
        (json!({ "HealthCheckPort": "0" }), VALIDATION),
        (json!({ "Matcher": { "HttpCode": "100" } }), VALIDATION),
        (json!({ "Matcher": { "HttpCode": "299-200" } }), VALIDATION),
        (json!({ "Matcher": { "GrpcCode": "0" } }), VALIDATION),
        (json!({ "HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 5 }), VALIDATION),
    ] {
        let mut request = base.clone();
        for (name, value) in more.as_object().unwrap() {
            match value {
                Value::Null => request.as_object_mut().unwrap().remove(name),
                value => request.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        let error = world.write(target_group::create_target_group, request.clone()).unwrap_err();
        assert_eq!(error.code, code, "{request}: {error}");
    }
    let made = world.write(target_group::create_target_group, base.clone()).unwrap();
    assert_eq!(world.write(target_group::create_target_group, base).unwrap(), made, "the same again");
    let other = json!({ "Name": "web", "Protocol": "HTTP", "Port": 81, "VpcId": vpc });
    let message = "A target group with the same name 'web' exists, but with different settings";
    fails(world.write(target_group::create_target_group, other), "DuplicateTargetGroupName", message);
}

#[test]
fn a_group_in_use_stays() {
    let mut world = World::new();
    let (balancer, listener, group) = website(&mut world);
    let delete = json!({ "TargetGroupArn": group });
    let message = format!("Target group '{group}' is currently in use by a listener or a rule");
    fails(world.write(target_group::delete_target_group, delete.clone()), "ResourceInUse", &message);
    let of = json!({ "LoadBalancerArn": balancer });
    let shown = world.read(target_group::describe_target_groups, of).unwrap();
    assert_eq!(shown["TargetGroups"][0]["LoadBalancerArns"], json!([balancer]));
    world.write(listener::delete_listener, json!({ "ListenerArn": listener })).unwrap();
    world.write(target_group::delete_target_group, delete.clone()).unwrap();
    world.write(target_group::delete_target_group, delete).unwrap();
}

fn health(world: &mut World, group: &str) -> Value {
    let shown = world.read(target::describe_target_health, json!({ "TargetGroupArn": group })).unwrap();
    shown["TargetHealthDescriptions"].clone()
}

/// What a balancer tells of the target 10.0.0.7:80.
fn report(world: &mut World, group: &str, state: HealthState, reason: Option<Reason>) {
    let key = TargetKey { id: TargetId::new("10.0.0.7"), port: 80 };
    let health = TargetHealth { state, reason };
    let report = HealthReport { group: TargetGroupArn::new(group), target: key, health, at: world.now };
    world.edit(|tx| links::report(tx, &report));
}

#[test]
fn targets_are_as_the_balancer_finds_them() {
    let mut world = World::new();
    let unused = group(&mut world, "unused", json!({}));
    let (_, _, group) = website(&mut world);
    for arn in [&unused, &group] {
        let request = json!({ "TargetGroupArn": arn, "Targets": [{ "Id": "10.0.0.7" }] });
        world.write(target::register_targets, request).unwrap();
    }
    let seen = |shown: &Value| {
        let health = &shown[0]["TargetHealth"];
        (text(&health["State"]), health["Reason"].as_str().unwrap_or_default().to_owned())
    };
    let pair = |state: &str, reason: &str| (state.to_owned(), reason.to_owned());
    assert_eq!(seen(&health(&mut world, &unused)), pair("unused", "Target.NotInUse"));
    assert_eq!(seen(&health(&mut world, &group)), pair("initial", "Elb.RegistrationInProgress"));
    report(&mut world, &group, HealthState::Healthy, None);
    assert_eq!(seen(&health(&mut world, &group)), pair("healthy", ""));
    report(&mut world, &group, HealthState::Unhealthy, Some(Reason::ResponseCodeMismatch(502)));
    world.restart();
    let shown = health(&mut world, &group);
    assert_eq!(seen(&shown), pair("unhealthy", "Target.ResponseCodeMismatch"));
    assert_eq!(shown[0]["TargetHealth"]["Description"], "Health checks failed with these codes: [502]");
    assert_eq!((&shown[0]["Target"]["Port"], &shown[0]["HealthCheckPort"]), (&json!(80), &json!("80")));

    let asked = json!({ "TargetGroupArn": group, "Targets": [{ "Id": "10.0.0.8" }] });
    let other = world.read(target::describe_target_health, asked.clone()).unwrap();
    assert_eq!(seen(&other["TargetHealthDescriptions"]), pair("unused", "Target.NotRegistered"));
    world.write(target::deregister_targets, asked).unwrap();

    let own = json!({ "TargetGroupArn": group, "Targets": [{ "Id": "10.0.0.7", "Port": 80 }] });
    world.write(target::deregister_targets, own.clone()).unwrap();
    assert_eq!(seen(&health(&mut world, &group)), pair("draining", "Target.DeregistrationInProgress"));
    report(&mut world, &group, HealthState::Healthy, None);
    assert_eq!(seen(&health(&mut world, &group)), pair("draining", "Target.DeregistrationInProgress"));
    world.write(target::register_targets, own.clone()).unwrap();
    assert_eq!(seen(&health(&mut world, &group)), pair("initial", "Elb.RegistrationInProgress"));
    world.write(target::deregister_targets, own.clone()).unwrap();
    let key = TargetKey { id: TargetId::new("10.0.0.7"), port: 80 };
    world.edit(|tx| links::drained(tx, &TargetGroupArn::new(&group), &key));
    assert_eq!(health(&mut world, &group), json!([]), "it has drained");

    world.write(target::register_targets, own.clone()).unwrap();
    let at_once = json!([{ "Key": "deregistration_delay.timeout_seconds", "Value": "0" }]);
    let request = json!({ "TargetGroupArn": group, "Attributes": at_once });
    world.write(attribute::modify_target_group_attributes, request).unwrap();
    world.write(target::deregister_targets, own).unwrap();
    assert_eq!(health(&mut world, &group), json!([]));
    let request = json!({ "TargetGroupArn": unused, "Targets": [{ "Id": "10.0.0.7" }] });
    world.write(target::deregister_targets, request).unwrap();
    assert_eq!(health(&mut world, &unused), json!([]), "nobody sends it anything");
}

#[test]
fn targets_must_fit_their_group() {
    let mut world = World::new();
    let ip = group(&mut world, "ip", json!({}));
    let instance = group(&mut world, "instance", json!({ "TargetType": "instance" }));
    world.create("default");
    world.join("default");
    for (arn, target, code) in [
        (&ip, json!({ "Id": "i-0123456789abcdef0" }), VALIDATION),
        (&ip, json!({ "Id": "224.0.0.1" }), "InvalidTarget"),
        (&instance, json!({ "Id": "10.0.0.7" }), VALIDATION),
        (&instance, json!({ "Id": "i-0123456789abcdef0" }), "InvalidTarget"),
    ] {
        let request = json!({ "TargetGroupArn": arn, "Targets": [target] });
        let error = world.write(target::register_targets, request).unwrap_err();
        assert_eq!(error.code, code, "{target}: {error}");
    }
    let id = world.state.ecs.container_instances().values().next().unwrap().ec2_instance_id.clone();
    if let Some(id) = id {
        let request = json!({ "TargetGroupArn": instance, "Targets": [{ "Id": id, "Port": 32768 }] });
        world.write(target::register_targets, request).unwrap();
    }
}
