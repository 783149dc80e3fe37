//! ECS's tables, their secondary indexes, and what must always hold between them.

mod account_setting;
mod by_service;
mod capacity_provider;
mod cluster;
mod container_instance;
mod daemon;
mod effective_definition;
mod exec_session;
mod idempotency;
mod interfaces;
mod load;
mod managed_instance;
mod service;
mod service_deployment;
mod started_by;
mod task;
mod task_definition;

pub use account_setting::*;
pub use capacity_provider::*;
pub use cluster::*;
pub use container_instance::*;
pub use daemon::*;
pub use effective_definition::*;
pub use exec_session::*;
pub use idempotency::*;
pub use interfaces::{Interfaces, held};
pub use load::Row;
pub use managed_instance::*;
pub use service::*;
pub use service_deployment::*;
pub use started_by::StartedBy;
pub use task::*;
pub use task_definition::*;

use crate::services::ecs::placement::{self, InstancePool};
use by_service::TasksByService;
use gantry_decide::ids::{
    AlarmName, AutoScalingGroupName, CapacityProviderName, ClusterName, ContainerInstanceId, Ec2InstanceId,
    ExecSessionId, SecurityGroupId, ServiceDeploymentId, TargetGroupId, TaskDefinitionId, TaskId,
};
use gantry_store::{Index, Record, Table, Write};
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;

/// One record that changed, by key: a hint to controllers and sessions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Cluster(ClusterName),
    CapacityProvider(CapacityProviderName),
    TaskDefinition(TaskDefinitionId),
    Task(TaskKey),
    Service(ServiceKey),
    ContainerInstance(ContainerInstanceKey),
    ExecSession(ExecSessionId),
    SecurityGroup(SecurityGroupId),
    AutoScalingGroup(AutoScalingGroupName),
    Alarm(AlarmName),
    ManagedInstance(Ec2InstanceId),
    Daemon(DaemonKey),
    /// Targets of a group came, went, or are another way than they were.
    Targets(TargetGroupId),
    /// Something that load balancers are told.
    Routing,
}

/// All of ECS in one scope.
#[derive(Clone, Default)]
pub struct EcsState {
    pub clusters: Table<Cluster>,
    pub task_definitions: Table<TaskDefinitionRecord>,
    pub families: Table<FamilyRecord>,
    pub account_settings: Table<AccountSetting>,
    /// Those that somebody made: see [`EcsState::capacity_provider`].
    pub capacity_providers: Table<CapacityProvider>,
    pub managed_instances: Table<ManagedInstance>,
    pub daemons: Daemons,
    tasks: Table<Task>,
    services: Table<Service>,
    service_deployments: Table<ServiceDeployment>,
    service_revisions: Table<ServiceRevision>,
    container_instances: Table<ContainerInstance>,
    idempotency: Table<IdempotencyRecord>,
    pub exec_sessions: Table<ExecSession>,
    /// Tasks not yet STOPPED, by the instance that holds them.
    tasks_by_instance: Index<ContainerInstanceKey, TaskKey>,
    tasks_by_service: TasksByService,
    /// Container instances that drain, or whose tasks are given up; few, if any. By their ids, which are compared at once.
    leaving: OrdSet<(ContainerInstanceId, ClusterName)>,
    /// What is free on the instances that are not INACTIVE, by their cluster: follows from tasks and instances alone.
    pools: OrdMap<ClusterName, InstancePool>,
    interfaces: Interfaces,
    /// Tasks that wait for an instance of a cluster, or of the Fargate pool.
    waiting: Index<ClusterName, TaskKey>,
    /// Services of the scheduling strategy DAEMON, by cluster.
    daemon_services: Index<ClusterName, ServiceKey>,
    /// Container instances by the EC2 instance id of their machine.
    instances_by_machine: Index<String, ContainerInstanceKey>,
}

/// The instances that a task waits for.
fn awaited(task: &Task) -> Option<ClusterName> {
    task.is_waiting().then(|| placement::pool_name(&task.cluster, task.launch_type))
}

