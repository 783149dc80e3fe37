//! Load balancers and listeners.

use super::{VALIDATION, balancer, forward, group, listener, network_balancer, text, website};
use crate::services::ec2::ops::security_group::describe_security_groups;
use crate::services::ec2::ops::{subnet::delete_subnet, vpc::create_vpc};
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::ops::{listener as listeners, load_balancer, target_group};
use serde_json::json;

#[test]
fn load_balancers_have_names_and_addresses_of_their_own() {
    let mut world = World::new();
    let (one, two) = (balancer(&mut world, "web"), balancer(&mut world, "API"));
    assert!(
        text(&one["LoadBalancerArn"])
            .starts_with("arn:aws:elasticloadbalancing:eu-north-1:123456789012:loadbalancer/app/web/")
    );
    let name = text(&two["DNSName"]);
    assert!(name.starts_with("api-") && name.ends_with(".elb.localhost"), "{name}");
    assert_eq!((&one["State"]["Code"], &one["Scheme"]), (&json!("active"), &json!("internet-facing")));
    assert_eq!(one["SecurityGroups"].as_array().unwrap().len(), 1, "the VPC's default one");
    let zones: Vec<_> =
        one["AvailabilityZones"].as_array().unwrap().iter().map(|z| z["ZoneName"].clone()).collect();
    assert_eq!(zones, ["eu-north-1a", "eu-north-1b"]);
    let mut addresses: Vec<String> = Vec::new();
    for balancer in [&one, &two] {
        for zone in balancer["AvailabilityZones"].as_array().unwrap() {
            addresses.push(text(&zone["LoadBalancerAddresses"][0]["IpAddress"]));
        }
    }
    assert!(addresses.iter().all(|address| address.starts_with("127.")));
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 4);

    let again = json!({ "Name": "web", "Subnets": ["subnet-2", "subnet-1"] });
    let same = world.write(load_balancer::create_load_balancer, again).unwrap();
    assert_eq!(same["LoadBalancers"][0], one, "the same again is the same one");
    let other = json!({ "Name": "web", "Subnets": ["subnet-1", "subnet-2"], "Scheme": "internal" });
    let message = "A load balancer with the same name 'web' exists, but with different settings";
    fails(world.write(load_balancer::create_load_balancer, other), "DuplicateLoadBalancerName", message);
    world.restart();
    let subnet = json!({ "SubnetId": one["AvailabilityZones"][0]["SubnetId"] });
    assert_eq!(world.write(delete_subnet, subnet).unwrap_err().code, "DependencyViolation");
    let shown = world.read(load_balancer::describe_load_balancers, json!({ "Names": ["web"] })).unwrap();
    assert_eq!(shown["LoadBalancers"][0], one);
    let missing = world.read(load_balancer::describe_load_balancers, json!({ "Names": ["nope"] }));
    fails(missing, "LoadBalancerNotFound", "Load balancers '[nope]' not found");
    let first = world.read(load_balancer::describe_load_balancers, json!({ "PageSize": 1 })).unwrap();
    let next = json!({ "PageSize": 1, "Marker": first["NextMarker"] });
    let second = world.read(load_balancer::describe_load_balancers, next).unwrap();
    assert_ne!(first["LoadBalancers"], second["LoadBalancers"]);
    assert!(second.get("NextMarker").is_none());
}

#[test]
fn load_balancers_that_cannot_be_are_refused() {
    let mut world = World::new();
    let two = json!(["subnet-1", "subnet-2"]);
    for (request, code) in [
        (json!({ "Name": "web", "Subnets": ["subnet-1"] }), VALIDATION),
        (json!({ "Name": "web", "Subnets": ["subnet-1", "subnet-4"] }), "InvalidConfigurationRequest"),
        (json!({ "Name": "web", "Subnets": ["subnet-1", "subnet-0123456789abcdef0"] }), "SubnetNotFound"),
        (
            json!({ "Name": "web", "Subnets": two, "SecurityGroups": ["sg-0123456789abcdef0"] }),
            "InvalidSecurityGroup",
        ),
        (json!({ "Name": "web", "Subnets": two, "Type": "gateway" }), "InvalidConfigurationRequest"),
        (json!({ "Name": "-web", "Subnets": two }), VALIDATION),
        (json!({ "Name": "internal-web", "Subnets": two }), VALIDATION),
        (json!({ "Name": "w_b", "Subnets": two }), VALIDATION),
        (json!({ "Name": "w".repeat(33), "Subnets": two }), VALIDATION),
        (
            json!({ "Name": "web", "Subnets": two, "Tags": [{ "Key": "a" }, { "Key": "a" }] }),
            "DuplicateTagKeys",
        ),
    ] {
        let error = world.write(load_balancer::create_load_balancer, request.clone()).unwrap_err();
        assert_eq!(error.code, code, "{request}: {error}");
    }
    assert!(world.rows().is_empty(), "nothing of it was kept");
}

