//! Scripts: calls in, replies and table changes out. The provider of machines is played here.
#![allow(clippy::unwrap_used)]

use super::SERVICE;
use super::links;
use super::ops::{activity, group, hook, instance, launch_configuration, process, tag};
use crate::controllers::autoscaling::AutoScaling;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::settle;
use crate::machines::{Report, Want};
use crate::services::ec2::ops::launch_template as ec2;
use crate::services::ecs::tests::world::{World, fails, registration};
use gantry_decide::ids::Ec2InstanceId;
use serde_json::{Value, json};
use std::time::Duration;

const INVALID: &str = "ValidationError";

#[test]
fn every_operation_of_the_model_is_served_or_told_as_later() {
    let mut named: Vec<&str> = SERVICE.model.operations.iter().map(|operation| operation.name).collect();
    named.sort_unstable();
    let mut known: Vec<&str> = SERVICE.operations.iter().map(|operation| operation.name).collect();
    known.extend(SERVICE.later);
    known.sort_unstable();
    assert_eq!(known, named);
}

fn with_template() -> World {
    let mut world = World::new();
    let data = json!({ "ImageId": "ami-1", "InstanceType": "t3.micro", "UserData": "c2VjcmV0" });
    let request = json!({ "LaunchTemplateName": "web-1", "LaunchTemplateData": data });
    world.write(ec2::create_launch_template, request).unwrap();
    world
}

fn asked(name: &str, min: i32, max: i32, desired: i32) -> Value {
    json!({
        "AutoScalingGroupName": name, "MinSize": min, "MaxSize": max, "DesiredCapacity": desired,
        "LaunchTemplate": { "LaunchTemplateName": "web-1", "Version": "$Latest" },
        "VPCZoneIdentifier": "subnet-1,subnet-2",
        "Tags": [
            { "Key": "team", "Value": "blue", "PropagateAtLaunch": true },
            { "Key": "own", "Value": "x", "PropagateAtLaunch": false },
        ],
    })
}

fn made(world: &mut World, desired: i32) {
    world.write(group::create_auto_scaling_group, asked("web", 0, 5, desired)).unwrap();
    settle::<AutoScaling>(world);
}

fn wants(world: &World) -> Vec<(Ec2InstanceId, Want)> {
    links::machines(&world.state.autoscaling).collect()
}

fn report(world: &mut World, id: Ec2InstanceId, report: Report) {
    world.edit(|tx| links::report(tx, id, report));
    settle::<AutoScaling>(world);
}

/// Does what is wanted of every machine.
fn serve(world: &mut World) {
    for (id, want) in wants(world) {
        match want {
            Want::Create(_) => report(world, id, Report::Running { address: None }),
            Want::Destroy => report(world, id, Report::Gone),
            Want::Keep => {}
        }
    }
    world.state.check_invariants();
}

fn shown(world: &mut World) -> Value {
    let reply = world.read(group::describe_auto_scaling_groups, json!({ "AutoScalingGroupNames": ["web"] }));
    reply.unwrap()["AutoScalingGroups"].get(0).cloned().unwrap_or_default()
}

fn states(world: &mut World) -> Vec<String> {
    let group = shown(world);
    let states = group["Instances"].as_array().unwrap().iter();
    let mut states: Vec<String> =
        states.map(|instance| instance["LifecycleState"].as_str().unwrap().to_owned()).collect();
    states.sort();
    states
}

fn activities(world: &mut World) -> Vec<Value> {
    let reply = world.read(activity::describe_scaling_activities, json!({ "AutoScalingGroupName": "web" }));
    reply.unwrap()["Activities"].as_array().unwrap().clone()
}

fn first(world: &World) -> Ec2InstanceId {
    wants(world)[0].0
}

