//! Managed daemons: create, update, delete, describe, list; their deployments and revisions. What follows is the work of
//! the controllers `managed_daemons` and `managed_instances`.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::attempts::{LIST_DEFAULT, asked_for, described, order};
use crate::services::ecs::ops::daemon_task_definition;
use crate::services::ecs::ops::deployment_configuration::alarm_names;
use crate::services::ecs::ops::idempotency::{Repeated, Token};
use crate::services::ecs::state::{
    Daemon, DaemonConfiguration, DaemonDeployment, DaemonDeploymentKey, DaemonKey, DaemonRevision,
    DaemonRevisionKey, DaemonStatus, DaemonTaskDefinitionStatus,
};
use crate::services::ecs::views::daemon as show;
use crate::services::ecs::{check, daemons, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::deployment::alarms::DeploymentAlarms;
use gantry_decide::deployment::managed_daemon::DRAIN_PERCENT;
use gantry_decide::deployment::strategy::BAKE_MINUTES_MAX;
use gantry_decide::deployment::task_set::Scale;
use gantry_decide::ids::{
    CapacityProviderName, ClusterName, DaemonName, ServiceDeploymentId, ServiceRevisionId,
};
use gantry_store::Record;

/// Capacity providers of one daemon: as many as a cluster can have by ECS's quota.
const PROVIDERS_MAX: usize = 20;
/// Daemons of one cluster: each is on every instance of its providers, and no instance has room for so many.
const DAEMONS_MAX: usize = 100;

/// What the two requests that begin a deployment have in common.
struct Wanted<'a> {
    definition: &'a str,
    providers: &'a [String],
    configuration: Option<&'a ecs::DaemonDeploymentConfiguration>,
    critical: Option<bool>,
    managed_tags: bool,
    execute_command: bool,
    propagate: Option<&'a ecs::DaemonPropagateTags>,
}

pub fn create_daemon(
    tx: &mut Tx<'_>,
    _call: &Call,
    mut request: ecs::CreateDaemonRequest,
) -> Result<ecs::CreateDaemonResponse, EcsError> {
    let token = request.client_token.take();
    let cluster = check::cluster(tx.view(), request.cluster_arn.as_deref())?.name.clone();
    let name: DaemonName = request.daemon_name.parse().map_err(|_| {
        EcsError::invalid("The daemon name must be up to 255 letters, numbers, hyphens and underscores.")
    })?;
    let key = DaemonKey { cluster, name };
    let token = Token::read(Repeated::CreateDaemon, &key.cluster, token.as_deref(), &request)?;
    if let Some(known) = tx.state.ecs.daemons.daemons.get(&key) {
        let same = token.as_ref().map(|token| token.first(tx)).transpose()?.flatten().is_some();
        return match same {
            true => Ok(show::created(tx.view(), known)),
            false => Err(EcsError::invalid("Creation of daemon was not idempotent.")),
        };
    }
    let daemons = tx.state.ecs.daemons.daemons.values();
    if daemons.filter(|daemon| daemon.cluster == key.cluster).count() >= DAEMONS_MAX {
        return Err(EcsError::LimitExceeded(format!("A cluster can have at most {DAEMONS_MAX} daemons.")));
    }
    let wanted = Wanted {
        definition: &request.daemon_task_definition_arn,
        providers: &request.capacity_provider_arns,
        configuration: request.deployment_configuration.as_ref(),
        critical: request.critical,
        managed_tags: request.enable_ecs_managed_tags == Some(true),
        execute_command: request.enable_execute_command == Some(true),
        propagate: request.propagate_tags.as_ref(),
    };
    let (revision, configuration) = revise(tx, &key, &wanted, None)?;
    let mut daemon = Daemon {
        cluster: key.cluster.clone(),
        name: key.name.clone(),
        status: DaemonStatus::Active,
        revision: revision.id,
        proven: None,
        deployment: ServiceDeploymentId::MIN,
        providers: revision.providers.clone(),
        configuration,
        tags: tags::read(request.tags.as_deref())?,
        created_at: tx.now,
        updated_at: tx.now,
    };
    tx.state.ecs.daemons.revisions.put(revision);
    daemons::begin(tx, &mut daemon, None);
    tx.state.ecs.daemons.daemons.put(daemon.clone());
    if let Some(token) = token {
        token.remember(tx, vec![key.arn(tx.scope).to_string()]);
    }
    Ok(show::created(tx.view(), &daemon))
}

