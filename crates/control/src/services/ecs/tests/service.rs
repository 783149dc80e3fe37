//! Scripts on services: what users ask, what agents make of the tasks, what the controller does about it.

mod digests;

use super::world::{INVALID, World, fails};
use crate::controllers::services::Services;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::round;
use crate::services::ecs::ops::service_deployment::list_service_deployments;
use crate::services::ecs::ops::{
    cluster, container_instance, protection, service, submit, task, task_definition,
};
use crate::services::ecs::state::{ServiceKey, Task, TaskKey};
use crate::services::gantry::explain::service::explain;
use crate::tx::View;
use gantry_decide::ids::ClusterName;
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, LastStatus};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// More than a task has to run to count as healthy.
pub const LONG: Duration = Duration::from_secs(41);

/// What an agent does with a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Runs,
    FailsToStart,
    Exits,
}

impl World {
    pub fn with_capacity(memory: u32) -> World {
        let mut world = World::new();
        world.create("default");
        world.add_instance(memory);
        // Whose tags stay tags: no task waits for another's digests.
        let container = json!({
            "name": "app", "image": "app:1", "memory": 128, "cpu": 64, "versionConsistency": "disabled",
        });
        world.define(json!({"family": "app", "containerDefinitions": [container]}));
        world
    }

    /// Another connected instance of the cluster.
    pub fn add_instance(&mut self, memory: u32) {
        let attributes = [
            "com.amazonaws.ecs.capability.docker-remote-api.1.18",
            "com.amazonaws.ecs.capability.docker-remote-api.1.24",
            "ecs.capability.container-health-check",
        ];
        self.add_instance_with(memory, &attributes);
    }

    /// The same, with attributes of its agent's.
    pub fn add_instance_with(&mut self, memory: u32, attributes: &[&str]) {
        let mut request = super::world::registration("default");
        request["totalResources"][1]["integerValue"] = json!(memory);
        for name in attributes {
            request["attributes"].as_array_mut().unwrap().push(json!({"name": name}));
        }
        self.write(container_instance::register_container_instance, request).unwrap();
        let instances: Vec<_> =
            self.state.ecs.container_instances().iter().map(|(_, i)| i.as_ref().clone()).collect();
        for mut instance in instances {
            instance.agent_connected = true;
            self.state.ecs.put_container_instance(instance);
        }
    }

    pub fn define(&mut self, definition: Value) {
        self.write(task_definition::register_task_definition, definition).unwrap();
    }