#[test]
fn a_group_gets_its_instances_and_tells_so() {
    let world = &mut with_template();
    made(world, 2);
    assert_eq!(states(world), ["Pending", "Pending"]);
    let wanted = wants(world);
    let Want::Create(spec) = &wanted[0].1 else { panic!("it is to be made") };
    assert_eq!((spec.instance_type.as_str(), spec.user_data()), ("t3.micro", Some("c2VjcmV0")));
    assert_eq!(spec.tags["team"], "blue");
    assert!(!spec.tags.contains_key("own") && spec.tags["aws:autoscaling:groupName"] == "web");
    serve(world);
    assert_eq!(states(world), ["InService", "InService"]);
    let group = shown(world);
    let zones: std::collections::BTreeSet<_> =
        group["Instances"].as_array().unwrap().iter().map(|i| i["AvailabilityZone"].to_string()).collect();
    assert_eq!(zones.len(), 2);
    assert!(group["AutoScalingGroupARN"].as_str().unwrap().ends_with(":autoScalingGroupName/web"));
    let story = activities(world);
    assert_eq!(story[0]["StatusCode"], "Successful");
    let cause = story[0]["Cause"].as_str().unwrap();
    assert!(cause.contains("increasing the capacity from 1 to 2."), "{cause}");
    assert!(cause.contains("changing the desired capacity from 0 to 2."), "{cause}");
    world.restart();
    assert_eq!(states(world), ["InService", "InService"]);
    let kept = world.rows().values().any(|row| String::from_utf8_lossy(row).contains("c2VjcmV0"));
    assert!(kept, "the template has its user data");
    let instances = world.rows().iter().filter(|(key, _)| key.contains("autoscaling/instance"));
    assert!(instances.into_iter().all(|(_, row)| !String::from_utf8_lossy(row).contains("c2VjcmV0")));
}

