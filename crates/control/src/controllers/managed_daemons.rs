//! Managed daemons: starts the one task on each instance that joins, sees how it does, and brings new revisions to all
//! instances by draining those that have another. Instances let other tasks in once their daemons run, and are made
//! and destroyed in `managed_instances`.

use super::{Controller, LookAgain};
use crate::services::cloudwatch::links as alarms;
use crate::services::ecs::launch::{self, Launch};
use crate::services::ecs::links;
use crate::services::ecs::state::{
    ContainerInstance, ContainerInstanceStatus, Daemon, DaemonDeployment, DaemonKey, EffectiveDefinition,
    LaunchType, ManagedInstance, Slot, StartedBy, Task, TaskKey,
};
use crate::state::Change;
use crate::tx::{Tx, View};
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::managed_daemon::{FAILURES_MAX, Fleet, SlotState};
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::ids::{AlarmName, Ec2InstanceId, ServiceRevisionId};
use gantry_decide::lifecycle::{DesiredStatus, HealthStatus, LastStatus};
use gantry_decide::random::Random;
use gantry_decide::scaling::lifecycle::MachineState;
use gantry_decide::task::TaskOverride;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long a daemon's task may take to run: a large image over a slow line.
const START_MAX: Duration = Duration::from_secs(900);

/// See the module.
pub struct ManagedDaemons;

/// The next steps of one daemon.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Instances that get its task.
    start: Vec<Ec2InstanceId>,
    /// How tasks do now, by instance.
    note: Vec<(Ec2InstanceId, SlotState)>,
    /// Instances to drain: without what they cannot be without, or with another revision than is wanted.
    drain: Vec<Ec2InstanceId>,
    begin: bool,
    /// Tasks of the revision that is deployed that failed.
    failed: u32,
    alarmed: Vec<AlarmName>,
    bakes: bool,
    arrived: bool,
    /// It was deleted, and no instance has it any more.
    gone: bool,
}

impl Controller for ManagedDaemons {
    const NAME: &'static str = "managed-daemons";
    type Key = DaemonKey;
    type Plan = Plan;

    fn watches(view: View<'_>, change: &Change, keys: &mut BTreeSet<DaemonKey>) {
        let ecs = &view.state.ecs;
        let all = || ecs.daemons.daemons.values();
        match change {
            Change::Daemon(key) => {
                keys.insert(key.clone());
            }
            Change::Task(key) => {
                let name = ecs.task(key).and_then(Task::daemon_name);
                keys.extend(name.map(|name| DaemonKey { cluster: key.cluster.clone(), name }));
            }
            Change::ContainerInstance(key) => {
                keys.extend(all().filter(|daemon| daemon.cluster == key.cluster).map(|daemon| daemon.key()));
            }
            Change::ManagedInstance(id) => {
                let cluster = ecs.managed_instances.get(id).map(|instance| &instance.cluster);
                keys.extend(
                    all().filter(|daemon| Some(&daemon.cluster) == cluster).map(|daemon| daemon.key()),
                );
            }
            Change::Alarm(name) => {
                let watching = all().filter(|daemon| daemon.configuration.alarms.names.contains(name));
                keys.extend(watching.map(|daemon| daemon.key()));
            }
            _ => {}
        }
    }

    fn all(view: View<'_>) -> Vec<DaemonKey> {
        view.state.ecs.daemons.daemons.iter().map(|(key, _)| key.clone()).collect()
    }

    fn plan(view: View<'_>, key: &DaemonKey, _: &mut dyn Random) -> (Option<Plan>, LookAgain) {
        let Some(daemon) = view.state.ecs.daemons.daemons.get(key) else { return (None, None) };
        let attempt = view.state.ecs.daemons.current(daemon);
        let mut look = Look { view, daemon, plan: Plan::default(), again: None };
        let (mut fleet, mut outdated) = (Fleet::default(), Vec::new());
        for instance in view.state.ecs.managed_instances.values() {
            let of_daemon =
                daemon.providers.contains(&instance.provider) || instance.daemons.contains_key(&key.name);
            if instance.cluster != key.cluster || !of_daemon {
                continue;
            }
            let Some(host) = host(view, instance) else { continue };
            fleet.total += 1;
            let drains = host.status == ContainerInstanceStatus::Draining;
            if look.at(instance, host) {
                fleet.outdated += 1;
                fleet.draining += usize::from(drains);
                if !drains {
                    outdated.push(instance.id);
                }
            }
        }
        let drained = fleet.drain_now(daemon.configuration.drain);
        look.plan.drain.extend(outdated.into_iter().take(drained));
        look.deployment(attempt, fleet);
        ((look.plan != Plan::default()).then_some(look.plan), look.again)
    }

