//! Each text that a service tells of itself, in the situation that ECS tells it in. Those of load balancers are in
//! `balanced`, those of rebalancing in `rebalance`, of waiting tasks in `capacity`.

use super::capacity::with_fargate;
use super::service::{Fate, LONG, runs};
use super::service_deployment::newest_fails;
use super::world::World;
use crate::services::ec2::ops::{subnet, vpc};
use crate::services::ecs::ops::{protection, submit};
use crate::services::ecs::state::TaskKey;
use gantry_decide::lifecycle::HealthStatus;
use serde_json::{Value, json};
use std::time::Duration;

type Situation = fn() -> World;

/// `*` stands for an id.
const EVENTS: [(&str, Situation); 17] = [
    ("(service web) has started 1 tasks: (task *).", started),
    ("(service web) has started 2 tasks: (task *) (task *).", || service(json!({"desiredCount": 2}))),
    ("(service web) has reached a steady state.", steady),
    ("(service web) has stopped 1 running tasks: (task *).", shrunk),
    ("(service web) (deployment ecs-svc/*) deployment completed.", steady),
    ("(service web) (deployment ecs-svc/*) deployment failed: tasks failed to start.", rolled_back),
    ("(service web) rolling back to deployment ecs-svc/*.", rolled_back),
    ("(service web) (task *) failed container health checks.", unhealthy),
    (
        "(service web) has started 1 tasks: (task *). Amazon ECS replaced 1 tasks due to an unhealthy status.",
        unhealthy,
    ),
    (
        "(service web) was unable to place a task because no container instance met all of its requirements. The closest \
         matching (container-instance *) has insufficient memory available. For more information, see the \
         Troubleshooting section of the Amazon ECS Developer Guide.",
        full,
    ),
    (
        "(service web) was unable to place a task because no container instance met all of its requirements. The closest \
         matching (container-instance *) encountered error \"RESOURCE:ENI\". For more information, see the \
         Troubleshooting section of the Amazon ECS Developer Guide.",
        || without_addresses("EC2"),
    ),
    ("(service web) could not launch 2 tasks for deployment ecs-svc/*. Reason: RESOURCE:ENI.", || {
        without_addresses("FARGATE")
    }),
    (
        "(service web) was unable to place a task. Reason: Capacity is unavailable at this time. Please try again later or \
         in a different availability zone. For more information, see the Troubleshooting section of the Amazon ECS \
         Developer Guide.",
        || on_fargate(9),
    ),
    (
        "(service web) was unable to place a task. Reason: CannotPullContainerError: no such image. For more information, \
         see the Troubleshooting section of the Amazon ECS Developer Guide.",
        without_image,
    ),
    (
        "(service web) is unable to consistently start tasks successfully. For more information, see the \
         Troubleshooting section of the Amazon ECS Developer Guide.",
        never_starts,
    ),
    (
        "(service web) was unable to stop or start tasks during a deployment because of the service deployment \
         configuration. Update the minimumHealthyPercent or maximumPercent value and try again.",
        stuck,
    ),
    (
        "(service web) was unable to reach steady state because (taskSet ecs-svc/*) was unable to scale in. Reason: The \
         number of protected tasks are more than the desired count of tasks.",
        protected,
    ),
];

fn service(change: Value) -> World {
    let mut world = World::with_capacity(7800);
    world.create_service(change);
    world
}

fn started() -> World {
    service(json!({"desiredCount": 1}))
}

fn steady() -> World {
    World::with_service(json!({"desiredCount": 1}))
}

fn shrunk() -> World {
    let mut world = World::with_service(json!({"desiredCount": 2}));
    world.update_service(json!({"desiredCount": 1}));
    world
}

fn rolled_back() -> World {
    let breaker = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": true}});
    let mut world = World::with_service(json!({"desiredCount": 1, "deploymentConfiguration": breaker}));
    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    for _ in 0..8 {
        world.agent_acts(newest_fails);
        world.pass(LONG);
    }
    world
}

fn unhealthy() -> World {
    let mut world = World::with_capacity(7800);
    world.define(json!({"family": "app", "containerDefinitions": [{
        "name": "app", "image": "app:1", "memory": 128, "cpu": 64, "versionConsistency": "disabled",
        "healthCheck": {"command": ["CMD", "true"]},
    }]}));
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    for health in [HealthStatus::Healthy, HealthStatus::Unhealthy] {
        let tasks: Vec<TaskKey> = world.live().iter().map(TaskKey::from).collect();
        for key in tasks {
            let mut task = world.state.ecs.task(&key).unwrap().clone();
            task.containers[0].health_status = health;
            world.state.ecs.put_task(task);
        }
        world.come_to_rest();
    }
    // The replacement is well: the other one goes.
    world.agent_acts(runs);
    let newest = TaskKey::from(world.live().iter().max_by_key(|task| (task.created_at, task.id)).unwrap());
    let mut task = world.state.ecs.task(&newest).unwrap().clone();
    task.containers[0].health_status = HealthStatus::Healthy;
    world.state.ecs.put_task(task);
    world.come_to_rest();
    world
}

