//! Scripts on container instances and their attributes.
#![allow(clippy::unwrap_used)]

use super::service::runs;
use super::world::{CLIENT, INVALID, World, fails, registration};
use crate::controllers::container_instances::ContainerInstances;
use crate::controllers::testing::round;
use crate::services::ecs::ops::{attribute, container_instance, task_definition};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn an_agent_registers_and_gets_its_attributes_back() {
    let world = &mut World::new();
    let reply =
        world.write(container_instance::register_container_instance, registration("default")).unwrap();
    let instance = &reply["containerInstance"];
    let attributes = instance["attributes"].as_array().unwrap();
    for sent in registration("default")["attributes"].as_array().unwrap() {
        assert!(attributes.contains(sent), "{sent} is echoed");
    }
    assert!(attributes.contains(&json!({"name": "ecs.availability-zone", "value": "eu-north-1a"})));
    assert_eq!(instance["status"], "ACTIVE");
    assert_eq!(instance["agentConnected"], false);
    assert_eq!(instance["registeredResources"][0]["integerValue"], 4096);
    assert_eq!(instance["remainingResources"][2]["stringSetValue"], json!(["22", "51678"]));
    assert!(instance["ec2InstanceId"].as_str().unwrap().starts_with("i-0"));
    fails(
        world.write(container_instance::register_container_instance, registration("nowhere")),
        "ClusterNotFoundException",
        "Cluster not found.",
    );
}

#[test]
fn a_repeated_registration_is_the_same_instance() {
    let world = &mut World::new();
    let mut request = registration("default");
    request["clientToken"] = json!("0d6c0f1e-4b0c-4a49-9d7e-3a5d1c2b9f00");
    let mut register =
        |request: &Value| world.write(container_instance::register_container_instance, request.clone());
    let first = register(&request).unwrap();
    assert_eq!(register(&request).unwrap(), first, "its answer was lost");
    let arn = &first["containerInstance"]["containerInstanceArn"];
    let mut other = request.clone();
    other["totalResources"][0]["integerValue"] = json!(1024);
    assert_eq!(register(&other).unwrap_err().code, "ConflictException");
    // A new start of the agent has a new token: with its data directory it is the same instance, without it another.
    request["clientToken"] = json!("another");
    request["containerInstanceArn"] = arn.clone();
    assert_eq!(&register(&request).unwrap()["containerInstance"]["containerInstanceArn"], arn);
    request.as_object_mut().unwrap().remove("containerInstanceArn");
    assert_ne!(&register(&request).unwrap()["containerInstance"]["containerInstanceArn"], arn);
    assert_eq!(world.state.ecs.container_instances().len(), 2);
}

#[test]
fn an_identity_document_tells_where_the_host_is() {
    let world = &mut World::new();
    let mut request = registration("default");
    let document =
        json!({"instanceId": "i-0abc", "instanceType": "t3.small", "availabilityZone": "eu-north-1c"});
    request["instanceIdentityDocument"] = json!(document.to_string());
    let reply = world.write(container_instance::register_container_instance, request).unwrap();
    let instance = &reply["containerInstance"];
    assert_eq!(instance["ec2InstanceId"], "i-0abc");
    let attributes = instance["attributes"].as_array().unwrap();
    assert!(attributes.contains(&json!({"name": "ecs.availability-zone", "value": "eu-north-1c"})));
    assert!(attributes.contains(&json!({"name": "ecs.instance-type", "value": "t3.small"})));
}

#[test]
fn a_returning_agent_brings_new_capabilities_and_keeps_what_the_user_set() {
    let world = &mut World::new();
    let arn = world.join("default");
    let put = json!({"attributes": [{"name": "stack", "value": "blue", "targetId": arn}]});
    world.write(attribute::put_attributes, put).unwrap();
    let again = json!({
        "cluster": "default", "containerInstanceArn": arn,
        "attributes": [{"name": "ecs.capability.task-eni"}, {"name": "ecs.os-type", "value": "linux"}],
        "totalResources": [
            {"name": "CPU", "type": "INTEGER", "integerValue": 2048},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 4000},
        ],
    });
    let reply = world.write(container_instance::register_container_instance, again.clone()).unwrap();
    let instance = &reply["containerInstance"];
    assert_eq!(instance["containerInstanceArn"], arn);
    let names: Vec<_> =
        instance["attributes"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ecs.availability-zone", "ecs.capability.task-eni", "ecs.os-type", "rack", "stack"]);
    assert_eq!(instance["registeredResources"][0]["integerValue"], 2048);
    assert_eq!(world.state.ecs.container_instances().len(), 1);

    let mut moved = again.clone();
    moved["attributes"] = json!([{"name": "rack", "value": "b8"}]);
    let reply = world.write(container_instance::register_container_instance, moved).unwrap();
    let rack = json!({"name": "rack", "value": "b8"});
    assert!(
        reply["containerInstance"]["attributes"].as_array().unwrap().contains(&rack),
        "what is sent is echoed"
    );

    let gone = json!({"containerInstance": arn});
    world.write(container_instance::deregister_container_instance, gone).unwrap();
    let reply = world.write(container_instance::register_container_instance, again);
    fails(reply, CLIENT, "The referenced container instance was not found.");
}

