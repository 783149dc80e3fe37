//! Groups of capacity providers, as tasks come and go.
#![allow(clippy::unwrap_used)]

use super::ManagedScaling;
use crate::controllers::autoscaling::AutoScaling;
use crate::controllers::testing::fleet::Fleet;
use crate::controllers::testing::round;
use crate::services::autoscaling::links;
use crate::services::autoscaling::ops::group;
use crate::services::ec2::ops::launch_template;
use crate::services::ecs::ops::{capacity_provider, cluster};
use crate::services::ecs::state::ContainerInstanceStatus;
use crate::services::ecs::tests::world::World;
use gantry_decide::lifecycle::LastStatus;
use serde_json::{Value, json};

/// A world with the provider `metal` of the group `web`, which has nothing yet, for the cluster `default`; and tasks of
/// 1024 CPU units, four to an instance.
fn world(settings: Value, protected: bool) -> Fleet {
    let mut world = World::new();
    world.create("default");
    let template =
        json!({ "LaunchTemplateName": "web-1", "LaunchTemplateData": { "InstanceType": "m5.xlarge" } });
    world.write(launch_template::create_launch_template, template).unwrap();
    let group = json!({
        "AutoScalingGroupName": "web", "MinSize": 0, "MaxSize": 4, "AvailabilityZones": ["eu-north-1a"],
        "LaunchTemplate": { "LaunchTemplateName": "web-1" }, "NewInstancesProtectedFromScaleIn": protected,
    });
    world.write(group::create_auto_scaling_group, group).unwrap();
    let mut provider = json!({ "autoScalingGroupArn": "web", "managedScaling": { "status": "ENABLED" } });
    provider.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let provider = json!({ "name": "metal", "autoScalingGroupProvider": provider });
    world.write(capacity_provider::create_capacity_provider, provider).unwrap();
    let put = json!({
        "cluster": "default", "capacityProviders": ["metal"],
        "defaultCapacityProviderStrategy": [{ "capacityProvider": "metal", "weight": 1 }],
    });
    world.write(cluster::put_cluster_capacity_providers, put).unwrap();
    let round = |world: &mut World| round::<AutoScaling>(world) | round::<ManagedScaling>(world);
    let mut fleet = Fleet::new(world, "metal", round);
    fleet.define("bridge", json!({"cpu": 1024}));
    fleet.settle();
    fleet
}

fn desired(world: &World) -> u32 {
    world.state.autoscaling.groups.values().next().unwrap().desired
}

#[test]
fn a_group_follows_its_tasks_from_nothing_and_back_to_nothing() {
    let world = &mut world(json!({}), false);
    assert_eq!(desired(world), 0);
    world.run(5);
    assert_eq!(desired(world), 2, "ECS begins with two");
    world.serve();
    world.act();
    let running = |world: &World| {
        world.state.ecs.tasks().values().filter(|t| t.last_status == LastStatus::Running).count()
    };
    assert_eq!(running(world), 5);
    let group = world.state.autoscaling.groups.values().next().unwrap();
    assert!(group.cause.contains("ECSManagedAutoScalingPolicy"), "{}", group.cause);
    assert!(group.tags.contains_key("AmazonECSManaged"));
    // Nine of four to an instance need one more.
    world.run(4);
    assert_eq!(desired(world), 3);
    world.serve();
    world.act();
    assert_eq!(running(world), 9);
    world.stop_all();
    world.pass(14 * 60);
    assert_eq!(desired(world), 3);
    let mut sizes = Vec::new();
    for _ in 0..6 {
        world.pass(61);
        sizes.push(desired(world));
        world.serve();
    }
    sizes.dedup();
    assert_eq!(sizes, [2, 1, 0]);
    assert_eq!(links::machines(&world.state.autoscaling).count(), 0);
    world.restart();
}

#[test]
fn instances_are_drained_before_they_go() {
    let world = &mut world(json!({}), false);
    world.run(1);
    world.serve();
    world.act();
    let wish = json!({ "AutoScalingGroupName": "web", "MaxSize": 0 });
    world.write(group::update_auto_scaling_group, wish).unwrap();
    world.settle();
    world.serve();
    // The empty one is gone; the other drains and waits for its task, however long that takes.
    let left: Vec<_> = world.state.autoscaling.instances.values().map(|i| i.state.as_str()).collect();
    assert_eq!(left, ["Terminating:Wait"]);
    let draining = |world: &World| {
        let all = world.state.ecs.container_instances().values();
        all.filter(|i| i.status == ContainerInstanceStatus::Draining).count()
    };
    assert_eq!(draining(world), 1);
    for _ in 0..10 {
        world.pass(1200);
    }
    assert_eq!(world.state.autoscaling.instances.len(), 1);
    world.stop_all();
    world.serve();
    assert_eq!(world.state.autoscaling.instances.len(), 0);
    assert_eq!(draining(world), 0);
}

#[test]
fn only_instances_without_tasks_lose_their_protection() {
    let world = &mut world(json!({ "managedTerminationProtection": "ENABLED" }), true);
    world.run(1);
    world.serve();
    world.act();
    let protected = |world: &World| -> Vec<bool> {
        let mut all: Vec<bool> = world.state.autoscaling.instances.values().map(|i| i.protected).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(protected(world), [false, true]);
    world.pass(3600);
    world.serve();
    assert_eq!(protected(world), [true], "the empty one went");
    world.stop_all();
    assert_eq!(protected(world), [false]);
}

#[test]
fn a_provider_that_is_taken_away_leaves_its_group_alone() {
    let world = &mut world(json!({}), false);
    let hooks = |world: &World| world.state.autoscaling.groups.values().next().unwrap().hooks.len();
    assert_eq!(hooks(world), 1);
    let put = json!({ "cluster": "default", "capacityProviders": [], "defaultCapacityProviderStrategy": [] });
    world.write(cluster::put_cluster_capacity_providers, put).unwrap();
    world.settle();
    assert_eq!(hooks(world), 0);
}

#[test]
fn how_long_a_group_waits_to_shrink_can_be_told() {
    let world =
        &mut world(json!({ "managedScaling": { "status": "ENABLED", "instanceWarmupPeriod": 0 } }), false);
    let mut tagged = world.state.ecs.capacity_providers.values().next().unwrap().as_ref().clone();
    tagged.tags.insert("gantry.scale-in-after".to_owned(), "5".to_owned());
    world.state.ecs.capacity_providers.put(tagged);
    world.run(1);
    world.serve();
    world.act();
    world.stop_all();
    world.pass(6);
    assert_eq!(desired(world), 1);
}
