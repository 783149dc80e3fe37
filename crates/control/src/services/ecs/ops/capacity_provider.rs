//! Capacity providers: create, update, delete, describe; and the strategies that name them.

use crate::call::Call;
use crate::page::{Page, SHORT_MAX};
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::ops::cluster::is_in_use;
use crate::services::ecs::ops::managed_instances;
use crate::services::ecs::state::{
    AutoScalingGroupProvider, CapacityProvider, CapacityProviderStatus, ManagedInstancesProvider,
    ManagedScaling, ProviderKind, StrategyItem, UpdateStatus,
};
use crate::services::ecs::views::capacity_provider::capacity_provider as show;
use crate::services::ecs::{check, tags};
use crate::tx::{Tx, View};
use gantry_api::ecs;
use gantry_decide::arn::EcsResource;
use gantry_decide::ids::CapacityProviderName;
use std::collections::BTreeMap;
use std::time::Duration;

/// Entries of a strategy: ECS's limit.
const STRATEGY_MAX: usize = 20;
const WEIGHT_MAX: i32 = 1000;
const BASE_MAX: i32 = 100_000;
/// How long a deleted provider stays describable: as long as a stopped task.
const RETENTION: Duration = Duration::from_secs(3600);
/// What names of one's own may not begin with, in any case of letters.
const RESERVED_PREFIXES: [&str; 3] = ["aws", "ecs", "fargate"];
/// Characters of a group's ARN, whose name has up to 255.
const GROUP_LENGTH_MAX: usize = 512;

pub fn create_capacity_provider(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::CreateCapacityProviderRequest,
) -> Result<ecs::CreateCapacityProviderResponse, EcsError> {
    let name = own_name(&request.name)?;
    let managed = match (&request.managed_instances_provider, &request.auto_scaling_group_provider) {
        (Some(_), Some(_)) => {
            return Err(EcsError::invalid(
                "A capacity provider is of an Auto Scaling group or of Managed Instances. Specify one of the two.",
            ));
        }
        (Some(given), None) => {
            Some(managed_instances::read(tx.view(), request.cluster.as_deref(), given.clone())?)
        }
        (None, _) => None,
    };
    if let Some(settings) = managed {
        return create_managed(tx, name, settings, request.tags.as_deref());
    }
    refuse_cluster(request.cluster.as_deref())?;
    let given = request.auto_scaling_group_provider.ok_or_else(|| {
        EcsError::invalid("An Auto Scaling group provider is required to create a capacity provider.")
    })?;
    let group = group(&given.auto_scaling_group_arn)?;
    let provider = AutoScalingGroupProvider {
        group,
        managed_scaling: managed_scaling(given.managed_scaling.as_ref(), ManagedScaling::default())?,
        managed_termination_protection: is_enabled(
            given.managed_termination_protection.map(|value| value.as_str()),
            false,
        ),
        // ECS drains unless it is told not to.
        managed_draining: is_enabled(given.managed_draining.map(|value| value.as_str()), true),
    };
    check_protection(&provider)?;
    let tags = tags::read(request.tags.as_deref())?;
    forget_deleted(tx);
    let table = &tx.state.ecs.capacity_providers;
    let same_group = |known: &AutoScalingGroupProvider| known.group_name() == provider.group_name();
    let takes_group = |known: &CapacityProvider| {
        known.is_active() && known.kind.auto_scaling_group().is_some_and(same_group)
    };
    if table.get(&name).is_some_and(|known| known.is_active()) {
        return Err(EcsError::client(EXISTS));
    }
    if table.values().any(|known| takes_group(known)) {
        return Err(EcsError::client(
            "The specified Auto Scaling group ARN is already being used by another capacity provider. Specify a \
             unique Auto Scaling group ARN and try again.",
        ));
    }
    let mut made = CapacityProvider::new(name, ProviderKind::AutoScalingGroup(provider));
    made.tags = tags;
    made.update_status = Some(UpdateStatus::CreateComplete);
    tx.state.ecs.capacity_providers.put(made.clone());
    Ok(ecs::CreateCapacityProviderResponse { capacity_provider: Some(show(tx.view(), &made, true)) })
}

