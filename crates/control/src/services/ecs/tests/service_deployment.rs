//! Scripts on service deployments: what each attempt becomes, and what is remembered of it.

use super::service::{Fate, LONG, runs};
use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{service, service_deployment as ops};
use crate::services::ecs::state::{HISTORY_MAX, Task, TaskKey};
use gantry_decide::lifecycle::{HealthStatus, LastStatus};
use serde_json::{Value, json};

impl World {
    pub fn update_service(&mut self, change: Value) {
        let mut request = json!({"service": "web"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self.write(service::update_service, request).unwrap();
        self.come_to_rest();
    }

    /// A service that has arrived at the first revision of its task definition.
    pub fn with_service(request: Value) -> World {
        let mut world = World::with_capacity(7800);
        world.create_service(request);
        world.agent_acts(runs);
        world.pass(LONG);
        world
    }

    /// Deploys the next revision, none of whose tasks start.
    pub fn deploy_what_fails(&mut self, rounds: usize) {
        self.register("app");
        self.update_service(json!({"taskDefinition": "app"}));
        for _ in 0..rounds {
            self.agent_acts(newest_fails);
        }
    }

    /// Newest first.
    pub fn attempts(&mut self) -> Vec<Value> {
        let list = self.read(ops::list_service_deployments, json!({"service": "web"})).unwrap();
        let arns: Vec<_> = list["serviceDeployments"].as_array().unwrap().iter().map(arn).collect();
        let request = json!({"serviceDeploymentArns": arns});
        let reply = self.read(ops::describe_service_deployments, request).unwrap();
        reply["serviceDeployments"].as_array().unwrap().clone()
    }

    pub fn statuses(&mut self) -> Vec<String> {
        self.attempts().iter().map(|attempt| attempt["status"].as_str().unwrap().to_owned()).collect()
    }

    pub fn stop_deployment(&mut self, stop_type: &str) {
        let request = json!({"serviceDeploymentArn": arn(&self.attempts()[0]), "stopType": stop_type});
        self.write(ops::stop_service_deployment, request).unwrap();
        self.come_to_rest();
    }

    fn revision_of(&mut self, arn: &Value) -> Value {
        let reply =
            self.read(ops::describe_service_revisions, json!({"serviceRevisionArns": [arn]})).unwrap();
        reply["serviceRevisions"][0].clone()
    }
}

pub fn arn(attempt: &Value) -> Value {
    attempt["serviceDeploymentArn"].clone()
}

pub fn newest_fails(task: &Task) -> Fate {
    if task.definition_id.revision == 1 { Fate::Runs } else { Fate::FailsToStart }
}

#[test]
fn an_attempt_is_remembered_from_its_beginning_to_its_end() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 2}));
    let begun = world.attempts()[0].clone();
    assert_eq!((&begun["status"], &begun["finishedAt"]), (&json!("IN_PROGRESS"), &Value::Null));
    assert_eq!(begun["targetServiceRevision"]["requestedTaskCount"], 2);
    assert_eq!(begun["targetServiceRevision"]["pendingTaskCount"], 2);
    assert_eq!(begun["deploymentCircuitBreaker"]["status"], "DISABLED");
    assert_eq!(world.service()["currentServiceDeployment"], arn(&begun));
    world.agent_acts(runs);
    world.pass(LONG);
    let done = world.attempts()[0].clone();
    assert_eq!(done["status"], "SUCCESSFUL");
    assert!(done["startedAt"].as_f64() < done["finishedAt"].as_f64());
    assert_eq!(done["targetServiceRevision"]["runningTaskCount"], 2);

    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    let next = world.attempts()[0].clone();
    assert_eq!(next["sourceServiceRevisions"][0]["arn"], done["targetServiceRevision"]["arn"]);
    assert_eq!(next["sourceServiceRevisions"][0]["runningTaskCount"], 2);
    let revisions: Vec<_> = world.service()["currentServiceRevisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|revision| revision["arn"].clone())
        .collect();
    assert_eq!(revisions.len(), 2);
    assert!(world.revision_of(&revisions[0])["taskDefinition"].as_str().unwrap().ends_with("app:2"));
    assert!(world.revision_of(&revisions[1])["taskDefinition"].as_str().unwrap().ends_with("app:1"));
    for _ in 0..3 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    assert_eq!(world.statuses(), ["SUCCESSFUL", "SUCCESSFUL"]);
    assert_eq!(world.attempts()[0]["sourceServiceRevisions"][0]["runningTaskCount"], 0);
    world.restart();
    assert_eq!(world.statuses(), ["SUCCESSFUL", "SUCCESSFUL"]);
}

