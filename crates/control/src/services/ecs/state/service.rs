//! Services and their deployments.

use super::{StrategyItem, Tags};
use crate::services::ecs::balanced::ServiceLoadBalancer;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::deployment::alarms::DeploymentAlarms;
use gantry_decide::deployment::breaker::{CircuitBreaker, Failures};
use gantry_decide::deployment::hooks::Hook;
use gantry_decide::deployment::rolling::EarlySuccess;
use gantry_decide::deployment::strategy::Strategy;
use gantry_decide::deployment::task_set::{Scale, TaskSetStatus};
use gantry_decide::ids::{
    ClusterName, ContainerName, DeploymentId, Scope, ServiceDeploymentId, ServiceName, ServiceRevisionId,
    TargetGroupId, TaskDefinitionId, TaskId,
};
use gantry_decide::mutant;
use gantry_decide::task::launch_volume::VolumeConfiguration;
use gantry_decide::time::Timestamp;
use gantry_store::{LoadError, Record};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{LaunchType, NetworkConfiguration, PlacementConstraint, PlacementStrategy, PropagateTags, Task};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    pub cluster: ClusterName,
    pub name: ServiceName,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.name)
    }
}

impl ServiceKey {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::Service(self.cluster.clone(), self.name.clone()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceStatus {
    Active,
    Draining,
    Inactive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    InProgress,
    Completed,
    Failed,
}

/// Where new tasks of a deployment go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Compute {
    LaunchType(LaunchType),
    Strategy(Vec<StrategyItem>),
    /// A strategy of providers of Managed Instances.
    ManagedInstances(Vec<StrategyItem>),
}

/// One attempt to bring the service to a configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    pub id: DeploymentId,
    /// What it runs.
    pub revision: ServiceRevisionId,
    /// The record of how it came about.
    pub attempt: ServiceDeploymentId,
    pub task_definition: TaskDefinitionId,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub compute: Compute,
    pub platform_version: Option<String>,
    pub network: Option<NetworkConfiguration>,
    /// The volume that each of its tasks gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeConfiguration>,
    /// As they were asked for; None in a deployment of an older Gantry, which has those of its service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<Vec<ServiceLoadBalancer>>,
    /// Its tasks belong to the alternate target groups. They take turns from one deployment to the next that shifts
    /// traffic.
    #[serde(default, skip_serializing_if = "is_false")]
    pub alternate: bool,
    pub rollout_state: RolloutState,
    pub rollout_state_reason: String,
    pub failures: Failures,
    /// When the last failure was noted.
    #[serde(default)]
    pub failed_at: Option<Timestamp>,
    /// When the next task may be launched, after failures to run or to be placed.
    pub launch_not_before: Option<Timestamp>,
    /// See [`gantry_decide::deployment::replacement`]: of each deployment its own, so that what ends of one holds no other up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacements_full_at: Option<Timestamp>,
    /// What the images' tags stood for when its first task came up, by container; none while that is not known.
    #[serde(default)]
    pub image_digests: Option<BTreeMap<ContainerName, String>>,
    /// Of a service whose controller is not ECS all are task sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_set: Option<TaskSet>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What a deployment has beyond others whose size somebody else decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSet {
    pub status: TaskSetStatus,
    pub scale: Scale,
    /// What its maker calls it.
    pub external_id: Option<String>,
    pub tags: Tags,
    /// It told that it is steady, and is.
    pub steady: bool,
}

/// Who decides what a service deploys, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentController {
    #[default]
    Ecs,
    /// Whoever makes its task sets.
    External,
    /// AWS CodeDeploy. It is not served: such a service stays with the task set that it was made with.
    CodeDeploy,
}

impl DeploymentController {
    pub fn as_str(self) -> &'static str {
        match self {
            DeploymentController::Ecs => "ECS",
            DeploymentController::External => "EXTERNAL",
            DeploymentController::CodeDeploy => "CODE_DEPLOY",
        }
    }
}

/// How many tasks a service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SchedulingStrategy {
    /// As many as the user desires.
    #[default]
    Replica,
    /// One on each container instance that may have one.
    Daemon,
}

impl SchedulingStrategy {
    pub fn as_str(self) -> &'static str {
        match self {
            SchedulingStrategy::Replica => "REPLICA",
            SchedulingStrategy::Daemon => "DAEMON",
        }
    }
}

/// How deployments of a service go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentConfiguration {
    pub minimum_healthy_percent: u32,
    pub maximum_percent: u32,
    pub circuit_breaker: CircuitBreaker,
    #[serde(default, skip_serializing_if = "DeploymentAlarms::is_unset")]
    pub alarms: DeploymentAlarms,
    #[serde(default)]
    pub early_success: Option<EarlySuccess>,
    #[serde(default)]
    pub strategy: Strategy,
    /// How long both revisions stand side by side after the traffic has gone over; of a rolling deployment with alarms,
    /// how long they are watched after its last task has come up.
    #[serde(default)]
    pub bake_minutes: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
}

