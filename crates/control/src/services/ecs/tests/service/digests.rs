//! Scripts on version consistency: whose digests a deployment's tasks run.

use super::{LONG, World, runs};
use crate::controllers::services::Services;
use crate::controllers::testing::round;
use crate::services::ecs::ops::service_deployment::describe_service_revisions;
use crate::services::ecs::ops::{service, submit};
use crate::services::ecs::state::{ServiceKey, ServiceRevisionKey, Task};
use crate::sessions::payload;
use gantry_decide::lifecycle::LastStatus;
use serde_json::{Value, json};

impl World {
    /// A service of three tasks of two containers, the second opted out.
    fn tagged(&mut self, settings: Value) {
        let containers = json!([
            {"name": "app", "image": "r.example/app:1", "memory": 64},
            {"name": "free", "image": "r.example/free:1", "memory": 64, "versionConsistency": "disabled"},
            {"name": "fixed", "image": format!("r.example/fixed@sha256:{}", "f".repeat(64)), "memory": 64},
        ]);
        self.define(json!({"family": "tagged", "containerDefinitions": containers}));
        let mut all = json!({"taskDefinition": "tagged"});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        self.create_service(all);
    }

    /// The agent tells which digests it found.
    fn pulled(&mut self, task: &Task, digest: &str) {
        let containers: Vec<Value> = ["app", "free"]
            .iter()
            .map(|name| json!({"containerName": name, "status": "PENDING", "imageDigest": digest}))
            .collect();
        let arn = task.arn(&self.scope).to_string();
        let request = json!({"task": arn, "status": "PENDING", "reason": "", "containers": containers});
        self.write(submit::submit_task_state_change, request).unwrap();
        self.come_to_rest();
    }

    fn images(&self, task: &Task) -> Vec<(String, Option<bool>)> {
        let payload = payload::compile(&self.scope, "http://endpoint", task);
        let containers = payload.containers.unwrap().into_iter();
        containers.map(|container| (container.image.unwrap(), container.image_pinned)).collect()
    }
}

#[test]
fn the_first_task_tells_what_the_others_run() {
    let mut world = World::with_capacity(7800);
    world.tagged(json!({}));
    let first = world.live();
    assert_eq!(first.len(), 1, "the others wait for it");
    assert!(!round::<Services>(&mut world));
    world.pulled(&first[0], "sha256:aa");
    let tasks = world.live();
    assert_eq!(tasks.len(), 3);
    for task in tasks.iter().filter(|task| task.id != first[0].id) {
        let images = world.images(task);
        assert_eq!(images[0], ("r.example/app:1@sha256:aa".to_owned(), Some(true)));
        assert_eq!(images[1], ("r.example/free:1".to_owned(), None));
        assert_eq!(images[2], (format!("r.example/fixed@sha256:{}", "f".repeat(64)), None));
        let shown = &task.containers[0];
        assert_eq!((shown.image.as_str(), &shown.image_digest), ("r.example/app:1", &None));
    }
    let revision = world.state.ecs.services().iter().next().unwrap().1.deployments[0].revision;
    let key = ServiceKey { cluster: first[0].cluster.clone(), name: "web".parse().unwrap() };
    let arn = ServiceRevisionKey { service: key, id: revision }.arn(&world.scope).to_string();
    let shown =
        world.read(describe_service_revisions, json!({"serviceRevisionArns": [arn]})).unwrap()["serviceRevisions"]
            [0]["containerImages"]
            .take();
    assert_eq!(shown[0]["imageDigest"], "sha256:aa");
    assert_eq!(shown[1], json!({"containerName": "free", "image": "r.example/free:1"}));
    // What starts later runs the same, also after a restart of the control plane.
    world.agent_acts(runs);
    world.restart();
    world.write(service::update_service, json!({"service": "web", "desiredCount": 4})).unwrap();
    world.come_to_rest();
    let new = world.live().into_iter().find(|task| task.last_status == LastStatus::Pending).unwrap();
    assert_eq!(world.images(&new)[0].0, "r.example/app:1@sha256:aa");
}

#[test]
fn a_new_deployment_finds_out_anew() {
    let mut world = World::with_capacity(7800);
    world.tagged(json!({"desiredCount": 1}));
    let old = world.live().remove(0);
    world.pulled(&old, "sha256:aa");
    world.agent_acts(runs);
    world.pass(LONG);
    world.write(service::update_service, json!({"service": "web", "forceNewDeployment": true})).unwrap();
    world.come_to_rest();
    let new = world.live().into_iter().find(|task| task.id != old.id).unwrap();
    assert_eq!(world.images(&new)[0].0, "r.example/app:1");
    world.pulled(&new, "sha256:bb");
    let deployments = world.state.ecs.services().iter().next().unwrap().1.deployments.clone();
    let digest = |index: usize| {
        deployments[index].image_digests.as_ref().unwrap().values().map(String::as_str).collect::<Vec<_>>()
    };
    assert_eq!((digest(0), digest(1)), (vec!["sha256:bb"], vec!["sha256:aa"]));
}

#[test]
fn images_without_digests_and_instances_that_are_gone_hold_nobody_up() {
    let mut world = World::with_capacity(7800);
    world.tagged(json!({}));
    world.agent_acts(runs);
    assert_eq!(world.live().len(), 3, "one that runs has told what it knows");
    assert_eq!(world.images(&world.live()[2])[0].0, "r.example/app:1");

    let mut world = World::with_capacity(7800);
    world.tagged(json!({}));
    let instances = |world: &World| -> Vec<_> {
        world.state.ecs.container_instances().iter().map(|(_, i)| i.as_ref().clone()).collect()
    };
    let mut lost = instances(&world).remove(0);
    lost.agent_connected = false;
    world.state.ecs.put_container_instance(lost);
    world.come_to_rest();
    let other = World::with_capacity(7800);
    let mut other = instances(&other).remove(0);
    other.id = gantry_decide::ids::ContainerInstanceId::random(&mut world.random);
    world.state.ecs.put_container_instance(other.clone());
    world.pass(LONG);
    let here = |world: &World| {
        world
            .live()
            .iter()
            .filter(|task| task.instance.as_ref().is_some_and(|key| key.id == other.id))
            .count()
    };
    assert_eq!(here(&world), 1);
}

#[test]
fn three_attempts_in_vain_are_enough() {
    for breaker in [false, true] {
        let mut world = World::with_capacity(7800);
        let configuration = json!({"deploymentCircuitBreaker": {"enable": breaker, "rollback": false}});
        world.tagged(json!({"desiredCount": 20, "deploymentConfiguration": configuration}));
        for _ in 0..3 {
            assert_eq!(world.live().len(), 1);
            world.agent_acts(|_| super::Fate::FailsToStart);
        }
        world.pass(2 * LONG);
        let state = world.service()["deployments"][0]["rolloutState"].as_str().unwrap().to_owned();
        let expected = if breaker { (0, "FAILED") } else { (20, "IN_PROGRESS") };
        assert_eq!((world.live().len(), state.as_str()), expected);
    }
}
