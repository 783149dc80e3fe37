//! Amazon Resource Names: the general form, and the ones ECS gives its own resources.

mod balancing;

pub use balancing::*;

use crate::ids::{
    AccountId, CapacityProviderName, ClusterName, ContainerId, ContainerInstanceId, DaemonName, DeploymentId,
    Region, RoleName, Scope, ServiceDeploymentId, ServiceName, ServiceRevisionId, TaskDefinitionId, TaskId,
};
use std::fmt;
use std::str::FromStr;

/// Text that is not an ARN, or not one of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid arn : {text}")]
pub struct InvalidArn {
    pub text: String,
}

/// `arn:aws:SERVICE:REGION:ACCOUNT:RESOURCE`, taken apart but not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arn {
    pub service: String,
    /// Empty in global services' ARNs.
    pub region: String,
    /// Empty in some services' ARNs.
    pub account: String,
    pub resource: String,
}

impl FromStr for Arn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next();
        match (next(), next(), next(), next(), next(), next()) {
            (Some("arn"), Some(partition), Some(service), Some(region), Some(account), Some(resource))
                if partition.starts_with("aws") && !service.is_empty() && !resource.is_empty() =>
            {
                Ok(Arn {
                    service: service.to_owned(),
                    region: region.to_owned(),
                    account: account.to_owned(),
                    resource: resource.to_owned(),
                })
            }
            _ => Err(InvalidArn { text: text.chars().take(256).collect() }),
        }
    }
}

impl fmt::Display for Arn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:{}:{}:{}:{}", self.service, self.region, self.account, self.resource)
    }
}

/// A role of IAM, `arn:aws:iam::ACCOUNT:role/PATH/NAME`; only its last part names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleArn {
    pub account: AccountId,
    pub name: RoleName,
}

impl FromStr for RoleArn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let error = || InvalidArn { text: text.chars().take(256).collect() };
        let arn: Arn = text.parse()?;
        let path = arn.resource.strip_prefix("role/").filter(|_| arn.service == "iam").ok_or_else(error)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        let (account, name) = (arn.account.parse().map_err(|_| error())?, name.parse().map_err(|_| error())?);
        Ok(RoleArn { account, name })
    }
}

/// A resource of ECS as its ARN names it, without account and region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EcsResource {
    Cluster(ClusterName),
    Service(ClusterName, ServiceName),
    /// `service/NAME`: the form before 2018, still taken as input.
    ServiceShort(ServiceName),
    Task(ClusterName, TaskId),
    Container(ClusterName, TaskId, ContainerId),
    ContainerInstance(ClusterName, ContainerInstanceId),
    TaskDefinition(TaskDefinitionId),
    CapacityProvider(CapacityProviderName),
    ServiceDeployment(ClusterName, ServiceName, ServiceDeploymentId),
    ServiceRevision(ClusterName, ServiceName, ServiceRevisionId),
    TaskSet(ClusterName, ServiceName, DeploymentId),
    Daemon(ClusterName, DaemonName),
    DaemonTaskDefinition(TaskDefinitionId),
    /// Ids of daemons' deployments and revisions are of the same form as those of services.
    DaemonDeployment(ClusterName, DaemonName, ServiceDeploymentId),
    DaemonRevision(ClusterName, DaemonName, ServiceRevisionId),
}

impl fmt::Display for EcsResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EcsResource::Cluster(name) => write!(f, "cluster/{name}"),
            EcsResource::Service(cluster, name) => write!(f, "service/{cluster}/{name}"),
            EcsResource::ServiceShort(name) => write!(f, "service/{name}"),
            EcsResource::Task(cluster, id) => write!(f, "task/{cluster}/{id}"),
            EcsResource::Container(cluster, task, id) => write!(f, "container/{cluster}/{task}/{id}"),
            EcsResource::ContainerInstance(cluster, id) => write!(f, "container-instance/{cluster}/{id}"),
            EcsResource::TaskDefinition(id) => write!(f, "task-definition/{id}"),
            EcsResource::CapacityProvider(name) => write!(f, "capacity-provider/{name}"),
            EcsResource::ServiceDeployment(cluster, service, id) => {
                write!(f, "service-deployment/{cluster}/{service}/{id}")
            }
            EcsResource::ServiceRevision(cluster, service, id) => {
                write!(f, "service-revision/{cluster}/{service}/{id}")
            }
            EcsResource::TaskSet(cluster, service, id) => write!(f, "task-set/{cluster}/{service}/{id}"),
            EcsResource::Daemon(cluster, name) => write!(f, "daemon/{cluster}/{name}"),
            EcsResource::DaemonTaskDefinition(id) => write!(f, "daemon-task-definition/{id}"),
            EcsResource::DaemonDeployment(cluster, name, id) => {
                write!(f, "daemon-deployment/{cluster}/{name}/{id}")
            }
            EcsResource::DaemonRevision(cluster, name, id) => {
                write!(f, "daemon-revision/{cluster}/{name}/{id}")
            }
        }
    }
}

