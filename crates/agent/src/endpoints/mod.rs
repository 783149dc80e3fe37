//! What tasks can ask their agent over HTTP: who they are (metadata, versions 2 to 4), what they use (statistics), their
//! role's credentials, to be spared when their service shrinks, and the AWS APIs.
//!
//! Each namespace has a listener of its own, so that a task can only ever ask for itself; tasks in the host's namespace
//! share one on its loopback, and those on Docker's bridge another; they are told apart by ids that cannot be guessed, as
//! everywhere.

mod api;
mod credentials;
mod document;
mod limit;
mod protection;
mod serve;
mod stats;

pub use api::{Api, Body, whole};
pub use credentials::RoleStore;
pub use serve::{Owner, serve};

use crate::network::ENDPOINT_ADDRESS;
use std::collections::BTreeMap;

/// Where AWS's SDKs send what they call, whatever the service. A user's own value goes before ours.
pub const API_VARIABLE: &str = "AWS_ENDPOINT_URL";

/// The variables by which a container's programs find these endpoints. Those of a task with a role are sent to the AWS
/// APIs too, as its credentials are good for nothing else: through its agent, and from the host's namespace straight to
/// the control plane at `endpoint`.
pub fn environment(
    key: &str,
    host_port: Option<u16>,
    credentials: Option<&str>,
    endpoint: &str,
) -> BTreeMap<String, String> {
    let origin = match host_port {
        Some(port) => format!("http://127.0.0.1:{port}"),
        None => format!("http://{ENDPOINT_ADDRESS}"),
    };
    let mut all = BTreeMap::from([
        ("ECS_CONTAINER_METADATA_URI".to_owned(), format!("{origin}/v3/{key}")),
        ("ECS_CONTAINER_METADATA_URI_V4".to_owned(), format!("{origin}/v4/{key}")),
        ("ECS_AGENT_URI".to_owned(), format!("{origin}/api/{key}")),
    ]);
    if let Some(id) = credentials {
        // SDKs put ECS's own address before a relative one, which nothing on the host answers at.
        let (name, origin) = match host_port {
            Some(_) => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", origin.as_str()),
            None => ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ""),
        };
        let api =
            if host_port.is_some() { endpoint.to_owned() } else { format!("http://{ENDPOINT_ADDRESS}") };
        all.insert(name.to_owned(), format!("{origin}/v2/credentials/{id}"));
        all.insert(API_VARIABLE.to_owned(), api);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL_PLANE: &str = "http://127.0.0.1:4580";

    #[test]
    fn a_container_is_told_where_to_ask() {
        let own = environment("k", None, Some("c"), CONTROL_PLANE);
        assert_eq!(own["ECS_CONTAINER_METADATA_URI_V4"], "http://169.254.170.2/v4/k");
        assert_eq!(own["ECS_AGENT_URI"], "http://169.254.170.2/api/k");
        assert_eq!(own["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"], "/v2/credentials/c");
        assert_eq!(own[API_VARIABLE], "http://169.254.170.2");
        let host = environment("k", Some(51_679), Some("c"), CONTROL_PLANE);
        assert_eq!(host["ECS_CONTAINER_METADATA_URI"], "http://127.0.0.1:51679/v3/k");
        assert_eq!(host["AWS_CONTAINER_CREDENTIALS_FULL_URI"], "http://127.0.0.1:51679/v2/credentials/c");
        assert_eq!(host[API_VARIABLE], CONTROL_PLANE);
        assert!(!environment("k", None, None, CONTROL_PLANE).keys().any(|name| name.starts_with("AWS_")));
    }
}
