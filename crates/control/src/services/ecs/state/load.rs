//! From stored rows to ECS's tables. What a row says is read on its own, and on any thread; the indexes, which rest on
//! all rows together, are derived once at the end.

use super::{
    AccountSetting, CapacityProvider, Cluster, ContainerInstance, ContainerInstanceKey,
    ContainerInstanceStatus, Daemon, DaemonDeployment, DaemonFamily, DaemonRevision, DaemonTaskDefinition,
    EcsState, ExecSession, FamilyRecord, IdempotencyRecord, ManagedInstance, Service, ServiceDeployment,
    ServiceRevision, Task, TaskDefinitionRecord, TaskKey,
};
use crate::services::ecs::placement;
use gantry_store::{LoadError, Record, decode};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One record, read.
pub enum Row {
    Cluster(Cluster),
    TaskDefinition(Box<TaskDefinitionRecord>),
    Family(FamilyRecord),
    AccountSetting(AccountSetting),
    CapacityProvider(Box<CapacityProvider>),
    Task(Arc<Task>),
    Service(Box<Service>),
    ServiceDeployment(Box<ServiceDeployment>),
    ServiceRevision(Box<ServiceRevision>),
    ContainerInstance(Box<ContainerInstance>),
    ManagedInstance(Box<ManagedInstance>),
    DaemonTaskDefinition(Box<DaemonTaskDefinition>),
    DaemonFamily(DaemonFamily),
    Daemon(Box<Daemon>),
    DaemonRevision(Box<DaemonRevision>),
    DaemonDeployment(Box<DaemonDeployment>),
    Idempotency(IdempotencyRecord),
    ExecSession(ExecSession),
}

impl Row {
    /// Reads one stored record; `None` if no table is named so.
    pub fn read(table: &str, value: &[u8]) -> Result<Option<Row>, LoadError> {
        fn is<R: Record>(table: &str) -> bool {
            R::KIND.strip_prefix("ecs/") == Some(table)
        }
        Ok(Some(if is::<Task>(table) {
            Row::Task(Arc::new(decode(value)?))
        } else if is::<Cluster>(table) {
            Row::Cluster(decode(value)?)
        } else if is::<TaskDefinitionRecord>(table) {
            Row::TaskDefinition(Box::new(decode(value)?))
        } else if is::<FamilyRecord>(table) {
            Row::Family(decode(value)?)
        } else if is::<AccountSetting>(table) {
            Row::AccountSetting(decode(value)?)
        } else if is::<CapacityProvider>(table) {
            Row::CapacityProvider(Box::new(decode(value)?))
        } else if is::<Service>(table) {
            Row::Service(Box::new(decode(value)?))
        } else if is::<ServiceDeployment>(table) {
            Row::ServiceDeployment(Box::new(decode(value)?))
        } else if is::<ServiceRevision>(table) {
            Row::ServiceRevision(Box::new(decode(value)?))
        } else if is::<ContainerInstance>(table) {
            Row::ContainerInstance(Box::new(decode(value)?))
        } else if is::<DaemonTaskDefinition>(table) {
            Row::DaemonTaskDefinition(Box::new(decode(value)?))
        } else if is::<DaemonFamily>(table) {
            Row::DaemonFamily(decode(value)?)
        } else if is::<Daemon>(table) {
            Row::Daemon(Box::new(decode(value)?))
        } else if is::<DaemonRevision>(table) {
            Row::DaemonRevision(Box::new(decode(value)?))
        } else if is::<DaemonDeployment>(table) {
            Row::DaemonDeployment(Box::new(decode(value)?))
        } else if is::<ManagedInstance>(table) {
            Row::ManagedInstance(Box::new(decode(value)?))
        } else if is::<IdempotencyRecord>(table) {
            Row::Idempotency(decode(value)?)
        } else if is::<ExecSession>(table) {
            Row::ExecSession(decode(value)?)
        } else {
            return Ok(None);
        }))
    }
}

impl EcsState {
    /// Takes a row, unless it is a task whose definition is still to come: that is returned. The indexes stay as they
    /// are until [`EcsState::derive_indexes`].
    pub(crate) fn adopt(&mut self, row: Row) -> Option<Arc<Task>> {
        match row {
            Row::Cluster(record) => self.clusters.adopt(record),
            Row::TaskDefinition(record) => self.task_definitions.adopt(*record),
            Row::Family(record) => self.families.adopt(record),
            Row::AccountSetting(record) => self.account_settings.adopt(record),
            Row::CapacityProvider(record) => self.capacity_providers.adopt(*record),
            Row::Task(mut task) => {
                let registered = self.task_definitions.get(&task.definition_id);
                let registered = registered.map(|record| &record.definition);
                if !Arc::make_mut(&mut task).definition.resolve(registered) {
                    return Some(task);
                }
                self.tasks.adopt(task);
            }
            Row::Service(record) => self.services.adopt(*record),
            Row::ServiceDeployment(record) => self.service_deployments.adopt(*record),
            Row::ServiceRevision(record) => self.service_revisions.adopt(*record),
            Row::ContainerInstance(record) => self.container_instances.adopt(*record),
            Row::DaemonTaskDefinition(record) => self.daemons.definitions.adopt(*record),
            Row::DaemonFamily(record) => self.daemons.families.adopt(record),
            Row::Daemon(record) => self.daemons.daemons.adopt(*record),
            Row::DaemonRevision(record) => self.daemons.revisions.adopt(*record),
            Row::DaemonDeployment(record) => self.daemons.deployments.adopt(*record),
            Row::ManagedInstance(record) => self.managed_instances.adopt(*record),
            Row::Idempotency(record) => self.idempotency.adopt(record),
            Row::ExecSession(record) => self.exec_sessions.adopt(record),
        }
        None
    }

    /// Makes indexes and pools of adopted rows.
    pub(crate) fn derive_indexes(&mut self) {
        let mut on: BTreeMap<&ContainerInstanceKey, Vec<&Arc<Task>>> = BTreeMap::new();
        for (key, task) in self.tasks.iter() {
            self.interfaces.change(key, None, Some(task));
            if let Some(pool) = super::awaited(task) {
                self.waiting.insert(pool, key.clone());
            }
            self.tasks_by_service.put(task);
            if let Some(instance) = task.instance.as_ref().filter(|_| task.is_live()) {
                on.entry(instance).or_default().push(task);
            }
        }
        for (key, _) in self.services.iter().filter(|(_, service)| service.is_daemon()) {
            self.daemon_services.insert(key.cluster.clone(), key.clone());
        }
        for (key, instance) in self.container_instances.iter() {
            if instance.status != ContainerInstanceStatus::Inactive {
                let tasks = on.get(key).into_iter().flatten().map(|task| task.as_ref());
                let host = placement::host(instance, tasks);
                self.pools.entry(key.cluster.clone()).or_default().put(key.clone(), host);
            }
            if let Some(machine) = instance.ec2_instance_id.clone() {
                self.instances_by_machine.insert(machine, key.clone());
            }
            if instance.is_leaving() {
                self.leaving.insert(key.by_id());
            }
        }
        for (instance, tasks) in on {
            for task in tasks {
                self.tasks_by_instance.insert(instance.clone(), TaskKey::from(task.as_ref()));
            }
        }
    }
}