    /// Controllers react to each other until nothing moves.
    pub fn come_to_rest(&mut self) {
        for _ in 0..100 {
            if !(round::<Tasks>(self) | round::<Services>(self)) {
                self.state.ecs.check_invariants();
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    pub fn service(&mut self) -> Value {
        let mut reply = self.read(service::describe_services, json!({"services": ["web"]})).unwrap();
        reply["services"][0].take()
    }

    pub fn live(&self) -> Vec<Task> {
        let key = ServiceKey { cluster: ClusterName::default_cluster(), name: "web".parse().unwrap() };
        self.state.ecs.tasks_of(&key).cloned().collect()
    }

    /// The agent takes what is new and ends what is to stop.
    pub fn agent_acts(&mut self, fate: impl Fn(&Task) -> Fate) {
        for before in self.live() {
            let arn = before.arn(&self.scope).to_string();
            let mut known = self.state.ecs.task(&TaskKey::from(&before)).unwrap().clone();
            known.sent = true;
            self.state.ecs.put_task(known);
            let statuses: &[&str] = match (before.wanted_of_agent(), before.last_status, fate(&before)) {
                (DesiredStatus::Stopped, ..) => &["STOPPED"],
                (_, LastStatus::Pending, Fate::Runs) => &["RUNNING"],
                (_, LastStatus::Pending, Fate::FailsToStart) => &["STOPPED"],
                (_, _, Fate::Exits) => &["RUNNING", "STOPPED"],
                _ => &[],
            };
            for status in statuses {
                let request = json!({"task": arn, "status": status, "reason": "", "containers": []});
                self.write(submit::submit_task_state_change, request).unwrap();
            }
        }
        self.come_to_rest();
    }

    pub fn create_service(&mut self, request: Value) {
        let mut all = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 3});
        all.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        self.write(service::create_service, all).unwrap();
        self.come_to_rest();
    }

    pub fn messages(&mut self) -> Vec<String> {
        let service = self.service();
        let events = service["events"].as_array().unwrap().iter().rev();
        events.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.come_to_rest();
    }
}

pub fn runs(_: &Task) -> Fate {
    Fate::Runs
}

#[test]
fn a_service_is_kept_at_its_count_and_says_so() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({}));
    assert_eq!(world.service()["pendingCount"], 3);
    let of = |world: &mut World, kind: &str| {
        let request = json!({"resourceManagementType": kind});
        world.read(service::list_services, request).unwrap()["serviceArns"].as_array().unwrap().len()
    };
    assert_eq!((of(&mut world, "ECS"), of(&mut world, "CUSTOMER")), (0, 1));
    world.agent_acts(runs);
    assert_eq!((world.service()["runningCount"].clone(), world.messages().len()), (json!(3), 1));
    world.pass(LONG);
    let messages = world.messages();
    assert!(messages[0].starts_with("(service web) has started 3 tasks: (task "), "{messages:?}");
    assert!(messages[1].ends_with("deployment completed."), "{messages:?}");
    assert_eq!(messages[2], "(service web) has reached a steady state.");
    assert_eq!(world.service()["deployments"][0]["rolloutState"], "COMPLETED");

    // One ends: another takes its place, at once.
    let victim = world.live()[0].id;
    world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
    world.agent_acts(runs);
    assert_eq!(world.service()["runningCount"], 3);
    assert!(world.live().iter().all(|task| task.id != victim));

    world.write(service::update_service, json!({"service": "web", "desiredCount": 1})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    assert_eq!(world.live().len(), 1);
    assert_eq!(world.service()["deployments"].as_array().unwrap().len(), 1, "scaling is no deployment");

    fails(
        world.write(service::delete_service, json!({"service": "web"})),
        INVALID,
        "The service cannot be stopped while it is scaled above 0.",
    );
    world.write(service::delete_service, json!({"service": "web", "force": true})).unwrap();
    world.come_to_rest();
    assert_eq!(world.service()["status"], "INACTIVE", "all that is left is on its way out");
    world.agent_acts(runs);
    assert!(world.live().is_empty());
    let reply =
        world.write(service::update_service, json!({"service": "web", "desiredCount": 1})).unwrap_err();
    assert_eq!(reply.code, "ServiceNotActiveException");
    // What it ran can still be seen, and to delete it once more is no error.
    let gone = world.write(service::delete_service, json!({"service": "web"})).unwrap()["service"].take();
    assert_eq!((&gone["status"], &gone["deployments"]), (&json!("INACTIVE"), &json!([])));
    assert!(gone["taskDefinition"].as_str().unwrap().ends_with("task-definition/app:1"), "{gone}");
    assert_eq!(gone["launchType"], "EC2");
    world.pass(Duration::from_secs(3600));
    let gone = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    assert_eq!(gone["failures"][0]["reason"], "MISSING");
}

#[test]
fn an_update_may_not_want_what_creation_may_not() {
    let mut world = World::with_capacity(7800);
    let container = json!({"name": "web", "image": "web:1", "versionConsistency": "disabled"});
    world.define(json!({
        "family": "task", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": [container],
    }));
    world.create_service(json!({
        "taskDefinition": "task", "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
    }));
    let mut refused = |change: Value, message: &str| {
        let mut request = json!({"service": "web"});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fails(world.write(service::update_service, request), INVALID, message);
    };
    let placed = |what| format!("Placement {what} are not supported with FARGATE launch type.");
    refused(json!({"placementConstraints": [{"type": "distinctInstance"}]}), &placed("constraints"));
    refused(json!({"placementStrategy": [{"type": "random"}]}), &placed("strategies"));
    let role = "The service couldn't be updated because a valid taskRoleArn is not being used. Specify a valid task role in \
                your task definition and try again.";
    refused(json!({"enableExecuteCommand": true}), role);
    world.update_service(
        json!({"placementConstraints": [], "placementStrategy": [], "enableExecuteCommand": false}),
    );
}

