//! What agents are told of other hosts' tasks.

use super::script::{Script, kinds, messages};
use crate::sessions::{SessionId, SessionOutput};
use gantry_decide::network::Neighbours;
use serde_json::{Value, json};

fn told(heard: &[SessionOutput]) -> Vec<Neighbours> {
    let heard = kinds(heard).into_iter().zip(messages(heard));
    let own = heard.filter(|(kind, _)| kind == "NeighboursMessage");
    own.map(|(_, message)| serde_json::from_str(message["news"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn hosts_know_where_tasks_are() {
    let mut script = Script::with_cluster();
    let definition = json!({"family": "net", "networkMode": "awsvpc",
        "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 16}]});
    let registered = script.call("RegisterTaskDefinition", definition).unwrap();
    let needed = registered["taskDefinition"]["requiresAttributes"].as_array().unwrap().clone();
    let join = |script: &mut Script, address: Option<&str>| -> (String, SessionId) {
        let mut attributes = needed.clone();
        attributes.push(json!({"name": "gantry.inline-eni"}));
        attributes.push(json!({"name": "host", "value": address.unwrap_or("none")}));
        attributes.extend(address.map(|address| json!({"name": "gantry.host-address", "value": address})));
        let instance = script.register_in("default", &attributes);
        let session = script.connect(&instance);
        (instance, session)
    };
    let run = |script: &mut Script, host: &str| {
        let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let there = json!([{"type": "memberOf", "expression": format!("attribute:host == {host}")}]);
        let request =
            json!({"taskDefinition": "net", "networkConfiguration": network, "placementConstraints": there});
        let ran = script.call("RunTask", request).unwrap();
        let task = &ran["tasks"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&task["taskArn"]), text(&task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]))
    };
    let (_, one) = join(&mut script, Some("10.0.0.1"));
    assert_eq!(told(&script.heard(one)), [Neighbours { complete: true, ..Neighbours::default() }]);
    let (first, address) = run(&mut script, "10.0.0.1");
    let entry = |address: &str, host: &str| (address.parse().unwrap(), host.parse().unwrap());
    let expected = Neighbours { at: [entry(&address, "10.0.0.1")].into(), ..Neighbours::default() };
    assert_eq!(told(&script.heard(one)), [expected]);

    let (_, two) = join(&mut script, Some("10.0.0.2"));
    let (_, none) = join(&mut script, None);
    let all = [entry(&address, "10.0.0.1")].into();
    assert_eq!(told(&script.heard(two)), [Neighbours { complete: true, at: all, ..Neighbours::default() }]);
    run(&mut script, "none");
    assert_eq!(told(&script.heard(none)), []);
    assert_eq!(told(&script.heard(two)), [], "nobody can say where that is");

    script.call("SubmitTaskStateChange", json!({"task": first, "status": "RUNNING"})).unwrap();
    assert_eq!(told(&script.heard(two)), []);
    script.call("SubmitTaskStateChange", json!({"task": first, "status": "STOPPED"})).unwrap();
    let gone = Neighbours { gone: [address.parse().unwrap()].into(), ..Neighbours::default() };
    assert_eq!(told(&script.heard(two)), [gone]);
}
