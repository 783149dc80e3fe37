//! The services that hold secrets, as a client: Secrets Manager, Parameter Store and S3, each at an address of its own.

use super::reference::SecretId;
use crate::images::transport::{TrustError, connector};
use gantry_wire::sigv4::{Credentials, SignedRequest, sha256_hex, sign};
use gantry_wire::{EpochMillis, Secret, json};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// For one call, as the stock agent's SDK has it for a round trip.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Tries after the first, when the service is away or asks to wait.
const RETRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(300);
/// Names that one call of Parameter Store takes.
pub const PARAMETERS_MAX: usize = 10;
/// Bytes of an answer or a file. A secret has at most 64 KiB, ten parameters 80; the kernel takes 2 MiB of variables.
const ANSWER_MAX: usize = 1 << 20;
/// What stands for itself in a path of S3.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The base address of a service: `http://host:port` or `https://host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreEndpoint {
    base: String,
    /// As the header `Host` names it.
    host: String,
}

/// Text that is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no address of a service, like https://host or http://host:port")]
pub struct InvalidEndpoint(String);

impl FromStr for StoreEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<StoreEndpoint, InvalidEndpoint> {
        let base = text.trim_end_matches('/');
        let uri: Option<Uri> = base.parse().ok();
        let plain = uri.filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none() && uri.path() == "/"
        });
        let host = plain.and_then(|uri| uri.authority().map(|authority| authority.to_string()));
        let host = host.filter(|host| !host.contains('@'));
        host.map(|host| StoreEndpoint { base: base.to_owned(), host })
            .ok_or_else(|| InvalidEndpoint(text.to_owned()))
    }
}

/// Where the services are that hold secrets and files. Those that are not named are the control plane's.
#[derive(Clone, Debug, Default)]
pub struct StoreSettings {
    pub parameter_store: Option<StoreEndpoint>,
    pub secrets_manager: Option<StoreEndpoint>,
    pub s3: Option<StoreEndpoint>,
    /// What services that are named are asked with, instead of the execution role's credentials, which are good at the
    /// control plane only.
    pub credentials: Option<Credentials>,
}

/// Why a service did not give what was asked for. Nothing of what it holds is in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{code}: {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("no answer from {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("the answer does not read")]
    Answer,
    #[error("the answer is larger than {ANSWER_MAX} bytes")]
    TooLarge,
    #[error("invalid parameters: {0}")]
    UnknownParameters(String),
    #[error("the secret has no text")]
    Binary,
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl StoreError {
    fn is_transient(&self) -> bool {
        match self {
            StoreError::Refused { status, code, .. } => *status >= 500 || code.contains("Throttl"),
            StoreError::Unreachable { .. } => true,
            _ => false,
        }
    }
}

#[derive(Clone, Copy)]
enum Service {
    ParameterStore,
    SecretsManager,
    S3,
}

impl Service {
    fn signing_name(self) -> &'static str {
        match self {
            Service::ParameterStore => "ssm",
            Service::SecretsManager => "secretsmanager",
            Service::S3 => "s3",
        }
    }
}

/// Who asks, where.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The execution role's. Without, services that are named and have no key of their own are asked without one.
    pub role: Option<&'a Credentials>,
    pub region: &'a str,
}

/// The services of one agent.
pub struct Stores {
    settings: StoreSettings,
    control_plane: String,
    /// Made with the first call: most agents never make one.
    http: OnceCell<Client<HttpsConnector<HttpConnector>, Full<Bytes>>>,
}

impl Stores {
    pub fn new(settings: StoreSettings, control_plane: &str) -> Stores {
        Stores { settings, control_plane: control_plane.to_owned(), http: OnceCell::new() }
    }

