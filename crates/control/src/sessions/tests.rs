//! Scripted agents on the real engine, with a store that confirms when the script lets it.
#![allow(clippy::unwrap_used)]

mod credentials;
mod exec;
mod lease;
mod neighbours;
mod payload;
mod prefetch;
mod script;
mod security;

use super::SessionOutput;
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, LastStatus};
use script::{Script, TELEMETRY, kinds, messages};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_task_is_delivered_acknowledged_and_reported() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    let manifest = script.heard(session);
    assert_eq!(kinds(&manifest), ["TaskManifestMessage"]);
    assert_eq!(messages(&manifest)[0]["tasks"], json!([]));
    let known = script.instance(&instance);
    assert!(known.agent_connected);
    assert_eq!((known.agent.version.as_str(), known.sessions), ("1.105.1", 1));

    let arn = script.run(1).remove(0);
    let payload = script.heard(session);
    assert_eq!(kinds(&payload), ["PayloadMessage"]);
    let payload = &messages(&payload)[0];
    assert_eq!(payload["containerInstanceArn"], json!(instance));
    assert_eq!(payload["tasks"][0]["arn"], json!(arn));
    assert_eq!(payload["tasks"][0]["desiredStatus"], "RUNNING");
    assert!(payload["seqNum"].as_i64() > messages(&manifest)[0]["timeline"].as_i64());
    assert!(script.task(&arn).sent);

    script.acknowledge(session, payload);
    script.pass(Duration::from_secs(29));
    assert_eq!(script.heard(session), [], "acknowledged means heard");
    script.call("SubmitTaskStateChange", json!({"task": arn, "status": "RUNNING", "reason": ""})).unwrap();
    assert_eq!(script.task(&arn).last_status, LastStatus::Running);
    assert_eq!(script.heard(session), [], "an agent is not told its own news");
}

#[test]
fn an_agent_hears_of_a_task_once_it_is_durable() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    script.heard(session);
    script.hold = true;
    script.run(1);
    assert_eq!(script.heard(session), []);
    script.confirm();
    assert_eq!(kinds(&script.heard(session)), ["PayloadMessage"]);
}

#[test]
fn a_large_service_is_started_without_pauses() {
    let script = &mut Script::with_cluster();
    let instance = script.register();
    let agent = script.connect(&instance);
    let request = json!({"serviceName": "large", "taskDefinition": "app", "desiredCount": 1500});
    script.call("CreateService", request).unwrap();
    script.pass(Duration::from_millis(100));
    let mut told = messages(&script.heard(agent));
    // The first one tells what its image is; then all are handed out within moments.
    let first = told.iter().find_map(|message| message["tasks"][0]["arn"].as_str()).unwrap().to_owned();
    script.call("SubmitTaskStateChange", json!({"task": first, "status": "RUNNING", "reason": ""})).unwrap();
    script.pass(Duration::from_millis(100));
    told.extend(messages(&script.heard(agent)));
    let tasks: usize = told.iter().filter_map(|message| message["tasks"].as_array()).map(Vec::len).sum();
    assert_eq!(tasks, 1500);
}

#[test]
fn what_is_not_acknowledged_is_repeated_a_few_times() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    script.heard(session);
    let arn = script.run(1).remove(0);
    let mut all = messages(&script.heard(session));
    for _ in 0..600 {
        script.pass(SECOND);
        let heard = script.heard(session);
        script.answer_heartbeats(session, &heard);
        all.extend(messages(&heard).into_iter().filter(|message| message["tasks"].is_array()));
    }
    assert_eq!(all.len(), 4);
    for pair in all.windows(2) {
        assert_eq!(pair[0]["messageId"], pair[1]["messageId"]);
        assert!(pair[0]["seqNum"].as_i64() < pair[1]["seqNum"].as_i64());
    }
    // The task's own report is the answer then.
    script
        .call(
            "SubmitTaskStateChange",
            json!({"task": arn, "status": "STOPPED", "reason": "UnrecogniedTaskError: x"}),
        )
        .unwrap();
    assert_eq!(script.task(&arn).last_status, LastStatus::Stopped);
}

