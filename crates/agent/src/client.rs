//! The ECS API as a client: signed requests in awsJson, bounded in time and size.

use gantry_api::{ecs, gantry, logs, ssm};
use gantry_wire::sigv4::{Credentials, SignedRequest, sign};
use gantry_wire::{ApiError, EpochMillis, Operation, ServiceModel, json};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// For one call, from connecting to the last byte of the answer.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer: the largest page of a list is a tenth of it.
const ANSWER_MAX: usize = 8 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What the answer says is part of the message, not its source: who prints the chain would say it twice.
    #[error("{operation}: {error}")]
    Api { operation: &'static str, error: ApiError },
    #[error("{operation}: no answer from {endpoint}: {reason}")]
    Connection {
        operation: &'static str,
        endpoint: String,
        reason: String,
        /// Nothing listens there.
        refused: bool,
    },
    #[error("{operation}: no answer from {endpoint} within {} s", CALL_MAX.as_secs())]
    Timeout { operation: &'static str, endpoint: String },
    #[error("'{0}' is no address of a control plane, like http://127.0.0.1:4580")]
    Endpoint(String),
}

impl ClientError {
    /// The exception that the control plane answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Api { error, .. } => Some(error.code.as_ref()),
            _ => None,
        }
    }

    /// Whether nothing listened there: no control plane runs.
    pub fn is_refused(&self) -> bool {
        matches!(self, ClientError::Connection { refused: true, .. })
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Api { error, .. } => {
                error.status >= 500
                    || ["ThrottlingException", "ServerException", "LimitExceededException"]
                        .contains(&error.code.as_ref())
            }
            ClientError::Connection { .. } | ClientError::Timeout { .. } => true,
            ClientError::Endpoint(_) => false,
        }
    }
}

/// A client of one control plane with one key. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpConnector, Full<Bytes>>,
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: String,
    host: String,
    region: String,
    credentials: Credentials,
}