/// Whether all indexes and pools see the same in two forms of a task: most changes are of its progress alone.
fn stands_alike(one: &Task, other: &Task) -> bool {
    one.instance == other.instance
        && one.group == other.group
        && one.is_live() == other.is_live()
        && one.is_in_books() == other.is_in_books()
        && one.is_waiting() == other.is_waiting()
        && held(one).map(|eni| eni.id) == held(other).map(|eni| eni.id)
        // The same allocation in all but odd cases, which is seen at once.
        && one.definition.shared() == other.definition.shared()
}

impl EcsState {
    pub fn tasks(&self) -> &Table<Task> {
        &self.tasks
    }

    pub fn task(&self, key: &TaskKey) -> Option<&Task> {
        self.tasks.get(key).map(AsRef::as_ref)
    }

    /// Notes that a task's agent is told of it.
    pub fn note_sent(&mut self, key: &TaskKey) {
        if let Some(task) = self.task(key) {
            self.put_task(Task { sent: true, ..task.clone() });
        }
    }

    /// Writes a task and keeps the indexes true.
    pub fn put_task(&mut self, task: impl Into<Arc<Task>>) {
        let task = task.into();
        let key = task.key();
        let previous = self.tasks.put(Arc::clone(&task));
        if previous.as_ref().is_some_and(|old| stands_alike(old, &task)) {
            self.tasks_by_service.put(&task);
            return;
        }
        self.interfaces.change(&key, previous.as_deref(), Some(&task));
        if let Some(old) = previous {
            if let Some(pool) = awaited(&old) {
                self.waiting.remove(&pool, &key);
            }
            self.tasks_by_service.remove(&old);
            if let Some(instance) = old.instance.as_ref().filter(|_| old.is_live()) {
                self.tasks_by_instance.remove(instance, &key);
                if let Some(pool) = self.pools.get_mut(&instance.cluster) {
                    pool.release(instance, &placement::held_by(&old));
                }
            }
        }
        if let Some(pool) = awaited(&task) {
            self.waiting.insert(pool, key.clone());
        }
        self.tasks_by_service.put(&task);
        if let Some(instance) = task.instance.as_ref().filter(|_| task.is_live()) {
            if let Some(pool) = self.pools.get_mut(&instance.cluster) {
                pool.take(instance, &placement::held_by(&task));
            }
            self.tasks_by_instance.insert(instance.clone(), key);
        }
    }

    /// Forgets a task that is STOPPED and past its retention.
    pub fn remove_task(&mut self, key: &TaskKey) {
        let removed = self.tasks.remove(key);
        self.interfaces.change(key, removed.as_deref(), None);
        if let Some(task) = &removed {
            self.tasks_by_service.remove(task);
        }
        debug_assert!(removed.is_none_or(|task| !task.is_live()), "only stopped tasks are forgotten");
    }

    /// The tasks on an instance that are not yet STOPPED.
    pub fn tasks_on(&self, instance: &ContainerInstanceKey) -> impl Iterator<Item = &Task> {
        self.tasks_by_instance.get(instance).filter_map(|key| self.task(key))
    }

    /// The tasks of a service that are not yet STOPPED.
    pub fn tasks_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Task> {
        self.in_books_of(service).filter(|task| task.is_live())
    }

