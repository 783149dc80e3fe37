//! Scripts on deployments that shift traffic: BLUE_GREEN, LINEAR and CANARY, their stages, hooks and ways back.

use super::service::{Fate, LONG, runs};
use super::service_deployment::{arn, newest_fails};
use super::world::{INVALID, World, fails};
use crate::services::ecs::deployments;
use crate::services::ecs::ops::{service, service_deployment as ops, task_definition};
use crate::services::ecs::state::{ServiceKey, Task};
use crate::tx::View;
use gantry_decide::ids::ClusterName;
use gantry_decide::lifecycle::DesiredStatus;
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn blue_green(minutes: u32) -> Value {
    json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": minutes, "lifecycleHooks": []})
}

fn pausing(stages: &[&str]) -> Value {
    let hook = json!({"targetType": "PAUSE", "lifecycleStages": stages,
        "timeoutConfiguration": {"timeoutInMinutes": 30, "action": "ROLLBACK"}});
    json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5, "lifecycleHooks": [hook]})
}

impl World {
    /// A service of two tasks whose first deployment has arrived, in the midst of its second one.
    fn shifting(configuration: Value) -> World {
        let mut world = World::with_service(json!({"desiredCount": 2}));
        world.deploy_next(configuration);
        world
    }

    fn deploy_next(&mut self, configuration: Value) {
        // No task of it waits for another's digests.
        let container = json!({
            "name": "app", "image": "app:2", "memory": 128, "cpu": 64, "versionConsistency": "disabled",
        });
        let next = json!({"family": "app", "containerDefinitions": [container]});
        self.write(task_definition::register_task_definition, next).unwrap();
        self.update_service(json!({"taskDefinition": "app", "deploymentConfiguration": configuration}));
    }

    /// Tasks that shall run, of the first revision and of all others.
    fn sides(&self) -> (usize, usize) {
        let shall_run = |task: &Task| task.desired_status == DesiredStatus::Running;
        let live: Vec<_> = self.live().into_iter().filter(shall_run).collect();
        let old = live.iter().filter(|task| task.definition_id.revision == 1).count();
        (old, live.len() - old)
    }

    fn stage(&mut self) -> String {
        self.attempts()[0]["lifecycleStage"].as_str().unwrap().to_owned()
    }

    /// The production traffic of the newest attempt's target, in percent.
    fn share(&mut self) -> f64 {
        self.attempts()[0]["targetServiceRevision"]["requestedProductionTrafficWeight"].as_f64().unwrap()
    }

    fn come_up(&mut self) {
        self.agent_acts(runs);
        self.pass(LONG);
    }

    fn hook(&mut self) -> Value {
        self.attempts()[0]["lifecycleHookDetails"][0].clone()
    }

    fn go_on(&mut self, action: &str) {
        let request = json!({"serviceDeploymentArn": arn(&self.attempts()[0]), "hookId": self.hook()["hookId"],
            "action": action});
        self.write(ops::continue_service_deployment, request).unwrap();
        self.come_to_rest();
    }

    /// Whoever gets production traffic, by revision, with its running tasks.
    fn served(&self) -> Vec<(f64, u32)> {
        let view = View { scope: &self.scope, state: &self.state, now: self.now };
        let key = ServiceKey { cluster: ClusterName::default_cluster(), name: "web".parse().unwrap() };
        let service = self.state.ecs.service(&key).unwrap();
        let traffic = deployments::traffic(view, service);
        let running = |revision| {
            let deployment = service.deployments.iter().find(|deployment| deployment.revision == revision);
            deployment.map_or(0, |deployment| deployments::tasks_of(view, service, deployment).running)
        };
        traffic.production.iter().map(|(revision, share)| (share.percent(), running(revision))).collect()
    }
}

#[test]
fn blue_and_green_stand_side_by_side_until_the_bake_time_is_over() {
    let mut world = World::shifting(blue_green(5));
    assert_eq!((world.sides(), world.stage().as_str()), ((2, 2), "SCALE_UP"));
    let begun = world.attempts()[0].clone();
    assert_eq!(begun["sourceServiceRevisions"][0]["requestedProductionTrafficWeight"], 100.0);
    assert_eq!(begun["targetServiceRevision"]["requestedProductionTrafficWeight"], 0.0);
    assert_eq!(begun["deploymentConfiguration"]["strategy"], "BLUE_GREEN");
    assert_eq!(begun["deploymentConfiguration"]["bakeTimeInMinutes"], 5);
    world.come_up();
    assert_eq!((world.sides(), world.stage().as_str(), world.share()), ((2, 2), "BAKE_TIME", 100.0));
    assert_eq!(world.service()["deployments"][1]["desiredCount"], 2, "blue is there to go back to");
    world.restart();
    world.pass(4 * MINUTE);
    assert_eq!(world.sides(), (2, 2));
    world.pass(MINUTE);
    assert_eq!((world.sides(), world.stage().as_str()), ((0, 2), "CLEAN_UP"));
    assert_eq!(world.statuses()[0], "IN_PROGRESS");
    world.agent_acts(runs);
    assert_eq!(world.statuses()[0], "SUCCESSFUL");
    assert_eq!(world.service()["deployments"].as_array().unwrap().len(), 1);
    assert_eq!(world.served(), [(100.0, 2)]);
    assert!(world.messages().last().unwrap().ends_with("has reached a steady state."));
}

