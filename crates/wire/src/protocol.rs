//! The protocols side by side: how each reads a request and writes a response or an error.

use crate::error::ApiError;
use crate::shape::{OperationModel, Protocol, ServiceModel, Structure};
use crate::{json, query, xml};

impl Protocol {
    /// Whether requests are forms.
    pub fn has_forms(self) -> bool {
        matches!(self, Protocol::AwsQuery | Protocol::Ec2Query)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Protocol::AwsJson("1.0") => "application/x-amz-json-1.0",
            Protocol::AwsJson(_) => "application/x-amz-json-1.1",
            Protocol::AwsQuery | Protocol::Ec2Query => "text/xml;charset=UTF-8",
        }
    }

    /// Fills `request` from a body; for protocols with forms that is what [`form`] makes.
    ///
    /// # Errors
    /// What does not fit the shape or its constraints.
    pub fn read_request(self, request: &mut dyn Structure, body: &[u8]) -> Result<(), ApiError> {
        match self {
            Protocol::AwsJson(_) => json::read_request(request, body),
            Protocol::AwsQuery => query::read(request, body),
            Protocol::Ec2Query => query::read_ec2(request, body),
        }
    }

    /// An error's body. `namespace` is the service's, for protocols that name it.
    pub fn error(self, namespace: &str, error: &ApiError, request_id: &str) -> Vec<u8> {
        match self {
            Protocol::AwsJson(_) => json::error(error),
            Protocol::AwsQuery => xml::error(namespace, error, request_id),
            Protocol::Ec2Query => xml::ec2_error(error, request_id),
        }
    }
}

impl ServiceModel {
    /// A response's body.
    pub fn response(
        &self,
        operation: &OperationModel,
        response: &dyn Structure,
        request_id: &str,
    ) -> Vec<u8> {
        match self.protocol {
            Protocol::AwsJson(_) => json::to_vec(response),
            Protocol::AwsQuery => xml::response(self, operation, response, request_id),
            Protocol::Ec2Query => xml::ec2_response(self, operation, response, request_id),
        }
    }
}

/// The form of a request that may stand in the query string, the body or both.
pub fn form(query_string: &str, body: &[u8]) -> Vec<u8> {
    let mut all = query_string.as_bytes().to_vec();
    if !body.is_empty() {
        if !all.is_empty() {
            all.push(b'&');
        }
        all.extend_from_slice(body);
    }
    all
}
