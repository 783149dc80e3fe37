//! Attributes and tags.

use super::{VALIDATION, balancer, group, text, website};
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::ops::{account, attribute, load_balancer, rule, tag};
use serde_json::{Value, json};

fn one(key: &str, value: &str) -> Value {
    json!([{ "Key": key, "Value": value }])
}

fn value(shown: &Value, key: &str) -> String {
    let all = shown["Attributes"].as_array().unwrap();
    text(&all.iter().find(|attribute| attribute["Key"] == key).unwrap()["Value"])
}

#[test]
fn attributes_have_defaults_and_are_kept() {
    let mut world = World::new();
    let (balancer, listener, group) = website(&mut world);
    let of = json!({ "LoadBalancerArn": balancer });
    let shown = world.read(attribute::describe_load_balancer_attributes, of.clone()).unwrap();
    assert_eq!(value(&shown, "idle_timeout.timeout_seconds"), "60");
    let request =
        json!({ "LoadBalancerArn": balancer, "Attributes": one("idle_timeout.timeout_seconds", "5") });
    let shown = world.write(attribute::modify_load_balancer_attributes, request).unwrap();
    assert_eq!(value(&shown, "idle_timeout.timeout_seconds"), "5");
    let protect =
        json!({ "LoadBalancerArn": balancer, "Attributes": one("deletion_protection.enabled", "true") });
    world.write(attribute::modify_load_balancer_attributes, protect).unwrap();
    world.restart();
    let message =
        format!("Load balancer '{balancer}' cannot be deleted because deletion protection is enabled");
    fails(world.write(load_balancer::delete_load_balancer, of), "OperationNotPermitted", &message);

    let header = "routing.http.response.x_frame_options.header_value";
    let request = json!({ "ListenerArn": listener, "Attributes": one(header, "DENY") });
    let shown = world.write(attribute::modify_listener_attributes, request).unwrap();
    assert_eq!(value(&shown, header), "DENY");
    let request = json!({ "TargetGroupArn": group, "Attributes": one("slow_start.duration_seconds", "30") });
    world.write(attribute::modify_target_group_attributes, request).unwrap();
    let shown =
        world.read(attribute::describe_target_group_attributes, json!({ "TargetGroupArn": group })).unwrap();
    assert_eq!(value(&shown, "slow_start.duration_seconds"), "30");
    assert_eq!(value(&shown, "stickiness.type"), "lb_cookie");
}

#[test]
fn attributes_that_are_not_are_refused() {
    let mut world = World::new();
    let (balancer, listener, group) = website(&mut world);
    for (key, given, code) in [
        ("colour", "red", "InvalidConfigurationRequest"),
        ("idle_timeout.timeout_seconds", "0", VALIDATION),
        ("idle_timeout.timeout_seconds", "x", VALIDATION),
        ("routing.http2.enabled", "yes", VALIDATION),
        ("routing.http.desync_mitigation_mode", "off", VALIDATION),
        ("zonal_shift.config.enabled", "true", "InvalidConfigurationRequest"),
        ("access_logs.s3.enabled", "true", "InvalidConfigurationRequest"),
        ("access_logs.s3.prefix", "a/../b", "InvalidConfigurationRequest"),
        ("proxy_protocol_v2.enabled", "true", "InvalidConfigurationRequest"),
    ] {
        let request = json!({ "LoadBalancerArn": balancer, "Attributes": one(key, given) });
        let error = world.write(attribute::modify_load_balancer_attributes, request).unwrap_err();
        assert_eq!(error.code, code, "{key} {given}: {error}");
    }
    let request = json!({ "ListenerArn": listener, "Attributes": one("tcp.idle_timeout.seconds", "60") });
    assert_eq!(
        world.write(attribute::modify_listener_attributes, request).unwrap_err().code,
        "InvalidConfigurationRequest"
    );
    let cookie = json!([
        { "Key": "stickiness.enabled", "Value": "true" }, { "Key": "stickiness.type", "Value": "app_cookie" },
    ]);
    let slow = json!([
        { "Key": "slow_start.duration_seconds", "Value": "30" },
        { "Key": "load_balancing.algorithm.type", "Value": "least_outstanding_requests" },
    ]);
    for (attributes, code) in [
        (one("slow_start.duration_seconds", "10"), VALIDATION),
        (slow, "InvalidConfigurationRequest"),
        (cookie, "InvalidConfigurationRequest"),
        (one("load_balancing.algorithm.anomaly_mitigation", "on"), "InvalidConfigurationRequest"),
    ] {
        let request = json!({ "TargetGroupArn": group, "Attributes": attributes });
        let error = world.write(attribute::modify_target_group_attributes, request).unwrap_err();
        assert_eq!(error.code, code, "{attributes}: {error}");
    }
}

