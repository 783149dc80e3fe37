//! Scripts on capacity: tasks that wait for instances, spot tasks that make room, services on strategies.

use super::world::{CLIENT, INVALID, World, fails, registration};
use crate::controllers::Controllers;
use crate::controllers::provisioning::Provisioning;
use crate::controllers::services::Services;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::round;
use crate::services::ecs::ops::{
    capacity_provider, cluster, container_instance, service, submit, task, task_definition,
};
use crate::services::ecs::state::{FARGATE_POOL, Task};
use crate::state::State;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus, StopCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long tasks wait for instances unless the operator says otherwise: ECS's longest.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A world with the cluster `default`, whose default strategy is the provider `metal` of the group of that name, and the
/// definition `app` of 1024 CPU units: four to an instance.
fn with_provider(scaled: bool) -> World {
    let mut world = World::new();
    world.create("default");
    let scaling = json!({"status": if scaled { "ENABLED" } else { "DISABLED" }});
    let group = json!({"autoScalingGroupArn": "metal", "managedScaling": scaling});
    let create = json!({"name": "metal", "autoScalingGroupProvider": group});
    world.write(capacity_provider::create_capacity_provider, create).unwrap();
    associate(&mut world, json!(["metal"]), json!([{"capacityProvider": "metal", "weight": 1}]));
    let container = json!({"name": "app", "image": "app:1", "memory": 128, "cpu": 1024,
        "versionConsistency": "disabled"});
    let definition = json!({"family": "app", "containerDefinitions": [container]});
    world.write(task_definition::register_task_definition, definition).unwrap();
    world
}

fn associate(world: &mut World, providers: Value, strategy: Value) {
    let put = json!({"cluster": "default", "capacityProviders": providers,
        "defaultCapacityProviderStrategy": strategy});
    world.write(cluster::put_cluster_capacity_providers, put).unwrap();
}

/// A connected instance, of a group where one is given.
fn join(world: &mut World, cluster: &str, group: Option<&str>) -> String {
    let mut request = registration(cluster);
    let attributes = request["attributes"].as_array_mut().unwrap();
    for name in [
        "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        "ecs.capability.task-eni",
        "ecs.capability.task-cpu-mem-limit",
        "gantry.inline-eni",
    ] {
        attributes.push(json!({"name": name}));
    }
    attributes.extend(group.map(|group| json!({"name": "gantry.auto-scaling-group", "value": group})));
    let reply = world.write(container_instance::register_container_instance, request).unwrap();
    let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
    connect(world, &arn);
    arn
}

fn connect(world: &mut World, arn: &str) {
    let EcsResource::ContainerInstance(cluster, id) = arn.parse::<EcsArn>().unwrap().resource else {
        panic!("{arn}")
    };
    let key = crate::services::ecs::state::ContainerInstanceKey { cluster, id };
    let mut instance = world.state.ecs.container_instance(&key).unwrap().clone();
    instance.agent_connected = true;
    world.state.ecs.put_container_instance(instance);
}

fn settle(world: &mut World) {
    for _ in 0..100 {
        let moved = round::<Provisioning>(world) | round::<Services>(world) | round::<Tasks>(world);
        world.state.ecs.check_invariants();
        if !moved {
            return;
        }
    }
    panic!("the controllers do not come to rest");
}

fn tasks(world: &World) -> Vec<Task> {
    let mut tasks: Vec<Task> = world.state.ecs.tasks().values().map(|task| task.as_ref().clone()).collect();
    tasks.sort_by_key(|task| (task.created_at, task.id));
    tasks
}

/// Live tasks by the provider that they run on, those told to stop left out.
fn by_provider(world: &World) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for task in tasks(world).iter().filter(|t| t.is_live() && t.desired_status == DesiredStatus::Running) {
        let provider = task.capacity_provider.as_ref().map(ToString::to_string).unwrap_or_default();
        *counts.entry(provider).or_default() += 1;
    }
    counts
}