impl FromStr for EcsResource {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        fn parse(text: &str) -> Option<EcsResource> {
            let (kind, rest) = text.split_once('/')?;
            let parts: Vec<&str> = rest.split('/').collect();
            Some(match (kind, parts.as_slice()) {
                ("cluster", [name]) => EcsResource::Cluster(name.parse().ok()?),
                ("service", [cluster, name]) => {
                    EcsResource::Service(cluster.parse().ok()?, name.parse().ok()?)
                }
                ("service", [name]) => EcsResource::ServiceShort(name.parse().ok()?),
                ("task", [cluster, id]) => EcsResource::Task(cluster.parse().ok()?, id.parse().ok()?),
                ("container", [cluster, task, id]) => {
                    EcsResource::Container(cluster.parse().ok()?, task.parse().ok()?, id.parse().ok()?)
                }
                ("container-instance", [cluster, id]) => {
                    EcsResource::ContainerInstance(cluster.parse().ok()?, id.parse().ok()?)
                }
                ("task-definition", [id]) => EcsResource::TaskDefinition(id.parse().ok()?),
                ("capacity-provider", [name]) => EcsResource::CapacityProvider(name.parse().ok()?),
                ("service-deployment", [cluster, service, id]) => EcsResource::ServiceDeployment(
                    cluster.parse().ok()?,
                    service.parse().ok()?,
                    id.parse().ok()?,
                ),
                ("service-revision", [cluster, service, id]) => EcsResource::ServiceRevision(
                    cluster.parse().ok()?,
                    service.parse().ok()?,
                    id.parse().ok()?,
                ),
                ("daemon", [cluster, name]) => EcsResource::Daemon(cluster.parse().ok()?, name.parse().ok()?),
                ("daemon-task-definition", [id]) => EcsResource::DaemonTaskDefinition(id.parse().ok()?),
                ("daemon-deployment", [cluster, name, id]) => {
                    EcsResource::DaemonDeployment(cluster.parse().ok()?, name.parse().ok()?, id.parse().ok()?)
                }
                ("daemon-revision", [cluster, name, id]) => {
                    EcsResource::DaemonRevision(cluster.parse().ok()?, name.parse().ok()?, id.parse().ok()?)
                }
                // The id of a task set has a part of its own before its number.
                ("task-set", [cluster, service, prefix, number]) => EcsResource::TaskSet(
                    cluster.parse().ok()?,
                    service.parse().ok()?,
                    format!("{prefix}/{number}").parse().ok()?,
                ),
                _ => return None,
            })
        }
        parse(text).ok_or_else(|| InvalidArn { text: text.chars().take(256).collect() })
    }
}

/// A full ECS ARN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EcsArn {
    pub scope: Scope,
    pub resource: EcsResource,
}

impl EcsArn {
    /// As `to_string`, at the cost of one allocation: thousands are shown a second.
    pub fn text(&self) -> String {
        // A container's, with ids of 32 and 36 digits and names of usual length, is the longest.
        let mut text = String::with_capacity(160);
        fmt::write(&mut text, format_args!("{self}")).expect("a string takes all that is written");
        text
    }
}

impl fmt::Display for EcsArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:ecs:{}:{}:{}", self.scope.region, self.scope.account, self.resource)
    }
}

impl FromStr for EcsArn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let error = || InvalidArn { text: text.chars().take(256).collect() };
        let arn: Arn = text.parse()?;
        let account: AccountId = arn.account.parse().map_err(|_| error())?;
        let region: Region = arn.region.parse().map_err(|_| error())?;
        if arn.service != "ecs" {
            return Err(error());
        }
        let resource = arn.resource.parse().map_err(|_| error())?;
        Ok(EcsArn { scope: Scope { account, region }, resource })
    }
}

impl Scope {
    /// The ARN of an ECS resource of this scope.
    pub fn ecs(&self, resource: EcsResource) -> EcsArn {
        EcsArn { scope: self.clone(), resource }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ecs_arns_read_back() {
        for text in [
            "arn:aws:ecs:eu-north-1:111122223333:cluster/workshop",
            "arn:aws:ecs:eu-north-1:111122223333:service/workshop/web",
            "arn:aws:ecs:eu-north-1:111122223333:service/web",
            "arn:aws:ecs:eu-north-1:111122223333:task/workshop/0123456789abcdef0123456789abcdef",
            "arn:aws:ecs:eu-north-1:111122223333:container-instance/workshop/0123456789abcdef0123456789abcdef",
            "arn:aws:ecs:eu-north-1:111122223333:task-definition/web:7",
            "arn:aws:ecs:eu-north-1:111122223333:service-deployment/workshop/web/8kP2-dLq_0ZrT4wXy6BnV",
            "arn:aws:ecs:eu-north-1:111122223333:service-revision/workshop/web/4980306466373577095",
            "arn:aws:ecs:eu-north-1:111122223333:daemon/workshop/logs",
            "arn:aws:ecs:eu-north-1:111122223333:daemon-task-definition/logs:2",
            "arn:aws:ecs:eu-north-1:111122223333:daemon-deployment/workshop/logs/8kP2-dLq_0ZrT4wXy6BnV",
            "arn:aws:ecs:eu-north-1:111122223333:daemon-revision/workshop/logs/4980306466373577095",
        ] {
            let arn: EcsArn = text.parse().unwrap();
            assert_eq!((arn.to_string(), arn.text()), (text.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn roles_are_known_by_their_last_part() {
        let role: RoleArn = "arn:aws:iam::111122223333:role/service-role/painter".parse().unwrap();
        assert_eq!((role.account.to_string().as_str(), role.name.as_str()), ("111122223333", "painter"));
        for text in [
            "painter",
            "arn:aws:iam::1:role/x",
            "arn:aws:iam::111122223333:user/x",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(text.parse::<RoleArn>().is_err(), "{text}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "arn",
            "arn:aws:ecs:eu-north-1:1:cluster/x",
            "arn:aws:s3:eu-north-1:111122223333:cluster/x",
            "arn:aws:ecs:eu-north-1:111122223333:cluster/",
            "arn:aws:ecs:eu-north-1:111122223333:task/a/b",
        ] {
            assert!(text.parse::<EcsArn>().is_err(), "{text}");
        }
    }
}
