//! Docker Engine's HTTP API over its socket: one connection a call, bounded in time and size.
//!
//! A call is made in the version of the API that both sides know. The engine's errors come back as it words them: users
//! know its words from stopped tasks' reasons.

use super::api::{Message, Version};
use super::cgroups::NoSystemd;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// For a call that only looks.
pub const LOOK_MAX: Duration = Duration::from_secs(30);
/// To make a container: as long as the stock agent waits.
pub const CREATE_MAX: Duration = Duration::from_secs(240);
/// To start a container: as long as the stock agent waits.
pub const START_MAX: Duration = Duration::from_secs(180);
/// To kill and remove a container: its layers may be large.
pub const REMOVE_MAX: Duration = Duration::from_secs(120);
/// Bytes of an answer: a list of ten thousand containers is less.
const ANSWER_MAX: usize = 32 << 20;
/// The newest version of the API that this client was written for.
const API_NEWEST: u32 = 44;
/// The oldest: Docker 20.10, the oldest that distributions still carry.
const API_OLDEST: u32 = 41;

/// Why a call of the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// In the engine's words.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("Cannot connect to the Docker daemon at unix://{}. Is the docker daemon running?", .socket.display())]
    Unreachable {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to Docker broke off while {doing}")]
    Broken {
        doing: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("Docker did not answer within {} s while {doing}", .after.as_secs())]
    Timeout { doing: String, after: Duration },
    #[error("Docker's answer while {doing} is not what its API says")]
    Answer {
        doing: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("Docker speaks version {found} of its API; at least 1.{API_OLDEST} is needed")]
    TooOld { found: String },
    /// The daemon's `native.cgroupdriver` is `systemd`.
    #[error(
        "Docker's control groups are systemd's, which this agent cannot ask to limit tasks; run it on the host \
         itself, or Docker with native.cgroupdriver=cgroupfs"
    )]
    NoSystemd(#[from] NoSystemd),
}

impl DockerError {
    /// There is no such thing.
    pub fn is_absent(&self) -> bool {
        matches!(self, DockerError::Refused { status: StatusCode::NOT_FOUND, .. })
    }

    /// The thing is in another state, or its name is taken.
    pub fn is_conflict(&self) -> bool {
        matches!(self, DockerError::Refused { status: StatusCode::CONFLICT, .. })
    }

    /// The engine is away, or has trouble of its own: it may know better later.
    pub fn is_transient(&self) -> bool {
        match self {
            DockerError::Refused { status, .. } => status.is_server_error(),
            DockerError::Unreachable { .. } | DockerError::Broken { .. } | DockerError::Timeout { .. } => {
                true
            }
            DockerError::Answer { .. } | DockerError::TooOld { .. } | DockerError::NoSystemd(_) => false,
        }
    }
}

/// What a call sends.
pub type Body = BoxBody<Bytes, io::Error>;

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Bytes at hand.
pub fn bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// An engine at its socket. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
    /// Minor version of the API; the major one has been 1 since 2014.
    minor: u32,
    /// Of the engine.
    pub engine: Arc<str>,
}

impl Client {
    /// Finds out what the engine speaks.
    ///
    /// # Errors
    /// When nothing answers there, or it is too old.
    pub async fn connect(socket: &Path) -> Result<Client, DockerError> {
        let mut client = Client { socket: Arc::from(socket), minor: 0, engine: Arc::from("") };
        let found: Version = client.get("version", LOOK_MAX).await?;
        let too_old = || DockerError::TooOld { found: found.api_version.clone() };
        let minor: Option<u32> = found.api_version.strip_prefix("1.").and_then(|minor| minor.parse().ok());
        client.minor = minor.filter(|minor| *minor >= API_OLDEST).ok_or_else(too_old)?.min(API_NEWEST);
        client.engine = Arc::from(found.version.as_str());
        Ok(client)
    }

    /// The minor version of the API that is spoken.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, DockerError> {
        let answer = self.whole(Method::GET, path, None::<&()>, within).await?;
        read(path, &answer)
    }

    /// Sends a document and reads one.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
        within: Duration,
    ) -> Result<T, DockerError> {
        let answer = self.whole(Method::POST, path, Some(document), within).await?;
        read(path, &answer)
    }

    /// Asks for something to be done. That it is done already is no error.
    pub async fn order(&self, method: Method, path: &str, within: Duration) -> Result<(), DockerError> {
        self.whole(method, path, None::<&()>, within).await.map(drop)
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        document: Option<&impl Serialize>,
        within: Duration,
    ) -> Result<Bytes, DockerError> {
        let doing = doing(&method, path);
        let body = document.map(|document| json(path, document)).transpose()?;
        let call = async {
            let answer = self.open(method, path, body.map(|body| ("application/json", body))).await?;
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            Ok(body.map_err(broken(&doing))?.to_bytes())
        };
        bounded(&doing, within, call).await
    }

    /// Makes a call whose answer comes bit by bit. Only what the engine refuses is an error; how long the answer may
    /// take is for the caller to say.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
    ) -> Result<Response<Incoming>, DockerError> {
        self.open_with(method, path, body, &[]).await
    }

    /// The same with headers.
    pub async fn open_with(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, DockerError> {
        let answer = self.send(method.clone(), path, body, headers).await?;
        if answer.status().is_success() || answer.status().is_informational() || answer.status() == 304 {
            return Ok(answer);
        }
        let status = answer.status();
        let body = timeout(LOOK_MAX, Limited::new(answer.into_body(), ANSWER_MAX).collect()).await;
        let text =
            body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = match serde_json::from_slice::<Message>(&text) {
            Ok(Message { message }) => message,
            Err(_) => format!("{}: {status} {}", doing(&method, path), String::from_utf8_lossy(&text)),
        };
        Err(DockerError::Refused { status, message })
    }

    /// Makes a call that turns the connection into a stream of bytes both ways.
    pub async fn hijack(
        &self,
        path: &str,
        document: &impl Serialize,
        within: Duration,
    ) -> Result<Upgraded, DockerError> {
        let doing = doing(&Method::POST, path);
        let body = json(path, document)?;
        let headers = [("upgrade", "tcp"), ("connection", "Upgrade")];
        let call = async {
            let json = Some(("application/json", body));
            let answer = self.open_with(Method::POST, path, json, &headers).await?;
            hyper::upgrade::on(answer).await.map_err(broken(&doing))
        };
        bounded(&doing, within, call).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, DockerError> {
        let doing = doing(&method, path);
        let unreachable = |source| DockerError::Unreachable { socket: self.socket.to_path_buf(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken(&doing))?;
        // It ends with its answer's last byte, or when nobody reads that any more.
        tokio::spawn(connection.with_upgrades());
        let path = if self.minor == 0 { format!("/{path}") } else { format!("/v1.{}/{path}", self.minor) };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = match body {
            Some((kind, body)) => request.header(header::CONTENT_TYPE, kind).body(body),
            None => request.body(empty()),
        };
        let request = request.map_err(broken(&doing))?;
        sender.send_request(request).await.map_err(broken(&doing))
    }
}

/// What a call does, for errors: queries may hold values that say nothing to anyone.
fn doing(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default())
}

fn broken<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: &str) -> impl FnOnce(E) -> DockerError {
    let doing = doing.to_owned();
    move |source| DockerError::Broken { doing, source: source.into() }
}