/// What agents do next: they start what they have been given, and end what they were told to.
fn agents_act(world: &mut World) {
    for mut task in tasks(world).into_iter().filter(|task| task.is_live() && task.instance.is_some()) {
        task.sent = true;
        let arn = task.arn(&world.scope).to_string();
        let status = match (task.desired_status, task.last_status) {
            (DesiredStatus::Running, LastStatus::Pending) => "RUNNING",
            (DesiredStatus::Stopped, _) => "STOPPED",
            _ => continue,
        };
        world.state.ecs.put_task(task);
        world.write(submit::submit_task_state_change, json!({"task": arn, "status": status})).unwrap();
    }
    settle(world);
}

#[test]
fn tasks_wait_for_instances_of_a_group_that_grows() {
    let world = &mut with_provider(true);
    let reply = world.write(task::run_task, json!({"taskDefinition": "app", "count": 6})).unwrap();
    assert_eq!(reply["failures"], json!([]));
    let first = &reply["tasks"][0];
    assert_eq!((&first["lastStatus"], &first["desiredStatus"]), (&json!("PROVISIONING"), &json!("RUNNING")));
    assert_eq!((&first["capacityProviderName"], &first["launchType"]), (&json!("metal"), &json!("EC2")));
    assert!(first.get("containerInstanceArn").is_none());
    settle(world);
    world.restart();
    join(world, "default", None);
    join(world, "default", Some("other"));
    settle(world);
    assert!(tasks(world).iter().all(Task::is_waiting), "those instances are of another capacity");
    let instance = join(world, "default", Some("metal"));
    let shown = json!({"containerInstances": [instance]});
    let shown = world.read(container_instance::describe_container_instances, shown).unwrap();
    assert_eq!(shown["containerInstances"][0]["capacityProviderName"], "metal");
    settle(world);
    let placed = tasks(world).iter().filter(|task| task.last_status == LastStatus::Pending).count();
    assert_eq!(placed, 4, "the instance is full");
    assert!(tasks(world).iter().take(4).all(|task| !task.is_waiting()), "the oldest come first");
    agents_act(world);
    let one = tasks(world)[0].arn(&world.scope).to_string();
    world.write(task::stop_task, json!({"task": one})).unwrap();
    agents_act(world);
    assert_eq!(tasks(world).iter().filter(|task| task.is_waiting()).count(), 1, "what ends makes room");
}

#[test]
fn tasks_that_wait_in_vain_stop_and_say_why() {
    let world = &mut with_provider(true);
    let run = json!({"taskDefinition": "app"});
    world.write(task::run_task, run.clone()).unwrap();
    settle(world);
    world.now = world.now + PATIENCE;
    settle(world);
    let task = tasks(world).remove(0);
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    assert_eq!(task.stopped_reason.as_deref(), Some("TaskFailedToStart: EMPTY CAPACITY PROVIDER"));
    let instance = join(world, "default", Some("metal"));
    world.write(task::run_task, json!({"taskDefinition": "app", "count": 5})).unwrap();
    settle(world);
    let drain = json!({"containerInstances": [instance], "status": "DRAINING"});
    world.write(task::run_task, run).unwrap();
    world.now = world.now + PATIENCE;
    settle(world);
    let full = tasks(world)
        .into_iter()
        .filter(|t| t.stopped_reason.as_deref() == Some("TaskFailedToStart: RESOURCE:CPU"));
    assert_eq!(full.count(), 2);
    world.write(container_instance::update_container_instances_state, drain).unwrap();
    world.write(task::run_task, json!({"taskDefinition": "app"})).unwrap();
    world.now = world.now + PATIENCE;
    settle(world);
    let last = tasks(world).pop().unwrap();
    assert_eq!(last.stopped_reason.as_deref(), Some("TaskFailedToStart: NO ACTIVE INSTANCES"));
}

#[test]
fn a_task_that_waits_can_be_stopped() {
    let world = &mut with_provider(true);
    let reply = world.write(task::run_task, json!({"taskDefinition": "app"})).unwrap();
    world.write(task::stop_task, json!({"task": reply["tasks"][0]["taskArn"]})).unwrap();
    settle(world);
    join(world, "default", Some("metal"));
    settle(world);
    let task = tasks(world).remove(0);
    assert_eq!((task.last_status, task.instance), (LastStatus::Stopped, None));
    assert_eq!(task.stop_code, Some(StopCode::UserInitiated));
}

