//! Scripts on DAEMON services: one task on each instance, whatever instances do.

use super::service::{Fate, LONG, runs};
use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{attribute, container_instance, service};
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};

impl World {
    fn with_daemon(instances: usize, change: Value) -> World {
        let mut world = World::with_capacity(7800);
        for _ in 1..instances {
            world.add_instance(7800);
        }
        let mut request =
            json!({"serviceName": "web", "taskDefinition": "app", "schedulingStrategy": "DAEMON"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        world.write(service::create_service, request).unwrap();
        world.come_to_rest();
        world
    }

    /// Instances that have a task that shall run, in order, and how many of them.
    fn occupied(&self) -> Vec<String> {
        let wanted = self.live().into_iter().filter(|task| task.desired_status == DesiredStatus::Running);
        let mut on: Vec<_> = wanted.map(|task| task.instance.unwrap().id.to_string()).collect();
        on.sort();
        on
    }

    fn instances(&self) -> Vec<String> {
        self.state.ecs.container_instances().iter().map(|(key, _)| key.id.to_string()).collect()
    }

    fn set_state(&mut self, instance: &str, status: &str) {
        let request = json!({"containerInstances": [instance], "status": status});
        self.write(container_instance::update_container_instances_state, request).unwrap();
        self.come_to_rest();
    }
}

#[test]
fn every_instance_has_one_as_instances_come_and_go() {
    let mut world = World::with_daemon(2, json!({}));
    assert_eq!(world.occupied(), world.instances());
    world.agent_acts(runs);
    world.pass(LONG);
    let shown = world.service();
    assert_eq!((&shown["desiredCount"], &shown["runningCount"]), (&json!(2), &json!(2)));
    assert_eq!(
        (&shown["schedulingStrategy"], &shown["deployments"][0]["rolloutState"]),
        (&json!("DAEMON"), &json!("COMPLETED"))
    );
    assert_eq!(shown["deploymentConfiguration"]["maximumPercent"], 100);
    assert_eq!(shown["deploymentConfiguration"]["minimumHealthyPercent"], 0);

    world.add_instance(7800);
    world.come_to_rest();
    assert_eq!(world.occupied(), world.instances(), "a new one gets its task at once");
    world.agent_acts(runs);
    let leaving = world.instances()[0].clone();
    world.set_state(&leaving, "DRAINING");
    world.agent_acts(runs);
    assert_eq!(world.occupied(), world.instances()[1..]);
    assert_eq!(world.service()["desiredCount"], 2);
    world.set_state(&leaving, "ACTIVE");
    assert_eq!(world.occupied(), world.instances());

    // One that ends is replaced where it was.
    world.agent_acts(runs);
    let victim = world.live()[0].clone();
    world.agent_acts(|task| if task.id == victim.id { Fate::Exits } else { Fate::Runs });
    assert_eq!(world.occupied(), world.instances());

    world.write(service::delete_service, json!({"service": "web"})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    assert!(world.live().is_empty(), "a daemon is deleted without force");
}

#[test]
fn an_update_stops_first_and_in_batches() {
    let configuration = json!({"deploymentConfiguration": {"minimumHealthyPercent": 50}});
    let mut world = World::with_daemon(4, configuration);
    world.agent_acts(runs);
    world.pass(LONG);
    world.register("app");
    world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
    world.come_to_rest();
    assert_eq!(world.occupied().len(), 2, "half of four must stay");
    for _ in 0..6 {
        assert!(world.occupied().len() >= 2 && world.live().len() <= 4);
        world.agent_acts(runs);
        world.pass(LONG);
    }
    assert!(world.live().iter().all(|task| task.definition_id.revision == 2));
    assert_eq!(world.occupied(), world.instances());
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "COMPLETED");
}

#[test]
fn others_leave_the_room_that_a_daemon_needs_while_it_has_no_task() {
    let mut world = World::with_daemon(1, json!({}));
    world.agent_acts(runs);
    // A service whose turn comes first, with more tasks than there is room for.
    let able = json!({"serviceName": "able", "taskDefinition": "app", "desiredCount": 200});
    world.write(service::create_service, able).unwrap();
    for _ in 0..6 {
        world.pass(LONG);
    }
    let able = |world: &World| world.state.ecs.tasks().values().filter(|t| t.group == "service:able").count();
    let full = able(&world);
    assert!(full > 1);
    world.register("app");
    world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
    world.come_to_rest();
    // The old task ends just when the other service tries again.
    world.now = world.now + LONG;
    world.agent_acts(runs);
    world.pass(LONG);
    assert_eq!(able(&world), full);
    let of_daemon = world.live();
    assert_eq!(of_daemon.iter().map(|task| task.definition_id.revision).collect::<Vec<_>>(), [2]);
    let key = of_daemon[0].instance.clone().unwrap();
    assert_eq!(world.state.ecs.tasks_on(&key).count(), full + 1);
}

#[test]
fn only_instances_that_meet_the_constraints_have_one() {
    let constraint = json!([{"type": "memberOf", "expression": "attribute:disk == ssd"}]);
    let mut world = World::with_daemon(2, json!({"placementConstraints": constraint}));
    assert!(world.occupied().is_empty());
    let chosen = world.instances()[1].clone();
    let attributes = json!({"attributes": [
        {"name": "disk", "value": "ssd", "targetType": "container-instance", "targetId": chosen}]});
    world.write(attribute::put_attributes, attributes.clone()).unwrap();
    world.come_to_rest();
    assert_eq!(world.occupied(), [chosen]);
    world.agent_acts(runs);
    world.write(attribute::delete_attributes, attributes).unwrap();
    world.come_to_rest();
    assert!(world.occupied().is_empty(), "it belongs there no longer");
}

#[test]
fn one_that_has_no_room_is_told_and_comes_later() {
    let mut world = World::with_capacity(7800);
    world.add_instance(100);
    let request = json!({"serviceName": "web", "taskDefinition": "app", "schedulingStrategy": "DAEMON"});
    world.write(service::create_service, request).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    world.pass(LONG);
    assert_eq!((world.occupied().len(), &world.service()["desiredCount"]), (1, &json!(2)));
    let told = world.messages();
    assert!(told.iter().any(|message| message.contains("has insufficient memory available")), "{told:?}");
}

#[test]
fn what_daemons_cannot_be_is_refused() {
    let mut world = World::with_capacity(7800);
    let mut refuses = |change: Value, message: &str| {
        let mut request =
            json!({"serviceName": "web", "taskDefinition": "app", "schedulingStrategy": "DAEMON"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fails(world.write(service::create_service, request), INVALID, message);
    };
    let count = "The daemon scheduling strategy does not support a desired count for services. Remove the desired count \
                 value and try again.";
    refuses(json!({"desiredCount": 1}), count);
    refuses(
        json!({"placementStrategy": [{"type": "random"}]}),
        "Placement strategies are not supported with the DAEMON scheduling strategy.",
    );
    refuses(
        json!({"deploymentConfiguration": {"maximumPercent": 200}}),
        "maximumPercent must be 100 for services of the DAEMON scheduling strategy.",
    );
    refuses(
        json!({"availabilityZoneRebalancing": "ENABLED"}),
        "Availability Zone rebalancing is not supported with the DAEMON scheduling strategy.",
    );
    let mut world = World::with_daemon(1, json!({}));
    fails(world.write(service::update_service, json!({"service": "web", "desiredCount": 3})), INVALID, count);
    let listed = world.read(service::list_services, json!({"schedulingStrategy": "DAEMON"})).unwrap();
    assert_eq!(listed["serviceArns"].as_array().unwrap().len(), 1);
    let replicas = world.read(service::list_services, json!({"schedulingStrategy": "REPLICA"})).unwrap();
    assert!(replicas["serviceArns"].as_array().unwrap().is_empty());
}

#[test]
fn an_instance_whose_agent_has_yet_to_connect_is_waited_for() {
    let mut world = World::with_daemon(1, json!({}));
    world.agent_acts(runs);
    world.pass(LONG);
    let told = world.messages().len();
    world.add_instance(7800);
    let key = world.state.ecs.container_instances().iter().map(|(key, _)| key.clone());
    let key = key.max_by_key(|key| world.state.ecs.container_instance(key).unwrap().registered_at).unwrap();
    let connect = |world: &mut World, connected| {
        let mut instance = world.state.ecs.container_instance(&key).unwrap().clone();
        instance.agent_connected = connected;
        world.state.ecs.put_container_instance(instance);
        world.come_to_rest();
    };
    connect(&mut world, false);
    assert_eq!((world.occupied().len(), world.messages().len()), (1, told), "{:?}", world.messages());
    // No patience is needed then.
    connect(&mut world, true);
    assert_eq!(world.occupied(), world.instances());
}