impl DeploymentConfiguration {
    /// ECS's defaults.
    pub fn of(strategy: SchedulingStrategy) -> DeploymentConfiguration {
        let (minimum_healthy_percent, maximum_percent) = match strategy {
            SchedulingStrategy::Replica => (100, 200),
            SchedulingStrategy::Daemon => (0, 100),
        };
        let circuit_breaker = CircuitBreaker::default();
        DeploymentConfiguration {
            minimum_healthy_percent,
            maximum_percent,
            circuit_breaker,
            alarms: DeploymentAlarms::default(),
            early_success: None,
            strategy: Strategy::Rolling,
            bake_minutes: 0,
            hooks: Vec::new(),
        }
    }

    pub fn bake(&self) -> Duration {
        Duration::from_secs(u64::from(self.bake_minutes) * 60)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvent {
    pub id: String,
    pub created_at: Timestamp,
    pub message: String,
}

/// After this time ECS repeats what it told last.
pub const EVENT_AGAIN: Duration = Duration::from_secs(6 * 3600);

/// How many events a service keeps; ECS shows the last 100.
pub const EVENTS_MAX: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub cluster: ClusterName,
    pub name: ServiceName,
    pub status: ServiceStatus,
    #[serde(default)]
    pub scheduling_strategy: SchedulingStrategy,
    #[serde(default)]
    pub controller: DeploymentController,
    /// Of a DAEMON, as many as there are instances for it.
    pub desired_count: u32,
    /// The primary first, then those being replaced.
    pub deployments: Vec<Deployment>,
    /// The newest attempt to deploy it, over or not.
    pub attempt: ServiceDeploymentId,
    pub configuration: DeploymentConfiguration,
    pub placement_constraints: Vec<PlacementConstraint>,
    pub placement_strategy: Vec<PlacementStrategy>,
    pub health_check_grace_period_seconds: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancers: Vec<ServiceLoadBalancer>,
    /// Groups of deployments that are gone, in which tasks of theirs may still drain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_groups: Vec<TargetGroupId>,
    pub enable_ecs_managed_tags: bool,
    pub propagate_tags: PropagateTags,
    pub enable_execute_command: bool,
    pub availability_zone_rebalancing: bool,
    pub tags: Tags,
    pub created_at: Timestamp,
    pub created_by: String,
    /// Newest last; at most [`EVENTS_MAX`].
    pub events: Vec<Arc<ServiceEvent>>,
    pub client_token: Option<String>,
    pub inactive_since: Option<Timestamp>,
    /// What an INACTIVE service shows of the deployment that was its primary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_deployment: Option<Box<Deployment>>,
    /// When it last told that it is steady; absent while it is not.
    #[serde(default)]
    pub steady_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Rebalancing::is_idle")]
    pub rebalancing: Rebalancing,
}

/// How far a service is with spreading its tasks over Availability Zones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalancing {
    /// The task that was started for it, which one in another zone gives way to.
    pub moving: Option<Moving>,
    /// It told that it is not balanced, and has not told that it is.
    pub told: bool,
    /// When to try again, after it found no place.
    pub not_before: Option<Timestamp>,
}

/// See [`Rebalancing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    pub task: TaskId,
    pub from: String,
    /// The desired count then: another one comes first.
    pub desired: u32,
}

impl Rebalancing {
    fn is_idle(&self) -> bool {
        *self == Rebalancing::default()
    }
}