fn full() -> World {
    let mut world = World::with_capacity(300);
    world.create_service(json!({"desiredCount": 5}));
    world
}

/// The service's tasks have interfaces of their own, in a subnet that is deleted before they start.
fn without_addresses(launch_type: &str) -> World {
    let mut world = with_fargate();
    let attributes = [
        "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        "ecs.capability.task-eni",
        "gantry.inline-eni",
    ];
    world.add_instance_with(7800, &attributes);
    let container = json!({"name": "web", "image": "web:1", "memory": 128, "versionConsistency": "disabled"});
    world.define(json!({"family": "EC2", "networkMode": "awsvpc", "containerDefinitions": [container]}));
    let definition = if launch_type == "EC2" { "EC2" } else { "web" };
    let made = world.write(vpc::create_vpc, json!({"CidrBlock": "10.9.0.0/16"})).unwrap();
    let request = json!({"VpcId": made["Vpc"]["VpcId"], "CidrBlock": "10.9.0.0/24"});
    let subnet = world.write(subnet::create_subnet, request).unwrap()["Subnet"]["SubnetId"].take();
    world.create_service(json!({
        "taskDefinition": definition, "launchType": launch_type, "desiredCount": 0,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet]}},
    }));
    world.write(subnet::delete_subnet, json!({"SubnetId": subnet})).unwrap();
    world.update_service(json!({"desiredCount": 2}));
    world
}

fn on_fargate(count: u32) -> World {
    let mut world = with_fargate();
    world.create_service(json!({
        "taskDefinition": "web", "launchType": "FARGATE", "desiredCount": count,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }));
    world
}

fn without_image() -> World {
    let mut world = on_fargate(1);
    for _ in 0..2 {
        for task in world.live() {
            let arn = task.arn(&world.scope).to_string();
            let reason = "CannotPullContainerError: no such image.";
            let request = json!({"task": arn, "status": "STOPPED", "reason": reason, "containers": []});
            world.write(submit::submit_task_state_change, request).unwrap();
        }
        world.come_to_rest();
    }
    world
}

fn never_starts() -> World {
    let mut world = service(json!({"desiredCount": 1}));
    for _ in 0..6 {
        world.agent_acts(|_| Fate::FailsToStart);
        world.pass(LONG);
    }
    world
}

fn stuck() -> World {
    let percent = json!({"minimumHealthyPercent": 100, "maximumPercent": 100});
    let mut world = World::with_service(json!({"desiredCount": 2, "deploymentConfiguration": percent}));
    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    world
}

fn protected() -> World {
    let mut world = World::with_service(json!({"desiredCount": 2}));
    let tasks: Vec<String> = world.live().iter().map(|task| task.id.to_string()).collect();
    let protect = json!({"cluster": "default", "tasks": tasks, "protectionEnabled": true});
    world.write(protection::update_task_protection, protect).unwrap();
    world.update_service(json!({"desiredCount": 0}));
    world
}

/// Whether a message is of a form in which `*` stands for the characters of ids.
fn is_of(form: &str, message: &str) -> bool {
    let mut rest = message;
    for (index, part) in form.split('*').enumerate() {
        if index > 0 {
            let id =
                rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '-').len();
            if id == 0 {
                return false;
            }
            rest = &rest[id..];
        }
        match rest.strip_prefix(part) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[test]
fn services_tell_each_event_in_ecs_words() {
    for (form, situation) in EVENTS {
        let messages = situation().messages();
        assert!(messages.iter().any(|message| is_of(form, message)), "no {form} in {messages:#?}");
    }
}

#[test]
fn what_is_wrong_still_is_not_told_again() {
    let told = |world: &mut World, part: &str| world.messages().iter().filter(|m| m.contains(part)).count();
    let mut world = without_image();
    assert_eq!(told(&mut world, "CannotPullContainerError"), 1, "though two tasks ended so");
    let mut world = steady();
    world.pass(Duration::from_secs(6 * 3600 - 60));
    assert_eq!(told(&mut world, "steady state"), 1);
    world.pass(Duration::from_secs(60));
    assert_eq!(told(&mut world, "steady state"), 2, "that it still is, is told every six hours");
}
