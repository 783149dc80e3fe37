//! Scripts on task sets: services whose deployments somebody else drives.

use super::service::{Fate, LONG, runs};
use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{service, tag, task_set as ops};
use gantry_decide::lifecycle::DesiredStatus;
use gantry_wire::ApiError;
use serde_json::{Value, json};
use std::time::Duration;

fn merged(fields: Value) -> Value {
    let mut request = json!({"cluster": "default", "service": "web"});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

impl World {
    fn external(desired: u32) -> World {
        let mut world = World::with_capacity(7800);
        let request = json!({"serviceName": "web", "desiredCount": desired,
            "deploymentController": {"type": "EXTERNAL"}});
        world.write(service::create_service, request).unwrap();
        world
    }

    fn create_set(&mut self, percent: f64) -> Value {
        let request =
            merged(json!({"taskDefinition": "app", "scale": {"value": percent, "unit": "PERCENT"}}));
        let set = self.write(ops::create_task_set, request).unwrap()["taskSet"].take();
        self.come_to_rest();
        set
    }

    fn scale(&mut self, set: &Value, percent: f64) -> Result<Value, ApiError> {
        let request = merged(json!({"taskSet": set["id"], "scale": {"value": percent, "unit": "PERCENT"}}));
        let reply = self.write(ops::update_task_set, request);
        self.come_to_rest();
        reply
    }

    fn sets(&mut self) -> Vec<Value> {
        let reply = self.read(ops::describe_task_sets, merged(json!({"include": ["TAGS"]}))).unwrap();
        reply["taskSets"].as_array().unwrap().clone()
    }

    /// Tasks that shall run, by task set in the order of creation.
    fn shall_run(&self, sets: &[&Value]) -> Vec<usize> {
        let live = self.live();
        let of = |set: &&Value| {
            let id = set["id"].as_str();
            let shall = live.iter().filter(|task| task.desired_status == DesiredStatus::Running);
            shall.filter(|task| task.started_by.as_ref().map(ToString::to_string).as_deref() == id).count()
        };
        sets.iter().map(of).collect()
    }
}

#[test]
fn the_grace_period_is_the_services_own() {
    let mut world = World::external(1);
    let shown = |world: &mut World| world.service()["healthCheckGracePeriodSeconds"].take();
    assert_eq!(shown(&mut world), 0);
    let update = |seconds: i32| json!({"service": "web", "healthCheckGracePeriodSeconds": seconds});
    world.write(service::update_service, update(45)).unwrap();
    assert_eq!(shown(&mut world), 45);
    let refused = world.write(service::update_service, update(-1));
    fails(refused, INVALID, "The health check grace period must be between 0 and 2147483647 seconds.");
    let request = json!({"serviceName": "other", "desiredCount": 1, "healthCheckGracePeriodSeconds": 7,
        "deploymentController": {"type": "EXTERNAL"}});
    let made = world.write(service::create_service, request).unwrap();
    assert_eq!(made["service"]["healthCheckGracePeriodSeconds"], 7);
}

#[test]
fn sets_are_kept_at_their_share_of_the_desired_count() {
    let mut world = World::external(4);
    let shown = world.service();
    assert_eq!(
        (&shown["deploymentController"]["type"], &shown["taskSets"]),
        (&json!("EXTERNAL"), &json!([]))
    );
    assert_eq!(shown["taskDefinition"], Value::Null);
    let blue = world.create_set(100.0);
    assert_eq!((&blue["status"], &blue["stabilityStatus"]), (&json!("ACTIVE"), &json!("STABILIZING")));
    assert_eq!(blue["computedDesiredCount"], 4);
    let green = world.create_set(30.0);
    assert_eq!(world.shall_run(&[&blue, &green]), [4, 2]);
    world.agent_acts(runs);
    world.pass(LONG);
    assert!(world.sets().iter().all(|set| set["stabilityStatus"] == "STEADY_STATE"));
    let steady =
        format!("(service web, taskSet {}) has reached a steady state.", blue["id"].as_str().unwrap());
    assert!(world.messages().contains(&steady), "{:?}", world.messages());

    // Whatever is lost is replaced in its own set; the desired count moves all of them.
    let victim = world.live()[0].id;
    world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
    assert_eq!(world.shall_run(&[&blue, &green]), [4, 2]);
    assert!(world.sets().iter().any(|set| set["stabilityStatus"] == "STABILIZING"));
    world.write(service::update_service, json!({"service": "web", "desiredCount": 7})).unwrap();
    world.come_to_rest();
    assert_eq!(world.shall_run(&[&blue, &green]), [7, 3]);

    let primary = merged(json!({"primaryTaskSet": green["taskSetArn"]}));
    world.write(ops::update_service_primary_task_set, primary).unwrap();
    assert_eq!(world.sets()[0]["id"], green["id"]);
    let status: Vec<_> = world.sets().iter().map(|set| set["status"].clone()).collect();
    assert_eq!(status, ["PRIMARY", "ACTIVE"]);
    let shown = world.service();
    assert!(shown["taskDefinition"].as_str().unwrap().ends_with("task-definition/app:1"));
    assert_eq!((&shown["deployments"], shown["taskSets"].as_array().unwrap().len()), (&json!([]), 2));
    world.restart();
    world.scale(&green, 100.0).unwrap();
    world.scale(&blue, 0.0).unwrap();
    assert_eq!(world.shall_run(&[&blue, &green]), [0, 7]);
}

#[test]
fn a_set_is_deleted_once_its_tasks_are_gone() {
    let mut world = World::external(2);
    let (one, other) = (world.create_set(100.0), world.create_set(0.0));
    world.agent_acts(runs);
    let delete = |set: &Value, force: bool| merged(json!({"taskSet": set["id"], "force": force}));
    fails(
        world.write(ops::delete_task_set, delete(&one, false)),
        INVALID,
        "The task set cannot be deleted while it is scaled above 0.",
    );
    let gone = world.write(ops::delete_task_set, delete(&one, true)).unwrap();
    assert_eq!(
        (&gone["taskSet"]["status"], &gone["taskSet"]["computedDesiredCount"]),
        (&json!("DRAINING"), &json!(0))
    );
    world.come_to_rest();
    assert_eq!(world.sets().len(), 2, "its tasks are on their way out");
    assert_eq!(world.scale(&one, 50.0).unwrap_err().code, INVALID);
    world.agent_acts(runs);
    assert_eq!(world.sets().iter().map(|set| set["id"].clone()).collect::<Vec<_>>(), [other["id"].clone()]);
    let missing = world.scale(&one, 50.0).unwrap_err();
    assert_eq!(missing.code, "TaskSetNotFoundException");

    world.write(service::update_service, json!({"service": "web", "desiredCount": 0})).unwrap();
    fails(
        world.write(service::delete_service, json!({"service": "web"})),
        INVALID,
        "The service cannot be stopped while deployments are active.",
    );
    world.write(ops::delete_task_set, delete(&other, false)).unwrap();
    world.come_to_rest();
    world.write(service::delete_service, json!({"service": "web"})).unwrap();
    world.come_to_rest();
    assert_eq!(world.service()["status"], "INACTIVE");
    let late = world.read(ops::describe_task_sets, merged(json!({}))).unwrap_err();
    assert_eq!(late.code, "ServiceNotActiveException");
}

#[test]
fn each_set_has_a_patience_of_its_own() {
    let mut world = World::external(1);
    let bad = world.create_set(100.0);
    for _ in 0..4 {
        world.agent_acts(|_| Fate::FailsToStart);
    }
    assert_eq!(world.shall_run(&[&bad]), [0], "after the third it waits");
    let good = world.create_set(100.0);
    assert_eq!(world.shall_run(&[&bad, &good]), [0, 1]);
    world.agent_acts(runs);
    let event =
        format!("(service web, taskSet {}) is unable to consistently start", bad["id"].as_str().unwrap());
    assert!(world.messages().iter().any(|message| message.starts_with(&event)), "{:?}", world.messages());
    world.pass(Duration::from_secs(61));
    assert_eq!(world.shall_run(&[&bad, &good]), [1, 1]);
}

#[test]
fn what_is_no_task_sets_is_refused() {
    let mut world = World::external(1);
    let again = json!({"service": "web", "taskDefinition": "app"});
    assert_eq!(world.write(service::update_service, again).unwrap_err().code, INVALID);
    let typed =
        json!({"serviceName": "two", "launchType": "EC2", "deploymentController": {"type": "EXTERNAL"}});
    assert_eq!(world.write(service::create_service, typed).unwrap_err().code, INVALID);
    let scale = merged(json!({"taskDefinition": "app", "scale": {"value": 100.5, "unit": "PERCENT"}}));
    fails(
        world.write(ops::create_task_set, scale),
        INVALID,
        "The scale value must be between 0.0 and 100.0.",
    );
    for _ in 0..5 {
        world.create_set(0.0);
    }
    let surplus = world.write(ops::create_task_set, merged(json!({"taskDefinition": "app"}))).unwrap_err();
    assert_eq!(surplus.code, "LimitExceededException");
    let unknown = merged(json!({"taskSets": ["ecs-svc/1234567890123456789"]}));
    let reply = world.read(ops::describe_task_sets, unknown).unwrap();
    assert_eq!(reply["failures"][0]["reason"], "MISSING");

    let arn = world.sets()[0]["taskSetArn"].clone();
    let tags = json!({"resourceArn": arn, "tags": [{"key": "team", "value": "blue"}]});
    world.write(tag::tag_resource, tags).unwrap();
    assert_eq!(world.sets()[0]["tags"][0]["value"], "blue");

    let mut world = World::with_service(json!({"desiredCount": 1}));
    fails(
        world.write(ops::create_task_set, merged(json!({"taskDefinition": "app"}))),
        INVALID,
        "Task sets are only supported with the EXTERNAL deployment controller.",
    );
}

#[test]
fn one_that_somebody_else_drives_is_not_rebalanced() {
    let mut world = World::with_capacity(7800);
    let request = json!({"serviceName": "web", "deploymentController": {"type": "EXTERNAL"},
        "availabilityZoneRebalancing": "ENABLED"});
    let message = "Availability Zone rebalancing is not supported with the EXTERNAL deployment controller.";
    fails(world.write(service::create_service, request), INVALID, message);
}

#[test]
fn a_token_makes_one_set_only() {
    let mut world = World::external(1);
    let request = merged(json!({"taskDefinition": "app", "clientToken": "once"}));
    let first = world.write(ops::create_task_set, request.clone()).unwrap();
    let again = world.write(ops::create_task_set, request).unwrap();
    assert_eq!(first["taskSet"]["id"], again["taskSet"]["id"]);
    let other = merged(json!({"taskDefinition": "app", "clientToken": "once", "externalId": "x"}));
    let message = "Creation of task set was not idempotent.";
    fails(world.write(ops::create_task_set, other), INVALID, message);
}
