//! Services behind load balancers: tasks are registered, waited for, and drained.

use super::service::{Fate, LONG};
use super::world::{INVALID, World, fails};
use crate::controllers::Controller;
use crate::controllers::service_targets::ServiceTargets;
use crate::controllers::targets::Targets;
use crate::controllers::testing::settle;
use crate::services::ecs::balanced::targets;
use crate::services::ecs::ops::{service, submit, task_definition};
use crate::services::ecs::state::{NetworkBinding, Task};
use crate::services::elbv2::links;
use crate::services::elbv2::ops::{listener as listeners, target, target_group};
use crate::services::elbv2::state::{AddressFamily, TargetType};
use crate::services::elbv2::tests::{balancer, group, listener};
use crate::state::Change;
use crate::tx::View;
use gantry_decide::ids::TargetGroupId;
use gantry_decide::lifecycle::LastStatus;
use gantry_decide::routing::config::{TargetGroupArn, TargetId, TargetKey};
use gantry_decide::routing::{HealthReport, HealthState, Reason, TargetHealth};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// A definition `site` with a dynamic host port, and the group of a listener.
pub(super) fn world() -> (World, String) {
    let mut world = World::with_capacity(4096);
    let container = json!({
        "name": "site", "image": "site:1", "memory": 128, "cpu": 64, "versionConsistency": "disabled",
        "portMappings": [{ "containerPort": 80 }],
    });
    let definition = json!({ "family": "site", "containerDefinitions": [container] });
    world.write(task_definition::register_task_definition, definition).unwrap();
    let balancer = balancer(&mut world, "web");
    let group = group(&mut world, "web", json!({ "TargetType": "instance" }));
    listener(&mut world, &balancer, 80, &group);
    (world, group)
}

pub(super) fn balanced(group: &str, more: Value) -> Value {
    let mut request = json!({
        "taskDefinition": "site", "desiredCount": 1,
        "loadBalancers": [{ "targetGroupArn": group, "containerName": "site", "containerPort": 80 }],
    });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The first of the host ports that are given away.
const FIRST_PORT: u16 = 32768;

/// The agent brings tasks up, each with the next host port.
pub(super) fn run(world: &mut World) {
    world.agent_acts(|_| Fate::Runs);
    for mut task in world.live() {
        if task.containers[0].network_bindings.is_empty() {
            let tasks = world.state.ecs.tasks().values();
            let given = tasks.flat_map(|task| &task.containers[0].network_bindings).count();
            task.containers[0].network_bindings.push(NetworkBinding {
                bind_ip: "0.0.0.0".to_owned(),
                container_port: 80,
                host_port: FIRST_PORT + u16::try_from(given).unwrap(),
                protocol: "tcp".to_owned(),
                more: 0,
            });
            world.state.ecs.put_task(task);
        }
    }
    rest(world);
}

pub(super) fn rest(world: &mut World) {
    for _ in 0..3 {
        settle::<ServiceTargets>(world);
        settle::<Targets>(world);
        world.come_to_rest();
    }
}

/// The balancer finds targets healthy, but the one with the first port as given.
pub(super) fn tell(world: &mut World, first: HealthState, reason: Option<Reason>) {
    let targets: Vec<_> = world.state.elbv2.targets.values().cloned().collect();
    for target in targets {
        let is_first = target.key.port == FIRST_PORT;
        let (state, reason) = if is_first { (first, reason) } else { (HealthState::Healthy, None) };
        let report = HealthReport {
            group: TargetGroupArn::new(&world.scope.balancing(target.key.group.clone()).to_string()),
            target: TargetKey { id: TargetId::new(&target.key.id.to_string()), port: target.key.port },
            health: TargetHealth { state, reason },
            at: world.now,
        };
        world.edit(|tx| {
            links::report(tx, &report);
            links::drained(tx, &report.group, &report.target);
        });
    }
    rest(world);
}

fn rollout(world: &mut World) -> String {
    world.service()["deployments"][0]["rolloutState"].as_str().unwrap().to_owned()
}

fn told(world: &mut World, text: &str) -> bool {
    let service = world.service();
    service["events"]
        .as_array()
        .unwrap()
        .iter()
        .any(|event| event["message"].as_str().unwrap().contains(text))
}

#[test]
fn a_deployment_has_arrived_when_the_balancer_says_so() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({ "healthCheckGracePeriodSeconds": 30 })));
    run(&mut world);
    let [target] = world.state.elbv2.targets.values().cloned().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(target.key.port, FIRST_PORT);
    assert!(told(&mut world, &format!("(service web) registered 1 targets in (target-group {group})")));
    let shown = world.service();
    assert_eq!(shown["loadBalancers"][0]["targetGroupArn"], group.as_str());
    assert_eq!(shown["healthCheckGracePeriodSeconds"], 30);

    // Running for long is no proof here, and in its grace it may be unhealthy.
    world.now = world.now + Duration::from_secs(20);
    tell(&mut world, HealthState::Unhealthy, Some(Reason::Timeout));
    assert_eq!(rollout(&mut world), "IN_PROGRESS");
    assert_eq!(world.live().len(), 1);
    tell(&mut world, HealthState::Healthy, None);
    assert_eq!(rollout(&mut world), "COMPLETED");
}

