//! Scripts on services: what users ask, what agents make of the tasks, what the controller does about it.

use super::world::{INVALID, World, fails};
use crate::controllers::services::Services;
use crate::controllers::tasks::Tasks;
use crate::controllers::testing::round;
use crate::services::ecs::ops::{container_instance, service, submit, task};
use crate::services::ecs::state::{ServiceKey, Task, TaskKey};
use gantry_decide::ids::ClusterName;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

/// More than a task has to run to count as healthy.
const LONG: Duration = Duration::from_secs(41);

/// What an agent does with a task.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Runs,
    FailsToStart,
    Exits,
}

impl World {
    fn with_capacity(memory: u32) -> World {
        let mut world = World::new();
        world.create("default");
        let mut request = super::world::registration("default");
        request["totalResources"][1]["integerValue"] = json!(memory);
        let docker = json!({"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"});
        request["attributes"].as_array_mut().unwrap().push(docker);
        world.write(container_instance::register_container_instance, request).unwrap();
        let instances: Vec<_> =
            world.state.ecs.container_instances().iter().map(|(_, i)| i.as_ref().clone()).collect();
        for mut instance in instances {
            instance.agent_connected = true;
            world.state.ecs.put_container_instance(instance);
        }
        world.register("app");
        world
    }

    /// Controllers react to each other until nothing moves.
    fn come_to_rest(&mut self) {
        for _ in 0..100 {
            if !(round::<Tasks>(self) | round::<Services>(self)) {
                self.state.ecs.check_invariants();
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    fn service(&mut self) -> Value {
        let mut reply = self.read(service::describe_services, json!({"services": ["web"]})).unwrap();
        reply["services"][0].take()
    }

    fn live(&self) -> Vec<Task> {
        let key = ServiceKey { cluster: ClusterName::default_cluster(), name: "web".parse().unwrap() };
        self.state.ecs.tasks_of(&key).cloned().collect()
    }

    /// The agent takes what is new and ends what is to stop.
    fn agent_acts(&mut self, fate: impl Fn(&Task) -> Fate) {
        for before in self.live() {
            let arn = before.arn(&self.scope).to_string();
            let mut known = self.state.ecs.task(&TaskKey::from(&before)).unwrap().clone();
            known.sent = true;
            self.state.ecs.put_task(known);
            let statuses: &[&str] = match (before.desired_status, before.last_status, fate(&before)) {
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

    fn create_service(&mut self, request: Value) {
        let mut all = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 3});
        all.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        self.write(service::create_service, all).unwrap();
        self.come_to_rest();
    }

    fn messages(&mut self) -> Vec<String> {
        let service = self.service();
        let events = service["events"].as_array().unwrap().iter().rev();
        events.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.come_to_rest();
    }
}

fn runs(_: &Task) -> Fate {
    Fate::Runs
}

#[test]
fn a_service_is_kept_at_its_count_and_says_so() {
    let mut world = World::with_capacity(7800);
    world.create_service(json!({}));
    assert_eq!(world.service()["pendingCount"], 3);
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
    world.pass(Duration::from_secs(3600));
    let gone = world.read(service::describe_services, json!({"services": ["web"]})).unwrap();
    assert_eq!(gone["failures"][0]["reason"], "MISSING");
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
    let lb = json!({"serviceName": "web", "taskDefinition": "app", "desiredCount": 1, "loadBalancers": [{"containerName": "app"}]});
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