/// A provider of Managed Instances, which is its cluster's from the start.
fn create_managed(
    tx: &mut Tx<'_>,
    name: CapacityProviderName,
    settings: ManagedInstancesProvider,
    tags: Option<&[ecs::Tag]>,
) -> Result<ecs::CreateCapacityProviderResponse, EcsError> {
    let tags = tags::read(tags)?;
    forget_deleted(tx);
    let has_machines = tx.state.ecs.managed_instances.values().any(|instance| instance.provider == name);
    if tx.state.ecs.capacity_providers.get(&name).is_some_and(|known| known.is_active()) || has_machines {
        return Err(EcsError::client(EXISTS));
    }
    let cluster = settings.cluster.clone();
    let associated = tx.state.ecs.clusters.get(&cluster).map_or(0, |known| known.capacity_providers.len());
    let most = tx.state.installation.quotas.capacity_providers;
    if associated >= most as usize {
        return Err(EcsError::LimitExceeded(format!(
            "At most {most} capacity providers can be associated with a cluster."
        )));
    }
    let mut made = CapacityProvider::new(name, ProviderKind::ManagedInstances(Box::new(settings)));
    made.tags = tags;
    made.update_status = Some(UpdateStatus::CreateComplete);
    tx.state.ecs.clusters.edit(&cluster, |known| known.capacity_providers.push(made.name.clone()));
    tx.state.ecs.capacity_providers.put(made.clone());
    Ok(ecs::CreateCapacityProviderResponse { capacity_provider: Some(show(tx.view(), &made, true)) })
}

/// Only providers of Managed Instances belong to a cluster.
fn refuse_cluster(cluster: Option<&str>) -> Result<(), EcsError> {
    if cluster.is_some_and(|cluster| !cluster.is_empty()) {
        return Err(EcsError::invalid(
            "A cluster can only be specified for capacity providers of Managed Instances.",
        ));
    }
    Ok(())
}

/// The cluster that a request names is the provider's, if it names one.
fn check_cluster(view: View<'_>, cluster: Option<&str>, provider: &CapacityProvider) -> Result<(), EcsError> {
    let Some(settings) = provider.kind.managed_instances() else { return refuse_cluster(cluster) };
    match cluster.filter(|text| !text.is_empty()) {
        Some(text) if check::cluster_name(view, Some(text))? != settings.cluster => Err(not_found()),
        _ => Ok(()),
    }
}

const EXISTS: &str = "The specified capacity provider already exists. To change the configuration of an existing \
                      capacity provider, update the capacity provider.";

/// A name that users may give.
fn own_name(text: &str) -> Result<CapacityProviderName, EcsError> {
    let lower = text.to_ascii_lowercase();
    let reserved = RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    text.parse().ok().filter(|_| !reserved).ok_or_else(|| {
        EcsError::invalid(
            "The specified capacity provider name is invalid. Up to 255 characters are allowed, including letters \
             (upper and lowercase), numbers, underscores, and hyphens. The name cannot be prefixed with \"aws\", \
             \"ecs\", or \"fargate\". Specify a valid name and try again.",
        )
    })
}

/// The ARN or the name of an Auto Scaling group, as it is given.
fn group(text: &str) -> Result<String, EcsError> {
    let is_arn = text.starts_with("arn:");
    let names_group = text.contains(":autoscaling:") && text.contains(":autoScalingGroupName/");
    if text.is_empty() || text.len() > GROUP_LENGTH_MAX || (is_arn && !names_group) {
        return Err(EcsError::invalid(
            "The specified Auto Scaling group ARN is invalid. Specify a valid ARN and try again.",
        ));
    }
    Ok(text.to_owned())
}

fn is_enabled(given: Option<&str>, before: bool) -> bool {
    given.map_or(before, |status| status == "ENABLED")
}

