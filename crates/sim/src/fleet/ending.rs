//! How a run ends: faults stop, users ask for what can be had, and everything must come right by itself. What only a
//! user can mend is mended then, and at last everything must be exactly as asked.

use super::Fleet;
use super::plan::Wish;
use crate::agent::Agent;
use gantry_control::services::ecs::state::{RolloutState, Service, ServiceDeploymentKey, TaskKey};
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::random::Random;
use gantry_decide::task_engine::TaskArn;
use gantry_store::Record;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long everything may take to come right by itself: the longest pause of a service whose tasks cannot start, and some.
pub const BY_ITSELF: Duration = Duration::from_secs(50 * 60);
/// The same, after users have mended what only they can.
pub const MENDED: Duration = Duration::from_secs(50 * 60);
/// Least of what a host has; see the plan.
const HOST_MEMORY: i64 = 1000;
const HOST_CPU: i64 = 2048;
const POOL_HOST_MEMORY: i64 = 4096;

/// The last that a service told.
fn events(service: &Service) -> Vec<&str> {
    service.events.iter().rev().take(5).map(|event| event.message.as_str()).collect()
}

impl Fleet {
    /// How many tasks of a service fit for certain, twice: a deployment may run old and new ones.
    fn fits(&self, wish: &Wish) -> usize {
        let eligible = |host: &&super::plan::Host| {
            host.is_fargate == wish.is_fargate && wish.rack.is_none_or(|rack| rack == host.rack)
        };
        let hosts = i64::try_from(self.script.hosts.iter().filter(eligible).count()).unwrap_or(0);
        if wish.port.is_some() || wish.distinct {
            return usize::try_from(hosts / 2).unwrap_or(0).max(1);
        }
        let (mut memory, mut cpu, mut sharers) = (HOST_MEMORY, HOST_CPU, 0);
        for other in self.script.wishes.iter().filter(|other| other.is_fargate == wish.is_fargate) {
            if other.is_daemon {
                memory -= other.memory;
                cpu -= other.cpu;
            } else {
                sharers += 1;
            }
        }
        if wish.is_fargate {
            memory = POOL_HOST_MEMORY;
        }
        let by_memory = hosts * memory / (2 * wish.memory * sharers);
        let by_cpu = if wish.cpu > 0 { hosts * cpu / (2 * wish.cpu * sharers) } else { by_memory };
        usize::try_from(by_memory.min(by_cpu)).unwrap_or(0).clamp(1, self.plan.tasks)
    }

    pub(super) fn make_peace(&mut self) {
        let state = self.snapshot();
        self.judge_what_was_told(&state);
        for agent in 0..self.agents.len() {
            self.ask(self.set_status(agent, "ACTIVE"));
        }
        let loose =
            state.ecs.tasks().iter().filter(|(_, task)| task.is_live() && task.service_key().is_none());
        let loose: Vec<String> = loose.map(|(_, task)| task.arn(&self.scope).to_string()).collect();
        for task in loose {
            self.ask(("StopTask", json!({"task": task})));
        }
        for wish in self.script.wishes.clone() {
            let mut request = json!({"service": wish.name, "deploymentConfiguration": wish.configuration()});
            if !wish.is_daemon {
                request["desiredCount"] = json!(1 + self.random.below(self.fits(&wish)));
            }
            self.ask(("UpdateService", request));
        }
    }

    /// Deployments have ended by themselves, well or not; what did not go well is replaced.
    pub(super) fn mend(&mut self) {
        let state = self.snapshot();
        for wish in self.script.wishes.clone() {
            let service = Self::service_of(&state, wish.name);
            let primary = service.primary().expect("a service has a deployment");
            let [good, _, missing] = wish.families();
            let hopeless = primary.task_definition.family.as_str() == missing.0;
            let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
            let attempt = state.ecs.service_deployment(&key).expect("the newest attempt is remembered");
            // Without a circuit breaker ECS tries for ever.
            let waits = hopeless && !wish.breaker && primary.rollout_state != RolloutState::Completed;
            assert!(
                attempt.status.is_over() || waits,
                "{wish:?}: the attempt is {:?}, with {:?}",
                attempt.status,
                events(service)
            );
            if hopeless || primary.rollout_state != RolloutState::Completed {
                let request =
                    json!({"service": wish.name, "taskDefinition": good.0, "forceNewDeployment": true});
                self.ask(("UpdateService", request));
            }
        }
    }

    /// Everything must be as users asked, on the hosts too.
    pub(super) fn judge_the_end(&self) {
        let state = self.snapshot();
        state.check_invariants();
        self.judge_what_was_told(&state);
        assert!(self.unsure.is_empty(), "without faults every call is answered: {:?}", self.unsure);
        let mut live: BTreeSet<TaskArn> = BTreeSet::new();
        for (key, task) in state.ecs.tasks().iter().filter(|(_, task)| task.is_live()) {
            let statuses = (task.last_status, task.desired_status);
            assert_eq!(statuses, (LastStatus::Running, DesiredStatus::Running), "{key:?}");
            live.insert(TaskArn(task.arn(&self.scope).to_string()));
        }
        let on_hosts: BTreeSet<TaskArn> = self.agents.iter().flat_map(Agent::running).cloned().collect();
        let lost: Vec<_> = live.difference(&on_hosts).collect();
        let stray: Vec<_> = on_hosts.difference(&live).collect();
        assert!(lost.is_empty() && stray.is_empty(), "not on hosts: {lost:?}; on hosts alone: {stray:?}");
        for wish in &self.script.wishes {
            let service = Self::service_of(&state, wish.name);
            let running = state.ecs.tasks_of(&service.key()).count();
            let eligible = |host: &&super::plan::Host| {
                !host.is_fargate && wish.rack.is_none_or(|rack| rack == host.rack)
            };
            let wanted = match wish.is_daemon {
                true => self.script.hosts.iter().filter(eligible).count(),
                false => usize::try_from(self.desired[wish.name]).unwrap_or(0),
            };
            assert_eq!(running, wanted, "{wish:?} does not have its tasks: {:?}", events(service));
            let primary = service.primary().expect("a service has a deployment");
            assert_eq!(primary.rollout_state, RolloutState::Completed, "{}", wish.name);
            assert_eq!(service.deployments.len(), 1, "{} keeps old deployments", wish.name);
            let newest = |task: &gantry_control::services::ecs::state::Task| {
                task.definition_id == primary.task_definition
            };
            assert!(state.ecs.tasks_of(&service.key()).all(newest), "{} runs an older revision", wish.name);
        }
    }

    /// What is STOPPED runs nowhere.
    pub(super) fn judge_ends(&self, ended: &[TaskKey]) {
        for key in ended {
            let arn = TaskArn(key.arn(&self.scope).to_string());
            let runs = |agent: &Agent| agent.running().any(|task| *task == arn);
            assert!(!self.agents.iter().any(runs), "{key} is STOPPED and runs");
        }
    }
}