#[test]
fn without_managed_scaling_nobody_waits() {
    let world = &mut with_provider(false);
    let run = json!({"taskDefinition": "app", "count": 5});
    let nowhere = "No Container Instances were found in your capacity provider.";
    fails(world.write(task::run_task, run.clone()), INVALID, nowhere);
    join(world, "default", Some("metal"));
    let reply = world.write(task::run_task, run).unwrap();
    assert_eq!(reply["tasks"].as_array().unwrap().len(), 4);
    assert_eq!(reply["failures"][0]["reason"], "RESOURCE:CPU");
}

#[test]
fn only_so_many_wait() {
    let world = &mut with_provider(true);
    let run = json!({"taskDefinition": "app", "count": 10});
    for _ in 0..50 {
        world.write(task::run_task, run.clone()).unwrap();
    }
    let error = world.write(task::run_task, json!({"taskDefinition": "app"})).unwrap_err();
    assert_eq!(error.code, CLIENT);
    assert_eq!(tasks(world).len(), 500);
    let create = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 2});
    world.write(service::create_service, create).unwrap();
    settle(world);
    let shown = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    let told = shown["services"][0]["events"].to_string();
    assert!(told.contains("because the tasks provisioning capacity limit was exceeded"), "{told}");
}

#[test]
fn a_service_waits_for_instances_and_says_where_there_are_none() {
    let world = &mut with_provider(true);
    let create = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 3});
    world.write(service::create_service, create).unwrap();
    settle(world);
    let shown = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    assert_eq!(shown["services"][0]["pendingCount"], 3);
    join(world, "default", Some("metal"));
    settle(world);
    agents_act(world);
    let shown = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    assert_eq!(shown["services"][0]["runningCount"], 3);
    let fixed = &mut with_provider(false);
    let create = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1});
    fixed.write(service::create_service, create).unwrap();
    settle(fixed);
    let shown = fixed.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    let told = shown["services"][0]["events"].to_string();
    assert!(told.contains("No Container Instances were found in your capacity provider."), "{told}");
}

/// A world with a host of 4096 CPU units in the Fargate pool, both of Fargate's providers, and the definition `web` of
/// 1024 units and 2048 MiB: three to a host.
pub fn with_fargate() -> World {
    let mut world = World::new();
    world.create("default");
    associate(&mut world, json!(["FARGATE", "FARGATE_SPOT"]), json!([]));
    let definition = json!({"family": "web", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "1024", "memory": "2048",
        "containerDefinitions": [{"name": "web", "image": "web:1", "versionConsistency": "disabled"}]});
    world.write(task_definition::register_task_definition, definition).unwrap();
    join(&mut world, FARGATE_POOL, None);
    world
}

fn run_on(provider: &str, count: i32) -> Value {
    json!({"taskDefinition": "web", "count": count,
        "capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}],
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}})
}

#[test]
fn spot_tasks_make_room_for_others() {
    let world = &mut with_fargate();
    world.write(task::run_task, run_on("FARGATE_SPOT", 3)).unwrap();
    settle(world);
    agents_act(world);
    let refused = world.write(task::run_task, run_on("FARGATE_SPOT", 1)).unwrap();
    assert_eq!(
        refused["failures"][0]["reason"], "RESOURCE:FARGATE",
        "spot tasks do not make room for each other"
    );
    let reply = world.write(task::run_task, run_on("FARGATE", 1)).unwrap();
    assert_eq!(reply["tasks"][0]["lastStatus"], "PROVISIONING");
    let leaving: Vec<Task> =
        tasks(world).into_iter().filter(|task| task.desired_status == DesiredStatus::Stopped).collect();
    assert_eq!(leaving.len(), 1, "no more than are needed");
    assert_eq!(leaving[0].stop_code, Some(StopCode::TerminationNotice));
    assert_eq!(leaving[0].stopped_reason.as_deref(), Some("Your Spot Task was interrupted."));
    settle(world);
    assert_eq!(by_provider(world)["FARGATE_SPOT"], 2, "nobody else goes while one is leaving");
    let refused = world.write(task::run_task, run_on("FARGATE_SPOT", 1)).unwrap();
    assert_eq!(refused["tasks"], json!([]));
    agents_act(world);
    agents_act(world);
    let gone = tasks(world).into_iter().find(|task| task.id == leaving[0].id).unwrap();
    assert_eq!((gone.last_status, gone.stop_code), (LastStatus::Stopped, Some(StopCode::SpotInterruption)));
    assert_eq!(gone.stopped_reason.as_deref(), Some("Your Spot Task was interrupted."));
    let arrived = tasks(world)
        .into_iter()
        .find(|t| t.capacity_provider.as_ref().is_some_and(|p| p.as_str() == "FARGATE"));
    assert_eq!(arrived.unwrap().last_status, LastStatus::Running);
}

