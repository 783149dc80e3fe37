//! What users do, and what they were told.

use super::balancers::machine;
use super::plan::{Host, Manner, Program, Wish};
use super::{Fleet, Waiting};
use crate::agent::Agent;
use gantry_control::call::Principal;
use gantry_control::engine::Input;
use gantry_control::services::ecs::state::{
    ContainerInstanceKey, FARGATE_POOL, RolloutState, Service, ServiceDeploymentKey, ServiceKey, Task,
};
use gantry_control::state::ScopeState;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::deployment::hooks::{HookRun, HookStatus};
use gantry_decide::deployment::stage::Stage;
use gantry_decide::lease::Holder;
use gantry_decide::lifecycle::{ContainerStatus, LastStatus};
use gantry_decide::random::{Random, Seeded};
use gantry_store::Record;
use serde_json::{Value, json};
use std::sync::Arc;

/// Percentages that leave no room for most services: a deployment waits until they are changed.
const NARROW: (u32, u32) = (100, 100);
/// The definition of tasks that users run by themselves.
const LOOSE: &str = "loose";

impl Fleet {
    pub(super) fn set_up(&mut self) {
        for wish in self.script.wishes.clone() {
            for (family, program) in wish.families() {
                self.certain("RegisterTaskDefinition", &wish.definition(&family, program));
            }
        }
        let loose = json!({"family": LOOSE, "networkMode": "none",
            "containerDefinitions": [{"name": Program::Well.name(), "image": "app:1", "memory": 60}]});
        self.certain("RegisterTaskDefinition", &loose);
        for (index, host) in self.script.hosts.clone().into_iter().enumerate() {
            self.join(index, &host);
            self.after(0..500, super::What::Restart { agent: index });
        }
        let sites = self.build_sites();
        for wish in self.script.wishes.clone() {
            let count = 1 + self.random.below(self.plan.tasks);
            let balanced = sites.get(wish.name).map(|site| &site.load_balancers);
            self.certain("CreateService", &wish.creation(count, &self.subnet, balanced));
            if !wish.is_daemon {
                self.desired.insert(wish.name.to_owned(), count as i64);
            }
        }
        let state = self.published.snapshot(&self.scope);
        self.judge.begin_anew(&state);
        self.wake = self.now + std::time::Duration::from_millis(1);
        self.at(self.wake, super::What::Wake);
    }

