//! Managed daemons as the API shows them.

use crate::services::ecs::bridge;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{
    ContainerInstanceStatus, Daemon, DaemonDeployment, DaemonKey, DaemonRevision, DaemonRevisionKey,
    DaemonStatus, DaemonTaskDefinition, DaemonTaskDefinitionStatus, ManagedInstance,
};
use crate::services::ecs::views::service::integer;
use crate::services::ecs::views::task::millis;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::alarms::Watch;
use gantry_decide::deployment::managed_daemon::{FAILURES_MAX, SlotState};
use gantry_decide::deployment::status::ServiceDeploymentStatus;
use gantry_decide::ids::{AlarmName, CapacityProviderName, Scope, ServiceRevisionId};
use gantry_store::Record;
use serde_json::json;

pub fn status(status: DaemonTaskDefinitionStatus) -> ecs::DaemonTaskDefinitionStatus {
    match status {
        DaemonTaskDefinitionStatus::Active => ecs::DaemonTaskDefinitionStatus::Active,
        DaemonTaskDefinitionStatus::DeleteInProgress => ecs::DaemonTaskDefinitionStatus::DeleteInProgress,
        DaemonTaskDefinitionStatus::Deleted => ecs::DaemonTaskDefinitionStatus::Deleted,
    }
}

/// A definition, with the modes as daemons name them.
pub fn daemon_task_definition(
    scope: &Scope,
    record: &DaemonTaskDefinition,
) -> Result<ecs::DaemonTaskDefinition, EcsError> {
    let text = |error: serde_json::Error| EcsError::invalid(error.to_string());
    let mut value = serde_json::to_value(record.definition.as_ref()).map_err(text)?;
    for mode in ["pidMode", "ipcMode"] {
        let shared = value[mode] == "host";
        value[mode] = json!(if shared { "shared" } else { "none" });
    }
    let mut shown: ecs::DaemonTaskDefinition = bridge::shape_of(&value)?;
    shown.daemon_task_definition_arn = Some(definition_arn(scope, record));
    shown.delete_requested_at = millis(record.delete_requested_at);
    shown.family = Some(record.id.family.to_string());
    shown.registered_at = millis(Some(record.registered_at));
    shown.registered_by = Some(record.registered_by.clone());
    shown.revision = Some(integer(record.id.revision));
    shown.status = Some(status(record.status));
    Ok(shown)
}

fn definition_arn(scope: &Scope, record: &DaemonTaskDefinition) -> String {
    scope.ecs(EcsResource::DaemonTaskDefinition(record.id.clone())).to_string()
}

pub fn summary(scope: &Scope, record: &DaemonTaskDefinition) -> ecs::DaemonTaskDefinitionSummary {
    ecs::DaemonTaskDefinitionSummary {
        arn: Some(definition_arn(scope, record)),
        delete_requested_at: millis(record.delete_requested_at),
        registered_at: millis(Some(record.registered_at)),
        registered_by: Some(record.registered_by.clone()),
        status: Some(status(record.status)),
    }
}

fn daemon_status(daemon: &Daemon) -> Option<ecs::DaemonStatus> {
    Some(match daemon.status {
        DaemonStatus::Active => ecs::DaemonStatus::Active,
        DaemonStatus::DeleteInProgress => ecs::DaemonStatus::DeleteInProgress,
    })
}

fn deployment_arn(view: View<'_>, daemon: &Daemon) -> Option<String> {
    let current = view.state.ecs.daemons.current(daemon);
    current.map(|deployment| deployment.key().arn(view.scope).to_string())
}

pub fn created(view: View<'_>, daemon: &Daemon) -> ecs::CreateDaemonResponse {
    ecs::CreateDaemonResponse {
        created_at: millis(Some(daemon.created_at)),
        daemon_arn: Some(daemon.key().arn(view.scope).to_string()),
        deployment_arn: deployment_arn(view, daemon),
        status: daemon_status(daemon),
    }
}

