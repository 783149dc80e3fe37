//! The credentials of tasks' roles on their way to agents.

use super::SECOND;
use super::script::{Script, kinds, messages};
use crate::roles::{LIFETIME, RoleSession};
use crate::sessions::{SessionId, SessionOutput};
use gantry_wire::sigv4::SessionKey;
use serde_json::{Value, json};
use std::time::Duration;

/// A definition with both roles, and a connected instance that can run it.
fn world(lifetime: Duration) -> (Script, String) {
    let mut script = Script::with_lifetime(lifetime);
    let definition = json!({"family": "painter", "taskRoleArn": "arn:aws:iam::123456789012:role/team/painter",
        "executionRoleArn": "porter", "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 64}]});
    let registered = script.call("RegisterTaskDefinition", definition).unwrap();
    let announced = registered["taskDefinition"]["requiresAttributes"].as_array().unwrap().clone();
    let instance = script.register_in("default", &announced);
    (script, instance)
}

fn run(script: &mut Script) -> String {
    let ran = script.call("RunTask", json!({"taskDefinition": "painter"})).unwrap();
    ran["tasks"][0]["taskArn"].as_str().unwrap().to_owned()
}

fn of_kind(heard: &[SessionOutput], kind: &str) -> Vec<Value> {
    let kinds = kinds(heard);
    messages(heard).into_iter().zip(kinds).filter(|(_, k)| k == kind).map(|(message, _)| message).collect()
}

/// Whose role it is, by the token itself.
fn role_of(credentials: &Value) -> String {
    let key = SessionKey::new(&[1; SessionKey::LENGTH]);
    let text = |name: &str| credentials[name].as_str().unwrap();
    let (claims, secret) = key.open(text("accessKeyId"), text("sessionToken")).unwrap();
    assert_eq!(secret.expose(), text("secretAccessKey"));
    RoleSession::read(&claims).unwrap().arn()
}

#[test]
fn a_payload_brings_both_roles_to_the_instance_that_runs_the_task() {
    let (mut script, instance) = world(LIFETIME);
    let session = script.connect(&instance);
    let elsewhere = script.register();
    let other = script.connect(&elsewhere);
    let arn = run(&mut script);
    let id = arn.rsplit('/').next().unwrap();
    let task = of_kind(&script.heard(session), "PayloadMessage")[0]["tasks"][0].clone();
    let (own, execution) = (&task["roleCredentials"], &task["executionRoleCredentials"]);
    assert_eq!(role_of(own), format!("arn:aws:sts::123456789012:assumed-role/painter/{id}"));
    assert_eq!(role_of(execution), format!("arn:aws:sts::123456789012:assumed-role/porter/{id}"));
    assert_eq!(own["roleArn"], "arn:aws:iam::123456789012:role/team/painter");
    assert_eq!(execution["roleArn"], "arn:aws:iam::123456789012:role/porter");
    assert_ne!(own["credentialsId"], execution["credentialsId"]);
    assert_eq!(own["expiration"], "1970-01-01T06:16:40Z");
    assert_eq!(kinds(&script.heard(other)), ["TaskManifestMessage"], "nobody else is told");
}

/// Lets time pass. The credentials that came meanwhile.
fn replaced(script: &mut Script, session: SessionId, seconds: u64, acknowledge: bool) -> Vec<Value> {
    let mut all = Vec::new();
    for _ in 0..seconds {
        script.pass(SECOND);
        let heard = script.heard(session);
        script.answer_heartbeats(session, &heard);
        for message in of_kind(&heard, "IAMRoleCredentialsMessage") {
            let given = &message["roleCredentials"];
            let ack = json!({"messageId": message["messageId"], "credentialsId": given["credentialsId"],
                "expiration": given["expiration"]});
            if acknowledge {
                script.say(session, "IAMRoleCredentialsAckRequest", &ack);
            }
            all.push(message);
        }
    }
    all
}

#[test]
fn they_are_replaced_half_way_and_again_until_acknowledged() {
    // Shorter than a connection's life: each new connection brings new ones anyway.
    let (mut script, instance) = world(Duration::from_secs(40 * 60));
    let session = script.connect(&instance);
    let arn = run(&mut script);
    let payload = of_kind(&script.heard(session), "PayloadMessage").remove(0);
    script.acknowledge(session, &payload);
    script.call("SubmitTaskStateChange", json!({"task": arn, "status": "RUNNING", "reason": ""})).unwrap();
    assert!(replaced(&mut script, session, 20 * 60 - 1, true).is_empty());

    let first = replaced(&mut script, session, 1, false);
    let kinds: Vec<&Value> = first.iter().map(|message| &message["roleType"]).collect();
    assert_eq!(kinds, [&json!("TaskApplication"), &json!("TaskExecution")]);
    let (old, new) = (&payload["tasks"][0]["roleCredentials"], &first[0]["roleCredentials"]);
    assert_eq!((&first[0]["taskArn"], &new["credentialsId"]), (&json!(arn), &old["credentialsId"]));
    assert!(old["expiration"].as_str() < new["expiration"].as_str());
    assert_ne!(role_of(new), "");

    // Of the two only one is acknowledged, and that one in words of an older one: both come again.
    let stale = json!({"credentialsId": new["credentialsId"], "expiration": old["expiration"]});
    script.say(session, "IAMRoleCredentialsAckRequest", &stale);
    let ack =
        |given: &Value| json!({"credentialsId": given["credentialsId"], "expiration": given["expiration"]});
    script.say(session, "IAMRoleCredentialsAckRequest", &ack(&first[1]["roleCredentials"]));
    assert!(replaced(&mut script, session, 59, true).is_empty());
    assert_eq!(replaced(&mut script, session, 1, true).len(), 2);
    assert!(replaced(&mut script, session, 19 * 60, true).is_empty(), "acknowledged means heard");
}

#[test]
fn a_new_connection_brings_them_anew_and_a_stopped_task_needs_none() {
    let (mut script, instance) = world(Duration::from_secs(40 * 60));
    let first = script.connect(&instance);
    let arn = run(&mut script);
    let before = of_kind(&script.heard(first), "PayloadMessage").remove(0);
    script.pass(Duration::from_secs(10));
    script.close(first);
    let second = script.connect(&instance);
    let after = of_kind(&script.heard(second), "PayloadMessage").remove(0);
    let (old, new) = (&before["tasks"][0]["roleCredentials"], &after["tasks"][0]["roleCredentials"]);
    assert_eq!(old["credentialsId"], new["credentialsId"]);
    assert!(old["expiration"].as_str() < new["expiration"].as_str());
    script.acknowledge(second, &after);

    let stopped = json!({"task": arn, "status": "STOPPED", "reason": "Essential container in task exited"});
    script.call("SubmitTaskStateChange", stopped).unwrap();
    assert!(replaced(&mut script, second, 25 * 60, true).is_empty());
}
