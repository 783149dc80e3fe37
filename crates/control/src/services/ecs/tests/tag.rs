//! Scripts on tags and account settings.
#![allow(clippy::unwrap_used)]

use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{account_setting, tag, task_definition};
use serde_json::{Value, json};

#[test]
fn resources_are_tagged() {
    let world = &mut World::new();
    let cluster = world.create("shop")["clusterArn"].clone();
    let instance = json!(world.join("shop"));
    let definition = world.register("web")["taskDefinitionArn"].clone();
    for arn in [&cluster, &instance, &definition] {
        let tagged = |world: &mut World| {
            world.read(tag::list_tags_for_resource, json!({ "resourceArn": arn })).unwrap()["tags"].clone()
        };
        assert_eq!(tagged(world), json!([]));
        let tags = json!([{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]);
        world.write(tag::tag_resource, json!({"resourceArn": arn, "tags": tags})).unwrap();
        let more = json!([{"key": "b", "value": "3"}]);
        world.write(tag::tag_resource, json!({"resourceArn": arn, "tags": more})).unwrap();
        assert_eq!(tagged(world), json!([{"key": "a", "value": "1"}, {"key": "b", "value": "3"}]));
        world.write(tag::untag_resource, json!({"resourceArn": arn, "tagKeys": ["a", "none"]})).unwrap();
        assert_eq!(tagged(world), json!([{"key": "b", "value": "3"}]));
    }
    let tag = |world: &mut World, arn: &str| {
        world.write(tag::tag_resource, json!({"resourceArn": arn, "tags": [{"key": "a", "value": "1"}]}))
    };
    let prefix = "arn:aws:ecs:eu-north-1:123456789012";
    fails(
        tag(world, &format!("{prefix}:service/web")),
        INVALID,
        "Long arn format must be used for tagging operations",
    );
    fails(tag(world, &format!("{prefix}:cluster/none")), "ClusterNotFoundException", "Cluster not found.");
    fails(
        tag(world, &format!("{prefix}:service/shop/none")),
        "ResourceNotFoundException",
        "The specified service was not found.",
    );
    fails(tag(world, "web"), INVALID, "Invalid arn : web");
    world.write(task_definition::deregister_task_definition, json!({"taskDefinition": "web:1"})).unwrap();
    fails(
        tag(world, definition.as_str().unwrap()),
        INVALID,
        "The specified task definition is inactive. Specify an active task definition and try again.",
    );
}

#[test]
fn settings_resolve_from_principal_to_account_to_default() {
    let world = &mut World::new();
    let user = "arn:aws:iam::123456789012:user/kim";
    let value = |world: &mut World, principal: Option<&str>| {
        let request =
            json!({"name": "containerInsights", "effectiveSettings": true, "principalArn": principal});
        let request: Value =
            request.as_object().unwrap().clone().into_iter().filter(|(_, v)| !v.is_null()).collect();
        world.read(account_setting::list_account_settings, request).unwrap()["settings"][0]["value"].clone()
    };
    assert_eq!(value(world, Some(user)), "disabled");
    let default = json!({"name": "containerInsights", "value": "enabled"});
    world.write(account_setting::put_account_setting_default, default).unwrap();
    assert_eq!(value(world, Some(user)), "enabled");
    assert_eq!(value(world, None), "enabled");
    let own = json!({"name": "containerInsights", "value": "enhanced", "principalArn": user});
    let reply = world.write(account_setting::put_account_setting, own).unwrap();
    assert_eq!(
        reply["setting"],
        json!({"name": "containerInsights", "value": "enhanced", "principalArn": user, "type": "user"})
    );
    assert_eq!(value(world, Some(user)), "enhanced");
    assert_eq!(value(world, None), "enabled");
    assert_eq!(
        world.create("shop")["settings"],
        json!([{"name": "containerInsights", "value": "enabled"}]),
        "new clusters take the caller's setting"
    );
    let gone = json!({"name": "containerInsights", "principalArn": user});
    world.write(account_setting::delete_account_setting, gone).unwrap();
    assert_eq!(value(world, Some(user)), "enabled");

    let explicit = world.read(account_setting::list_account_settings, json!({})).unwrap();
    assert_eq!(explicit["settings"].as_array().unwrap().len(), 1);
    let first =
        world.read(account_setting::list_account_settings, json!({"effectiveSettings": true})).unwrap();
    assert_eq!(first["settings"].as_array().unwrap().len(), 10);
    let rest = json!({"effectiveSettings": true, "nextToken": first["nextToken"]});
    let rest = world.read(account_setting::list_account_settings, rest).unwrap();
    assert_eq!(rest["settings"].as_array().unwrap().len(), 1);
    let wrong = json!({"name": "fargateTaskRetirementWaitPeriod", "value": "8"});
    fails(
        world.write(account_setting::put_account_setting, wrong),
        INVALID,
        "Invalid value for fargateTaskRetirementWaitPeriod. Valid values: 0, 7, 14.",
    );
    let managed = json!({"name": "guardDutyActivate", "value": "on"});
    assert_eq!(world.write(account_setting::put_account_setting, managed).unwrap_err().code, INVALID);
}