#[test]
fn a_smaller_wish_ends_instances_and_what_ran_there() {
    let world = &mut with_template();
    world.create("web");
    let definition = world.register("app");
    made(world, 1);
    serve(world);
    let id = first(world);
    let mut joining = registration("web");
    joining["instanceIdentityDocument"] = json!(json!({ "instanceId": id.to_string() }).to_string());
    let joined = world
        .write(crate::services::ecs::ops::container_instance::register_container_instance, joining)
        .unwrap();
    let arn = joined["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
    let name = format!("{}:{}", definition["family"].as_str().unwrap(), definition["revision"]);
    let task = world.run(&name, &arn);
    let wish = json!({ "AutoScalingGroupName": "web", "DesiredCapacity": 0 });
    world.write(group::set_desired_capacity, wish).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Terminating:Proceed"]);
    serve(world);
    settle::<Tasks>(world);
    assert_eq!(states(world), [""; 0]);
    let task = world.state.ecs.task(&task).unwrap();
    assert_eq!(task.stopped_reason, Some(format!("Host EC2 (instance {id}) terminated.")));
    let cause = activities(world)[0]["Cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("shrinking the capacity from 1 to 0."), "{cause}");
    assert!(cause.contains(&format!("instance {id} was selected for termination.")), "{cause}");
}

#[test]
fn failed_launches_are_told_and_tried_again_later() {
    let world = &mut with_template();
    made(world, 1);
    let failing = first(world);
    report(world, failing, Report::Failed("There is no provider.".to_owned()));
    assert_eq!(wants(world), []);
    let story = activities(world);
    assert_eq!(
        (&story[0]["StatusCode"], &story[0]["StatusMessage"]),
        (&json!("Failed"), &json!("There is no provider."))
    );
    world.now = world.now + Duration::from_secs(5);
    settle::<AutoScaling>(world);
    serve(world);
    assert_eq!(states(world), ["InService"]);
    assert_eq!(world.state.autoscaling.groups.values().next().unwrap().failures, 0);
}

#[test]
fn launches_that_fail_together_are_tried_again_as_soon_as_one() {
    let world = &mut with_template();
    made(world, 5);
    for (id, _) in wants(world) {
        report(world, id, Report::Failed("There is no provider.".to_owned()));
        world.now = world.now + Duration::from_millis(10);
    }
    assert_eq!(wants(world), []);
    world.now = world.now + Duration::from_secs(5);
    settle::<AutoScaling>(world);
    assert_eq!(wants(world).len(), 5);
}

#[test]
fn a_machine_that_vanished_and_one_called_unhealthy_are_replaced() {
    let world = &mut with_template();
    made(world, 2);
    serve(world);
    let ids: Vec<_> = wants(world).into_iter().map(|(id, _)| id).collect();
    report(world, ids[0], Report::Lost("it is gone".to_owned()));
    let sick = json!({ "InstanceId": ids[1].to_string(), "HealthStatus": "Unhealthy" });
    world.write(instance::set_instance_health, sick).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Pending", "Pending", "Terminating:Proceed", "Terminating:Proceed"]);
    serve(world);
    serve(world);
    assert_eq!(states(world), ["InService", "InService"]);
    assert!(wants(world).iter().all(|(id, _)| !ids.contains(id)));
}

#[test]
fn hooks_hold_instances_until_they_are_answered() {
    let world = &mut with_template();
    let mut request = asked("web", 0, 5, 1);
    request["LifecycleHookSpecificationList"] = json!([
        { "LifecycleHookName": "up", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING" },
        { "LifecycleHookName": "down", "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "HeartbeatTimeout": 60 },
    ]);
    world.write(group::create_auto_scaling_group, request).unwrap();
    settle::<AutoScaling>(world);
    serve(world);
    assert_eq!(states(world), ["Pending:Wait"]);
    let id = first(world).to_string();
    let answer = |hook: &str, result: &str| {
        json!({
            "AutoScalingGroupName": "web", "LifecycleHookName": hook, "InstanceId": id, "LifecycleActionResult": result,
        })
    };
    let wrong = world.write(hook::complete_lifecycle_action, answer("down", "CONTINUE"));
    fails(wrong, INVALID, &format!("No active Lifecycle Action found with instance ID {id}"));
    world.write(hook::complete_lifecycle_action, answer("up", "CONTINUE")).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["InService"]);
    let end = json!({ "InstanceId": id, "ShouldDecrementDesiredCapacity": true });
    let ended = world.write(instance::terminate_instance_in_auto_scaling_group, end).unwrap();
    assert!(ended["Activity"]["Cause"].as_str().unwrap().ends_with("shrinking the capacity from 1 to 0."));
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Terminating:Wait"]);
    world.now = world.now + Duration::from_secs(50);
    let beat = json!({ "AutoScalingGroupName": "web", "LifecycleHookName": "down", "InstanceId": id });
    world.write(hook::record_lifecycle_action_heartbeat, beat).unwrap();
    world.now = world.now + Duration::from_secs(50);
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Terminating:Wait"]);
    world.now = world.now + Duration::from_secs(11);
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Terminating:Proceed"]);
}

#[test]
fn an_abandoned_launch_is_undone_and_begun_anew() {
    let world = &mut with_template();
    made(world, 0);
    let put = json!({
        "AutoScalingGroupName": "web", "LifecycleHookName": "up",
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
    });
    world.write(hook::put_lifecycle_hook, put).unwrap();
    let wish = json!({ "AutoScalingGroupName": "web", "DesiredCapacity": 1 });
    world.write(group::set_desired_capacity, wish).unwrap();
    settle::<AutoScaling>(world);
    serve(world);
    let id = first(world);
    let delete = json!({ "AutoScalingGroupName": "web", "LifecycleHookName": "up" });
    world.write(hook::delete_lifecycle_hook, delete).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["Pending", "Terminating:Proceed"]);
    serve(world);
    assert_eq!(states(world), ["InService"]);
    assert_ne!(first(world), id);
}

#[test]
fn protected_instances_and_suspended_processes_hold_a_group_still() {
    let world = &mut with_template();
    made(world, 2);
    serve(world);
    let ids: Vec<String> = wants(world).into_iter().map(|(id, _)| id.to_string()).collect();
    let protect = json!({ "AutoScalingGroupName": "web", "InstanceIds": ids, "ProtectedFromScaleIn": true });
    world.write(instance::set_instance_protection, protect).unwrap();
    let update = json!({ "AutoScalingGroupName": "web", "DesiredCapacity": 0 });
    world.write(group::update_auto_scaling_group, update).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["InService", "InService"]);
    let processes = json!({ "AutoScalingGroupName": "web", "ScalingProcesses": ["Terminate"] });
    world.write(process::suspend_processes, processes.clone()).unwrap();
    let bare =
        json!({ "AutoScalingGroupName": "web", "InstanceIds": [ids[0]], "ProtectedFromScaleIn": false });
    world.write(instance::set_instance_protection, bare).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["InService", "InService"]);
    world.write(process::resume_processes, processes).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(states(world), ["InService", "Terminating:Proceed"]);
}

#[test]
fn a_group_goes_with_all_that_it_has_when_forced_to() {
    let world = &mut with_template();
    made(world, 1);
    serve(world);
    let refused = world.write(group::delete_auto_scaling_group, json!({ "AutoScalingGroupName": "web" }));
    assert_eq!(refused.unwrap_err().code, "ResourceInUse");
    let force = json!({ "AutoScalingGroupName": "web", "ForceDelete": true });
    world.write(group::delete_auto_scaling_group, force).unwrap();
    settle::<AutoScaling>(world);
    assert_eq!(shown(world)["Status"], "Delete in progress");
    let update = json!({ "AutoScalingGroupName": "web", "MinSize": 1 });
    assert_eq!(
        world.write(group::update_auto_scaling_group, update).unwrap_err().code,
        "ScalingActivityInProgress"
    );
    serve(world);
    assert_eq!(shown(world), Value::Null);
    assert!(world.state.autoscaling.activities.is_empty() && world.state.autoscaling.instances.is_empty());
}