#[test]
fn a_first_deployment_has_every_stage_too() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 2, "deploymentConfiguration": blue_green(1)}));
    world.come_up();
    assert_eq!(world.stage(), "BAKE_TIME");
    world.pass(MINUTE);
    assert_eq!(world.statuses(), ["SUCCESSFUL"]);
}

#[test]
fn traffic_goes_over_step_by_step() {
    let linear = json!({"strategy": "LINEAR", "bakeTimeInMinutes": 0,
        "linearConfiguration": {"stepPercent": 40.0, "stepBakeTimeInMinutes": 6}});
    let canary = json!({"strategy": "CANARY", "bakeTimeInMinutes": 0,
        "canaryConfiguration": {"canaryPercent": 2.5, "canaryBakeTimeInMinutes": 10}});
    for (configuration, shares, minutes) in [(linear, vec![40.0, 80.0], 6), (canary, vec![2.5], 10)] {
        let mut world = World::shifting(configuration.clone());
        let shown = world.service()["deploymentConfiguration"].clone();
        for (member, value) in configuration.as_object().unwrap() {
            assert_eq!(&shown[member], value);
        }
        world.come_up();
        for share in shares {
            assert_eq!((world.stage().as_str(), world.share()), ("PRODUCTION_TRAFFIC_SHIFT", share));
            assert_eq!(
                (world.sides(), world.served().iter().map(|(share, _)| share).sum::<f64>()),
                ((2, 2), 100.0)
            );
            world.pass(minutes * MINUTE);
        }
        assert_eq!((world.stage().as_str(), world.share()), ("CLEAN_UP", 100.0));
        world.agent_acts(runs);
        assert_eq!(world.statuses()[0], "SUCCESSFUL");
    }
}

#[test]
fn a_pause_waits_for_somebody() {
    let mut world = World::shifting(pausing(&["PRE_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT"]));
    assert_eq!((world.stage().as_str(), world.sides()), ("PRE_SCALE_UP", (2, 0)));
    let hook = world.hook();
    assert_eq!((&hook["status"], &hook["targetType"]), (&json!("AWAITING_ACTION"), &json!("PAUSE")));
    assert_eq!(hook["timeoutAction"], "ROLLBACK");
    let wrong = json!({"serviceDeploymentArn": arn(&world.attempts()[0]), "hookId": "another"});
    assert_eq!(world.write(ops::continue_service_deployment, wrong).unwrap_err().code, INVALID);
    world.pass(29 * MINUTE);
    world.go_on("CONTINUE");
    assert_eq!(world.stage(), "SCALE_UP");
    world.come_up();
    assert_eq!(world.stage(), "POST_TEST_TRAFFIC_SHIFT");
    let test = &world.attempts()[0]["targetServiceRevision"]["requestedTestTrafficWeight"];
    assert_eq!((test, world.share()), (&json!(100.0), 0.0));
    world.restart();
    // Nobody comes.
    world.pass(30 * MINUTE);
    assert_eq!(world.sides(), (2, 0));
    assert_eq!(world.served(), [(100.0, 2)]);
    world.agent_acts(runs);
    let ended = world.attempts()[0].clone();
    assert_eq!(ended["status"], "ROLLBACK_SUCCESSFUL");
    let reason = ended["rollback"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "ECS deployment failed: a lifecycle hook of POST_TEST_TRAFFIC_SHIFT did not pass.");
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "COMPLETED");

    // Or somebody says no.
    world.deploy_next(pausing(&["POST_PRODUCTION_TRAFFIC_SHIFT"]));
    world.come_up();
    assert_eq!((world.stage().as_str(), world.share()), ("POST_PRODUCTION_TRAFFIC_SHIFT", 100.0));
    world.go_on("ROLLBACK");
    world.agent_acts(runs);
    assert_eq!((world.statuses()[0].as_str(), world.sides()), ("ROLLBACK_SUCCESSFUL", (2, 0)));
    let over = json!({"serviceDeploymentArn": arn(&world.attempts()[0]), "hookId": "any"});
    assert_eq!(world.write(ops::continue_service_deployment, over).unwrap_err().code, INVALID);
}

