//! Scripts on deployments that shift traffic between two target groups, and on load balancers that change.

use super::balanced::{balanced, rest, run, tell, world};
use super::world::{INVALID, World, fails};
use crate::controllers::testing::settle;
use crate::controllers::traffic::TrafficRules;
use crate::services::ecs::ops::{service, service_deployment, task_definition, task_set};
use crate::services::elbv2::ops::rule;
use crate::services::elbv2::tests::{balancer, group, listener};
use gantry_decide::routing::HealthState;
use serde_json::{Value, json};

/// What the scripts are about: two groups, a listener for production and one for tests, all of one load balancer.
struct Site {
    world: World,
    blue: String,
    green: String,
    production: String,
    test: String,
}

fn rule_of(world: &mut World, listener: &str) -> Value {
    let reply = world.read(rule::describe_rules, json!({ "ListenerArn": listener })).unwrap();
    reply["Rules"][0].clone()
}

impl Site {
    fn new() -> Site {
        let (mut world, _) = world();
        let balancer = balancer(&mut world, "site");
        let instances = json!({ "TargetType": "instance" });
        let blue = group(&mut world, "blue", instances.clone());
        let green = group(&mut world, "green", instances);
        let production = listener(&mut world, &balancer, 80, &blue);
        let test = listener(&mut world, &balancer, 8080, &blue);
        Site { world, blue, green, production, test }
    }

    fn advanced(&mut self) -> Value {
        let production = rule_of(&mut self.world, &self.production)["RuleArn"].clone();
        let test = rule_of(&mut self.world, &self.test)["RuleArn"].clone();
        json!({
            "alternateTargetGroupArn": self.green, "productionListenerRule": production, "testListenerRule": test,
            "roleArn": "arn:aws:iam::123456789012:role/ecs",
        })
    }

    /// The weights of a listener's default rule, of blue and of green.
    fn weights(&mut self, listener: &str) -> [u64; 2] {
        let rule = rule_of(&mut self.world, listener);
        let groups = rule["Actions"][0]["ForwardConfig"]["TargetGroups"].as_array().unwrap().clone();
        let of = |arn: &str| groups.iter().find(|group| group["TargetGroupArn"] == arn);
        [&self.blue, &self.green].map(|arn| of(arn).map_or(0, |group| group["Weight"].as_u64().unwrap()))
    }

    fn production(&mut self) -> [u64; 2] {
        let listener = self.production.clone();
        self.weights(&listener)
    }

    fn test(&mut self) -> [u64; 2] {
        let listener = self.test.clone();
        self.weights(&listener)
    }

    /// Targets in blue and in green that were not deregistered.
    fn targets(&self) -> [usize; 2] {
        let of = |arn: &String| {
            let targets = self.world.state.elbv2.targets.values();
            let named = |name: &str| arn.contains(&format!("targetgroup/{name}/"));
            targets.filter(|t| t.deregistered_at.is_none() && named(t.key.group.name.as_str())).count()
        };
        [&self.blue, &self.green].map(of)
    }

    /// Agents and balancers do their part, until nothing moves any more.
    fn goes_well(&mut self) {
        for _ in 0..8 {
            settle::<TrafficRules>(&mut self.world);
            run(&mut self.world);
            tell(&mut self.world, HealthState::Healthy, None);
        }
        settle::<TrafficRules>(&mut self.world);
    }

    fn status(&mut self) -> String {
        let attempts = self.world.attempts();
        attempts[0]["status"].as_str().unwrap().to_owned()
    }
}

