//! Scripts on deployments that watch alarms.

use super::service::{LONG, runs};
use super::world::{INVALID, World, fails};
use crate::services::cloudwatch::links as alarms;
use crate::services::ecs::ops::service;
use gantry_decide::deployment::alarms::AlarmState;
use gantry_decide::ids::AlarmName;
use serde_json::{Value, json};
use std::time::Duration;

impl World {
    fn alarm(&mut self, name: &str, state: AlarmState) {
        let name: AlarmName = name.parse().unwrap();
        self.edit(|tx| alarms::set(tx, name, state, String::new())).unwrap();
        self.come_to_rest();
    }
}

fn watched(change: Value) -> Value {
    let mut alarms = json!({"alarmNames": ["errors", "latency"], "enable": true, "rollback": true});
    alarms.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    json!({"desiredCount": 2, "deploymentConfiguration": {"alarms": alarms, "bakeTimeInMinutes": 5}})
}

#[test]
fn an_alarm_rolls_a_deployment_back_also_while_it_only_bakes() {
    for bakes in [false, true] {
        let mut world = World::with_service(watched(json!({})));
        world.pass(Duration::from_secs(300));
        assert_eq!(world.statuses(), ["SUCCESSFUL"]);
        world.alarm("errors", AlarmState::Ok);
        world.register("app");
        world.update_service(json!({"taskDefinition": "app"}));
        if bakes {
            for _ in 0..3 {
                world.agent_acts(runs);
                world.pass(LONG);
            }
            assert!(world.messages().last().unwrap().ends_with("has reached a steady state."));
        }
        let attempt = &world.attempts()[0];
        assert_eq!(
            (&attempt["status"], &attempt["alarms"]["status"]),
            (&json!("IN_PROGRESS"), &json!("MONITORING"))
        );
        world.alarm("errors", AlarmState::Alarm);
        let failed = world.attempts()[0].clone();
        // What never reached an agent is gone at once.
        assert_eq!(failed["status"], if bakes { "ROLLBACK_IN_PROGRESS" } else { "ROLLBACK_SUCCESSFUL" });
        assert_eq!(failed["statusReason"], "ECS deployment failed: alarm detected.");
        assert_eq!(
            failed["alarms"],
            json!({"alarmNames": ["errors", "latency"], "status": "TRIGGERED", "triggeredAlarmNames": ["errors"]})
        );
        let messages = world.messages();
        let told = messages.iter().position(|text| text.ends_with(") deployment failed: alarm detected."));
        assert!(messages[told.unwrap() + 1].starts_with("(service web) rolling back to deployment ecs-svc/"));
        // The alarm still says so while it goes back: there is no second failure.
        for _ in 0..3 {
            world.agent_acts(runs);
            world.pass(LONG);
        }
        assert_eq!(world.statuses(), ["ROLLBACK_SUCCESSFUL", "SUCCESSFUL"]);
        assert!(world.service()["taskDefinition"].as_str().unwrap().ends_with("app:1"));
        world.restart();
        assert_eq!(world.attempts()[0]["alarms"]["status"], "TRIGGERED");
    }
}

#[test]
fn an_alarm_without_rollback_stops_the_deployment_where_it_is() {
    let mut world = World::with_service(watched(json!({"rollback": false})));
    world.pass(Duration::from_secs(300));
    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    world.alarm("latency", AlarmState::Alarm);
    assert_eq!(world.statuses(), ["STOPPED", "SUCCESSFUL"]);
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "FAILED");
}

#[test]
fn alarms_that_say_so_before_are_not_watched_and_others_for_the_bake_time_alone() {
    let mut world = World::with_service(watched(json!({})));
    assert_eq!(world.statuses(), ["IN_PROGRESS"], "it bakes");
    world.pass(Duration::from_secs(200));
    assert_eq!(world.statuses(), ["IN_PROGRESS"]);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.statuses(), ["SUCCESSFUL"]);
    assert_eq!(world.attempts()[0]["alarms"]["status"], "MONITORING_COMPLETE");
    world.alarm("errors", AlarmState::Alarm);
    assert_eq!(world.statuses(), ["SUCCESSFUL"], "it has arrived");
    world.register("app");
    world.update_service(json!({"taskDefinition": "app"}));
    assert_eq!(world.attempts()[0]["alarms"]["status"], "DISABLED");
    for _ in 0..3 {
        world.agent_acts(runs);
        world.pass(LONG);
    }
    assert_eq!(world.statuses(), ["SUCCESSFUL", "SUCCESSFUL"], "nothing to bake for");
}

#[test]
fn alarms_are_checked_as_far_as_ecs_checks_them() {
    let mut world = World::with_capacity(7800);
    world.register("app");
    let mut create = |configuration: Value| {
        let request = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1,
            "deploymentConfiguration": configuration});
        world.write(service::create_service, request)
    };
    let none = json!({"alarms": {"alarmNames": [], "enable": true, "rollback": false}});
    fails(create(none), INVALID, "alarmNames must be specified when deployment alarms are enabled.");
    let off = json!({"alarms": {"alarmNames": ["errors"], "enable": false, "rollback": false}, "bakeTimeInMinutes": 1});
    fails(
        create(off),
        INVALID,
        "bakeTimeInMinutes is not supported with the ROLLING deployment strategy without alarms.",
    );
    // That it exists is not asked.
    let unknown = json!({"alarms": {"alarmNames": ["errors"], "enable": true, "rollback": false}});
    let created = create(unknown.clone()).unwrap();
    let shown = &created["service"]["deploymentConfiguration"];
    assert_eq!((&shown["alarms"], &shown["bakeTimeInMinutes"]), (&unknown["alarms"], &json!(3)));
}
