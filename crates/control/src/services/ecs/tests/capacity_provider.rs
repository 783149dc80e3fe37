//! Capacity providers: their lives, their clusters, and the strategies that name them.

use super::world::{INVALID, World, fails};
use crate::services::ecs::ops::{capacity_provider, cluster, tag, task};
use gantry_wire::ApiError;
use serde_json::{Value, json};
use std::time::Duration;

const NOT_FOUND: &str =
    "The specified capacity provider was not found. Specify a valid capacity provider and try again.";

fn group_arn(name: &str) -> String {
    format!("arn:aws:autoscaling:eu-north-1:123456789012:autoScalingGroup:1-2:autoScalingGroupName/{name}")
}

fn create(world: &mut World, name: &str, settings: Value) -> Result<Value, ApiError> {
    let mut group = json!({"autoScalingGroupArn": group_arn(name)});
    group.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let request = json!({"name": name, "autoScalingGroupProvider": group});
    Ok(world.write(capacity_provider::create_capacity_provider, request)?["capacityProvider"].take())
}

fn put(world: &mut World, cluster: &str, providers: Value, strategy: Value) -> Result<Value, ApiError> {
    let request = json!({
        "cluster": cluster, "capacityProviders": providers, "defaultCapacityProviderStrategy": strategy,
    });
    world.write(cluster::put_cluster_capacity_providers, request)
}

fn delete(world: &mut World, name: &str) -> Result<Value, ApiError> {
    let request = json!({"capacityProvider": name});
    Ok(world.write(capacity_provider::delete_capacity_provider, request)?["capacityProvider"].take())
}

fn item(name: &str, weight: i32, base: i32) -> Value {
    json!({"capacityProvider": name, "weight": weight, "base": base})
}

fn described(world: &mut World, request: Value) -> Vec<Value> {
    let mut reply = world.read(capacity_provider::describe_capacity_providers, request).unwrap();
    reply["capacityProviders"].as_array_mut().unwrap().drain(..).collect()
}

#[test]
fn a_provider_has_the_defaults_of_ecs_and_keeps_what_is_set() {
    let world = &mut World::new();
    let made = create(world, "metal", json!({})).unwrap();
    assert_eq!(made["status"], "ACTIVE");
    assert_eq!(made["type"], "EC2_AUTOSCALING");
    assert_eq!(
        made["autoScalingGroupProvider"],
        json!({
            "autoScalingGroupArn": group_arn("metal"),
            "managedScaling": {
                "status": "DISABLED", "targetCapacity": 100, "minimumScalingStepSize": 1,
                "maximumScalingStepSize": 10000, "instanceWarmupPeriod": 300,
            },
            "managedTerminationProtection": "DISABLED",
            "managedDraining": "ENABLED",
        })
    );
    let update = json!({"name": "metal", "autoScalingGroupProvider": {
        "managedScaling": {"status": "ENABLED", "targetCapacity": 80},
        "managedTerminationProtection": "ENABLED",
    }});
    let updated = world.write(capacity_provider::update_capacity_provider, update).unwrap();
    let settings = &updated["capacityProvider"]["autoScalingGroupProvider"];
    assert_eq!(settings["managedScaling"]["targetCapacity"], 80);
    assert_eq!(settings["managedScaling"]["instanceWarmupPeriod"], 300);
    assert_eq!(settings["managedDraining"], "ENABLED");
    assert_eq!(updated["capacityProvider"]["updateStatus"], "UPDATE_COMPLETE");
    world.restart();
    let after = described(world, json!({"capacityProviders": ["metal"]}));
    assert_eq!(after[0]["autoScalingGroupProvider"], *settings);
}

