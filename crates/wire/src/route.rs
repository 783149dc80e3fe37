//! Which service and operation a request means, before anything of its body is trusted.

use crate::error::ApiError;
use crate::query;
use crate::shape::{Protocol, ServiceModel};

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Target {
    pub service: &'static ServiceModel,
    /// As the client spelled it; the service says whether it serves it.
    pub operation: String,
}

/// A refused request and the protocol in whose shape the refusal must go.
pub type Unroutable = (Protocol, ApiError);

/// The JSON protocol is what clients without any hint get their errors in.
const FALLBACK: Protocol = Protocol::AwsJson("1.1");

/// Finds the service and operation from the `X-Amz-Target` header or the form's `Action` and `Version`.
///
/// # Errors
/// A 4xx for a target that names no operation of the services served.
pub fn target(
    services: &[&'static ServiceModel],
    x_amz_target: Option<&str>,
    query_string: &str,
    form: Option<&[u8]>,
) -> Result<Target, Unroutable> {
    if let Some(header) = x_amz_target {
        let unknown =
            || (FALLBACK, ApiError::new("UnknownOperationException", "The X-Amz-Target is not known."));
        let (prefix, operation) = header.split_once('.').ok_or_else(unknown)?;
        let served = |service: &&&'static ServiceModel| service.target_prefix == prefix && !prefix.is_empty();
        let service = services.iter().find(served).ok_or_else(unknown)?;
        if service.operation(operation).is_none() {
            let message = format!("{} has no operation of that name.", service.name);
            return Err((service.protocol, ApiError::new("UnknownOperationException", message)));
        }
        return Ok(Target { service, operation: operation.to_owned() });
    }
    let in_query = |error| (Protocol::AwsQuery, error);
    let mut pairs = query::pairs(query_string.as_bytes()).map_err(in_query)?;
    pairs.extend(query::pairs(form.unwrap_or_default()).map_err(in_query)?);
    let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let Some(action) = value("Action") else {
        let message = "The request names no operation: neither an X-Amz-Target header nor an Action.";
        return Err((FALLBACK, ApiError::new("MissingAction", message)));
    };
    let version = value("Version").unwrap_or_default();
    let query_services = services.iter().filter(|service| service.protocol == Protocol::AwsQuery);
    let known = query_services.filter(|service| service.operation(action).is_some());
    match known.into_iter().find(|service| version.is_empty() || service.api_version == version) {
        Some(service) => Ok(Target { service, operation: action.to_owned() }),
        None => {
            let action: String = action.chars().take(100).collect();
            let message = format!("Could not find operation {action} for version {version:.20}");
            Err((Protocol::AwsQuery, ApiError::new("InvalidAction", message)))
        }
    }
}
