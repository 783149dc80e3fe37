//! Managed daemons, as instances come and go and revisions change.
#![allow(clippy::unwrap_used)]

use super::ManagedDaemons;
use crate::controllers::managed_instances::ManagedInstances;
use crate::controllers::testing::fleet::Fleet;
use crate::controllers::testing::round;
use crate::services::cloudwatch::links as alarms;
use crate::services::ecs::ops::{
    capacity_provider, cluster, container_instance, daemon, daemon_task_definition as definition, tag, task,
};
use crate::services::ecs::state::Task;
use crate::services::ecs::tests::world::{INVALID, World, fails};
use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};

/// A provider of Managed Instances with machines of four cores, tasks of one core for it, and a daemon's definition.
fn world() -> Fleet {
    let mut world = World::new();
    world.create("default");
    let provider = json!({"name": "managed", "cluster": "default", "managedInstancesProvider": {
        "infrastructureRoleArn": "arn:aws:iam::123456789012:role/infrastructure",
        "infrastructureOptimization": {"scaleInAfter": -1},
        "instanceLaunchTemplate": {
            "ec2InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/hosts",
            "networkConfiguration": {"subnets": ["subnet-1"]},
            "instanceRequirements": {"vCpuCount": {"min": 4, "max": 4}, "memoryMiB": {"min": 1024}},
        },
    }});
    world.write(capacity_provider::create_capacity_provider, provider).unwrap();
    define(&mut world);
    let round = |world: &mut World| round::<ManagedDaemons>(world) | round::<ManagedInstances>(world);
    let mut fleet = Fleet::new(world, "managed", round);
    // Two fill a machine but for the daemon's part.
    fleet.define("host", json!({"cpu": 2048}));
    fleet
}

fn define(world: &mut World) -> Value {
    let container = json!({"image": "logs:1", "memory": 256, "cpu": 512});
    let request = json!({"family": "logs", "pidMode": "shared", "containerDefinitions": [container]});
    world.write(definition::register_daemon_task_definition, request).unwrap()["daemonTaskDefinitionArn"]
        .take()
}

const ARN: &str = "arn:aws:ecs:eu-north-1:123456789012:daemon/default/logs";

fn create(world: &mut Fleet, change: Value) -> Value {
    let mut request = json!({"daemonName": "logs", "daemonTaskDefinitionArn": "logs",
        "capacityProviderArns": ["managed"]});
    request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let made = world.write(daemon::create_daemon, request).unwrap();
    world.settle();
    made
}

fn update(world: &mut Fleet, change: Value) -> Value {
    let mut request =
        json!({"daemonArn": ARN, "daemonTaskDefinitionArn": "logs", "capacityProviderArns": ["managed"]});
    request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let updated = world.write(daemon::update_daemon, request).unwrap();
    world.settle();
    updated
}

