//! A client for the pull half of the OCI distribution protocol, over HTTPS (plain HTTP only to this machine).

use super::digest::Digest;
use super::reference::{DOCKER_HUB, Reference};
use super::store::StoreError;
use super::transport::{Transport, Trust, TrustError};
use crate::docker::DockerError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT,
    WWW_AUTHENTICATE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Blob stores sit one or two redirects behind the registry.
const MAX_REDIRECTS: usize = 5;
/// Until an answer's head is here.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The distribution specification's bound on manifests.
const MAX_MANIFEST: u64 = 4 << 20;
/// Token answers and error documents.
const MAX_SMALL: u64 = 1 << 20;
/// Of a registry's message that we pass on; ECS cuts a container's reason at 1,024 characters.
const MAX_MESSAGE: usize = 300;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// How to prove to a registry who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum RegistryAuth {
    Basic {
        username: String,
        password: String,
    },
    /// A token that the registry takes as it is.
    Bearer(String),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(hidden)")
    }
}

/// Why an image could not be pulled. The text is what ECS shows after `CannotPullContainerError: `.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to resolve ref {image}: manifest unknown: {image}: not found")]
    NotFound { image: Box<Reference> },
    #[error(
        "failed to resolve ref {image}: pull access denied for {repository}, repository does not exist or may require authorization: {message}"
    )]
    Denied { image: Box<Reference>, repository: String, message: String },
    #[error("failed to resolve ref {image}: toomanyrequests: {message}")]
    TooManyRequests { image: Box<Reference>, message: String },
    #[error("{what}: unexpected status from GET request to {url}: {status} {message}")]
    Status { what: &'static str, url: String, status: StatusCode, message: String },
    #[error("{what}: failed to do request: GET {url}: {reason}")]
    Connection { what: &'static str, url: String, reason: String },
    #[error("{what}: no answer from {url} within {} seconds", .after.as_secs())]
    Timeout { what: &'static str, url: String, after: Duration },
    #[error("{what}: {reason}")]
    Protocol { what: &'static str, reason: &'static str },
    #[error("image manifest does not match the host platform: no match for {platform} in {image}")]
    Platform { image: Box<Reference>, platform: String },
    #[error("failed to copy: content has digest {found}, not {expected}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("failed to copy: the registry announced {expected} bytes for {digest} and sent {found}")]
    WrongSize { digest: Digest, expected: u64, found: u64 },
    #[error("{what} has been retried {retries} time(s): {source}")]
    Retried { what: &'static str, retries: u32, source: Box<PullError> },
    #[error("failed to register layer: no space left on device: {0}")]
    NoSpace(#[source] StoreError),
    #[error("failed to register layer: {0}")]
    Store(#[source] StoreError),
    #[error("the image was not pulled within {} seconds", .limit.as_secs())]
    TooSlow { limit: Duration },
    #[error("the registry cannot be spoken to: {0}")]
    Trust(#[source] TrustError),
    #[error("the pull was interrupted")]
    Interrupted,
    #[error("Error response from daemon: {0}")]
    Docker(#[source] DockerError),
}

impl PullError {
    /// The container's reason in ECS's form: error name, colon, text; at most 1,024 characters.
    pub fn reason(&self) -> String {
        format!("CannotPullContainerError: {self}").chars().take(1024).collect()
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            PullError::Connection { .. } | PullError::Timeout { .. } | PullError::TooManyRequests { .. } => {
                true
            }
            PullError::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT
            }
            PullError::WrongDigest { .. } | PullError::WrongSize { .. } => true,
            _ => false,
        }
    }
}

impl From<StoreError> for PullError {
    fn from(error: StoreError) -> Self {
        if error.is_no_space() { PullError::NoSpace(error) } else { PullError::Store(error) }
    }
}

/// One pull's conversation with one repository: remembers what authorisation the registry asked for.
pub struct Session {
    transport: Transport,
    trust: Trust,
    image: Reference,
    auth: Option<RegistryAuth>,
    /// Between two pieces of a body: a stalled download is begun again from where it stands.
    inactivity: Duration,
    /// The `Authorization` value that the registry accepted last.
    authorization: Mutex<Option<String>>,
}

/// A body on its way.
pub struct Download {
    /// Where in the blob the body starts: what was asked for, or 0 from a server that does not resume.
    pub offset: u64,
    body: Incoming,
    url: String,
    inactivity: Duration,
}

const RESOLVE: &str = "failed to resolve ref";
const COPY: &str = "failed to copy: httpReadSeeker";
const TOKEN: &str = "failed to authorize: failed to fetch token";

impl Session {
    pub fn new(
        transport: Transport,
        trust: Trust,
        image: Reference,
        auth: Option<RegistryAuth>,
        inactivity: Duration,
    ) -> Session {
        Session { transport, trust, image, auth, inactivity, authorization: Mutex::new(None) }
    }

    /// Fetches a manifest or index by tag or digest: its bytes, which match the digest if one was given.
    pub async fn manifest(&self, selector: &str) -> Result<Vec<u8>, PullError> {
        let url = self.url("manifests", selector)?;
        let response = self.get(&url, Some(MANIFEST_TYPES), None, RESOLVE).await?;
        let bytes = self.read_body(response, MAX_MANIFEST, RESOLVE, &url).await?;
        if let Ok(expected) = selector.parse::<Digest>() {
            let found = Digest::of(&bytes);
            if found != expected {
                return Err(PullError::WrongDigest { expected, found });
            }
        }
        Ok(bytes)
    }

    /// Starts to fetch a blob from byte `offset` on.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<Download, PullError> {
        let url = self.url("blobs", &digest.to_string())?;
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.get(&url, None, range.as_deref(), COPY).await?;
        let offset = if response.status() == StatusCode::PARTIAL_CONTENT {
            let start =
                response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).and_then(range_start);
            match start {
                Some(start) if start == offset => start,
                _ => {
                    return Err(PullError::Protocol {
                        what: COPY,
                        reason: "the registry answered with another range",
                    });
                }
            }
        } else {
            0
        };
        Ok(Download { offset, body: response.into_body(), url: show_url(&url), inactivity: self.inactivity })
    }

    fn accepted(&self) -> Option<String> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn url(&self, kind: &str, selector: &str) -> Result<Uri, PullError> {
        let plain = self.image.is_loopback() || self.trust.is_plain(self.image.registry());
        let scheme = if plain { "http" } else { "https" };
        let host = match self.image.registry() {
            // Docker Hub's API lives under another name than its images do.
            DOCKER_HUB => "registry-1.docker.io",
            other => other,
        };
        let text = format!("{scheme}://{host}/v2/{}/{kind}/{selector}", self.image.repository());
        text.parse().map_err(|_| PullError::Protocol {
            what: RESOLVE,
            reason: "the reference gives no valid address",
        })
    }

    /// GET with authorisation as the registry demands it, redirects followed, and failures told apart.
    async fn get(
        &self,
        url: &Uri,
        accept: Option<&str>,
        range: Option<&str>,
        what: &'static str,
    ) -> Result<Response<Incoming>, PullError> {
        let mut response = self.follow(url, accept, range, what).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(authorization) = self.authorize(&response).await?
        {
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
            response = self.follow(url, accept, range, what).await?;
        }
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(self.failure(status, response, what, url).await),
        }
    }

    async fn follow(
        &self,
        url: &Uri,
        accept: Option<&str>,
        range: Option<&str>,
        what: &'static str,
    ) -> Result<Response<Incoming>, PullError> {
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(&at);
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            // Credentials go to the registry that asked for them, never to where it redirects.
            let same_server = at.authority() == url.authority() && at.scheme() == url.scheme();
            if let Some(authorization) = self.accepted().filter(|_| same_server) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.send(request, &at, what).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            at = redirect(&at, location).filter(|to| self.may_contact(to)).ok_or(PullError::Protocol {
                what,
                reason: "the registry redirects to where we do not go",
            })?;
        }
        Err(PullError::Protocol { what, reason: "the registry redirects too often" })
    }

    /// HTTPS anywhere; plain HTTP only where the operator allowed it, and on this machine if the registry is on it too.
    fn may_contact(&self, url: &Uri) -> bool {
        let loopback = || {
            let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
        };
        match url.scheme_str() {
            Some("https") => true,
            Some("http") => {
                let named = url.authority().is_some_and(|authority| self.trust.is_plain(authority.as_str()));
                named || self.image.is_loopback() && loopback()
            }
            _ => false,
        }
    }

    async fn send(
        &self,
        request: http::request::Builder,
        url: &Uri,
        what: &'static str,
    ) -> Result<Response<Incoming>, PullError> {
        let request = request
            .header(USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|_| PullError::Protocol { what, reason: "the request cannot be written" })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, self.transport.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                Err(PullError::Connection { what, url: show_url(url), reason: root_cause(&error) })
            }
            Err(_) => Err(PullError::Timeout { what, url: show_url(url), after: ANSWER_TIMEOUT }),
        }
    }

    /// The `Authorization` to try next, from the registry's challenge. None if there is nothing to try.
    async fn authorize(&self, response: &Response<Incoming>) -> Result<Option<String>, PullError> {
        let challenges = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        for challenge in challenges {
            let Some((scheme, parameters)) = challenge.split_once(' ') else { continue };
            if scheme.eq_ignore_ascii_case("basic") {
                return Ok(self.basic());
            }
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(RegistryAuth::Bearer(token)) = &self.auth {
                    return Ok(Some(format!("Bearer {token}")));
                }
                return self.token(parameters).await.map(Some);
            }
        }
        Ok(None)
    }

    fn basic(&self) -> Option<String> {
        match &self.auth {
            Some(RegistryAuth::Basic { username, password }) => {
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Some(RegistryAuth::Bearer(token)) => Some(format!("Bearer {token}")),
            None => None,
        }
    }

    async fn token(&self, challenge: &str) -> Result<String, PullError> {
        let realm = parameter(challenge, "realm").unwrap_or_default();
        let query = {
            let mut query = form_urlencoded::Serializer::new(String::new());
            if let Some(service) = parameter(challenge, "service") {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.image.repository())).finish()
        };
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}{query}").parse::<Uri>().ok().filter(|u| self.may_contact(u));
        let url = url.ok_or(PullError::Protocol {
            what: TOKEN,
            reason: "the registry names no usable token service",
        })?;
        let mut request = Request::get(&url);
        if let Some(basic) = self.basic() {
            request = request.header(AUTHORIZATION, basic);
        }
        let response = self.send(request, &url, TOKEN).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            return Err(self.failure(status, response, TOKEN, &url).await);
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let bytes = self.read_body(response, MAX_SMALL, TOKEN, &url).await?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|t| t.token.or(t.access_token));
        let token = token
            .ok_or(PullError::Protocol { what: TOKEN, reason: "the token service's answer has no token" })?;
        Ok(format!("Bearer {token}"))
    }

    async fn read_body(
        &self,
        response: Response<Incoming>,
        limit: u64,
        what: &'static str,
        url: &Uri,
    ) -> Result<Vec<u8>, PullError> {
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        while let Some(piece) = next_piece(&mut body, self.inactivity, what, || show_url(url)).await? {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(PullError::Protocol { what, reason: "the registry's answer is too long" });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn failure(
        &self,
        status: StatusCode,
        response: Response<Incoming>,
        what: &'static str,
        url: &Uri,
    ) -> PullError {
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
        let body = self.read_body(response, MAX_SMALL, what, url).await.unwrap_or_default();
        let mut message = if is_json { registry_message(&body) } else { String::new() };
        let image = Box::new(self.image.clone());
        match status {
            StatusCode::NOT_FOUND if what == RESOLVE => PullError::NotFound { image },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                if message.is_empty() {
                    message = status.to_string();
                }
                PullError::Denied { repository: self.image.repository().to_owned(), image, message }
            }
            StatusCode::TOO_MANY_REQUESTS => {
                if let Some(seconds) = retry_after {
                    message = format!("{message} (retry after {seconds} s)");
                }
                PullError::TooManyRequests { image, message }
            }
            _ => PullError::Status { what, url: show_url(url), status, message },
        }
    }
}