#[test]
fn a_rollback_whose_tasks_fail_is_over() {
    for rollback in [false, true] {
        // It arrived without a task: nobody knows that none would start.
        let breaker = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": rollback}});
        let mut world = World::with_service(json!({"desiredCount": 0, "deploymentConfiguration": breaker}));
        world.register("app");
        world.update_service(json!({"taskDefinition": "app", "desiredCount": 2}));
        world.stop_deployment("ROLLBACK");
        assert_eq!(world.statuses(), ["ROLLBACK_IN_PROGRESS", "SUCCESSFUL"]);
        for _ in 0..8 {
            world.agent_acts(|_| Fate::FailsToStart);
            world.pass(LONG);
        }
        assert_eq!(world.statuses(), ["ROLLBACK_FAILED", "SUCCESSFUL"]);
    }
}

#[test]
fn a_newer_attempt_stops_the_one_that_goes_on() {
    let mut world = World::with_service(json!({"desiredCount": 2}));
    for _ in 0..2 {
        world.register("app");
        world.update_service(json!({"taskDefinition": "app"}));
    }
    assert_eq!(world.statuses(), ["IN_PROGRESS", "STOPPED", "SUCCESSFUL"]);
    let reason = world.attempts()[1]["statusReason"].as_str().unwrap().to_owned();
    assert!(reason.ends_with("took its place."), "{reason}");
}

#[test]
fn the_circuit_breaker_ends_an_attempt_one_way_or_the_other() {
    let breaker = |rollback: bool| {
        json!({"desiredCount": 2, "deploymentConfiguration": {"deploymentCircuitBreaker": {
            "enable": true, "rollback": rollback,
            "thresholdConfiguration": {"type": "COUNT", "value": 2},
        }}})
    };
    let mut world = World::with_service(breaker(true));
    let good = world.attempts()[0]["targetServiceRevision"]["arn"].clone();
    // One after the other, as long as no task has told what its image is.
    world.deploy_what_fails(2);
    world.pass(LONG);
    let ended = world.attempts()[0].clone();
    assert_eq!(ended["status"], "ROLLBACK_SUCCESSFUL");
    assert_eq!(ended["rollback"]["serviceRevisionArn"], good);
    let told = json!({"status": "TRIGGERED", "failureCount": 2, "threshold": 2});
    assert_eq!(ended["deploymentCircuitBreaker"], told);
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "COMPLETED");

    let mut world = World::with_service(breaker(false));
    world.deploy_what_fails(3);
    assert_eq!(world.statuses(), ["STOPPED", "SUCCESSFUL"]);
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "FAILED");
    let running = world.live().iter().filter(|task| task.last_status == LastStatus::Running).count();
    assert_eq!((running, world.live().len()), (2, 2), "what worked goes on");

    // The first deployment has nothing before it.
    let mut world = World::with_capacity(7800);
    world.create_service(breaker(true));
    world.agent_acts(|_| Fate::FailsToStart);
    assert_eq!(world.statuses(), ["ROLLBACK_FAILED"]);
    assert!(world.live().is_empty());
}