pub fn updated(view: View<'_>, daemon: &Daemon) -> ecs::UpdateDaemonResponse {
    ecs::UpdateDaemonResponse {
        created_at: millis(Some(daemon.created_at)),
        daemon_arn: Some(daemon.key().arn(view.scope).to_string()),
        deployment_arn: deployment_arn(view, daemon),
        status: daemon_status(daemon),
        updated_at: millis(Some(daemon.updated_at)),
    }
}

pub fn deleted(view: View<'_>, daemon: &Daemon) -> ecs::DeleteDaemonResponse {
    ecs::DeleteDaemonResponse {
        created_at: millis(Some(daemon.created_at)),
        daemon_arn: Some(daemon.key().arn(view.scope).to_string()),
        deployment_arn: deployment_arn(view, daemon),
        status: daemon_status(daemon),
        updated_at: millis(Some(daemon.updated_at)),
    }
}

pub fn daemon_summary(view: View<'_>, daemon: &Daemon) -> ecs::DaemonSummary {
    ecs::DaemonSummary {
        created_at: millis(Some(daemon.created_at)),
        daemon_arn: Some(daemon.key().arn(view.scope).to_string()),
        status: daemon_status(daemon),
        updated_at: millis(Some(daemon.updated_at)),
    }
}

/// Instances of one revision.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    running: i32,
    without: i32,
    draining: i32,
}

impl Counts {
    fn plus(self, other: Counts) -> Counts {
        Counts {
            running: self.running.saturating_add(other.running),
            without: self.without.saturating_add(other.without),
            draining: self.draining.saturating_add(other.draining),
        }
    }
}

/// The instances of a revision, by the daemon's providers.
fn counts(
    view: View<'_>,
    key: &DaemonKey,
    revision: ServiceRevisionId,
    providers: &[CapacityProviderName],
) -> Vec<(String, Counts)> {
    let of = |provider: &CapacityProviderName| {
        let own = view.state.ecs.managed_instances.values().filter(|instance| instance.provider == *provider);
        let each = own.filter_map(|instance| one(view, key, revision, instance));
        each.fold(Counts::default(), Counts::plus)
    };
    let arn =
        |name: &CapacityProviderName| view.scope.ecs(EcsResource::CapacityProvider(name.clone())).to_string();
    providers.iter().map(|name| (arn(name), of(name))).collect()
}

fn one(
    view: View<'_>,
    key: &DaemonKey,
    revision: ServiceRevisionId,
    instance: &ManagedInstance,
) -> Option<Counts> {
    let slot = instance.daemons.get(&key.name).filter(|slot| slot.revision == revision)?;
    let machine = instance.id.to_string();
    let host = crate::services::ecs::links::on_machine(view, &machine).next()?;
    Some(Counts {
        running: i32::from(slot.state == SlotState::Running),
        without: i32::from(slot.state == SlotState::Failed),
        draining: i32::from(host.status == ContainerInstanceStatus::Draining),
    })
}

/// The revision that is deployed, and the one before as long as instances have it.
pub fn daemon(view: View<'_>, daemon: &Daemon) -> ecs::DaemonDetail {
    let key = daemon.key();
    let instances = view.state.ecs.managed_instances.values();
    let of_instances = instances.filter(|instance| instance.cluster == key.cluster);
    let mut revisions: Vec<ServiceRevisionId> = of_instances
        .filter_map(|instance| instance.daemons.get(&key.name))
        .map(|slot| slot.revision)
        .collect();
    revisions.push(daemon.revision);
    revisions.sort();
    revisions.dedup();
    let detail = |id: ServiceRevisionId| {
        let providers = view.state.ecs.daemons.revision(&key, id).map(|revision| revision.providers.clone());
        let counts = counts(view, &key, id, &providers.unwrap_or_default());
        let total = counts.iter().fold(Counts::default(), |sum, (_, counts)| sum.plus(*counts));
        let shown = counts.into_iter().map(|(arn, counts)| ecs::DaemonCapacityProvider {
            arn: Some(arn),
            running_count: Some(counts.running),
            without_daemon_count: Some(counts.without),
        });
        ecs::DaemonRevisionDetail {
            arn: Some(DaemonRevisionKey { daemon: key.clone(), id }.arn(view.scope).to_string()),
            capacity_providers: Some(shown.collect()),
            total_running_count: Some(total.running),
            total_without_daemon_count: Some(total.without),
        }
    };
    ecs::DaemonDetail {
        cluster_arn: Some(view.scope.ecs(EcsResource::Cluster(daemon.cluster.clone())).to_string()),
        created_at: millis(Some(daemon.created_at)),
        current_revisions: Some(revisions.into_iter().map(detail).collect()),
        daemon_arn: Some(key.arn(view.scope).to_string()),
        deployment_arn: deployment_arn(view, daemon),
        status: daemon_status(daemon),
        updated_at: millis(Some(daemon.updated_at)),
    }
}