#[test]
fn a_task_that_the_balancer_finds_unhealthy_is_replaced() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({})));
    run(&mut world);
    tell(&mut world, HealthState::Healthy, None);
    let first = world.live()[0].id;
    world.now = world.now + LONG;
    tell(&mut world, HealthState::Unhealthy, Some(Reason::ResponseCodeMismatch(502)));
    assert_eq!(world.live().len(), 2, "its replacement comes first");
    for _ in 0..5 {
        run(&mut world);
        tell(&mut world, HealthState::Unhealthy, Some(Reason::ResponseCodeMismatch(502)));
    }
    let target = world.state.elbv2.targets.values().next().unwrap().key.id.to_string();
    let form = format!(
        "(service web) (task {first}) (instance {target}) (port {FIRST_PORT}) is unhealthy in (target-group {group}) due to \
         (reason Health checks failed with these codes: [502])"
    );
    assert!(world.messages().contains(&form), "{:?}", world.messages());
    let live: Vec<Task> = world.live();
    assert_eq!(live.len(), 1);
    assert_ne!(live[0].id, first);
    assert_eq!(rollout(&mut world), "COMPLETED");
}

/// What the service told of tasks that their load balancer does not know, without the tasks' ids.
fn lost(world: &mut World, set: &str, group: &str) -> Vec<String> {
    let messages = world.messages().into_iter().filter_map(|message| {
        let rest = message.strip_prefix(&format!("(service web) (taskSet {set}) (task "))?;
        let (_, rest) = rest.split_once(") ")?;
        let rest = rest.strip_prefix(&format!("is not healthy in (target-group {group}) due to "))?;
        Some(rest.to_owned())
    });
    messages.collect()
}

#[test]
fn a_target_or_group_that_somebody_takes_away_is_told() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({"desiredCount": 2})));
    run(&mut world);
    tell(&mut world, HealthState::Healthy, None);
    let set = world.service()["deployments"][0]["id"].as_str().unwrap().to_owned();
    let key = world.state.elbv2.targets.values().next().unwrap().key.clone();
    let of_target = json!({"Id": key.id.to_string(), "Port": key.port});
    let request = json!({"TargetGroupArn": group, "Targets": [of_target]});
    world.write(target::deregister_targets, request).unwrap();
    rest(&mut world);
    assert_eq!(lost(&mut world, &set, &group), ["TARGET IS NOT FOUND"]);
    let all = |world: &World| world.state.elbv2.targets.values().all(|t| t.deregistered_at.is_none());
    assert!(all(&world), "it is a target again");

    let listener = world.state.elbv2.listeners.values().next().unwrap().id.clone();
    let listener = world.scope.balancing(listener).to_string();
    world.write(listeners::delete_listener, json!({"ListenerArn": listener})).unwrap();
    world.write(target_group::delete_target_group, json!({"TargetGroupArn": group})).unwrap();
    for _ in 0..3 {
        rest(&mut world);
        run(&mut world);
    }
    assert_eq!(lost(&mut world, &set, &group)[1..], ["TARGET GROUP IS NOT FOUND"], "once for both tasks");
    assert_eq!(world.live().len(), 2, "another could not be registered either");
}

#[test]
fn a_change_of_targets_reaches_the_tasks_behind_them() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({"desiredCount": 2})));
    run(&mut world);
    let keys = |world: &World, group: &TargetGroupId| {
        let mut keys = BTreeSet::new();
        let view = View { scope: &world.scope, state: &world.state, now: world.now };
        ServiceTargets::watches(view, &Change::Targets(group.clone()), &mut keys);
        keys.len()
    };
    let id = world.state.elbv2.target_groups.values().next().unwrap().id.clone();
    assert_eq!(keys(&world, &id), 0, "reports of health concern none of them");
    let key = world.state.elbv2.targets.values().next().unwrap().key.clone();
    let of_target = json!({"Id": key.id.to_string(), "Port": key.port});
    let request = json!({"TargetGroupArn": group, "Targets": [of_target]});
    world.write(target::deregister_targets, request).unwrap();
    assert_eq!(keys(&world, &id), 1);
    world.state.elbv2.target_groups.remove(&id);
    assert_eq!(keys(&world, &id), 2);
}

