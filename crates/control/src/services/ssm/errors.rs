//! The errors that Systems Manager answers, with AWS's codes.

use crate::page::PageError;
use gantry_wire::ApiError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SsmError {
    #[error("{0}")]
    InvalidParameters(String),
    /// No activation of this id.
    #[error("Activation ID '{0}' was not found.")]
    InvalidActivationId(String),
    /// Text that names no machine that joined.
    #[error("Instance Id '{0}' was not found.")]
    InvalidInstanceId(String),
    /// Text that names no session.
    #[error("The session '{0}' does not exist.")]
    DoesNotExist(String),
    #[error("{0}")]
    InvalidFilter(String),
    #[error("The specified token is not valid.")]
    InvalidNextToken,
    #[error("{0}")]
    UnsupportedFeature(&'static str),
}

impl SsmError {
    /// The exception's name in the model.
    pub fn code(&self) -> &'static str {
        match self {
            SsmError::InvalidParameters(_) => "InvalidParameters",
            SsmError::InvalidActivationId(_) => "InvalidActivationId",
            SsmError::InvalidInstanceId(_) => "InvalidInstanceId",
            SsmError::DoesNotExist(_) => "DoesNotExistException",
            SsmError::InvalidFilter(_) => "InvalidFilter",
            SsmError::InvalidNextToken => "InvalidNextToken",
            SsmError::UnsupportedFeature(_) => "UnsupportedFeatureException",
        }
    }
}

impl From<SsmError> for ApiError {
    fn from(error: SsmError) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<PageError> for SsmError {
    fn from(error: PageError) -> SsmError {
        match error {
            PageError::Size { .. } => SsmError::InvalidParameters(error.to_string()),
            PageError::Token => SsmError::InvalidNextToken,
        }
    }
}
