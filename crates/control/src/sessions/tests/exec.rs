//! ECS Exec between who asks, the tables and the agent.

use super::script::{Script, kinds, messages};
use crate::services::ecs::links::ExecNews;
use gantry_wire::data_channel::token_digest;
use serde_json::{Value, json};
use std::time::Duration;

const READY: &str = "gantry.execute-command";

fn running(script: &mut Script, enabled: bool) -> String {
    let role = "arn:aws:iam::123456789012:role/shell";
    let asked =
        json!({"taskDefinition": "app", "enableExecuteCommand": enabled, "overrides": {"taskRoleArn": role}});
    let reply = script.call("RunTask", asked).unwrap();
    assert_eq!(reply["failures"], json!([]));
    let task = reply["tasks"][0]["taskArn"].as_str().unwrap().to_owned();
    let state = json!({"task": task, "status": "RUNNING", "reason": "", "containers": [
        {"containerName": "app", "status": "RUNNING"}]});
    script.call("SubmitTaskStateChange", state).unwrap();
    task
}

fn command(task: &str) -> Value {
    json!({"task": task, "command": "/bin/sh -l", "interactive": true})
}

fn with_exec() -> (Script, String) {
    let mut script = Script::with_cluster();
    let docker = "com.amazonaws.ecs.capability.docker-remote-api.1.18";
    let others = ["com.amazonaws.ecs.capability.task-iam-role", "ecs.capability.execute-command", READY];
    let names = [&[docker], &others[..]].concat();
    let attributes: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    let instance = script.register_in("default", &attributes);
    (script, instance)
}

#[test]
fn a_command_reaches_the_agent_once() {
    let (mut script, instance) = with_exec();
    let session = script.connect(&instance);
    let task = running(&mut script, true);
    script.heard(session);
    let reply = script.call("ExecuteCommand", command(&task)).unwrap();
    assert_eq!(reply["containerName"], "app");
    assert_eq!(reply["taskArn"], json!(task));
    let id = reply["session"]["sessionId"].as_str().unwrap();
    assert!(id.starts_with("ecs-execute-command-"));
    assert!(reply["session"]["streamUrl"].as_str().unwrap().contains(id));
    let heard = script.heard(session);
    assert_eq!(kinds(&heard), ["ExecuteCommandMessage"]);
    let told = &messages(&heard)[0];
    assert_eq!((&told["sessionId"], &told["command"]), (&json!(id), &json!("/bin/sh -l")));
    let token = reply["session"]["tokenValue"].as_str().unwrap();
    assert!(!told.to_string().contains(token), "the token is the caller's alone");
    let kept = script.exec_sessions();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].token_digest, token_digest(token));

    script.pass(Duration::from_secs(61));
    assert!(script.exec_sessions().is_empty(), "nobody may open it any more");
    assert_eq!(
        kinds(&script.heard(session)).iter().filter(|kind| *kind == "ExecuteCommandMessage").count(),
        0
    );
}

#[test]
fn a_session_that_goes_on_is_resumed_by_new_tokens_until_it_ends() {
    let (mut script, instance) = with_exec();
    let session = script.connect(&instance);
    let task = running(&mut script, true);
    let reply = script.call("ExecuteCommand", command(&task)).unwrap();
    let id = reply["session"]["sessionId"].as_str().unwrap().to_owned();
    script.heard(session);
    let resumed = |script: &mut Script| {
        let reply = script.call_of("ssm", "ResumeSession", json!({"SessionId": id})).unwrap();
        assert_eq!(reply["SessionId"], json!(id));
        reply["TokenValue"].as_str().map(str::to_owned)
    };
    assert_eq!(resumed(&mut script), None, "nobody has opened it");
    script.exec_news(&id, ExecNews::Opened);
    script.pass(Duration::from_secs(65));
    let first = resumed(&mut script).unwrap();
    let second = resumed(&mut script).unwrap();
    assert_ne!(first, second);
    assert_eq!(script.exec_sessions()[0].token_digest, token_digest(&second), "the last token alone counts");
    assert!(!kinds(&script.heard(session)).contains(&"ExecuteCommandMessage".to_owned()), "it runs already");
    let error = script.call_of("ssm", "ResumeSession", json!({"SessionId": "mary-0123"})).unwrap_err();
    assert_eq!(error.code, "DoesNotExistException");
    script.exec_news(&id, ExecNews::Ended);
    assert_eq!(resumed(&mut script), None);
    assert!(script.exec_sessions().is_empty());
}

#[test]
fn a_session_of_which_no_end_is_told_goes_with_its_task() {
    let (mut script, instance) = with_exec();
    script.connect(&instance);
    let task = running(&mut script, true);
    let reply = script.call("ExecuteCommand", command(&task)).unwrap();
    script.exec_news(reply["session"]["sessionId"].as_str().unwrap(), ExecNews::Opened);
    script.call("SubmitTaskStateChange", json!({"task": task, "status": "STOPPED", "reason": ""})).unwrap();
    script.pass(Duration::from_secs(61));
    assert!(script.exec_sessions().is_empty());
}

#[test]
fn what_cannot_take_a_command_says_so() {
    let (mut script, instance) = with_exec();
    let session = script.connect(&instance);
    let disabled = running(&mut script, false);
    let task = running(&mut script, true);
    script.close(session);
    let mut refused = |request: Value| {
        let error = script.call("ExecuteCommand", request).unwrap_err();
        (error.code.into_owned(), error.message)
    };
    let invalid = |text: &str| ("InvalidParameterException".to_owned(), text.to_owned());
    let not_enabled = refused(command(&disabled));
    assert!(not_enabled.1.contains("isn\u{2019}t running"), "{not_enabled:?}");
    assert_eq!(refused(command(&task)).0, "TargetNotConnectedException");
    let mut blind = command(&task);
    blind["interactive"] = json!(false);
    assert_eq!(refused(blind), invalid("Interactive is the only mode supported currently."));
    let mut other = command(&task);
    other["container"] = json!("sidecar");
    assert!(refused(other).1.contains("container"));
    assert!(refused(command(&"0".repeat(32))).1.contains("not found"));
    let mut empty = command(&task);
    empty["command"] = json!(" ");
    assert_eq!(refused(empty).0, "InvalidParameterException");
    script.connect(&instance);
    script.call("SubmitTaskStateChange", json!({"task": task, "status": "STOPPED", "reason": ""})).unwrap();
    let stopped = script.call("ExecuteCommand", command(&task)).unwrap_err();
    assert!(stopped.message.contains("not RUNNING"));
}
