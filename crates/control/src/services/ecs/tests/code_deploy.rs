//! Scripts on services of CodeDeploy, and on services that change their controller.

use super::service::{LONG, runs};
use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{service, task_definition, task_set};
use crate::services::elbv2::tests::{balancer, group, listener};
use serde_json::{Value, json};

/// A definition `app` with a port, and the group of a listener.
fn world() -> (World, Value) {
    let mut world = World::with_capacity(7800);
    let container = json!({
        "name": "app", "image": "app:1", "memory": 128, "versionConsistency": "disabled",
        "portMappings": [{"containerPort": 80}],
    });
    let definition = json!({"family": "app", "containerDefinitions": [container]});
    world.write(task_definition::register_task_definition, definition).unwrap();
    let balancer = balancer(&mut world, "web");
    let group = group(&mut world, "web", json!({"TargetType": "instance"}));
    listener(&mut world, &balancer, 80, &group);
    let balancers = json!([{"targetGroupArn": group, "containerName": "app", "containerPort": 80}]);
    (world, balancers)
}

fn request(balancers: &Value, change: Value) -> Value {
    let mut request = json!({
        "serviceName": "web", "taskDefinition": "app", "desiredCount": 2, "loadBalancers": balancers,
        "deploymentController": {"type": "CODE_DEPLOY"},
    });
    request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    request
}

fn update(world: &mut World, change: Value) -> Result<Value, gantry_wire::ApiError> {
    let mut request = json!({"service": "web"});
    request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let reply = world.write(service::update_service, request);
    world.come_to_rest();
    reply
}

#[test]
fn a_service_of_code_deploy_has_one_task_set_and_keeps_it() {
    let (mut world, balancers) = world();
    let made =
        world.write(service::create_service, request(&balancers, json!({}))).unwrap()["service"].take();
    assert_eq!(
        (&made["deployments"], &made["deploymentController"]),
        (&json!([]), &json!({"type": "CODE_DEPLOY"}))
    );
    let set = made["taskSets"][0].clone();
    assert_eq!((&set["status"], &set["computedDesiredCount"]), (&json!("PRIMARY"), &json!(2)));
    assert!(made["taskDefinition"].as_str().unwrap().ends_with("app:2"));
    world.come_to_rest();
    world.agent_acts(runs);
    world.pass(LONG);
    assert_eq!(world.service()["runningCount"], 2);

    let tail = "on services with a CODE_DEPLOY deployment controller. Use AWS CodeDeploy to trigger a new deployment.";
    for (change, what) in [
        (json!({"taskDefinition": "app"}), "Unable to update task definition"),
        (json!({"forceNewDeployment": true}), "Cannot force a new deployment"),
        (
            json!({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}}),
            "Unable to update network parameters",
        ),
    ] {
        fails(update(&mut world, change), INVALID, &format!("{what} {tail}"));
    }
    let percent = json!({"minimumHealthyPercent": 50});
    update(&mut world, json!({"desiredCount": 3, "deploymentConfiguration": percent})).unwrap();
    assert_eq!(world.service()["taskSets"][0]["computedDesiredCount"], 3);
    // Its task sets are CodeDeploy's to make and to change.
    let scale =
        json!({"cluster": "default", "service": "web", "taskSet": set["id"], "scale": {"value": 50.0}});
    let only = "Task sets are only supported with the EXTERNAL deployment controller.";
    fails(world.write(task_set::update_task_set, scale), INVALID, only);
    let shown =
        world.read(task_set::describe_task_sets, json!({"cluster": "default", "service": "web"})).unwrap();
    assert_eq!(shown["taskSets"][0]["id"], set["id"]);

    fails(
        world.write(service::delete_service, json!({"service": "web"})),
        INVALID,
        "The service cannot be stopped while it is scaled above 0.",
    );
    update(&mut world, json!({"desiredCount": 0})).unwrap();
    world.write(service::delete_service, json!({"service": "web"})).unwrap();
}

#[test]
fn what_code_deploy_does_not_know_is_refused() {
    let (mut world, balancers) = world();
    let mut create = |change: Value| {
        let error = world.write(service::create_service, request(&balancers, change)).unwrap_err();
        assert_eq!(error.code.as_ref(), INVALID);
        error.message
    };
    assert!(create(json!({"loadBalancers": []})).contains("needs a load balancer"));
    let breaker = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": false}});
    assert!(create(json!({"deploymentConfiguration": breaker})).contains("circuit breaker"));
    let shifts = json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1});
    assert!(create(json!({"deploymentConfiguration": shifts})).contains("strategies"));
    assert!(create(json!({"availabilityZoneRebalancing": "ENABLED"})).contains("CODE_DEPLOY"));
}

#[test]
fn a_service_changes_its_controller_and_keeps_its_tasks() {
    let (mut world, balancers) = world();
    world.write(service::create_service, request(&balancers, json!({}))).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    world.pass(LONG);
    let before: Vec<_> = world.live().iter().map(|task| task.id).collect();
    update(&mut world, json!({"deploymentController": {"type": "EXTERNAL"}})).unwrap();
    assert_eq!(world.live().iter().map(|task| task.id).collect::<Vec<_>>(), before);
    assert_eq!(world.service()["taskSets"][0]["status"], "PRIMARY");
    let error = update(&mut world, json!({"deploymentController": {"type": "CODE_DEPLOY"}})).unwrap_err();
    assert!(error.message.ends_with("from EXTERNAL to CODE_DEPLOY."), "{}", error.message);

    // What ECS takes over it deploys anew, beside what serves.
    update(&mut world, json!({"deploymentController": {"type": "ECS"}})).unwrap();
    let shown = world.service();
    assert_eq!((&shown["taskSets"], shown["deployments"].as_array().unwrap().len()), (&Value::Null, 2));
    assert!(before.iter().all(|id| world.live().iter().any(|task| task.id == *id)));
    let error = update(&mut world, json!({"deploymentController": {"type": "EXTERNAL"}})).unwrap_err();
    assert!(error.message.contains("while a deployment is in progress"), "{}", error.message);
}

#[test]
fn a_service_with_a_breaker_stays_with_ecs() {
    let mut world = World::with_service(json!({"deploymentConfiguration": {
        "deploymentCircuitBreaker": {"enable": true, "rollback": true}}}));
    let error = update(&mut world, json!({"deploymentController": {"type": "EXTERNAL"}})).unwrap_err();
    assert!(error.message.contains("the deployment circuit breaker"), "{}", error.message);
    update(
        &mut world,
        json!({"deploymentConfiguration": {
        "deploymentCircuitBreaker": {"enable": false, "rollback": false}}}),
    )
    .unwrap();
    update(&mut world, json!({"deploymentController": {"type": "EXTERNAL"}})).unwrap();
    let set = world.service()["taskSets"][0].clone();
    assert_eq!((&set["status"], &set["runningCount"]), (&json!("PRIMARY"), &json!(3)));
    world.restart();
    world.come_to_rest();
    assert_eq!(world.service()["runningCount"], 3);
}
