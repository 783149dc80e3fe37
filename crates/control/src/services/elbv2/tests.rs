//! Scripts: calls in, replies and table changes out.
#![allow(clippy::unwrap_used)]

mod attributes;
mod dual_stack;
mod groups;
mod listeners;
mod rules;
mod trust_stores;

use super::SERVICE;
use super::ops::{listener, load_balancer, target_group};
use crate::services::ec2::ops::vpc::describe_vpcs;
use crate::services::ecs::tests::world::World;
use serde_json::{Value, json};

const VALIDATION: &str = "ValidationError";

#[test]
fn every_operation_of_the_model_is_served_or_refused() {
    let named: Vec<&str> = SERVICE.model.operations.iter().map(|operation| operation.name).collect();
    let mut known: Vec<&str> = SERVICE.operations.iter().map(|operation| operation.name).collect();
    known.extend(SERVICE.later);
    known.sort_unstable();
    assert_eq!(known, named);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

pub(crate) fn balancer(world: &mut World, name: &str) -> Value {
    let request = json!({ "Name": name, "Subnets": ["subnet-1", "subnet-2"] });
    world.write(load_balancer::create_load_balancer, request).unwrap()["LoadBalancers"][0].take()
}

fn network_balancer(world: &mut World, name: &str) -> Value {
    let request = json!({ "Name": name, "Subnets": ["subnet-1"], "Type": "network" });
    world.write(load_balancer::create_load_balancer, request).unwrap()["LoadBalancers"][0].take()
}

fn vpc(world: &mut World) -> String {
    text(&world.read(describe_vpcs, json!({})).unwrap()["Vpcs"][0]["VpcId"])
}

/// A target group's ARN.
pub(crate) fn group(world: &mut World, name: &str, more: Value) -> String {
    let mut request =
        json!({ "Name": name, "Protocol": "HTTP", "Port": 80, "VpcId": vpc(world), "TargetType": "ip" });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = world.write(target_group::create_target_group, request).unwrap();
    text(&made["TargetGroups"][0]["TargetGroupArn"])
}

fn forward(group: &str) -> Value {
    json!([{ "Type": "forward", "TargetGroupArn": group }])
}

/// A listener's ARN.
pub(crate) fn listener(world: &mut World, balancer: &Value, port: u16, group: &str) -> String {
    let arn = &balancer["LoadBalancerArn"];
    let protocol = if balancer["Type"] == "network" { "TCP" } else { "HTTP" };
    let request = json!({
        "LoadBalancerArn": arn, "Protocol": protocol, "Port": port, "DefaultActions": forward(group),
    });
    text(&world.write(listener::create_listener, request).unwrap()["Listeners"][0]["ListenerArn"])
}

/// A load balancer's ARN, its listener's and its group's.
pub(crate) fn website(world: &mut World) -> (String, String, String) {
    let balancer = balancer(world, "web");
    let group = group(world, "web", json!({}));
    let listener = listener(world, &balancer, 80, &group);
    (text(&balancer["LoadBalancerArn"]), listener, group)
}
