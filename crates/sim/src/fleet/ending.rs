//! How a run ends: faults stop, users ask for what can be had, and everything must come right by itself. What only a
//! user can mend is mended then, and at last everything must be exactly as asked.

use super::plan::{Host, Wish, Without};
use super::{Fleet, What, sets, shifts};
use crate::agent::Agent;
use gantry_control::services::ecs::state::{RolloutState, Service, ServiceDeploymentKey, Task, TaskKey};
use gantry_control::services::elbv2::state::Target;
use gantry_control::state::ScopeState;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_decide::random::Random;
use gantry_decide::routing::HealthState;
use gantry_decide::routing::config::{Action, WeightedGroup};
use gantry_decide::task_engine::TaskArn;
use gantry_store::Record;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long everything may take to come right by itself: the longest pause of a service whose tasks cannot start, and some,
/// twice for a deployment that another one follows, after [`CALM_MAX`].
pub const BY_ITSELF: Duration = Duration::from_secs(130 * 60);
/// How long it may take after users have mended what only they can.
pub const MENDED: Duration = Duration::from_secs(50 * 60);
/// When all has come right by then, users deploy once more.
const CALM_MAX: Duration = Duration::from_secs(30 * 60);
/// When nothing was written for so long, and nothing is under way, nothing more comes of waiting: longer than all pauses
/// of the control plane's but those after failures, which are under way.
const QUIET: Duration = Duration::from_secs(6 * 60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Least of what a host has; see the plan.
const HOST_MEMORY: i64 = 1000;
const HOST_CPU: i64 = 2048;
const POOL_HOST_MEMORY: i64 = 4096;

/// The last that a service told.
fn events(service: &Service) -> Vec<&str> {
    service.events.iter().rev().take(5).map(|event| event.message.as_str()).collect()
}

impl Fleet {
    /// How many tasks of a service fit for certain, twice, because a deployment may run old and new ones; and where
    /// there are daemons even if all tasks come to the same host.
    fn fits(&self, wish: &Wish) -> usize {
        let eligible = |host: &&Host| {
            host.is_fargate == wish.is_fargate && wish.rack.is_none_or(|rack| rack == host.rack)
        };
        let hosts = i64::try_from(self.script.hosts.iter().filter(eligible).count()).unwrap_or(0);
        let missing = i64::from(self.script.without != Without::Nothing && !wish.is_fargate);
        let hosts = hosts - missing;
        let (mut memory, mut cpu) = (HOST_MEMORY, HOST_CPU);
        if wish.is_fargate {
            memory = POOL_HOST_MEMORY;
        }
        let (mut sharers, mut by_host) = (0, hosts);
        for other in self.script.wishes.iter().filter(|other| other.is_fargate == wish.is_fargate) {
            if other.is_daemon {
                memory -= other.memory;
                cpu -= other.cpu;
                by_host = 1;
            } else {
                sharers += 1;
            }
        }
        let share = |of_host: i64, each: i64| by_host * of_host / (2 * each.max(1) * sharers);
        let mut most = share(memory, wish.memory).min(share(cpu, wish.cpu));
        if wish.port.is_some() || wish.distinct {
            most = most.min(hosts / 2);
        }
        usize::try_from(most).unwrap_or(0).clamp(1, self.plan.tasks)
    }

    pub(super) fn make_peace(&mut self) {
        self.at(self.now + LOOK_EVERY, What::Look);
        self.dies_between = false;
        let state = self.snapshot();
        self.judge_what_was_told(&state);
        for agent in 0..self.agents.len() {
            let drained = self.script.without == Without::Drained(agent);
            self.ask(self.set_status(agent, if drained { "DRAINING" } else { "ACTIVE" }));
        }
        if let Without::Host(agent) = self.script.without {
            self.kill_host(agent);
        }
        let loose =
            state.ecs.tasks().iter().filter(|(_, task)| task.is_live() && task.service_key().is_none());
        let loose: Vec<String> = loose.map(|(_, task)| task.arn(&self.scope).to_string()).collect();
        for task in loose {
            self.ask(("StopTask", json!({"task": task})));
        }
        for wish in self.script.wishes.clone() {
            let mut request = json!({"service": wish.name});
            if wish.is_external {
                self.tidy_sets(&wish);
            } else {
                request["deploymentConfiguration"] = wish.configuration();
            }
            if !wish.is_daemon {
                request["desiredCount"] = json!(1 + self.random.below(self.fits(&wish)));
            }
            self.ask(("UpdateService", request));
        }
    }

    /// Goes on to what comes next as soon as nothing more comes of waiting.
    pub(super) fn look(&mut self) {
        if self.ends <= self.now {
            return;
        }
        if self.last_write + QUIET <= self.now && self.is_still() {
            if self.is_mended {
                self.ends = self.now;
                return;
            }
            let is_early = self.now < self.peace_from + CALM_MAX;
            if is_early && !std::mem::replace(&mut self.is_calm, true) {
                self.deploy_in_calm();
            } else {
                self.mend();
            }
        }
        self.at(self.now + LOOK_EVERY, What::Look);
    }

    /// Nothing is under way: all deployments are over, and tasks are as they shall be.
    fn is_still(&self) -> bool {
        let state = self.snapshot();
        let over = state.ecs.service_deployments().values().all(|attempt| attempt.status.is_over());
        let settled = |task: &Task| {
            !task.is_live()
                || (task.last_status, task.desired_status) == (LastStatus::Running, DesiredStatus::Running)
        };
        let settled = state.ecs.tasks().values().all(|task| settled(task));
        let complete = |service: &Service| {
            let failed =
                service.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Failed);
            let there = state.ecs.tasks_of(&service.key()).filter(|task| task.is_live()).count();
            let wanted = match service.has_task_sets() {
                true => sets::wanted(service),
                false => service.desired_count as usize,
            };
            failed || there == wanted
        };
        over && settled && state.ecs.services().values().all(|service| complete(service))
    }

    /// Deployments have ended by themselves, well or not; what did not go well is replaced.
    pub(super) fn mend(&mut self) {
        if std::mem::replace(&mut self.is_mended, true) {
            return;
        }
        self.ends = self.now + MENDED;
        let state = self.snapshot();
        self.judge_what_is_missing(&state);
        for wish in self.script.wishes.clone() {
            if wish.is_external {
                self.judge_deleted_sets(&state, &wish);
                self.tidy_sets(&wish);
                continue;
            }
            let service = Self::service_of(&state, wish.name);
            for older in state.ecs.deployments_of(&service.key()).filter(|older| older.id != service.attempt)
            {
                assert!(older.status.is_over(), "{}: an older attempt goes on: {older:?}", wish.name);
            }
            let primary = service.primary().expect("a service has a deployment");
            let good = &wish.families()[0];
            let hopeless = wish.is_hopeless(primary.task_definition.family.as_str());
            let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
            let attempt = state.ecs.service_deployment(&key).expect("the newest attempt is remembered");
            // Without a circuit breaker ECS tries for ever.
            let waits = hopeless && !wish.breaker && primary.rollout_state != RolloutState::Completed;
            assert!(
                attempt.status.is_over() || waits,
                "at {:?} the attempt of {wish:?} goes on: {}, with {:?}",
                self.server_now(),
                shifts::told(&state, service),
                events(service)
            );
            if hopeless || primary.rollout_state != RolloutState::Completed {
                let mut request =
                    json!({"service": wish.name, "taskDefinition": good.0, "forceNewDeployment": true});
                if !wish.is_daemon {
                    // Nobody decides any more.
                    request["deploymentConfiguration"] = json!({"lifecycleHooks": []});
                }
                self.ask(("UpdateService", request));
            }
        }
    }

    /// Nothing is left where nothing can be, and what is missing comes back.
    fn judge_what_is_missing(&mut self, state: &ScopeState) {
        let (Without::Host(agent) | Without::Drained(agent)) = self.script.without else { return };
        let arn = &self.agents[agent].instance_arn;
        // Where the newest deployment has failed nothing is started, and what serves stays.
        let replaceable = |task: &Task| {
            let service = task.service_key().and_then(|key| state.ecs.service(&key));
            let primary = service.and_then(Service::primary);
            primary.is_some_and(|primary| primary.rollout_state == RolloutState::Completed)
        };
        let here = state.ecs.tasks().iter().filter(|(_, task)| {
            let instance = task.instance.as_ref().map(|key| key.arn(&self.scope).to_string());
            task.is_live() && instance.as_ref() == Some(arn) && replaceable(task)
        });
        let here: Vec<_> = here.map(|(key, task)| (key, task.desired_status, task.last_status)).collect();
        assert!(here.is_empty(), "{here:?} are left by {:?}", self.script.without);
        match self.script.without {
            Without::Host(_) => self.after(1..2, What::Restart { agent }),
            _ => self.ask(self.set_status(agent, "ACTIVE")),
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
        for (key, instance) in state.ecs.container_instances().iter() {
            assert!(instance.agent_connected && instance.lost_at.is_none(), "{key:?} counts as away");
        }
        let on_hosts: BTreeSet<TaskArn> = self.agents.iter().flat_map(Agent::running).cloned().collect();
        let lost: Vec<_> = live.difference(&on_hosts).collect();
        let stray: Vec<_> = on_hosts.difference(&live).collect();
        assert!(lost.is_empty() && stray.is_empty(), "not on hosts: {lost:?}; on hosts alone: {stray:?}");
        for wish in &self.script.wishes {
            let service = Self::service_of(&state, wish.name);
            let running = state.ecs.tasks_of(&service.key()).count();
            let eligible = |host: &&Host| !host.is_fargate && wish.rack.is_none_or(|rack| rack == host.rack);
            let wanted = match wish {
                Wish { is_daemon: true, .. } => self.script.hosts.iter().filter(eligible).count(),
                Wish { is_external: true, .. } => Self::wanted_of_sets(&state, wish),
                _ => usize::try_from(self.desired[wish.name]).unwrap_or(0),
            };
            assert_eq!(running, wanted, "{wish:?} does not have its tasks: {:?}", events(service));
            if wish.is_external {
                self.judge_sets(&state, wish);
                continue;
            }
            let primary = service.primary().expect("a service has a deployment");
            assert_eq!(primary.rollout_state, RolloutState::Completed, "{}", wish.name);
            assert_eq!(service.deployments.len(), 1, "{} keeps old deployments", wish.name);
            let newest = |task: &Task| task.definition_id == primary.task_definition;
            assert!(state.ecs.tasks_of(&service.key()).all(newest), "{} runs an older revision", wish.name);
            self.judge_zones(&state, wish);
            if wish.is_balanced {
                judge_site(&state, service);
            }
        }
    }

    /// A service that ECS rebalances by default is spread evenly over the zones, unless no host of the poorest has room.
    fn judge_zones(&self, state: &ScopeState, wish: &Wish) {
        let by_zone = |strategy: &Value| strategy["field"] == "attribute:ecs.availability-zone";
        let spreads = wish.strategy.first().is_none_or(by_zone);
        let service = Self::service_of(state, wish.name);
        let maximum =
            u64::from(service.desired_count) * u64::from(service.configuration.maximum_percent) / 100;
        let has_room_to_move = maximum > u64::from(service.desired_count);
        if wish.is_daemon || wish.is_fargate || !spreads || !has_room_to_move {
            return;
        }
        // By zone: tasks of the service, and whether one more finds room.
        let mut zones: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        for (index, host) in self.script.hosts.iter().enumerate() {
            if host.is_fargate || wish.rack.is_some_and(|rack| rack != host.rack) {
                continue;
            }
            let arn = &self.agents[index].instance_arn;
            let here = || {
                let on = |task: &Task| task.instance.as_ref().map(|key| key.arn(&self.scope).to_string());
                state
                    .ecs
                    .tasks()
                    .values()
                    .filter(move |task| task.is_live() && on(task).as_ref() == Some(arn))
            };
            let own = here().filter(|task| task.service_key().as_ref() == Some(&service.key())).count();
            let (cpu, memory) = self.judge.used(here());
            let fits = cpu + wish.cpu <= host.cpu && memory + wish.memory <= host.memory;
            let is_free = own == 0 || wish.port.is_none() && !wish.distinct;
            let zone = zones.entry(host.zone).or_default();
            zone.0 += own;
            zone.1 |= fits && is_free;
        }
        let most = zones.values().map(|(tasks, _)| *tasks).max().unwrap_or(0);
        let starved = zones.iter().find(|(_, (tasks, room))| *room && tasks + 2 <= most);
        assert!(starved.is_none(), "{wish:?} is not spread over its zones: {zones:?}, {:?}", events(service));
    }

    /// What is STOPPED runs nowhere.
    pub(super) fn judge_ends(&self, ended: &[TaskKey]) {
        let head = self.engine.head().snapshot(&self.scope);
        for key in ended {
            let instance = head.ecs.task(key).and_then(|task| task.instance.as_ref());
            let instance = instance.and_then(|key| head.ecs.container_instance(key));
            let lost = instance.is_some_and(|instance| instance.lost_at.is_some());
            let arn = TaskArn(key.arn(&self.scope).to_string());
            // The stock agent, which holds no leases, may run on what is given up.
            let excused = |agent: &Agent| lost && agent.lease.is_none();
            let runs = |agent: &&Agent| agent.running().any(|task| *task == arn) && !excused(agent);
            if let Some(agent) = self.agents.iter().find(runs) {
                let task = head.ecs.task(key).map(|task| (task.stop_code, &task.stopped_reason, task.sent));
                let lease = agent.lease.as_ref().map(|lease| lease.until());
                let state = (agent.engine.is_some(), agent.session, agent.fenced);
                panic!(
                    "{key} is STOPPED and runs: {task:?}, lost {lost}, lease {lease:?}, agent {state:?}, {:?}",
                    self.now
                );
            }
        }
    }
}

/// All of what a service's rule sends goes to the group in which its tasks are, and balancers find them all well.
///
/// # Panics
/// When that is not so.
fn judge_site(state: &ScopeState, service: &Service) {
    let elbv2 = &state.elbv2;
    let own = |target: &&Arc<Target>| {
        let task = target.task.map(|id| TaskKey { cluster: service.cluster.clone(), id });
        task.and_then(|key| state.ecs.task(&key))
            .is_some_and(|task| task.service_key() == Some(service.key()))
    };
    let targets: Vec<&Arc<Target>> = elbv2.targets.values().filter(own).collect();
    let is_well = |target: &&Arc<Target>| {
        let health = target.health.map(|(health, _)| health.state);
        target.deregistered_at.is_none() && health == Some(HealthState::Healthy)
    };
    let well = targets.iter().filter(|target| is_well(target)).count();
    assert_eq!(
        (well, targets.len()),
        (service.desired_count as usize, well),
        "{}: {targets:?}",
        service.name
    );
    let groups: BTreeSet<&str> = targets.iter().map(|target| target.key.group.name.as_str()).collect();
    for rule in elbv2.rules.values() {
        let Action::Forward(forward) = &rule.action else { continue };
        let names = |group: &WeightedGroup, name: &str| {
            group.group.as_str().contains(&format!(":targetgroup/{name}"))
        };
        if !forward.groups.iter().any(|group| names(group, &format!("{}-", service.name))) {
            continue;
        }
        let served = forward.groups.iter().filter(|group| group.weight > 0);
        let astray: Vec<_> =
            served.filter(|group| !groups.iter().any(|name| names(group, &format!("{name}/")))).collect();
        assert!(
            astray.is_empty(),
            "{} sends requests to {astray:?}, its tasks are in {groups:?}",
            service.name
        );
    }
}