fn shifting(stages: &[&str]) -> Value {
    let hook = json!({ "targetType": "PAUSE", "lifecycleStages": stages });
    let hooks = if stages.is_empty() { json!([]) } else { json!([hook]) };
    json!({ "strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0, "lifecycleHooks": hooks })
}

fn serving() -> Site {
    let mut site = Site::new();
    let advanced = site.advanced();
    let mut request = balanced(&site.blue, json!({ "deploymentConfiguration": shifting(&[]) }));
    request["loadBalancers"][0]["advancedConfiguration"] = advanced;
    site.world.create_service(request);
    site.goes_well();
    site
}

fn proceed(site: &mut Site, action: &str) {
    let attempt = site.world.attempts()[0].clone();
    let hook = attempt["lifecycleHookDetails"].as_array().unwrap().last().unwrap()["hookId"].clone();
    let request = json!({
        "serviceDeploymentArn": attempt["serviceDeploymentArn"], "hookId": hook, "action": action,
    });
    site.world.write(service_deployment::continue_service_deployment, request).unwrap();
    site.goes_well();
}

#[test]
fn two_groups_take_turns_and_the_rules_follow() {
    let site = &mut serving();
    assert_eq!(site.status(), "SUCCESSFUL");
    assert_eq!((site.production(), site.test(), site.targets()), ([100, 0], [100, 0], [1, 0]));
    let advanced = site.advanced();
    assert_eq!(site.world.service()["loadBalancers"][0]["advancedConfiguration"], advanced);

    let stages = ["POST_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT"];
    let change = json!({ "forceNewDeployment": true, "deploymentConfiguration": shifting(&stages) });
    site.world.update_service(change);
    site.goes_well();
    // Green is well and gets nothing yet.
    assert_eq!((site.production(), site.test(), site.targets()), ([100, 0], [100, 0], [1, 1]));
    proceed(site, "CONTINUE");
    assert_eq!((site.production(), site.test()), ([100, 0], [0, 100]));
    proceed(site, "CONTINUE");
    assert_eq!((site.production(), site.test()), ([0, 100], [0, 100]));
    proceed(site, "ROLLBACK");
    assert_eq!(site.status(), "ROLLBACK_SUCCESSFUL");
    assert_eq!((site.production(), site.test(), site.targets()), ([100, 0], [100, 0], [1, 0]));

    for turn in [[0, 1], [1, 0]] {
        let change = json!({ "forceNewDeployment": true, "deploymentConfiguration": shifting(&[]) });
        site.world.update_service(change);
        site.goes_well();
        assert_eq!((site.status().as_str(), site.targets()), ("SUCCESSFUL", turn));
        let whole = turn.map(|count| count as u64 * 100);
        assert_eq!((site.production(), site.test()), (whole, whole));
        let attempt = site.world.attempts()[0].clone();
        let arns = json!({ "serviceRevisionArns": [attempt["targetServiceRevision"]["arn"]] });
        let shown = site.world.read(service_deployment::describe_service_revisions, arns).unwrap();
        let resolved = &shown["serviceRevisions"][0]["resolvedConfiguration"]["loadBalancers"][0];
        let group = if turn == [1, 0] { &site.blue } else { &site.green };
        assert_eq!(resolved["targetGroupArn"], group.as_str());
        // A restart changes nothing of it.
        site.world.restart();
    }

    // Who changes the weights finds them set back.
    let rule = rule_of(&mut site.world, &site.production.clone())["RuleArn"].clone();
    let actions = json!([{ "Type": "forward", "TargetGroupArn": site.green }]);
    let listener = json!({ "ListenerArn": site.production, "DefaultActions": actions });
    site.world.write(crate::services::elbv2::ops::listener::modify_listener, listener).unwrap();
    settle::<TrafficRules>(&mut site.world);
    assert_eq!(site.production(), [100, 0], "{rule}");
}

#[test]
fn what_traffic_cannot_be_shifted_between_is_refused() {
    let mut site = Site::new();
    let advanced = site.advanced();
    let mut refused = |change: &dyn Fn(&mut Value), message: &str| {
        let mut request = balanced(&site.blue, json!({ "serviceName": "web" }));
        request["deploymentConfiguration"] = shifting(&[]);
        request["loadBalancers"][0]["advancedConfiguration"] = advanced.clone();
        change(&mut request["loadBalancers"][0]);
        fails(site.world.write(service::create_service, request), INVALID, message);
    };
    let without =
        |balanced: &mut Value| drop(balanced.as_object_mut().unwrap().remove("advancedConfiguration"));
    refused(
        &without,
        "advancedConfiguration field is required for all the loadBalancers when using a non-ROLLING deployment strategy.",
    );
    let blue = site.blue.clone();
    let set = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |balanced: &mut Value| balanced["advancedConfiguration"][name] = json!(value)
    };
    refused(&set("roleArn", ""), "advancedConfiguration.roleArn must be specified.");
    let message = "The alternate target group must be another than the target group.";
    refused(&set("alternateTargetGroupArn", &blue), message);
    refused(&set("productionListenerRule", "rule"), "The listener rule rule does not exist.");
    let production = advanced["productionListenerRule"].as_str().unwrap();
    let message = "The test listener rule must be another than the production listener rule.";
    refused(&set("testListenerRule", production), message);
}

#[test]
fn load_balancers_come_and_go_with_deployments() {
    let (mut world, web) = world();
    world.create_service(json!({ "taskDefinition": "site", "desiredCount": 1 }));
    run(&mut world);
    world.pass(super::service::LONG);
    let add = json!({ "loadBalancers": balanced(&web, json!({}))["loadBalancers"] });
    world.update_service(add.clone());
    let before = world.live()[0].id;
    for _ in 0..4 {
        run(&mut world);
        tell(&mut world, HealthState::Healthy, None);
    }
    let [target] = world.state.elbv2.targets.values().cloned().collect::<Vec<_>>().try_into().unwrap();
    assert!(target.task.is_some() && target.task != Some(before), "an old task was registered");
    assert_eq!(world.service()["deployments"].as_array().unwrap().len(), 1);
    let count = world.attempts().len();
    world.update_service(add);
    assert_eq!(world.attempts().len(), count, "the same again is no new deployment");

    // Another definition has to fit.
    let other = json!({ "family": "other", "containerDefinitions": [
        { "name": "another", "image": "site:1", "memory": 128, "versionConsistency": "disabled" }] });
    world.write(task_definition::register_task_definition, other).unwrap();
    let change = json!({ "service": "web", "taskDefinition": "other" });
    let message = "The container site does not exist in the task definition.";
    fails(world.write(service::update_service, change), INVALID, message);

    // Without them, the task that had them drains all the same.
    world.update_service(json!({ "loadBalancers": [] }));
    run(&mut world);
    world.pass(super::service::LONG);
    rest(&mut world);
    assert_eq!(world.service()["loadBalancers"], json!([]));
    assert!(world.state.elbv2.targets.values().all(|target| target.deregistered_at.is_some()));
    world.restart();
    tell(&mut world, HealthState::Healthy, None);
    rest(&mut world);
    assert!(world.state.elbv2.targets.is_empty());
    world.agent_acts(|_| super::service::Fate::Runs);
    rest(&mut world);
    assert_eq!(world.live().len(), 1);
    assert_eq!(world.service()["deployments"].as_array().unwrap().len(), 1);
}

#[test]
fn task_sets_have_target_groups_of_their_own() {
    let (mut world, web) = world();
    let external = json!({
        "serviceName": "web", "desiredCount": 1, "deploymentController": { "type": "EXTERNAL" },
    });
    world.write(service::create_service, external).unwrap();
    let balanced = balanced(&web, json!({}))["loadBalancers"].clone();
    let request = json!({
        "cluster": "default", "service": "web", "taskDefinition": "site", "loadBalancers": balanced,
        "scale": { "value": 100, "unit": "PERCENT" },
    });
    let made = world.write(task_set::create_task_set, request).unwrap();
    assert_eq!(made["taskSet"]["loadBalancers"], balanced);
    world.come_to_rest();
    run(&mut world);
    assert_eq!(world.state.elbv2.targets.len(), 1);
}
