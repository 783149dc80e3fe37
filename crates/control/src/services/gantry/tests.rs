//! Scripts: what happens in a world, and what is said of it.
#![allow(clippy::unwrap_used)]

use super::SERVICE;
use super::explain::{Explanation, instance, service, task};
use crate::bulk::logs::Request as LogsRequest;
use crate::bulk::memory::MemoryLogs;
use crate::bulk::{self, Answer, Request};
use crate::call::{Call, Caller, Principal};
use crate::feed;
use crate::roles::{RoleSession, RoleType};
use crate::service::Prepared;
use crate::services::ecs::ops::protection::update_task_protection;
use crate::services::ecs::ops::service::create_service;
use crate::services::ecs::ops::service_deployment::stop_service_deployment;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceStatus, DeploymentController, RolloutState, Task,
};
use crate::services::ecs::tests::service::{Fate, LONG, runs};
use crate::services::ecs::tests::world::World;
use crate::state::State;
use crate::tx::View;
use gantry_decide::ids::{ClusterName, DeploymentId, RequestId};
use gantry_decide::lifecycle::{ContainerStatus, HealthStatus};
use gantry_decide::time::Timestamp;
use gantry_wire::{ApiError, json};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A world with a feed.
struct Told {
    world: World,
    seen: State,
    seen_at: Timestamp,
    events: MemoryLogs,
}

impl Told {
    /// A cluster with one instance of so many MiB, and the definition `app` of 128 MiB and 64 CPU units.
    fn with_capacity(memory: u32) -> Told {
        Told {
            world: World::with_capacity(memory),
            seen: State::default(),
            seen_at: Timestamp::EPOCH,
            events: MemoryLogs::default(),
        }
    }

    /// Does what the server does now and then.
    fn look(&mut self) {
        let mut after = State::default();
        after.replace(&self.world.scope, self.world.state.clone());
        let news = feed::between(&self.seen, &after, self.seen_at, self.world.now);
        self.seen_at = self.world.now;
        for append in feed::appends(news, self.world.now) {
            self.events.perform(LogsRequest::Append(append));
        }
        self.seen = after;
    }

    fn call_as(&mut self, principal: Principal, operation: &str, request: Value) -> Result<Value, ApiError> {
        self.look();
        let World { scope, state, now, random, .. } = &mut self.world;
        let caller = Caller { scope: scope.clone(), principal, access_key_id: "AKIAEXAMPLE".to_owned() };
        let call = Call { caller, request_id: RequestId::random(random), endpoint: String::new() };
        let body = request.to_string();
        let prepared = (SERVICE.operation(operation).unwrap().prepare)(call, &mut |structure| {
            json::read(structure, body.as_bytes())
        })?;
        let Prepared::Bulk(bulk) = prepared else { panic!("{operation} needs the feed") };
        let plan = bulk(View { scope, state, now: *now })?;
        let Request::Logs(request) = plan.request;
        let response = (plan.reply)(Ok(Answer::Logs(self.events.perform(request))))?;
        Ok(serde_json::from_slice(&json::to_vec(response.as_ref())).unwrap())
    }

    fn call(&mut self, operation: &str, request: Value) -> Result<Value, ApiError> {
        self.call_as(Principal::Root, operation, request)
    }

    fn kinds(&mut self, request: Value) -> Vec<String> {
        let page = self.call("ListEvents", request).unwrap();
        page["events"].as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap().to_owned()).collect()
    }

    fn view(&self) -> View<'_> {
        View { scope: &self.world.scope, state: &self.world.state, now: self.world.now }
    }

    fn service(&self) -> Explanation {
        service::explain(self.view(), self.view().state.ecs.services().values().next().unwrap())
    }

    fn task(&self, change: impl FnOnce(&mut Task)) -> Explanation {
        let mut task = self.world.live().remove(0);
        change(&mut task);
        task::explain(self.view(), &task)
    }

    fn change_instance(&mut self, change: impl FnOnce(&mut ContainerInstance)) {
        let mut instance = self.instance().as_ref().clone();
        change(&mut instance);
        self.world.state.ecs.put_container_instance(instance);
    }

    fn instance(&self) -> Arc<ContainerInstance> {
        Arc::clone(self.world.state.ecs.container_instances().values().next().unwrap())
    }
}

