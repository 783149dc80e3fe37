//! Scripts on agents of which nothing is heard: with leases and without.

use super::script::{Script, kinds};
use crate::sessions::{SessionId, SessionOutput};
use gantry_decide::lifecycle::{LastStatus, StopCode};
use serde_json::json;
use std::time::Duration;

impl Script {
    fn register_with_lease(&mut self) -> String {
        let names = ["com.amazonaws.ecs.capability.docker-remote-api.1.18", super::super::lease::ATTRIBUTE];
        self.register_in("default", &names.map(|name| json!({"name": name})))
    }

    fn ask_for_lease(&mut self, id: SessionId, held_millis: u64, leaving: bool) {
        let request = json!({"number": 1, "heldMillis": held_millis, "leaving": leaving});
        self.say(id, "LeaseRequest", &request);
    }

    fn is_live(&self, task: &str) -> bool {
        self.task(task).last_status != LastStatus::Stopped
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn tasks_of_a_silent_agent_are_given_up_once_its_lease_is_over() {
    let mut script = Script::with_cluster();
    let instance = script.register_with_lease();
    let session = script.connect(&instance);
    assert_eq!(kinds(&script.heard(session))[0], "LeaseMessage");
    let task = script.run(1).remove(0);
    for _ in 0..20 {
        script.ask_for_lease(session, 2000, false);
        script.pass(millis(200));
    }
    script.pass(millis(2_200));
    assert!(script.is_live(&task) && script.instance(&instance).agent_connected);
    script.heard(session);
    script.pass(millis(300));
    let ended = script.task(&task);
    assert_eq!(
        (ended.last_status, ended.stop_code),
        (LastStatus::Stopped, Some(StopCode::TerminationNotice))
    );
    let lost = script.instance(&instance);
    assert!(!lost.agent_connected && lost.lost_at.is_some());
    assert!(matches!(script.heard(session)[..], [SessionOutput::Close(1001, _)]));
    // What it says on that connection counts no more; a new one does.
    script.ask_for_lease(session, 0, false);
    assert!(script.heard(session).is_empty());
    script.connect(&instance);
    let back = script.instance(&instance);
    assert!(back.agent_connected && back.lost_at.is_none());
}

#[test]
fn a_lease_does_not_wait_for_the_disk() {
    let mut script = Script::with_cluster();
    let instance = script.register_with_lease();
    let session = script.connect(&instance);
    script.heard(session);
    script.hold = true;
    script.run(1);
    script.ask_for_lease(session, 0, false);
    assert_eq!(kinds(&script.heard(session)), ["LeaseMessage"]);
}

#[test]
fn who_leaves_in_order_has_time_to_come_back() {
    let mut script = Script::with_cluster();
    let instance = script.register_with_lease();
    let session = script.connect(&instance);
    let task = script.run(1).remove(0);
    script.ask_for_lease(session, 2000, true);
    script.close(session);
    script.pass(Duration::from_secs(125));
    assert!(script.is_live(&task));
    script.pass(Duration::from_secs(10));
    assert!(!script.is_live(&task));
}

#[test]
fn an_agent_without_leases_is_waited_for_longer() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    let task = script.run(1).remove(0);
    script.close(session);
    script.pass(Duration::from_secs(295));
    assert!(script.is_live(&task));
    script.pass(Duration::from_secs(10));
    assert!(!script.is_live(&task));
    // What still runs there is not meant to any more.
    let session = script.connect(&instance);
    assert!(script.instance(&instance).lost_at.is_none());
    assert_eq!(kinds(&script.heard(session)), ["TaskManifestMessage"]);
}