/// What a request wants deployed: `before` is what a daemon runs that is there.
fn revise(
    tx: &mut Tx<'_>,
    key: &DaemonKey,
    wanted: &Wanted<'_>,
    before: Option<&Daemon>,
) -> Result<(DaemonRevision, DaemonConfiguration), EcsError> {
    let view = tx.view();
    let definition = daemon_task_definition::named(view, wanted.definition)?;
    if definition.status != DaemonTaskDefinitionStatus::Active {
        return Err(EcsError::client("The specified daemon task definition is not ACTIVE."));
    }
    if wanted.execute_command && definition.definition.task_role_arn.is_none() {
        return Err(EcsError::invalid(
            "enableExecuteCommand needs a task role in the daemon task definition.",
        ));
    }
    let known = before.and_then(|daemon| view.state.ecs.daemons.revision(key, daemon.revision));
    let propagates = wanted.propagate.map(|propagate| *propagate == ecs::DaemonPropagateTags::Daemon);
    let task_definition = definition.id.clone();
    let providers = providers(view, &key.cluster, wanted.providers)?;
    let configuration = configuration(wanted.configuration, before.map(|daemon| &daemon.configuration))?;
    let revision = DaemonRevision {
        daemon: key.clone(),
        task_definition,
        providers,
        critical: wanted.critical.unwrap_or_else(|| known.is_none_or(|known| known.critical)),
        managed_tags: wanted.managed_tags,
        execute_command: wanted.execute_command,
        propagates_tags: propagates.unwrap_or_else(|| known.is_some_and(|known| known.propagates_tags)),
        created_at: tx.now,
        id: ServiceRevisionId::random(tx.random),
    };
    Ok((revision, configuration))
}

/// Managed daemons are for Managed Instances of their own cluster alone.
fn providers(
    view: View<'_>,
    cluster: &ClusterName,
    texts: &[String],
) -> Result<Vec<CapacityProviderName>, EcsError> {
    if texts.is_empty() || texts.len() > PROVIDERS_MAX {
        return Err(EcsError::invalid(format!(
            "Between 1 and {PROVIDERS_MAX} capacity providers must be specified for a daemon."
        )));
    }
    let mut read = Vec::new();
    for text in texts {
        let name = match text.starts_with("arn:") {
            true => match check::own_arn(view, text)? {
                EcsResource::CapacityProvider(name) => Some(name),
                _ => return Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
            },
            false => text.parse().ok(),
        };
        let own = name.filter(|name: &CapacityProviderName| {
            let provider =
                view.state.ecs.capacity_providers.get(name).filter(|provider| provider.is_active());
            let settings = provider.and_then(|provider| provider.kind.managed_instances());
            settings.is_some_and(|settings| settings.cluster == *cluster)
        });
        let Some(name) = own else {
            return Err(EcsError::invalid(
                "Daemons run on capacity providers of Managed Instances. Specify capacity providers of this kind that \
                 belong to the daemon's cluster.",
            ));
        };
        if !read.contains(&name) {
            read.push(name);
        }
    }
    Ok(read)
}

