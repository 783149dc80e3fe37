//! Managed daemons between the tables: how deployments of theirs begin, what instances join with, and what they take of
//! each instance.

use super::state::{
    Daemon, DaemonDeployment, DaemonDeploymentKey, DaemonKey, DaemonRevisionKey, HISTORY_MAX, Slot,
};
use crate::services::cloudwatch::links as alarms;
use crate::tx::{Tx, View};
use gantry_decide::capacity::reservation::Size;
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::managed_daemon::SlotState;
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::ids::{
    CapacityProviderName, ClusterName, Ec2InstanceId, ServiceDeploymentId, ServiceRevisionId,
};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::BTreeSet;

/// A machine joins: it gets the revisions that are deployed now. Says which provider of the cluster it is of, if it is.
pub fn join(tx: &mut Tx<'_>, id: Ec2InstanceId, cluster: &ClusterName) -> Option<CapacityProviderName> {
    let instance = tx.state.ecs.managed_instances.get(&id).filter(|instance| instance.cluster == *cluster)?;
    let (provider, daemons) = (instance.provider.clone(), &tx.state.ecs.daemons);
    let slots = daemons.of_provider(&provider).filter_map(|daemon| {
        let critical = daemons.revision(&daemon.key(), daemon.revision)?.critical;
        let slot = Slot { revision: daemon.revision, critical, task: None, state: SlotState::Starting };
        Some((daemon.name.clone(), slot))
    });
    let slots = slots.collect();
    tx.state.ecs.managed_instances.edit(&id, |instance| instance.daemons = slots);
    Some(provider)
}

/// What the daemons of a provider take of each of its instances.
pub fn reserved(view: View<'_>, provider: &CapacityProviderName) -> Size {
    let daemons = &view.state.ecs.daemons;
    let mut taken = Size::default();
    for daemon in daemons.of_provider(provider) {
        let revision = daemons.revision(&daemon.key(), daemon.revision);
        let definition = revision.and_then(|revision| daemons.definitions.get(&revision.task_definition));
        if let Some(definition) = definition.map(|record| &record.definition) {
            taken.cpu = taken.cpu.saturating_add(definition.reserved_cpu().0);
            taken.memory = taken.memory.saturating_add(definition.reserved_memory().0);
        }
    }
    taken
}

/// Begins to deploy a daemon's revision. An attempt that was still going on gives way. The caller puts the daemon.
pub fn begin(tx: &mut Tx<'_>, daemon: &mut Daemon, source: Option<ServiceRevisionId>) {
    if let Some(mut older) =
        tx.state.ecs.daemons.current(daemon).filter(|older| !older.status.is_over()).cloned()
    {
        let status = match older.status {
            ServiceDeploymentStatus::RollbackInProgress => ServiceDeploymentStatus::RollbackFailed,
            _ => ServiceDeploymentStatus::Stopped,
        };
        older.become_(status, tx.now);
        older.status_reason = Some("A newer deployment took its place.".to_owned());
        tx.state.ecs.daemons.deployments.put(older);
    }
    let attempt = DaemonDeployment {
        daemon: daemon.key(),
        id: ServiceDeploymentId::random(tx.random),
        status: ServiceDeploymentStatus::Pending,
        status_reason: None,
        target: daemon.revision,
        source,
        configuration: daemon.configuration.clone(),
        created_at: tx.now,
        started_at: None,
        finished_at: None,
        stopped_at: None,
        rollback: None,
        failures: 0,
        alarms: Watch::begin(&daemon.configuration.alarms, |name| alarms::state(tx.view(), name)),
        baking_since: None,
    };
    daemon.deployment = attempt.id;
    tx.state.ecs.daemons.deployments.put(attempt);
    forget_oldest(tx, &daemon.key());
}

/// A daemon remembers as many attempts as a service, the newest.
fn forget_oldest(tx: &mut Tx<'_>, key: &DaemonKey) {
    let daemons = &mut tx.state.ecs.daemons;
    let mut over: Vec<(Timestamp, DaemonDeploymentKey)> = daemons
        .deployments
        .iter()
        .filter(|(known, attempt)| known.daemon == *key && attempt.status.is_over())
        .map(|(known, attempt)| (attempt.created_at, known.clone()))
        .collect();
    over.sort();
    let surplus = (over.len() + 1).saturating_sub(HISTORY_MAX);
    for (_, key) in over.into_iter().take(surplus) {
        daemons.deployments.remove(&key);
    }
    // A revision is of use as long as an attempt names it, an instance has it, or it may be gone back to.
    let Some(daemon) = daemons.daemons.get(key) else { return };
    let mut used = BTreeSet::from([daemon.revision]);
    used.extend(daemon.proven);
    for attempt in daemons.deployments.values().filter(|attempt| attempt.daemon == *key) {
        used.insert(attempt.target);
        used.extend(attempt.source);
        used.extend(attempt.rollback.map(|(to, _)| to));
    }
    let slots = tx.state.ecs.managed_instances.values().filter(|instance| instance.cluster == key.cluster);
    used.extend(slots.filter_map(|instance| instance.daemons.get(&key.name)).map(|slot| slot.revision));
    let unused = |revision: &&DaemonRevisionKey| revision.daemon == *key && !used.contains(&revision.id);
    let unused: Vec<DaemonRevisionKey> =
        daemons.revisions.iter().map(|(key, _)| key).filter(unused).cloned().collect();
    for revision in unused {
        daemons.revisions.remove(&revision);
    }
}
