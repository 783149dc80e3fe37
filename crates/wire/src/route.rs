//! Which service and operation a request means, before anything of its body is trusted.

use crate::error::ApiError;
use crate::query;
use crate::shape::{OperationModel, Protocol, ServiceModel};

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Target {
    pub service: &'static ServiceModel,
    /// Of the service's model; the service says whether it serves it.
    pub operation: &'static OperationModel,
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
        return match service.operation(operation) {
            Some(operation) => Ok(Target { service, operation }),
            None => {
                let message = format!("Gantry does not support the operation {operation:.100}.");
                Err((service.protocol, ApiError::new("UnknownOperationException", message)))
            }
        };
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
    let of_version = |service: &&&'static ServiceModel| {
        service.protocol.has_forms() && (version.is_empty() || service.api_version == version)
    };
    let named = |service: &&'static ServiceModel| {
        service.operation(action).map(|operation| Target { service, operation })
    };
    if let Some(target) = services.iter().filter(of_version).find_map(named) {
        return Ok(target);
    }
    // A service that is known by its version refuses in its own words.
    let known = services.iter().find(of_version).filter(|_| !version.is_empty());
    let protocol = known.map_or(Protocol::AwsQuery, |service| service.protocol);
    // It may well be one of AWS's.
    let message = format!("Gantry does not support the action {action:.100}.");
    Err((protocol, ApiError::new("InvalidAction", message)))
}
