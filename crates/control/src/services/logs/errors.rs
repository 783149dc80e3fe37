//! The errors that CloudWatch Logs answers, with AWS's codes and words.

use crate::bulk;
use crate::page::PageError;
use gantry_decide::ids::InvalidId;
use gantry_decide::log_filter::InvalidPattern;
use gantry_wire::{ApiError, ErrorField};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogsError {
    #[error("{0}")]
    InvalidParameter(String),
    #[error("The specified log group does not exist.")]
    GroupNotFound,
    #[error("The specified log stream does not exist.")]
    StreamNotFound,
    #[error("The specified metric filter does not exist.")]
    FilterNotFound,
    #[error("The specified resource does not exist.")]
    ResourceNotFound,
    #[error("The specified log group already exists")]
    GroupExists,
    #[error("The specified log stream already exists")]
    StreamExists,
    #[error("Resource limit exceeded.")]
    LimitExceeded,
    #[error("A resource can have at most {max} tags.")]
    TooManyTags { max: usize },
    /// A writer that keeps a cursor has these events in the store already.
    #[error("The given batch of log events has already been accepted.")]
    DataAlreadyAccepted,
    /// A writer that keeps a cursor is not where the stream is.
    #[error("The given sequenceToken is invalid. The next expected sequenceToken is: {expected}")]
    InvalidSequenceToken { expected: String },
    #[error("Rate exceeded")]
    Throttled,
    #[error("The store of log events cannot be used. Why is in the server's log.")]
    Unavailable,
}

impl LogsError {
    pub fn invalid(message: impl Into<String>) -> LogsError {
        LogsError::InvalidParameter(message.into())
    }

    /// The exception's name.
    pub fn code(&self) -> &'static str {
        match self {
            LogsError::InvalidParameter(_) => "InvalidParameterException",
            LogsError::GroupNotFound
            | LogsError::StreamNotFound
            | LogsError::FilterNotFound
            | LogsError::ResourceNotFound => "ResourceNotFoundException",
            LogsError::GroupExists | LogsError::StreamExists => "ResourceAlreadyExistsException",
            LogsError::LimitExceeded => "LimitExceededException",
            LogsError::TooManyTags { .. } => "TooManyTagsException",
            LogsError::DataAlreadyAccepted => "DataAlreadyAcceptedException",
            LogsError::InvalidSequenceToken { .. } => "InvalidSequenceTokenException",
            LogsError::Throttled => "ThrottlingException",
            LogsError::Unavailable => "ServiceUnavailableException",
        }
    }
}

impl From<LogsError> for ApiError {
    fn from(error: LogsError) -> ApiError {
        let status = if error == LogsError::Unavailable { 503 } else { 400 };
        let mut answer = ApiError::new(error.code(), error.to_string()).with_status(status);
        if let LogsError::InvalidSequenceToken { expected } = error {
            answer.fields.push(("expectedSequenceToken".into(), ErrorField::Text(expected)));
        }
        answer
    }
}

impl From<bulk::Error> for LogsError {
    fn from(error: bulk::Error) -> LogsError {
        match error {
            bulk::Error::Busy => LogsError::Throttled,
            bulk::Error::Unavailable => LogsError::Unavailable,
        }
    }
}

impl From<PageError> for LogsError {
    fn from(error: PageError) -> LogsError {
        match error {
            PageError::Size { max } => LogsError::invalid(format!("limit must be between 1 and {max}.")),
            PageError::Token => LogsError::invalid("The specified nextToken is invalid."),
        }
    }
}

impl From<InvalidId> for LogsError {
    fn from(error: InvalidId) -> LogsError {
        LogsError::invalid(error.to_string())
    }
}

impl From<InvalidPattern> for LogsError {
    fn from(error: InvalidPattern) -> LogsError {
        LogsError::invalid(error.to_string())
    }
}