    /// The tasks of a service that it has to do with, those whose end it has not noted included.
    pub fn in_books_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Task> + use<'_> {
        self.tasks_by_service.of(service)
    }

    /// The tasks that wait for an instance of a cluster, or of the Fargate pool, the oldest first.
    pub fn waiting_in(&self, pool: &ClusterName) -> Vec<&Task> {
        let mut tasks: Vec<&Task> = self.waiting.get(pool).filter_map(|key| self.task(key)).collect();
        tasks.sort_by_key(|task| (task.created_at, task.id));
        tasks
    }

    pub fn waiting_count(&self, pool: &ClusterName) -> usize {
        self.waiting.count(pool)
    }

    pub fn pools_with_waiting(&self) -> impl Iterator<Item = &ClusterName> {
        self.waiting.keys()
    }

    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    pub fn services(&self) -> &Table<Service> {
        &self.services
    }

    /// The services of a cluster, whatever their state.
    pub fn services_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Service> {
        self.services
            .values()
            .map(AsRef::as_ref)
            .filter(move |service: &&Service| &service.cluster == cluster)
    }

    pub fn daemon_services_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Service> {
        self.daemon_services.get(cluster).filter_map(|key| self.service(key))
    }

    pub fn service(&self, key: &ServiceKey) -> Option<&Service> {
        self.services.get(key).map(AsRef::as_ref)
    }

    pub fn put_service(&mut self, service: Service) {
        if service.is_daemon() {
            self.daemon_services.insert(service.cluster.clone(), service.key());
        }
        self.services.put(service);
    }

    /// Forgets a service with all that it went through.
    pub fn remove_service(&mut self, key: &ServiceKey) {
        self.remove_service_deployments(key);
        self.services.remove(key);
        self.daemon_services.remove(&key.cluster, key);
    }

    /// Forgets what is left of a cluster that was deleted: its STOPPED tasks and INACTIVE services.
    pub fn forget_what_ended_in(&mut self, cluster: &ClusterName) {
        let key = |id| TaskKey { cluster: cluster.clone(), id };
        let tasks = self.tasks.range(key(TaskId::MIN)..=key(TaskId::MAX));
        let ended: Vec<TaskKey> =
            tasks.filter(|(_, task)| !task.is_live()).map(|(key, _)| key.clone()).collect();
        ended.iter().for_each(|task| self.remove_task(task));
        let inactive = |service: &&Service| service.status == ServiceStatus::Inactive;
        let gone: Vec<ServiceKey> = self.services_of(cluster).filter(inactive).map(Record::key).collect();
        gone.iter().for_each(|service| self.remove_service(service));
    }

    pub fn service_deployments(&self) -> &Table<ServiceDeployment> {
        &self.service_deployments
    }

    pub fn service_deployment(&self, key: &ServiceDeploymentKey) -> Option<&ServiceDeployment> {
        self.service_deployments.get(key).map(AsRef::as_ref)
    }

    pub fn put_service_revision(&mut self, revision: ServiceRevision) {
        self.service_revisions.put(revision);
    }

    pub fn service_revision(&self, key: &ServiceRevisionKey) -> Option<&ServiceRevision> {
        self.service_revisions.get(key).map(AsRef::as_ref)
    }

    /// What a service remembers of its deployments, in no order of time.
    pub fn deployments_of(&self, service: &ServiceKey) -> impl Iterator<Item = &ServiceDeployment> {
        let key = |id| ServiceDeploymentKey { service: service.clone(), id };
        let all = key(ServiceDeploymentId::MIN)..=key(ServiceDeploymentId::MAX);
        self.service_deployments.range(all).map(|(_, attempt)| attempt.as_ref())
    }

    pub fn put_service_deployment(&mut self, attempt: ServiceDeployment) {
        self.service_deployments.put(attempt);
    }

    /// Records a new revision and the attempt to deploy it, and forgets the oldest beyond [`HISTORY_MAX`] and
    /// [`HISTORY`].
    pub fn begin_service_deployment(&mut self, revision: ServiceRevision, attempt: ServiceDeployment) {
        let now = attempt.created_at;
        let mut over: Vec<_> = self
            .deployments_of(&attempt.service)
            .filter_map(|known| known.finished_at.map(|at| (at, known.key())))
            .collect();
        over.sort();
        let surplus = (over.len() + 1).saturating_sub(HISTORY_MAX);
        for (index, (finished_at, key)) in over.iter().enumerate() {
            if index < surplus || *finished_at + HISTORY <= now {
                self.remove_service_deployment(key);
            }
        }
        self.service_revisions.put(revision);
        self.service_deployments.put(attempt);
    }

    /// Forgets all that a service went through.
    pub fn remove_service_deployments(&mut self, service: &ServiceKey) {
        let attempts: Vec<_> = self.deployments_of(service).map(Record::key).collect();
        for attempt in &attempts {
            self.remove_service_deployment(attempt);
        }
    }

    fn remove_service_deployment(&mut self, key: &ServiceDeploymentKey) {
        if let Some(attempt) = self.service_deployments.remove(key) {
            let id = attempt.target;
            self.service_revisions.remove(&ServiceRevisionKey { service: key.service.clone(), id });
        }
    }

    pub fn container_instances(&self) -> &Table<ContainerInstance> {
        &self.container_instances
    }

    pub fn container_instance(&self, key: &ContainerInstanceKey) -> Option<&ContainerInstance> {
        self.container_instances.get(key).map(AsRef::as_ref)
    }

    /// Writes an instance and keeps its cluster's pool true.
    pub fn put_container_instance(&mut self, instance: ContainerInstance) {
        let key = instance.key();
        if instance.status != ContainerInstanceStatus::Inactive {
            let host = placement::host(&instance, self.tasks_on(&key));
            self.pools.entry(key.cluster.clone()).or_default().put(key.clone(), host);
        } else if let Some(pool) = self.pools.get_mut(&key.cluster) {
            pool.remove(&key);
        }
        if instance.is_leaving() {
            self.leaving.insert(key.by_id());
        } else {
            self.leaving.remove(&key.by_id());
        }
        let machine = instance.ec2_instance_id.clone();
        let previous = self.container_instances.put(instance).and_then(|old| old.ec2_instance_id.clone());
        if previous != machine {
            if let Some(previous) = previous {
                self.instances_by_machine.remove(&previous, &key);
            }
            if let Some(machine) = machine {
                self.instances_by_machine.insert(machine, key);
            }
        }
    }

    /// Forgets a container instance that holds no task.
    pub fn remove_container_instance(&mut self, key: &ContainerInstanceKey) {
        debug_assert!(self.tasks_on(key).next().is_none(), "only instances without tasks are forgotten");
        self.leaving.remove(&key.by_id());
        if let Some(pool) = self.pools.get_mut(&key.cluster) {
            pool.remove(key);
        }
        let removed = self.container_instances.remove(key);
        if let Some(machine) = removed.and_then(|old| old.ec2_instance_id.clone()) {
            self.instances_by_machine.remove(&machine, key);
        }
    }

    /// Whether a container instance that holds tasks drains, or they are given up. Of most it costs no search.
    pub fn is_leaving(&self, key: &ContainerInstanceKey) -> bool {
        !self.leaving.is_empty() && self.leaving.contains(&key.by_id())
    }

    /// The container instances, whatever their state, on the machine of an EC2 instance id.
    pub fn instances_on<'a>(
        &'a self,
        machine: &str,
    ) -> impl Iterator<Item = &'a ContainerInstance> + use<'a> {
        let keys = self.instances_by_machine.get(&machine.to_owned());
        keys.filter_map(|key| self.container_instance(key))
    }

    /// The instances of a cluster with what is free on them: a copy to place on, cheap to make.
    pub fn pool(&self, cluster: &ClusterName) -> InstancePool {
        self.pools.get(cluster).cloned().unwrap_or_default()
    }

    /// A provider by name: one that every account has, or one that somebody made, deleted ones included.
    pub fn capacity_provider(&self, name: &CapacityProviderName) -> Option<CapacityProvider> {
        CapacityProvider::built_in(name)
            .or_else(|| self.capacity_providers.get(name).map(|provider| provider.as_ref().clone()))
    }

    pub fn idempotency(&self) -> &Table<IdempotencyRecord> {
        &self.idempotency
    }

    pub fn put_idempotency(&mut self, record: IdempotencyRecord) {
        self.idempotency.put(record);
    }

    pub fn remove_idempotency(&mut self, key: &IdempotencyKey) {
        self.idempotency.remove(key);
    }

    /// See [`crate::state::State::drain_changes`]. What the other tables hold concerns no controller.
    pub(crate) fn drain_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.clusters.drain_changes().into_iter().map(Change::Cluster));
        changes.extend(self.daemons.daemons.drain_changes().into_iter().map(Change::Daemon));
        let attempts = self.daemons.deployments.drain_changes().into_iter();
        changes.extend(attempts.map(|key| Change::Daemon(key.daemon)));
        changes.extend(self.managed_instances.drain_changes().into_iter().map(Change::ManagedInstance));
        let providers = self.capacity_providers.drain_changes().into_iter();
        changes.extend(providers.map(Change::CapacityProvider));
        changes.extend(self.task_definitions.drain_changes().into_iter().map(Change::TaskDefinition));
        changes.extend(self.tasks.drain_changes().into_iter().map(Change::Task));
        changes.extend(self.exec_sessions.drain_changes().into_iter().map(Change::ExecSession));
        changes.extend(self.services.drain_changes().into_iter().map(Change::Service));
        let attempts = self.service_deployments.drain_changes().into_iter();
        changes.extend(attempts.map(|key| Change::Service(key.service)));
        changes.extend(self.container_instances.drain_changes().into_iter().map(Change::ContainerInstance));
        changes
    }

    /// See [`crate::state::State::drain_writes`].
    pub(crate) fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.families.drain_writes(prefix, out);
        self.account_settings.drain_writes(prefix, out);
        self.idempotency.drain_writes(prefix, out);
        self.clusters.drain_writes(prefix, out);
        self.capacity_providers.drain_writes(prefix, out);
        self.managed_instances.drain_writes(prefix, out);
        self.daemons.definitions.drain_writes(prefix, out);
        self.daemons.families.drain_writes(prefix, out);
        self.daemons.daemons.drain_writes(prefix, out);
        self.daemons.revisions.drain_writes(prefix, out);
        self.daemons.deployments.drain_writes(prefix, out);
        self.task_definitions.drain_writes(prefix, out);
        self.tasks.drain_writes(prefix, out);
        self.exec_sessions.drain_writes(prefix, out);
        self.services.drain_writes(prefix, out);
        self.service_deployments.drain_writes(prefix, out);
        self.service_revisions.drain_writes(prefix, out);
        self.container_instances.drain_writes(prefix, out);
    }

    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        self.interfaces.check(self);
        self.tasks_by_service.check(&self.tasks);
        for (key, task) in self.tasks.iter() {
            assert_eq!(key, &task.key(), "a task stands under another's key");
            if let Some(instance) = task.instance.as_ref().filter(|_| task.is_live()) {
                assert!(
                    self.tasks_by_instance.get(instance).any(|k| k == key),
                    "{key:?} is missing from its instance"
                );
                assert!(
                    self.container_instances.contains_key(instance),
                    "{key:?} is on an instance that is not there"
                );
            }
            assert_eq!(
                awaited(task).is_some_and(|pool| self.waiting.contains(&pool, key)),
                task.is_waiting(),
                "{key:?}: who waits is listed"
            );
            assert!(task.waiting.is_none() || task.instance.is_none(), "{key:?} waits for what it has");
            assert_eq!(
                task.stopped_at.is_some(),
                task.last_status.is_stopped(),
                "{key:?}: stoppedAt is set exactly when a task is STOPPED"
            );
        }
        for (key, instance) in self.container_instances.iter() {
            let pooled = self.pools.get(&key.cluster).and_then(|pool| pool.host(key));
            let is_there = instance.status != ContainerInstanceStatus::Inactive;
            let rebuilt = is_there.then(|| placement::host(instance, self.tasks_on(key)));
            assert_eq!(pooled, rebuilt, "{key:?}: the pool contradicts the tables");
            assert_eq!(self.is_leaving(key), instance.is_leaving(), "{key:?}: who leaves is listed");
            if let Some(machine) = &instance.ec2_instance_id {
                let listed = self.instances_by_machine.contains(machine, key);
                assert!(listed, "{key:?} is missing from its machine");
            }
        }
        for (id, cluster) in &self.leaving {
            let key = ContainerInstanceKey { cluster: cluster.clone(), id: *id };
            assert!(self.container_instances.contains_key(&key), "{key} leaves, and is not there");
        }
        for (machine, key) in self.instances_by_machine.iter() {
            let instance = self.container_instance(key);
            let there = instance.is_some_and(|i| i.ec2_instance_id.as_ref() == Some(machine));
            assert!(there, "{machine} lists {key:?}, which is not there");
        }
        for (pool, key) in self.waiting.iter() {
            let waits = self.task(key).is_some_and(|task| awaited(task).as_ref() == Some(pool));
            assert!(waits, "{pool:?} lists {key:?}, which does not wait for it");
        }
        for (instance, task) in self.tasks_by_instance.iter() {
            let live = self.task(task).is_some_and(|t| t.is_live() && t.instance.as_ref() == Some(instance));
            assert!(live, "{instance:?} lists {task:?}, which it does not hold");
        }
    }
}