#[test]
fn a_provider_that_contradicts_itself_or_another_is_refused() {
    let world = &mut World::new();
    create(world, "metal", json!({})).unwrap();
    let exists = "The specified capacity provider already exists. To change the configuration of an existing capacity \
                  provider, update the capacity provider.";
    fails(create(world, "metal", json!({})), "ClientException", exists);
    for name in ["aws-metal", "ECS", "fargate_own", "no spaces", ""] {
        let error = create(world, name, json!({})).unwrap_err();
        assert!(
            error.message.starts_with("The specified capacity provider name is invalid."),
            "{name}: {error}"
        );
    }
    let same =
        json!({"name": "twin", "autoScalingGroupProvider": {"autoScalingGroupArn": group_arn("metal")}});
    let taken = "The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a \
                 unique Auto Scaling group ARN and try again.";
    fails(world.write(capacity_provider::create_capacity_provider, same), "ClientException", taken);
    let protected = create(world, "safe", json!({"managedTerminationProtection": "ENABLED"})).unwrap_err();
    assert!(protected.message.contains("managed scaling must be enabled"), "{protected}");
    let steps = json!({"managedScaling": {"minimumScalingStepSize": 5, "maximumScalingStepSize": 4}});
    assert_eq!(create(world, "steps", steps).unwrap_err().code, INVALID);
    let bare = world.write(capacity_provider::create_capacity_provider, json!({"name": "bare"}));
    assert_eq!(bare.unwrap_err().code, INVALID);
    let reserved = json!({"name": "FARGATE", "autoScalingGroupProvider": {}});
    assert_eq!(world.write(capacity_provider::update_capacity_provider, reserved).unwrap_err().code, INVALID);
    assert_eq!(delete(world, "FARGATE_SPOT").unwrap_err().code, INVALID);
    fails(delete(world, "nobody"), INVALID, NOT_FOUND);
}

#[test]
fn a_provider_goes_when_no_cluster_has_it_and_its_name_can_be_used_again() {
    let world = &mut World::new();
    world.create("shop");
    create(world, "metal", json!({})).unwrap();
    let with_it = put(world, "shop", json!(["metal", "FARGATE"]), json!([])).unwrap()["cluster"].take();
    assert_eq!(with_it["attachmentsStatus"], "UPDATE_COMPLETE");
    let attachments = with_it["attachments"].as_array().unwrap();
    assert_eq!(attachments.len(), 1, "{attachments:?}");
    assert_eq!(
        (&attachments[0]["type"], &attachments[0]["status"]),
        (&json!("managed_draining"), &json!("ACTIVE"))
    );
    assert_eq!(attachments[0]["details"], json!([{"name": "capacityProviderName", "value": "metal"}]));
    let mut seen = |include: Value| {
        let request = json!({"clusters": ["shop"], "include": include});
        world.read(cluster::describe_clusters, request).unwrap()["clusters"][0]["attachments"].clone()
    };
    assert_eq!((seen(json!([])), seen(json!(["ATTACHMENTS"]))), (json!([]), with_it["attachments"].clone()));
    let kept = delete(world, "metal").unwrap();
    assert_eq!((&kept["status"], &kept["updateStatus"]), (&json!("ACTIVE"), &json!("DELETE_FAILED")));
    assert!(kept["updateStatusReason"].as_str().unwrap().contains("associated with cluster: shop"));
    put(world, "shop", json!([]), json!([])).unwrap();
    assert_eq!(delete(world, "metal").unwrap()["status"], "INACTIVE");
    assert_eq!(described(world, json!({"capacityProviders": ["metal"]}))[0]["status"], "INACTIVE");
    fails(put(world, "shop", json!(["metal"]), json!([])), INVALID, NOT_FOUND);
    assert_eq!(create(world, "metal", json!({})).unwrap()["status"], "ACTIVE");
    delete(world, "metal").unwrap();
    world.now = world.now + Duration::from_secs(3600);
    create(world, "other", json!({})).unwrap();
    assert_eq!(described(world, json!({"capacityProviders": ["metal"]})), [Value::Null; 0]);
}

#[test]
fn a_group_that_is_scaled_follows_one_cluster() {
    let world = &mut World::new();
    world.create("shop");
    world.create("yard");
    create(world, "metal", json!({"managedScaling": {"status": "ENABLED"}})).unwrap();
    put(world, "shop", json!(["metal"]), json!([])).unwrap();
    put(world, "shop", json!(["metal"]), json!([])).unwrap();
    assert_eq!(put(world, "yard", json!(["metal"]), json!([])).unwrap_err().code, INVALID);
    create(world, "plain", json!({})).unwrap();
    put(world, "shop", json!(["plain"]), json!([])).unwrap();
    put(world, "yard", json!(["plain"]), json!([])).unwrap();
    let scale =
        json!({"name": "plain", "autoScalingGroupProvider": {"managedScaling": {"status": "ENABLED"}}});
    assert_eq!(world.write(capacity_provider::update_capacity_provider, scale).unwrap_err().code, INVALID);
}