    fn join(&mut self, index: usize, host: &Host) {
        let mut names = vec!["com.amazonaws.ecs.capability.docker-remote-api.1.18"];
        if host.is_fargate {
            names.extend([
                "gantry.inline-eni",
                "ecs.capability.task-eni",
                "ecs.capability.task-cpu-mem-limit",
            ]);
        }
        let mut attributes: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        if host.holds_leases {
            attributes.push(json!({"name": "gantry.lease"}));
        }
        attributes.push(json!({"name": "rack", "value": host.rack}));
        let document = json!({"availabilityZone": host.zone, "instanceId": machine(index)}).to_string();
        let cluster = if host.is_fargate { FARGATE_POOL } else { "default" };
        let request = json!({"cluster": cluster, "attributes": attributes, "instanceIdentityDocument": document,
            "totalResources": [{"name": "CPU", "type": "INTEGER", "integerValue": host.cpu},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": host.memory}]});
        let reply = self.certain("RegisterContainerInstance", &request);
        let arn = reply["containerInstance"]["containerInstanceArn"].as_str().unwrap_or_default();
        let EcsResource::ContainerInstance(cluster, id) = arn.parse::<EcsArn>().expect("an ARN").resource
        else {
            panic!("{arn} is no instance");
        };
        self.judge.add_host(ContainerInstanceKey { cluster, id }, host.clone());
        let lease = host.holds_leases.then(Holder::default);
        self.agents.push(Agent::new(arn.to_owned(), lease));
    }

    pub(super) fn snapshot(&self) -> Arc<ScopeState> {
        self.published.snapshot(&self.scope)
    }

    pub(super) fn service_of<'a>(state: &'a ScopeState, name: &str) -> &'a Service {
        let cluster = "default".parse().expect("a cluster's name");
        let key = ServiceKey { cluster, name: name.parse().expect("a service's name") };
        state.ecs.service(&key).unwrap_or_else(|| panic!("the service {name} is lost"))
    }

    /// A step of the script.
    pub(super) fn user(&mut self, random: &mut Seeded) {
        let wish = self.script.wishes[random.below(self.script.wishes.len())].clone();
        let asked = match random.below(13) {
            0..=2 if !(wish.is_daemon || wish.is_external && random.below(2) == 0) => {
                let count = random.below(self.plan.tasks + 1);
                ("UpdateService", json!({"service": wish.name, "desiredCount": count}))
            }
            1..=5 if wish.is_external => match self.change_sets(&wish, random) {
                Some(asked) => asked,
                None => return,
            },
            0..=4 => {
                let family = wish.any_family(random);
                ("UpdateService", json!({"service": wish.name, "taskDefinition": family}))
            }
            5 => ("UpdateService", json!({"service": wish.name, "forceNewDeployment": true})),
            6 if !wish.is_external => {
                let mut configuration = wish.configuration();
                if !wish.is_daemon && random.below(3) == 0 {
                    configuration["minimumHealthyPercent"] = json!(NARROW.0);
                    configuration["maximumPercent"] = json!(NARROW.1);
                }
                if !wish.is_daemon && random.below(2) == 0 {
                    Manner::any(random).put(&mut configuration);
                }
                ("UpdateService", json!({"service": wish.name, "deploymentConfiguration": configuration}))
            }
            6 | 7 => ("RunTask", json!({"taskDefinition": LOOSE, "count": 1 + random.below(3)})),
            8 => match self.stop_deployment(&wish, random) {
                Some(asked) => asked,
                None => return,
            },
            9 => match self.decide_hook(&wish, random) {
                Some(asked) => asked,
                None => return,
            },
            10 | 11 => {
                let agent = random.below(self.agents.len());
                self.set_status(agent, if random.below(2) == 0 { "DRAINING" } else { "ACTIVE" })
            }
            _ => match self.stop_task(random) {
                Some(asked) => asked,
                None => return,
            },
        };
        self.ask(asked);
    }

    /// All is as asked, and nothing goes wrong: where traffic shifts, users bring another revision.
    pub(super) fn deploy_in_calm(&mut self) {
        let state = self.snapshot();
        for wish in self.script.wishes.clone() {
            let service = Self::service_of(&state, wish.name);
            let arrived =
                service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Completed);
            if arrived && service.configuration.strategy.shifts_traffic() && !service.is_daemon() {
                self.ask(("UpdateService", json!({"service": wish.name, "forceNewDeployment": true})));
            }
        }
    }

    /// Who sees a next revision serve brings another one while the last one goes, once to each service.
    pub(super) fn follow_up(&mut self) {
        let state = self.snapshot();
        let cleans_up = |name: &&str| {
            let service = Self::service_of(&state, name);
            let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
            let attempt = state.ecs.service_deployment(&key).filter(|attempt| !attempt.status.is_over());
            let shift = attempt.and_then(|attempt| attempt.shift.as_ref());
            shift.is_some_and(|shift| shift.stage == Stage::CleanUp && !shift.returning)
        };
        let names = self.script.wishes.iter().map(|wish| wish.name);
        let fresh = names.filter(|name| !self.followed_up.contains(name)).find(cleans_up);
        if let Some(name) = fresh {
            self.followed_up.insert(name);
            self.ask(("UpdateService", json!({"service": name, "forceNewDeployment": true})));
        }
    }

    pub(super) fn set_status(&self, agent: usize, status: &str) -> (&'static str, Value) {
        let cluster = if self.script.hosts[agent].is_fargate { FARGATE_POOL } else { "default" };
        let instances = [&self.agents[agent].instance_arn];
        let request = json!({"cluster": cluster, "containerInstances": instances, "status": status});
        ("UpdateContainerInstancesState", request)
    }

    fn stop_deployment(&self, wish: &Wish, random: &mut Seeded) -> Option<(&'static str, Value)> {
        let state = self.snapshot();
        let service = Self::service_of(&state, wish.name);
        let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
        let kind = if random.below(2) == 0 { "ROLLBACK" } else { "ABORT" };
        let request = json!({"serviceDeploymentArn": key.arn(&self.scope).to_string(), "stopType": kind});
        // One that is over is refused: users do not try for ever.
        let open = state.ecs.service_deployment(&key).is_some_and(|attempt| !attempt.status.is_over());
        open.then_some(("StopServiceDeployment", request))
    }