impl Client {
    /// A client of the control plane at `endpoint`, `http://host:port`.
    ///
    /// # Errors
    /// For any other text.
    pub fn new(endpoint: &str, region: &str, credentials: Credentials) -> Result<Client, ClientError> {
        let bad = || ClientError::Endpoint(endpoint.to_owned());
        let endpoint = endpoint.trim_end_matches('/');
        let host = endpoint.strip_prefix("http://").filter(|host| !host.is_empty()).ok_or_else(bad)?;
        if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
            return Err(bad());
        }
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_MAX));
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        let shared = Shared {
            endpoint: endpoint.to_owned(),
            host: host.to_owned(),
            region: region.to_owned(),
            credentials,
        };
        Ok(Client { http, shared: Arc::new(shared) })
    }

    /// Calls an operation of ECS.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn ecs<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.call::<O>(ecs::SERVICE, request).await
    }

    /// Calls an operation of CloudWatch Logs.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn logs<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.call::<O>(logs::SERVICE, request).await
    }

    /// Calls an operation of Systems Manager.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn ssm<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.call::<O>(ssm::SERVICE, request).await
    }

    /// Calls an operation of Gantry's own.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn gantry<O: Operation>(&self, request: &O::Request) -> Result<O::Response, ClientError> {
        self.call::<O>(gantry::SERVICE, request).await
    }

    /// Calls an operation of a service that reads forms, with the pairs of one; the XML of its answer.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn query(
        &self,
        service: &ServiceModel,
        operation: &'static str,
        pairs: &[(&str, &str)],
    ) -> Result<String, ClientError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", operation).append_pair("Version", service.api_version).extend_pairs(pairs);
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let body = form.finish().into_bytes();
        let body = self.exchange(operation, service.signing_name, "POST", "/", &headers, body).await?;
        String::from_utf8(body.into()).map_err(|error| self.unreachable(operation, error.to_string()))
    }

    /// The same client for another region of the control plane.
    pub fn in_region(&self, region: &str) -> Client {
        let Shared { endpoint, host, credentials, .. } = self.shared.as_ref();
        let shared = Shared {
            endpoint: endpoint.clone(),
            host: host.clone(),
            region: region.to_owned(),
            credentials: credentials.clone(),
        };
        Client { http: self.http.clone(), shared: Arc::new(shared) }
    }

    /// The same client for who has these credentials.
    pub fn with_credentials(&self, credentials: Credentials) -> Client {
        let Shared { endpoint, host, region, .. } = self.shared.as_ref();
        let shared =
            Shared { endpoint: endpoint.clone(), host: host.clone(), region: region.clone(), credentials };
        Client { http: self.http.clone(), shared: Arc::new(shared) }
    }

    /// Gets a page of the control plane's own, in JSON, that is no operation of AWS's.
    ///
    /// # Errors
    /// What the control plane answers, or why it does not.
    pub async fn get<T: serde::de::DeserializeOwned>(
        &self,
        name: &'static str,
        path: &str,
    ) -> Result<T, ClientError> {
        let body = self.exchange(name, ecs::SERVICE.signing_name, "GET", path, &[], Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| self.unreachable(name, error.to_string()))
    }

    async fn call<O: Operation>(
        &self,
        service: &ServiceModel,
        request: &O::Request,
    ) -> Result<O::Response, ClientError> {
        let operation = O::NAME;
        let target = format!("{}.{operation}", service.target_prefix);
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let body = json::to_vec(request);
        let body = self.exchange(operation, service.signing_name, "POST", "/", &headers, body).await?;
        json::from_slice(&body).map_err(|error| ClientError::Api { operation, error })
    }

    /// Sends a signed request, and returns the body of its answer.
    async fn exchange(
        &self,
        operation: &'static str,
        signing_name: &str,
        method: &'static str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<Bytes, ClientError> {
        let shared = &self.shared;
        let mut headers = headers.to_vec();
        headers.push(("host", shared.host.as_str()));
        let signed = SignedRequest { method, path, query: "", headers: &headers, body: &body };
        let added = sign(&signed, &shared.credentials, &shared.region, signing_name, now());
        let mut request = Request::builder().method(method).uri(format!("{}{path}", shared.endpoint));
        for (name, value) in headers.iter().copied().chain(added.iter().map(|(n, v)| (*n, v.as_str()))) {
            request = request.header(name, value);
        }
        let unreachable = |reason: String| self.unreachable(operation, reason);
        let request = request.body(Full::new(body.into())).map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| ClientError::Connection {
                operation,
                endpoint: shared.endpoint.clone(),
                reason: explain(&error),
                refused: is_refusal(&error),
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok((status, body.map_err(|error| unreachable(error.to_string()))?.to_bytes()))
        };
        let endpoint = || shared.endpoint.clone();
        let (status, body) = timeout(CALL_MAX, exchange)
            .await
            .map_err(|_| ClientError::Timeout { operation, endpoint: endpoint() })??;
        if status != StatusCode::OK {
            return Err(ClientError::Api { operation, error: json::read_error(status.as_u16(), &body) });
        }
        Ok(body)
    }

    fn unreachable(&self, operation: &'static str, reason: String) -> ClientError {
        ClientError::Connection { operation, endpoint: self.shared.endpoint.clone(), reason, refused: false }
    }

    /// The headers that sign the upgrade of a WebSocket at a path and query of `endpoint`.
    pub fn sign_upgrade(&self, host: &str, path: &str, query: &str) -> Vec<(&'static str, String)> {
        self.sign("GET", host, path, query, &[])
    }

    /// The headers that sign a telemetry message.
    pub fn sign_message(
        &self,
        host: &str,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        self.sign("GET", host, path, query, body)
    }

    fn sign(
        &self,
        method: &str,
        host: &str,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Vec<(&'static str, String)> {
        let headers = [("host", host)];
        let request = SignedRequest { method, path, query, headers: &headers, body };
        sign(&request, &self.shared.credentials, &self.shared.region, ecs::SERVICE.signing_name, now())
    }
}

/// Whether the host is there and nothing listens.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut causes = causes.filter_map(|error| error.downcast_ref::<std::io::Error>());
    causes.any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// An error with its causes: the outermost alone says only that it failed.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn now() -> EpochMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    EpochMillis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
