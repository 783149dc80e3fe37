//! Realistic registrations, each compared member by member with what ECS documents that it shows: what was sent, plus
//! the documented defaults, plus the computed compatibilities. The defaults are worked out here a second time, on plain
//! JSON, so that a slip in the typed form cannot hide.
#![allow(clippy::unwrap_used)]

use gantry_decide::ids::AccountId;
use gantry_decide::task::{TaskDefinition, validate};
use serde_json::{Map, Value, json};

const REGISTRATIONS: &str = include_str!("registrations.json");

/// What ECS shows for a definition, apart from `requiresAttributes`.
fn expected(case: &Value) -> Value {
    let mut shown = case["definition"].clone();
    let mode = shown.get("networkMode").and_then(Value::as_str).unwrap_or("bridge").to_owned();
    let task = shown.as_object_mut().unwrap();
    fill(task, "volumes", json!([]));
    fill(task, "placementConstraints", json!([]));
    fill(task, "enableFaultInjection", json!(false));
    task.insert("compatibilities".to_owned(), case["compatibilities"].clone());
    for size in ["cpu", "memory"] {
        if let Some(normalised) = case.get(size) {
            task.insert(size.to_owned(), normalised.clone());
        }
    }
    for role in ["taskRoleArn", "executionRoleArn"] {
        if let Some(Value::String(role)) = task.get_mut(role)
            && !role.starts_with("arn:")
        {
            *role = format!("arn:aws:iam::123456789012:role/{role}");
        }
    }
    for volume in task["volumes"].as_array_mut().unwrap() {
        if volume.as_object().unwrap().len() == 1 {
            volume["host"] = json!({});
        }
    }
    for container in task["containerDefinitions"].as_array_mut().unwrap() {
        let container = container.as_object_mut().unwrap();
        fill(container, "cpu", json!(0));
        fill(container, "essential", json!(true));
        for list in ["portMappings", "environment", "mountPoints", "volumesFrom", "systemControls"] {
            fill(container, list, json!([]));
        }
        if let Some(Value::Object(check)) = container.get_mut("healthCheck") {
            fill(check, "interval", json!(30));
            fill(check, "timeout", json!(5));
            fill(check, "retries", json!(3));
        }
        for mapping in container["portMappings"].as_array_mut().unwrap() {
            let mapping = mapping.as_object_mut().unwrap();
            fill(mapping, "protocol", json!("tcp"));
            if let Some(port) = mapping.get("containerPort").cloned() {
                let same = mode == "awsvpc" || mode == "host";
                if same {
                    mapping.insert("hostPort".to_owned(), port);
                } else {
                    fill(mapping, "hostPort", json!(0));
                }
            }
        }
    }
    shown
}

fn fill(object: &mut Map<String, Value>, member: &str, default: Value) {
    object.entry(member).or_insert(default);
}

/// The paths at which two values differ.
fn differences(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let mut members: Vec<&String> = left.keys().chain(right.keys()).collect();
            members.sort();
            members.dedup();
            for member in members {
                let absent = &Value::Null;
                let (l, r) = (left.get(member).unwrap_or(absent), right.get(member).unwrap_or(absent));
                differences(&format!("{path}/{member}"), l, r, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (l, r)) in left.iter().zip(right).enumerate() {
                differences(&format!("{path}/{at}"), l, r, found);
            }
        }
        _ if left == right => {}
        _ => found.push(format!("{path}: shown {left}, expected {right}")),
    }
}

fn cases() -> Vec<Value> {
    serde_json::from_str(REGISTRATIONS).unwrap()
}

#[test]
fn realistic_definitions_show_what_ecs_documents() {
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    for case in &cases {
        let title = case["title"].as_str().unwrap();
        let definition = match validate(case["definition"].clone(), AccountId::DEFAULT) {
            Ok(definition) => definition,
            Err(error) => {
                wrong.push(format!("{title}: refused with {error}"));
                continue;
            }
        };
        let mut shown = serde_json::to_value(&definition).unwrap();
        let requires = shown.as_object_mut().unwrap().remove("requiresAttributes").unwrap();
        differences(title, &shown, &expected(case), &mut wrong);
        if let Some(names) = case.get("requires") {
            let got: Vec<Value> = requires.as_array().unwrap().iter().map(|a| a["name"].clone()).collect();
            differences(&format!("{title}/requiresAttributes"), &json!(got), names, &mut wrong);
        }
        let stored = serde_json::to_string(&definition).unwrap();
        assert_eq!(
            serde_json::from_str::<TaskDefinition>(&stored).unwrap(),
            definition,
            "{title} reads back"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tools describe a definition, change a line and register the result: that must be accepted and, unchanged, show the
/// same again.
#[test]
fn what_was_shown_can_be_registered_again() {
    for case in cases() {
        let first = validate(case["definition"].clone(), AccountId::DEFAULT).unwrap();
        let again = validate(serde_json::to_value(&first).unwrap(), AccountId::DEFAULT);
        assert_eq!(again.unwrap(), first, "{}", case["title"]);
    }
}
