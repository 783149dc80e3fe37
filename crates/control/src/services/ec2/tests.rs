//! Scripts: calls in, replies and table changes out.
#![allow(clippy::unwrap_used)]

mod groups;
mod launch_templates;
mod networks;

use super::SERVICE;
use super::ops::vpc;
use crate::services::ecs::tests::world::World;
use serde_json::{Value, json};

const INVALID: &str = "InvalidParameterValue";

#[test]
fn every_operation_of_the_model_is_served() {
    let named: Vec<&str> = SERVICE.model.operations.iter().map(|operation| operation.name).collect();
    let served: Vec<&str> = SERVICE.operations.iter().map(|operation| operation.name).collect();
    assert_eq!(served, named);
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn made_vpc(world: &mut World, block: &str) -> String {
    text(&world.write(vpc::create_vpc, json!({ "CidrBlock": block })).unwrap()["Vpc"]["VpcId"])
}

fn filter(name: &str, value: &str) -> Value {
    json!([{ "Name": name, "Values": [value] }])
}

/// The texts of one member of a list's items.
fn each(list: &Value, member: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| text(&item[member])).collect()
}
