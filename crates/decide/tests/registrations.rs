//! Realistic registrations, each compared member by member with what ECS documents that it shows: what was sent, plus
//! the documented defaults, plus the computed compatibilities. The defaults are worked out here a second time, on plain
//! JSON, so that a slip in the typed form cannot hide.
#![allow(clippy::unwrap_used)]

use gantry_decide::ids::AccountId;
use gantry_decide::random::{Random, Seeded};
use gantry_decide::task::{Compatibility, TaskDefinition, validate};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

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

/// Breaks a random place of a definition: removes it, or puts something else there.
fn mutate(value: &mut Value, random: &mut Seeded) {
    let junk = |random: &mut Seeded| {
        let choices = [
            json!(null),
            json!(-1),
            json!(0),
            json!(65_536),
            json!(u64::MAX),
            json!(1.5),
            json!(""),
            json!("app"),
            json!("a b"),
            json!("é".repeat(300)),
            json!(true),
            json!([]),
            json!([{}]),
            json!({}),
        ];
        choices[random.below(choices.len())].clone()
    };
    match value {
        Value::Object(object) if !object.is_empty() && random.below(25) > 0 => {
            let key = object.keys().nth(random.below(object.len())).unwrap().clone();
            if random.below(8) == 0 {
                object.remove(&key);
            } else {
                mutate(object.get_mut(&key).unwrap(), random);
            }
        }
        Value::Array(list) if !list.is_empty() && random.below(25) > 0 => {
            let at = random.below(list.len());
            if random.below(6) == 0 {
                list.push(list[at].clone());
            } else {
                mutate(&mut list[at], random);
            }
        }
        other => *other = junk(random),
    }
}

/// Whatever is sent, registration answers; and what it accepts keeps the promises of the type.
#[test]
fn broken_definitions_are_refused_or_sound() {
    let (cases, random) = (cases(), &mut Seeded::new(42));
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut raw = cases[random.below(cases.len())]["definition"].clone();
        for _ in 0..=random.below(2) {
            mutate(&mut raw, random);
        }
        let definition = match validate(raw.clone(), AccountId::DEFAULT) {
            Ok(definition) => definition,
            Err(error) => {
                assert!(
                    error.to_string().len() < 2_000,
                    "a refusal does not echo its input at length: {raw}"
                );
                refused += 1;
                continue;
            }
        };
        accepted += 1;
        let containers = &definition.container_definitions;
        assert!(containers.iter().any(|c| c.essential), "{raw}");
        let names: BTreeSet<_> = containers.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), containers.len(), "{raw}");
        assert!(definition.is_compatible_with(Compatibility::Ec2), "{raw}");
        assert!(definition.reserved_memory().0 > 0, "{raw}");
        for mapping in containers.iter().flat_map(|c| &c.port_mappings) {
            assert_ne!(mapping.container_port.is_some(), mapping.container_port_range.is_some(), "{raw}");
            assert_eq!(mapping.container_port.is_some(), mapping.host_port.is_some(), "{raw}");
        }
        let again = validate(serde_json::to_value(&definition).unwrap(), AccountId::DEFAULT);
        assert_eq!(again.unwrap(), definition, "{raw}");
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}