#[test]
fn a_repetition_tells_what_is_true_by_then() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    let arns = script.run(2);
    script.heard(session);
    script.call("StopTask", json!({"task": arns[0]})).unwrap();
    let stop = messages(&script.heard(session)).remove(0);
    assert_eq!(
        (&stop["tasks"][0]["arn"], &stop["tasks"][0]["desiredStatus"]),
        (&json!(arns[0]), &json!("STOPPED"))
    );
    script.acknowledge(session, &stop);
    script
        .call("SubmitTaskStateChange", json!({"task": arns[0], "status": "STOPPED", "reason": ""}))
        .unwrap();
    script.pass(Duration::from_secs(15));
    let again = messages(&script.heard(session)).remove(0);
    assert_eq!(again["tasks"].as_array().unwrap().len(), 1, "the stopped one would be started anew");
    assert_eq!(again["tasks"][0]["arn"], json!(arns[1]));
}

#[test]
fn a_new_connection_starts_with_a_manifest_and_all_tasks() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let first = script.connect(&instance);
    let arns: BTreeSet<String> = script.run(3).into_iter().collect();
    let before: Vec<i64> =
        messages(&script.heard(first)).iter().filter_map(|message| message["timeline"].as_i64()).collect();
    script.close(first);
    assert!(!script.instance(&instance).agent_connected);
    assert!(script.instance(&instance).disconnected_at.is_some());
    assert!(arns.iter().all(|arn| script.task(arn).desired_status == DesiredStatus::Running), "tasks run on");

    let second = script.connect(&instance);
    let heard = script.heard(second);
    assert_eq!(kinds(&heard), ["TaskManifestMessage", "PayloadMessage"]);
    let [manifest, payload] = &messages(&heard)[..] else { panic!("{heard:?}") };
    assert!(
        before.iter().all(|number| *number < manifest["timeline"].as_i64().unwrap()),
        "else agents drop it"
    );
    let listed = |message: &Value, member: &str| -> BTreeSet<String> {
        let tasks = message["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task[member].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((listed(manifest, "taskArn"), listed(payload, "arn")), (arns.clone(), arns));
}

#[test]
fn only_stops_that_are_meant_are_confirmed() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let first = script.connect(&instance);
    let arns = script.run(2);
    script.close(first);
    script.call("StopTask", json!({"task": arns[0]})).unwrap();
    assert_eq!(script.task(&arns[0]).last_status, LastStatus::Pending, "its agent knows of it");

    let session = script.connect(&instance);
    let manifest = messages(&script.heard(session)).remove(0);
    let desired = |arn: &str| {
        let mut tasks = manifest["tasks"].as_array().unwrap().iter();
        tasks.find(|task| task["taskArn"] == *arn).unwrap()["desiredStatus"].clone()
    };
    assert_eq!((desired(&arns[0]), desired(&arns[1])), (json!("STOPPED"), json!("RUNNING")));
    let unknown = arns[0].replace(&arns[0][arns[0].len() - 32..], &"0".repeat(32));
    let candidates = [arns[0].as_str(), arns[1].as_str(), unknown.as_str(), "nonsense"]
        .map(|arn| json!({"taskArn": arn, "desiredStatus": "STOPPED"}));
    let question = |id: &Value| json!({"messageId": id, "stopCandidates": candidates});
    script.say(session, "TaskStopVerificationMessage", &question(&json!("another")));
    assert_eq!(script.heard(session), [], "no manifest of ours");
    script.say(session, "TaskStopVerificationMessage", &question(&manifest["messageId"]));
    let heard = script.heard(session);
    assert_eq!(kinds(&heard), ["TaskStopVerificationAck"]);
    let ack = &messages(&heard)[0];
    assert_eq!(ack["messageId"], manifest["messageId"]);
    let confirmed: Vec<&Value> =
        ack["stopTasks"].as_array().unwrap().iter().map(|task| &task["taskArn"]).collect();
    assert_eq!(confirmed, [&json!(arns[0]), &json!(unknown), &json!("nonsense")]);
    script.say(session, "TaskStopVerificationMessage", &question(&manifest["messageId"]));
    assert_eq!(script.heard(session), [], "once a manifest");
}

#[test]
fn the_newest_connection_of_an_instance_counts() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let (older, newer) = (script.connect(&instance), script.connect(&instance));
    assert!(matches!(script.heard(older).last(), Some(SessionOutput::Close(1008, _))));
    assert_eq!(kinds(&script.heard(newer)), ["TaskManifestMessage"]);
    script.close(older);
    assert!(script.instance(&instance).agent_connected, "the end of the older one says nothing");
    script.run(1);
    assert_eq!(script.heard(older), []);
    assert_eq!(kinds(&script.heard(newer)), ["PayloadMessage"]);

    let (older, newer) = (script.connect_telemetry(&instance), script.connect_telemetry(&instance));
    assert!(matches!(script.heard(older)[..], [SessionOutput::Close(1008, _)]));
    script.close(older);
    script.pass(Duration::from_secs(30));
    assert_eq!(kinds(&script.heard(newer)), ["HeartbeatMessage"]);
}