#[test]
fn zones_are_added_without_moving_the_others() {
    let mut world = World::new();
    let before = balancer(&mut world, "web");
    let request =
        json!({ "LoadBalancerArn": before["LoadBalancerArn"], "Subnets": ["subnet-1", "subnet-3"] });
    let after = world.write(load_balancer::set_subnets, request).unwrap();
    let (before, after) = (&before["AvailabilityZones"], &after["AvailabilityZones"]);
    assert_eq!(before[0], after[0]);
    assert_eq!(after[1]["ZoneName"], "eu-north-1c");
    assert_ne!(before[1]["LoadBalancerAddresses"], after[1]["LoadBalancerAddresses"]);
}

#[test]
fn a_port_has_one_listener() {
    let mut world = World::new();
    let (balancer, first, group) = website(&mut world);
    let create = |port: u16, protocol: &str| {
        json!({
            "LoadBalancerArn": balancer, "Protocol": protocol, "Port": port, "DefaultActions": forward(&group),
        })
    };
    let message = format!("A listener already exists on this port for this load balancer '{balancer}'");
    fails(world.write(listeners::create_listener, create(80, "HTTP")), "DuplicateListener", &message);
    let mut negotiating = create(81, "HTTP");
    negotiating["AlpnPolicy"] = json!(["HTTP2Preferred"]);
    let message = "ALPN policies can be specified only for TLS listeners";
    fails(world.write(listeners::create_listener, negotiating), VALIDATION, message);
    let message = "Listener protocol 'TCP' must be one of 'HTTPS, HTTP'";
    fails(world.write(listeners::create_listener, create(81, "TCP")), VALIDATION, message);
    let message = "A certificate must be specified for HTTPS listeners";
    fails(world.write(listeners::create_listener, create(443, "HTTPS")), VALIDATION, message);
    let second = world.write(listeners::create_listener, create(8080, "HTTP")).unwrap();
    let second = text(&second["Listeners"][0]["ListenerArn"]);
    let moved = json!({ "ListenerArn": second, "Port": 80 });
    assert_eq!(world.write(listeners::modify_listener, moved).unwrap_err().code, "DuplicateListener");
    let moved = json!({ "ListenerArn": second, "Port": 8081 });
    assert_eq!(world.write(listeners::modify_listener, moved).unwrap()["Listeners"][0]["Port"], 8081);
    let of = json!({ "LoadBalancerArn": balancer });
    let shown = world.read(listeners::describe_listeners, of.clone()).unwrap();
    assert_eq!(shown["Listeners"].as_array().unwrap().len(), 2);
    world.write(listeners::delete_listener, json!({ "ListenerArn": first })).unwrap();
    let gone = world.read(listeners::describe_listeners, json!({ "ListenerArns": [first] }));
    fails(gone, "ListenerNotFound", "One or more listeners not found");
    world.write(load_balancer::delete_load_balancer, of.clone()).unwrap();
    assert!(world.state.elbv2.listeners.is_empty(), "its listeners went with it");
    world.write(load_balancer::delete_load_balancer, of).unwrap();
    world.write(target_group::delete_target_group, json!({ "TargetGroupArn": group })).unwrap();
}