fn deployments(world: &mut World) -> Vec<Value> {
    let listed = world.read(daemon::list_daemon_deployments, json!({"daemonArn": ARN})).unwrap();
    let arns: Vec<_> = listed["daemonDeployments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|deployment| deployment["daemonDeploymentArn"].clone())
        .collect();
    let request = json!({"daemonDeploymentArns": arns});
    let reply = world.read(daemon::describe_daemon_deployments, request).unwrap();
    reply["daemonDeployments"].as_array().unwrap().clone()
}

fn statuses(world: &mut World) -> Vec<Value> {
    deployments(world).iter().map(|deployment| deployment["status"].clone()).collect()
}

/// Until nothing more comes of it.
fn work(world: &mut Fleet, fails: impl Fn(&Task) -> bool) {
    for _ in 0..12 {
        world.serve();
        world.act_but(&fails);
    }
}

fn nothing(_: &Task) -> bool {
    false
}

/// Live tasks that shall run: the daemon's and the others'.
fn running(world: &World) -> (usize, usize) {
    let live = world.state.ecs.tasks().values().filter(|task| {
        task.is_live() && task.desired_status == DesiredStatus::Running && task.instance.is_some()
    });
    let (daemons, others): (Vec<_>, Vec<_>) = live.partition(|task| task.daemon_name().is_some());
    (daemons.len(), others.len())
}

fn instances(world: &mut World) -> Vec<Value> {
    let listed = world.read(container_instance::list_container_instances, json!({})).unwrap();
    let arns = listed["containerInstanceArns"].clone();
    if arns == json!([]) {
        return Vec::new();
    }
    let request = json!({"containerInstances": arns});
    let reply = world.read(container_instance::describe_container_instances, request).unwrap();
    reply["containerInstances"].as_array().unwrap().clone()
}

#[test]
fn a_daemon_runs_on_each_instance_before_other_tasks() {
    let mut world = world();
    let made = create(&mut world, json!({}));
    assert_eq!((&made["status"], &made["daemonArn"]), (&json!("ACTIVE"), &json!(ARN)));
    assert_eq!(statuses(&mut world), ["SUCCESSFUL"], "no instance lacks it");
    world.run(1);
    world.serve();
    let joined = instances(&mut world);
    assert_eq!((joined.len(), &joined[0]["status"]), (1, &json!("REGISTERING")));
    assert_eq!(running(&world), (1, 0));
    world.act();
    assert_eq!((&instances(&mut world)[0]["status"], running(&world)), (&json!("ACTIVE"), (1, 1)));

    let listed = world.read(task::list_tasks, json!({"daemonName": "logs"})).unwrap();
    let described = world.read(task::describe_tasks, json!({"tasks": listed["taskArns"]})).unwrap();
    let daemon_task = &described["tasks"][0];
    assert!(daemon_task["taskDefinitionArn"].as_str().unwrap().ends_with(":daemon-task-definition/logs:1"));
    assert_eq!(
        (&daemon_task["group"], &daemon_task["launchType"]),
        (&json!("daemon:logs"), &json!("MANAGED_INSTANCES"))
    );
    let daemon = world.read(daemon::describe_daemon, json!({"daemonArn": ARN})).unwrap()["daemon"].take();
    let revision = &daemon["currentRevisions"][0];
    assert_eq!(
        (&revision["totalRunningCount"], &revision["capacityProviders"][0]["runningCount"]),
        (&json!(1), &json!(1))
    );
    // A machine of 4096 units has room for one more of 2048 beside the daemon's 512, and not for two.
    world.run(1);
    work(&mut world, nothing);
    assert_eq!((instances(&mut world).len(), running(&world)), (2, (2, 2)));
    world.restart();
    world.settle();
    assert_eq!(running(&world), (2, 2));
}

#[test]
fn an_instance_that_loses_a_critical_daemon_is_replaced() {
    for critical in [true, false] {
        let mut world = world();
        create(&mut world, json!({"critical": critical}));
        world.run(1);
        work(&mut world, nothing);
        let before = instances(&mut world)[0]["ec2InstanceId"].clone();
        world.act_but(|task| task.daemon_name().is_some());
        let now = instances(&mut world)[0].clone();
        assert_eq!(now["status"], if critical { "DRAINING" } else { "ACTIVE" });
        if !critical {
            let daemon = world.read(daemon::describe_daemon, json!({"daemonArn": ARN})).unwrap();
            assert_eq!(daemon["daemon"]["currentRevisions"][0]["totalWithoutDaemonCount"], 1);
            continue;
        }
        // A task of no service stays until it ends; then the machine goes.
        let task = world.state.ecs.tasks().values().find(|task| task.daemon_name().is_none()).unwrap().id;
        world.write(task::stop_task, json!({"task": task.to_string()})).unwrap();
        world.run(1);
        work(&mut world, nothing);
        let after = instances(&mut world);
        assert_eq!((after.len(), running(&world)), (1, (1, 1)));
        assert_ne!(after[0]["ec2InstanceId"], before);
    }
}

#[test]
fn a_new_revision_comes_with_new_instances_a_share_at_a_time() {
    let mut world = world();
    create(&mut world, json!({"deploymentConfiguration": {"drainPercent": 50.0, "bakeTimeInMinutes": 0}}));
    world.run(4);
    work(&mut world, nothing);
    assert_eq!(running(&world), (4, 4));
    define(&mut world);
    let updated = update(
        &mut world,
        json!({"deploymentConfiguration": {"drainPercent": 50.0, "bakeTimeInMinutes": 60}}),
    );
    assert!(updated["deploymentArn"].as_str().unwrap().contains(":daemon-deployment/default/logs/"));
    let draining = |world: &mut World| instances(world).iter().filter(|i| i["status"] == "DRAINING").count();
    assert_eq!(draining(&mut world), 2, "half of four");
    let shown = deployments(&mut world)[0].clone();
    assert_eq!(
        (&shown["status"], &shown["sourceDaemonRevisions"][0]["totalDrainingInstanceCount"]),
        (&json!("IN_PROGRESS"), &json!(2))
    );
    // Tasks of no service are ended by their users, and come again elsewhere.
    for _ in 0..4 {
        let drained: Vec<String> = instances(&mut world)
            .iter()
            .filter(|i| i["status"] == "DRAINING")
            .map(|i| i["containerInstanceArn"].as_str().unwrap().to_owned())
            .collect();
        let on = |task: &&std::sync::Arc<Task>| {
            let host = task.instance.as_ref().map(|key| key.arn(&world.scope).to_string());
            task.daemon_name().is_none() && task.is_live() && host.is_some_and(|host| drained.contains(&host))
        };
        let tasks: Vec<_> = world.state.ecs.tasks().values().filter(on).map(|task| task.id).collect();
        for id in &tasks {
            world.write(task::stop_task, json!({"task": id.to_string()})).unwrap();
        }
        world.run(tasks.len().max(1));
        work(&mut world, nothing);
        assert!(draining(&mut world) <= 3);
    }
    assert_eq!(deployments(&mut world)[0]["status"], "IN_PROGRESS", "it bakes");
    world.pass(3600);
    assert_eq!(statuses(&mut world), ["SUCCESSFUL", "SUCCESSFUL"]);
    let tasks = world.state.ecs.tasks().values();
    let mut live = tasks.filter(|task| task.is_live() && task.daemon_name().is_some());
    assert!(live.all(|task| task.definition_id.revision == 2));
}

#[test]
fn a_revision_that_fails_or_alarms_is_rolled_back() {
    for alarmed in [false, true] {
        let mut world = world();
        let watched = json!({"deploymentConfiguration": {"drainPercent": 100.0, "bakeTimeInMinutes": 5,
            "alarms": {"alarmNames": ["errors"], "enable": true}}});
        create(&mut world, watched.clone());
        world.pass(300);
        assert_eq!(statuses(&mut world), ["SUCCESSFUL"]);
        world.run(1);
        work(&mut world, nothing);
        let stopped = json!({"task": stopped(&world)});
        world.write(task::stop_task, stopped).unwrap();
        define(&mut world);
        update(&mut world, watched);
        if alarmed {
            work(&mut world, nothing);
            let name = "errors".parse().unwrap();
            world.edit(|tx| alarms::set(tx, name, AlarmState::Alarm, String::new())).unwrap();
            world.settle();
        } else {
            for _ in 0..8 {
                run_one_more(&mut world);
                work(&mut world, |task| task.daemon_name().is_some() && task.definition_id.revision == 2);
                world.pass(40);
            }
        }
        let first = deployments(&mut world)[0].clone();
        let why = if alarmed { "alarm detected." } else { "tasks failed to start." };
        assert_eq!(first["statusReason"], format!("ECS deployment failed: {why}"), "{first}");
        assert!(first["rollback"]["rollbackTargetDaemonRevisionArn"].is_string());
        run_one_more(&mut world);
        work(&mut world, nothing);
        world.pass(40);
        work(&mut world, nothing);
        assert_eq!(statuses(&mut world)[0], "ROLLBACK_SUCCESSFUL");
        let tasks = world.state.ecs.tasks().values();
        let mut live = tasks.filter(|task| task.is_live() && task.daemon_name().is_some());
        assert!(live.all(|task| task.definition_id.revision == 1));
    }
}

/// The task of no daemon that runs.
fn stopped(world: &World) -> String {
    let tasks = world.state.ecs.tasks().values();
    tasks.filter(|task| task.is_live()).find(|task| task.daemon_name().is_none()).unwrap().id.to_string()
}

/// Something that waits for a machine, if nothing does.
fn run_one_more(world: &mut Fleet) {
    if world.state.ecs.tasks().values().all(|task| !task.is_live() || task.daemon_name().is_some()) {
        world.run(1);
    }
}

#[test]
fn a_deleted_daemon_goes_with_its_instances() {
    let mut world = world();
    create(&mut world, json!({}));
    world.run(1);
    work(&mut world, nothing);
    let delete = json!({"daemonTaskDefinition": "logs:1"});
    world.write(definition::delete_daemon_task_definition, delete).unwrap();
    let shown = |world: &mut World| {
        let request = json!({"daemonTaskDefinition": "logs:1"});
        let reply = world.read(definition::describe_daemon_task_definition, request).unwrap();
        reply["daemonTaskDefinition"].clone()
    };
    assert_eq!(shown(&mut world)["status"], "DELETE_IN_PROGRESS", "a daemon runs it");
    let deleted = world.write(daemon::delete_daemon, json!({"daemonArn": ARN})).unwrap();
    assert_eq!(deleted["status"], "DELETE_IN_PROGRESS");
    world.settle();
    let again = world.write(daemon::delete_daemon, json!({"daemonArn": ARN})).unwrap_err();
    assert_eq!(again.code.as_ref(), "DaemonNotActiveException");
    let stopped = json!({"task": stopped(&world)});
    world.write(task::stop_task, stopped).unwrap();
    work(&mut world, nothing);
    let gone = world.read(daemon::describe_daemon, json!({"daemonArn": ARN})).unwrap_err();
    assert_eq!(gone.code.as_ref(), "DaemonNotFoundException");
    assert_eq!((instances(&mut world).len(), shown(&mut world)["status"].clone()), (0, json!("DELETED")));
    world.restart();
}

#[test]
fn definitions_of_daemons_are_their_own() {
    let mut world = world();
    assert_eq!(define(&mut world), "arn:aws:ecs:eu-north-1:123456789012:daemon-task-definition/logs:2");
    let request = json!({"daemonTaskDefinition": "logs"});
    let shown =
        world.read(definition::describe_daemon_task_definition, request).unwrap()["daemonTaskDefinition"]
            .take();
    assert_eq!(
        (&shown["revision"], &shown["pidMode"], &shown["ipcMode"]),
        (&json!(2), &json!("shared"), &json!("none"))
    );
    assert_eq!(
        (&shown["containerDefinitions"][0]["name"], &shown["status"]),
        (&json!("logs"), &json!("ACTIVE"))
    );
    let listed = world
        .read(definition::list_daemon_task_definitions, json!({"sort": "DESC", "familyPrefix": "lo"}))
        .unwrap();
    let arns: Vec<_> =
        listed["daemonTaskDefinitions"].as_array().unwrap().iter().map(|d| d["arn"].clone()).collect();
    assert!(arns.len() == 2 && arns[0].as_str().unwrap().ends_with("logs:2"));
    let last =
        world.read(definition::list_daemon_task_definitions, json!({"revision": "LAST_REGISTERED"})).unwrap();
    assert_eq!(last["daemonTaskDefinitions"].as_array().unwrap().len(), 1);
    let tagged = json!({"resourceArn": arns[0], "tags": [{"key": "team", "value": "blue"}]});
    world.write(tag::tag_resource, tagged).unwrap();
    // Nobody runs it as a task of his own.
    let error = world.write(task::run_task, json!({"taskDefinition": "logs"})).unwrap_err();
    assert_eq!(error.message, "TaskDefinition not found.");
    let group = json!({"taskDefinition": "app", "group": "daemon:logs"});
    assert_eq!(world.write(task::run_task, group).unwrap_err().code.as_ref(), INVALID);
}

#[test]
fn daemons_are_for_managed_instances_of_their_cluster() {
    let mut world = world();
    let request = |provider: &str| json!({"daemonName": "logs", "daemonTaskDefinitionArn": "logs", "capacityProviderArns": [provider]});
    let message = "Daemons run on capacity providers of Managed Instances. Specify capacity providers of this kind that \
                   belong to the daemon's cluster.";
    for provider in ["FARGATE", "nobody"] {
        fails(world.write(daemon::create_daemon, request(provider)), INVALID, message);
    }
    world.create("other");
    let mut foreign = request("managed");
    foreign["clusterArn"] = json!("other");
    fails(world.write(daemon::create_daemon, foreign), INVALID, message);
    let mut request = request("managed");
    request["clientToken"] = json!("one");
    let first = world.write(daemon::create_daemon, request.clone()).unwrap();
    assert_eq!(world.write(daemon::create_daemon, request.clone()).unwrap()["daemonArn"], first["daemonArn"]);
    request["clientToken"] = json!("two");
    fails(world.write(daemon::create_daemon, request), INVALID, "Creation of daemon was not idempotent.");
    let listed = world.read(daemon::list_daemons, json!({"capacityProviderArns": ["managed"]})).unwrap();
    assert_eq!(listed["daemonSummariesList"][0]["daemonArn"], ARN);
    let revision =
        world.read(daemon::describe_daemon, json!({"daemonArn": ARN})).unwrap()["daemon"]["currentRevisions"]
            [0]["arn"]
            .take();
    let shown =
        world.read(daemon::describe_daemon_revisions, json!({"daemonRevisionArns": [revision]})).unwrap();
    assert_eq!((&shown["daemonRevisions"][0]["critical"], &shown["failures"]), (&json!(true), &json!([])));
    assert!(world.write(cluster::delete_cluster, json!({"cluster": "default"})).is_err());
}
