//! Scripts on tasks: what users ask, what agents report, what becomes of the tables.

use super::world::{CLIENT, INVALID, World, fails};
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::settle;
use crate::services::ecs::ops::{container_instance, submit, task, task_definition};
use crate::services::ecs::state::{ContainerInstanceKey, FARGATE_POOL, TaskKey};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::lifecycle::LastStatus;
use gantry_wire::ErrorField;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

impl World {
    /// A world with a cluster, one connected instance of 4096 CPU units and 7800 MiB, and the definition `app`.
    fn with_instance() -> (World, String) {
        let mut world = World::new();
        world.create("default");
        let docker = "com.amazonaws.ecs.capability.docker-remote-api.1.18";
        let instance = world.join_connected("default", json!([{"name": docker}]));
        world.register("app");
        (world, instance)
    }

    fn join_connected(&mut self, cluster: &str, attributes: Value) -> String {
        let mut request = super::world::registration(cluster);
        let all = request["attributes"].as_array_mut().unwrap();
        all.extend(attributes.as_array().unwrap().iter().cloned());
        let reply = self.write(container_instance::register_container_instance, request).unwrap();
        let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
        let mut instance = self.state.ecs.container_instance(&instance_key(&arn)).unwrap().clone();
        instance.agent_connected = true;
        self.state.ecs.put_container_instance(instance);
        arn
    }

    /// The awsvpc definition `web`, for Fargate.
    fn register_for_fargate(&mut self) {
        let definition = json!({"family": "web", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "cpu": "256", "memory": "512", "containerDefinitions": [{"name": "web", "image": "web:1"}]});
        self.write(task_definition::register_task_definition, definition).unwrap();
    }

    /// A host of the Fargate pool.
    fn join_fargate(&mut self) {
        self.join_fargate_with(&[]);
    }

    fn join_fargate_with(&mut self, more: &[&str]) {
        let all = [
            "gantry.inline-eni",
            "ecs.capability.task-eni",
            "ecs.capability.task-cpu-mem-limit",
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        ];
        let attributes = all.iter().chain(more).map(|name| json!({ "name": name })).collect();
        self.join_connected(FARGATE_POOL, attributes);
    }

    /// Runs a task in a subnet on a host that has these capabilities too, the first to join, and shows it.
    pub(crate) fn run_in_subnet(&mut self, subnet: &str, capabilities: &[&str]) -> Value {
        self.create("default");
        self.register_for_fargate();
        self.join_fargate_with(capabilities);
        let network = json!({"awsvpcConfiguration": {"subnets": [subnet]}});
        let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network});
        let ran = self.run_task(run);
        self.describe(&arn(&ran, 0))
    }

    /// Runs tasks with an interface in one of these subnets, one after the other, and shows those that run. There are
    /// hosts for 45.
    pub(crate) fn run_many_on_fargate(&mut self, subnets: &[String], count: usize) -> Vec<Value> {
        self.create("default");
        self.register_for_fargate();
        (0..3).for_each(|_| self.join_fargate());
        let network = json!({"awsvpcConfiguration": {"subnets": subnets}});
        let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network});
        (0..count).filter_map(|_| Some(self.run_task(run.clone())["tasks"].get(0)?.clone())).collect()
    }

    /// Runs one task with an interface of this subnet and these security groups, and shows it.
    pub(crate) fn run_on_fargate(&mut self, subnet: &str, groups: &[&str]) -> Value {
        self.create("default");
        self.register_for_fargate();
        self.join_fargate();
        let network = json!({"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": groups}});
        let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network});
        let ran = self.run_task(run);
        self.describe(&arn(&ran, 0))
    }

    fn run_task(&mut self, request: Value) -> Value {
        let reply = self.write(task::run_task, request).unwrap();
        settle::<Tasks>(self);
        reply
    }

    fn describe(&mut self, arn: &str) -> Value {
        let mut reply = self.read(task::describe_tasks, json!({"tasks": [arn]})).unwrap();
        reply["tasks"][0].take()
    }

    /// What SESSIONS notes when a payload goes out.
    fn deliver(&mut self, arn: &str) {
        let mut task = self.state.ecs.task(&task_key(arn)).unwrap().clone();
        task.sent = true;
        self.state.ecs.put_task(task);
    }

    fn submit(&mut self, request: Value) {
        let reply = self.write(submit::submit_task_state_change, request).unwrap();
        assert_eq!(reply["acknowledgment"], "ACK");
        settle::<Tasks>(self);
    }
}