#[test]
fn an_update_that_moves_a_service_is_asked_what_creation_is() {
    let mut world = World::with_capacity(7800);
    world
        .write(
            cluster::put_cluster_capacity_providers,
            json!({
        "cluster": "default", "capacityProviders": ["FARGATE"], "defaultCapacityProviderStrategy": []}),
        )
        .unwrap();
    let container = json!({"name": "web", "image": "web:1", "versionConsistency": "disabled"});
    world.define(json!({
        "family": "task", "networkMode": "awsvpc", "requiresCompatibilities": ["EC2", "FARGATE"], "cpu": "256",
        "memory": "512", "containerDefinitions": [container],
    }));
    let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
    world.create_service(json!({
        "taskDefinition": "task", "networkConfiguration": network, "placementStrategy": [{"type": "random"}],
        "placementConstraints": [{"type": "distinctInstance"}],
    }));
    let to_fargate = json!([{"capacityProvider": "FARGATE", "weight": 1}]);
    let placed = |what| format!("Placement {what} are not supported with FARGATE launch type.");
    let mut request = json!({"service": "web", "capacityProviderStrategy": to_fargate});
    fails(world.write(service::update_service, request.clone()), INVALID, &placed("constraints"));
    request["placementConstraints"] = json!([]);
    fails(world.write(service::update_service, request.clone()), INVALID, &placed("strategies"));
    request["placementStrategy"] = json!([]);
    world.write(service::update_service, request).unwrap();
    world.create_service(json!({
        "serviceName": "everywhere", "taskDefinition": "task", "networkConfiguration": network,
        "schedulingStrategy": "DAEMON", "desiredCount": null,
    }));
    let moved = json!({"service": "everywhere", "capacityProviderStrategy": to_fargate});
    let message = "The DAEMON scheduling strategy is not supported with FARGATE.";
    fails(world.write(service::update_service, moved), INVALID, message);
}

#[test]
fn what_never_starts_is_tried_with_growing_patience() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 1}));
    for _ in 0..10 {
        world.agent_acts(|_| Fate::FailsToStart);
    }
    let failed = &world.service()["deployments"][0]["failedTasks"];
    assert_eq!(failed, 3, "after the third it waits");
    assert!(world.messages().last().unwrap().contains("is unable to consistently start tasks successfully"));
    assert!(world.live().is_empty());
    world.pass(Duration::from_secs(61));
    assert_eq!(world.live().len(), 1);
    // A new revision begins anew, and one that runs is forgiven.
    world.register("app");
    world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    world.agent_acts(runs);
    world.pass(LONG);
    assert_eq!(world.service()["deployments"][0]["failedTasks"], 0);
}

#[test]
fn one_that_fails_to_start_counts_before_another_is_started() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 1}));
    for _ in 0..2 {
        world.agent_acts(|_| Fate::FailsToStart);
    }
    let arn = world.live()[0].arn(&world.scope).to_string();
    let request = json!({"task": arn, "status": "STOPPED", "reason": "", "containers": []});
    world.write(submit::submit_task_state_change, request).unwrap();
    // It has yet to be STOPPED.
    while round::<Services>(&mut world) {}
    assert_eq!(world.live().len(), 1, "the third failure is waited for before another try");
    assert_eq!(world.service()["deployments"][0]["failedTasks"], 3);
    world.come_to_rest();
    assert_eq!((world.live().len(), &world.service()["deployments"][0]["failedTasks"]), (0, &json!(3)));
}

#[test]
fn tasks_that_end_at_once_are_replaced_within_a_quota_and_others_start_at_once() {
    let mut world = World::with_capacity(7800);
    let mut installation = crate::state::Installation::default();
    installation.quotas.replaced_tasks = 3;
    world.state.installation = std::sync::Arc::new(installation);
    world.create_service(json!({"desiredCount": 5}));
    assert_eq!(world.live().len(), 5, "first starts wait for nothing");
    for ended in 1..=3 {
        let victim = world.live()[0].id;
        world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
        assert_eq!(world.live().len(), 5, "the replacement of {ended}");
    }
    let victim = world.live()[0].id;
    world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
    assert_eq!(world.live().len(), 4);
    let (scope, now) = (world.scope.clone(), world.now);
    let service = world.state.ecs.services().values().next().unwrap().clone();
    let told = explain(View { scope: &scope, state: &world.state, now }, &service);
    assert!(told.verdict.ends_with("and 1 task waits for the quota of 3 replaced in a minute."), "{told:?}");
    // More are wanted, and another deployment starts.
    world.update_service(json!({"desiredCount": 7}));
    assert_eq!(world.live().len(), 6);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.live().len(), 7);
}