/// The settings given, on top of those `before`.
fn managed_scaling(
    given: Option<&ecs::ManagedScaling>,
    before: ManagedScaling,
) -> Result<ManagedScaling, EcsError> {
    let Some(given) = given else { return Ok(before) };
    // The model's limits have been checked, so that none is negative.
    let number = |given: Option<i32>, before: u32| given.map_or(before, i32::unsigned_abs);
    let scaling = ManagedScaling {
        enabled: is_enabled(given.status.map(|value| value.as_str()), before.enabled),
        target_capacity: number(given.target_capacity, before.target_capacity),
        minimum_step: number(given.minimum_scaling_step_size, before.minimum_step),
        maximum_step: number(given.maximum_scaling_step_size, before.maximum_step),
        warmup: number(given.instance_warmup_period, before.warmup),
    };
    if scaling.minimum_step > scaling.maximum_step {
        return Err(EcsError::invalid(
            "The minimum scaling step size of a capacity provider cannot be above its maximum scaling step size.",
        ));
    }
    Ok(scaling)
}

fn check_protection(provider: &AutoScalingGroupProvider) -> Result<(), EcsError> {
    if provider.managed_termination_protection && !provider.managed_scaling.enabled {
        return Err(EcsError::invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed \
             termination protection for a capacity provider, managed scaling must be enabled.",
        ));
    }
    Ok(())
}

/// Forgets what was deleted long enough ago. Done with every creation and deletion, which are all that let the table
/// grow.
fn forget_deleted(tx: &mut Tx<'_>) {
    let (now, table) = (tx.now, &mut tx.state.ecs.capacity_providers);
    let past = |provider: &CapacityProvider| provider.deleted_at.is_some_and(|at| at + RETENTION <= now);
    let past: Vec<_> = table.values().filter(|p| past(p)).map(|p| p.name.clone()).collect();
    for name in past {
        table.remove(&name);
    }
}

/// A stored provider that somebody made, to change it.
fn own_provider(view: View<'_>, text: &str) -> Result<CapacityProvider, EcsError> {
    let name = name(view, text)?;
    if CapacityProvider::built_in(&name).is_some() {
        return Err(EcsError::invalid(format!(
            "The capacity provider {name} is reserved. It can be neither changed nor deleted."
        )));
    }
    let known = view.state.ecs.capacity_providers.get(&name).filter(|provider| provider.is_active());
    Ok(known.ok_or_else(not_found)?.as_ref().clone())
}

pub fn update_capacity_provider(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::UpdateCapacityProviderRequest,
) -> Result<ecs::UpdateCapacityProviderResponse, EcsError> {
    let mut provider = own_provider(tx.view(), &request.name)?;
    check_cluster(tx.view(), request.cluster.as_deref(), &provider)?;
    let known = provider.kind.managed_instances().cloned();
    if let (Some(known), Some(given)) = (known, &request.managed_instances_provider) {
        let settings = managed_instances::change(tx.view(), known, given.clone())?;
        provider.kind = ProviderKind::ManagedInstances(Box::new(settings));
        provider.update_status = Some(UpdateStatus::UpdateComplete);
        tx.state.ecs.capacity_providers.put(provider.clone());
        return Ok(ecs::UpdateCapacityProviderResponse {
            capacity_provider: Some(show(tx.view(), &provider, true)),
        });
    }
    let of_kind = provider.kind.auto_scaling_group().is_some();
    let given = request
        .auto_scaling_group_provider
        .filter(|_| of_kind)
        .ok_or_else(|| EcsError::invalid("Nothing to change is given for the capacity provider."))?;
    if let ProviderKind::AutoScalingGroup(settings) = &mut provider.kind {
        settings.managed_scaling = managed_scaling(given.managed_scaling.as_ref(), settings.managed_scaling)?;
        settings.managed_termination_protection = is_enabled(
            given.managed_termination_protection.map(|value| value.as_str()),
            settings.managed_termination_protection,
        );
        settings.managed_draining =
            is_enabled(given.managed_draining.map(|value| value.as_str()), settings.managed_draining);
        check_protection(settings)?;
        if settings.managed_scaling.enabled && clusters_of(tx.view(), &provider.name).count() > 1 {
            return Err(EcsError::invalid(one_cluster(&provider.name)));
        }
    }
    provider.update_status = Some(UpdateStatus::UpdateComplete);
    tx.state.ecs.capacity_providers.put(provider.clone());
    Ok(ecs::UpdateCapacityProviderResponse { capacity_provider: Some(show(tx.view(), &provider, true)) })
}