fn deployment_status(status: ServiceDeploymentStatus) -> Option<ecs::DaemonDeploymentStatus> {
    // What only services go through, no daemon does.
    status.as_str().parse().ok()
}

/// A revision's instances as they are.
fn of_revision(
    view: View<'_>,
    deployment: &DaemonDeployment,
    id: ServiceRevisionId,
) -> ecs::DaemonDeploymentRevisionDetail {
    let key = &deployment.daemon;
    let providers = view.state.ecs.daemons.revision(key, id).map(|revision| revision.providers.clone());
    let counts = counts(view, key, id, &providers.unwrap_or_default());
    let total = counts.iter().fold(Counts::default(), |sum, (_, counts)| sum.plus(*counts));
    let shown = counts.into_iter().map(|(arn, counts)| ecs::DaemonDeploymentCapacityProvider {
        arn: Some(arn),
        draining_instance_count: Some(counts.draining),
        running_instance_count: Some(counts.running),
        without_daemon_instance_count: Some(counts.without),
    });
    ecs::DaemonDeploymentRevisionDetail {
        arn: Some(DaemonRevisionKey { daemon: key.clone(), id }.arn(view.scope).to_string()),
        capacity_providers: Some(shown.collect()),
        total_draining_instance_count: Some(total.draining),
        total_running_instance_count: Some(total.running),
        total_without_daemon_instance_count: Some(total.without),
    }
}

fn monitors(triggered: bool, over: bool) -> ecs::DaemonDeploymentRollbackMonitorsStatus {
    match (triggered, over) {
        (true, _) => ecs::DaemonDeploymentRollbackMonitorsStatus::Triggered,
        (false, true) => ecs::DaemonDeploymentRollbackMonitorsStatus::MonitoringComplete,
        (false, false) => ecs::DaemonDeploymentRollbackMonitorsStatus::Monitoring,
    }
}

fn names(names: &[AlarmName]) -> Option<Vec<String>> {
    Some(names.iter().map(AlarmName::to_string).collect())
}