fn configuration(
    given: Option<&ecs::DaemonDeploymentConfiguration>,
    before: Option<&DaemonConfiguration>,
) -> Result<DaemonConfiguration, EcsError> {
    let mut configuration = before.cloned().unwrap_or_else(|| DaemonConfiguration {
        drain: Scale::of_percent(DRAIN_PERCENT).unwrap_or(Scale::ALL),
        bake_minutes: 0,
        alarms: DeploymentAlarms::default(),
    });
    let Some(given) = given else { return Ok(configuration) };
    if let Some(percent) = given.drain_percent {
        configuration.drain = Scale::of_percent(percent)
            .ok_or_else(|| EcsError::invalid("drainPercent must be between 0.0 and 100.0."))?;
    }
    if let Some(minutes) = given.bake_time_in_minutes {
        let minutes = u32::try_from(minutes).ok().filter(|minutes| *minutes <= BAKE_MINUTES_MAX);
        configuration.bake_minutes = minutes.ok_or_else(|| {
            EcsError::invalid(format!("bakeTimeInMinutes must be between 0 and {BAKE_MINUTES_MAX}."))
        })?;
    }
    if let Some(alarms) = &given.alarms {
        let enable = alarms.enable.unwrap_or(false);
        let names = alarm_names(enable, alarms.alarm_names.as_deref().unwrap_or_default())?;
        // A daemon always goes back.
        configuration.alarms = DeploymentAlarms { enable, rollback: true, names };
    }
    Ok(configuration)
}

/// The daemon that an ARN names.
fn named<'a>(view: View<'a>, arn: &str) -> Result<&'a Daemon, EcsError> {
    let EcsResource::Daemon(cluster, name) = check::own_arn(view, arn)? else {
        return Err(EcsError::invalid(format!("Invalid identifier: {arn}")));
    };
    let known = view.state.ecs.daemons.daemons.get(&DaemonKey { cluster, name });
    known.map(AsRef::as_ref).ok_or(EcsError::DaemonNotFound)
}

fn active(view: View<'_>, arn: &str) -> Result<Daemon, EcsError> {
    let daemon = named(view, arn)?;
    if !daemon.is_active() {
        return Err(EcsError::DaemonNotActive);
    }
    Ok(daemon.clone())
}

pub fn update_daemon(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateDaemonRequest,
) -> Result<ecs::UpdateDaemonResponse, EcsError> {
    let mut daemon = active(tx.view(), &request.daemon_arn)?;
    let wanted = Wanted {
        definition: &request.daemon_task_definition_arn,
        providers: &request.capacity_provider_arns,
        configuration: request.deployment_configuration.as_ref(),
        critical: request.critical,
        managed_tags: request.enable_ecs_managed_tags == Some(true),
        execute_command: request.enable_execute_command == Some(true),
        propagate: request.propagate_tags.as_ref(),
    };
    let (revision, configuration) = revise(tx, &daemon.key(), &wanted, Some(&daemon))?;
    let before = daemon.revision;
    daemon.revision = revision.id;
    daemon.providers = revision.providers.clone();
    daemon.configuration = configuration;
    daemon.updated_at = tx.now;
    tx.state.ecs.daemons.revisions.put(revision);
    daemons::begin(tx, &mut daemon, Some(before));
    tx.state.ecs.daemons.daemons.put(daemon.clone());
    Ok(show::updated(tx.view(), &daemon))
}

pub fn delete_daemon(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteDaemonRequest,
) -> Result<ecs::DeleteDaemonResponse, EcsError> {
    let mut daemon = active(tx.view(), &request.daemon_arn)?;
    daemon.status = DaemonStatus::DeleteInProgress;
    daemon.updated_at = tx.now;
    tx.state.ecs.daemons.daemons.put(daemon.clone());
    Ok(show::deleted(tx.view(), &daemon))
}

pub fn describe_daemon(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeDaemonRequest,
) -> Result<ecs::DescribeDaemonResponse, EcsError> {
    let daemon = named(view, &request.daemon_arn)?;
    Ok(ecs::DescribeDaemonResponse { daemon: Some(show::daemon(view, daemon)) })
}