impl Download {
    /// The next piece, or none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        next_piece(&mut self.body, self.inactivity, COPY, || self.url.clone()).await
    }
}

async fn next_piece(
    body: &mut Incoming,
    inactivity: Duration,
    what: &'static str,
    url: impl Fn() -> String,
) -> Result<Option<Bytes>, PullError> {
    loop {
        match tokio::time::timeout(inactivity, body.frame()).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_) => continue,
            },
            Ok(Some(Err(error))) => {
                return Err(PullError::Connection { what, url: url(), reason: root_cause(&error) });
            }
            Ok(None) => return Ok(None),
            Err(_) => return Err(PullError::Timeout { what, url: url(), after: inactivity }),
        }
    }
}

/// The address without its query, which may hold a signature.
fn show_url(url: &Uri) -> String {
    format!(
        "{}://{}{}",
        url.scheme_str().unwrap_or("https"),
        url.authority().map_or("", |a| a.as_str()),
        url.path()
    )
}

/// The innermost cause: "connection refused" says more than "client error (Connect)".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().chars().take(MAX_MESSAGE).collect()
}

fn redirect(from: &Uri, location: &str) -> Option<Uri> {
    let to: Uri = location.parse().ok()?;
    if to.scheme().is_some() {
        return Some(to);
    }
    // A location without host stays on the server; one relative to the path does not occur in this protocol.
    let mut parts = from.clone().into_parts();
    parts.path_and_query = to.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

fn range_start(content_range: &str) -> Option<u64> {
    content_range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// A parameter of a challenge: `realm="https://...",service="..."`.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = challenge;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',']);
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = tail;
    }
    None
}