fn finding<'a>(told: &'a Explanation, topic: &str) -> &'a super::explain::Finding {
    told.findings.iter().find(|finding| finding.topic == topic).unwrap_or_else(|| panic!("{topic}: {told:?}"))
}

fn advice(told: &Explanation) -> String {
    told.suggestions.iter().map(|suggestion| format!("{}\n", suggestion.message)).collect()
}

#[test]
fn what_cannot_be_placed_is_told_with_figures() {
    let mut told = Told::with_capacity(300);
    told.world.create_service(json!({}));
    told.world.agent_acts(runs);
    let why = told.service();
    let id = told.instance().id;
    assert_eq!(
        why.verdict,
        format!(
            "2 of 3 tasks of the service web run: the only container instance cannot take the task; {id} has 44 MiB of \
             memory free of the 128 that the task needs: 84 too few."
        )
    );
    let placement = finding(&why, "placement");
    assert_eq!(
        placement.message,
        "One more task needs 64 CPU units, 128 MiB of memory. Now the only container instance cannot take the task."
    );
    assert_eq!(
        placement.details,
        [format!("instance {id} has 44 MiB of memory free of the 128 that the task needs: 84 too few")]
    );
    assert!(advice(&why).contains("Register another or a larger instance"), "{why:?}");

    // From the instance's side.
    let here = instance::explain(told.view(), &told.instance());
    assert!(here.verdict.ends_with("3968 CPU units and 44 MiB are free, and 2 tasks on it."), "{here:?}");
    let services = finding(&here, "services");
    assert!(services.details[0].starts_with("web: it has 44 MiB"), "{here:?}");

    // A larger one comes.
    told.world.add_instance(1000);
    told.world.pass(Duration::from_secs(6));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let why = told.service();
    assert_eq!(why.verdict, "3 of 3 tasks of the service web run: the service is as it should be.");
    assert!(why.suggestions.is_empty(), "{why:?}");
}

#[test]
fn a_task_larger_than_any_instance_is_told_so() {
    let mut told = Told::with_capacity(100);
    told.world.create_service(json!({}));
    let why = told.service();
    assert!(
        advice(&why).contains("larger than any instance, even an empty one (the largest has 4096 CPU"),
        "{why:?}"
    );
    let gone = told.instance();
    told.world.state.ecs.remove_container_instance(&key_of(&gone));
    let why = told.service();
    assert!(why.verdict.ends_with("no container instance is registered in the cluster default."), "{why:?}");
}

fn key_of(instance: &ContainerInstance) -> crate::services::ecs::state::ContainerInstanceKey {
    gantry_store::Record::key(instance)
}

#[test]
fn room_that_is_kept_for_a_daemon_is_told_with_its_name() {
    let mut told = Told::with_capacity(1000);
    let container = |memory: u32| json!({"name": "d", "image": "d:1", "memory": memory, "versionConsistency": "disabled"});
    told.world.define(json!({"family": "logd", "containerDefinitions": [container(900)]}));
    told.world.define(json!({"family": "huge", "containerDefinitions": [container(9000)]}));
    let daemon =
        |name: &str| json!({"serviceName": name, "taskDefinition": name, "schedulingStrategy": "DAEMON"});
    told.world.create_service(json!({"desiredCount": 2}));
    // What no instance could ever hold closes none.
    told.world.write(create_service, daemon("huge")).unwrap();
    told.world.come_to_rest();
    told.world.update_service(json!({"desiredCount": 3}));
    assert_eq!(told.world.live().len(), 3);
    told.world.write(create_service, daemon("logd")).unwrap();
    told.world.come_to_rest();
    told.world.update_service(json!({"desiredCount": 4}));
    assert_eq!(told.world.live().len(), 3);
    let web = told.world.state.ecs.services().values().find(|service| service.name.as_str() == "web");
    let why = service::explain(told.view(), web.unwrap());
    let kept = "has 0 MiB of memory free of the 128 that the task needs: 128 too few; it keeps 0 CPU units, 900 MiB of \
                memory for a task of the DAEMON service logd";
    assert!(why.verdict.ends_with(&format!("{kept}.")), "{why:?}");
    assert!(finding(&why, "placement").details[0].ends_with(kept), "{why:?}");
    let here = instance::explain(told.view(), &told.instance());
    assert!(finding(&here, "daemons").message.contains("for a task of the DAEMON service logd"), "{here:?}");
    let services = &finding(&here, "services").details;
    assert!(services.iter().any(|line| line.starts_with("web: it has 0 MiB")), "{services:?}");
}

