//! Scripts on clusters and capacity providers.
#![allow(clippy::unwrap_used)]

use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{cluster, container_instance};
use serde_json::{Value, json};

#[test]
fn a_cluster_lives_and_dies() {
    let world = &mut World::new();
    let made = world.create("shop");
    assert_eq!(made["clusterArn"], "arn:aws:ecs:eu-north-1:123456789012:cluster/shop");
    assert_eq!(made["status"], "ACTIVE");
    assert_eq!(made["settings"], json!([{"name": "containerInsights", "value": "disabled"}]));
    let again = world.write(
        cluster::create_cluster,
        json!({"clusterName": "shop", "settings": [{"name": "containerInsights", "value": "enabled"}]}),
    );
    assert_eq!(again.unwrap()["cluster"], made, "creating what is there gives it as it is");
    let unnamed = world.write(cluster::create_cluster, json!({})).unwrap();
    assert_eq!(unnamed["cluster"]["clusterName"], "default");

    let list =
        |world: &mut World| world.read(cluster::list_clusters, json!({})).unwrap()["clusterArns"].clone();
    assert_eq!(list(world).as_array().unwrap().len(), 2);
    let gone = world.write(cluster::delete_cluster, json!({"cluster": "shop"})).unwrap();
    assert_eq!(gone["cluster"]["status"], "INACTIVE");
    assert_eq!(list(world), json!(["arn:aws:ecs:eu-north-1:123456789012:cluster/default"]));
    let described = world.read(cluster::describe_clusters, json!({"clusters": ["shop", "nowhere"]})).unwrap();
    assert_eq!(described["clusters"][0]["status"], "INACTIVE");
    assert_eq!(
        described["failures"],
        json!([{"arn": "arn:aws:ecs:eu-north-1:123456789012:cluster/nowhere", "reason": "MISSING"}])
    );
    let delete =
        |world: &mut World, name: &str| world.write(cluster::delete_cluster, json!({ "cluster": name }));
    fails(delete(world, "shop"), "ClusterNotFoundException", "The referenced cluster was inactive.");
    fails(delete(world, "nowhere"), "ClusterNotFoundException", "Cluster not found.");
    assert_eq!(world.create("shop")["status"], "ACTIVE", "an INACTIVE name can be used again");
}

#[test]
fn a_cluster_with_an_instance_stays() {
    let world = &mut World::new();
    world.create("shop");
    let arn = world.join("shop");
    fails(
        world.write(cluster::delete_cluster, json!({"cluster": "shop"})),
        "ClusterContainsContainerInstancesException",
        "The Cluster cannot be deleted while Container Instances are active or draining.",
    );
    let request = json!({"cluster": "shop", "containerInstance": arn});
    world.write(container_instance::deregister_container_instance, request).unwrap();
    world.write(cluster::delete_cluster, json!({"cluster": "shop"})).unwrap();
}

#[test]
fn a_cluster_counts_its_own_tasks_and_stays_while_they_live() {
    let world = &mut World::new();
    world.create("shop");
    world.create("lab");
    let (shop, lab) = (world.join("shop"), world.join("lab"));
    world.register("web");
    world.run("web:1", &shop);
    let key = world.run("web:1", &lab);
    let request = json!({"clusters": ["shop"], "include": ["STATISTICS"]});
    let shown = world.read(cluster::describe_clusters, request).unwrap()["clusters"][0].take();
    assert_eq!(shown["runningTasksCount"], 1);
    assert!(
        shown["statistics"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "runningEC2TasksCount", "value": "1"}))
    );

    // The task outlives its instance's record here: tasks on Fargate have no instance in their cluster.
    let mut task = world.state.ecs.task(&key).unwrap().clone();
    task.instance = None;
    world.state.ecs.put_task(task);
    let gone = json!({"cluster": "lab", "containerInstance": lab});
    world.write(container_instance::deregister_container_instance, gone).unwrap();
    fails(
        world.write(cluster::delete_cluster, json!({"cluster": "lab"})),
        "ClusterContainsTasksException",
        "The Cluster cannot be deleted while Tasks are active.",
    );
}

#[test]
fn clusters_show_what_is_included() {
    let world = &mut World::new();
    let request = json!({
        "clusterName": "shop", "tags": [{"key": "a", "value": "b"}],
        "configuration": {"executeCommandConfiguration": {"logging": "NONE"}},
    });
    world.write(cluster::create_cluster, request).unwrap();
    world.join("shop");
    let describe = |world: &mut World, include: Value| {
        let request = json!({"clusters": ["shop"], "include": include});
        world.read(cluster::describe_clusters, request).unwrap()["clusters"][0].take()
    };
    let plain = describe(world, json!([]));
    assert_eq!(plain["registeredContainerInstancesCount"], 1);
    for member in ["tags", "settings", "statistics"] {
        assert_eq!(plain[member], json!([]), "{member}");
    }
    assert!(plain.get("configuration").is_none());
    let full = describe(world, json!(["TAGS", "SETTINGS", "STATISTICS", "CONFIGURATIONS"]));
    assert_eq!(full["tags"], json!([{"key": "a", "value": "b"}]));
    assert_eq!(full["configuration"], json!({"executeCommandConfiguration": {"logging": "NONE"}}));
    assert!(
        full["statistics"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "runningEC2TasksCount", "value": "0"}))
    );
}

#[test]
fn the_fargate_pool_is_nobodys() {
    let world = &mut World::new();
    world.join("gantry-fargate-pool");
    assert_eq!(world.read(cluster::list_clusters, json!({})).unwrap()["clusterArns"], json!([]));
    let described =
        world.read(cluster::describe_clusters, json!({"clusters": ["gantry-fargate-pool"]})).unwrap();
    assert_eq!(described["clusters"], json!([]));
    let listed =
        world.read(container_instance::list_container_instances, json!({"cluster": "gantry-fargate-pool"}));
    fails(listed, "ClusterNotFoundException", "Cluster not found.");
    let made = world.write(cluster::create_cluster, json!({"clusterName": "gantry-fargate-pool"}));
    fails(made, INVALID, "Invalid cluster name.");
}