#[test]
fn a_service_made_anew_has_no_past() {
    let mut world = World::with_service(json!({}));
    world.deploy_what_fails(2);
    world.write(service::delete_service, json!({"service": "web", "force": true})).unwrap();
    world.come_to_rest();
    let left = world.read(list_service_deployments, json!({"service": "web"})).unwrap();
    assert_eq!(left["serviceDeployments"], json!([]), "they go with the service");
    world.agent_acts(runs);
    world.create_service(json!({"desiredCount": 1}));
    assert_eq!(world.attempts().len(), 1);
    let (scope, now) = (world.scope.clone(), world.now);
    let service = world.state.ecs.services().values().next().unwrap().clone();
    let told = explain(View { scope: &scope, state: &world.state, now }, &service);
    assert!(told.findings.iter().all(|finding| finding.topic != "failures"), "{told:?}");
}

#[test]
fn a_cluster_made_anew_has_nothing_of_the_one_before() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    world.write(service::delete_service, json!({"service": "web", "force": true})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    let keys: Vec<_> =
        world.state.ecs.container_instances().iter().map(|(key, _)| key.id.to_string()).collect();
    let leave = json!({"containerInstance": keys[0], "force": true});
    world.write(container_instance::deregister_container_instance, leave).unwrap();
    world.come_to_rest();
    world.write(cluster::delete_cluster, json!({"cluster": "default"})).unwrap();
    assert_eq!((world.state.ecs.tasks().len(), world.state.ecs.services().len()), (1, 1));
    world.create("default");
    assert_eq!((world.state.ecs.tasks().len(), world.state.ecs.services().len()), (0, 0));
    world.state.ecs.check_invariants();
}

#[test]
fn a_client_token_tells_one_creation_from_another() {
    let mut world = World::with_capacity(7800);
    let create = |count: u32, token: &str| json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": count, "clientToken": token});
    let long = world.write(service::create_service, create(1, &"x".repeat(37)));
    fails(long, INVALID, "The client token must be up to 36 ASCII characters without spaces.");
    world.write(service::create_service, create(1, "once")).unwrap();
    world.write(service::create_service, create(1, "once")).unwrap();
    let other = world.write(service::create_service, create(2, "once"));
    fails(other, INVALID, "Creation of service was not idempotent.");
}

#[test]
fn one_that_runs_on_does_not_excuse_those_that_never_start() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    world.pass(LONG);
    world.write(service::update_service, json!({"service": "web", "desiredCount": 2})).unwrap();
    world.come_to_rest();
    for _ in 0..10 {
        world.agent_acts(|_| Fate::FailsToStart);
    }
    assert_eq!(world.service()["deployments"][0]["failedTasks"], 3, "after the third it waits");
    assert_eq!(world.live().len(), 1, "the healthy one goes on alone");
    world.pass(Duration::from_secs(61));
    world.agent_acts(runs);
    world.pass(LONG);
    assert_eq!(world.service()["deployments"][0]["failedTasks"], 0, "one that became healthy since forgives");
}

#[test]
fn the_circuit_breaker_returns_to_what_worked() {
    let mut world = World::with_capacity(7800);
    let breaker = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": true}});
    world.create_service(json!({"desiredCount": 2, "deploymentConfiguration": breaker}));
    world.agent_acts(runs);
    world.pass(LONG);
    let good = world.service()["deployments"][0]["id"].clone();
    world.register("app");
    world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
    world.come_to_rest();
    for _ in 0..6 {
        world.agent_acts(
            |task| if task.definition_id.revision == 2 { Fate::FailsToStart } else { Fate::Runs },
        );
        assert!(world.live().iter().filter(|t| t.last_status == LastStatus::Running).count() >= 2);
    }
    world.pass(LONG);
    let service = world.service();
    assert_eq!(service["deployments"][0]["id"], good);
    assert_eq!(service["deployments"][0]["rolloutState"], "COMPLETED");
    assert!(service["taskDefinition"].as_str().unwrap().ends_with("app:1"));
    let messages = world.messages();
    assert!(messages.iter().any(|m| m.contains("deployment failed: tasks failed to start.")), "{messages:?}");
    assert!(messages.iter().any(|m| m.contains("rolling back to deployment")), "{messages:?}");
}