    fn apply(tx: &mut Tx<'_>, key: &DaemonKey, plan: Plan) {
        if plan.gone {
            return tx.state.ecs.daemons.remove(key);
        }
        for (id, state) in plan.note {
            edit_slot(tx, id, key, |slot| slot.state = state);
        }
        let mut failed = plan.failed;
        for id in plan.start {
            failed += u32::from(!start(tx, key, id));
        }
        for id in plan.drain {
            links::drain_machine(tx, id);
        }
        let Some(mut daemon) = tx.state.ecs.daemons.daemons.get(key).map(|daemon| daemon.as_ref().clone())
        else {
            return;
        };
        let Some(mut attempt) = tx.state.ecs.daemons.current(&daemon).cloned() else { return };
        let before = attempt.clone();
        let now = tx.now;
        if plan.begin {
            attempt.become_(ServiceDeploymentStatus::InProgress, now);
        }
        if !attempt.status.is_over() {
            attempt.failures = attempt.failures.saturating_add(failed);
            if !plan.alarmed.is_empty() {
                attempt.alarms = Watch::Triggered(plan.alarmed);
                give_up(&mut daemon, &mut attempt, "alarm detected.", now);
            } else if attempt.failures >= FAILURES_MAX {
                give_up(&mut daemon, &mut attempt, "tasks failed to start.", now);
            } else if plan.bakes {
                attempt.baking_since = Some(now);
            } else if plan.arrived {
                let status = match attempt.rollback {
                    Some(_) => ServiceDeploymentStatus::RollbackSuccessful,
                    None => ServiceDeploymentStatus::Successful,
                };
                attempt.become_(status, now);
                daemon.proven = Some(daemon.revision);
            }
        }
        if attempt != before {
            tx.state.ecs.daemons.deployments.put(attempt);
            tx.state.ecs.daemons.daemons.put(daemon);
            tx.state.ecs.daemons.settle_definitions();
        }
    }
}

/// A deployment has failed: back to what was deployed before, if there is such a revision.
fn give_up(daemon: &mut Daemon, attempt: &mut DaemonDeployment, why: &str, now: Timestamp) {
    attempt.status_reason = Some(format!("ECS deployment failed: {why}"));
    if attempt.rollback.is_some() {
        attempt.become_(ServiceDeploymentStatus::RollbackFailed, now);
        return;
    }
    match daemon.proven.filter(|proven| *proven != attempt.target) {
        Some(proven) => {
            attempt.become_(ServiceDeploymentStatus::RollbackInProgress, now);
            attempt.rollback = Some((proven, now));
            attempt.failures = 0;
            attempt.baking_since = None;
            daemon.revision = proven;
            daemon.updated_at = now;
        }
        None => {
            attempt.become_(ServiceDeploymentStatus::Stopped, now);
        }
    }
}

/// The container instance of a machine that runs.
fn host<'a>(view: View<'a>, instance: &ManagedInstance) -> Option<&'a ContainerInstance> {
    if instance.machine != MachineState::Running {
        return None;
    }
    let mut hosts = links::on_machine(view, &instance.id.to_string());
    hosts.find(|host| host.cluster == instance.cluster)
}

fn edit_slot(tx: &mut Tx<'_>, id: Ec2InstanceId, key: &DaemonKey, change: impl FnOnce(&mut Slot)) {
    tx.state.ecs.managed_instances.edit(&id, |instance| {
        if let Some(slot) = instance.daemons.get_mut(&key.name) {
            change(slot);
        }
    });
}

/// Starts the task on an instance; says whether it fits there.
fn start(tx: &mut Tx<'_>, key: &DaemonKey, id: Ec2InstanceId) -> bool {
    let found = tx.state.ecs.managed_instances.get(&id).and_then(|instance| {
        let slot = instance.daemons.get(&key.name)?;
        Some((host(tx.view(), instance)?.key(), launch_of(tx.view(), key, slot.revision, instance)?))
    });
    let Some((instance, launch)) = found else { return true };
    match launch::start_before_others(tx, &launch, instance) {
        Ok(task) => edit_slot(tx, id, key, |slot| slot.task = Some(task.id)),
        Err(_) => edit_slot(tx, id, key, |slot| slot.state = SlotState::Failed),
    }
    tx.state
        .ecs
        .managed_instances
        .get(&id)
        .and_then(|instance| instance.daemons.get(&key.name))
        .is_some_and(|slot| slot.state != SlotState::Failed)
}