    /// The values of parameters, by name; all of them.
    ///
    /// # Errors
    /// Also when one is not there. `names` are at most [`PARAMETERS_MAX`].
    pub async fn parameters(
        &self,
        asking: Asking<'_>,
        names: &[&str],
    ) -> Result<BTreeMap<String, Secret>, StoreError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Parameter {
            name: String,
            value: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            #[serde(default)]
            parameters: Vec<Parameter>,
        }
        let request = serde_json::json!({"Names": names, "WithDecryption": true});
        let answer: Answer =
            self.operation(Service::ParameterStore, asking, "AmazonSSM.GetParameters", &request).await?;
        let found: BTreeMap<String, Secret> =
            answer.parameters.into_iter().map(|one| (one.name, Secret::new(one.value))).collect();
        let missing: Vec<&str> = names.iter().copied().filter(|name| !found.contains_key(*name)).collect();
        if missing.is_empty() { Ok(found) } else { Err(StoreError::UnknownParameters(missing.join(","))) }
    }

    /// The text of a secret.
    pub async fn secret(&self, asking: Asking<'_>, secret: &SecretId) -> Result<Secret, StoreError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Answer {
            secret_string: Option<String>,
        }
        let mut request = serde_json::json!({"SecretId": secret.arn});
        if let Some(stage) = &secret.version_stage {
            request["VersionStage"] = stage.as_str().into();
        }
        if let Some(id) = &secret.version_id {
            request["VersionId"] = id.as_str().into();
        }
        let target = "secretsmanager.GetSecretValue";
        let answer: Answer = self.operation(Service::SecretsManager, asking, target, &request).await?;
        answer.secret_string.map(Secret::new).ok_or(StoreError::Binary)
    }

    /// The bytes of an object, of its current version if none is named; asked for with the bucket in the path.
    pub async fn object(
        &self,
        asking: Asking<'_>,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        let path = format!("/{}/{}", utf8_percent_encode(bucket, PLAIN), utf8_percent_encode(key, PLAIN));
        let version =
            version.map(|version| format!("versionId={}", utf8_percent_encode(version, NON_ALPHANUMERIC)));
        let hash = sha256_hex(b"");
        let headers = [("x-amz-content-sha256", hash.as_str())];
        let target = (path.as_str(), version.as_deref().unwrap_or_default());
        self.exchange(Service::S3, asking, "GET", target, &headers, Bytes::new()).await
    }

    async fn operation<A: serde::de::DeserializeOwned>(
        &self,
        service: Service,
        asking: Asking<'_>,
        target: &str,
        request: &serde_json::Value,
    ) -> Result<A, StoreError> {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)];
        let body = Bytes::from(request.to_string());
        let answer = self.exchange(service, asking, "POST", ("/", ""), &headers, body).await?;
        // What serde says of a text may hold some of it.
        serde_json::from_slice(&answer).map_err(|_| StoreError::Answer)
    }

    /// Calls until there is an answer that will not change. `target`: the path, and the query or nothing.
    async fn exchange(
        &self,
        service: Service,
        asking: Asking<'_>,
        method: &'static str,
        target: (&str, &str),
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        let mut tries = 0;
        loop {
            match self.once(service, asking, method, target, headers, body.clone()).await {
                Err(error) if error.is_transient() && tries < RETRIES => {
                    tokio::time::sleep(PAUSE * 2_u32.pow(tries)).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn once(
        &self,
        service: Service,
        asking: Asking<'_>,
        method: &'static str,
        (path, query): (&str, &str),
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        let named = match service {
            Service::ParameterStore => &self.settings.parameter_store,
            Service::SecretsManager => &self.settings.secrets_manager,
            Service::S3 => &self.settings.s3,
        };
        let credentials = self.settings.credentials.as_ref().filter(|_| named.is_some()).or(asking.role);
        let unreachable = |endpoint: &str, reason: String| StoreError::Unreachable {
            endpoint: endpoint.to_owned(),
            reason,
        };
        let endpoint = match named {
            Some(endpoint) => endpoint.clone(),
            None => self
                .control_plane
                .parse()
                .map_err(|error: InvalidEndpoint| unreachable(&self.control_plane, error.to_string()))?,
        };
        let unreachable = |reason: String| unreachable(&endpoint.base, reason);
        let mut headers = headers.to_vec();
        headers.push(("host", &endpoint.host));
        let signed = SignedRequest { method, path, query, headers: &headers, body: &body };
        let now = EpochMillis(crate::driver::now().as_millis());
        let sign = |with| sign(&signed, with, asking.region, service.signing_name(), now);
        let added = credentials.map(sign).unwrap_or_default();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}{mark}{query}", endpoint.base));
        for (name, value) in
            headers.iter().copied().chain(added.iter().map(|(name, value)| (*name, value.as_str())))
        {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| unreachable(error.to_string()))?;
        let http = self
            .http
            .get_or_try_init(|| async {
                connector(&Default::default()).map(|c| Client::builder(TokioExecutor::new()).build(c))
            })
            .await?;
        let exchange = async {
            let answer = http.request(request).await.map_err(|error| unreachable(error.to_string()))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
                Some(_) => StoreError::TooLarge,
                None => unreachable(error.to_string()),
            });
            Ok::<_, StoreError>((status, body?.to_bytes()))
        };
        let (status, body) =
            timeout(CALL_MAX, exchange).await.map_err(|_| unreachable("timed out".to_owned()))??;
        if status == StatusCode::OK { Ok(body) } else { Err(refusal(service, status.as_u16(), &body)) }
    }
}

/// What a service answers instead: in JSON, and S3 in XML.
fn refusal(service: Service, status: u16, body: &[u8]) -> StoreError {
    let (code, message) = match service {
        Service::S3 => {
            let text = String::from_utf8_lossy(body);
            let element = |name: &str| {
                let (_, rest) = text.split_once(&format!("<{name}>"))?;
                Some(rest.split_once("</")?.0.to_owned())
            };
            (
                element("Code").unwrap_or_else(|| format!("status {status}")),
                element("Message").unwrap_or_default(),
            )
        }
        _ => {
            let error = json::read_error(status, body);
            (error.code.to_string(), error.message)
        }
    };
    StoreError::Refused { status, code, message }
}

/// A member of a secret that is a JSON object; one that is no text as it is written.
pub fn member(text: &Secret, key: &str) -> Option<Secret> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text.expose()).ok()?;
    match object.get(key)? {
        serde_json::Value::String(text) => Some(Secret::new(text.as_str())),
        other => Some(Secret::new(other.to_string())),
    }
}
