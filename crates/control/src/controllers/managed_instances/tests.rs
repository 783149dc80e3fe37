//! Providers of Managed Instances, as tasks come and go.
#![allow(clippy::unwrap_used)]

use super::ManagedInstances;
use crate::controllers::provisioning::Provisioning;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::round;
use crate::machines::{MachineSpec, Report, Want, machines, report};
use crate::services::ecs::ops::{
    capacity_provider, cluster, container_instance, submit, task, task_definition,
};
use crate::services::ecs::state::ContainerInstanceKey;
use crate::services::ecs::tests::world::{INVALID, World, fails, registration};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};
use std::time::Duration;

fn provider(change: Value) -> Value {
    let mut settings = json!({
        "infrastructureRoleArn": "arn:aws:iam::123456789012:role/infrastructure",
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/hosts",
            "networkConfiguration": {"subnets": ["subnet-1", "subnet-2"]},
            "instanceRequirements": {"vCpuCount": {"min": 1, "max": 4}, "memoryMiB": {"min": 1024}},
        },
    });
    settings.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"name": "managed", "cluster": "default", "managedInstancesProvider": settings})
}

fn world(change: Value) -> World {
    let mut world = World::new();
    world.create("default");
    world.write(capacity_provider::create_capacity_provider, provider(change)).unwrap();
    define(&mut world, json!({}));
    settle(&mut world);
    world
}

/// Tasks of 1024 CPU units.
fn define(world: &mut World, change: Value) {
    let mut container = json!({"name": "app", "image": "app:1", "memory": 128, "cpu": 1024});
    container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let definition = json!({"family": "app", "networkMode": "host", "containerDefinitions": [container]});
    world.write(task_definition::register_task_definition, definition).unwrap();
}

fn settle(world: &mut World) {
    for _ in 0..100 {
        let moved = round::<Provisioning>(world) | round::<ManagedInstances>(world) | round::<Tasks>(world);
        world.state.check_invariants();
        if !moved {
            return;
        }
    }
    panic!("the controllers do not come to rest");
}

fn pass(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
    settle(world);
}

fn run(world: &mut World, count: usize) {
    let strategy = json!([{"capacityProvider": "managed", "weight": 1}]);
    let request = json!({"taskDefinition": "app", "count": count, "capacityProviderStrategy": strategy});
    world.write(task::run_task, request).unwrap();
    settle(world);
}

fn wanted(world: &World) -> Vec<(Ec2InstanceId, MachineSpec)> {
    let wants = machines(&world.state).filter_map(|(id, want)| match want {
        Want::Create(spec) => Some((id, *spec)),
        Want::Keep | Want::Destroy => None,
    });
    wants.collect()
}

fn types(world: &World) -> Vec<String> {
    let mut types: Vec<String> = wanted(world).into_iter().map(|(_, spec)| spec.instance_type).collect();
    types.sort();
    types
}

fn tell(world: &mut World, id: Ec2InstanceId, what: Report) {
    world.edit(|tx| report(tx, id, what));
    settle(world);
}

/// Makes and destroys the machines that are wanted; those that are made join, with so much memory.
fn serve(world: &mut World) {
    for (id, want) in machines(&world.state).collect::<Vec<_>>() {
        match want {
            Want::Create(_) => {
                tell(world, id, Report::Running { address: None });
                join(world, id);
            }
            Want::Destroy => tell(world, id, Report::Gone),
            Want::Keep => {}
        }
    }
    settle(world);
}

