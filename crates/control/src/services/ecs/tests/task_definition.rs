//! Scripts on task definitions.
#![allow(clippy::unwrap_used)]

use super::world::{CLIENT, INVALID, World, fails};
use crate::controllers::task_definitions::TaskDefinitions;
use crate::controllers::testing::settle;
use crate::services::ecs::ops::task_definition;
use crate::services::ecs::state::TaskKey;
use gantry_decide::lifecycle::LastStatus;
use serde_json::{Value, json};
use std::sync::Arc;

#[test]
fn revisions_count_up_and_are_never_used_twice() {
    let world = &mut World::new();
    for revision in 1..=3 {
        let shown = world.register("web");
        assert_eq!(shown["revision"], revision);
        assert_eq!(shown["status"], "ACTIVE");
        assert_eq!(shown["registeredBy"], "arn:aws:iam::123456789012:root");
        let arn = format!("arn:aws:ecs:eu-north-1:123456789012:task-definition/web:{revision}");
        assert_eq!(shown["taskDefinitionArn"], arn);
    }
    for id in ["web:2", "web:3"] {
        world.write(task_definition::deregister_task_definition, json!({ "taskDefinition": id })).unwrap();
    }
    world.write(task_definition::delete_task_definitions, json!({"taskDefinitions": ["web:3"]})).unwrap();
    assert_eq!(world.register("web")["revision"], 4);

    let shown = |world: &mut World, id: &str| {
        let reply =
            world.read(task_definition::describe_task_definition, json!({ "taskDefinition": id })).unwrap();
        (reply["taskDefinition"]["revision"].clone(), reply["taskDefinition"]["status"].clone())
    };
    assert_eq!(shown(world, "web"), (json!(4), json!("ACTIVE")));
    assert_eq!(shown(world, "web:2"), (json!(2), json!("INACTIVE")));
    assert_eq!(shown(world, "web:3"), (json!(3), json!("DELETE_IN_PROGRESS")));
    let arn = "arn:aws:ecs:eu-north-1:123456789012:task-definition/web";
    assert_eq!(shown(world, &format!("{arn}:1")), (json!(1), json!("ACTIVE")));
    assert_eq!(shown(world, arn), (json!(4), json!("ACTIVE")), "an ARN without a revision means the newest");
}

#[test]
fn a_failed_registration_changes_nothing() {
    let world = &mut World::new();
    let wrong = json!({"family": "web", "containerDefinitions": [{"name": "app", "image": "app:1"}]});
    let message = "Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must be specified.";
    fails(world.write(task_definition::register_task_definition, wrong), CLIENT, message);
    assert!(world.state.ecs.families.is_empty());
    assert_eq!(world.register("web")["revision"], 1);
}

#[test]
fn task_definitions_that_are_not_there() {
    let world = &mut World::new();
    world.register("web");
    for id in ["web:2", "api", "no such thing", "arn:aws:ecs:eu-north-1:123456789012:task-definition/web:9"] {
        let reply = world.read(task_definition::describe_task_definition, json!({ "taskDefinition": id }));
        fails(reply, CLIENT, "Unable to describe task definition.");
    }
    for foreign in ["task-definition/web:1", "task-definition/web"] {
        let foreign = format!("arn:aws:ecs:eu-north-1:111122223333:{foreign}");
        fails(
            world.read(task_definition::describe_task_definition, json!({ "taskDefinition": foreign })),
            INVALID,
            "Identifier is for 111122223333. Your accountId is 123456789012",
        );
    }
    let deregister = |world: &mut World, id: &str| {
        world.write(task_definition::deregister_task_definition, json!({ "taskDefinition": id }))
    };
    fails(deregister(world, "web"), INVALID, "Invalid revision number. Number: web");
    fails(deregister(world, "web:x"), INVALID, "Invalid revision number. Number: x");
    fails(deregister(world, "web:7"), CLIENT, "The specified task definition does not exist.");
}

#[test]
fn deregistering_twice_keeps_the_first_time() {
    let world = &mut World::new();
    world.register("web");
    let deregister = |world: &mut World| {
        let reply = world
            .write(task_definition::deregister_task_definition, json!({"taskDefinition": "web:1"}))
            .unwrap();
        reply["taskDefinition"]["deregisteredAt"].clone()
    };
    let first = deregister(world);
    assert!(!first.is_null());
    assert_eq!(deregister(world), first);
}

#[test]
fn only_inactive_revisions_are_deleted() {
    let world = &mut World::new();
    world.register("web");
    world.register("web");
    world.write(task_definition::deregister_task_definition, json!({"taskDefinition": "web:1"})).unwrap();
    let ids = json!({"taskDefinitions": ["web:1", "web:2", "web:3"]});
    let reply = world.write(task_definition::delete_task_definitions, ids).unwrap();
    assert_eq!(reply["taskDefinitions"].as_array().unwrap().len(), 1);
    assert_eq!(reply["taskDefinitions"][0]["status"], "DELETE_IN_PROGRESS");
    assert!(!reply["taskDefinitions"][0]["deleteRequestedAt"].is_null());
    let reasons: Vec<_> =
        reply["failures"].as_array().unwrap().iter().map(|f| f["reason"].as_str().unwrap()).collect();
    assert_eq!(
        reasons,
        [
            "The specified task definition is still in ACTIVE status. Please deregister the target and try again.",
            "The specified task definition does not exist. Specify a valid account, family, revision and try again.",
        ]
    );
    let eleven: Vec<String> = (1..=11).map(|n| format!("web:{n}")).collect();
    let reply = world.write(task_definition::delete_task_definitions, json!({ "taskDefinitions": eleven }));
    fails(reply, INVALID, "At most 10 task definitions can be deleted in one call.");
}