#[test]
fn deregistered_instances_are_not_asked_for_room() {
    let mut told = Told::with_capacity(1000);
    told.change_instance(|instance| {
        instance.status = ContainerInstanceStatus::Inactive;
        (instance.agent_connected, instance.sessions) = (false, 1);
    });
    told.world.create_service(json!({"desiredCount": 1}));
    let messages = told.world.messages();
    assert!(messages[0].contains("No Container Instances were found in your cluster."), "{messages:?}");
    let why = told.service();
    assert!(why.verdict.ends_with("no container instance is registered in the cluster default."), "{why:?}");
    let here = instance::explain(told.view(), &told.instance());
    assert!(finding(&here, "agent").message.contains("is not connected."), "{here:?}");
}

#[test]
fn tasks_that_never_start_are_counted_and_the_patience_told() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    for _ in 0..4 {
        told.world.agent_acts(|_| Fate::FailsToStart);
    }
    let why = told.service();
    assert!(why.verdict.contains("after 3 starts in a row that failed, the next is tried in "), "{why:?}");
    let failures = finding(&why, "failures");
    assert_eq!(failures.message, "3 tasks failed within the last hour.");
    assert!(failures.details[0].starts_with("3 times, the last "), "{failures:?}");
    assert!(failures.details[0].ends_with(": Task failed to start (TaskFailedToStart)"), "{failures:?}");
    assert!(finding(&why, "back-off").message.contains("3 tasks in a row never got to run"));
    assert!(
        why.suggestions
            .iter()
            .any(|s| s.command.as_deref().is_some_and(|c| c.starts_with("gantry explain ")))
    );
}

#[test]
fn a_deployment_within_tight_percentages_is_told_to_be_stuck() {
    let mut told = Told::with_capacity(7800);
    let configuration = json!({"minimumHealthyPercent": 100, "maximumPercent": 100});
    told.world.create_service(json!({"deploymentConfiguration": configuration}));
    told.world.agent_acts(runs);
    let why = told.service();
    assert_eq!(why.verdict, "3 of 3 tasks of the service web run: 3 of them have yet to be found healthy.");
    assert!(finding(&why, "health").message.contains("has run for 40 s; the next one will "), "{why:?}");
    told.world.pass(LONG);
    let mut service = told.view().state.ecs.services().values().next().unwrap().as_ref().clone();
    let mut next = service.deployments[0].clone();
    next.id = DeploymentId::random(&mut told.world.random);
    next.rollout_state = RolloutState::InProgress;
    service.deployments.insert(0, next);
    told.world.state.ecs.put_service(service);
    let why = told.service();
    assert!(why.verdict.ends_with("percentages allow neither to start nor to stop a task."), "{why:?}");
    let tasks = &finding(&why, "tasks").message;
    assert!(tasks.contains("at least 3 stay healthy; maximumPercent 100: at most 3 exist"), "{tasks}");
    assert!(advice(&why).contains("Raise maximumPercent"));
}

#[test]
fn a_service_without_task_sets_says_whose_turn_it_is() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({}));
    let mut service = told.view().state.ecs.services().values().next().unwrap().as_ref().clone();
    service.controller = DeploymentController::External;
    service.deployments.clear();
    let why = service::explain(told.view(), &service);
    assert!(
        why.verdict.ends_with("its controller is EXTERNAL, and nobody has made a task set of it."),
        "{why:?}"
    );
}

