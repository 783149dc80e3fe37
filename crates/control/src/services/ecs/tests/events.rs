//! Each text that a service tells of itself, in the situation that ECS tells it in. Those of load balancers are in
//! `balanced`, those of rebalancing in `rebalance`, of waiting tasks in `capacity`.

use super::service::{Fate, LONG, runs};
use super::service_deployment::newest_fails;
use super::world::World;
use crate::services::ecs::ops::protection;
use crate::services::ecs::state::TaskKey;
use gantry_decide::lifecycle::HealthStatus;
use serde_json::{Value, json};

type Situation = fn() -> World;

/// `*` stands for an id.
const EVENTS: [(&str, Situation); 13] = [
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