#[test]
fn providers_are_described_by_name_arn_and_cluster() {
    let world = &mut World::new();
    world.create("shop");
    create(world, "metal", json!({})).unwrap();
    put(world, "shop", json!(["metal", "FARGATE"]), json!([])).unwrap();
    let names = |providers: Vec<Value>| -> Vec<String> {
        providers.iter().map(|provider| provider["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(described(world, json!({}))), ["FARGATE", "FARGATE_SPOT", "metal"]);
    assert_eq!(names(described(world, json!({"cluster": "shop"}))), ["FARGATE", "metal"]);
    let arn =
        |account: &str, name: &str| format!("arn:aws:ecs:eu-north-1:{account}:capacity-provider/{name}");
    let asked = json!({"capacityProviders": [arn("123456789012", "metal"), "FARGATE_SPOT", "asg"]});
    let reply = world.read(capacity_provider::describe_capacity_providers, asked).unwrap();
    assert_eq!(reply["capacityProviders"][0]["type"], "FARGATE_SPOT");
    assert_eq!(reply["capacityProviders"][1]["name"], "metal");
    assert_eq!(reply["failures"][0]["reason"], "MISSING");
    let foreign = json!({"capacityProviders": [arn("111122223333", "FARGATE")]});
    fails(
        world.read(capacity_provider::describe_capacity_providers, foreign),
        INVALID,
        "Identifier is for 111122223333. Your accountId is 123456789012",
    );
}

#[test]
fn providers_can_be_tagged_but_for_those_of_every_account() {
    let world = &mut World::new();
    let made = create(world, "metal", json!({})).unwrap();
    let arn = made["capacityProviderArn"].as_str().unwrap().to_owned();
    let tags = json!([{"key": "team", "value": "shop"}]);
    world.write(tag::tag_resource, json!({"resourceArn": arn, "tags": tags})).unwrap();
    assert_eq!(described(world, json!({"capacityProviders": ["metal"]}))[0]["tags"], json!([]));
    let with = described(world, json!({"capacityProviders": ["metal"], "include": ["TAGS"]}));
    assert_eq!(with[0]["tags"], tags);
    world.write(tag::untag_resource, json!({"resourceArn": arn, "tagKeys": ["team"]})).unwrap();
    let fargate = arn.replace("metal", "FARGATE");
    let refused = world.write(tag::tag_resource, json!({"resourceArn": fargate, "tags": tags}));
    assert_eq!(refused.unwrap_err().code, INVALID);
}

#[test]
fn strategies_follow_the_rules() {
    let world = &mut World::new();
    world.create("shop");
    create(world, "metal", json!({})).unwrap();
    let both = || json!(["FARGATE", "FARGATE_SPOT"]);
    let strategy = json!([item("FARGATE", 1, 2), item("FARGATE_SPOT", 4, 0)]);
    let reply = put(world, "shop", both(), strategy.clone()).unwrap();
    assert_eq!(reply["cluster"]["capacityProviders"], both());
    assert_eq!(reply["cluster"]["defaultCapacityProviderStrategy"], strategy);
    for (providers, strategy, message) in [
        (json!(["asg"]), json!([]), NOT_FOUND),
        (
            json!(["FARGATE"]),
            json!([item("FARGATE_SPOT", 1, 0)]),
            "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the \
             cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try \
             again.",
        ),
        (
            json!(["FARGATE", "metal"]),
            json!([item("FARGATE", 1, 0), item("metal", 1, 0)]),
            "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and \
             Fargate providers. Specify one or the other and try again.",
        ),
        (
            both(),
            json!([item("FARGATE", 0, 0), item("FARGATE_SPOT", 0, 0)]),
            "At least one capacity provider of a strategy needs a weight above 0.",
        ),
        (
            both(),
            json!([item("FARGATE", 1, 1), item("FARGATE_SPOT", 1, 1)]),
            "Only one capacity provider of a strategy can have a base.",
        ),
        (
            both(),
            json!([item("FARGATE", 1, 0), item("FARGATE", 1, 0)]),
            "The capacity provider FARGATE is in the strategy twice.",
        ),
        (
            both(),
            json!([item("FARGATE", 1001, 0)]),
            "A weight is between 0 and 1000, a base between 0 and 100000.",
        ),
    ] {
        fails(put(world, "shop", providers, strategy), INVALID, message);
    }
    world.register("app");
    let mixed = json!({
        "cluster": "shop", "taskDefinition": "app", "launchType": "EC2",
        "capacityProviderStrategy": [item("FARGATE", 1, 0)],
    });
    fails(
        world.write(task::run_task, mixed),
        INVALID,
        "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
    );
}
