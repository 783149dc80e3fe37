//! Rules: conditions, actions, order.

use super::{VALIDATION, forward, network_balancer, text, website};
use crate::routing::compile;
use crate::services::ecs::tests::world::{World, fails};
use crate::services::elbv2::ops::rule;
use crate::state::State;
use gantry_decide::routing::config::Action;
use serde_json::{Value, json};

fn path(pattern: &str) -> Value {
    json!([{ "Field": "path-pattern", "Values": [pattern] }])
}

fn create(world: &mut World, listener: &str, priority: i32, conditions: Value, actions: Value) -> Value {
    let request = json!({ "ListenerArn": listener, "Priority": priority, "Conditions": conditions, "Actions": actions });
    world.write(rule::create_rule, request).unwrap()["Rules"][0].take()
}

#[test]
fn rules_are_tried_in_order_and_the_default_one_last() {
    let mut world = World::new();
    let (_, listener, group) = website(&mut world);
    let late = create(&mut world, &listener, 20, path("/late/*"), forward(&group));
    let early = create(&mut world, &listener, 3, path("/early/*"), forward(&group));
    let shown = world.read(rule::describe_rules, json!({ "ListenerArn": listener })).unwrap();
    let priorities: Vec<String> =
        shown["Rules"].as_array().unwrap().iter().map(|r| text(&r["Priority"])).collect();
    assert_eq!(priorities, ["3", "20", "default"]);
    let default = shown["Rules"][2].clone();
    assert_eq!((&default["IsDefault"], &default["Conditions"]), (&json!(true), &json!([])));

    let taken = json!({
        "ListenerArn": listener, "Priority": 20, "Conditions": path("/x"), "Actions": forward(&group),
    });
    fails(world.write(rule::create_rule, taken), "PriorityInUse", "Priority '20' is currently in use");
    let pair = |rule: &Value, priority: i32| json!({ "RuleArn": rule["RuleArn"], "Priority": priority });
    let one = json!({ "RulePriorities": [pair(&late, 3)] });
    fails(world.write(rule::set_rule_priorities, one), "PriorityInUse", "Priority '3' is currently in use");
    let swap = json!({ "RulePriorities": [pair(&late, 3), pair(&early, 20)] });
    world.write(rule::set_rule_priorities, swap).unwrap();
    let shown = world.read(rule::describe_rules, json!({ "RuleArns": [early["RuleArn"]] })).unwrap();
    assert_eq!(shown["Rules"][0]["Priority"], "20");
    world.restart();

    let arn = text(&default["RuleArn"]);
    let message = format!("Default rule '{arn}' cannot be deleted");
    fails(world.write(rule::delete_rule, json!({ "RuleArn": arn })), "OperationNotPermitted", &message);
    world.write(rule::delete_rule, json!({ "RuleArn": early["RuleArn"] })).unwrap();
    let gone = world.write(rule::delete_rule, json!({ "RuleArn": early["RuleArn"] }));
    fails(gone, "RuleNotFound", "One or more rules not found");
}

#[test]
fn stickiness_keeps_its_duration_while_it_is_off() {
    let mut world = World::new();
    let (_, listener, group) = website(&mut world);
    let actions = |enabled: bool, seconds: i32| {
        json!([{ "Type": "forward", "ForwardConfig": {
            "TargetGroups": [{ "TargetGroupArn": group, "Weight": 1 }],
            "TargetGroupStickinessConfig": { "Enabled": enabled, "DurationSeconds": seconds },
        } }])
    };
    let asked = actions(false, 600);
    create(&mut world, &listener, 1, path("/x"), asked.clone());
    world.restart();
    let shown = world.read(rule::describe_rules, json!({ "ListenerArn": listener })).unwrap();
    assert_eq!(shown["Rules"][0]["Actions"][0]["ForwardConfig"], asked[0]["ForwardConfig"]);
    let mut state = State::default();
    state.replace(&world.scope, world.state.clone());
    let config = compile(&state, 1);
    let told = &config.load_balancers[0].listeners[0].rules[0].action;
    assert!(matches!(told, Action::Forward(forward) if forward.stickiness.is_none()), "{told:?}");
    for enabled in [true, false] {
        let request = json!({
            "ListenerArn": listener, "Priority": 2, "Conditions": path("/y"), "Actions": actions(enabled, 0),
        });
        assert_eq!(world.write(rule::create_rule, request).unwrap_err().code, VALIDATION);
    }
}

