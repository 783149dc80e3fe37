//! Input rules beyond the model's constraints: what callers mean by a name or an ARN is resolved here, once.

use super::errors::EcsError;
use super::state::{
    Cluster, ContainerInstanceKey, DeploymentController, LaunchType, PlacementConstraint, PlacementStrategy,
    Service, ServiceKey, TaskDefinitionRecord, TaskDefinitionStatus, TaskKey,
};
use crate::tx::View;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{ClusterName, Family, TaskDefinitionId};

/// Reads an ARN and checks that it is of the caller's account and region.
pub fn own_arn(view: View<'_>, text: &str) -> Result<EcsResource, EcsError> {
    let arn: EcsArn = text.parse()?;
    if arn.scope.account != view.scope.account {
        let (theirs, yours) = (arn.scope.account, view.scope.account);
        return Err(EcsError::invalid(format!("Identifier is for {theirs}. Your accountId is {yours}")));
    }
    if arn.scope.region != view.scope.region {
        let (there, here) = (&arn.scope.region, &view.scope.region);
        return Err(EcsError::invalid(format!("Identifier is for {there}. Your region is {here}")));
    }
    Ok(arn.resource)
}

fn is_arn(text: &str) -> bool {
    text.starts_with("arn:")
}

/// The name a request's `cluster` means; absent, the cluster named `default`.
///
/// # Errors
/// When the text is neither a cluster name nor a cluster ARN of the caller.
pub fn cluster_name(view: View<'_>, text: Option<&str>) -> Result<ClusterName, EcsError> {
    match text {
        None | Some("") => Ok(ClusterName::default_cluster()),
        Some(text) if is_arn(text) => match own_arn(view, text)? {
            EcsResource::Cluster(name) => Ok(name),
            _ => Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
        },
        Some(text) => text.parse().map_err(|_| EcsError::invalid("Invalid cluster name.")),
    }
}

/// The active cluster that a request means. The Fargate pool is nobody's.
///
/// # Errors
/// `ClusterNotFoundException`, in its two wordings.
pub fn cluster<'a>(view: View<'a>, text: Option<&str>) -> Result<&'a Cluster, EcsError> {
    let name = cluster_name(view, text)?;
    match view.state.ecs.clusters.get(&name) {
        Some(cluster) if cluster.is_fargate_pool() => Err(EcsError::ClusterNotFound),
        Some(cluster) if cluster.is_active() => Ok(cluster),
        Some(_) => Err(EcsError::ClusterInactive),
        None => Err(EcsError::ClusterNotFound),
    }
}

/// A reference to one thing in a cluster, by id or ARN: the key, or `None` for text that can name nothing.
fn in_cluster<K>(
    view: View<'_>,
    text: &str,
    from_arn: impl Fn(EcsResource) -> Option<K>,
    from_id: impl Fn(&str) -> Option<K>,
) -> Result<Option<K>, EcsError> {
    if !is_arn(text) {
        return Ok(from_id(text));
    }
    from_arn(own_arn(view, text)?)
        .map(Some)
        .ok_or_else(|| EcsError::invalid(format!("Invalid identifier: {text}")))
}

/// A task of `cluster` by id or ARN.
///
/// # Errors
/// For an ARN that is somebody else's or no task's.
pub fn task(view: View<'_>, cluster: &ClusterName, text: &str) -> Result<Option<TaskKey>, EcsError> {
    in_cluster(
        view,
        text,
        |resource| match resource {
            EcsResource::Task(cluster, id) => Some(TaskKey { cluster, id }),
            _ => None,
        },
        |id| Some(TaskKey { cluster: cluster.clone(), id: id.parse().ok()? }),
    )
    .map(|key| key.filter(|key| &key.cluster == cluster))
}

/// A service of `cluster` by name or ARN, the short ARN included.
///
/// # Errors
/// For an ARN that is somebody else's or no service's.
pub fn service(view: View<'_>, cluster: &ClusterName, text: &str) -> Result<Option<ServiceKey>, EcsError> {
    in_cluster(
        view,
        text,
        |resource| match resource {
            EcsResource::Service(cluster, name) => Some(ServiceKey { cluster, name }),
            EcsResource::ServiceShort(name) => Some(ServiceKey { cluster: cluster.clone(), name }),
            _ => None,
        },
        |name| Some(ServiceKey { cluster: cluster.clone(), name: name.parse().ok()? }),
    )
    .map(|key| key.filter(|key| &key.cluster == cluster))
}