fn launch_of(
    view: View<'_>,
    key: &DaemonKey,
    revision: ServiceRevisionId,
    instance: &ManagedInstance,
) -> Option<Launch> {
    let daemons = &view.state.ecs.daemons;
    let daemon = daemons.daemons.get(key)?;
    let revision = daemons.revision(key, revision)?;
    let definition = daemons.definitions.get(&revision.task_definition)?;
    let mut tags = if revision.propagates_tags { daemon.tags.clone() } else { Default::default() };
    if revision.managed_tags {
        tags.insert("aws:ecs:clusterName".to_owned(), key.cluster.to_string());
        tags.insert("aws:ecs:daemonName".to_owned(), key.name.to_string());
    }
    Some(Launch {
        cluster: key.cluster.clone(),
        definition_id: definition.id.clone(),
        definition: EffectiveDefinition::own(Arc::clone(&definition.definition)),
        overrides: TaskOverride::default(),
        launch_type: LaunchType::ManagedInstances,
        capacity_provider: Some(instance.provider.clone()),
        platform_version: None,
        network: None,
        volume: None,
        constraints: Vec::new(),
        strategies: Vec::new(),
        group: key.group(),
        started_by: Some(StartedBy::Named(daemon.deployment.to_string())),
        tags,
        enable_execute_command: revision.execute_command,
        balanced: None,
        image_digests: Default::default(),
    })
}

/// One look at a daemon.
struct Look<'a> {
    view: View<'a>,
    daemon: &'a Daemon,
    plan: Plan,
    again: LookAgain,
}

impl Look<'_> {
    fn again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |known| known.min(at)));
    }

    /// Looks at one instance; says whether it is to be replaced by one that has what is deployed.
    fn at(&mut self, instance: &ManagedInstance, host: &ContainerInstance) -> bool {
        let (active, wanted) = (self.daemon.is_active(), self.daemon.providers.contains(&instance.provider));
        let Some(slot) = instance.daemons.get(&self.daemon.name) else { return active && wanted };
        let drains = host.status == ContainerInstanceStatus::Draining;
        let mut state = slot.state;
        if state != SlotState::Failed && !drains {
            state = self.state(instance, slot, host);
        }
        if state != slot.state {
            self.plan.note.push((instance.id, state));
            let of_target = slot.revision == self.daemon.revision;
            self.plan.failed += u32::from(state == SlotState::Failed && of_target);
        }
        if state == SlotState::Failed && slot.critical && !drains {
            self.plan.drain.push(instance.id);
            return false;
        }
        !(active && wanted && slot.revision == self.daemon.revision)
    }

    /// How the task does there.
    fn state(&mut self, instance: &ManagedInstance, slot: &Slot, host: &ContainerInstance) -> SlotState {
        let Some(id) = slot.task else {
            if host.agent_connected {
                self.plan.start.push(instance.id);
            }
            return slot.state;
        };
        let task = self.view.state.ecs.task(&TaskKey { cluster: instance.cluster.clone(), id });
        let Some(task) = task.filter(|task| task.is_live() && task.desired_status == DesiredStatus::Running)
        else {
            return SlotState::Failed;
        };
        if task.health() == HealthStatus::Unhealthy {
            return SlotState::Failed;
        }
        if slot.state == SlotState::Running || (task.last_status == LastStatus::Running && is_well(task)) {
            return SlotState::Running;
        }
        let until = task.created_at + START_MAX;
        if until <= self.view.now {
            return SlotState::Failed;
        }
        self.again(until);
        SlotState::Starting
    }

    /// How the attempt to deploy it goes on.
    fn deployment(&mut self, attempt: Option<&DaemonDeployment>, fleet: Fleet) {
        if !self.daemon.is_active() {
            self.plan.gone = fleet.outdated == 0;
            return;
        }
        let Some(attempt) = attempt.filter(|attempt| !attempt.status.is_over()) else { return };
        self.plan.begin = attempt.status == ServiceDeploymentStatus::Pending;
        if attempt.rollback.is_none() {
            let state = |name: &AlarmName| alarms::state(self.view, name);
            self.plan.alarmed = attempt.alarms.triggered(&attempt.configuration.alarms, state);
        }
        let starting = self.view.state.ecs.managed_instances.values().any(|instance| {
            let slot = instance.daemons.get(&self.daemon.name);
            instance.cluster == self.daemon.cluster
                && slot.is_some_and(|slot| slot.state == SlotState::Starting)
        });
        if self.plan.begin || fleet.outdated > 0 || starting || !self.plan.alarmed.is_empty() {
            return;
        }
        let bake = match attempt.rollback {
            Some(_) => Duration::ZERO,
            None => attempt.configuration.bake(),
        };
        let until = attempt.baking_since.unwrap_or(self.view.now) + bake;
        self.plan.arrived = until <= self.view.now;
        if !self.plan.arrived {
            self.plan.bakes = attempt.baking_since.is_none();
            self.again(until);
        }
    }
}

/// It has no health check, or that says so.
fn is_well(task: &Task) -> bool {
    let checked = |container: &gantry_decide::task::ContainerDefinition| {
        container.essential && container.health_check.is_some()
    };
    task.health() == HealthStatus::Healthy || !task.definition.container_definitions.iter().any(checked)
}

#[cfg(test)]
mod tests;
