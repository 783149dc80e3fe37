//! Clusters as the API shows them.

use crate::services::ecs::bridge;
use crate::services::ecs::errors::EcsError;
use crate::services::ecs::state::{
    Cluster, ClusterStatus, ContainerInstanceStatus, LaunchType, ServiceStatus, StrategyItem,
};
use crate::services::ecs::tags;
use crate::tx::View;
use gantry_api::ecs;
use gantry_decide::ids::ClusterName;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus};
use gantry_wire::sigv4::sha256_hex;

/// The optional parts of a cluster; what is left out is shown empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    pub attachments: bool,
    pub configurations: bool,
    pub settings: bool,
    pub statistics: bool,
    pub tags: bool,
}

impl Include {
    /// What the operations show that write a cluster.
    pub const WRITTEN: Include =
        Include { attachments: true, configurations: true, settings: true, statistics: false, tags: true };

    pub fn of(fields: Option<&[ecs::ClusterField]>) -> Include {
        let has = |name: &str| fields.unwrap_or_default().iter().any(|field| field.as_str() == name);
        Include {
            attachments: has("ATTACHMENTS"),
            configurations: has("CONFIGURATIONS"),
            settings: has("SETTINGS"),
            statistics: has("STATISTICS"),
            tags: has("TAGS"),
        }
    }
}

/// # Errors
/// When the stored configuration has no shape in the API, which a valid record cannot.
pub fn cluster(view: View<'_>, cluster: &Cluster, include: Include) -> Result<ecs::Cluster, EcsError> {
    let counts = Counts::of(view, &cluster.name);
    let settings = cluster.settings.iter().filter(|_| include.settings);
    let configuration = match cluster.configuration.as_ref().filter(|_| include.configurations) {
        Some(configuration) => Some(bridge::shape_of(configuration)?),
        None => None,
    };
    let namespace = cluster.service_connect_namespace.clone();
    Ok(ecs::Cluster {
        cluster_arn: Some(cluster.arn(view.scope).to_string()),
        cluster_name: Some(cluster.name.to_string()),
        configuration,
        status: Some(status(cluster.status).to_owned()),
        registered_container_instances_count: Some(counts.instances),
        running_tasks_count: Some(counts.running.total()),
        pending_tasks_count: Some(counts.pending.total()),
        active_services_count: Some(counts.active_services.total()),
        statistics: Some(if include.statistics { counts.statistics() } else { Vec::new() }),
        tags: Some(if include.tags { tags::show(&cluster.tags) } else { Vec::new() }),
        settings: Some(
            settings
                .map(|(name, value)| ecs::ClusterSetting {
                    name: name.parse().ok(),
                    value: Some(value.clone()),
                })
                .collect(),
        ),
        capacity_providers: Some(cluster.capacity_providers.iter().map(ToString::to_string).collect()),
        default_capacity_provider_strategy: Some(
            cluster.default_strategy.iter().map(strategy_item).collect(),
        ),
        attachments: Some(if include.attachments { attachments(view, cluster) } else { Vec::new() }),
        // What they need is made with them.
        attachments_status: (!cluster.capacity_providers.is_empty()).then(|| "UPDATE_COMPLETE".to_owned()),
        service_connect_defaults: namespace
            .map(|namespace| ecs::ClusterServiceConnectDefaults { namespace: Some(namespace) }),
    })
}