#[test]
fn silence_and_age_end_a_connection() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    script.heard(session);
    let mut heartbeats = 0;
    // An agent that answers stays for an hour.
    let ended = loop {
        script.pass(SECOND);
        let heard = script.heard(session);
        heartbeats += script.answer_heartbeats(session, &heard);
        if let Some(SessionOutput::Close(code, _)) = heard.last() {
            break *code;
        }
    };
    assert_eq!((ended, heartbeats), (1000, 119));
    assert!(!script.instance(&instance).agent_connected, "also before the socket's end is seen");
    script.close(session);

    // One that does not answer is cut off after two of its periods.
    let session = script.connect(&instance);
    script.heard(session);
    script.pass(Duration::from_secs(89));
    assert_eq!(kinds(&script.heard(session)), ["HeartbeatMessage", "HeartbeatMessage"]);
    script.pass(SECOND);
    assert!(matches!(script.heard(session)[..], [SessionOutput::Close(1001, _)]));
    assert!(!script.instance(&instance).agent_connected);
}

#[test]
fn a_deregistered_instance_stops_its_tasks_and_stays_out() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let (session, telemetry) = (script.connect(&instance), script.connect_telemetry(&instance));
    let arn = script.run(1).remove(0);
    script.heard(session);
    script
        .call("DeregisterContainerInstance", json!({"containerInstance": instance, "force": true}))
        .unwrap();
    let heard = script.heard(session);
    assert!(matches!(heard[..], [SessionOutput::Send(_), SessionOutput::Close(1000, _)]), "{heard:?}");
    let stop = &messages(&heard)[0]["tasks"][0];
    assert_eq!((&stop["arn"], &stop["desiredStatus"]), (&json!(arn), &json!("STOPPED")));
    assert!(matches!(script.heard(telemetry)[..], [SessionOutput::Close(1008, _)]));
    // A peer that does not take its leave keeps nobody busy.
    script.pass(Duration::from_secs(120));
    assert_eq!((script.heard(session), script.heard(telemetry)), (vec![], vec![]));
    assert_eq!(script.admit(&instance).unwrap_err().code, "InactiveInstanceException");
    let nowhere = instance.replace(&instance[instance.len() - 32..], &"0".repeat(32));
    for unknown in [nowhere.as_str(), "", "arn:aws:ecs:eu-north-1:111122223333:cluster/default"] {
        assert_eq!(script.admit(unknown).unwrap_err().code, "InvalidInstanceException");
    }
    // Let in just before: told at once.
    let late = script.connect(&instance);
    assert!(matches!(script.heard(late)[..], [SessionOutput::Close(1008, _)]));
}

#[test]
fn after_a_restart_agents_have_two_minutes_to_come_back() {
    let mut script = Script::with_cluster();
    let (back, gone) = (script.register(), script.register());
    script.connect(&back);
    script.connect(&gone);
    script.restart();
    assert!(script.instance(&gone).agent_connected);
    script.pass(Duration::from_secs(100));
    let session = script.connect(&back);
    script.heard(session);
    script.pass(Duration::from_secs(30));
    assert!(script.instance(&back).agent_connected);
    assert!(!script.instance(&gone).agent_connected);
}

#[test]
fn an_agent_that_acknowledges_nothing_is_not_sent_without_end() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let session = script.connect(&instance);
    let mut told = BTreeSet::new();
    let mut ran = Vec::new();
    for _ in 0..70 {
        ran.extend(script.run(1));
    }
    let payloads: Vec<Value> =
        messages(&script.heard(session)).into_iter().filter(|message| message["seqNum"].is_i64()).collect();
    assert_eq!(payloads.len(), 64);
    let arns = |payload: &Value| -> Vec<String> {
        let tasks = payload["tasks"].as_array().unwrap().iter();
        tasks.map(|task| task["arn"].as_str().unwrap().to_owned()).collect()
    };
    told.extend(payloads.iter().flat_map(arns));
    let unsent = ran.iter().find(|arn| !script.task(arn).sent).unwrap().clone();
    script.call("StopTask", json!({"task": unsent})).unwrap();
    assert_eq!(script.task(&unsent).last_status, LastStatus::Stopped, "nobody was told of it");
    script.call("StopTask", json!({"task": ran[0]})).unwrap();
    assert_eq!(script.heard(session), []);
    // One acknowledgment makes room for one payload with all that waits, stops first.
    script.acknowledge(session, &payloads[5]);
    let next = messages(&script.heard(session)).remove(0);
    assert_eq!(
        (&next["tasks"][0]["arn"], &next["tasks"][0]["desiredStatus"]),
        (&json!(ran[0]), &json!("STOPPED"))
    );
    told.extend(arns(&next));
    let live: BTreeSet<String> = ran.into_iter().filter(|arn| *arn != unsent).collect();
    assert_eq!(told, live);
}