#[test]
fn tasks_that_fall_ill_count_for_the_circuit_breaker() {
    let mut world = World::with_capacity(7800);
    let breaker = json!({"enable": true, "rollback": false, "resetOnHealthyTask": false,
        "thresholdConfiguration": {"type": "COUNT", "value": 2}});
    let app =
        json!({"name": "app", "image": "app:1", "memory": 128, "healthCheck": {"command": ["CMD", "true"]}});
    let request = json!({"family": "app", "containerDefinitions": [app]});
    world.write(super::super::ops::task_definition::register_task_definition, request).unwrap();
    world.create_service(json!({"desiredCount": 1, "deploymentConfiguration": {
        "deploymentCircuitBreaker": breaker, "maximumPercent": 100, "minimumHealthyPercent": 0}}));
    for _ in 0..2 {
        world.agent_acts(runs);
        let mut ill = world.live()[0].clone();
        ill.containers[0].health_status = HealthStatus::Unhealthy;
        world.state.ecs.put_task(ill);
        world.come_to_rest();
        world.agent_acts(runs);
    }
    assert_eq!(world.statuses(), ["STOPPED"]);
    assert_eq!(world.attempts()[0]["deploymentCircuitBreaker"]["failureCount"], 2);
    assert!(world.live().is_empty(), "nothing more of it is launched");
}

#[test]
fn users_stop_and_turn_back_what_goes_on() {
    let mut world = World::with_service(json!({"desiredCount": 2}));
    let good = world.service()["deployments"][0]["id"].clone();
    world.deploy_what_fails(1);
    world.stop_deployment("ROLLBACK");
    assert_eq!(world.statuses()[0], "ROLLBACK_SUCCESSFUL", "what it goes back to never stopped");
    assert_eq!(world.service()["deployments"][0]["id"], good);
    let request = json!({"serviceDeploymentArn": arn(&world.attempts()[0])});
    let conflict = world.write(ops::stop_service_deployment, request).unwrap_err();
    assert_eq!(conflict.code, "ConflictException");

    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    world.stop_deployment("ABORT");
    assert_eq!(world.statuses()[0], "STOPPED");
    let old = world.live().iter().filter(|task| task.definition_id.revision == 1).count();
    assert_eq!((old, &world.service()["deployments"][0]["rolloutState"]), (2, &json!("FAILED")));
    // The next deployment goes on from there.
    world.update_service(json!({"taskDefinition": "app:1", "forceNewDeployment": true}));
    for _ in 0..3 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    assert_eq!(world.statuses()[0], "SUCCESSFUL");
    assert_eq!(world.live().len(), 2);
}

#[test]
fn a_task_that_dies_during_a_bad_deployment_is_replaced_by_its_like() {
    let mut world = World::with_service(json!({"desiredCount": 2}));
    world.deploy_what_fails(4);
    let old = |world: &World| {
        let old = world.live().into_iter().filter(|task| task.definition_id.revision == 1);
        old.collect::<Vec<_>>()
    };
    let victim = old(&world)[0].id;
    world.agent_acts(|task| if task.id == victim { Fate::Exits } else { newest_fails(task) });
    assert_eq!(old(&world).len(), 2, "another of the same revision takes its place");
    for _ in 0..3 {
        world.agent_acts(newest_fails);
    }
    let serving = old(&world).iter().filter(|task| task.last_status == LastStatus::Running).count();
    assert_eq!(serving, 2);
    // The deployment goes on, and ends without them once its tasks run.
    for _ in 0..40 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    assert_eq!((world.statuses()[0].as_str(), old(&world).len()), ("SUCCESSFUL", 0));
}

