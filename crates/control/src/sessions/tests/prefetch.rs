//! Who hears of images before tasks come.

use super::script::{Script, messages};
use crate::sessions::SessionId;
use crate::sessions::prefetch::PREFETCH_ATTRIBUTE;
use serde_json::{Value, json};

/// An instance whose agent fetches images ahead.
fn register(script: &mut Script) -> String {
    let names = ["com.amazonaws.ecs.capability.docker-remote-api.1.18", PREFETCH_ATTRIBUTE];
    script.register_in("default", &names.map(|name| json!({"name": name})))
}

fn hints(script: &mut Script, session: SessionId) -> Vec<Value> {
    let heard = messages(&script.heard(session));
    heard.into_iter().filter_map(|message| message.get("images").cloned()).collect()
}

#[test]
fn a_service_without_tasks_is_heard_of_once() {
    let mut script = Script::with_cluster();
    let (ours, other) = (register(&mut script), script.register());
    let (session, stock) = (script.connect(&ours), script.connect(&other));
    let request = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 0});
    script.call("CreateService", request).unwrap();
    assert_eq!(hints(&mut script, session), [json!(["app:1"])]);
    assert!(hints(&mut script, stock).is_empty(), "an agent that did not announce it hears nothing");
    // Nothing about its images changes.
    script.call("UpdateService", json!({"service": "web", "enableExecuteCommand": false})).unwrap();
    assert!(hints(&mut script, session).is_empty());
    // Who comes later is told too.
    let again = script.connect(&ours);
    assert_eq!(hints(&mut script, again), [json!(["app:1"])]);
    script.call("DeleteService", json!({"service": "web", "force": true})).unwrap();
    assert_eq!(hints(&mut script, again)[0], json!([]));
}

#[test]
fn what_the_tag_stands_for_is_told_once_it_is_known() {
    let mut script = Script::with_cluster();
    let instance = register(&mut script);
    let session = script.connect(&instance);
    let request = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1});
    script.call("CreateService", request).unwrap();
    let told = messages(&script.heard(session));
    let task = told.iter().find_map(|message| message["tasks"][0]["arn"].as_str()).unwrap().to_owned();
    let digest = format!("sha256:{}", "a".repeat(64));
    let report = json!({"task": task, "status": "PENDING", "reason": "", "containers": [
        {"containerName": "app", "status": "PENDING", "imageDigest": digest}]});
    script.call("SubmitTaskStateChange", report).unwrap();
    assert_eq!(hints(&mut script, session), [json!([format!("app:1@{digest}")])]);
}

#[test]
fn an_instance_that_no_task_may_come_to_hears_nothing() {
    let mut script = Script::with_cluster();
    let instance = register(&mut script);
    let session = script.connect(&instance);
    let request = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 0, "placementConstraints": [
        {"type": "memberOf", "expression": "attribute:rack == b8"}]});
    script.call("CreateService", request).unwrap();
    assert!(hints(&mut script, session).is_empty());
}