/// The messages in a registry's error document.
fn registry_message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        message: String,
    }
    let document = serde_json::from_slice(body).unwrap_or(Document { errors: Vec::new() });
    let messages: Vec<String> =
        document.errors.into_iter().map(|e| e.message).filter(|m| !m.is_empty()).collect();
    messages.join("; ").chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = r#"realm="https://auth.example/token?a=1,2",service="registry.example", scope="repository:a:pull""#;
        assert_eq!(parameter(challenge, "realm"), Some("https://auth.example/token?a=1,2"));
        assert_eq!(parameter(challenge, "SERVICE"), Some("registry.example"));
        assert_eq!(parameter(challenge, "scope"), Some("repository:a:pull"));
        assert_eq!(parameter(challenge, "error"), None);
        assert_eq!(parameter("realm=\"open", "realm"), None);
        assert_eq!(parameter("a=b,c=d", "c"), Some("d"));
    }

    #[test]
    fn redirects_stay_on_the_server_or_name_one() {
        let from: Uri = "https://r.example/v2/a/blobs/x".parse().unwrap();
        assert_eq!(redirect(&from, "/other?q=1").unwrap().to_string(), "https://r.example/other?q=1");
        assert_eq!(redirect(&from, "https://cdn.example/x").unwrap().host(), Some("cdn.example"));
        assert!(redirect(&from, "").is_none());
    }

    #[test]
    fn nobody_is_sent_from_afar_to_this_machine_in_the_clear() {
        let trust = Trust { plain: ["near.example".to_owned()].into(), ..Trust::default() };
        let session = |image: &str| {
            let transport = Transport::new(&trust).unwrap();
            Session::new(transport, trust.clone(), image.parse().unwrap(), None, Duration::from_secs(1))
        };
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert!(!session("r.example/a").may_contact(&uri("http://127.0.0.1:80/")));
        assert!(!session("r.example/a").may_contact(&uri("http://cdn.example/")));
        assert!(session("r.example/a").may_contact(&uri("https://cdn.example/")));
        assert!(session("localhost:5000/a").may_contact(&uri("http://[::1]:80/")));
        assert!(!session("localhost:5000/a").may_contact(&uri("http://cdn.example/")));
        assert!(session("near.example:5000/a").may_contact(&uri("http://near.example/token")));
        assert!(!session("near.example:5000/a").may_contact(&uri("http://127.0.0.1/")));
    }

    #[test]
    fn secrets_do_not_show() {
        let auth = RegistryAuth::Basic { username: "me".into(), password: "hunter2".into() };
        assert!(!format!("{auth:?}").contains("hunter2"));
        assert_eq!(show_url(&"https://cdn.example/x?sig=secret".parse().unwrap()), "https://cdn.example/x");
    }
}
