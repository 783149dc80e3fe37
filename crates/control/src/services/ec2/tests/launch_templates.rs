//! Launch templates and their versions.

use super::{INVALID, World, filter, text};
use crate::services::ec2::ops::launch_template as ops;
use crate::services::ec2::ops::tag;
use crate::services::ecs::tests::world::fails;
use serde_json::{Value, json};

fn made(world: &mut World, name: &str, data: Value) -> String {
    let request = json!({ "LaunchTemplateName": name, "LaunchTemplateData": data });
    text(&world.write(ops::create_launch_template, request).unwrap()["LaunchTemplate"]["LaunchTemplateId"])
}

fn versions(world: &mut World, request: Value) -> Value {
    world.read(ops::describe_launch_template_versions, request).unwrap()["LaunchTemplateVersions"].take()
}

#[test]
fn a_template_shows_what_it_was_given() {
    let world = &mut World::new();
    let data = json!({
        "ImageId": "ami-1", "InstanceType": "t3.micro", "UserData": "RUNTX0NMVVNURVI9d2Vi",
        "MetadataOptions": { "HttpTokens": "required" },
        "NetworkInterfaces": [{ "DeviceIndex": 0, "SubnetId": "subnet-1", "Groups": ["sg-1"] }],
        "TagSpecifications": [{ "ResourceType": "instance", "Tags": [{ "Key": "a", "Value": "b" }] }],
    });
    let id = made(world, "web-1", data.clone());
    world.restart();
    let shown = versions(world, json!({ "LaunchTemplateId": id }));
    assert_eq!(shown[0]["LaunchTemplateData"], data);
    assert_eq!((&shown[0]["VersionNumber"], &shown[0]["DefaultVersion"]), (&json!(1), &json!(true)));
    world.state.check_invariants();
}

#[test]
fn versions_build_on_others_and_one_is_the_default() {
    let world = &mut World::new();
    made(world, "web-1", json!({ "ImageId": "ami-1", "InstanceType": "t3.micro" }));
    let request = json!({
        "LaunchTemplateName": "web-1", "SourceVersion": "$Default", "LaunchTemplateData": { "InstanceType": "m5.large" },
    });
    let made = world.write(ops::create_launch_template_version, request).unwrap();
    let data = &made["LaunchTemplateVersion"]["LaunchTemplateData"];
    assert_eq!(*data, json!({ "ImageId": "ami-1", "InstanceType": "m5.large" }));
    let numbers = |shown: &Value| -> Vec<i64> {
        shown.as_array().unwrap().iter().map(|v| v["VersionNumber"].as_i64().unwrap()).collect()
    };
    assert_eq!(numbers(&versions(world, json!({ "LaunchTemplateName": "web-1" }))), [2, 1]);
    assert_eq!(numbers(&versions(world, json!({ "Versions": ["$Default"] }))), [1]);
    let modify = json!({ "LaunchTemplateName": "web-1", "DefaultVersion": "2" });
    world.write(ops::modify_launch_template, modify).unwrap();
    let delete = json!({ "LaunchTemplateName": "web-1", "Versions": ["1", "2", "7"] });
    let deleted = world.write(ops::delete_launch_template_versions, delete).unwrap();
    assert_eq!(deleted["SuccessfullyDeletedLaunchTemplateVersions"][0]["VersionNumber"], 1);
    let refused = &deleted["UnsuccessfullyDeletedLaunchTemplateVersions"];
    assert_eq!(refused[1]["ResponseError"]["Code"], "launchTemplateVersionDoesNotExist");
    assert_eq!(numbers(&versions(world, json!({ "LaunchTemplateName": "web-1" }))), [2]);
}

#[test]
fn what_is_not_there_is_told_in_ec2s_words() {
    let world = &mut World::new();
    let id = made(world, "web-1", json!({}));
    let again = json!({ "LaunchTemplateName": "web-1", "LaunchTemplateData": {} });
    let code = "InvalidLaunchTemplateName.AlreadyExistsException";
    fails(world.write(ops::create_launch_template, again), code, "Launch template name already in use.");
    let reply = world.read(ops::describe_launch_templates, json!({ "LaunchTemplateNames": ["no"] }));
    assert_eq!(reply.unwrap_err().code, "InvalidLaunchTemplateName.NotFoundException");
    let reply = world
        .read(ops::describe_launch_template_versions, json!({ "LaunchTemplateId": id, "Versions": ["3"] }));
    assert_eq!(reply.unwrap_err().code, "InvalidLaunchTemplateId.VersionNotFound");
    let long =
        json!({ "LaunchTemplateName": "web-2", "LaunchTemplateData": { "UserData": "a".repeat(30_000) } });
    assert_eq!(world.write(ops::create_launch_template, long).unwrap_err().code, INVALID);
}

#[test]
fn a_repeated_request_makes_nothing_more() {
    let world = &mut World::new();
    let request = json!({ "LaunchTemplateName": "web-1", "LaunchTemplateData": {}, "ClientToken": "once" });
    let first = world.write(ops::create_launch_template, request.clone()).unwrap();
    assert_eq!(world.write(ops::create_launch_template, request).unwrap(), first);
}

#[test]
fn templates_are_tagged_found_and_deleted() {
    let world = &mut World::new();
    let id = made(world, "web-1", json!({}));
    made(world, "web-2", json!({}));
    let tags = json!({ "Resources": [id], "Tags": [{ "Key": "team", "Value": "blue" }] });
    world.write(tag::create_tags, tags).unwrap();
    for found in [filter("tag:team", "blue"), filter("launch-template-name", "*-1")] {
        let shown = world.read(ops::describe_launch_templates, json!({ "Filters": found })).unwrap();
        assert_eq!(super::each(&shown["LaunchTemplates"], "LaunchTemplateName"), ["web-1"]);
    }
    world.write(ops::delete_launch_template, json!({ "LaunchTemplateId": id })).unwrap();
    let left = world.read(ops::describe_launch_templates, json!({})).unwrap();
    assert_eq!(super::each(&left["LaunchTemplates"], "LaunchTemplateName"), ["web-2"]);
}