/// A container instance of `cluster` by id or ARN.
///
/// # Errors
/// For an ARN that is somebody else's or no container instance's.
pub fn container_instance(
    view: View<'_>,
    cluster: &ClusterName,
    text: &str,
) -> Result<Option<ContainerInstanceKey>, EcsError> {
    in_cluster(
        view,
        text,
        |resource| match resource {
            EcsResource::ContainerInstance(cluster, id) => Some(ContainerInstanceKey { cluster, id }),
            _ => None,
        },
        |id| Some(ContainerInstanceKey { cluster: cluster.clone(), id: id.parse().ok()? }),
    )
    .map(|key| key.filter(|key| &key.cluster == cluster))
}

/// A task definition by `family`, `family:revision` or ARN; a family alone means its newest ACTIVE revision.
///
/// # Errors
/// For an ARN that is somebody else's or no task definition's.
pub fn task_definition<'a>(view: View<'a>, text: &str) -> Result<Option<&'a TaskDefinitionRecord>, EcsError> {
    let table = &view.state.ecs.task_definitions;
    let by_id = |id: &TaskDefinitionId| table.get(id).map(AsRef::as_ref);
    // `…:task-definition/FAMILY`, without a revision, means what the family alone means.
    let text = match text.split_once(":task-definition/") {
        Some((_, name)) if is_arn(text) && !name.contains(':') && name.parse::<Family>().is_ok() => {
            own_arn(view, &format!("{text}:1"))?;
            name
        }
        _ => text,
    };
    if is_arn(text) {
        return match own_arn(view, text)? {
            EcsResource::TaskDefinition(id) => Ok(by_id(&id)),
            _ => Err(EcsError::invalid(format!("Invalid identifier: {text}"))),
        };
    }
    if let Ok(id) = text.parse::<TaskDefinitionId>() {
        return Ok(by_id(&id));
    }
    let Ok(family) = text.parse::<Family>() else { return Ok(None) };
    let first = TaskDefinitionId { family: family.clone(), revision: 0 };
    let last = TaskDefinitionId { family, revision: u32::MAX };
    let mut revisions = table.range(first..=last).map(|(_, record)| record.as_ref());
    Ok(revisions.rfind(|record| record.status == TaskDefinitionStatus::Active))
}

/// The ACTIVE task definition to run.
///
/// # Errors
/// `ClientException` with AWS's texts when there is none, or it is INACTIVE.
pub fn runnable_task_definition<'a>(
    view: View<'a>,
    text: &str,
) -> Result<&'a TaskDefinitionRecord, EcsError> {
    let record = task_definition(view, text)?.ok_or_else(|| EcsError::client("TaskDefinition not found."))?;
    match record.status {
        TaskDefinitionStatus::Active => Ok(record),
        _ => Err(EcsError::client("TaskDefinition is inactive")),
    }
}

/// Why a service's tasks cannot be rebalanced over Availability Zones, if they cannot.
pub fn never_rebalances(service: &Service, launch_type: LaunchType) -> Option<&'static str> {
    const ZONE: &str = "attribute:ecs.availability-zone";
    let by_zone = |expression: &PlacementConstraint| matches!(expression, PlacementConstraint::MemberOf(text) if text.contains(ZONE));
    let first_spreads = match service.placement_strategy.first() {
        None => true,
        Some(PlacementStrategy::Spread(field)) => field == ZONE,
        Some(_) => false,
    };
    if service.is_daemon() {
        Some("with the DAEMON scheduling strategy")
    } else if service.controller == DeploymentController::External {
        Some("with the EXTERNAL deployment controller")
    } else if service.controller == DeploymentController::CodeDeploy {
        Some("with the CODE_DEPLOY deployment controller")
    } else if launch_type == LaunchType::External {
        Some("with the EXTERNAL launch type")
    } else if service.configuration.maximum_percent <= 100 {
        Some("with a maximumPercent of 100")
    } else if service.placement_constraints.iter().any(by_zone) {
        Some("with a placement constraint on attribute:ecs.availability-zone")
    } else if !first_spreads {
        Some(
            "unless the first placement strategy, if there is one, spreads by attribute:ecs.availability-zone",
        )
    } else {
        None
    }
}

/// # Errors
/// For constraints or strategies of a request where Fargate places tasks by itself.
pub fn placement(
    launch_type: LaunchType,
    constraints: &[PlacementConstraint],
    strategies: &[PlacementStrategy],
) -> Result<(), EcsError> {
    let what = match (launch_type, constraints, strategies) {
        (LaunchType::Fargate, [_, ..], _) => "constraints",
        (LaunchType::Fargate, [], [_, ..]) => "strategies",
        _ => return Ok(()),
    };
    Err(EcsError::invalid(format!("Placement {what} are not supported with FARGATE launch type.")))
}

/// Refuses to rebalance a service that cannot be.
pub fn rebalancing(service: &Service, launch_type: LaunchType) -> Result<(), EcsError> {
    match never_rebalances(service, launch_type) {
        Some(why) => Err(EcsError::invalid(format!("Availability Zone rebalancing is not supported {why}."))),
        None => Ok(()),
    }
}