#[test]
fn on_demand_tasks_fail_where_no_spot_task_could_help() {
    let world = &mut with_fargate();
    world.write(task::run_task, run_on("FARGATE", 3)).unwrap();
    settle(world);
    let reply = world.write(task::run_task, run_on("FARGATE", 1)).unwrap();
    assert_eq!(reply["failures"][0]["reason"], "RESOURCE:FARGATE");
    assert!(tasks(world).iter().all(|task| task.desired_status == DesiredStatus::Running));
}

#[test]
fn one_that_waits_for_room_which_goes_away_is_told() {
    let world = &mut with_fargate();
    world.write(task::run_task, run_on("FARGATE_SPOT", 3)).unwrap();
    settle(world);
    agents_act(world);
    world.write(task::run_task, run_on("FARGATE", 1)).unwrap();
    let hosts: Vec<_> = world.state.ecs.container_instances().values().map(|i| i.as_ref().clone()).collect();
    for mut host in hosts {
        host.agent_connected = false;
        world.state.ecs.put_container_instance(host);
    }
    settle(world);
    let task = tasks(world).pop().unwrap();
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    assert!(task.stopped_reason.unwrap().starts_with("Capacity is unavailable at this time."));
}

#[test]
fn a_service_keeps_the_proportions_of_its_strategy() {
    let world = &mut with_fargate();
    for _ in 0..5 {
        join(world, FARGATE_POOL, None);
    }
    let strategy = json!([
        {"capacityProvider": "FARGATE", "weight": 1, "base": 2},
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
    ]);
    let create = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 10,
        "capacityProviderStrategy": strategy,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}});
    world.write(service::create_service, create).unwrap();
    let rest = |world: &mut World| {
        for _ in 0..4 {
            settle(world);
            agents_act(world);
            world.now = world.now + Duration::from_secs(41);
        }
        settle(world);
    };
    let counts = |world: &World| {
        let counts = by_provider(world);
        (counts.get("FARGATE").copied().unwrap_or(0), counts.get("FARGATE_SPOT").copied().unwrap_or(0))
    };
    rest(world);
    assert_eq!(counts(world), (4, 6));
    let scale = |count: i32| json!({"service": "web", "desiredCount": count});
    world.write(service::update_service, scale(6)).unwrap();
    rest(world);
    assert_eq!(counts(world), (3, 3));
    world.write(service::update_service, scale(2)).unwrap();
    rest(world);
    assert_eq!(counts(world), (2, 0));
    world.write(service::update_service, scale(10)).unwrap();
    rest(world);
    assert_eq!(counts(world), (4, 6));
    let spot = tasks(world).into_iter().find(|task| {
        task.is_live() && task.capacity_provider.as_ref().is_some_and(|p| p.as_str() == "FARGATE_SPOT")
    });
    world.write(task::stop_task, json!({"task": spot.unwrap().arn(&world.scope).to_string()})).unwrap();
    rest(world);
    assert_eq!(counts(world), (4, 6), "what ends is replaced by its like");
}

#[test]
fn a_provider_without_room_keeps_nobody_from_another() {
    let world = &mut with_fargate();
    world.write(task::run_task, run_on("FARGATE_SPOT", 3)).unwrap();
    settle(world);
    agents_act(world);
    let strategy = json!([
        {"capacityProvider": "FARGATE_SPOT", "weight": 1},
        {"capacityProvider": "FARGATE", "weight": 1},
    ]);
    let create = json!({"serviceName": "web", "taskDefinition": "web", "desiredCount": 2,
        "capacityProviderStrategy": strategy,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}}});
    world.write(service::create_service, create).unwrap();
    for _ in 0..3 {
        settle(world);
        agents_act(world);
    }
    assert_eq!(by_provider(world)["FARGATE"], 1);
    let shown = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    let told = shown["services"][0]["events"].to_string();
    assert!(told.contains("Capacity is unavailable at this time."), "{told}");
}