/// A group that ECS scales by what tasks need can only follow one cluster.
fn one_cluster(name: &CapacityProviderName) -> String {
    format!(
        "The capacity provider {name} uses managed scaling, and can be associated with one cluster at a time only."
    )
}

/// The active clusters that a provider is associated with.
fn clusters_of<'a>(view: View<'a>, name: &CapacityProviderName) -> impl Iterator<Item = &'a str> {
    let clusters = view.state.ecs.clusters.values();
    let with = clusters.filter(move |c| c.is_active() && c.capacity_providers.contains(name));
    with.map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().into_iter()
}

pub fn delete_capacity_provider(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: ecs::DeleteCapacityProviderRequest,
) -> Result<ecs::DeleteCapacityProviderResponse, EcsError> {
    let mut provider = own_provider(tx.view(), &request.capacity_provider)?;
    check_cluster(tx.view(), request.cluster.as_deref(), &provider)?;
    if let Some(cluster) = provider.kind.managed_instances().map(|settings| settings.cluster.clone()) {
        if is_in_use(tx.view(), &cluster, &provider.name) {
            // The operation has no ResourceInUseException.
            return Err(EcsError::client("The specified capacity provider is in use and cannot be removed."));
        }
        let name = &provider.name;
        tx.state.ecs.clusters.edit(&cluster, |known| {
            known.capacity_providers.retain(|other| other != name);
            known.default_strategy.retain(|item| item.capacity_provider != *name);
        });
    }
    let cluster = clusters_of(tx.view(), &provider.name).next().map(str::to_owned);
    match cluster {
        // ECS takes such a request, and the provider says that it failed.
        Some(cluster) => {
            provider.update_status = Some(UpdateStatus::DeleteFailed(format!(
                "The capacity provider cannot be deleted because it is associated with cluster: {cluster}. Remove the \
                 capacity provider from the cluster and try again."
            )));
        }
        None => {
            provider.status = CapacityProviderStatus::Inactive;
            provider.update_status = Some(UpdateStatus::DeleteComplete);
            provider.deleted_at = Some(tx.now);
        }
    }
    forget_deleted(tx);
    tx.state.ecs.capacity_providers.put(provider.clone());
    Ok(ecs::DeleteCapacityProviderResponse { capacity_provider: Some(show(tx.view(), &provider, true)) })
}

pub fn describe_capacity_providers(
    view: View<'_>,
    _call: &Call,
    request: ecs::DescribeCapacityProvidersRequest,
) -> Result<ecs::DescribeCapacityProvidersResponse, EcsError> {
    let cluster = request.cluster.as_deref().filter(|text| !text.is_empty());
    let cluster = cluster.map(|text| check::cluster(view, Some(text))).transpose()?;
    let with_tags = request.include.iter().flatten().any(|field| field.as_str() == "TAGS");
    let mut found: BTreeMap<CapacityProviderName, CapacityProvider> = BTreeMap::new();
    let mut failures = Vec::new();
    let asked = request.capacity_providers.unwrap_or_default();
    if asked.is_empty() {
        let stored = view.state.ecs.capacity_providers.values().map(|provider| provider.as_ref().clone());
        found.extend(CapacityProvider::all_built_in().chain(stored).map(|p| (p.name.clone(), p)));
    }
    for text in &asked {
        let name = name(view, text)?;
        match view.state.ecs.capacity_provider(&name) {
            Some(provider) => drop(found.insert(name, provider)),
            None => failures.push(ecs::Failure {
                arn: Some(view.scope.ecs(EcsResource::CapacityProvider(name)).to_string()),
                reason: Some("MISSING".to_owned()),
                detail: None,
            }),
        }
    }
    if let Some(cluster) = cluster {
        found.retain(|name, _| cluster.capacity_providers.contains(name));
    }
    let page = Page::read(request.next_token.as_deref(), request.max_results, SHORT_MAX, SHORT_MAX)?;
    let (capacity_providers, next_token) = page.cut(
        found.into_values(),
        |provider| provider.name.to_string(),
        |provider| show(view, &provider, with_tags),
    );
    Ok(ecs::DescribeCapacityProvidersResponse {
        capacity_providers: Some(capacity_providers),
        failures: Some(failures),
        next_token,
    })
}

fn not_found() -> EcsError {
    EcsError::invalid(
        "The specified capacity provider was not found. Specify a valid capacity provider and try again.",
    )
}