#[test]
fn an_early_success_needs_not_all_tasks() {
    let early = json!({"enable": true, "healthyPercent": 50, "sourceServiceRevisionCleanup": "DEFERRED"});
    let configuration = json!({"minimumHealthyPercent": 50, "earlySuccessCriteria": early});
    let mut world = World::with_service(json!({"desiredCount": 2, "deploymentConfiguration": configuration}));
    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    let first = world.live().into_iter().find(|task| task.definition_id.revision == 2).unwrap().id;
    world.agent_acts(|task| if task.id == first { Fate::Runs } else { newest_fails(task) });
    assert_eq!(world.statuses()[0], "IN_PROGRESS");
    world.pass(LONG);
    assert_eq!(world.statuses()[0], "SUCCESSFUL");
    let service = world.service();
    assert_eq!(service["deploymentConfiguration"]["earlySuccessCriteria"], early);
    assert_eq!(service["deployments"][0]["rolloutState"], "COMPLETED");

    let low = json!({"service": "web", "deploymentConfiguration": {
        "earlySuccessCriteria": {"enable": true, "healthyPercent": 49}}});
    fails(world.write(service::update_service, low), INVALID, "healthyPercent must be between 50 and 100.");
}

#[test]
fn history_is_listed_newest_first_and_bounded() {
    let mut world = World::with_service(json!({"desiredCount": 0}));
    for _ in 0..HISTORY_MAX + 3 {
        world.update_service(json!({"forceNewDeployment": true}));
    }
    let (mut seen, mut token) = (Vec::new(), Value::Null);
    loop {
        let mut request = json!({"service": "web", "maxResults": 60});
        if !token.is_null() {
            request["nextToken"] = token;
        }
        let page = world.read(ops::list_service_deployments, request).unwrap();
        seen.extend(page["serviceDeployments"].as_array().unwrap().clone());
        token = page["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(seen.len(), HISTORY_MAX);
    assert!(seen.is_sorted_by(|one, next| one["createdAt"].as_f64() > next["createdAt"].as_f64()));
    let filter = json!({"service": "web", "status": ["IN_PROGRESS", "STOPPED"]});
    let none = world.read(ops::list_service_deployments, filter).unwrap();
    assert!(none["serviceDeployments"].as_array().unwrap().is_empty());

    let oldest = arn(seen.last().unwrap());
    world.write(service::delete_service, json!({"service": "web", "force": true})).unwrap();
    world.come_to_rest();
    world.pass(std::time::Duration::from_secs(3601));
    let gone =
        world.read(ops::describe_service_deployments, json!({"serviceDeploymentArns": [oldest]})).unwrap();
    assert_eq!(gone["failures"][0]["reason"], "MISSING");
    let rows = world.rows();
    assert!(!rows.keys().any(|key| key.contains("service-")), "nothing of it is stored");
}

#[test]
fn what_names_no_deployment_is_refused() {
    let mut world = World::with_service(json!({"desiredCount": 1}));
    let unknown = "arn:aws:ecs:eu-north-1:123456789012:service-deployment/default/web/AAAAAAAAAAAAAAAAAAAAA";
    let stop = world.write(ops::stop_service_deployment, json!({"serviceDeploymentArn": unknown}));
    assert_eq!(stop.unwrap_err().code, "ServiceDeploymentNotFoundException");
    let task = world.live()[0].clone();
    let task = TaskKey::from(&task).arn(&world.scope).to_string();
    for arn in ["nonsense", task.as_str()] {
        let reply = world.read(ops::describe_service_deployments, json!({"serviceDeploymentArns": [arn]}));
        assert_eq!(reply.unwrap_err().code, INVALID);
    }
    let missing = world.read(ops::list_service_deployments, json!({"service": "other"})).unwrap_err();
    assert_eq!(missing.code, "ServiceNotFoundException");
    let threshold = json!({"type": "BOUNDED_PERCENT", "value": 101});
    let breaker = json!({"enable": true, "rollback": true, "thresholdConfiguration": threshold});
    let request = json!({"service": "web", "deploymentConfiguration": {"deploymentCircuitBreaker": breaker}});
    fails(
        world.write(service::update_service, request),
        INVALID,
        "A threshold in percent must be between 1 and 100.",
    );
}