fn instance_key(arn: &str) -> ContainerInstanceKey {
    match arn.parse::<EcsArn>().unwrap().resource {
        EcsResource::ContainerInstance(cluster, id) => ContainerInstanceKey { cluster, id },
        other => panic!("{other:?}"),
    }
}

fn task_key(arn: &str) -> TaskKey {
    match arn.parse::<EcsArn>().unwrap().resource {
        EcsResource::Task(cluster, id) => TaskKey { cluster, id },
        other => panic!("{other:?}"),
    }
}

fn arn(reply: &Value, index: usize) -> String {
    reply["tasks"][index]["taskArn"].as_str().unwrap().to_owned()
}

#[test]
fn a_task_lives_by_its_agents_reports() {
    let (mut world, _) = World::with_instance();
    let ran = world
        .run_task(json!({"taskDefinition": "app", "startedBy": "me", "tags": [{"key": "a", "value": "b"}]}));
    let task = arn(&ran, 0);
    assert_eq!(ran["failures"], json!([]));
    assert_eq!(ran["tasks"][0]["lastStatus"], "PENDING");
    assert_eq!(ran["tasks"][0]["group"], "family:app");
    assert_eq!(ran["tasks"][0]["overrides"]["containerOverrides"], json!([{"name": "app"}]));
    world.deliver(&task);
    world.submit(json!({"task": task, "status": "RUNNING", "reason": "", "pullStartedAt": 1, "pullStoppedAt": 2, "containers": [
        {"containerName": "app", "status": "RUNNING", "runtimeId": "r1", "imageDigest": "sha256:1",
         "networkBindings": [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp"}]},
        {"containerName": "~internal~pause", "status": "RUNNING"}]}));
    let shown = world.describe(&task);
    assert_eq!((&shown["lastStatus"], &shown["connectivity"]), (&json!("RUNNING"), &json!("CONNECTED")));
    assert_eq!(shown["containers"][0]["networkBindings"][0]["hostPort"], 32768);
    let version = shown["version"].as_i64().unwrap();

    // Late and repeated news changes nothing.
    world.submit(json!({"task": task, "status": "PENDING", "reason": ""}));
    world.submit(json!({"task": task, "status": "RUNNING", "reason": ""}));
    assert_eq!(world.describe(&task)["version"], version);

    world.submit(
        json!({"task": task, "status": "STOPPED", "reason": "", "executionStoppedAt": 9, "containers": [
        {"containerName": "app", "status": "STOPPED", "exitCode": 3, "reason": "OutOfMemoryError: x"}]}),
    );
    let shown = world.describe(&task);
    assert_eq!(shown["lastStatus"], "STOPPED");
    assert_eq!(
        (&shown["stopCode"], &shown["stoppedReason"]),
        (&json!("EssentialContainerExited"), &json!("Essential container in task exited"))
    );
    assert_eq!(shown["containers"][0]["exitCode"], 3);
    world.submit(json!({"task": task, "status": "RUNNING", "reason": ""}));
    assert_eq!(world.describe(&task)["lastStatus"], "STOPPED");

    world.now = world.now + Duration::from_secs(3600);
    settle::<Tasks>(&mut world);
    let gone = world.read(task::describe_tasks, json!({"tasks": [task]})).unwrap();
    assert_eq!(gone["failures"][0]["reason"], "MISSING");
    world.submit(json!({"task": task, "status": "STOPPED", "reason": ""}));
}

#[test]
fn a_stop_waits_for_the_agent_once_it_knows_of_the_task() {
    let (mut world, _) = World::with_instance();
    let ran = world.run_task(json!({"taskDefinition": "app", "count": 2}));
    let (known, unknown) = (arn(&ran, 0), arn(&ran, 1));
    world.deliver(&known);
    world.submit(json!({"task": known, "status": "RUNNING", "reason": ""}));
    for task in [&known, &unknown] {
        let reply = world.write(task::stop_task, json!({"task": task, "reason": "enough"})).unwrap();
        assert_eq!(reply["task"]["desiredStatus"], "STOPPED");
    }
    settle::<Tasks>(&mut world);
    assert_eq!(world.describe(&known)["lastStatus"], "STOPPING");
    assert_eq!(world.describe(&unknown)["lastStatus"], "STOPPED");
    world.write(task::stop_task, json!({"task": known, "reason": "again"})).unwrap();
    world.submit(json!({"task": known, "status": "STOPPED", "reason": "", "containers": [
        {"containerName": "app", "status": "STOPPED", "exitCode": 0}]}));
    let shown = world.describe(&known);
    assert_eq!((&shown["stopCode"], &shown["stoppedReason"]), (&json!("UserInitiated"), &json!("enough")));
    fails(
        world.write(task::stop_task, json!({"task": "0".repeat(32)})),
        INVALID,
        "The referenced task was not found.",
    );
}

#[test]
fn fargate_tasks_get_an_address_and_hide_their_host() {
    let mut world = World::new();
    world.create("default");
    world.register_for_fargate();
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network});
    let nowhere = world.run_task(run.clone());
    assert_eq!(nowhere["failures"][0]["reason"], "RESOURCE:FARGATE");
    world.join_fargate();
    let mut addresses = std::collections::BTreeSet::new();
    let mut last = String::new();
    for _ in 0..3 {
        let ran = world.run_task(run.clone());
        last = arn(&ran, 0);
        let shown = world.describe(&last);
        assert_eq!((&shown["lastStatus"], &shown["platformVersion"]), (&json!("PENDING"), &json!("1.4.0")));
        assert!(shown.get("containerInstanceArn").is_none());
        assert_eq!(shown["attachments"][0]["status"], "ATTACHED");
        let details = shown["attachments"][0]["details"].as_array().unwrap().clone();
        addresses.insert(details[4]["value"].as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 3);
    let interfaces = |world: &World| {
        world
            .state
            .ec2
            .seen(&world.scope)
            .subnets
            .values()
            .map(|subnet| world.state.ecs.interfaces().count_in(&subnet.id.to_string()))
            .sum::<usize>()
    };
    assert_eq!(interfaces(&world), 3);
    // A stopped task's address is free again.
    world.write(task::stop_task, json!({"task": last})).unwrap();
    settle::<Tasks>(&mut world);
    assert_eq!(world.describe(&last)["attachments"][0]["status"], "DELETED");
    assert_eq!(interfaces(&world), 2);
    world.state.check_invariants();
    for (subnet, group, text) in [
        (
            "subnet-0123456789abcdef0",
            "sg-1",
            "Error retrieving subnet information for [subnet-0123456789abcdef0]: \
          The subnet ID 'subnet-0123456789abcdef0' does not exist (ErrorCode: InvalidSubnetID.NotFound)",
        ),
        (
            "subnet-1",
            "sg-0123456789abcdef0",
            "Error retrieving security group information for [sg-0123456789abcdef0]: \
          The security group 'sg-0123456789abcdef0' does not exist (ErrorCode: InvalidGroup.NotFound)",
        ),
    ] {
        let network = json!({"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group]}});
        let run = json!({"taskDefinition": "web", "launchType": "FARGATE", "networkConfiguration": network});
        fails(world.write(task::run_task, run), INVALID, text);
    }
}

#[test]
fn what_cannot_be_is_refused_in_ecs_words() {
    let (mut world, instance) = World::with_instance();
    let mut refused =
        |request: Value, code: &str, text: &str| fails(world.write(task::run_task, request), code, text);
    refused(json!({"taskDefinition": "nowhere"}), CLIENT, "TaskDefinition not found.");
    refused(json!({"taskDefinition": "app", "count": 11}), INVALID, "Count must be between 1 and 10.");
    refused(
        json!({"taskDefinition": "app", "cluster": "nowhere"}),
        "ClusterNotFoundException",
        "Cluster not found.",
    );
    refused(
        json!({"taskDefinition": "app", "launchType": "FARGATE"}),
        INVALID,
        "Task definition does not support launch_type FARGATE.",
    );
    refused(
        json!({"taskDefinition": "app", "overrides": {"containerOverrides": [{"name": "other"}]}}),
        INVALID,
        "Override for container named other is not a container in the TaskDefinition.",
    );
    refused(
        json!({"taskDefinition": "app", "group": "service:web"}),
        INVALID,
        "Invalid namespace for group: 'service:' belongs to the tasks of services.",
    );
    refused(
        json!({"taskDefinition": "app", "placementStrategy": [{"type": "spread", "field": "moon"}]}),
        INVALID,
        "'moon' is not a field of the placement strategy spread.",
    );
    refused(
        json!({"taskDefinition": "app", "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}}),
        INVALID,
        "Network Configuration is not valid for the given networkMode of this task definition.",
    );
    let started = world.write(
        task::start_task,
        json!({"taskDefinition": "app", "containerInstances": [instance, "0".repeat(32)]}),
    );
    let started = started.unwrap();
    assert_eq!(started["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(started["failures"][0]["reason"], "MISSING");
}

#[test]
fn a_repeated_request_runs_nothing_anew() {
    let (mut world, _) = World::with_instance();
    let request = json!({"taskDefinition": "app", "clientToken": "t-1"});
    let first = arn(&world.run_task(request.clone()), 0);
    assert_eq!(arn(&world.run_task(request), 0), first);
    let other = world
        .write(task::run_task, json!({"taskDefinition": "app", "count": 2, "clientToken": "t-1"}))
        .unwrap_err();
    assert_eq!(
        (other.code.as_ref(), &other.fields[0].1),
        ("ConflictException", &ErrorField::Texts(vec![first]))
    );
}

#[test]
fn a_deregistered_instance_takes_its_tasks_along() {
    let (mut world, instance) = World::with_instance();
    let task = arn(&world.run_task(json!({"taskDefinition": "app"})), 0);
    let request = json!({"containerInstance": instance, "force": true});
    world.write(container_instance::deregister_container_instance, request).unwrap();
    settle::<Tasks>(&mut world);
    assert_eq!(world.describe(&task)["stoppedReason"], "Container instance deregistration forced by user");
}

proptest! {
    /// Whatever users and agents do, the indexes and pools follow from the tables, nothing is placed beyond what
    /// there is, and states only move forward.
    #[test]
    fn any_script_keeps_the_books(steps in prop::collection::vec((0..4_u8, 0..6_usize), 1..40)) {
        let (mut world, _) = World::with_instance();
        let mut tasks: Vec<String> = Vec::new();
        for (what, which) in steps {
            let chosen = tasks.get(which).cloned();
            let before = chosen.as_ref().and_then(|arn| world.state.ecs.task(&task_key(arn))).map(|t| t.last_status);
            match (what, &chosen) {
                (0, _) => {
                    let ran = world.run_task(json!({"taskDefinition": "app", "count": which + 1}));
                    tasks.extend(ran["tasks"].as_array().unwrap().iter().map(|t| t["taskArn"].as_str().unwrap().to_owned()));
                }
                (1, Some(task)) => { world.write(task::stop_task, json!({"task": task})).unwrap(); }
                (2, Some(task)) => { world.deliver(task); world.submit(json!({"task": task, "status": "RUNNING", "reason": ""})); }
                (3, Some(task)) => world.submit(json!({"task": task, "status": "STOPPED", "reason": ""})),
                _ => {}
            }
            settle::<Tasks>(&mut world);
            world.state.ecs.check_invariants();
            if let (Some(arn), Some(before)) = (chosen, before) {
                prop_assert!(world.state.ecs.task(&task_key(&arn)).unwrap().last_status >= before);
            }
            let live = world.state.ecs.tasks().iter().filter(|(_, t)| t.last_status != LastStatus::Stopped).count();
            // 4096 CPU units at 64 a task.
            prop_assert!(live <= 7800 / 128);
        }
    }
}
