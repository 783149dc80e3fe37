//! Scripts on Availability Zone rebalancing.

use super::service::{LONG, runs};
use super::world::{INVALID, World, fails, registration};
use crate::services::ecs::ops::{container_instance, protection, service};
use crate::services::ecs::state::TaskKey;
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

impl World {
    /// Another connected instance, in the zone of that letter.
    fn add_instance_in(&mut self, zone: char) {
        let mut request = registration("default");
        request["instanceIdentityDocument"] =
            json!(json!({"availabilityZone": format!("eu-north-1{zone}")}).to_string());
        for name in [
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
            "com.amazonaws.ecs.capability.docker-remote-api.1.24",
        ] {
            request["attributes"].as_array_mut().unwrap().push(json!({"name": name}));
        }
        let reply = self.write(container_instance::register_container_instance, request).unwrap();
        let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
        let found = self.state.ecs.container_instances().values();
        let found: Vec<_> = found.filter(|instance| arn.ends_with(&instance.id.to_string())).collect();
        let mut instance = found[0].as_ref().clone();
        instance.agent_connected = true;
        self.state.ecs.put_container_instance(instance);
        self.come_to_rest();
    }

    fn by_zone(&self) -> BTreeMap<String, usize> {
        let mut zones = BTreeMap::new();
        for task in self.live().into_iter().filter(|task| task.desired_status == DesiredStatus::Running) {
            let zone = task.availability_zone.unwrap();
            *zones.entry(zone.trim_start_matches("eu-north-1").to_owned()).or_default() += 1;
        }
        zones
    }
}

fn spread(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(zone, count)| ((*zone).to_owned(), *count)).collect()
}

#[test]
fn tasks_move_one_by_one_to_a_zone_that_comes() {
    let mut world = World::with_service(json!({"desiredCount": 4}));
    world.add_instance_in('b');
    world.pass(Duration::from_secs(1));
    assert_eq!(world.by_zone(), spread(&[("a", 4), ("b", 1)]), "first one more");
    let running = |world: &World| world.live().iter().filter(|task| task.started_at.is_some()).count();
    for _ in 0..6 {
        world.agent_acts(runs);
        assert!(running(&world) >= 4);
        world.pass(LONG);
    }
    assert_eq!(world.by_zone(), spread(&[("a", 2), ("b", 2)]));
    let messages = world.messages();
    let at = |text: &str| {
        messages
            .iter()
            .position(|message| message.contains(text))
            .unwrap_or_else(|| panic!("{text}: {messages:?}"))
    };
    let order = [
        at(
            "is not AZ balanced with 4 tasks in eu-north-1a, 0 tasks in eu-north-1b. AZ Rebalancing in progress.",
        ),
        at("has started 1 tasks in eu-north-1b to AZ Rebalance: (task "),
        at("has stopped 1 running tasks in eu-north-1a due to AZ rebalancing: (task "),
        at("is AZ balanced with 2 tasks in eu-north-1a, 2 tasks in eu-north-1b."),
    ];
    assert!(order.is_sorted(), "{messages:?}");
    let moved = world.state.ecs.tasks().values().filter_map(|task| task.stopped_reason.clone());
    let moved: Vec<String> = moved
        .filter(|why| why.starts_with("Availability-zone rebalancing initiated by (deployment ecs-svc/"))
        .collect();
    assert_eq!(moved.len(), 2);
    // Nothing moves any more.
    let ids = |world: &World| world.live().iter().map(|task| task.id).collect::<Vec<_>>();
    let settled = ids(&world);
    world.restart();
    world.pass(Duration::from_secs(3600));
    assert_eq!(ids(&world), settled);
}

#[test]
fn whatever_else_is_to_be_done_comes_first() {
    let mut world = World::with_service(json!({"desiredCount": 3}));
    world.add_instance_in('b');
    world.pass(Duration::from_secs(1));
    assert_eq!(world.live().len(), 4);
    world.update_service(json!({"desiredCount": 2}));
    world.agent_acts(runs);
    assert_eq!(world.live().len(), 2);
    assert!(world.messages().iter().any(|message| message.ends_with("stopped AZ Rebalancing.")));

    // Nobody who is protected gives way.
    let mut world = World::with_service(json!({"desiredCount": 2}));
    let arns: Vec<_> =
        world.live().iter().map(|task| TaskKey::from(task).arn(&world.scope).to_string()).collect();
    let protect = json!({"cluster": "default", "tasks": arns, "protectionEnabled": true});
    world.write(protection::update_task_protection, protect).unwrap();
    world.add_instance_in('b');
    for _ in 0..2 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    world.agent_acts(runs);
    assert_eq!(world.by_zone(), spread(&[("a", 2)]));
    assert!(world.messages().iter().any(|message| message.contains("number of protected tasks")));
}

#[test]
fn constraints_bind_what_moves_too() {
    let mut world = World::with_capacity(7800);
    (0..3).for_each(|_| world.add_instance(7800));
    world.create_service(json!({"desiredCount": 4, "placementConstraints": [{"type": "distinctInstance"}]}));
    world.agent_acts(runs);
    world.pass(LONG);
    world.add_instance_in('b');
    for _ in 0..6 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    // The only instance of the other zone has one.
    assert_eq!(world.by_zone(), spread(&[("a", 3), ("b", 1)]));
}

#[test]
fn it_asks_for_what_can_be() {
    let mut world = World::with_capacity(7800);
    let service = |more: serde_json::Value| {
        let mut all = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1,
            "availabilityZoneRebalancing": "ENABLED"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    for (more, why) in [
        (json!({"deploymentConfiguration": {"maximumPercent": 100}}), "with a maximumPercent of 100"),
        (
            json!({"placementStrategy": [{"type": "binpack", "field": "cpu"}]}),
            "unless the first placement strategy, if there is one, spreads by attribute:ecs.availability-zone",
        ),
        (
            json!({"placementConstraints": [{"type": "memberOf",
                "expression": "attribute:ecs.availability-zone == eu-north-1a"}]}),
            "with a placement constraint on attribute:ecs.availability-zone",
        ),
    ] {
        let message = format!("Availability Zone rebalancing is not supported {why}.");
        fails(world.write(service::create_service, service(more)), INVALID, &message);
    }
    // Whoever did not ask is not refused, and not moved.
    let quiet = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 2,
        "placementStrategy": [{"type": "binpack", "field": "cpu"}]});
    world.write(service::create_service, quiet).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    world.pass(LONG);
    world.add_instance_in('b');
    world.pass(LONG);
    assert_eq!(world.by_zone(), spread(&[("a", 2)]));
}
