//! The AWS APIs for a task's programs: their calls are handed on to the control plane as they came.
//!
//! A task has no way of its own to a control plane on its host's loopback, and need not have one to any other. What it
//! signed stays as it is, the host's name included, so that the control plane verifies the task's own signature.

use http::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tokio::time::timeout;

/// Until the control plane begins to answer: as long as SDKs wait.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What a listener of tasks answers with.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// Headers that concern one connection only.
const OF_A_CONNECTION: [HeaderName; 5] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The way to the control plane.
pub struct Api {
    http: Client<HttpConnector, Incoming>,
    endpoint: String,
}

/// Whether a request is a call of an AWS API: signed, or at least addressed as one. Nothing that a task asks its agent is.
pub fn is_call(parts: &Parts) -> bool {
    let signed = parts.headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"AWS4-"));
    signed
        || parts.headers.contains_key("x-amz-target")
        || parts.uri.query().is_some_and(|query| query.contains("X-Amz-Algorithm="))
}

impl Api {
    /// `endpoint` is the control plane's, `http://host:port`.
    pub fn new(endpoint: &str) -> Api {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new()).build(connector);
        Api { http, endpoint: endpoint.trim_end_matches('/').to_owned() }
    }

    /// Hands a call on, and its answer back.
    pub async fn call(&self, mut parts: Parts, body: Incoming) -> Response<Body> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = format!("{}{path}", self.endpoint).parse::<Uri>() else {
            return problem(StatusCode::BAD_REQUEST, "ValidationException", "The path does not read.");
        };
        parts.uri = uri;
        parts.version = http::Version::HTTP_11;
        strip(&mut parts.headers);
        match timeout(ANSWER_MAX, self.http.request(Request::from_parts(parts, body))).await {
            Ok(Ok(answer)) => {
                let (mut parts, body) = answer.into_parts();
                strip(&mut parts.headers);
                Response::from_parts(parts, body.boxed())
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a task's call did not reach the control plane");
                problem(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "The control plane is away.")
            }
            Err(_) => problem(
                StatusCode::GATEWAY_TIMEOUT,
                "ServiceUnavailable",
                "The control plane did not answer.",
            ),
        }
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in OF_A_CONNECTION {
        headers.remove(name);
    }
}

/// In a form that SDKs of the JSON protocols read; the others go by the status.
fn problem(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let text = serde_json::json!({"__type": code, "message": message}).to_string();
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response
}

/// A body that is all there.
pub fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn calls_are_told_from_questions_to_the_agent() {
        let is = |path: &str, header: Option<(&str, &str)>| {
            let mut request = Request::builder().uri(path);
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            is_call(&request.body(()).unwrap().into_parts().0)
        };
        assert!(is("/", Some(("authorization", "AWS4-HMAC-SHA256 Credential=…"))));
        assert!(is("/", Some(("x-amz-target", "AmazonEC2ContainerServiceV20141113.ListTasks"))));
        assert!(is("/?Action=GetCallerIdentity&X-Amz-Algorithm=AWS4-HMAC-SHA256", None));
        assert!(!is("/v2/credentials/x", Some(("authorization", "token"))));
        assert!(!is("/v4/x/task", None));
    }
}