#[test]
fn bad_groups_are_refused_in_awss_words() {
    let world = &mut with_template();
    let mut refused = |change: Value, message: &str| {
        let mut request = asked("web", 1, 3, 2);
        for (member, value) in change.as_object().unwrap() {
            request[member] = value.clone();
        }
        let error = world.write(group::create_auto_scaling_group, request).unwrap_err();
        assert_eq!(error.code, INVALID);
        assert!(error.message.contains(message), "{} has no {message}", error.message);
    };
    refused(json!({ "MinSize": 4 }), "Max bound, 3, must be greater than or equal to min bound, 4");
    refused(
        json!({ "DesiredCapacity": 5 }),
        "Desired capacity:5 must be between the specified min size:1 and max size:3",
    );
    refused(
        json!({ "LaunchTemplate": { "LaunchTemplateName": "none" } }),
        "The specified launch template, with template name none, does not exist.",
    );
    refused(json!({ "LaunchConfigurationName": "old" }), "must contain either");
    refused(json!({ "VPCZoneIdentifier": "subnet-0123456789abcdef0" }), "does not exist");
    refused(json!({ "TerminationPolicies": ["Youngest"] }), "Unsupported termination policy: Youngest");
    refused(json!({ "TargetGroupARNs": ["arn:aws:x"] }), "Gantry does not support target groups");
    world.write(group::create_auto_scaling_group, asked("web", 1, 3, 2)).unwrap();
    let again = world.write(group::create_auto_scaling_group, asked("web", 1, 3, 2)).unwrap_err();
    assert_eq!(again.code, "AlreadyExists");
    let high = world
        .write(group::set_desired_capacity, json!({ "AutoScalingGroupName": "web", "DesiredCapacity": 9 }));
    fails(high, INVALID, "New SetDesiredCapacity value 9 is above max value 3 for the AutoScalingGroup.");
    let unknown = world.write(group::delete_auto_scaling_group, json!({ "AutoScalingGroupName": "no" }));
    fails(unknown, INVALID, "AutoScalingGroup name not found - AutoScalingGroup 'no' not found");
}

#[test]
fn tags_are_put_found_and_taken_away() {
    let world = &mut with_template();
    made(world, 0);
    let tag = |value: &str| json!({ "Tags": [{ "ResourceId": "web", "ResourceType": "auto-scaling-group", "Key": "team", "Value": value, "PropagateAtLaunch": true }] });
    world.write(tag::create_or_update_tags, tag("red")).unwrap();
    let filter = json!({ "Filters": [{ "Name": "key", "Values": ["team"] }] });
    let found = world.read(tag::describe_tags, filter.clone()).unwrap();
    assert_eq!((&found["Tags"][0]["Value"], &found["Tags"][0]["ResourceId"]), (&json!("red"), &json!("web")));
    world.write(tag::delete_tags, tag("blue")).unwrap();
    assert_eq!(world.read(tag::describe_tags, filter.clone()).unwrap()["Tags"].as_array().unwrap().len(), 1);
    world.write(tag::delete_tags, tag("red")).unwrap();
    assert_eq!(world.read(tag::describe_tags, filter).unwrap()["Tags"], json!([]));
}

#[test]
fn launch_configurations_make_instances_too() {
    let world = &mut World::new();
    let configuration = json!({
        "LaunchConfigurationName": "old", "ImageId": "ami-1", "InstanceType": "m5.large", "SecurityGroups": ["sg-1"],
    });
    world.write(launch_configuration::create_launch_configuration, configuration).unwrap();
    let request = json!({
        "AutoScalingGroupName": "web", "MinSize": 1, "MaxSize": 1, "LaunchConfigurationName": "old",
        "AvailabilityZones": ["eu-north-1a"],
    });
    world.write(group::create_auto_scaling_group, request).unwrap();
    settle::<AutoScaling>(world);
    serve(world);
    let instance = &shown(world)["Instances"][0];
    assert_eq!(
        (&instance["LaunchConfigurationName"], &instance["InstanceType"]),
        (&json!("old"), &json!("m5.large"))
    );
    let described = world.read(launch_configuration::describe_launch_configurations, json!({})).unwrap();
    assert_eq!(described["LaunchConfigurations"][0]["SecurityGroups"], json!(["sg-1"]));
    let delete = json!({ "LaunchConfigurationName": "old" });
    let used = world.write(launch_configuration::delete_launch_configuration, delete).unwrap_err();
    assert_eq!(used.code, "ResourceInUse");
}