#[test]
fn protected_tasks_that_stay_are_told() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 2, "deploymentConfiguration": {"maximumPercent": 100}}));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let ids: Vec<String> = told.world.live().iter().map(|task| task.id.to_string()).collect();
    let protect = json!({"cluster": "default", "tasks": ids, "protectionEnabled": true});
    told.world.write(update_task_protection, protect).unwrap();
    told.world.update_service(json!({"desiredCount": 1}));
    let why = told.service();
    let kept = "2 of 1 task of the service web run: 1 task more than wanted stays, for some are protected from scale-in; ";
    assert!(why.verdict.starts_with(kept), "{why:?}");
    // The next deployment finds no room beside them.
    told.world.register("app");
    told.world.update_service(json!({"desiredCount": 2, "taskDefinition": "app"}));
    told.world.update_service(
        json!({"deploymentConfiguration": {"minimumHealthyPercent": 0, "maximumPercent": 100}}),
    );
    let why = told.service();
    assert!(why.verdict.contains("protected from scale-in, and leave no room for new ones"), "{why:?}");
}

#[test]
fn tasks_on_a_draining_instance_are_not_of_another_deployment() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    told.change_instance(|instance| instance.status = ContainerInstanceStatus::Draining);
    told.world.come_to_rest();
    let why = told.service();
    let details = &finding(&why, "tasks").details;
    assert_eq!(details[..], ["on draining instances: 1 healthy, 0 starting, 0 unhealthy"], "{why:?}");
}

#[test]
fn a_pause_is_told_with_its_stage_and_hook() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let hook = json!({"targetType": "PAUSE", "lifecycleStages": ["POST_SCALE_UP"]});
    let configuration = json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5, "lifecycleHooks": [hook]});
    told.world.update_service(json!({"forceNewDeployment": true, "deploymentConfiguration": configuration}));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let why = told.service();
    let pause = "the deployment pauses at POST_SCALE_UP until somebody answers the hook ";
    assert!(why.verdict.contains(pause), "{why:?}");
    // Nobody does, and nobody is asked any more.
    assert_eq!(told.world.attempts()[0]["lifecycleHookDetails"][0]["status"], "AWAITING_ACTION");
    let stop = json!({"serviceDeploymentArn": told.world.attempts()[0]["serviceDeploymentArn"], "stopType": "ROLLBACK"});
    told.world.write(stop_service_deployment, stop).unwrap();
    told.world.come_to_rest();
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let over = told.world.attempts()[0].clone();
    assert_eq!((&over["status"], over.get("lifecycleHookDetails")), (&json!("ROLLBACK_SUCCESSFUL"), None));
}

#[test]
fn a_subject_may_be_named_as_events_name_it() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    let task = told.world.live()[0].id;
    for subject in ["service/default/web".to_owned(), format!("task/default/{task}")] {
        let arn = told.call("Explain", json!({"subject": subject})).unwrap()["resourceArn"].clone();
        assert!(arn.as_str().unwrap().ends_with(&subject), "{arn}");
    }
}

#[test]
fn what_a_task_waits_for_is_told() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    let waits = |told: &Told, change: fn(&mut Task)| told.task(change).verdict;
    assert!(
        waits(&told, |_| {}).ends_with("does not run yet (PENDING): it waits to be handed to its agent.")
    );
    let sent = waits(&told, |task| task.sent = true);
    assert!(sent.ends_with("it is with its agent, which has not told of it yet."), "{sent}");
    let pulls = waits(&told, |task| {
        task.sent = true;
        task.pull_started_at = Some(task.created_at);
    });
    assert!(pulls.contains("it pulls its images, since "), "{pulls}");
    told.change_instance(|instance| instance.agent_connected = false);
    let away = waits(&told, |_| {});
    assert!(away.contains("it waits for the agent of its instance "), "{away}");
    let nowhere = told.task(|task| {
        task.instance = None;
        task.waiting = Some(Box::default());
    });
    assert!(nowhere.verdict.ends_with("it waits for capacity."), "{nowhere:?}");
    assert!(finding(&nowhere, "placement").details[0].ends_with("has no connection to its agent"));
}

