//! What must hold after every step, judged by a model of its own: it follows the journal's records, and does its own
//! sums. Nothing here calls what the control plane decides by.

use super::plan::{Host, Wish};
use super::sets;
use super::shifts::{self, Shifts, Sides};
use gantry_control::services::ecs::state::ContainerInstanceStatus::Active;
use gantry_control::services::ecs::state::{
    ContainerInstanceKey, RolloutState, Service, ServiceDeploymentKey, ServiceKey, ServiceStatus, Task,
    TaskKey,
};
use gantry_control::state::ScopeState;
use gantry_decide::ids::TaskId;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus, StopCode};
use gantry_decide::routing::HealthState;
use gantry_decide::time::Timestamp;
use gantry_store::{Record, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// A task that runs counts as healthy after so long: ECS's documented figure.
const HEALTHY_AFTER: Duration = Duration::from_secs(40);

/// A task as it was last written.
#[derive(Clone, Debug)]
struct Seen {
    id: TaskId,
    service: Option<String>,
    instance: Option<ContainerInstanceKey>,
    started_by: Option<String>,
    desired: DesiredStatus,
    status: LastStatus,
    started_at: Option<Timestamp>,
    by_scheduler: bool,
    cpu: i64,
    memory: i64,
    port: Option<u16>,
    /// Of its network interface, while it has one.
    address: Option<Ipv4Addr>,
}

impl Seen {
    fn is_live(&self) -> bool {
        self.status != LastStatus::Stopped
    }

    fn shall_run(&self) -> bool {
        self.is_live() && self.desired == DesiredStatus::Running
    }
}

/// What a service's tasks weigh.
struct Weight {
    cpu: i64,
    memory: i64,
    port: Option<u16>,
    distinct: bool,
    rack: Option<&'static str>,
    is_daemon: bool,
    is_balanced: bool,
}

/// See the module.
pub struct Judge {
    weights: BTreeMap<String, Weight>,
    hosts: BTreeMap<ContainerInstanceKey, Host>,
    tasks: BTreeMap<TaskKey, Seen>,
    on_host: BTreeMap<ContainerInstanceKey, BTreeSet<TaskKey>>,
    of_service: BTreeMap<String, BTreeSet<TaskKey>>,
    pub shifts: Shifts,
    /// Deployments that have failed, of each service, before the last step.
    failed: BTreeMap<ServiceKey, BTreeSet<String>>,
}

/// Of a service, the deployments that have failed.
fn failed(service: &Service) -> BTreeSet<String> {
    let failed =
        service.deployments.iter().filter(|deployment| deployment.rollout_state == RolloutState::Failed);
    failed.map(|deployment| deployment.id.to_string()).collect()
}

/// Of its path in the journal: cluster, service, id.
fn deployment_key(path: &str) -> Option<ServiceDeploymentKey> {
    let (cluster, rest) = path.split_once('/')?;
    let (name, id) = rest.split_once('/')?;
    let service = ServiceKey { cluster: cluster.parse().ok()?, name: name.parse().ok()? };
    Some(ServiceDeploymentKey { service, id: id.parse().ok()? })
}

/// What a task of no service weighs: users run the first one's definition.
pub const LOOSE: &str = "";

impl Judge {
    pub fn new(wishes: &[Wish]) -> Judge {
        let weight = |wish: &Wish| Weight {
            cpu: wish.cpu,
            memory: wish.memory,
            port: wish.port,
            distinct: wish.distinct,
            rack: wish.rack,
            is_daemon: wish.is_daemon,
            is_balanced: wish.is_balanced,
        };
        let loose = Weight {
            cpu: 0,
            memory: 60,
            port: None,
            distinct: false,
            rack: None,
            is_daemon: false,
            is_balanced: false,
        };
        let mut weights: BTreeMap<String, Weight> =
            wishes.iter().map(|wish| (wish.name.to_owned(), weight(wish))).collect();
        weights.insert(LOOSE.to_owned(), loose);
        Judge {
            weights,
            hosts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            on_host: BTreeMap::new(),
            of_service: BTreeMap::new(),
            shifts: Shifts::default(),
            failed: BTreeMap::new(),
        }
    }

    pub fn add_host(&mut self, key: ContainerInstanceKey, host: Host) {
        self.hosts.insert(key, host);
    }

    /// A new process has read what was stored.
    pub fn begin_anew(&mut self, state: &ScopeState) {
        self.shifts.begin_anew(state);
        self.failed =
            state.ecs.services().iter().map(|(key, service)| (key.clone(), failed(service))).collect();
        self.tasks.clear();
        self.on_host.clear();
        self.of_service.clear();
        for (key, task) in state.ecs.tasks().iter() {
            let seen = self.read(task);
            self.put(key.clone(), Some(seen));
        }
    }

    fn read(&self, task: &Task) -> Seen {
        let service = task.group.strip_prefix("service:").map(str::to_owned);
        let weight = &self.weights[service.as_deref().unwrap_or(LOOSE)];
        Seen {
            id: task.id,
            instance: task.instance.clone(),
            started_by: task.started_by.as_ref().map(ToString::to_string),
            desired: task.desired_status,
            status: task.last_status,
            started_at: task.started_at,
            by_scheduler: task.stop_code == Some(StopCode::ServiceSchedulerInitiated),
            cpu: weight.cpu,
            memory: weight.memory,
            port: weight.port,
            address: task.eni.as_ref().filter(|eni| eni.attached).map(|eni| eni.address),
            service,
        }
    }

    fn put(&mut self, key: TaskKey, seen: Option<Seen>) -> Option<Seen> {
        let before = match seen.clone() {
            Some(seen) => self.tasks.insert(key.clone(), seen),
            None => self.tasks.remove(&key),
        };
        if let Some(Seen { instance, service, .. }) = &before {
            if let Some(tasks) = instance.as_ref().and_then(|host| self.on_host.get_mut(host)) {
                tasks.remove(&key);
            }
            if let Some(tasks) = service.as_ref().and_then(|name| self.of_service.get_mut(name)) {
                tasks.remove(&key);
            }
        }
        if let Some(Seen { instance, service, .. }) = seen.filter(Seen::is_live) {
            if let Some(host) = instance {
                self.on_host.entry(host).or_default().insert(key.clone());
            }
            if let Some(service) = service {
                self.of_service.entry(service).or_default().insert(key);
            }
        }
        before
    }

    /// Follows one step's batch; `state` is what the step left. Names the tasks that have ended.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn follow(&mut self, now: Timestamp, state: &ScopeState, writes: &[Write]) -> Vec<TaskKey> {
        let (mut came, mut settled) = (Vec::new(), Vec::new());
        let (mut given_up, mut ended) = (Vec::new(), Vec::new());
        let (mut risen, mut arrived) = (Vec::new(), Vec::new());
        for write in writes {
            if let Some((_, path)) = write.key.split_once("/ecs/service-deployment/") {
                let key = deployment_key(path).unwrap_or_else(|| panic!("{path} names no deployment"));
                let moved = self.shifts.follow(now, state, &key);
                risen.extend(moved.rises.then(|| key.service.clone()));
                arrived.extend(moved.arrives.then_some(key.service));
            }
            let Some((_, path)) = write.key.split_once("/ecs/task/") else { continue };
            let Some((cluster, id)) = path.split_once('/') else { panic!("{path} names no task") };
            let key = TaskKey {
                cluster: cluster.parse().expect("a cluster's name"),
                id: id.parse().expect("a task's id"),
            };
            let seen = state.ecs.task(&key).map(|task| self.read(task));
            assert_eq!(seen.is_some(), write.value.is_some(), "{key} is not what the journal says");
            let before = self.put(key.clone(), seen.clone());
            match (before, seen) {
                (None, Some(seen)) if seen.is_live() => came.push((key, seen)),
                (Some(before), Some(seen)) => {
                    assert!(before.status <= seen.status, "{key} went back to {:?}", seen.status);
                    assert!(before.instance.is_none() || before.instance == seen.instance, "{key} moved");
                    check_signal(state, &key, &before, &seen);
                    if before.is_live() && !seen.is_live() {
                        ended.push(key.clone());
                    }
                    if before.shall_run() && !seen.shall_run() && seen.by_scheduler {
                        given_up.push(before.clone());
                    }
                    // One that has waited for an instance.
                    if seen.is_live() && before.instance.is_none() {
                        settled.push((key, seen));
                    }
                }
                _ => {}
            }
        }
        for (key, seen) in came.iter().chain(&settled) {
            if let Some(host) = &seen.instance {
                self.check_host(now, state, key, host, seen);
            }
        }
        let mut grown: BTreeMap<&String, Vec<&Seen>> = BTreeMap::new();
        for (_, seen) in &came {
            if let Some(name) = &seen.service {
                grown.entry(name).or_default().push(seen);
            }
        }
        for (name, tasks) in grown {
            self.check_maximum(state, name, &tasks);
        }
        for (key, seen) in came.iter().chain(&settled) {
            self.check_address(key, seen);
        }
        if writes.iter().any(|write| write.key.contains("/ecs/container-instance/")) {
            self.check_daemons(state);
        }
        for service in risen {
            self.check_target(now, state, &service);
        }
        for service in arrived {
            self.check_arrival(now, state, &service);
        }
        for write in writes {
            let Some((_, path)) = write.key.split_once("/ecs/service/") else { continue };
            let Some((cluster, name)) = path.split_once('/') else { panic!("{path} names no service") };
            if let Some(service) = Self::service(state, name).filter(|_| cluster == "default") {
                self.failed.insert(service.key(), failed(service));
                check_end(state, service);
            }
        }
        let mut shrunk: BTreeMap<&String, Vec<&Seen>> = BTreeMap::new();
        for seen in &given_up {
            shrunk.extend(seen.service.as_ref().map(|name| (name, Vec::new())));
            if let Some(tasks) = seen.service.as_ref().and_then(|name| shrunk.get_mut(name)) {
                tasks.push(seen);
            }
        }
        for (name, tasks) in shrunk {
            self.check_minimum(now, state, name, &tasks);
        }
        ended
    }

    /// Capacity, ports and constraints of a host that has just been given a task.
    fn check_host(
        &self,
        now: Timestamp,
        state: &ScopeState,
        key: &TaskKey,
        host: &ContainerInstanceKey,
        seen: &Seen,
    ) {
        let has = &self.hosts[host];
        let instance = state.ecs.container_instance(host).expect("a task is on an instance that is there");
        assert!(instance.status == Active, "{key} is placed on an instance that is {:?}", instance.status);
        // The same step may learn of a connection's end, after it has placed.
        let listens = instance.agent_connected || instance.disconnected_at == Some(now);
        assert!(listens, "{key} of {seen:?} is placed where no agent listens: {instance:?}");
        let here: Vec<&Seen> =
            self.on_host.get(host).into_iter().flatten().map(|key| &self.tasks[key]).collect();
        let cpu: i64 = here.iter().map(|task| task.cpu).sum();
        let memory: i64 = here.iter().map(|task| task.memory).sum();
        assert!(cpu <= has.cpu && memory <= has.memory, "{host:?} holds {cpu} CPU, {memory} MiB of {has:?}");
        let sharing = here.iter().filter(|task| task.port.is_some() && task.port == seen.port).count();
        assert!(sharing <= 1, "{sharing} tasks share the port {:?} on {host:?}", seen.port);
        let Some(name) = &seen.service else { return };
        let weight = &self.weights[name];
        let fellows = here.iter().filter(|task| task.service.as_ref() == Some(name)).count();
        if weight.distinct || weight.is_daemon {
            assert_eq!(fellows, 1, "{key} is not the only one of {name} on {host:?}");
        }
        assert!(
            weight.rack.is_none_or(|rack| rack == has.rack),
            "{key} of {name} is on the rack {}",
            has.rack
        );
    }

    /// No daemon's task is left to run on an instance that is drained, however few healthy ones there are.
    fn check_daemons(&self, state: &ScopeState) {
        for (name, _) in self.weights.iter().filter(|(_, weight)| weight.is_daemon) {
            let Some(service) = Self::service(state, name) else { continue };
            for task in self.tasks_of(name).filter(|task| task.shall_run()) {
                let instance = task.instance.as_ref().and_then(|host| state.ecs.container_instance(host));
                let may_be = instance.is_some_and(|instance| instance.status == Active);
                assert!(
                    may_be || service.status != ServiceStatus::Active,
                    "{name} stays on {:?}: {task:?}",
                    instance.map(|instance| instance.status)
                );
            }
        }
    }

    /// Nobody else has the address of a task.
    fn check_address(&self, key: &TaskKey, seen: &Seen) {
        let has = |other: &Seen| other.is_live() && other.address == seen.address;
        let other = self.tasks.iter().find(|(other, its)| *other != key && has(its));
        let other = other.filter(|_| seen.address.is_some());
        assert!(other.is_none(), "{key} has the address of {other:?}");
    }

    /// CPU and memory that tasks take.
    pub fn used<'a>(&self, tasks: impl Iterator<Item = &'a Arc<Task>>) -> (i64, i64) {
        let weights = tasks.map(|task| self.read(task)).map(|seen| (seen.cpu, seen.memory));
        weights.fold((0, 0), |sum, (cpu, memory)| (sum.0 + cpu, sum.1 + memory))
    }

    fn service<'a>(state: &'a ScopeState, name: &str) -> Option<&'a Service> {
        let key =
            ServiceKey { cluster: "default".parse().expect("a cluster's name"), name: name.parse().ok()? };
        state.ecs.service(&key)
    }

    fn tasks_of(&self, name: &str) -> impl Iterator<Item = &Seen> {
        self.of_service.get(name).into_iter().flatten().map(|key| &self.tasks[key])
    }

    /// No more tasks than the maximum percent allows, once some were started. Revisions that stand side by side are each
    /// a matter of their own, and no other ones grow.
    fn check_maximum(&self, state: &ScopeState, name: &str, came: &[&Seen]) {
        let service =
            Self::service(state, name).unwrap_or_else(|| panic!("{name} starts tasks and is not there"));
        if self.weights[name].is_daemon {
            return;
        }
        let (desired, percent) =
            (u64::from(service.desired_count), u64::from(service.configuration.maximum_percent));
        let most = desired * percent / 100;
        // Who has failed and does not come back gets no tasks.
        let before = self.failed.get(&service.key());
        let hopeless: BTreeSet<String> =
            before.into_iter().flatten().filter(|id| failed(service).contains(*id)).cloned().collect();
        for task in came {
            let is_hopeless = task.started_by.as_ref().is_some_and(|by| hopeless.contains(by));
            assert!(!is_hopeless, "{name} starts tasks of a deployment that has failed: {task:?}");
        }
        if service.has_task_sets() {
            let growing: BTreeSet<&Option<String>> = came.iter().map(|task| &task.started_by).collect();
            return growing.into_iter().for_each(|by| sets::judge_growth(state, service, by.as_ref()));
        }
        let check = |live: u64| {
            assert!(live <= most, "{name} has {live} tasks; {percent} % of {desired} allow {most}");
        };
        let Some(Sides { source, target, .. }) = shifts::sides(state, service) else {
            return check(self.tasks_of(name).count() as u64);
        };
        let growing: BTreeSet<&Option<String>> = came.iter().map(|task| &task.started_by).collect();
        for by in growing {
            assert!(by.is_some() && (*by == source || *by == target), "{name} starts tasks of {by:?}");
            check(self.tasks_of(name).filter(|task| task.started_by == *by).count() as u64);
        }
    }

    /// A set of which a healthy task was stopped keeps its share of them: all of it, by ECS's defaults.
    fn check_sets(&self, now: Timestamp, state: &ScopeState, service: &Service, given_up: &[&Seen]) {
        // As elsewhere: of what is being replaced a task that runs serves.
        let is_well = |task: &Seen| {
            let proven = task.started_at.is_some_and(|at| at + HEALTHY_AFTER <= now);
            let runs = task.status == LastStatus::Running && task.desired == DesiredStatus::Running;
            runs && (proven || is_drained(state, task))
        };
        for (by, share) in sets::shares(service) {
            let own = |task: &Seen| task.started_by.as_ref() == Some(&by) && is_well(task);
            if given_up.iter().any(|task| own(task)) {
                let left = self.tasks_of(service.name.as_str()).filter(|task| own(task)).count();
                assert!(
                    left >= share,
                    "{} keeps {left} healthy tasks of a set of {share}. Stopped at {now:?}: {given_up:?}",
                    service.name
                );
            }
        }
    }

    /// It runs, and has proven itself: behind a load balancer by its word, else by time.
    fn is_well(&self, now: Timestamp, state: &ScopeState, task: &Seen) -> bool {
        task.shall_run() && task.status == LastStatus::Running && self.is_proven(now, state, task)
    }

    fn is_proven(&self, now: Timestamp, state: &ScopeState, task: &Seen) -> bool {
        if self.is_balanced(task) {
            return said(state, task) == Some(HealthState::Healthy);
        }
        task.started_at.is_some_and(|at| at + HEALTHY_AFTER <= now)
    }

    fn is_balanced(&self, task: &Seen) -> bool {
        task.service.as_ref().is_some_and(|name| self.weights[name].is_balanced)
    }

    /// Nobody is sent to a revision that does not have its tasks.
    fn check_target(&self, now: Timestamp, state: &ScopeState, key: &ServiceKey) {
        let name = key.name.as_str();
        let Some(service) = state.ecs.service(key) else { return };
        let Some(Sides { target, .. }) = shifts::sides(state, service) else { return };
        let is_well = |task: &&Seen| task.started_by == target && self.is_well(now, state, task);
        let (well, desired) = (self.tasks_of(name).filter(is_well).count(), service.desired_count);
        assert!(well >= desired as usize, "{name} sends traffic to {well} of {desired} tasks");
    }

    /// A deployment that has just succeeded has all of its tasks, and they are well.
    fn check_arrival(&self, now: Timestamp, state: &ScopeState, key: &ServiceKey) {
        let name = key.name.as_str();
        let Some(service) = state.ecs.service(key) else { return };
        let primary = service.primary().map(|primary| primary.id.to_string());
        let is_well = |task: &&Seen| task.started_by == primary && self.is_well(now, state, task);
        let (well, desired) = (self.tasks_of(name).filter(is_well).count(), service.desired_count);
        assert!(
            well >= desired as usize,
            "{name} calls a deployment successful with {well} of {desired} tasks: {}",
            shifts::told(state, service)
        );
    }

    /// Enough healthy tasks remain, once a healthy one was told to stop.
    fn check_minimum(&self, now: Timestamp, state: &ScopeState, name: &str, given_up: &[&Seen]) {
        let Some(service) = Self::service(state, name) else { return };
        let Some(primary) = service.primary().map(|primary| primary.id.to_string()) else { return };
        if service.status != ServiceStatus::Active {
            return;
        }
        if service.has_task_sets() {
            return self.check_sets(now, state, service, given_up);
        }
        let weight = &self.weights[name];
        let drained = |task: &Seen| is_drained(state, task);
        let serves = |task: &Seen| {
            let running = task.status == LastStatus::Running && task.desired == DesiredStatus::Running;
            let proven = self.is_proven(now, state, task);
            // Of what is being replaced a task that runs serves; of what is new, one that has proven itself.
            running && (proven || drained(task) || task.started_by.as_ref() != Some(&primary))
        };
        // Nobody is sent to whom the balancer finds unhealthy: it may go.
        let is_loss = |task: &Seen| {
            !(weight.is_balanced && said(state, task) == Some(HealthState::Unhealthy)) && serves(task)
        };
        // A daemon's task on a host that is not for it any more is no loss.
        let counts = |task: &Seen| serves(task) && !(weight.is_daemon && drained(task));
        let percent = u64::from(service.configuration.minimum_healthy_percent);
        let least = (u64::from(service.desired_count) * percent).div_ceil(100);
        let sides = shifts::sides(state, service);
        // While revisions stand side by side each that gets traffic shall have enough tasks, and who is in the way of both
        // goes once that is so. Until then it is all of them together that shall be enough.
        let settled = sides.iter().filter(|sides| sides.settled);
        let serving = settled.flat_map(|sides| sides.serving.iter().map(Some));
        let groups: Vec<Option<&String>> = serving.collect();
        let groups = if groups.is_empty() { vec![None] } else { groups };
        for group in groups {
            let of = |task: &Seen| group.is_none() || task.started_by.as_ref() == group;
            let in_the_way = |task: &Seen| {
                group.is_some()
                    && sides.as_ref().is_some_and(|sides| sides.is_other(task.started_by.as_ref()))
            };
            let lost = |task: &Seen| (of(task) || in_the_way(task)) && counts(task) && is_loss(task);
            if !given_up.iter().any(|task| lost(task)) {
                continue;
            }
            let left = self.tasks_of(name).filter(|task| of(task) && counts(task)).count() as u64;
            assert!(
                left >= least,
                "{name} keeps {left} healthy tasks; {percent} % of {} are {least}. Stopped at {now:?}: {given_up:?}. {}",
                service.desired_count,
                shifts::told(state, service)
            );
        }
    }
}

