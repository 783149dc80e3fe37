//! Scripts: activations made and used up, machines that join, come back and leave.
#![allow(clippy::unwrap_used)]

use super::links;
use super::ops::{activation, instance};
use crate::call::{Caller, Machine, Principal};
use crate::services::ecs::tests::world::{World, fails, registration};
use crate::state::Installation;
use crate::tx::View;
use gantry_wire::ApiError;
use gantry_wire::sigv4::{SessionKey, activation_code};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn world() -> World {
    let mut world = World::new();
    world.create("default");
    let key = Some(SessionKey::new(&[7; SessionKey::LENGTH]));
    world.state.installation = Arc::new(Installation { key, ..Installation::default() });
    world
}

fn activate(world: &mut World, request: Value) -> String {
    let made = world.write(activation::create_activation, request).unwrap();
    let key = SessionKey::new(&[7; SessionKey::LENGTH]);
    let id = made["ActivationId"].as_str().unwrap().to_owned();
    assert_eq!(made["ActivationCode"], activation_code(&key, &id).expose());
    id
}

/// Registers a container instance as this principal.
fn register(world: &mut World, principal: Principal, request: Value) -> Result<Value, ApiError> {
    world.principal = principal;
    let reply = world.register_instance(request);
    world.principal = Principal::Root;
    Ok(reply?["containerInstance"].take())
}

fn described(world: &mut World) -> Value {
    let mut reply = world.read(activation::describe_activations, json!({})).unwrap();
    reply["ActivationList"][0].take()
}

#[test]
fn a_machine_joins_by_an_activation_and_is_known_from_then_on() {
    let world = &mut world();
    let id =
        activate(world, json!({"IamRole": "edge", "DefaultInstanceName": "till", "RegistrationLimit": 1}));
    let joins = Principal::Activation(id.parse().unwrap());
    let joined = register(world, joins.clone(), registration("default")).unwrap();
    let machine = joined["ec2InstanceId"].as_str().unwrap().to_owned();
    assert!(machine.starts_with("mi-"));
    let attributes = joined["attributes"].as_array().unwrap();
    assert!(attributes.contains(&json!({"name": "ecs.capability.external"})));
    assert_eq!(described(world)["RegistrationsCount"], 1);
    world.restart_with_installation();
    let shown = world.read(instance::describe_instance_information, json!({})).unwrap();
    let shown = &shown["InstanceInformationList"][0];
    assert_eq!((&shown["InstanceId"], &shown["Name"]), (&json!(machine), &json!("till")));
    assert_eq!((&shown["PingStatus"], &shown["ActivationId"]), (&json!("ConnectionLost"), &json!(id)));
    fails(
        register(world, joins, registration("default")),
        "ClientException",
        "The registration limit of the activation has been reached.",
    );

    let own = Machine { id: machine.parse().unwrap(), activation: id.parse().unwrap() };
    let mut again = registration("default");
    again["containerInstanceArn"] = joined["containerInstanceArn"].clone();
    let returned = register(world, Principal::Machine(own), again.clone()).unwrap();
    assert_eq!(returned["ec2InstanceId"], joined["ec2InstanceId"]);
    let other = world.join("default");
    again["containerInstanceArn"] = json!(other);
    let theft = register(world, Principal::Machine(own), again).unwrap_err();
    assert_eq!(theft.code, "AccessDeniedException");

    let check = |world: &World| {
        let view = View { scope: &world.scope, state: &world.state, now: world.now };
        let principal = Principal::Machine(own);
        let caller = Caller { scope: world.scope.clone(), principal, access_key_id: String::new() };
        links::check_caller(view, &caller)
    };
    assert!(check(world).is_ok());
    world.write(instance::deregister_managed_instance, json!({"InstanceId": machine})).unwrap();
    assert_eq!(check(world).unwrap_err().code, "AccessDeniedException");
    let gone = world.write(instance::deregister_managed_instance, json!({"InstanceId": machine}));
    assert_eq!(gone.unwrap_err().code, "InvalidInstanceId");
}

#[test]
fn an_answer_that_was_lost_costs_no_registration() {
    let world = &mut world();
    let id = activate(world, json!({"IamRole": "edge"}));
    let joins = Principal::Activation(id.parse().unwrap());
    let mut request = registration("default");
    request["clientToken"] = json!("0d6c0f1e-4b0c-4a49-9d7e-3a5d1c2b9f00");
    let first = register(world, joins.clone(), request.clone()).unwrap();
    assert_eq!(register(world, joins, request).unwrap(), first);
    assert_eq!(described(world)["RegistrationsCount"], 1);
}

#[test]
fn activations_end() {
    let world = &mut world();
    let id = activate(world, json!({"IamRole": "edge", "RegistrationLimit": 5}));
    let joins = Principal::Activation(id.parse().unwrap());
    world.now = world.now + Duration::from_secs(24 * 3600);
    fails(
        register(world, joins.clone(), registration("default")),
        "ClientException",
        "The activation has expired.",
    );
    assert_eq!(described(world)["Expired"], true);
    world.write(activation::delete_activation, json!({"ActivationId": id})).unwrap();
    fails(
        register(world, joins, registration("default")),
        "ClientException",
        "The activation does not exist in this region.",
    );
    let again = world.write(activation::delete_activation, json!({"ActivationId": id}));
    assert_eq!(again.unwrap_err().code, "InvalidActivationId");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let world = &mut world();
    let seconds = |world: &World, after: i64| (world.now.as_millis() / 1000 + after) as f64;
    for (after, fits) in [(-10, false), (3600, true), (31 * 24 * 3600, false)] {
        let request = json!({"IamRole": "edge", "ExpirationDate": seconds(world, after)});
        assert_eq!(world.write(activation::create_activation, request).is_ok(), fits, "{after}");
    }
    assert!(world.write(activation::create_activation, json!({"IamRole": ""})).is_err());
    let pool = crate::services::ecs::state::FARGATE_POOL;
    let id = activate(world, json!({"IamRole": "edge"}));
    let denied = register(world, Principal::Activation(id.parse().unwrap()), registration(pool));
    assert_eq!(denied.unwrap_err().code, "AccessDeniedException");
    let filter = json!({"Filters": [{"Key": "Colour", "Values": ["red"]}]});
    let refused = world.read(instance::describe_instance_information, filter);
    assert_eq!(refused.unwrap_err().code, "InvalidFilter");
    let none = json!({"Filters": [{"FilterKey": "IamRole", "FilterValues": ["other"]}]});
    let found = world.read(activation::describe_activations, none).unwrap();
    assert_eq!(found["ActivationList"], json!([]));
}

#[test]
fn without_a_key_there_are_no_activations() {
    let mut world = World::new();
    let refused = world.write(activation::create_activation, json!({"IamRole": "edge"})).unwrap_err();
    assert_eq!(refused.code, "UnsupportedFeatureException");
}
