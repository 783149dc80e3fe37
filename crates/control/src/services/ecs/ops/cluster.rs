//! Clusters, and which capacity providers they use.

use crate::call::Call;
use crate::page::{LIST_MAX, Page};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::account_setting::effective;
use crate::services::ecs::ops::capacity_provider::{providers, read_strategy};
use crate::services::ecs::state::{
    CapacityProvider, Cluster, ClusterStatus, ContainerInstanceStatus, Deployment, ServiceStatus,
};
use crate::services::ecs::views::cluster::{Include, cluster as show};
use crate::services::ecs::{bridge, check, quotas, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::{CapacityProviderName, ClusterName};
use std::collections::BTreeMap;

/// Clusters that one DescribeClusters takes: ECS's limit.
const DESCRIBE_MAX: usize = 100;
const CONTAINER_INSIGHTS: &str = "containerInsights";

pub fn create_cluster(
    tx: &mut Tx<'_>,
    call: &Call,
    request: ecs::CreateClusterRequest,
) -> Result<ecs::CreateClusterResponse, EcsError> {
    let name = match request.cluster_name.as_deref() {
        None | Some("") => ClusterName::default_cluster(),
        Some(text) => text.parse().map_err(|_| EcsError::invalid("Invalid cluster name."))?,
    };
    let mut cluster = Cluster::new(name, tx.now);
    if cluster.is_fargate_pool() {
        return Err(EcsError::invalid("Invalid cluster name."));
    }
    cluster.tags = tags::read(request.tags.as_deref())?;
    let insights = effective(tx.view(), &call.caller.arn(), CONTAINER_INSIGHTS);
    cluster.settings.insert(CONTAINER_INSIGHTS.to_owned(), insights);
    cluster.settings.extend(settings(request.settings.as_deref())?);
    cluster.configuration = request.configuration.as_ref().map(bridge::value_of).transpose()?;
    cluster.service_connect_namespace = namespace(request.service_connect_defaults);
    let names = request.capacity_providers.as_deref().unwrap_or_default();
    cluster.capacity_providers = providers(tx.view(), cluster.name.as_str(), names)?;
    let strategy = request.default_capacity_provider_strategy.as_deref().unwrap_or_default();
    cluster.default_strategy = read_strategy(tx.view(), strategy, &cluster.capacity_providers)?;

    // A name in use gives the cluster that has it, as it is.
    let existing = tx.state.ecs.clusters.get(&cluster.name).filter(|existing| existing.is_active()).cloned();
    let cluster = match existing {
        Some(existing) => existing.as_ref().clone(),
        None => {
            let clusters = &tx.state.ecs.clusters;
            let active = || clusters.values().filter(|c| c.is_active() && !c.is_fargate_pool()).count();
            quotas::check("clusters", tx.state.installation.quotas.clusters, clusters.len(), active)?;
            tx.state.ecs.clusters.put(cluster.clone());
            tx.state.ecs.forget_what_ended_in(&cluster.name);
            cluster
        }
    };
    Ok(ecs::CreateClusterResponse { cluster: Some(show(tx.view(), &cluster, Include::WRITTEN)?) })
}

/// The values that a cluster's settings may have.
fn settings(given: Option<&[ecs::ClusterSetting]>) -> Result<BTreeMap<String, String>, EcsError> {
    let mut read = BTreeMap::new();
    for setting in given.unwrap_or_default() {
        let name = setting
            .name
            .map(|name| name.as_str())
            .ok_or_else(|| EcsError::invalid("Setting name is missing."))?;
        let value = setting.value.as_deref().unwrap_or_default();
        if !["enabled", "disabled", "enhanced"].contains(&value) {
            return Err(EcsError::invalid(format!("Invalid value for the setting {name}.")));
        }
        read.insert(name.to_owned(), value.to_owned());
    }
    Ok(read)
}

/// An empty name takes the default away.
fn namespace(given: Option<ecs::ClusterServiceConnectDefaultsRequest>) -> Option<String> {
    given.map(|defaults| defaults.namespace).filter(|namespace| !namespace.is_empty())
}

pub fn describe_clusters(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeClustersRequest,
) -> Result<ecs::DescribeClustersResponse, EcsError> {
    let mut names = request.clusters.unwrap_or_default();
    if names.is_empty() {
        names.push(ClusterName::default_cluster().to_string());
    }
    if names.len() > DESCRIBE_MAX {
        return Err(EcsError::invalid(format!(
            "At most {DESCRIBE_MAX} clusters can be described in one call."
        )));
    }
    let include = Include::of(request.include.as_deref());
    let (mut clusters, mut failures) = (Vec::new(), Vec::new());
    for text in &names {
        let name = check::cluster_name(view, Some(text))?;
        match view.state.ecs.clusters.get(&name).filter(|cluster| !cluster.is_fargate_pool()) {
            Some(cluster) => clusters.push(show(view, cluster, include)?),
            None => failures.push(missing(view.scope.ecs(EcsResource::Cluster(name)).to_string())),
        }
    }
    Ok(ecs::DescribeClustersResponse { clusters: Some(clusters), failures: Some(failures) })
}

fn missing(arn: String) -> ecs::Failure {
    ecs::Failure { arn: Some(arn), reason: Some("MISSING".to_owned()), detail: None }
}

pub fn list_clusters(
    view: View<'_>,
    _call: &Call,
    request: ecs::ListClustersRequest,
) -> Result<ecs::ListClustersResponse, EcsError> {
    let page = Page::read(request.next_token.as_deref(), request.max_results, LIST_MAX, LIST_MAX)?;
    let clusters = view.state.ecs.clusters.iter().map(|(_, cluster)| cluster);
    let (cluster_arns, next_token) = page.cut(
        clusters.filter(|cluster| cluster.is_active() && !cluster.is_fargate_pool()),
        |cluster| cluster.name.to_string(),
        |cluster| cluster.arn(view.scope).to_string(),
    );
    Ok(ecs::ListClustersResponse { cluster_arns: Some(cluster_arns), next_token })
}

pub fn delete_cluster(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteClusterRequest,
) -> Result<ecs::DeleteClusterResponse, EcsError> {
    let mut cluster = check::cluster(tx.view(), Some(&request.cluster))?.clone();
    check_empty(tx.view(), &cluster.name)?;
    cluster.status = ClusterStatus::Inactive;
    cluster.deleted_at = Some(tx.now);
    tx.state.ecs.clusters.put(cluster.clone());
    Ok(ecs::DeleteClusterResponse { cluster: Some(show(tx.view(), &cluster, Include::WRITTEN)?) })
}

/// A cluster can only go when nothing is in it.
fn check_empty(view: View<'_>, name: &ClusterName) -> Result<(), EcsError> {
    let ecs = &view.state.ecs;
    let of_cluster = |provider: &CapacityProvider| {
        let settings = provider.kind.managed_instances().filter(|_| provider.is_active());
        settings.is_some_and(|settings| settings.cluster == *name)
    };
    if ecs.capacity_providers.values().any(|provider| of_cluster(provider)) {
        return Err(EcsError::ClusterContainsCapacityProvider);
    }
    let mut instances = ecs.container_instances().iter();
    if instances.any(|(key, i)| &key.cluster == name && i.status != ContainerInstanceStatus::Inactive) {
        return Err(EcsError::ClusterContainsContainerInstances);
    }
    let mut services = ecs.services().iter();
    if services.any(|(key, s)| &key.cluster == name && s.status != ServiceStatus::Inactive) {
        return Err(EcsError::ClusterContainsServices);
    }
    let mut tasks = ecs.tasks().iter();
    if tasks.any(|(key, task)| &key.cluster == name && task.is_live()) {
        return Err(EcsError::ClusterContainsTasks);
    }
    Ok(())
}

pub fn update_cluster(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateClusterRequest,
) -> Result<ecs::UpdateClusterResponse, EcsError> {
    let mut cluster = check::cluster(tx.view(), Some(&request.cluster))?.clone();
    cluster.settings.extend(settings(request.settings.as_deref())?);
    if let Some(configuration) = &request.configuration {
        cluster.configuration = Some(bridge::value_of(configuration)?);
    }
    if request.service_connect_defaults.is_some() {
        cluster.service_connect_namespace = namespace(request.service_connect_defaults);
    }
    tx.state.ecs.clusters.put(cluster.clone());
    Ok(ecs::UpdateClusterResponse { cluster: Some(show(tx.view(), &cluster, Include::WRITTEN)?) })
}

pub fn update_cluster_settings(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateClusterSettingsRequest,
) -> Result<ecs::UpdateClusterSettingsResponse, EcsError> {
    let mut cluster = check::cluster(tx.view(), Some(&request.cluster))?.clone();
    if request.settings.is_empty() {
        return Err(EcsError::invalid("Settings cannot be empty."));
    }
    cluster.settings.extend(settings(Some(&request.settings))?);
    tx.state.ecs.clusters.put(cluster.clone());
    Ok(ecs::UpdateClusterSettingsResponse { cluster: Some(show(tx.view(), &cluster, Include::WRITTEN)?) })
}

pub fn put_cluster_capacity_providers(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::PutClusterCapacityProvidersRequest,
) -> Result<ecs::PutClusterCapacityProvidersResponse, EcsError> {
    let mut cluster = check::cluster(tx.view(), Some(&request.cluster))?.clone();
    let mut wanted = providers(tx.view(), cluster.name.as_str(), &request.capacity_providers)?;
    // Those of Managed Instances are the cluster's from their creation to their deletion.
    let kept = cluster.capacity_providers.iter().filter(|name| {
        let provider = tx.state.ecs.capacity_providers.get(name);
        provider.is_some_and(|p| p.is_active() && p.kind.managed_instances().is_some())
            && !wanted.contains(name)
    });
    let kept: Vec<_> = kept.cloned().collect();
    wanted.extend(kept);
    let strategy = read_strategy(tx.view(), &request.default_capacity_provider_strategy, &wanted)?;
    let mut dropped = cluster.capacity_providers.iter().filter(|name| !wanted.contains(name));
    if dropped.any(|name| is_in_use(tx.view(), &cluster.name, name)) {
        let message = "The specified capacity provider is in use and cannot be removed.";
        return Err(EcsError::ResourceInUse(message.to_owned()));
    }
    cluster.capacity_providers = wanted;
    cluster.default_strategy = strategy;
    tx.state.ecs.clusters.put(cluster.clone());
    Ok(ecs::PutClusterCapacityProvidersResponse {
        cluster: Some(show(tx.view(), &cluster, Include::WRITTEN)?),
    })
}

/// Whether a task or a service of the cluster counts on the provider.
pub(super) fn is_in_use(view: View<'_>, cluster: &ClusterName, provider: &CapacityProviderName) -> bool {
    let ecs = &view.state.ecs;
    let by_task = ecs.tasks().iter().any(|(key, task)| {
        &key.cluster == cluster && task.is_live() && task.capacity_provider.as_ref() == Some(provider)
    });
    by_task
        || ecs.daemons.of_provider(provider).next().is_some()
        || ecs.services().iter().any(|(key, service)| {
            let in_strategy = |deployment: &Deployment| {
                let items = deployment.compute.strategy().unwrap_or_default();
                items.iter().any(|item| &item.capacity_provider == provider)
            };
            &key.cluster == cluster
                && service.status != ServiceStatus::Inactive
                && service.deployments.iter().any(in_strategy)
        })
}
