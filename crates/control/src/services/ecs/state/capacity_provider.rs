//! Capacity providers: what the tasks of a strategy run on.

use super::{LaunchType, ManagedInstancesProvider, Tags};
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{CapacityProviderName, Scope};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};

/// Where a provider is in its life. Changes take effect at once, so that the states in between are never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CapacityProviderStatus {
    Active,
    /// Deleted; still described for a while.
    Inactive,
}

impl CapacityProviderStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            CapacityProviderStatus::Active => "ACTIVE",
            CapacityProviderStatus::Inactive => "INACTIVE",
        }
    }
}

/// What came of the last change that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UpdateStatus {
    CreateComplete,
    UpdateComplete,
    DeleteComplete,
    /// With why.
    DeleteFailed(String),
}

impl UpdateStatus {
    pub fn as_str(&self) -> &'static str {
        match self {
            UpdateStatus::CreateComplete => "CREATE_COMPLETE",
            UpdateStatus::UpdateComplete => "UPDATE_COMPLETE",
            UpdateStatus::DeleteComplete => "DELETE_COMPLETE",
            UpdateStatus::DeleteFailed(_) => "DELETE_FAILED",
        }
    }

    /// `updateStatusReason`: only what failed has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            UpdateStatus::DeleteFailed(reason) => Some(reason),
            _ => None,
        }
    }
}

/// How ECS changes the size of an Auto Scaling group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedScaling {
    pub enabled: bool,
    /// The percentage of the group's instances that tasks shall need: 1 to 100.
    pub target_capacity: u32,
    /// The fewest instances that are added at once: 1 to 10,000.
    pub minimum_step: u32,
    /// The most instances that are added at once: 1 to 10,000.
    pub maximum_step: u32,
    /// Seconds after its launch for which an instance does not count: 0 to 10,000.
    pub warmup: u32,
}

impl Default for ManagedScaling {
    /// ECS's defaults. Nothing is managed that nobody asked for.
    fn default() -> ManagedScaling {
        ManagedScaling {
            enabled: false,
            target_capacity: 100,
            minimum_step: 1,
            maximum_step: 10_000,
            warmup: 300,
        }
    }
}

/// The settings of a provider whose instances are those of an Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoScalingGroupProvider {
    /// The group's ARN, or its name where that was given.
    pub group: String,
    pub managed_scaling: ManagedScaling,
    /// Whether ECS keeps Auto Scaling from ending instances that have tasks.
    pub managed_termination_protection: bool,
    /// Whether ECS drains instances that Auto Scaling is about to end.
    pub managed_draining: bool,
}

impl AutoScalingGroupProvider {
    /// The name of the group: the end of its ARN, `…:autoScalingGroupName/NAME`.
    pub fn group_name(&self) -> &str {
        self.group.rsplit_once("autoScalingGroupName/").map_or(self.group.as_str(), |(_, name)| name)
    }
}

/// Where a provider's capacity comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderKind {
    /// The Fargate pool, whose tasks nothing of ECS's own takes away.
    Fargate,
    /// What the others leave of the Fargate pool.
    FargateSpot,
    AutoScalingGroup(AutoScalingGroupProvider),
    /// Machines that are made for the tasks that wait, and destroyed when they have none.
    ManagedInstances(Box<ManagedInstancesProvider>),
}

impl ProviderKind {
    /// `type` of the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            ProviderKind::Fargate => "FARGATE",
            ProviderKind::FargateSpot => "FARGATE_SPOT",
            ProviderKind::AutoScalingGroup(_) => "EC2_AUTOSCALING",
            ProviderKind::ManagedInstances(_) => "MANAGED_INSTANCES",
        }
    }

    pub fn is_fargate(&self) -> bool {
        matches!(self, ProviderKind::Fargate | ProviderKind::FargateSpot)
    }

    pub fn auto_scaling_group(&self) -> Option<&AutoScalingGroupProvider> {
        match self {
            ProviderKind::AutoScalingGroup(group) => Some(group),
            ProviderKind::Fargate | ProviderKind::FargateSpot | ProviderKind::ManagedInstances(_) => None,
        }
    }

    pub fn managed_instances(&self) -> Option<&ManagedInstancesProvider> {
        match self {
            ProviderKind::ManagedInstances(settings) => Some(settings),
            _ => None,
        }
    }

    pub fn managed_instances_mut(&mut self) -> Option<&mut ManagedInstancesProvider> {
        match self {
            ProviderKind::ManagedInstances(settings) => Some(settings),
            _ => None,
        }
    }

    /// The launch type of the tasks of a strategy of such providers.
    pub fn launch_type(&self) -> LaunchType {
        match self {
            ProviderKind::Fargate | ProviderKind::FargateSpot => LaunchType::Fargate,
            ProviderKind::AutoScalingGroup(_) => LaunchType::Ec2,
            ProviderKind::ManagedInstances(_) => LaunchType::ManagedInstances,
        }
    }
}

/// What managed scaling remembers from one look to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingProgress {
    /// Since when fewer instances are needed than there are.
    pub low_since: Option<Timestamp>,
    /// When the group was made smaller last.
    pub stepped_at: Option<Timestamp>,
}

impl ScalingProgress {
    fn is_none(&self) -> bool {
        *self == ScalingProgress::default()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CapacityProvider {
    pub name: CapacityProviderName,
    pub kind: ProviderKind,
    pub status: CapacityProviderStatus,
    pub update_status: Option<UpdateStatus>,
    pub tags: Tags,
    pub deleted_at: Option<Timestamp>,
    /// How far managed scaling is.
    #[serde(default, skip_serializing_if = "ScalingProgress::is_none")]
    pub scaling: ScalingProgress,
}

/// The providers that every account has. They are in no table.
const BUILT_IN: [(&str, ProviderKind); 2] =
    [("FARGATE", ProviderKind::Fargate), ("FARGATE_SPOT", ProviderKind::FargateSpot)];

impl CapacityProvider {
    /// A new provider, ACTIVE at once.
    pub fn new(name: CapacityProviderName, kind: ProviderKind) -> CapacityProvider {
        CapacityProvider {
            name,
            kind,
            status: CapacityProviderStatus::Active,
            update_status: None,
            tags: Tags::new(),
            deleted_at: None,
            scaling: ScalingProgress::default(),
        }
    }

    /// FARGATE and FARGATE_SPOT, by name.
    pub fn built_in(name: &CapacityProviderName) -> Option<CapacityProvider> {
        let (_, kind) = BUILT_IN.into_iter().find(|(known, _)| *known == name.as_str())?;
        Some(CapacityProvider::new(name.clone(), kind))
    }

    /// All that every account has.
    pub fn all_built_in() -> impl Iterator<Item = CapacityProvider> {
        let name = |text: &str| text.parse().expect("the built-in names are names");
        BUILT_IN.into_iter().map(move |(text, kind)| CapacityProvider::new(name(text), kind))
    }

    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::CapacityProvider(self.name.clone()))
    }

    pub fn is_active(&self) -> bool {
        self.status == CapacityProviderStatus::Active
    }
}

impl Record for CapacityProvider {
    const KIND: &'static str = "ecs/capacity-provider";
    const VERSION: u32 = 1;
    type Key = CapacityProviderName;

    fn key(&self) -> CapacityProviderName {
        self.name.clone()
    }

    fn path(key: &CapacityProviderName) -> String {
        key.to_string()
    }
}