#[test]
fn it_can_be_stopped_at_every_stage() {
    let stages = [
        "PRE_SCALE_UP",
        "POST_SCALE_UP",
        "POST_TEST_TRAFFIC_SHIFT",
        "POST_PRODUCTION_TRAFFIC_SHIFT",
        "BAKE_TIME",
    ];
    for stage in stages {
        let at = if stage == "BAKE_TIME" { blue_green(5) } else { pausing(&[stage]) };
        for (stop, status) in [("ROLLBACK", "ROLLBACK_SUCCESSFUL"), ("ABORT", "STOPPED")] {
            let mut world = World::shifting(at.clone());
            world.come_up();
            assert_eq!(world.stage(), stage);
            let (sides, served) = (world.sides(), world.served());
            world.stop_deployment(stop);
            assert!(world.served().iter().all(|(_, running)| *running == 2), "{stage} {stop}");
            world.agent_acts(runs);
            world.pass(24 * 60 * MINUTE);
            assert_eq!(world.statuses()[0], status, "{stage}");
            if stop == "ROLLBACK" {
                assert_eq!((world.sides(), world.served()), ((2, 0), vec![(100.0, 2)]), "{stage}");
            } else {
                assert_eq!(
                    (world.sides(), world.served()),
                    (sides, served),
                    "{stage}: it stands where it was"
                );
            }
            // The next deployment goes on from there.
            world.deploy_next(blue_green(0));
            for _ in 0..4 {
                world.come_up();
            }
            assert_eq!(
                (world.statuses()[0].as_str(), world.sides()),
                ("SUCCESSFUL", (0, 2)),
                "{stage} {stop}"
            );
        }
    }
}

#[test]
fn the_circuit_breaker_leaves_production_where_it_was() {
    let breaker = |rollback: bool| {
        let mut configuration = blue_green(5);
        configuration["deploymentCircuitBreaker"] = json!({"enable": true, "rollback": rollback,
            "thresholdConfiguration": {"type": "COUNT", "value": 2}});
        configuration
    };
    for (rollback, status) in [(true, "ROLLBACK_SUCCESSFUL"), (false, "STOPPED")] {
        let mut world = World::shifting(breaker(rollback));
        for _ in 0..3 {
            world.agent_acts(newest_fails);
        }
        world.pass(LONG);
        assert_eq!((world.statuses()[0].as_str(), world.sides()), (status, (2, 0)));
        assert_eq!(world.attempts()[0]["deploymentCircuitBreaker"]["status"], "TRIGGERED");
        assert_eq!(world.served(), [(100.0, 2)]);
        // What serves is kept at its count.
        let victim = world.live()[0].id;
        world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
        world.agent_acts(runs);
        assert_eq!(world.served(), [(100.0, 2)]);
    }
}

#[test]
fn both_sides_heal_and_follow_the_desired_count() {
    let mut world = World::shifting(blue_green(5));
    world.come_up();
    let victims = [world.live()[0].id, world.live()[3].id];
    world.agent_acts(|task| if victims.contains(&task.id) { Fate::Exits } else { Fate::Runs });
    assert_eq!(world.sides(), (2, 2));
    world.update_service(json!({"desiredCount": 3}));
    assert_eq!(world.sides(), (3, 3));
    // Green is not all well: blue stays beyond the bake time.
    world.pass(5 * MINUTE);
    assert_eq!((world.sides(), world.stage().as_str()), ((3, 3), "BAKE_TIME"));
    world.come_up();
    assert_eq!(world.sides(), (0, 3));
}

#[test]
fn a_newer_deployment_begins_with_one_revision_that_serves() {
    let mut world = World::shifting(json!({"strategy": "LINEAR", "bakeTimeInMinutes": 0}));
    world.come_up();
    assert_eq!((world.sides(), world.share()), ((2, 2), 10.0));
    world.deploy_next(pausing(&["RECONCILE_SERVICE"]));
    assert_eq!(world.statuses()[..2], ["IN_PROGRESS", "STOPPED"]);
    assert_eq!((world.stage().as_str(), world.sides()), ("RECONCILE_SERVICE", (2, 2)));
    assert_eq!(world.served().iter().map(|(_, running)| *running).sum::<u32>(), 4, "all goes on as it was");
    world.go_on("CONTINUE");
    assert_eq!((world.stage().as_str(), world.sides()), ("RECONCILE_SERVICE", (2, 0)));
    assert_eq!(world.served(), [(100.0, 2)]);
    world.agent_acts(runs);
    assert_eq!(world.stage(), "SCALE_UP");
    for _ in 0..2 {
        world.come_up();
    }
    world.pass(5 * MINUTE);
    world.agent_acts(runs);
    assert_eq!((world.statuses()[0].as_str(), world.sides()), ("SUCCESSFUL", (0, 2)));
}

