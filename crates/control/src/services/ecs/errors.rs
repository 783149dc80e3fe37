//! The errors that ECS answers, with AWS's codes and words. Clients look for these texts.

use crate::page::PageError;
use gantry_decide::arn::InvalidArn;
use gantry_wire::{ApiError, ErrorField};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EcsError {
    /// A request that cannot be carried out as it stands: task definitions, roles, limits.
    #[error("{0}")]
    Client(String),
    #[error("{0}")]
    InvalidParameter(String),
    #[error("Cluster not found.")]
    ClusterNotFound,
    #[error("The referenced cluster was inactive.")]
    ClusterInactive,
    #[error("The Cluster cannot be deleted while Container Instances are active or draining.")]
    ClusterContainsContainerInstances,
    #[error("The Cluster cannot be deleted while Services are active.")]
    ClusterContainsServices,
    #[error("The Cluster cannot be deleted while Capacity Providers are active.")]
    ClusterContainsCapacityProvider,
    #[error("The Cluster cannot be deleted while Tasks are active.")]
    ClusterContainsTasks,
    #[error("Service not found.")]
    ServiceNotFound,
    #[error("Service was not ACTIVE.")]
    ServiceNotActive,
    #[error("The specified daemon was not found.")]
    DaemonNotFound,
    #[error("The specified daemon is not ACTIVE.")]
    DaemonNotActive,
    #[error("The specified task set was not found.")]
    TaskSetNotFound,
    #[error("The service deployment was not found.")]
    ServiceDeploymentNotFound,
    #[error("{0}")]
    ResourceNotFound(String),
    #[error("{0}")]
    TargetNotFound(String),
    #[error(
        "The execute command failed due to an internal error: the agent of the task's host is not connected. Try again later."
    )]
    TargetNotConnected,
    #[error("{0}")]
    AttributeLimitExceeded(String),
    #[error("{0}")]
    ResourceInUse(String),
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{message}")]
    Conflict { message: String, resource_ids: Vec<String> },
    #[error("The specified platform does not exist.")]
    PlatformUnknown,
    #[error("{0}")]
    PlatformTaskDefinitionIncompatibility(String),
    #[error("There is no update available for the agent of this container instance.")]
    NoUpdateAvailable,
    #[error("{0}")]
    UnsupportedFeature(String),
    #[error("{0}")]
    AccessDenied(String),
}

impl EcsError {
    pub fn invalid(message: impl Into<String>) -> EcsError {
        EcsError::InvalidParameter(message.into())
    }

    pub fn client(message: impl Into<String>) -> EcsError {
        EcsError::Client(message.into())
    }

    /// The exception's name in the model.
    pub fn code(&self) -> &'static str {
        match self {
            EcsError::Client(_) => "ClientException",
            EcsError::InvalidParameter(_) => "InvalidParameterException",
            EcsError::ClusterNotFound | EcsError::ClusterInactive => "ClusterNotFoundException",
            EcsError::ClusterContainsContainerInstances => "ClusterContainsContainerInstancesException",
            EcsError::ClusterContainsServices => "ClusterContainsServicesException",
            EcsError::ClusterContainsCapacityProvider => "ClusterContainsCapacityProviderException",
            EcsError::ClusterContainsTasks => "ClusterContainsTasksException",
            EcsError::ServiceNotFound => "ServiceNotFoundException",
            EcsError::ServiceNotActive => "ServiceNotActiveException",
            EcsError::DaemonNotFound => "DaemonNotFoundException",
            EcsError::DaemonNotActive => "DaemonNotActiveException",
            EcsError::TaskSetNotFound => "TaskSetNotFoundException",
            EcsError::ServiceDeploymentNotFound => "ServiceDeploymentNotFoundException",
            EcsError::ResourceNotFound(_) => "ResourceNotFoundException",
            EcsError::TargetNotFound(_) => "TargetNotFoundException",
            EcsError::TargetNotConnected => "TargetNotConnectedException",
            EcsError::AttributeLimitExceeded(_) => "AttributeLimitExceededException",
            EcsError::ResourceInUse(_) => "ResourceInUseException",
            EcsError::LimitExceeded(_) => "LimitExceededException",
            EcsError::Conflict { .. } => "ConflictException",
            EcsError::PlatformUnknown => "PlatformUnknownException",
            EcsError::PlatformTaskDefinitionIncompatibility(_) => {
                "PlatformTaskDefinitionIncompatibilityException"
            }
            EcsError::NoUpdateAvailable => "NoUpdateAvailableException",
            EcsError::UnsupportedFeature(_) => "UnsupportedFeatureException",
            EcsError::AccessDenied(_) => "AccessDeniedException",
        }
    }
}

impl From<EcsError> for ApiError {
    fn from(error: EcsError) -> ApiError {
        let mut answer = ApiError::new(error.code(), error.to_string());
        if let EcsError::Conflict { resource_ids, .. } = error {
            answer.fields.push(("resourceIds".into(), ErrorField::Texts(resource_ids)));
        }
        answer
    }
}

impl From<PageError> for EcsError {
    fn from(error: PageError) -> EcsError {
        EcsError::invalid(error.to_string())
    }
}

impl From<InvalidArn> for EcsError {
    fn from(error: InvalidArn) -> EcsError {
        EcsError::invalid(error.to_string())
    }
}
