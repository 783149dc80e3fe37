//! What agents are told of security groups, and when.

use super::script::{Script, kinds, messages};
use crate::sessions::SessionId;
use gantry_decide::network::Peer;
use gantry_decide::network::firewall::News;
use gantry_store::Record;
use serde_json::{Value, json};

fn with_agents() -> (Script, [SessionId; 2]) {
    let mut script = Script::with_cluster();
    let definition = json!({"family": "net", "networkMode": "awsvpc",
        "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 16}]});
    let registered = script.call("RegisterTaskDefinition", definition).unwrap();
    let mut attributes: Vec<Value> =
        registered["taskDefinition"]["requiresAttributes"].as_array().unwrap().clone();
    attributes.push(json!({"name": "gantry.inline-eni"}));
    let place = |name: &str| json!({"name": "place", "value": name});
    let stock = [&attributes[..], &[place("stock")]].concat();
    attributes.push(json!({"name": "gantry.security-groups"}));
    let ours = [&attributes[..], &[place("ours")]].concat();
    let sessions = [ours, stock].map(|attributes| {
        let instance = script.register_in("default", &attributes);
        script.connect(&instance)
    });
    (script, sessions)
}

/// Runs a task on one of the two instances; its ARN and its address.
fn run(script: &mut Script, place: &str, groups: &[&str]) -> (String, String) {
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": groups}});
    let there = json!([{"type": "memberOf", "expression": format!("attribute:place == {place}")}]);
    let request =
        json!({"taskDefinition": "net", "networkConfiguration": network, "placementConstraints": there});
    let ran = script.call("RunTask", request).unwrap();
    assert_eq!(ran["failures"], json!([]));
    let task = &ran["tasks"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&task["taskArn"]), text(&task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]))
}

fn news(script: &mut Script, session: SessionId) -> News {
    let heard = script.heard(session);
    assert_eq!(kinds(&heard), ["SecurityGroupsMessage"]);
    serde_json::from_str(messages(&heard)[0]["news"].as_str().unwrap()).unwrap()
}

fn allow(script: &mut Script, group: &str, port: u16, from: &Value) {
    let permission = json!({"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "UserIdGroupPairs": from});
    let request = json!({"GroupId": group, "IpPermissions": [permission]});
    script.call_of("ec2", "AuthorizeSecurityGroupIngress", request).unwrap();
}

#[test]
fn an_agent_knows_the_groups_of_its_tasks_before_the_tasks() {
    let (mut script, [ours, stock]) = with_agents();
    assert_eq!(kinds(&script.heard(stock)), ["TaskManifestMessage"]);
    let heard = script.heard(ours);
    assert_eq!(kinds(&heard), ["TaskManifestMessage", "SecurityGroupsMessage"]);
    assert_eq!(messages(&heard)[1]["news"], "{\"complete\":true}");

    let make = |script: &mut Script, name: &str| {
        let request = json!({"GroupName": name, "Description": name});
        let made = script.call_of("ec2", "CreateSecurityGroup", request).unwrap();
        made["GroupId"].as_str().unwrap().to_owned()
    };
    let (db, app) = (make(&mut script, "db"), make(&mut script, "app"));
    allow(&mut script, &db, 5432, &json!([{"GroupId": app}]));
    assert_eq!(script.heard(ours), [], "no interface of its own is in them");

    let (_, first) = run(&mut script, "stock", &[&app]);
    assert_eq!(kinds(&script.heard(stock)), ["PayloadMessage"], "a stock agent would not know what it is");
    assert_eq!(script.heard(ours), []);
    run(&mut script, "ours", &[&db]);
    let heard = script.heard(ours);
    assert_eq!(kinds(&heard), ["SecurityGroupsMessage", "PayloadMessage"]);
    let told: News = serde_json::from_str(messages(&heard)[0]["news"].as_str().unwrap()).unwrap();
    assert_eq!(messages(&heard)[1]["tasks"][0]["elasticNetworkInterfaces"][0]["securityGroups"], json!([db]));
    let (db_id, app_id) = (db.parse().unwrap(), app.parse().unwrap());
    assert_eq!(
        told.groups.keys().copied().collect::<std::collections::BTreeSet<_>>(),
        [db_id, app_id].into()
    );
    let allows = told.groups[&db_id].allows.as_ref().unwrap();
    assert_eq!(allows.ingress.len(), 1);
    assert_eq!(allows.ingress[0].peer, Peer::Group(app_id));
    assert_eq!(allows.egress.len(), 1, "everything");
    assert_eq!(told.groups[&app_id].joined, [first.parse().unwrap()].into());
    assert_eq!(told.groups[&app_id].allows, None, "nobody here asks what it allows");

    let (second, address) = run(&mut script, "stock", &[&app]);
    assert_eq!(news(&mut script, ours).groups[&app_id].joined, [address.parse().unwrap()].into());
    script.call("SubmitTaskStateChange", json!({"task": second, "status": "RUNNING"})).unwrap();
    assert_eq!(script.heard(ours), [], "that changes nothing of its group");
    script.call("SubmitTaskStateChange", json!({"task": second, "status": "STOPPED"})).unwrap();
    assert_eq!(news(&mut script, ours).groups[&app_id].left, [address.parse().unwrap()].into());

    allow(&mut script, &db, 22, &json!([{"GroupId": db}]));
    let told = news(&mut script, ours);
    assert_eq!(told.groups[&db_id].allows.as_ref().unwrap().ingress.len(), 2);
    assert_eq!(told.groups[&db_id].joined.len(), 1, "a rule names it for the first time");
    allow(&mut script, &app, 22, &json!([{"GroupId": db}]));
    assert_eq!(script.heard(ours), []);

    // A new connection begins with all of it.
    script.close(ours);
    let instance = script.records().1.into_iter().find(|i| i.attribute("place") == Some("ours")).unwrap();
    let again = script.connect(&instance.key().arn(&script.scope).to_string());
    let heard = script.heard(again);
    let told: News = serde_json::from_str(messages(&heard)[1]["news"].as_str().unwrap()).unwrap();
    assert!(told.complete && told.groups.len() == 2);
    assert_eq!(told.groups[&app_id].joined, [first.parse().unwrap()].into());
}
