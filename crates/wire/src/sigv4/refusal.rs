//! Why a request's signature is refused, and how each protocol says it.

use crate::error::ApiError;
use crate::shape::Protocol;

/// A refused signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("Missing Authentication Token")]
    Missing,
    /// A part of the signature is absent or malformed.
    #[error("{0}")]
    Incomplete(String),
    /// The key is none of ours, or its session token is not.
    #[error("The security token included in the request is invalid.")]
    Unknown,
    /// The session that the key belongs to is over.
    #[error("The security token included in the request is expired")]
    TokenExpired,
    /// Too old, or from the future.
    #[error("{0}")]
    Expired(String),
    /// The signature does not fit the request, or its scope does not.
    #[error("{0}")]
    Mismatch(String),
    /// The payload's framing or its checksum is broken.
    #[error(transparent)]
    Payload(#[from] ApiError),
}

impl Refusal {
    /// A header that has to be signed is not.
    pub(super) fn unsigned(header: &str) -> Refusal {
        let header: String = header.chars().take(100).collect();
        Refusal::Mismatch(format!("'{header}' must be a 'SignedHeader' in the AWS Authorization."))
    }

    pub(super) fn different() -> Refusal {
        let message = "The request signature we calculated does not match the signature you provided. Check your AWS \
                       Secret Access Key and signing method. Consult the service documentation for details.";
        Refusal::Mismatch(message.to_owned())
    }

    /// The refusal as a service of this protocol words it: the same message under the protocol's own code and status.
    pub fn in_protocol(&self, protocol: Protocol) -> ApiError {
        let (json, query, query_status) = match self {
            Refusal::Missing => ("MissingAuthenticationTokenException", "MissingAuthenticationToken", 403),
            Refusal::Incomplete(_) => ("IncompleteSignatureException", "IncompleteSignature", 400),
            Refusal::Unknown => ("UnrecognizedClientException", "InvalidClientTokenId", 403),
            Refusal::TokenExpired => ("ExpiredTokenException", "ExpiredToken", 403),
            Refusal::Expired(_) | Refusal::Mismatch(_) => {
                ("InvalidSignatureException", "SignatureDoesNotMatch", 403)
            }
            Refusal::Payload(error) => return error.clone(),
        };
        match (protocol, self) {
            (Protocol::AwsJson(_), _) => ApiError::new(json, self.to_string()),
            (Protocol::Ec2Query, Refusal::Unknown) => {
                let message = "AWS was not able to validate the provided access credentials";
                ApiError::new("AuthFailure", message).with_status(401)
            }
            (Protocol::Ec2Query, Refusal::Expired(_) | Refusal::TokenExpired) => {
                ApiError::new("RequestExpired", "Request has expired.")
            }
            (Protocol::AwsQuery | Protocol::Ec2Query, _) => {
                ApiError::new(query, self.to_string()).with_status(query_status)
            }
        }
    }
}