#[test]
fn a_task_is_registered_by_the_address_that_its_group_asks_for() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({})));
    run(&mut world);
    let mut task = world.live()[0].clone();
    let mut eni = json!({
        "attachment": "0b1c7e0e-5c3e-4c0e-9a5d-0d8a4f6e2b11", "id": "eni-0123456789abcdef0", "subnet": "subnet-1",
        "security_groups": [], "mac": "02:00:00:00:00:01", "address": "10.0.0.7", "gateway": "10.0.0.1",
        "prefix_length": 24, "private_dns_name": "", "attached": true,
        "ipv6": { "address": "2001:db8::7", "prefixLength": 64 },
    });
    let mut registered = |family: AddressFamily, eni: &Value| {
        let groups = &mut world.state.elbv2.target_groups;
        let mut group = groups.values().next().unwrap().as_ref().clone();
        (group.target_type, group.address_family) = (TargetType::Ip, family);
        groups.put(group);
        task.eni = Some(serde_json::from_value(eni.clone()).unwrap());
        let service = world.state.ecs.services().values().next().unwrap();
        let view = View { scope: &world.scope, state: &world.state, now: world.now };
        let found = targets(view, service, &task);
        found.iter().map(|key| format!("{} {}", key.id, key.port)).collect::<Vec<_>>()
    };
    assert_eq!(registered(AddressFamily::Ipv4, &eni), ["10.0.0.7 80"]);
    assert_eq!(registered(AddressFamily::Ipv6, &eni), ["2001:db8::7 80"]);
    eni["ipv6"] = Value::Null;
    assert!(registered(AddressFamily::Ipv6, &eni).is_empty(), "its subnet has no such addresses");
}

#[test]
fn a_task_runs_on_until_it_has_drained() {
    let (mut world, group) = world();
    world.create_service(balanced(&group, json!({})));
    run(&mut world);
    tell(&mut world, HealthState::Healthy, None);
    let scale = json!({ "service": "web", "desiredCount": 0 });
    world.write(service::update_service, scale).unwrap();
    rest(&mut world);
    world.agent_acts(|_| Fate::Runs);
    rest(&mut world);
    assert_eq!(world.live()[0].last_status, LastStatus::Deactivating, "its agent has not been told");
    assert!(world.state.elbv2.targets.values().all(|target| target.deregistered_at.is_some()));
    assert!(told(&mut world, "(service web) has begun draining connections on 1 tasks."));
    assert!(told(&mut world, "deregistered 1 targets"));
    // Its agent says once more that it runs, as after a lost answer.
    let arn = world.live()[0].arn(&world.scope).to_string();
    world.write(submit::submit_task_state_change, json!({ "task": arn, "status": "RUNNING" })).unwrap();
    rest(&mut world);
    assert_eq!(world.live()[0].last_status, LastStatus::Deactivating);
    world.now = world.now + Duration::from_secs(300);
    rest(&mut world);
    assert_eq!(world.live()[0].last_status, LastStatus::Stopping);
    world.agent_acts(|_| Fate::Runs);
    assert!(world.live().is_empty() && world.state.elbv2.targets.is_empty());
}

#[test]
fn load_balancers_that_do_not_fit_are_refused() {
    let (mut world, used) = world();
    let unused = group(&mut world, "unused", json!({ "TargetType": "instance" }));
    let ip = group(&mut world, "ip", json!({}));
    let balancer = balancer(&mut world, "other");
    listener(&mut world, &balancer, 80, &ip);
    let mut refused = |lb: Value, message: &str| {
        let request = json!({
            "serviceName": "web", "taskDefinition": "site", "desiredCount": 1, "loadBalancers": [lb],
        });
        fails(world.write(service::create_service, request), INVALID, message);
    };
    let lb = |group: &str, name: &str, port: u16| json!({ "targetGroupArn": group, "containerName": name, "containerPort": port });
    let message =
        format!("The target group with targetGroupArn {unused} does not have an associated load balancer.");
    refused(lb(&unused, "site", 80), &message);
    refused(lb(&used, "none", 80), "The container none does not exist in the task definition.");
    refused(lb(&used, "site", 81), "The container site did not have a container port 81 defined.");
    let message = format!(
        "The provided target group {ip} has target type ip, which is incompatible with the bridge network mode specified \
         in the task definition."
    );
    refused(lb(&ip, "site", 80), &message);
    let grace = json!({
        "serviceName": "web", "taskDefinition": "site", "desiredCount": 1, "healthCheckGracePeriodSeconds": 5,
    });
    let message = "Health check grace period is only valid for services configured to use load balancers";
    fails(world.write(service::create_service, grace), INVALID, message);
}