#[test]
fn telemetry_carries_health_of_the_instances_own_tasks() {
    let mut script = Script::with_cluster();
    let (mine, other) = (script.register(), script.register());
    script.connect(&mine);
    script.connect(&other);
    let ran = script.run_checked(8);
    let on = |script: &Script, arn: &str| script.task(arn).instance.unwrap().arn(&script.scope).to_string();
    let own = ran.iter().find(|arn| on(&script, arn) == mine).unwrap().clone();
    let foreign = ran.iter().find(|arn| on(&script, arn) == other).unwrap().clone();
    let telemetry = script.connect_telemetry(&mine);
    let report = |health: &str| {
        let containers = json!([
            {"containerName": "app", "healthStatus": health, "statusSince": 1_924_992_000.25},
            {"containerName": "plain", "healthStatus": health},
            {"containerName": "nobody", "healthStatus": health},
        ]);
        let tasks: Vec<Value> = [own.as_str(), &foreign, "nonsense"]
            .map(|arn| json!({"taskArn": arn, "containers": containers}))
            .into();
        json!({"metadata": {"messageId": "m", "fin": true}, "tasks": tasks, "timestamp": 1_924_992_000.5})
    };
    script.say_signed(telemetry, "PublishHealthRequest", &report("UNHEALTHY"));
    assert_eq!(kinds(&script.heard(telemetry)), ["AckPublishHealth"]);
    let health =
        |script: &Script, arn: &str, name: &str| script.task(arn).container(name).unwrap().health_status;
    assert_eq!(health(&script, &own, "app"), HealthStatus::Unhealthy);
    assert_eq!(health(&script, &own, "plain"), HealthStatus::Unknown, "it has no check");
    assert_eq!(health(&script, &foreign, "app"), HealthStatus::Unknown, "an agent speaks for its own tasks");
    let version = script.task(&own).version;
    for health in ["UNHEALTHY", "SPLENDID"] {
        script.say_signed(telemetry, "PublishHealthRequest", &report(health));
    }
    assert_eq!(script.task(&own).version, version, "no news");
    script.heard(telemetry);
    for (kind, ack) in TELEMETRY {
        script.say_signed(telemetry, kind, &json!({"metadata": {"idle": true, "fin": true}}));
        assert_eq!(kinds(&script.heard(telemetry)), [*ack]);
    }
}

#[test]
fn nonsense_changes_nothing() {
    let mut script = Script::with_cluster();
    let instance = script.register();
    let (session, telemetry) = (script.connect(&instance), script.connect_telemetry(&instance));
    script.run(1);
    script.heard(session);
    let before = script.records();
    for text in [
        "",
        "{",
        "[]",
        "null",
        "\r\n\r\n",
        r#"{"type":"AckRequest"}"#,
        r#"{"type":"AckRequest","message":{"messageId":"nobody's"}}"#,
        r#"{"type":"AckRequest","message":{"messageId":7}}"#,
        r#"{"type":"HeartbeatAckRequest","message":null}"#,
        r#"{"type":"TaskStopVerificationMessage","message":{}}"#,
        r#"{"type":"TaskStopVerificationMessage","message":{"stopCandidates":[{}]}}"#,
        r#"{"type":"Novelty","message":{"a":1}}"#,
        r#"{"type":"PublishHealthRequest","message":{"tasks":[{},{"taskArn":"x","containers":[{}]}]}}"#,
    ] {
        script.text(session, text);
        assert_eq!(script.heard(session), [], "{text}");
        script.text(telemetry, text);
        script.heard(telemetry);
    }
    assert_eq!(script.records(), before);
    // Nor does news of a connection that was never opened.
    let nobody = script.unopened();
    script.text(nobody, r#"{"type":"AckRequest","message":{}}"#);
    script.close(nobody);
    assert_eq!(script.records(), before);
}