#[test]
fn a_source_that_never_arrived_holds_nobody_up() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 2, "deploymentConfiguration": blue_green(5)}));
    world.come_up();
    world.stop_deployment("ABORT");
    world.deploy_next(blue_green(5));
    world.come_up();
    assert_eq!((world.stage().as_str(), world.sides()), ("BAKE_TIME", (2, 2)));
    world.stop_deployment("ABORT");
    // What has the traffic gets no third task, for it never arrived.
    world.update_service(json!({"desiredCount": 3}));
    world.deploy_next(blue_green(0));
    for _ in 0..4 {
        world.come_up();
    }
    assert_eq!((world.statuses()[0].as_str(), world.sides()), ("SUCCESSFUL", (0, 3)));
}

#[test]
fn a_source_whose_tasks_do_not_start_holds_nobody_up() {
    let mut world = World::with_capacity(7800);
    // Without a task it arrives, whatever its image is.
    world.create_service(json!({"desiredCount": 0, "deploymentConfiguration": blue_green(0)}));
    world.pass(LONG);
    assert_eq!(world.statuses(), ["SUCCESSFUL"]);
    let first_fails =
        |task: &Task| if task.definition_id.revision == 1 { Fate::FailsToStart } else { Fate::Runs };
    world.update_service(json!({"desiredCount": 2}));
    for _ in 0..3 {
        world.agent_acts(first_fails);
    }
    for _ in 0..2 {
        world.deploy_next(blue_green(5));
        for _ in 0..3 {
            world.agent_acts(first_fails);
        }
        world.pass(LONG);
    }
    assert_ne!(world.stage(), "RECONCILE_SERVICE");
    world.pass(5 * MINUTE);
    for _ in 0..3 {
        world.agent_acts(first_fails);
        world.pass(LONG);
    }
    assert_eq!((world.statuses()[0].as_str(), world.sides()), ("SUCCESSFUL", (0, 2)));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let mut world = World::with_service(json!({"desiredCount": 1}));
    let hook = |stage: &str| json!({"targetType": "PAUSE", "lifecycleStages": [stage]});
    for (configuration, message) in [
        (
            json!({"strategy": "BLUE_GREEN"}),
            "bakeTimeInMinutes must be specified for the BLUE_GREEN deployment strategy.",
        ),
        (
            json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1441}),
            "bakeTimeInMinutes must be between 0 and 1440.",
        ),
        (
            json!({"strategy": "LINEAR", "canaryConfiguration": {}}),
            "canaryConfiguration is only valid for the CANARY deployment strategy.",
        ),
        (
            json!({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.9}}),
            "stepPercent must be a multiple of 0.1 between 3.0 and 100.0.",
        ),
        (
            json!({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0.15}}),
            "canaryPercent must be a multiple of 0.1 between 0.1 and 100.0.",
        ),
        (
            json!({"lifecycleHooks": [hook("PRE_SCALE_UP")]}),
            "Lifecycle hooks are not supported with the ROLLING deployment strategy.",
        ),
        (
            json!({"strategy": "LINEAR", "lifecycleHooks": [hook("PRODUCTION_TRAFFIC_SHIFT")]}),
            "PAUSE lifecycle hooks cannot be configured at PRODUCTION_TRAFFIC_SHIFT.",
        ),
        (
            json!({"strategy": "LINEAR", "earlySuccessCriteria": {"enable": true}}),
            "earlySuccessCriteria is not supported with the LINEAR deployment strategy.",
        ),
    ] {
        let request = json!({"service": "web", "deploymentConfiguration": configuration});
        fails(world.write(service::update_service, request), INVALID, message);
    }
    let lambda = json!({"hookTargetArn": "arn:aws:lambda:eu-north-1:123456789012:function:f",
        "roleArn": "arn:aws:iam::123456789012:role/r", "lifecycleStages": ["PRE_SCALE_UP"]});
    let request = json!({"service": "web", "deploymentConfiguration": {
        "strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1, "lifecycleHooks": [lambda]}});
    let refused = world.write(service::update_service, request).unwrap_err();
    assert_eq!(refused.code, "UnsupportedFeatureException");
}
