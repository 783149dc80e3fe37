//! Providers of Managed Instances, as tasks come and go.
#![allow(clippy::unwrap_used)]

use super::ManagedInstances;
use crate::controllers::testing::fleet::Fleet;
use crate::controllers::testing::round;
use crate::machines::{Report, Want, machines};
use crate::services::ecs::ops::{capacity_provider, cluster, container_instance, task};
use crate::services::ecs::tests::world::{INVALID, World, fails};
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};

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

/// With tasks of 1024 CPU units.
fn world(change: Value) -> Fleet {
    let mut world = World::new();
    world.create("default");
    world.write(capacity_provider::create_capacity_provider, provider(change)).unwrap();
    let mut fleet = Fleet::new(world, "managed", round::<ManagedInstances>);
    fleet.define("host", json!({"cpu": 1024}));
    fleet.settle();
    fleet
}

fn types(world: &Fleet) -> Vec<String> {
    let mut types: Vec<String> = world.wanted().into_iter().map(|(_, spec)| spec.instance_type).collect();
    types.sort();
    types
}

fn placed(world: &World) -> usize {
    world.state.ecs.tasks().values().filter(|task| task.instance.is_some()).count()
}

#[test]
fn machines_come_for_tasks_that_wait_and_go_when_they_have_none() {
    let mut world = world(json!({"infrastructureOptimization": {"scaleInAfter": 60}}));
    assert_eq!(types(&world), [""; 0], "nothing waits");
    world.run(3);
    let made = world.wanted();
    assert_eq!(types(&world), ["c7i.xlarge"], "one that holds all three");
    assert_eq!(made[0].1.cluster().unwrap().as_str(), "default");
    assert_eq!(made[0].1.zone, "eu-north-1a");
    world.run(1);
    assert_eq!(types(&world), ["c7i.xlarge"], "it has room for a fourth");
    world.run(1);
    assert_eq!(types(&world), ["c7i.large", "c7i.xlarge"]);
    assert_eq!(world.wanted().iter().filter(|(_, spec)| spec.zone == "eu-north-1b").count(), 1);
    world.serve();
    world.act();
    assert_eq!((placed(&world), types(&world).len()), (5, 0));
    let first = world.state.ecs.tasks().values().next().unwrap().id;
    let shown = world.read(task::describe_tasks, json!({"tasks": [first]}));
    let shown = shown.unwrap()["tasks"][0].clone();
    assert_eq!(shown["launchType"], "MANAGED_INSTANCES");
    assert_eq!(shown["capacityProviderName"], "managed");

    world.stop_all();
    world.pass(30);
    assert_eq!(machines(&world.state).filter(|(_, want)| *want == Want::Destroy).count(), 0);
    world.pass(60);
    assert_eq!(machines(&world.state).filter(|(_, want)| *want == Want::Destroy).count(), 2);
    world.serve();
    assert_eq!(machines(&world.state).count(), 0);
    let left = world.read(container_instance::list_container_instances, json!({})).unwrap();
    assert_eq!(left["containerInstanceArns"], json!([]));
    world.restart();
    world.settle();
}

#[test]
fn instances_are_for_tasks_of_their_provider_alone() {
    let mut world = world(json!({"infrastructureOptimization": {"scaleInAfter": -1}}));
    world.run(1);
    world.serve();
    world.act();
    world.stop_all();
    world.pass(100_000);
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
    world.run(1);
    assert_eq!(world.wanted().len(), 0, "the one that is idle takes it");
}

#[test]
fn what_no_machine_helps_brings_none_for_ever() {
    let mut world = world(json!({}));
    world.define("host", json!({"cpu": 1024, "memory": 100_000}));
    world.run(1);
    assert_eq!(world.wanted().len(), 0, "no type is as large");
    // Agents do not have the log driver: one machine shows it.
    let log = json!({"logDriver": "splunk", "options": {"splunk-token": "t", "splunk-url": "https://s"}});
    world.define("host", json!({"cpu": 1024, "logConfiguration": log}));
    world.run(1);
    assert_eq!(world.wanted().len(), 1);
    world.serve();
    assert_eq!((world.wanted().len(), placed(&world)), (0, 0));
    world.pass(5);
    assert_eq!(world.wanted().len(), 0);
}