#[test]
fn listeners_send_requests_where_these_can_go() {
    let mut world = World::new();
    let web = balancer(&mut world, "web");
    let (http, tcp) =
        (group(&mut world, "http", json!({})), group(&mut world, "tcp", json!({ "Protocol": "TCP" })));
    let grpc = group(&mut world, "grpc", json!({ "ProtocolVersion": "GRPC" }));
    let own = world.write(create_vpc, json!({ "CidrBlock": "10.0.0.0/16" })).unwrap();
    let elsewhere = group(&mut world, "elsewhere", json!({ "VpcId": own["Vpc"]["VpcId"] }));
    listener(&mut world, &web, 80, &http);
    let mut refused = |balancer: &serde_json::Value,
                       protocol: &str,
                       actions: serde_json::Value,
                       code: &str| {
        let request = json!({
            "LoadBalancerArn": balancer["LoadBalancerArn"], "Protocol": protocol, "Port": 90, "DefaultActions": actions,
        });
        let error = world.write(listeners::create_listener, request).unwrap_err();
        assert_eq!(error.code, code, "{actions}: {error}");
        error.message
    };
    let message = refused(&web, "HTTP", forward(&tcp), "IncompatibleProtocols");
    assert!(message.ends_with("have incompatible protocols: 'HTTP' and 'TCP'"), "{message}");
    refused(&web, "HTTP", forward(&grpc), "InvalidConfigurationRequest");
    refused(&web, "HTTP", forward(&elsewhere), "InvalidConfigurationRequest");
    let unknown = http.replace("targetgroup/http", "targetgroup/other");
    refused(&web, "HTTP", forward(&unknown), "TargetGroupNotFound");
    refused(&web, "HTTP", forward("nonsense"), VALIDATION);
    refused(&web, "HTTP", json!([]), "InvalidLoadBalancerAction");
    let oidc = json!([{ "Type": "authenticate-oidc" }, { "Type": "forward", "TargetGroupArn": http }]);
    refused(&web, "HTTP", oidc, "InvalidLoadBalancerAction");
    let circle =
        json!([{ "Type": "redirect", "RedirectConfig": { "StatusCode": "HTTP_301", "Query": "x" } }]);
    refused(&web, "HTTP", circle, "InvalidLoadBalancerAction");
    let heavy = json!([{ "Type": "forward", "ForwardConfig": { "TargetGroups": [
        { "TargetGroupArn": http, "Weight": 1000 } ] } }]);
    refused(&web, "HTTP", heavy, VALIDATION);
    let second = balancer(&mut world, "second");
    let request = json!({
        "LoadBalancerArn": second["LoadBalancerArn"], "Protocol": "HTTP", "Port": 80, "DefaultActions": forward(&http),
    });
    let message =
        format!("The following target groups cannot be associated with more than one load balancer: {http}");
    fails(world.write(listeners::create_listener, request), "TargetGroupAssociationLimit", &message);

    let net = network_balancer(&mut world, "net");
    listener(&mut world, &net, 90, &tcp);
    let fixed = json!([{ "Type": "fixed-response", "FixedResponseConfig": { "StatusCode": "200" } }]);
    let request = json!({
        "LoadBalancerArn": net["LoadBalancerArn"], "Protocol": "TCP", "Port": 91, "DefaultActions": fixed,
    });
    assert_eq!(
        world.write(listeners::create_listener, request).unwrap_err().code,
        "InvalidLoadBalancerAction"
    );
}

#[test]
fn whether_private_links_are_filtered_is_kept() {
    const FILTERS: &str = "EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic";
    let mut world = World::new();
    let groups = world.read(describe_security_groups, json!({})).unwrap();
    let security = &groups["SecurityGroups"][0]["GroupId"];
    let made = |world: &mut World, name: &str, kind: &str| {
        let request = json!({
            "Name": name, "Subnets": ["subnet-1", "subnet-2"], "Type": kind, "SecurityGroups": [security],
        });
        world.write(load_balancer::create_load_balancer, request).unwrap()["LoadBalancers"][0].take()
    };
    let net = made(&mut world, "net", "network");
    assert_eq!(net[FILTERS], "on");
    let set = |balancer: &serde_json::Value| json!({ "LoadBalancerArn": balancer["LoadBalancerArn"], "SecurityGroups": [security], FILTERS: "off" });
    let answer = world.write(load_balancer::set_security_groups, set(&net)).unwrap();
    assert_eq!((&answer[FILTERS], &answer["SecurityGroupIds"][0]), (&json!("off"), security));
    world.restart();
    let shown = world.read(load_balancer::describe_load_balancers, json!({ "Names": ["net"] })).unwrap();
    assert_eq!(shown["LoadBalancers"][0][FILTERS], "off");
    let web = made(&mut world, "web", "application");
    assert_eq!(web.get(FILTERS), None);
    assert_eq!(world.write(load_balancer::set_security_groups, set(&web)).unwrap_err().code, VALIDATION);
}