pub fn deployment(view: View<'_>, deployment: &DaemonDeployment) -> ecs::DaemonDeployment {
    let brief = deployment_summary(view, deployment);
    let over = deployment.status.is_over();
    let configured = &deployment.configuration;
    let (watched, triggered) = match &deployment.alarms {
        Watch::Disabled => (ecs::DaemonDeploymentRollbackMonitorsStatus::Disabled, &[][..]),
        Watch::Monitoring => (monitors(false, over), &[][..]),
        Watch::Triggered(triggered) => (monitors(true, over), triggered.as_slice()),
    };
    let tripped = deployment.failures >= FAILURES_MAX
        || (deployment.rollback.is_some() && !matches!(deployment.alarms, Watch::Triggered(_)));
    ecs::DaemonDeployment {
        alarms: (!configured.alarms.names.is_empty()).then(|| ecs::DaemonDeploymentAlarms {
            alarm_names: names(&configured.alarms.names),
            status: Some(watched),
            triggered_alarm_names: names(triggered),
        }),
        circuit_breaker: Some(ecs::DaemonCircuitBreaker {
            failure_count: Some(integer(deployment.failures)),
            status: Some(monitors(tripped, over)),
            threshold: Some(integer(FAILURES_MAX)),
        }),
        cluster_arn: brief.cluster_arn,
        created_at: brief.created_at,
        daemon_deployment_arn: brief.daemon_deployment_arn,
        deployment_configuration: Some(ecs::DaemonDeploymentConfiguration {
            alarms: (!configured.alarms.is_unset()).then(|| ecs::DaemonAlarmConfiguration {
                alarm_names: names(&configured.alarms.names),
                enable: Some(configured.alarms.enable),
            }),
            bake_time_in_minutes: Some(integer(configured.bake_minutes)),
            drain_percent: Some(configured.drain.percent()),
        }),
        finished_at: brief.finished_at,
        rollback: deployment.rollback.map(|(to, since)| ecs::DaemonRollback {
            reason: deployment.status_reason.clone(),
            rollback_capacity_providers: None,
            rollback_target_daemon_revision_arn: Some(
                DaemonRevisionKey { daemon: deployment.daemon.clone(), id: to }.arn(view.scope).to_string(),
            ),
            started_at: millis(Some(since)),
        }),
        source_daemon_revisions: Some(
            deployment.source.iter().map(|source| of_revision(view, deployment, *source)).collect(),
        ),
        started_at: brief.started_at,
        status: brief.status,
        status_reason: brief.status_reason,
        stopped_at: brief.stopped_at,
        target_daemon_revision: Some(of_revision(view, deployment, deployment.target)),
    }
}

/// As lists show it.
pub fn deployment_summary(view: View<'_>, deployment: &DaemonDeployment) -> ecs::DaemonDeploymentSummary {
    let target = DaemonRevisionKey { daemon: deployment.daemon.clone(), id: deployment.target };
    ecs::DaemonDeploymentSummary {
        cluster_arn: Some(
            view.scope.ecs(EcsResource::Cluster(deployment.daemon.cluster.clone())).to_string(),
        ),
        created_at: millis(Some(deployment.created_at)),
        daemon_arn: Some(deployment.daemon.arn(view.scope).to_string()),
        daemon_deployment_arn: Some(deployment.key().arn(view.scope).to_string()),
        finished_at: millis(deployment.finished_at),
        started_at: millis(deployment.started_at),
        status: deployment_status(deployment.status),
        status_reason: deployment.status_reason.clone(),
        stopped_at: millis(deployment.stopped_at),
        target_daemon_revision_arn: Some(target.arn(view.scope).to_string()),
    }
}

pub fn revision(view: View<'_>, revision: &DaemonRevision) -> ecs::DaemonRevision {
    let registered = view.state.ecs.daemons.definitions.get(&revision.task_definition);
    let images = registered.map(|record| {
        let containers = record.definition.container_definitions.iter();
        let image = |container: &gantry_decide::task::ContainerDefinition| ecs::DaemonContainerImage {
            container_name: Some(container.name.to_string()),
            image: Some(container.image.clone()),
            image_digest: None,
        };
        containers.map(image).collect()
    });
    ecs::DaemonRevision {
        cluster_arn: Some(view.scope.ecs(EcsResource::Cluster(revision.daemon.cluster.clone())).to_string()),
        container_images: images,
        created_at: millis(Some(revision.created_at)),
        critical: Some(revision.critical),
        daemon_arn: Some(revision.daemon.arn(view.scope).to_string()),
        daemon_revision_arn: Some(revision.key().arn(view.scope).to_string()),
        daemon_task_definition_arn: Some(
            view.scope.ecs(EcsResource::DaemonTaskDefinition(revision.task_definition.clone())).to_string(),
        ),
        enable_ecs_managed_tags: Some(revision.managed_tags),
        enable_execute_command: Some(revision.execute_command),
        propagate_tags: Some(match revision.propagates_tags {
            true => ecs::DaemonPropagateTags::Daemon,
            false => ecs::DaemonPropagateTags::None,
        }),
    }
}