#[test]
fn what_was_asked_for_is_shown() {
    let mut world = World::new();
    let (_, listener, group) = website(&mut world);
    let conditions = json!([
        { "Field": "host-header", "HostHeaderConfig": { "Values": ["*.example.com"] } },
        { "Field": "http-header", "HttpHeaderConfig": { "HttpHeaderName": "X-Team", "Values": ["blue"] } },
        { "Field": "http-request-method", "HttpRequestMethodConfig": { "Values": ["GET"] } },
        { "Field": "query-string", "QueryStringConfig": { "Values": [{ "Key": "v", "Value": "2" }] } },
        { "Field": "source-ip", "SourceIpConfig": { "Values": ["10.0.0.0/8"] } },
    ]);
    let actions = json!([{ "Type": "forward", "ForwardConfig": {
        "TargetGroups": [{ "TargetGroupArn": group, "Weight": 10 }],
        "TargetGroupStickinessConfig": { "Enabled": true, "DurationSeconds": 60 },
    } }]);
    let made = create(&mut world, &listener, 1, conditions.clone(), actions.clone());
    assert_eq!(made["Conditions"][0]["Values"], json!(["*.example.com"]), "in the old place too");
    for (shown, asked) in made["Conditions"].as_array().unwrap().iter().zip(conditions.as_array().unwrap()) {
        for (name, value) in asked.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}");
        }
    }
    assert_eq!(made["Actions"][0]["ForwardConfig"], actions[0]["ForwardConfig"]);
    assert_eq!(made["Actions"][0]["TargetGroupArn"], group.as_str());

    let redirect =
        json!([{ "Type": "redirect", "RedirectConfig": { "StatusCode": "HTTP_301", "Protocol": "HTTPS" } }]);
    let request = json!({ "RuleArn": made["RuleArn"], "Actions": redirect, "Transforms": [
        { "Type": "url-rewrite", "UrlRewriteConfig": { "Rewrites": [{ "Regex": "^/api/(.*)$", "Replace": "/$1" }] } },
    ] });
    let changed = world.write(rule::modify_rule, request).unwrap()["Rules"][0].take();
    assert_eq!(changed["Conditions"], made["Conditions"], "what is not named stays");
    let shown = &changed["Actions"][0]["RedirectConfig"];
    assert_eq!((&shown["Port"], &shown["Path"]), (&json!("#{port}"), &json!("/#{path}")));
    assert_eq!(changed["Transforms"][0]["UrlRewriteConfig"]["Rewrites"][0]["Replace"], "/$1");
    let reset = json!({ "RuleArn": made["RuleArn"], "ResetTransforms": true });
    assert_eq!(world.write(rule::modify_rule, reset).unwrap()["Rules"][0]["Transforms"], json!([]));
}

#[test]
fn conditions_that_make_no_sense_are_refused() {
    let mut world = World::new();
    let (_, listener, group) = website(&mut world);
    let of = |field: &str, values: &[&str]| json!({ "Field": field, "Values": values });
    let method = |method: &str| json!({ "Field": "http-request-method", "HttpRequestMethodConfig": { "Values": [method] } });
    let header = |name: &str| json!({ "Field": "http-header", "HttpHeaderConfig": { "HttpHeaderName": name, "Values": ["x"] } });
    for conditions in [
        json!([]),
        json!([{ "Values": ["/x"] }]),
        json!([of("colour", &["red"])]),
        json!([of("path-pattern", &[])]),
        json!([of("path-pattern", &["/a"]), of("path-pattern", &["/b"])]),
        json!([of("path-pattern", &["/1", "/2", "/3", "/4", "/5", "/6"])]),
        json!([of("path-pattern", &["/*/*/*/*/*/*"])]),
        json!([of("path-pattern", &[&"/x".repeat(65)])]),
        json!([of("path-pattern", &["/\u{e9}"])]),
        json!([of("host-header", &["example"])]),
        json!([of("host-header", &["example.c0m"])]),
        json!([header("host")]),
        json!([header("a b")]),
        json!([method("get")]),
        json!([{ "Field": "source-ip", "SourceIpConfig": { "Values": ["10.0.0.1"] } }]),
        json!([{ "Field": "query-string", "QueryStringConfig": { "Values": [{ "Key": "v" }] } }]),
        json!([{ "Field": "path-pattern", "RegexValues": ["("] }]),
    ] {
        let request = json!({
            "ListenerArn": listener, "Priority": 1, "Conditions": conditions, "Actions": forward(&group),
        });
        let error = world.write(rule::create_rule, request).unwrap_err();
        assert_eq!(error.code, VALIDATION, "{conditions}: {error}");
    }
    let net = network_balancer(&mut world, "net");
    let tcp = super::group(&mut world, "tcp", json!({ "Protocol": "TCP" }));
    let listener = super::listener(&mut world, &net, 80, &tcp);
    let request =
        json!({ "ListenerArn": listener, "Priority": 1, "Conditions": path("/"), "Actions": forward(&tcp) });
    assert_eq!(world.write(rule::create_rule, request).unwrap_err().code, "UnsupportedProtocol");
}