/// The name that a short name or an ARN of the caller means.
fn name(view: View<'_>, text: &str) -> Result<CapacityProviderName, EcsError> {
    if !text.starts_with("arn:") {
        return text.parse().map_err(|_| not_found());
    }
    match check::own_arn(view, text)? {
        EcsResource::CapacityProvider(name) => Ok(name),
        _ => Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
    }
}

/// The active providers to associate with the cluster named `cluster`, each once.
///
/// # Errors
/// For too many, for one that is not there, and for one with managed scaling that another cluster has.
pub fn providers(
    view: View<'_>,
    cluster: &str,
    names: &[String],
) -> Result<Vec<CapacityProviderName>, EcsError> {
    let mut read: Vec<CapacityProviderName> = Vec::with_capacity(names.len());
    for text in names {
        let name = name(view, text)?;
        let known = view.state.ecs.capacity_provider(&name).filter(CapacityProvider::is_active);
        let provider = known.ok_or_else(not_found)?;
        let scaled = provider.kind.auto_scaling_group().is_some_and(|group| group.managed_scaling.enabled);
        let foreign =
            provider.kind.managed_instances().filter(|settings| settings.cluster.as_str() != cluster);
        if foreign.is_some() {
            return Err(not_found());
        }
        if scaled && clusters_of(view, &name).any(|other| other != cluster) {
            return Err(EcsError::invalid(one_cluster(&name)));
        }
        if !read.contains(&name) {
            read.push(name);
        }
    }
    let most = view.state.installation.quotas.capacity_providers;
    if read.len() > most as usize {
        return Err(EcsError::invalid(format!(
            "At most {most} capacity providers can be associated with a cluster."
        )));
    }
    Ok(read)
}

/// A capacity provider strategy, all of whose providers are among `associated`.
///
/// # Errors
/// `InvalidParameterException` for what the rules of strategies forbid.
pub fn read_strategy(
    view: View<'_>,
    items: &[ecs::CapacityProviderStrategyItem],
    associated: &[CapacityProviderName],
) -> Result<Vec<StrategyItem>, EcsError> {
    if items.len() > STRATEGY_MAX {
        return Err(EcsError::invalid(format!(
            "A strategy can have at most {STRATEGY_MAX} capacity providers."
        )));
    }
    let mut read: Vec<StrategyItem> = Vec::with_capacity(items.len());
    let mut launch_type = None;
    for item in items {
        let name = name(view, &item.capacity_provider)?;
        let provider = view.state.ecs.capacity_provider(&name).filter(CapacityProvider::is_active);
        let kind = provider.ok_or_else(not_found)?.kind;
        if !associated.contains(&name) {
            return Err(EcsError::invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated \
                 with the cluster. Associate the capacity provider with the cluster or specify a valid capacity \
                 provider and try again.",
            ));
        }
        if *launch_type.get_or_insert(kind.launch_type()) != kind.launch_type() {
            return Err(EcsError::invalid(
                "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups \
                 and Fargate providers. Specify one or the other and try again.",
            ));
        }
        if read.iter().any(|other| other.capacity_provider == name) {
            return Err(EcsError::invalid(format!("The capacity provider {name} is in the strategy twice.")));
        }
        let (weight, base) = (item.weight.unwrap_or(0), item.base.unwrap_or(0));
        if !(0..=WEIGHT_MAX).contains(&weight) || !(0..=BASE_MAX).contains(&base) {
            return Err(EcsError::invalid(format!(
                "A weight is between 0 and {WEIGHT_MAX}, a base between 0 and {BASE_MAX}."
            )));
        }
        if base > 0 && read.iter().any(|other| other.base > 0) {
            return Err(EcsError::invalid("Only one capacity provider of a strategy can have a base."));
        }
        read.push(StrategyItem {
            capacity_provider: name,
            weight: weight.unsigned_abs(),
            base: base.unsigned_abs(),
        });
    }
    if read.len() > 1 && read.iter().all(|item| item.weight == 0) {
        return Err(EcsError::invalid(
            "At least one capacity provider of a strategy needs a weight above 0.",
        ));
    }
    Ok(read)
}