pub fn list_daemons(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListDaemonsRequest,
) -> Result<ecs::ListDaemonsResponse, EcsError> {
    let cluster = &check::cluster(view, request.cluster_arn.as_deref())?.name;
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let wanted = match request.capacity_provider_arns.as_deref() {
        None | Some([]) => None,
        Some(texts) => Some(providers(view, cluster, texts)?),
    };
    let fits = |daemon: &&Daemon| {
        let of = |names: &Vec<CapacityProviderName>| names.iter().any(|name| daemon.providers.contains(name));
        daemon.cluster == *cluster && wanted.as_ref().is_none_or(of)
    };
    let all = view.state.ecs.daemons.daemons.values().map(AsRef::as_ref).filter(fits);
    let (daemon_summaries_list, next_token) =
        page.cut(all, |daemon| daemon.name.to_string(), |daemon| show::daemon_summary(view, daemon));
    Ok(ecs::ListDaemonsResponse { daemon_summaries_list: Some(daemon_summaries_list), next_token })
}

pub fn describe_daemon_deployments(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeDaemonDeploymentsRequest,
) -> Result<ecs::DescribeDaemonDeploymentsResponse, EcsError> {
    let find = |arn: &str| {
        let EcsResource::DaemonDeployment(cluster, name, id) = check::own_arn(view, arn)? else {
            return Err(EcsError::invalid(format!("Invalid identifier: {arn}")));
        };
        let key = DaemonDeploymentKey { daemon: DaemonKey { cluster, name }, id };
        Ok(view.state.ecs.daemons.deployments.get(&key).map(|deployment| show::deployment(view, deployment)))
    };
    let (found, failures) = described(&request.daemon_deployment_arns, "daemonDeploymentArns", find)?;
    Ok(ecs::DescribeDaemonDeploymentsResponse { daemon_deployments: Some(found), failures: Some(failures) })
}

pub fn describe_daemon_revisions(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeDaemonRevisionsRequest,
) -> Result<ecs::DescribeDaemonRevisionsResponse, EcsError> {
    let find = |arn: &str| {
        let EcsResource::DaemonRevision(cluster, name, id) = check::own_arn(view, arn)? else {
            return Err(EcsError::invalid(format!("Invalid identifier: {arn}")));
        };
        let key = DaemonRevisionKey { daemon: DaemonKey { cluster, name }, id };
        Ok(view.state.ecs.daemons.revisions.get(&key).map(|revision| show::revision(view, revision)))
    };
    let (found, failures) = described(&request.daemon_revision_arns, "daemonRevisionArns", find)?;
    Ok(ecs::DescribeDaemonRevisionsResponse { daemon_revisions: Some(found), failures: Some(failures) })
}

pub fn list_daemon_deployments(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListDaemonDeploymentsRequest,
) -> Result<ecs::ListDaemonDeploymentsResponse, EcsError> {
    let key = named(view, &request.daemon_arn)?.key();
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_DEFAULT)?;
    let statuses = request.status.unwrap_or_default();
    let statuses = statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let asked_for = asked_for(statuses, request.created_at);
    let wanted =
        |attempt: &&DaemonDeployment| attempt.daemon == key && asked_for(attempt.status, attempt.created_at);
    let order = |attempt: &DaemonDeployment| order(attempt.created_at, attempt.id);
    let all = view.state.ecs.daemons.deployments.values().map(AsRef::as_ref);
    let mut found: Vec<&DaemonDeployment> = all.filter(wanted).collect();
    found.sort_by_key(|deployment| std::cmp::Reverse(order(deployment)));
    let (daemon_deployments, next_token) = page.descending(true).cut(
        found.into_iter(),
        |deployment| order(deployment),
        |deployment| show::deployment_summary(view, deployment),
    );
    Ok(ecs::ListDaemonDeploymentsResponse { daemon_deployments: Some(daemon_deployments), next_token })
}