#[test]
fn a_machine_that_cannot_be_made_is_tried_again_later() {
    let mut world = world(json!({}));
    world.run(1);
    let (id, _) = world.wanted()[0];
    world.tell(id, Report::Failed("no capacity".to_owned()));
    world.serve();
    assert_eq!(machines(&world.state).count(), 0);
    world.pass(31);
    assert_eq!(world.wanted().len(), 1);
    world.serve();
    assert_eq!(placed(&world), 1);
    let provider = world.state.ecs.capacity_providers.get(&"managed".parse().unwrap()).unwrap();
    assert_eq!(provider.kind.managed_instances().unwrap().failure, None);
    // One that is lost takes its tasks with it.
    let (id, _) = machines(&world.state).next().unwrap();
    world.tell(id, Report::Lost("gone".to_owned()));
    world.serve();
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

    world.run(1);
    let delete = json!({"capacityProvider": "managed", "cluster": "default"});
    let error = world.write(capacity_provider::delete_capacity_provider, delete.clone()).unwrap_err();
    assert_eq!(error.code.as_ref(), "ClientException");
    world.serve();
    world.act();
    world.stop_all();
    let reply = world.write(capacity_provider::delete_capacity_provider, delete).unwrap();
    assert_eq!(reply["capacityProvider"]["status"], "INACTIVE");
    world.settle();
    world.serve();
    assert_eq!(machines(&world.state).count(), 0);
    world.write(cluster::delete_cluster, json!({"cluster": "default"})).unwrap();
}

#[test]
fn machines_are_as_the_provider_wishes() {
    let wishes = json!({
        "vCpuCount": {"min": 2, "max": 8}, "memoryMiB": {"min": 1024},
        "allowedInstanceTypes": ["m7g.large", "m7i.large", "t3.large", "m7gd.large"],
        "memoryGiBPerVCpu": {"min": 3.5}, "cpuManufacturers": ["amazon-web-services"],
        "instanceGenerations": ["current"], "burstablePerformance": "excluded", "localStorage": "required",
        "bareMetal": "included", "acceleratorCount": {"min": 0, "max": 0},
    });
    let mut request = provider(json!({}));
    let template = &mut request["managedInstancesProvider"]["instanceLaunchTemplate"];
    template["instanceRequirements"] = wishes.clone();
    template["instanceRequirements"]["requireHibernateSupport"] = json!(false);
    template["capacityOptionType"] = json!("SPOT");
    let mut world = World::new();
    world.create("default");
    let made = world.write(capacity_provider::create_capacity_provider, request).unwrap();
    let shown = &made["capacityProvider"]["managedInstancesProvider"]["instanceLaunchTemplate"];
    assert_eq!((&shown["capacityOptionType"], &shown["instanceRequirements"]), (&json!("SPOT"), &wishes));
    let mut world = Fleet::new(world, "managed", round::<ManagedInstances>);
    world.define("host", json!({"cpu": 1024}));
    world.restart();
    world.run(1);
    let wanted = world.wanted();
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].1.instance_type.as_str(), wanted[0].1.is_spot()), ("m7gd.large", true));
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
        ("capacityOptionType", json!("RESERVED"), "UnsupportedFeatureException"),
        ("nitroEnclavesEnabled", json!(true), "UnsupportedFeatureException"),
        ("networkConfiguration", json!({"subnets": ["subnet-06b47bc4"]}), INVALID),
        ("networkConfiguration", json!({}), INVALID),
        ("storageConfiguration", json!({"storageSizeGiB": 5}), INVALID),
        (
            "instanceRequirements",
            json!({"vCpuCount": {"min": 1}, "memoryMiB": {"min": 1}, "networkInterfaceCount": {"min": 2}}),
            "UnsupportedFeatureException",
        ),
        (
            "instanceRequirements",
            json!({"vCpuCount": {"min": 1}, "memoryMiB": {"min": 1}, "bareMetal": "required"}),
            INVALID,
        ),
        (
            "instanceRequirements",
            json!({"vCpuCount": {"min": 1}, "memoryMiB": {"min": 1}, "memoryGiBPerVCpu": {"min": 9e9}}),
            INVALID,
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
