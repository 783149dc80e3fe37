//! The errors that Gantry's own operations answer.

use crate::bulk;
use crate::services::ecs::errors::EcsError;
use gantry_decide::log_filter::InvalidPattern;
use gantry_wire::ApiError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GantryError {
    #[error("{0}")]
    InvalidParameter(String),
    /// A cluster or an ARN, in ECS's words.
    #[error(transparent)]
    Ecs(#[from] EcsError),
    #[error(
        "Nothing that is there or was lately is meant by '{0}'. It can be the name of a service, the id of a task or a \
         container instance or the first characters of one, or an ARN."
    )]
    SubjectNotFound(String),
    #[error("'{text}' can mean {}: say more of it, or name its cluster.", could_be.join(", "))]
    AmbiguousSubject { text: String, could_be: Vec<String> },
    #[error("Rate exceeded")]
    Throttled,
    #[error("The store of events cannot be used. Why is in the server's log.")]
    Unavailable,
}

impl From<GantryError> for ApiError {
    fn from(error: GantryError) -> ApiError {
        let (code, status) = match &error {
            GantryError::Ecs(error) => return error.clone().into(),
            GantryError::InvalidParameter(_) => ("InvalidParameterException", 400),
            GantryError::SubjectNotFound(_) => ("SubjectNotFoundException", 400),
            GantryError::AmbiguousSubject { .. } => ("AmbiguousSubjectException", 400),
            GantryError::Throttled => ("ThrottlingException", 400),
            GantryError::Unavailable => ("ServiceUnavailableException", 503),
        };
        ApiError::new(code, error.to_string()).with_status(status)
    }
}

impl From<bulk::Error> for GantryError {
    fn from(error: bulk::Error) -> GantryError {
        match error {
            bulk::Error::Busy => GantryError::Throttled,
            bulk::Error::Unavailable => GantryError::Unavailable,
        }
    }
}

impl From<InvalidPattern> for GantryError {
    fn from(error: InvalidPattern) -> GantryError {
        GantryError::InvalidParameter(error.to_string())
    }
}