fn join(world: &mut World, id: Ec2InstanceId) {
    let mut request = registration("default");
    let docker = json!({"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"});
    request["attributes"].as_array_mut().unwrap().push(docker);
    request["instanceIdentityDocument"] = json!({"instanceId": id}).to_string().into();
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

/// Agents start what they have been given, and end what shall end.
fn act(world: &mut World) {
    let tasks: Vec<_> = world.state.ecs.tasks().values().filter(|t| t.instance.is_some()).cloned().collect();
    for task in tasks.into_iter().filter(|task| task.is_live()) {
        let status = match task.desired_status {
            DesiredStatus::Stopped => "STOPPED",
            _ => "RUNNING",
        };
        let request = json!({"task": task.arn(&world.scope).to_string(), "status": status, "containers": []});
        world.write(submit::submit_task_state_change, request).unwrap();
    }
    settle(world);
}

fn stop_all(world: &mut World) {
    for task in world.state.ecs.tasks().values().cloned().collect::<Vec<_>>() {
        world.write(task::stop_task, json!({"task": task.arn(&world.scope).to_string()})).unwrap();
    }
    act(world);
}

fn placed(world: &World) -> usize {
    world.state.ecs.tasks().values().filter(|task| task.instance.is_some()).count()
}

#[test]
fn machines_come_for_tasks_that_wait_and_go_when_they_have_none() {
    let mut world = world(json!({"infrastructureOptimization": {"scaleInAfter": 60}}));
    assert_eq!(types(&world), [""; 0], "nothing waits");
    run(&mut world, 3);
    let made = wanted(&world);
    assert_eq!(types(&world), ["c7i.xlarge"], "one that holds all three");
    assert_eq!(made[0].1.cluster().unwrap().as_str(), "default");
    assert_eq!(made[0].1.zone, "eu-north-1a");
    run(&mut world, 1);
    assert_eq!(types(&world), ["c7i.xlarge"], "it has room for a fourth");
    run(&mut world, 1);
    assert_eq!(types(&world), ["c7i.large", "c7i.xlarge"]);
    assert_eq!(wanted(&world).iter().filter(|(_, spec)| spec.zone == "eu-north-1b").count(), 1);
    serve(&mut world);
    act(&mut world);
    assert_eq!((placed(&world), types(&world).len()), (5, 0));
    let shown = world
        .read(task::describe_tasks, json!({"tasks": [world.state.ecs.tasks().values().next().unwrap().id]}));
    let shown = shown.unwrap()["tasks"][0].clone();
    assert_eq!(shown["launchType"], "MANAGED_INSTANCES");
    assert_eq!(shown["capacityProviderName"], "managed");

    stop_all(&mut world);
    pass(&mut world, 30);
    assert_eq!(machines(&world.state).filter(|(_, want)| *want == Want::Destroy).count(), 0);
    pass(&mut world, 60);
    assert_eq!(machines(&world.state).filter(|(_, want)| *want == Want::Destroy).count(), 2);
    serve(&mut world);
    assert_eq!(machines(&world.state).count(), 0);
    let left = world.read(container_instance::list_container_instances, json!({})).unwrap();
    assert_eq!(left["containerInstanceArns"], json!([]));
    world.restart();
    settle(&mut world);
}

#[test]
fn instances_are_for_tasks_of_their_provider_alone() {
    let mut world = world(json!({"infrastructureOptimization": {"scaleInAfter": -1}}));
    run(&mut world, 1);
    serve(&mut world);
    act(&mut world);
    stop_all(&mut world);
    pass(&mut world, 100_000);
    assert_eq!(machines(&world.state).count(), 1, "it is kept for ever");
    let request = json!({"taskDefinition": "app", "launchType": "EC2"});
    let reply = world.write(task::run_task, request).unwrap();
    assert_eq!(reply["tasks"], json!([]), "{reply}");
    let request = json!({"taskDefinition": "app", "launchType": "MANAGED_INSTANCES"});
    fails(
        world.write(task::run_task, request),
        INVALID,
        "Tasks run on Managed Instances by a capacity provider strategy. Specify one in place of the launch type.",
    );
    run(&mut world, 1);
    assert_eq!(wanted(&world).len(), 0, "the one that is idle takes it");
}

#[test]
fn what_no_machine_helps_brings_none_for_ever() {
    let mut world = world(json!({}));
    define(&mut world, json!({"memory": 100_000}));
    run(&mut world, 1);
    assert_eq!(wanted(&world).len(), 0, "no type is as large");
    // Agents do not have the log driver: one machine shows it.
    let log = json!({"logDriver": "splunk", "options": {"splunk-token": "t", "splunk-url": "https://s"}});
    define(&mut world, json!({"logConfiguration": log}));
    run(&mut world, 1);
    assert_eq!(wanted(&world).len(), 1);
    serve(&mut world);
    assert_eq!((wanted(&world).len(), placed(&world)), (0, 0));
    pass(&mut world, 5);
    assert_eq!(wanted(&world).len(), 0);
}

#[test]
fn a_machine_that_cannot_be_made_is_tried_again_later() {
    let mut world = world(json!({}));
    run(&mut world, 1);
    let (id, _) = wanted(&world)[0];
    tell(&mut world, id, Report::Failed("no capacity".to_owned()));
    serve(&mut world);
    assert_eq!(machines(&world.state).count(), 0);
    pass(&mut world, 31);
    assert_eq!(wanted(&world).len(), 1);
    serve(&mut world);
    assert_eq!(placed(&world), 1);
    let provider = world.state.ecs.capacity_providers.get(&"managed".parse().unwrap()).unwrap();
    assert_eq!(provider.kind.managed_instances().unwrap().failure, None);
    // One that is lost takes its tasks with it.
    let (id, _) = machines(&world.state).next().unwrap();
    tell(&mut world, id, Report::Lost("gone".to_owned()));
    serve(&mut world);
    let task = world.state.ecs.tasks().values().next().unwrap().clone();
    assert_eq!(task.desired_status, DesiredStatus::Stopped);
}

#[test]
fn a_provider_is_its_clusters_until_it_is_deleted() {
    let mut world = world(json!({}));
    let described =
        world.read(capacity_provider::describe_capacity_providers, json!({"cluster": "default"})).unwrap();
    let shown = &described["capacityProviders"][0];
    assert_eq!((&shown["type"], &shown["status"]), (&json!("MANAGED_INSTANCES"), &json!("ACTIVE")));
    assert!(shown["cluster"].as_str().unwrap().ends_with(":cluster/default"));
    let template = &shown["managedInstancesProvider"]["instanceLaunchTemplate"];
    assert_eq!(template["instanceRequirements"]["vCpuCount"], json!({"min": 1, "max": 4}));
    let error = world.write(cluster::delete_cluster, json!({"cluster": "default"})).unwrap_err();
    assert_eq!(error.code.as_ref(), "ClusterContainsCapacityProviderException");
    // Putting others does not take it away.
    let put = json!({"cluster": "default", "capacityProviders": ["FARGATE"], "defaultCapacityProviderStrategy": []});
    let reply = world.write(cluster::put_cluster_capacity_providers, put).unwrap();
    assert_eq!(reply["cluster"]["capacityProviders"], json!(["FARGATE", "managed"]));

    run(&mut world, 1);
    let delete = json!({"capacityProvider": "managed", "cluster": "default"});
    let error = world.write(capacity_provider::delete_capacity_provider, delete.clone()).unwrap_err();
    assert_eq!(error.code.as_ref(), "ResourceInUseException");
    serve(&mut world);
    act(&mut world);
    stop_all(&mut world);
    let reply = world.write(capacity_provider::delete_capacity_provider, delete).unwrap();
    assert_eq!(reply["capacityProvider"]["status"], "INACTIVE");
    settle(&mut world);
    serve(&mut world);
    assert_eq!(machines(&world.state).count(), 0);
    world.write(cluster::delete_cluster, json!({"cluster": "default"})).unwrap();
}

#[test]
fn what_cannot_be_had_is_refused() {
    let mut world = World::new();
    world.create("default");
    let mut create = |request: Value| world.write(capacity_provider::create_capacity_provider, request);
    let mut without = provider(json!({}));
    without.as_object_mut().unwrap().remove("cluster");
    let message = "The cluster must be specified for a capacity provider of Managed Instances.";
    fails(create(without), INVALID, message);
    for (member, value, code) in [
        ("capacityOptionType", json!("SPOT"), "UnsupportedFeatureException"),
        ("nitroEnclavesEnabled", json!(true), "UnsupportedFeatureException"),
        ("networkConfiguration", json!({"subnets": ["subnet-06b47bc4"]}), INVALID),
        ("networkConfiguration", json!({}), INVALID),
        ("storageConfiguration", json!({"storageSizeGiB": 5}), INVALID),
        (
            "instanceRequirements",
            json!({"vCpuCount": {"min": 1}, "memoryMiB": {"min": 1}, "bareMetal": "required"}),
            "UnsupportedFeatureException",
        ),
        (
            "instanceRequirements",
            json!({"vCpuCount": {"min": 4, "max": 2}, "memoryMiB": {"min": 1}}),
            INVALID,
        ),
        ("instanceRequirements", json!({"vCpuCount": {"min": 500}, "memoryMiB": {"min": 1}}), INVALID),
    ] {
        let mut request = provider(json!({}));
        request["managedInstancesProvider"]["instanceLaunchTemplate"][member] = value;
        let error = create(request).unwrap_err();
        assert_eq!(error.code.as_ref(), code, "{member}: {}", error.message);
    }
}