/// Its instance is not for it any more: another one takes its place.
fn is_drained(state: &ScopeState, task: &Seen) -> bool {
    let instance = task.instance.as_ref().and_then(|host| state.ecs.container_instance(host));
    instance.is_none_or(|instance| instance.status != Active)
}

/// A deployment that has failed, and that nothing takes the place of, is over.
///
/// # Panics
/// When it goes on.
fn check_end(state: &ScopeState, service: &Service) {
    let Some(primary) = service.primary() else { return };
    if primary.rollout_state != RolloutState::Failed || service.status != ServiceStatus::Active {
        return;
    }
    let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
    let Some(attempt) = state.ecs.service_deployment(&key) else { return };
    assert!(
        attempt.status.is_over(),
        "{} has failed and goes on: {}",
        service.name,
        shifts::told(state, service)
    );
}

/// What balancers last said of a task, even if its target drains now.
fn said(state: &ScopeState, task: &Seen) -> Option<HealthState> {
    let target = state.elbv2.targets.values().find(|target| target.task == Some(task.id))?;
    target.health.map(|(health, _)| health.state)
}

/// A task whose containers are to be signalled is a target no more.
///
/// # Panics
/// When it is.
fn check_signal(state: &ScopeState, key: &TaskKey, before: &Seen, seen: &Seen) {
    let signalled = before.status < LastStatus::Stopping && seen.status == LastStatus::Stopping;
    if signalled && before.status >= LastStatus::Running {
        let target = state.elbv2.targets.values().find(|target| target.task == Some(key.id));
        assert!(target.is_none(), "{key} is signalled before it has drained: {target:?}");
    }
}
