//! Load balancers that are reached by IPv6.

use super::{VALIDATION, forward, group, text, vpc};
use crate::routing::compile;
use crate::services::ec2::ops::cidr_block::{
    associate_subnet_cidr_block, associate_vpc_cidr_block, disassociate_subnet_cidr_block,
};
use crate::services::ec2::ops::subnet::describe_subnets;
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::ops::{listener, load_balancer};
use crate::services::elbv2::state::BalancerAddresses;
use crate::state::{Installation, State};
use gantry_decide::network::Ipv6Block;
use gantry_decide::routing::config::RoutingConfig;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

const NO_IPV6: &str = "You must specify subnets with an associated IPv6 CIDR block.";

/// Gives the first subnets of the default VPC blocks; returns how these are known.
fn with_ipv6(world: &mut World, count: usize) -> Vec<String> {
    let request = json!({ "VpcId": vpc(world), "AmazonProvidedIpv6CidrBlock": true });
    let made = world.write(associate_vpc_cidr_block, request).unwrap();
    let whole: Ipv6Block = text(&made["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"]).parse().unwrap();
    let subnets = world.read(describe_subnets, json!({})).unwrap();
    let associated = (0..count).map(|number| {
        let base = Ipv6Addr::from(u128::from(whole.base()) + ((number as u128) << 64));
        let subnet = &subnets["Subnets"][number]["SubnetId"];
        let request = json!({ "SubnetId": subnet, "Ipv6CidrBlock": format!("{base}/64") });
        let made = world.write(associate_subnet_cidr_block, request).unwrap();
        text(&made["Ipv6CidrBlockAssociation"]["AssociationId"])
    });
    associated.collect()
}