impl Service {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        self.key().arn(scope)
    }

    /// The group of its tasks.
    pub fn group(&self) -> String {
        format!("service:{}", self.name)
    }

    /// Tells an event, unless it is the one that was told last, within [`EVENT_AGAIN`].
    pub fn tell(&mut self, id: String, message: String, now: Timestamp) {
        let told = self
            .events
            .last()
            .is_some_and(|last| last.message == message && last.created_at + EVENT_AGAIN > now);
        if !told {
            self.events.push(Arc::new(ServiceEvent { id, created_at: now, message }));
            let surplus = self.events.len().saturating_sub(EVENTS_MAX);
            self.events.drain(..surplus);
        }
    }

    /// Whether it told a message that ends so within [`EVENT_AGAIN`], and since its primary deployment began.
    pub fn has_told(&self, ending: &str, now: Timestamp) -> bool {
        let began = self.primary().map(|primary| primary.created_at);
        let lately = |at: Timestamp| at + EVENT_AGAIN > now && began.is_none_or(|began| began <= at);
        self.events.iter().any(|event| lately(event.created_at) && event.message.ends_with(ending))
    }

    /// The deployment that tells what the service runs: its primary one, or its primary task set; of an INACTIVE service the
    /// one that was.
    pub fn shown(&self) -> Option<&Deployment> {
        let is_primary = |set: &TaskSet| set.status == TaskSetStatus::Primary;
        let primary = match self.has_task_sets() {
            false => self.primary(),
            true => self.deployments.iter().find(|set| set.task_set.as_ref().is_some_and(is_primary)),
        };
        primary.or(self.last_deployment.as_deref())
    }

    pub fn is_daemon(&self) -> bool {
        self.scheduling_strategy == SchedulingStrategy::Daemon
    }

    /// Whether somebody else decides about its deployments, which are task sets then.
    pub fn has_task_sets(&self) -> bool {
        self.controller != DeploymentController::Ecs
    }

    /// How many tasks a task set shall have.
    pub fn computed(&self, set: &TaskSet) -> u32 {
        let drains =
            set.status == TaskSetStatus::Draining && !mutant::is("deleted task sets keep their tasks");
        let stays = self.status == ServiceStatus::Active && !drains;
        if stays { set.scale.of(self.desired_count) } else { 0 }
    }

    /// The deployment that started a task, while the service has it.
    pub fn deployment_of(&self, task: &Task) -> Option<&Deployment> {
        let id = task.deployment()?;
        self.deployments.iter().find(|deployment| deployment.id == id)
    }

    /// The deployment that new tasks belong to; of a service of task sets, the primary one or another.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    /// What its new tasks are launched on; ECS's default while nothing says.
    pub fn launch_type(&self) -> LaunchType {
        self.primary().map_or(LaunchType::Ec2, |primary| primary.compute.launch_type())
    }
}

impl Record for Service {
    const KIND: &'static str = "ecs/service";
    const VERSION: u32 = 2;
    type Key = ServiceKey;

    fn key(&self) -> ServiceKey {
        ServiceKey { cluster: self.cluster.clone(), name: self.name.clone() }
    }

    fn path(key: &ServiceKey) -> String {
        format!("{}/{}", key.cluster, key.name)
    }
    fn upgrade(from: u32, mut value: Value) -> Result<Service, LoadError> {
        if from != 1 {
            return Err(LoadError::NoUpgrade { kind: Service::KIND, found: from, known: Service::VERSION });
        }
        revise(&mut value);
        serde_json::from_value(value).map_err(|source| LoadError::Json { kind: Service::KIND, source })
    }
}

/// Version 1 kept the deployment configuration flat, one count of failures, and no history: the ids of what it did not
/// record follow from the deployments' own.
fn revise(value: &mut Value) {
    let number = |deployment: &Value| {
        let id = deployment["id"].as_str().and_then(|id| id.strip_prefix("ecs-svc/"));
        id.unwrap_or_default().to_owned()
    };
    let attempt = |number: &str| json!(format!("v1{number:0>19}"));
    for deployment in value["deployments"].as_array_mut().into_iter().flatten() {
        let number = number(deployment);
        let failed = deployment["failed_tasks"].take();
        deployment["attempt"] = attempt(&number);
        deployment["revision"] = json!(number);
        deployment["failures"] = json!({"consecutive": failed, "starts": failed, "total": failed});
    }
    value["attempt"] = attempt(&value["deployments"].get(0).map(number).unwrap_or_default());
    value["configuration"] = json!({
        "minimum_healthy_percent": value["minimum_healthy_percent"],
        "maximum_percent": value["maximum_percent"],
        "circuit_breaker": value["circuit_breaker"],
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_store::decode;

    #[test]
    fn a_service_of_version_one_is_read() {
        let stored = json!({
            "v": 1, "cluster": "default", "name": "web", "status": "ACTIVE", "desired_count": 2,
            "deployments": [{
                "id": "ecs-svc/4980306466373577095", "task_definition": "web:1", "created_at": 1, "updated_at": 1,
                "compute": {"launchType": "EC2"}, "platform_version": null, "network": null,
                "rollout_state": "IN_PROGRESS", "rollout_state_reason": "", "failed_tasks": 2, "failed_at": 1,
                "launch_not_before": null,
            }],
            "minimum_healthy_percent": 50, "maximum_percent": 150,
            "circuit_breaker": {"enable": true, "rollback": false},
            "placement_constraints": [], "placement_strategy": [], "health_check_grace_period_seconds": 0,
            "enable_ecs_managed_tags": false, "propagate_tags": "NONE", "enable_execute_command": false,
            "availability_zone_rebalancing": true, "tags": {}, "created_at": 1, "created_by": "root",
            "events": [], "client_token": null, "inactive_since": null,
        });
        let service: Service = decode(stored.to_string().as_bytes()).unwrap();
        let deployment = &service.deployments[0];
        assert_eq!(deployment.revision.to_string(), "4980306466373577095");
        assert_eq!(
            (deployment.attempt, deployment.attempt.to_string().as_str()),
            (service.attempt, "v14980306466373577095")
        );
        assert_eq!(deployment.failures.starts, 2);
        assert!(service.configuration.circuit_breaker.enable && service.configuration.maximum_percent == 150);
    }
}