/// What scales and drains the groups of the cluster's capacity providers.
fn attachments(view: View<'_>, cluster: &Cluster) -> Vec<ecs::Attachment> {
    let mut shown = Vec::new();
    for name in &cluster.capacity_providers {
        let provider = view.state.ecs.capacity_providers.get(name);
        let Some(group) = provider.and_then(|provider| provider.kind.auto_scaling_group()) else { continue };
        let kinds =
            [("as_policy", group.managed_scaling.enabled), ("managed_draining", group.managed_draining)];
        for (kind, _) in kinds.into_iter().filter(|(_, there)| *there) {
            let of = sha256_hex(format!("{}/{name}/{kind}", cluster.arn(view.scope)).as_bytes());
            let part = |range| of.get(range).unwrap_or_default();
            let id = [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-");
            let detail = |name: &str, value: &str| ecs::KeyValuePair {
                name: Some(name.to_owned()),
                value: Some(value.to_owned()),
            };
            let mut details = vec![detail("capacityProviderName", name.as_str())];
            if kind == "as_policy" {
                details.push(detail("scalingPolicyName", &format!("ECSManagedAutoScalingPolicy-{id}")));
            }
            shown.push(ecs::Attachment {
                id: Some(id),
                type_: Some(kind.to_owned()),
                status: Some("ACTIVE".to_owned()),
                details: Some(details),
            });
        }
    }
    shown
}

/// One entry of a capacity provider strategy.
pub fn strategy_item(item: &StrategyItem) -> ecs::CapacityProviderStrategyItem {
    let number = |n: u32| Some(i32::try_from(n).unwrap_or(i32::MAX));
    ecs::CapacityProviderStrategyItem {
        capacity_provider: item.capacity_provider.to_string(),
        weight: number(item.weight),
        base: number(item.base),
    }
}

pub fn status(status: ClusterStatus) -> &'static str {
    match status {
        ClusterStatus::Active => "ACTIVE",
        ClusterStatus::Inactive => "INACTIVE",
    }
}

/// A count for each launch type.
#[derive(Clone, Copy, Debug, Default)]
struct Split {
    ec2: i32,
    fargate: i32,
    external: i32,
    /// ECS has no statistics of them.
    managed: i32,
}

impl Split {
    fn add(&mut self, launch_type: LaunchType) {
        let count = match launch_type {
            LaunchType::Ec2 => &mut self.ec2,
            LaunchType::Fargate => &mut self.fargate,
            LaunchType::External => &mut self.external,
            LaunchType::ManagedInstances => &mut self.managed,
        };
        *count = count.saturating_add(1);
    }

    fn total(self) -> i32 {
        self.ec2.saturating_add(self.fargate).saturating_add(self.external).saturating_add(self.managed)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// ACTIVE and DRAINING container instances.
    instances: i32,
    running: Split,
    pending: Split,
    active_services: Split,
    draining_services: Split,
}

impl Counts {
    fn of(view: View<'_>, name: &ClusterName) -> Counts {
        let ecs = &view.state.ecs;
        let mut counts = Counts::default();
        for (key, instance) in ecs.container_instances().iter() {
            if &key.cluster == name && instance.status != ContainerInstanceStatus::Inactive {
                counts.instances = counts.instances.saturating_add(1);
            }
        }
        for (key, task) in ecs.tasks().iter() {
            if &key.cluster != name || task.desired_status != DesiredStatus::Running {
                continue;
            }
            match task.last_status {
                LastStatus::Running => counts.running.add(task.launch_type),
                LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => {
                    counts.pending.add(task.launch_type);
                }
                _ => {}
            }
        }
        for (key, service) in ecs.services().iter() {
            if &key.cluster != name {
                continue;
            }
            let launch_type = service.launch_type();
            match service.status {
                ServiceStatus::Active => counts.active_services.add(launch_type),
                ServiceStatus::Draining => counts.draining_services.add(launch_type),
                ServiceStatus::Inactive => {}
            }
        }
        counts
    }

    fn statistics(self) -> Vec<ecs::KeyValuePair> {
        let Counts { running, pending, active_services: active, draining_services: draining, .. } = self;
        [
            ("runningEC2TasksCount", running.ec2),
            ("runningFargateTasksCount", running.fargate),
            ("runningExternalTasksCount", running.external),
            ("pendingEC2TasksCount", pending.ec2),
            ("pendingFargateTasksCount", pending.fargate),
            ("pendingExternalTasksCount", pending.external),
            ("activeEC2ServiceCount", active.ec2),
            ("activeFargateServiceCount", active.fargate),
            ("activeExternalServiceCount", active.external),
            ("drainingEC2ServiceCount", draining.ec2),
            ("drainingFargateServiceCount", draining.fargate),
            ("drainingExternalServiceCount", draining.external),
        ]
        .map(|(name, count)| ecs::KeyValuePair {
            name: Some(name.to_owned()),
            value: Some(count.to_string()),
        })
        .into()
    }
}