#[test]
fn task_definitions_are_listed_in_order_and_by_status() {
    let world = &mut World::new();
    for family in ["web-front", "web", "api"] {
        for _ in 0..11 {
            world.register(family);
        }
    }
    world.write(task_definition::deregister_task_definition, json!({"taskDefinition": "api:3"})).unwrap();
    let list = |world: &mut World, request: Value| {
        let (mut names, mut request) = (Vec::new(), request);
        loop {
            let reply = world.read(task_definition::list_task_definitions, request.clone()).unwrap();
            let arns = reply["taskDefinitionArns"].as_array().unwrap().clone();
            names.extend(arns.iter().map(|a| a.as_str().unwrap().rsplit('/').next().unwrap().to_owned()));
            match reply.get("nextToken") {
                Some(token) => request["nextToken"] = token.clone(),
                None => return names,
            }
        }
    };
    let all = list(world, json!({"maxResults": 7}));
    assert_eq!(all.len(), 32);
    assert_eq!(all[..4], ["api:1", "api:2", "api:4", "api:5"]);
    assert_eq!(all[10..13], ["web:1", "web:2", "web:3"], "families in order, and revisions by number");
    let mut reversed = list(world, json!({"maxResults": 5, "sort": "DESC"}));
    reversed.reverse();
    assert_eq!(reversed, all);
    assert_eq!(list(world, json!({"status": "INACTIVE"})), ["api:3"]);
    assert_eq!(list(world, json!({"familyPrefix": "web"})).len(), 11, "the whole name of a family is meant");
    let bad = world.read(task_definition::list_task_definitions, json!({"nextToken": "ffff"}));
    fails(bad, INVALID, "Invalid token.");

    let families = |world: &mut World, request: Value| {
        world.read(task_definition::list_task_definition_families, request).unwrap()["families"].clone()
    };
    assert_eq!(families(world, json!({})), json!(["api", "web", "web-front"]));
    assert_eq!(families(world, json!({"familyPrefix": "web"})), json!(["web", "web-front"]));
    assert_eq!(families(world, json!({"status": "INACTIVE"})), json!([]), "api has ACTIVE revisions left");
}

#[test]
fn tags_of_a_definition_are_shown_when_asked_for() {
    let world = &mut World::new();
    let request = json!({
        "family": "web", "tags": [{"key": "team", "value": "a"}],
        "containerDefinitions": [{"name": "app", "image": "app:1", "memory": 128}],
    });
    let reply = world.write(task_definition::register_task_definition, request).unwrap();
    assert_eq!(reply["tags"], json!([{"key": "team", "value": "a"}]));
    assert!(reply["taskDefinition"].get("tags").is_none());
    let describe = |world: &mut World, include: Value| {
        let request = json!({"taskDefinition": "web", "include": include});
        world.read(task_definition::describe_task_definition, request).unwrap().get("tags").cloned()
    };
    assert_eq!(describe(world, json!([])), None);
    assert_eq!(describe(world, json!(["TAGS"])), Some(json!([{"key": "team", "value": "a"}])));
}

#[test]
fn a_deleted_definition_lives_on_in_stopped_tasks() {
    let world = &mut World::new();
    world.create("default");
    world.register("web");
    let instance = world.join("default");
    let (ended, runs) = (world.run("web:1", &instance), world.run("web:1", &instance));
    world.write(task_definition::deregister_task_definition, json!({"taskDefinition": "web:1"})).unwrap();
    world.write(task_definition::delete_task_definitions, json!({"taskDefinitions": ["web:1"]})).unwrap();
    let stop = |world: &mut World, key: &TaskKey| {
        let mut task = world.state.ecs.task(key).unwrap().clone();
        (task.last_status, task.stopped_at) = (LastStatus::Stopped, Some(world.now));
        world.state.ecs.put_task(task);
    };
    stop(world, &ended);
    settle::<TaskDefinitions>(world);
    assert_eq!(world.state.ecs.task_definitions.len(), 1, "a running task needs it");
    world.restart();
    let memory =
        |world: &World, key: &TaskKey| world.state.ecs.task(key).unwrap().definition.reserved_memory().0;
    assert_eq!((memory(world, &ended), memory(world, &runs)), (128, 128));

    stop(world, &runs);
    settle::<TaskDefinitions>(world);
    assert!(world.state.ecs.task_definitions.is_empty());
    world.restart();
    assert_eq!((memory(world, &ended), memory(world, &runs)), (128, 128));
}

#[test]
fn tasks_share_their_definition_again_after_a_restart() {
    let world = &mut World::new();
    world.create("default");
    world.register("web");
    let instance = world.join("default");
    let (one, other) = (world.run("web:1", &instance), world.run("web:1", &instance));
    world.restart();
    let definition = |key: &TaskKey| world.state.ecs.task(key).unwrap().definition.shared().clone();
    assert!(Arc::ptr_eq(&definition(&one), &definition(&other)));
}

#[test]
fn a_task_whose_definition_is_not_stored_is_refused() {
    let world = &mut World::new();
    world.create("default");
    world.register("web");
    let instance = world.join("default");
    world.run("web:1", &instance);
    let rows = world.rows();
    rows.retain(|key, _| !key.contains("/task-definition/"));
    let error = World::load(rows).err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "a stored ecs/task needs the record 'web/1', which is not stored");
}