    /// Says how a deployment goes on that waits for it.
    fn decide_hook(&mut self, wish: &Wish, random: &mut Seeded) -> Option<(&'static str, Value)> {
        let state = self.snapshot();
        let service = Self::service_of(&state, wish.name);
        let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
        let shift = state.ecs.service_deployment(&key)?.shift.as_ref()?;
        let waits = |hook: &&HookRun| hook.status_at(self.server_now()) == HookStatus::AwaitingAction;
        let hook = shift.hooks.iter().find(waits)?.id.clone();
        let action = if random.below(4) == 0 { "ROLLBACK" } else { "CONTINUE" };
        if action == "CONTINUE" {
            self.judge.shifts.may_go_on(&hook);
        }
        let arn = key.arn(&self.scope).to_string();
        let request = json!({"serviceDeploymentArn": arn, "hookId": hook, "action": action});
        Some(("ContinueServiceDeployment", request))
    }

    fn stop_task(&self, random: &mut Seeded) -> Option<(&'static str, Value)> {
        let state = self.snapshot();
        let tasks: Vec<&Task> = state.ecs.tasks().iter().map(|(_, task)| task.as_ref()).collect();
        if tasks.is_empty() {
            return None;
        }
        let task = tasks[random.below(tasks.len())];
        Some((
            "StopTask",
            json!({"task": task.arn(&self.scope).to_string(), "cluster": task.cluster.to_string()}),
        ))
    }

    pub(super) fn ask(&mut self, (operation, request): (&'static str, Value)) {
        if let (Some(_), Some(name)) = (request.get("desiredCount"), request["service"].as_str()) {
            self.unsure.insert(name.to_owned());
        }
        let input = self.prepare(operation, &request, Principal::Root);
        if let Input::Call { id, .. } = &input {
            self.waiting.insert(*id, Waiting::User { operation, request });
        }
        self.step(input);
    }

    /// Remembers what a user was told.
    pub(super) fn note(&mut self, operation: &str, request: &Value, response: &Value) {
        self.report.told += 1;
        if let (Some(name), Some(count)) = (request["service"].as_str(), request["desiredCount"].as_i64()) {
            self.desired.insert(name.to_owned(), count);
            self.unsure.remove(name);
        }
        if operation == "RunTask" {
            let tasks = response["tasks"].as_array().into_iter().flatten();
            self.ran.extend(tasks.filter_map(|task| Some(task["taskArn"].as_str()?.to_owned())));
        }
    }

    /// A refusal changes nothing.
    pub(super) fn refused(&mut self, request: &Value) {
        if let (Some(name), Some(_)) = (request["service"].as_str(), request.get("desiredCount")) {
            self.unsure.remove(name);
        }
    }

    /// What was acknowledged is in `state`.
    pub(super) fn judge_what_was_told(&self, state: &ScopeState) {
        for (name, desired) in self.desired.iter().filter(|(name, _)| !self.unsure.contains(*name)) {
            let found = Self::service_of(state, name);
            assert_eq!(i64::from(found.desired_count), *desired, "{name} is not what was acknowledged");
        }
        // Tasks are describable for an hour after their end.
        for arn in self.ran.iter().filter(|_| !self.is_peace()) {
            let EcsResource::Task(cluster, id) = arn.parse::<EcsArn>().expect("an ARN of ours").resource
            else {
                panic!("{arn} is no task's");
            };
            let key = gantry_control::services::ecs::state::TaskKey { cluster, id };
            assert!(state.ecs.task(&key).is_some(), "the acknowledged task {arn} is lost");
        }
        for (key, told) in self.taken.iter().filter(|_| !self.is_peace()) {
            let least = match told {
                ContainerStatus::Pending => LastStatus::Provisioning,
                ContainerStatus::Running => LastStatus::Running,
                ContainerStatus::Stopped => LastStatus::Deprovisioning,
            };
            let found = state.ecs.task(key).map(|task| task.last_status);
            assert!(
                found >= Some(least),
                "{key} is {found:?}, and its agent was told that it is known as {told}"
            );
        }
    }
}