#[test]
fn how_a_container_ended_is_told_in_words() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    let stopped = |told: &Told, code: i32, reason: Option<&str>| {
        told.task(|task| {
            let (exit, now) = (Some(code), told.world.now);
            task.request_stop(
                gantry_decide::lifecycle::StopCode::EssentialContainerExited,
                "Essential container in task exited",
                now,
            );
            task.last_status = gantry_decide::lifecycle::LastStatus::Stopped;
            task.stopped_at = Some(now);
            task.containers[0].exit_code = exit;
            task.containers[0].last_status = ContainerStatus::Stopped;
            task.containers[0].reason = reason.map(str::to_owned);
        })
    };
    let oom = stopped(&told, 137, Some("OutOfMemoryError: Container killed due to memory usage"));
    assert!(oom.verdict.contains("ended because an essential container of it did: "), "{oom:?}");
    assert!(
        finding(&oom, "containers").details[0].contains("it used more memory than it may have)"),
        "{oom:?}"
    );
    assert!(advice(&oom).contains("Give the container app more memory (128 MiB now)"), "{oom:?}");
    let killed = stopped(&told, 137, None);
    assert!(
        finding(&killed, "containers").details[0].contains("exited with code 137 (SIGKILL: "),
        "{killed:?}"
    );
    let missing = stopped(&told, 127, None);
    assert!(advice(&missing).contains("whether the image has that program"), "{missing:?}");
}

#[test]
fn an_instance_says_why_it_takes_nothing() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.change_instance(|instance| instance.status = ContainerInstanceStatus::Draining);
    let why = instance::explain(told.view(), &told.instance());
    assert!(
        why.verdict.ends_with("is draining: it takes no new tasks, and 1 task of before runs on it still."),
        "{why:?}"
    );
    assert!(finding(&why, "draining").message.starts_with("Tasks of services are replaced elsewhere"));
    let now = told.world.now;
    told.change_instance(|instance| {
        instance.status = ContainerInstanceStatus::Active;
        instance.agent_connected = false;
        instance.disconnected_at = Some(now);
    });
    let why = instance::explain(told.view(), &told.instance());
    assert!(why.verdict.contains("takes no tasks: its agent is not connected since "), "{why:?}");
}