#[test]
fn groups_of_datagrams_have_defaults_of_their_own() {
    let mut world = World::new();
    let (ends, ends_unhealthy, drains, proxy) = (
        "deregistration_delay.connection_termination.enabled",
        "target_health_state.unhealthy.connection_termination.enabled",
        "target_health_state.unhealthy.draining_interval_seconds",
        "proxy_protocol_v2.enabled",
    );
    for (protocol, defaults) in
        [("TCP", ["false", "true"]), ("UDP", ["true", "false"]), ("TCP_UDP", ["true", "false"])]
    {
        let made = group(&mut world, &protocol.replace('_', "-"), json!({ "Protocol": protocol }));
        let shown =
            world.read(attribute::describe_target_group_attributes, json!({ "TargetGroupArn": made }));
        let shown = shown.unwrap();
        assert_eq!([value(&shown, ends), value(&shown, ends_unhealthy)], defaults, "{protocol}");
        let mut set = |attributes: Value| {
            let request = json!({ "TargetGroupArn": made, "Attributes": attributes });
            world
                .write(attribute::modify_target_group_attributes, request)
                .map(drop)
                .map_err(|error| error.code)
        };
        let datagrams = protocol != "TCP";
        let unless = |refused: bool, code: &'static str| if refused { Err(code.into()) } else { Ok(()) };
        assert_eq!(set(one(ends_unhealthy, "true")), unless(datagrams, VALIDATION), "{protocol}");
        assert_eq!(set(one(drains, "60")), unless(!datagrams, "InvalidConfigurationRequest"), "{protocol}");
        let both = json!([{ "Key": ends_unhealthy, "Value": "false" }, { "Key": drains, "Value": "60" }]);
        assert_eq!(set(both), Ok(()), "{protocol}");
        let nobody_takes = unless(protocol == "UDP", "InvalidConfigurationRequest");
        assert_eq!(set(one(proxy, "true")), nobody_takes, "{protocol}");
    }
}

#[test]
fn a_clients_address_is_promised_to_no_target() {
    let mut world = World::new();
    for (protocol, kind, given, code) in [
        ("TCP", "ip", "true", "InvalidConfigurationRequest"),
        ("TLS", "ip", "true", "InvalidConfigurationRequest"),
        ("UDP", "ip", "false", VALIDATION),
    ] {
        let more = json!({ "Protocol": protocol, "TargetType": kind });
        let made = group(&mut world, &protocol.to_lowercase(), more);
        let attributes = one("preserve_client_ip.enabled", given);
        let request = json!({ "TargetGroupArn": made, "Attributes": attributes });
        let error = world.write(attribute::modify_target_group_attributes, request).unwrap_err();
        assert_eq!(error.code, code, "{protocol} {given}: {error}");
        assert!(code == VALIDATION || error.message.contains("proxy_protocol_v2.enabled"), "{error}");
    }
}

#[test]
fn everything_with_an_arn_has_tags() {
    let mut world = World::new();
    let (balancer, listener, group) = website(&mut world);
    let rules = world.read(rule::describe_rules, json!({ "ListenerArn": listener })).unwrap();
    let arns = json!([balancer, listener, group, rules["Rules"][0]["RuleArn"]]);
    let add =
        json!({ "ResourceArns": arns, "Tags": [{ "Key": "team", "Value": "blue" }, { "Key": "tier" }] });
    world.write(tag::add_tags, add).unwrap();
    world.write(tag::remove_tags, json!({ "ResourceArns": arns, "TagKeys": ["tier", "none"] })).unwrap();
    world.restart();
    let shown = world.read(tag::describe_tags, json!({ "ResourceArns": arns })).unwrap();
    for described in shown["TagDescriptions"].as_array().unwrap() {
        assert_eq!(described["Tags"], json!([{ "Key": "team", "Value": "blue" }]));
    }
    let many: Vec<Value> = (0..51).map(|n| json!({ "Key": n.to_string() })).collect();
    let many = json!({ "ResourceArns": [group], "Tags": many });
    assert_eq!(world.write(tag::add_tags, many).unwrap_err().code, "TooManyTags");
    let reserved = json!({ "ResourceArns": [group], "Tags": [{ "Key": "aws:x" }] });
    assert_eq!(world.write(tag::add_tags, reserved).unwrap_err().code, VALIDATION);
    let unknown = json!({ "ResourceArns": [group.replace("/web/", "/other/")] });
    assert_eq!(world.read(tag::describe_tags, unknown).unwrap_err().code, "TargetGroupNotFound");
}

#[test]
fn limits_and_policies_can_be_looked_up() {
    let mut world = World::new();
    let limits = world.read(account::describe_account_limits, json!({})).unwrap();
    assert!(
        limits["Limits"].as_array().unwrap().contains(&json!({ "Name": "target-groups", "Max": "3000" }))
    );
    let name = "ELBSecurityPolicy-TLS13-1-3-2021-06";
    let policies = world.read(account::describe_ssl_policies, json!({ "Names": [name] })).unwrap();
    assert_eq!(policies["SslPolicies"][0]["SslProtocols"], json!(["TLSv1.3"]));
    let unknown = world.read(account::describe_ssl_policies, json!({ "Names": ["x"] }));
    fails(unknown, "SSLPolicyNotFound", "SSL policy 'x' not found");
    let balancer = balancer(&mut world, "web");
    let of = json!({ "LoadBalancerArn": balancer["LoadBalancerArn"] });
    world.read(account::describe_capacity_reservation, of).unwrap();
    group(&mut world, "other", json!({}));
}