fn create(world: &mut World, name: &str, more: Value) -> Result<Value, gantry_wire::ApiError> {
    let mut request =
        json!({ "Name": name, "Subnets": ["subnet-1", "subnet-2"], "IpAddressType": "dualstack" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Ok(world.write(load_balancer::create_load_balancer, request)?["LoadBalancers"][0].take())
}

/// Of each zone: by IPv4 and by IPv6.
fn addresses(balancer: &Value) -> Vec<(Option<String>, Option<String>)> {
    let zones = balancer["AvailabilityZones"].as_array().unwrap();
    let both = |zone: &Value| {
        let shown = &zone["LoadBalancerAddresses"][0];
        let of = |name: &str| shown.get(name).map(text);
        (of("IpAddress"), of("IPv6Address"))
    };
    zones.iter().map(both).collect()
}

fn compiled(world: &World) -> RoutingConfig {
    let mut state = State::default();
    state.install(Installation::clone(&world.state.installation));
    state.replace(&world.scope, world.state.clone());
    compile(&state, 1)
}

#[test]
fn subnets_need_blocks_and_each_zone_gets_both_addresses() {
    let mut world = World::new();
    fails(create(&mut world, "web", json!({})), VALIDATION, NO_IPV6);
    let blocks = with_ipv6(&mut world, 2);
    let web = create(&mut world, "web", json!({})).unwrap();
    assert_eq!(web["IpAddressType"], "dualstack");
    let shown = addresses(&web);
    let all: std::collections::BTreeSet<Ipv6Addr> =
        shown.iter().map(|(_, ipv6)| ipv6.as_ref().unwrap().parse().unwrap()).collect();
    assert_eq!((all.len(), shown.iter().filter(|(ipv4, _)| ipv4.is_some()).count()), (2, 2));

    let config = compiled(&world);
    let told: Vec<IpAddr> = config.load_balancers[0].addresses.iter().map(|address| address.ip).collect();
    assert_eq!(told.len(), 4);
    let own = config.own_addresses.unwrap();
    assert!(own.base().is_unique_local() && own.bits() == 64, "{own}");
    assert!(all.iter().all(|ip| own.contains(*ip) && told.contains(&IpAddr::V6(*ip))));

    // A subnet's block stays as long as somebody has an address because of it.
    let gone = json!({ "AssociationId": blocks[0] });
    let error = world.write(disassociate_subnet_cidr_block, gone.clone()).unwrap_err();
    assert_eq!(error.code, "DependencyViolation");
    world.restart();
    let arn = web["LoadBalancerArn"].clone();
    let set = |kind: &str| json!({ "LoadBalancerArn": arn, "IpAddressType": kind });
    world.write(load_balancer::set_ip_address_type, set("ipv4")).unwrap();
    let describe = |world: &mut World| {
        world.read(load_balancer::describe_load_balancers, json!({ "Names": ["web"] })).unwrap()
            ["LoadBalancers"][0]
            .take()
    };
    let narrow = describe(&mut world);
    let ipv4 = |balancer: &Value| addresses(balancer).into_iter().map(|(ipv4, _)| ipv4).collect::<Vec<_>>();
    assert_eq!((ipv4(&narrow), &narrow["IpAddressType"]), (ipv4(&web), &json!("ipv4")));
    assert_eq!(addresses(&narrow)[0].1, None);
    assert_eq!(compiled(&world).own_addresses, None, "nothing is led anywhere for nobody");
    world.write(disassociate_subnet_cidr_block, gone).unwrap();
    fails(world.write(load_balancer::set_ip_address_type, set("dualstack")), VALIDATION, NO_IPV6);
}

#[test]
fn subnets_that_are_added_need_blocks_too() {
    let mut world = World::new();
    with_ipv6(&mut world, 3);
    let web = create(&mut world, "web", json!({})).unwrap();
    let request = json!({ "LoadBalancerArn": web["LoadBalancerArn"], "Subnets": ["subnet-1", "subnet-3"] });
    let moved = world.write(load_balancer::set_subnets, request).unwrap();
    assert_eq!(
        (moved["AvailabilityZones"][0].clone(), &moved["IpAddressType"]),
        (web["AvailabilityZones"][0].clone(), &json!("dualstack"))
    );
    assert!(addresses(&moved)[1].1.is_some());
    let (mut other, two) = (World::new(), json!(["subnet-1", "subnet-2"]));
    with_ipv6(&mut other, 1);
    let plain = create(&mut other, "web", json!({ "IpAddressType": "ipv4" })).unwrap();
    let request =
        json!({ "LoadBalancerArn": plain["LoadBalancerArn"], "Subnets": two, "IpAddressType": "dualstack" });
    fails(other.write(load_balancer::set_subnets, request), VALIDATION, NO_IPV6);
}

#[test]
fn without_public_ipv4_clients_have_ipv6_alone() {
    let mut world = World::new();
    with_ipv6(&mut world, 2);
    let alone = json!({ "IpAddressType": "dualstack-without-public-ipv4" });
    let web = create(&mut world, "web", alone.clone()).unwrap();
    assert!(addresses(&web).iter().all(|(ipv4, ipv6)| ipv4.is_none() && ipv6.is_some()));
    assert!(compiled(&world).load_balancers[0].addresses.iter().all(|address| address.ip.is_ipv6()));
    for more in [json!({ "Scheme": "internal" }), json!({ "Type": "network" })] {
        let mut more = more;
        more.as_object_mut().unwrap().extend(alone.as_object().unwrap().clone());
        let refused = create(&mut world, "other", more).unwrap_err();
        assert_eq!(refused.code, "InvalidConfigurationRequest");
    }
}

#[test]
fn datagrams_need_a_prefix_for_source_nat() {
    let mut world = World::new();
    with_ipv6(&mut world, 2);
    let on = json!({ "Type": "network", "EnablePrefixForIpv6SourceNat": "on" });
    let (one, two) = (create(&mut world, "one", on), create(&mut world, "two", json!({ "Type": "network" })));
    let (one, two) = (one.unwrap(), two.unwrap());
    let shown = |balancer: &Value| text(&balancer["EnablePrefixForIpv6SourceNat"]);
    assert_eq!((shown(&one), shown(&two)), ("on".to_owned(), "off".to_owned()));
    let to = group(&mut world, "dns", json!({ "Protocol": "UDP", "Port": 53 }));
    let listen = |balancer: &Value| {
        let arn = &balancer["LoadBalancerArn"];
        json!({ "LoadBalancerArn": arn, "Protocol": "UDP", "Port": 53, "DefaultActions": forward(&to) })
    };
    let refused = world.write(listener::create_listener, listen(&two)).unwrap_err();
    assert_eq!(refused.code, "InvalidConfigurationRequest");
    world.write(listener::create_listener, listen(&one)).unwrap();
    let off = json!({
        "LoadBalancerArn": one["LoadBalancerArn"], "Subnets": ["subnet-1"], "EnablePrefixForIpv6SourceNat": "off",
    });
    assert_eq!(world.write(load_balancer::set_subnets, off).unwrap_err().code, "InvalidConfigurationRequest");
    let application = create(&mut world, "web", json!({ "EnablePrefixForIpv6SourceNat": "on" }));
    assert_eq!(application.unwrap_err().code, "InvalidConfigurationRequest");
}

#[test]
fn an_operators_pool_is_used_up_and_led_nowhere() {
    let mut world = World::new();
    with_ipv6(&mut world, 2);
    let pool: Ipv6Block = "2001:db8::8/126".parse().unwrap();
    let balancer_addresses = BalancerAddresses { ipv6: Some(pool), ..BalancerAddresses::default() };
    world.state.installation = Arc::new(Installation { balancer_addresses, ..Installation::default() });
    let one = create(&mut world, "one", json!({})).unwrap();
    assert!(addresses(&one).iter().all(|(_, ipv6)| pool.contains(ipv6.as_ref().unwrap().parse().unwrap())));
    assert_eq!(compiled(&world).own_addresses, None, "it is for the operator to lead it");
    create(&mut world, "two", json!({ "Type": "network", "Subnets": ["subnet-1"] })).unwrap();
    let refused = create(&mut world, "three", json!({})).unwrap_err();
    assert!(
        refused.code == "InvalidSubnet" && refused.to_string().contains("2001:db8::8/126 is taken"),
        "{refused}"
    );
}
