//! The errors that EC2 Auto Scaling answers, with AWS's codes and words.

use crate::page::PageError;
use gantry_wire::ApiError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AutoScalingError {
    #[error("{0}")]
    Validation(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{0}")]
    ResourceInUse(String),
    #[error("{0}")]
    InProgress(String),
    #[error("The token is not valid.")]
    InvalidNextToken,
}

impl AutoScalingError {
    pub fn invalid(message: impl Into<String>) -> AutoScalingError {
        AutoScalingError::Validation(message.into())
    }

    /// A setting that AWS knows and Gantry does not.
    pub fn unsupported(what: &str) -> AutoScalingError {
        AutoScalingError::Validation(format!("Gantry does not support {what} of Auto Scaling groups yet."))
    }

    pub fn no_group(name: &str) -> AutoScalingError {
        let name: String = name.chars().take(255).collect();
        AutoScalingError::Validation(format!(
            "AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"
        ))
    }

    pub fn no_instance(id: &str) -> AutoScalingError {
        let id: String = id.chars().take(64).collect();
        AutoScalingError::Validation(format!(
            "Instance Id not found - No managed instance found for instance ID: {id}"
        ))
    }

    /// AWS's code.
    pub fn code(&self) -> &'static str {
        match self {
            AutoScalingError::Validation(_) => "ValidationError",
            AutoScalingError::AlreadyExists(_) => "AlreadyExists",
            AutoScalingError::LimitExceeded(_) => "LimitExceeded",
            AutoScalingError::ResourceInUse(_) => "ResourceInUse",
            AutoScalingError::InProgress(_) => "ScalingActivityInProgress",
            AutoScalingError::InvalidNextToken => "InvalidNextToken",
        }
    }
}

impl From<AutoScalingError> for ApiError {
    fn from(error: AutoScalingError) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<PageError> for AutoScalingError {
    fn from(error: PageError) -> AutoScalingError {
        match error {
            PageError::Token => AutoScalingError::InvalidNextToken,
            PageError::Size { max } => {
                AutoScalingError::invalid(format!("The value of MaxRecords must be between 1 and {max}."))
            }
        }
    }
}