#[test]
fn what_cannot_be_placed_is_told_once_and_tried_again() {
    let mut world = World::with_capacity(128 * 2);
    world.create_service(json!({}));
    world.agent_acts(runs);
    for _ in 0..5 {
        world.pass(Duration::from_secs(10));
    }
    let told = world.messages().iter().filter(|m| m.contains("has insufficient memory available")).count();
    assert_eq!((world.live().len(), told), (2, 1));
    world.write(service::update_service, json!({"service": "web", "desiredCount": 2})).unwrap();
    world.pass(LONG);
    assert!(world.messages().last().unwrap().ends_with("has reached a steady state."));
}

#[test]
fn requests_are_checked() {
    let mut world = World::with_capacity(7800);
    let create = |world: &mut World, request: Value| world.write(service::create_service, request);
    fails(
        create(&mut world, json!({"serviceName": "a b", "taskDefinition": "app", "desiredCount": 1})),
        INVALID,
        "The service name must be up to 255 letters, numbers, hyphens and underscores.",
    );
    let lb = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1, "serviceRegistries": [{"registryArn": "arn"}]});
    assert_eq!(create(&mut world, lb).unwrap_err().code, "UnsupportedFeatureException");
    let good = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1, "clientToken": "t"});
    let first = create(&mut world, good.clone()).unwrap();
    assert_eq!(create(&mut world, good).unwrap()["service"]["serviceArn"], first["service"]["serviceArn"]);
    fails(
        create(&mut world, json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 2})),
        INVALID,
        "Creation of service was not idempotent.",
    );
    let unknown = world.write(service::update_service, json!({"service": "other"})).unwrap_err();
    assert_eq!(unknown.code, "ServiceNotFoundException");
    fails(
        world.read(task::list_tasks, json!({"serviceName": "other"})),
        "ServiceNotFoundException",
        "Service not found.",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever agents do during a rollout, the percentages hold, and once tasks run it arrives.
    #[test]
    fn a_rollout_keeps_its_bounds(
        desired in 1..6_u32, minimum in 0..=100_u32, spare in 1..=100_u32,
        fates in prop::collection::vec((0..3_u8, any::<u64>()), 0..25),
    ) {
        let mut world = World::with_capacity(7800);
        let maximum = 100 + spare.max(100_u32.div_ceil(desired));
        let bounds = json!({"minimumHealthyPercent": minimum, "maximumPercent": maximum});
        world.create_service(json!({"desiredCount": desired, "deploymentConfiguration": bounds}));
        world.agent_acts(runs);
        world.pass(LONG);
        world.register("app");
        world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
        world.come_to_rest();
        let lower = (desired * minimum).div_ceil(100) as usize;
        let upper = (desired * maximum / 100) as usize;
        let serving = |world: &World| {
            let serves = |t: &&Task| t.last_status == LastStatus::Running && t.desired_status == DesiredStatus::Running;
            world.live().iter().filter(serves).count()
        };
        for (what, which) in fates {
            prop_assert!(world.live().len() <= upper, "{} > {upper}", world.live().len());
            prop_assert!(serving(&world) >= lower, "{} < {lower}", serving(&world));
            match what {
                // New tasks run or fail as chance has it; old ones go on.
                0 => world.agent_acts(|task| {
                    let bit = u32::from(task.id.to_string().as_bytes()[0]) % 32;
                    let fails = task.definition_id.revision == 2 && which & (1 << bit) != 0;
                    if fails { Fate::FailsToStart } else { Fate::Runs }
                }),
                1 => world.agent_acts(runs),
                _ => world.pass(Duration::from_secs(30)),
            }
        }
        for _ in 0..40 {
            world.agent_acts(runs);
            world.pass(Duration::from_secs(120));
        }
        let service = world.service();
        prop_assert_eq!(&service["deployments"][0]["rolloutState"], "COMPLETED");
        prop_assert_eq!(&service["runningCount"], &json!(desired));
        prop_assert!(world.live().iter().all(|task| task.definition_id.revision == 2));
    }
}