#[test]
fn wrong_registrations_are_refused() {
    let world = &mut World::new();
    for (resources, message) in [
        (json!([]), "The resources CPU and MEMORY are required."),
        (
            json!([{"name": "CPU", "type": "INTEGER", "integerValue": -1}]),
            "Invalid value of the resource CPU.",
        ),
        (
            json!([{"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["70000"]}]),
            "Invalid value of the resource PORTS.",
        ),
    ] {
        let mut request = registration("default");
        request["totalResources"] = resources;
        fails(world.write(container_instance::register_container_instance, request), INVALID, message);
    }
    assert!(world.state.ecs.clusters.is_empty(), "a refused registration makes no cluster either");
}

#[test]
fn instances_are_drained_described_and_listed() {
    let world = &mut World::new();
    let (one, two) = (world.join("default"), world.join("default"));
    let request =
        json!({"containerInstances": [one, "0123456789abcdef0123456789abcdef"], "status": "DRAINING"});
    let reply = world.write(container_instance::update_container_instances_state, request).unwrap();
    assert_eq!(reply["containerInstances"][0]["status"], "DRAINING");
    assert_eq!(
        reply["failures"],
        json!([{
            "arn": "arn:aws:ecs:eu-north-1:123456789012:container-instance/default/0123456789abcdef0123456789abcdef",
            "reason": "MISSING",
        }])
    );
    let list = |world: &mut World, request: Value| {
        world.read(container_instance::list_container_instances, request).unwrap()["containerInstanceArns"]
            .clone()
    };
    assert_eq!(list(world, json!({})).as_array().unwrap().len(), 2);
    assert_eq!(list(world, json!({"status": "DRAINING"})), json!([one]));
    assert_eq!(list(world, json!({"status": "ACTIVE"})), json!([two]));
    let wrong = json!({"containerInstances": [one], "status": "DEREGISTERING"});
    fails(
        world.write(container_instance::update_container_instances_state, wrong),
        INVALID,
        "Container instance status should be one of [ACTIVE, DRAINING]",
    );
    let update = world.write(container_instance::update_container_agent, json!({"containerInstance": one}));
    assert_eq!(update.unwrap_err().code, "NoUpdateAvailableException");
    let none =
        world.read(container_instance::describe_container_instances, json!({"containerInstances": []}));
    fails(none, INVALID, "Container instances cannot be empty.");
}

#[test]
fn instances_are_listed_by_query() {
    let mut world = World::new();
    world.create("default");
    let (one, two) = (world.join("default"), world.join("default"));
    world.register("web");
    world.run("web:1", &one);
    let put = json!({"attributes": [{"name": "stack", "value": "blue", "targetId": two}]});
    world.write(attribute::put_attributes, put).unwrap();
    let list = |world: &mut World, filter: &str| {
        let request = json!({ "filter": filter });
        world.read(container_instance::list_container_instances, request).unwrap()["containerInstanceArns"]
            .take()
    };
    assert_eq!(list(&mut world, "attribute:stack == blue"), json!([two]));
    assert_eq!(list(&mut world, "runningTasksCount > 0"), json!([one]));
    assert_eq!(list(&mut world, "not(task:group == family:web) and agentConnected == false"), json!([two]));
    assert_eq!(
        list(&mut world, "attribute:rack == b7 and attribute:stack exists or task:group =~ none"),
        json!([two])
    );
    assert_eq!(list(&mut world, " ").as_array().unwrap().len(), 2);
    fails(
        world.read(container_instance::list_container_instances, json!({"filter": "colour == red"})),
        INVALID,
        "Invalid expression: unknown subject 'colour' at character 1",
    );
}

#[test]
fn attributes_are_put_listed_and_deleted() {
    let world = &mut World::new();
    let arn = world.join("default");
    let id = arn.rsplit('/').next().unwrap().to_owned();
    let put = |world: &mut World, attributes: Value| {
        world.write(attribute::put_attributes, json!({ "attributes": attributes }))
    };
    let short =
        json!([{"name": "stack", "value": "blue", "targetId": id, "targetType": "container-instance"}]);
    let reply = put(world, short).unwrap();
    assert_eq!(reply["attributes"], json!([{"name": "stack", "value": "blue", "targetId": arn}]));
    fails(
        put(world, json!([{"name": "x", "targetId": id}])),
        INVALID,
        "A short targetId needs a targetType.",
    );
    fails(
        put(world, json!([{"name": "ecs.os-type", "value": "x", "targetId": arn}])),
        INVALID,
        "The attribute 'ecs.os-type' is set by the container agent.",
    );
    fails(put(world, json!([{"name": "a b", "targetId": arn}])), INVALID, "Invalid attribute name: 'a b'.");
    let absent =
        "arn:aws:ecs:eu-north-1:123456789012:container-instance/default/0123456789abcdef0123456789abcdef";
    fails(
        put(world, json!([{"name": "x", "targetId": absent}])),
        "TargetNotFoundException",
        "The specified target was not found.",
    );
    // `rack` and `stack` are there; eight more fit.
    let eight: Vec<Value> = (0..8).map(|n| json!({"name": format!("n{n}"), "targetId": arn})).collect();
    put(world, json!(eight)).unwrap();
    let error = put(world, json!([{"name": "n8", "targetId": arn}])).unwrap_err();
    assert_eq!(error.code, "AttributeLimitExceededException");

    let list = |world: &mut World, extra: Value| {
        let mut request = json!({"targetType": "container-instance"});
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        world.read(attribute::list_attributes, request).unwrap()
    };
    let blue = list(world, json!({"attributeName": "stack", "attributeValue": "blue"}));
    assert_eq!(blue["attributes"].as_array().unwrap().len(), 1);
    let first = list(world, json!({"maxResults": 12}));
    let second = list(world, json!({"nextToken": first["nextToken"]}));
    let all = list(world, json!({}));
    let count = |reply: &Value| reply["attributes"].as_array().unwrap().len();
    assert_eq!(count(&first) + count(&second), count(&all));

    let gone =
        json!({"attributes": [{"name": "stack", "targetId": arn}, {"name": "ecs.os-type", "targetId": arn}]});
    let reply = world.write(attribute::delete_attributes, gone).unwrap();
    assert_eq!(reply["attributes"].as_array().unwrap().len(), 1, "the agent's own attributes stay");
    assert_eq!(count(&list(world, json!({"attributeName": "stack"}))), 0);
    assert_eq!(count(&list(world, json!({"attributeName": "ecs.os-type"}))), 1);
}

#[test]
fn tasks_take_from_what_remains() {
    let world = &mut World::new();
    let arn = world.join("default");
    world.register("web");
    let request = json!({
        "family": "fixed",
        "containerDefinitions": [{
            "name": "app", "image": "app:1", "memory": 200, "cpu": 100,
            "portMappings": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "udp"}],
        }],
    });
    world.write(task_definition::register_task_definition, request).unwrap();
    world.run("web:1", &arn);
    world.run("fixed:1", &arn);
    let described = world
        .read(container_instance::describe_container_instances, json!({"containerInstances": [arn]}))
        .unwrap();
    let instance = &described["containerInstances"][0];
    assert_eq!(instance["runningTasksCount"], 2);
    assert_eq!(instance["pendingTasksCount"], 0);
    let remaining = |at: usize, member: &str| instance["remainingResources"][at][member].clone();
    assert_eq!(remaining(0, "integerValue"), 4096 - 64 - 100);
    assert_eq!(remaining(1, "integerValue"), 7800 - 128 - 200);
    assert_eq!(remaining(2, "stringSetValue"), json!(["22", "8080", "51678"]));
    assert_eq!(remaining(3, "stringSetValue"), json!(["53"]));
    assert_eq!(instance["registeredResources"][0]["integerValue"], 4096);
}

#[test]
fn deregistering_by_force_gives_the_tasks_up() {
    let world = &mut World::new();
    let arn = world.join("default");
    world.register("web");
    let key = world.run("web:1", &arn);
    let deregister = |world: &mut World, force: bool| {
        let request = json!({"containerInstance": arn, "force": force});
        world.write(container_instance::deregister_container_instance, request)
    };
    fails(deregister(world, false), INVALID, "Found running tasks on the instance.");
    assert!(world.state.ecs.task(&key).unwrap().is_live());
    let reply = deregister(world, true).unwrap();
    assert_eq!(reply["containerInstance"]["status"], "INACTIVE");
    assert_eq!(reply["containerInstance"]["runningTasksCount"], 0);
    let task = world.state.ecs.task(&key).unwrap();
    assert!(!task.is_live());
    assert_eq!(task.stopped_reason.as_deref(), Some("Container instance deregistration forced by user"));
    assert_eq!(
        deregister(world, false).unwrap()["containerInstance"]["status"],
        "INACTIVE",
        "twice is as good as once"
    );
    let listed = world.read(container_instance::list_container_instances, json!({})).unwrap();
    assert_eq!(listed["containerInstanceArns"], json!([]));
}

#[test]
fn a_deregistered_instance_is_describable_for_an_hour() {
    let mut world = World::with_capacity(1000);
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    let listed = world.read(container_instance::list_container_instances, json!({})).unwrap();
    let arn = listed["containerInstanceArns"][0].clone();
    let gone = json!({"containerInstance": arn, "force": true});
    world.write(container_instance::deregister_container_instance, gone).unwrap();
    world.come_to_rest();
    let mut after = |time: Duration| {
        world.pass(time);
        round::<ContainerInstances>(&mut world);
        world.state.ecs.check_invariants();
        world
            .read(container_instance::describe_container_instances, json!({"containerInstances": [arn]}))
            .unwrap()
    };
    assert_eq!(after(Duration::from_secs(3590))["containerInstances"][0]["status"], "INACTIVE");
    assert_eq!(after(Duration::from_secs(10))["failures"][0]["reason"], "MISSING");
    let mut again = registration("default");
    again["containerInstanceArn"] = arn;
    let refused = world.write(container_instance::register_container_instance, again);
    fails(refused, CLIENT, "The referenced container instance was not found.");
}
