//! The one form in which every service's errors leave: AWS's code, status and message.

use crate::reading::Violation;
use std::borrow::Cow;

/// An error as the caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The exception's name, as SDKs know it.
    pub code: Cow<'static, str>,
    /// HTTP status.
    pub status: u16,
    pub message: String,
    /// Further members of the exception's shape.
    pub fields: Vec<(Cow<'static, str>, ErrorField)>,
}

/// What a member of an exception holds beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorField {
    Text(String),
    Texts(Vec<String>),
}

impl ApiError {
    /// A client's fault: status 400.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> ApiError {
        ApiError { code: code.into(), status: 400, message: message.into(), fields: Vec::new() }
    }

    pub fn with_status(mut self, status: u16) -> ApiError {
        self.status = status;
        self
    }
}

/// A body that is well formed but does not fit its shape. Missing and mistyped members never reach a handler.
impl From<Violation> for ApiError {
    fn from(violation: Violation) -> ApiError {
        let code = match violation {
            Violation::Type { .. } => "SerializationException",
            Violation::Missing { .. } | Violation::NotOneOf { .. } | Violation::Unsatisfied(_) => {
                "InvalidParameterException"
            }
        };
        ApiError::new(code, violation.to_string())
    }
}