#[test]
fn unhealthy_tasks_are_replaced_first_and_stopped_then() {
    let mut world = World::with_capacity(7800);
    let check = json!({"command": ["CMD-SHELL", "true"]});
    let app = json!({"name": "app", "image": "app:1", "memory": 128, "healthCheck": check});
    let request = json!({"family": "app", "containerDefinitions": [app]});
    world.write(task_definition::register_task_definition, request).unwrap();
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    let told = |world: &mut World, task: &Task, health| {
        let mut task = world.state.ecs.task(&TaskKey::from(task)).unwrap().clone();
        task.containers[0].health_status = health;
        world.state.ecs.put_task(task);
        world.come_to_rest();
    };
    let first = world.live()[0].clone();
    told(&mut world, &first, HealthStatus::Unhealthy);
    let second = world.live().into_iter().find(|task| task.id != first.id).unwrap();
    let started = format!(
        "(service web) has started 1 tasks: (task {}). Amazon ECS replaced 1 tasks due to an unhealthy status.",
        second.id
    );
    assert_eq!(world.messages().last(), Some(&started));
    assert_eq!(world.live().len(), 2, "the old one stays until the new one is well");
    world.agent_acts(runs);
    told(&mut world, &second, HealthStatus::Healthy);
    let gone = world.live().into_iter().find(|task| task.id == first.id).unwrap();
    assert_eq!(gone.desired_status, DesiredStatus::Stopped);
    assert_eq!(gone.stopped_reason.as_deref(), Some("Task failed container health checks"));
    let expected = format!("(service web) (task {}) failed container health checks.", first.id);
    assert!(world.messages().contains(&expected), "{:?}", world.messages());
}

#[test]
fn protected_tasks_are_spared_until_their_protection_ends() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 2}));
    world.agent_acts(runs);
    world.pass(LONG);
    let ids: Vec<String> = world.live().iter().map(|task| task.id.to_string()).collect();
    let request =
        json!({"cluster": "default", "tasks": [ids[0]], "protectionEnabled": true, "expiresInMinutes": 5});
    let reply = world.write(protection::update_task_protection, request).unwrap();
    assert_eq!(reply["protectedTasks"][0]["protectionEnabled"], true);
    let got =
        world.read(protection::get_task_protection, json!({"cluster": "default", "tasks": ids})).unwrap();
    assert_eq!(got["protectedTasks"][0], reply["protectedTasks"][0]);
    assert_eq!(got["protectedTasks"][1]["protectionEnabled"], false);
    assert!(got["protectedTasks"][1].get("expirationDate").is_none());

    world.write(service::update_service, json!({"service": "web", "desiredCount": 0})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    let left: Vec<String> = world.live().iter().map(|task| task.id.to_string()).collect();
    assert_eq!(left, [ids[0].clone()]);
    world.pass(Duration::from_secs(300));
    world.agent_acts(runs);
    assert!(world.live().is_empty());
}

#[test]
fn protection_says_whom_it_cannot_cover() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({"desiredCount": 1}));
    world.agent_acts(runs);
    world.pass(LONG);
    let instance =
        world.state.ecs.container_instances().iter().next().unwrap().0.arn(&world.scope).to_string();
    let alone = world.run("app:1", &instance).id.to_string();
    let protect = |tasks: Value| json!({"cluster": "default", "tasks": tasks, "protectionEnabled": true});
    let missing = "0".repeat(32);
    let reply = world.write(protection::update_task_protection, protect(json!([alone, missing]))).unwrap();
    let reasons: Vec<_> =
        reply["failures"].as_array().unwrap().iter().map(|f| f["reason"].as_str()).collect();
    assert_eq!(reasons, [Some("TASK_NOT_VALID"), Some("MISSING")]);

    // During a deployment not more than the service shall have.
    let old = world.live()[0].id.to_string();
    world.write(protection::update_task_protection, protect(json!([old]))).unwrap();
    world.register("app");
    world.write(service::update_service, json!({"service": "web", "taskDefinition": "app"})).unwrap();
    world.come_to_rest();
    world.agent_acts(runs);
    let new = world.live().into_iter().find(|task| task.id.to_string() != old).unwrap().id.to_string();
    let reply = world.write(protection::update_task_protection, protect(json!([new]))).unwrap();
    assert_eq!(reply["failures"][0]["reason"], "DEPLOYMENT_BLOCKED");
    world.pass(LONG);
    assert!(world.live().iter().any(|task| task.id.to_string() == old), "the deployment waits for it");

    for (change, message) in [
        (json!({"tasks": []}), "Tasks cannot be empty."),
        (json!({"expiresInMinutes": 0}), "expiresInMinutes must be between 1 and 2880."),
        (
            json!({"protectionEnabled": false, "expiresInMinutes": 5}),
            "expiresInMinutes can be given only when protectionEnabled is true.",
        ),
    ] {
        let mut request = protect(json!([new]));
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        fails(world.write(protection::update_task_protection, request), INVALID, message);
    }
}