/// A call that takes no longer than it may.
async fn bounded<T>(
    doing: &str,
    within: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    let late = |_| DockerError::Timeout { doing: doing.to_owned(), after: within };
    timeout(within, call).await.map_err(late)?
}

fn json(path: &str, document: &impl Serialize) -> Result<Body, DockerError> {
    let text = serde_json::to_vec(document);
    text.map(bytes).map_err(|source| DockerError::Answer { doing: path.to_owned(), source })
}

fn read<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, DockerError> {
    serde_json::from_slice(answer)
        .map_err(|source| DockerError::Answer { doing: doing(&Method::GET, path), source })
}

/// Text as a part of a query or path.
pub fn quoted(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// For tests: engines that are none.
#[cfg(test)]
pub mod fake {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};
    use tokio::sync::mpsc;

    /// An engine that gives one answer to each call, and passes on what it was asked.
    pub fn engine(answers: Vec<String>) -> (tempfile::TempDir, PathBuf, mpsc::UnboundedReceiver<String>) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (heard, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                // A test need not look.
                let _ = heard.send(request(&mut stream).await);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (directory, socket, asked)
    }

    /// A request with its body.
    async fn request(stream: &mut UnixStream) -> String {
        let mut text = String::new();
        let mut buffer = [0; 4096];
        loop {
            let length = stream.read(&mut buffer).await.unwrap();
            text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            let wanted = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let wanted = wanted.map(|(_, value)| value.trim().parse().unwrap()).next().unwrap_or(0);
            if length == 0 || body.len() >= wanted {
                return text;
            }
        }
    }

    pub fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    pub fn version(api: &str) -> String {
        answer("200 OK", &format!(r#"{{"Version":"20.10.24","ApiVersion":"{api}"}}"#))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::fake::{answer, engine, version};
    use super::*;

    #[tokio::test]
    async fn both_sides_agree_on_a_version() {
        for (api, agreed) in [("1.41", 41), ("1.99", API_NEWEST)] {
            let (_directory, socket, _) = engine(vec![version(api)]);
            let client = Client::connect(&socket).await.unwrap();
            assert_eq!((client.minor(), &*client.engine), (agreed, "20.10.24"));
        }
        let (_directory, socket, _) = engine(vec![version("1.26")]);
        assert!(matches!(Client::connect(&socket).await, Err(DockerError::TooOld { .. })));
    }

    #[tokio::test]
    async fn errors_are_in_the_engine_s_words() {
        let absent = answer("404 Not Found", r#"{"message":"No such container: x1"}"#);
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n{\"Vers".to_owned();
        let (_directory, socket, _) = engine(vec![version("1.41"), absent, cut, answer("200 OK", "{]")]);
        let client = Client::connect(&socket).await.unwrap();
        let error = client.get::<Version>("containers/x1/json", LOOK_MAX).await.unwrap_err();
        assert!(error.is_absent() && !error.is_transient());
        assert_eq!(error.to_string(), "No such container: x1");
        let error = client.get::<Version>("version", LOOK_MAX).await.unwrap_err();
        assert!(matches!(error, DockerError::Broken { .. }), "{error:?}");
        let error = client.get::<Version>("version", LOOK_MAX).await.unwrap_err();
        assert!(matches!(error, DockerError::Answer { .. }) && !error.is_transient(), "{error:?}");
        let nobody = Client::connect(Path::new("/nowhere/docker.sock")).await.unwrap_err();
        assert!(
            nobody.is_transient() && nobody.to_string().starts_with("Cannot connect to the Docker daemon")
        );
    }

    #[tokio::test]
    async fn an_engine_that_stalls_is_not_waited_for() {
        let stalls = "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n".to_owned();
        let (_directory, socket, _) = engine(vec![version("1.41"), stalls]);
        let client = Client::connect(&socket).await.unwrap();
        let within = Duration::from_millis(50);
        let error = client.get::<Version>("info?secret=x", within).await.unwrap_err();
        assert!(error.is_transient() && !error.to_string().contains("secret"), "{error}");
    }
}
