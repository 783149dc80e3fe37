//! The errors that Certificate Manager answers, with AWS's codes.

use super::x509::Unfit;
use crate::page::PageError;
use gantry_wire::ApiError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcmError {
    #[error("{0}")]
    Validation(String),
    #[error("{0}")]
    InvalidParameter(String),
    #[error("{0}")]
    InvalidArgs(String),
    /// Text that is no certificate's ARN.
    #[error("The ARN '{0}' is not the ARN of a certificate.")]
    InvalidArn(String),
    #[error("Could not find certificate {0}.")]
    NotFound(String),
    #[error("Certificate {0} is in use.")]
    InUse(String),
    #[error("{0}")]
    InvalidState(String),
    #[error("The certificate request for {0} is in progress.")]
    InProgress(String),
    #[error("{0}")]
    InvalidTag(String),
    #[error("A certificate cannot have more than {0} tags.")]
    TooManyTags(usize),
    #[error("You have reached the maximum number of certificates, {0}. Delete some that are not in use.")]
    LimitExceeded(usize),
    #[error("{0}")]
    Unsupported(&'static str),
}

impl AcmError {
    pub fn validation(message: impl Into<String>) -> AcmError {
        AcmError::Validation(message.into())
    }

    /// The exception's name in the model.
    pub fn code(&self) -> &'static str {
        match self {
            AcmError::Validation(_) => "ValidationException",
            AcmError::InvalidParameter(_) => "InvalidParameterException",
            AcmError::InvalidArgs(_) => "InvalidArgsException",
            AcmError::InvalidArn(_) => "InvalidArnException",
            AcmError::NotFound(_) => "ResourceNotFoundException",
            AcmError::InUse(_) => "ResourceInUseException",
            AcmError::InvalidState(_) => "InvalidStateException",
            AcmError::InProgress(_) => "RequestInProgressException",
            AcmError::InvalidTag(_) => "InvalidTagException",
            AcmError::TooManyTags(_) => "TooManyTagsException",
            AcmError::LimitExceeded(_) => "LimitExceededException",
            AcmError::Unsupported(_) => "UnsupportedFeatureException",
        }
    }
}

impl From<AcmError> for ApiError {
    fn from(error: AcmError) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<Unfit> for AcmError {
    fn from(error: Unfit) -> AcmError {
        AcmError::Validation(error.to_string())
    }
}

impl From<PageError> for AcmError {
    fn from(error: PageError) -> AcmError {
        AcmError::InvalidArgs(error.to_string())
    }
}