#[test]
fn the_feed_tells_a_tasks_life_however_often_it_looks() {
    let life = |looks: bool| {
        let mut told = Told::with_capacity(7800);
        told.look();
        told.world.create_service(json!({"desiredCount": 1}));
        let pass = |told: &mut Told| {
            if looks {
                told.look()
            }
        };
        pass(&mut told);
        told.world.agent_acts(runs);
        pass(&mut told);
        told.world.pass(LONG);
        pass(&mut told);
        let victim = told.world.live()[0].id;
        told.world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
        pass(&mut told);
        let page =
            told.call("ListEvents", json!({"filterPattern": format!("\"task/default/{victim}\"")})).unwrap();
        page["events"].clone()
    };
    let events = life(true);
    let kinds: Vec<&str> = events.as_array().unwrap().iter().map(|e| e["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["TASK_CREATED", "TASK_RUNNING", "TASK_STOPPED"]);
    let told = |events: &Value| -> Vec<(Value, Value)> {
        let all = events.as_array().unwrap().iter();
        all.map(|event| (event["createdAt"].clone(), event["message"].clone())).collect()
    };
    assert_eq!(told(&events), told(&life(false)));
}

#[test]
fn the_feed_tells_of_services_and_instances() {
    let mut told = Told::with_capacity(7800);
    told.look();
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.world.pass(LONG);
    let services = told.kinds(json!({"filterPattern": "service/default/web -task/default -SERVICE_EVENT"}));
    assert_eq!(services.first().map(String::as_str), Some("SERVICE_CREATED"));
    assert!(services.contains(&"DEPLOYMENT".to_owned()), "{services:?}");
    let steady = told.call("ListEvents", json!({"filterPattern": "\"steady state\""})).unwrap();
    assert_eq!(steady["events"][0]["message"], "(service web) has reached a steady state.");
    assert_eq!(steady["events"][0]["resourceArn"], "arn:aws:ecs:eu-north-1:123456789012:service/default/web");

    told.change_instance(|instance| instance.status = ContainerInstanceStatus::Draining);
    told.world.now = told.world.now + Duration::from_secs(1);
    told.look();
    let drained = told.call("ListEvents", json!({"filterPattern": "INSTANCE_DRAINING"})).unwrap();
    let found = told.world.now.as_millis() as f64 / 1000.0;
    assert_eq!(drained["events"][0]["createdAt"], found, "it is dated by the look that found it");
    told.change_instance(|instance| {
        instance.status = ContainerInstanceStatus::Active;
        instance.agent_connected = false;
        instance.disconnected_at = Some(instance.registered_at);
    });
    told.look();
    let all = told.kinds(json!({"cluster": "default", "filterPattern": "%^INSTANCE_%"}));
    let expected = ["INSTANCE_DISCONNECTED", "INSTANCE_REGISTERED", "INSTANCE_DRAINING", "INSTANCE_ACTIVE"];
    assert_eq!(sorted(&all), sorted(&expected.map(str::to_owned)));
    // Nothing new: nothing is told twice.
    told.look();
    assert_eq!(told.kinds(json!({"filterPattern": "%^INSTANCE_%"})).len(), all.len());
}

#[test]
fn an_instance_that_drains_as_soon_as_it_is_there_is_told_of() {
    let mut told = Told::with_capacity(7800);
    let now = told.world.now;
    told.change_instance(|instance| {
        instance.registered_at = now;
        instance.status = ContainerInstanceStatus::Draining;
    });
    let both = ["INSTANCE_REGISTERED", "INSTANCE_DRAINING"].map(str::to_owned);
    assert_eq!(sorted(&told.kinds(json!({"filterPattern": "%^INSTANCE_%"}))), sorted(&both));
    // A server that starts knows it from its tables, and not since when.
    let mut later = Told::with_capacity(7800);
    later.world.state = told.world.state.clone();
    later.world.pass(LONG);
    later.seen_at = later.world.now;
    assert_eq!(later.kinds(json!({"filterPattern": "%^INSTANCE_%"})), both[..1]);
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words
}

#[test]
fn health_is_told_when_it_changes() {
    let mut told = Told::with_capacity(7800);
    let container = json!({"name": "app", "image": "app:1", "memory": 128, "versionConsistency": "disabled",
        "healthCheck": {"command": ["CMD-SHELL", "true"]}});
    told.world.define(json!({"family": "app", "containerDefinitions": [container]}));
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.look();
    for health in [HealthStatus::Healthy, HealthStatus::Unhealthy] {
        let mut task = told.world.live().remove(0);
        task.containers[0].health_status = health;
        told.world.state.ecs.put_task(task);
        told.look();
    }
    let kinds = told.kinds(json!({"filterPattern": "%HEALTHY%"}));
    assert_eq!(kinds, ["TASK_HEALTHY", "TASK_UNHEALTHY"]);
}

#[test]
fn what_is_forgotten_is_explained_from_the_feed() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    told.world.agent_acts(runs);
    told.look();
    let victim = told.world.live()[0].id;
    told.world.agent_acts(|task| if task.id == victim { Fate::Exits } else { Fate::Runs });
    told.look();
    told.world.pass(Duration::from_secs(3601));
    let key = crate::services::ecs::state::TaskKey { cluster: ClusterName::default_cluster(), id: victim };
    assert!(told.world.state.ecs.task(&key).is_none(), "it is forgotten");

    let arn = told.world.scope.ecs(gantry_decide::arn::EcsResource::Task(key.cluster, victim)).text();
    for name in [victim.to_string(), arn.clone()] {
        let why = told.call("Explain", json!({"subject": name})).unwrap();
        let verdict = why["verdict"].as_str().unwrap();
        assert!(verdict.starts_with(&format!("The task {victim} is not there any more.")), "{verdict}");
        assert!(verdict.contains("Essential container in task exited"), "{verdict}");
        assert_eq!((&why["kind"], &why["resourceArn"]), (&json!("TASK"), &json!(arn)));
        assert_eq!(why["history"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn subjects_are_found_by_name_and_by_the_beginning_of_an_id() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 2}));
    told.world.agent_acts(runs);
    let why = told.call("Explain", json!({"subject": "web"})).unwrap();
    assert_eq!((&why["kind"], why["history"].as_array().unwrap().is_empty()), (&json!("SERVICE"), false));
    let tasks: Vec<String> = told.world.live().iter().map(|task| task.id.to_string()).collect();
    let shared = tasks[0].chars().zip(tasks[1].chars()).take_while(|(one, other)| one == other).count();
    let one = told.call("Explain", json!({"subject": tasks[0][..shared + 1]})).unwrap();
    assert!(one["resourceArn"].as_str().unwrap().ends_with(&tasks[0]));
    let both = told.call("Explain", json!({"subject": tasks[0][..shared]})).unwrap_err();
    assert_eq!(both.code, "AmbiguousSubjectException");
    assert!(
        tasks.iter().all(|task| both.message.contains(&format!("task/default/{task}"))),
        "{}",
        both.message
    );
    let instance = told.instance().id.to_string();
    let one = told.call("Explain", json!({"subject": instance[..12], "cluster": "default"})).unwrap();
    assert_eq!(one["kind"], "CONTAINER_INSTANCE");

    let fails =
        |told: &mut Told, request: Value| told.call("Explain", request).unwrap_err().code.into_owned();
    assert_eq!(fails(&mut told, json!({"subject": "nobody"})), "SubjectNotFoundException");
    assert_eq!(fails(&mut told, json!({"subject": "web", "cluster": "other"})), "ClusterNotFoundException");
    assert_eq!(fails(&mut told, json!({"subject": "a b%"})), "InvalidParameterException");
    assert_eq!(
        fails(&mut told, json!({"subject": "arn:aws:ecs:eu-north-1:123456789012:cluster/default"})),
        "InvalidParameterException"
    );
    assert_eq!(fails(&mut told, json!({"subject": "web", "nextToken": "x"})), "InvalidParameterException");
}

#[test]
fn neither_agents_nor_roles_of_tasks_are_told_anything() {
    let mut told = Told::with_capacity(7800);
    let role = RoleSession {
        role: "app".parse().unwrap(),
        role_type: RoleType::TaskApplication,
        task: told.world.scope.ecs(gantry_decide::arn::EcsResource::Task(
            ClusterName::default_cluster(),
            "5e".repeat(16).parse().unwrap(),
        )),
        expires: told.world.now,
    };
    for principal in [Principal::Agent, Principal::Role(Arc::new(role))] {
        for (operation, request) in [("Explain", json!({"subject": "web"})), ("ListEvents", json!({}))] {
            let denied = told.call_as(principal.clone(), operation, request).unwrap_err();
            assert_eq!(denied.code, "AccessDeniedException", "{operation}");
        }
    }
}

#[test]
fn pages_of_events_follow_each_other() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 5}));
    told.world.agent_acts(runs);
    let all = told.call("ListEvents", json!({})).unwrap();
    let ids = |page: &Value| -> Vec<Value> {
        page["events"].as_array().unwrap().iter().map(|event| event["eventId"].clone()).collect()
    };
    let (mut found, mut token) = (Vec::new(), Value::Null);
    loop {
        let mut request = json!({"maxResults": 4});
        if !token.is_null() {
            request["nextToken"] = token;
        }
        let page = told.call("ListEvents", request).unwrap();
        assert!(ids(&page).len() <= 4);
        found.extend(ids(&page));
        token = page["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(found, ids(&all));
    assert!(found.len() > 10 && found.is_sorted_by_key(|id| id.as_str().unwrap().to_owned()));
}

#[test]
fn what_is_there_is_explained_without_its_history() {
    let mut told = Told::with_capacity(7800);
    told.world.create_service(json!({"desiredCount": 1}));
    let World { scope, state, now, random, .. } = &mut told.world;
    let caller =
        Caller { scope: scope.clone(), principal: Principal::Root, access_key_id: "AKIAEXAMPLE".to_owned() };
    let call = Call { caller, request_id: RequestId::random(random), endpoint: String::new() };
    let plan = super::ops::explain::explain(
        View { scope, state, now: *now },
        &call,
        gantry_api::gantry::ExplainRequest { subject: "web".to_owned(), ..Default::default() },
    );
    let response = (plan.unwrap().reply)(Err(bulk::Error::Unavailable)).unwrap();
    let why: Value = serde_json::from_slice(&json::to_vec(response.as_ref())).unwrap();
    assert!(why["verdict"].as_str().unwrap().starts_with("0 of 1 task of the service web run"), "{why}");
    let last = why["findings"].as_array().unwrap().last().unwrap();
    assert_eq!(last["topic"], "history");
}
