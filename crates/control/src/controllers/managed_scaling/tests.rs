//! Groups of capacity providers, as tasks come and go.
#![allow(clippy::unwrap_used)]

use super::ManagedScaling;
use crate::controllers::autoscaling::AutoScaling;
use crate::controllers::provisioning::Provisioning;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::round;
use crate::machines::{Report, Want};
use crate::services::autoscaling::links;
use crate::services::autoscaling::ops::group;
use crate::services::ec2::ops::launch_template;
use crate::services::ecs::ops::{
    capacity_provider, cluster, container_instance, submit, task, task_definition,
};
use crate::services::ecs::state::{ContainerInstanceKey, ContainerInstanceStatus};
use crate::services::ecs::tests::world::{World, registration};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use serde_json::{Value, json};
use std::time::Duration;

/// A world with the provider `metal` of the group `web`, which has nothing yet, for the cluster `default`; and tasks of
/// 1024 CPU units, four to an instance.
fn world(settings: Value, protected: bool) -> World {
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
    let container = json!({
        "name": "app", "image": "app:1", "memory": 128, "cpu": 1024, "versionConsistency": "disabled",
    });
    let definition = json!({ "family": "app", "containerDefinitions": [container] });
    world.write(task_definition::register_task_definition, definition).unwrap();
    settle(&mut world);
    world
}

fn settle(world: &mut World) {
    for _ in 0..100 {
        let moved = round::<AutoScaling>(world)
            | round::<ManagedScaling>(world)
            | round::<Provisioning>(world)
            | round::<Tasks>(world);
        world.state.check_invariants();
        if !moved {
            return;
        }
    }
    panic!("the controllers do not come to rest");
}

fn run(world: &mut World, count: usize) {
    world.write(task::run_task, json!({ "taskDefinition": "app", "count": count })).unwrap();
    settle(world);
}

fn report(world: &mut World, id: Ec2InstanceId, report: Report) {
    world.edit(|tx| links::report(tx, id, report));
    settle(world);
}

/// Makes and destroys the machines that are wanted; those that are made join.
fn serve(world: &mut World) {
    for (id, want) in links::machines(&world.state.autoscaling).collect::<Vec<_>>() {
        match want {
            Want::Create(_) => {
                report(world, id, Report::Running { address: None });
                join(world, id);
            }
            Want::Destroy => report(world, id, Report::Gone),
            Want::Keep => {}
        }
    }
    settle(world);
}

fn join(world: &mut World, id: Ec2InstanceId) {
    let mut request = registration("default");
    let docker = json!({ "name": "com.amazonaws.ecs.capability.docker-remote-api.1.18" });
    request["attributes"].as_array_mut().unwrap().push(docker);
    request["instanceIdentityDocument"] = json!({ "instanceId": id }).to_string().into();
    let reply = world.write(container_instance::register_container_instance, request).unwrap();
    let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap();
    let EcsResource::ContainerInstance(cluster, id) = arn.parse::<EcsArn>().unwrap().resource else {
        panic!("{arn}")
    };
    let key = ContainerInstanceKey { cluster, id };
    let mut instance = world.state.ecs.container_instance(&key).unwrap().clone();
    instance.agent_connected = true;
    world.state.ecs.put_container_instance(instance);
}

/// Agents start what they have been given; of the tasks that run, those on `host` (all without one) are stopped.
fn act(world: &mut World) {
    let tasks: Vec<_> = world.state.ecs.tasks().values().map(|task| task.as_ref().clone()).collect();
    for mut task in tasks.into_iter().filter(|task| task.is_live() && task.instance.is_some()) {
        let arn = task.arn(&world.scope).to_string();
        let status = match (task.desired_status, task.last_status) {
            (DesiredStatus::Running, LastStatus::Pending) => "RUNNING",
            (DesiredStatus::Stopped, _) => "STOPPED",
            _ => continue,
        };
        task.sent = true;
        world.state.ecs.put_task(task);
        world.write(submit::submit_task_state_change, json!({ "task": arn, "status": status })).unwrap();
    }
    settle(world);
}

fn stop_all(world: &mut World) {
    let tasks: Vec<_> =
        world.state.ecs.tasks().values().filter(|t| t.is_live()).map(|t| t.arn(&world.scope)).collect();
    for arn in tasks {
        world.write(task::stop_task, json!({ "task": arn.to_string() })).unwrap();
    }
    act(world);
}