#[test]
fn quotas_of_the_operator_hold() {
    let world = &mut with_provider(true);
    let mut installation = crate::state::Installation::default();
    let quotas = &mut installation.quotas;
    (quotas.clusters, quotas.services, quotas.tasks) = (2, 1, 3);
    (quotas.container_instances, quotas.capacity_providers, quotas.provisioning_tasks) = (1, 1, 4);
    world.state.installation = std::sync::Arc::new(installation);
    world.create("second");
    let third = world.write(cluster::create_cluster, json!({"clusterName": "third"}));
    fails(third, CLIENT, "The quota of 2 clusters is exceeded.");
    // One that is there is given as before.
    world.create("second");
    let create =
        |name: &str, count: i32| json!({"serviceName": name, "taskDefinition": "app", "desiredCount": count});
    let many = world.write(service::create_service, create("web", 4));
    fails(many, INVALID, "The desired count must be between 0 and 3.");
    world.write(service::create_service, create("web", 3)).unwrap();
    let other = world.write(service::create_service, create("other", 1));
    fails(other, CLIENT, "The quota of 1 services of a cluster is exceeded.");
    settle(world);
    let five = world.write(task::run_task, json!({"taskDefinition": "app", "count": 2})).unwrap_err();
    assert!(five.message.contains("provisioning capacity limit"), "{five}");
    let instance = join(world, "default", None);
    let again = world.register_instance(registration("default"));
    fails(again, CLIENT, "The quota of 1 container instances of a cluster is exceeded.");
    let leave = json!({"containerInstance": instance, "force": true});
    world.write(container_instance::deregister_container_instance, leave).unwrap();
    join(world, "default", None);
    let two = json!({"cluster": "default", "capacityProviders": ["metal", "FARGATE"],
        "defaultCapacityProviderStrategy": []});
    assert_eq!(world.write(cluster::put_cluster_capacity_providers, two).unwrap_err().code, INVALID);
}

#[test]
fn tasks_started_on_a_machine_of_ones_own_are_external() {
    let world = &mut with_provider(true);
    let instance = join(world, "default", None);
    let mut request = registration("default");
    let external = json!([{"name": "ecs.capability.external"},
        {"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}]);
    request["attributes"].as_array_mut().unwrap().extend(external.as_array().unwrap().clone());
    let own = world.register_instance(request).unwrap();
    let own = own["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
    connect(world, &own);
    let start = json!({"taskDefinition": "app", "containerInstances": [instance, own, "nobody"]});
    let reply = world.write(task::start_task, start).unwrap();
    let kinds: Vec<_> = reply["tasks"].as_array().unwrap().iter().map(|task| &task["launchType"]).collect();
    assert_eq!(kinds, ["EC2", "EXTERNAL"]);
    assert_eq!(reply["failures"][0]["reason"], "MISSING");
    let wrong = json!({"taskDefinition": "nothing", "containerInstances": ["nobody"]});
    fails(world.write(task::start_task, wrong), CLIENT, "TaskDefinition not found.");
}

#[test]
fn a_daemon_has_its_room_on_a_new_instance_before_tasks_that_waited() {
    let mut world = with_provider(true);
    let request = json!({"serviceName": "logs", "taskDefinition": "app", "schedulingStrategy": "DAEMON", "launchType": "EC2"});
    world.write(service::create_service, request).unwrap();
    world.write(task::run_task, json!({"taskDefinition": "app", "count": 4})).unwrap();
    join(&mut world, "default", Some("metal"));
    let mut state = State::default();
    state.replace(&world.scope, world.state.clone());
    let World { scope, now, random, placers, .. } = &mut world;
    Controllers::default().run(*now, &mut state, random, placers, &Vec::new());
    let tasks = state.get(scope).unwrap().ecs.tasks().values();
    let placed = tasks.filter(|task| task.instance.is_some());
    let (daemons, others): (Vec<_>, Vec<_>) = placed.partition(|task| task.group == "service:logs");
    assert_eq!((daemons.len(), others.len()), (1, 3));
}