fn desired(world: &World) -> u32 {
    world.state.autoscaling.groups.values().next().unwrap().desired
}

fn pass(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
    settle(world);
}

#[test]
fn a_group_follows_its_tasks_from_nothing_and_back_to_nothing() {
    let world = &mut world(json!({}), false);
    assert_eq!(desired(world), 0);
    run(world, 5);
    assert_eq!(desired(world), 2, "ECS begins with two");
    serve(world);
    act(world);
    let running = |world: &World| {
        world.state.ecs.tasks().values().filter(|t| t.last_status == LastStatus::Running).count()
    };
    assert_eq!(running(world), 5);
    let group = world.state.autoscaling.groups.values().next().unwrap();
    assert!(group.cause.contains("ECSManagedAutoScalingPolicy"), "{}", group.cause);
    assert!(group.tags.contains_key("AmazonECSManaged"));
    // Nine of four to an instance need one more.
    run(world, 4);
    assert_eq!(desired(world), 3);
    serve(world);
    act(world);
    assert_eq!(running(world), 9);
    stop_all(world);
    pass(world, 14 * 60);
    assert_eq!(desired(world), 3);
    let mut sizes = Vec::new();
    for _ in 0..6 {
        pass(world, 61);
        sizes.push(desired(world));
        serve(world);
    }
    sizes.dedup();
    assert_eq!(sizes, [2, 1, 0]);
    assert_eq!(links::machines(&world.state.autoscaling).count(), 0);
    world.restart();
}

#[test]
fn instances_are_drained_before_they_go() {
    let world = &mut world(json!({}), false);
    run(world, 1);
    serve(world);
    act(world);
    let wish = json!({ "AutoScalingGroupName": "web", "MaxSize": 0 });
    world.write(group::update_auto_scaling_group, wish).unwrap();
    settle(world);
    serve(world);
    // The empty one is gone; the other drains and waits for its task, however long that takes.
    let left: Vec<_> = world.state.autoscaling.instances.values().map(|i| i.state.as_str()).collect();
    assert_eq!(left, ["Terminating:Wait"]);
    let draining = |world: &World| {
        let all = world.state.ecs.container_instances().values();
        all.filter(|i| i.status == ContainerInstanceStatus::Draining).count()
    };
    assert_eq!(draining(world), 1);
    for _ in 0..10 {
        pass(world, 1200);
    }
    assert_eq!(world.state.autoscaling.instances.len(), 1);
    stop_all(world);
    serve(world);
    assert_eq!(world.state.autoscaling.instances.len(), 0);
    assert_eq!(draining(world), 0);
}

#[test]
fn only_instances_without_tasks_lose_their_protection() {
    let world = &mut world(json!({ "managedTerminationProtection": "ENABLED" }), true);
    run(world, 1);
    serve(world);
    act(world);
    let protected = |world: &World| -> Vec<bool> {
        let mut all: Vec<bool> = world.state.autoscaling.instances.values().map(|i| i.protected).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(protected(world), [false, true]);
    pass(world, 3600);
    serve(world);
    assert_eq!(protected(world), [true], "the empty one went");
    stop_all(world);
    assert_eq!(protected(world), [false]);
}

#[test]
fn a_provider_that_is_taken_away_leaves_its_group_alone() {
    let world = &mut world(json!({}), false);
    let hooks = |world: &World| world.state.autoscaling.groups.values().next().unwrap().hooks.len();
    assert_eq!(hooks(world), 1);
    let put = json!({ "cluster": "default", "capacityProviders": [], "defaultCapacityProviderStrategy": [] });
    world.write(cluster::put_cluster_capacity_providers, put).unwrap();
    settle(world);
    assert_eq!(hooks(world), 0);
}

#[test]
fn how_long_a_group_waits_to_shrink_can_be_told() {
    let world =
        &mut world(json!({ "managedScaling": { "status": "ENABLED", "instanceWarmupPeriod": 0 } }), false);
    let mut tagged = world.state.ecs.capacity_providers.values().next().unwrap().as_ref().clone();
    tagged.tags.insert("gantry.scale-in-after".to_owned(), "5".to_owned());
    world.state.ecs.capacity_providers.put(tagged);
    run(world, 1);
    serve(world);
    act(world);
    stop_all(world);
    pass(world, 6);
    assert_eq!(desired(world), 1);
}
