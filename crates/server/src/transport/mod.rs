//! HTTP/1.1 as this server speaks it: listeners, limits, timeouts and shutdown. Knows nothing of AWS: a [`Handler`]
//! turns complete, bounded requests into responses, and words the refusals that happen here.

mod body;
mod browser;
mod deadline;

pub use body::Body;
use deadline::WriteDeadline;
use futures_util::FutureExt;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

/// Most connections at once; further ones wait in the kernel's queue. A thousand agents hold two each, and clients
/// with pools of ten leave room for hundreds of those.
pub const CONNECTIONS_MAX: usize = 8192;
/// Bytes of a request's line and headers. AWS's own limits are lower; a session token is a few KiB.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
pub const HEADERS_MAX: usize = 100;
/// Bytes of a request's body. The largest legal ECS request, RegisterTaskDefinition, stays far below 1 MiB.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Memory that all bodies being read may take together, in units of [`BODY_UNIT`]: 256 MiB. Beyond it requests are
/// told to come back, so that many slow, large uploads cannot exhaust the host.
const BODY_UNITS_MAX: usize = 65_536;
const BODY_UNIT: usize = 4096;

/// The answer to a request. Bodies are complete, and the largest page of any operation a few MiB; or they go on.
pub type Response = http::Response<Body>;

/// Times within which a client must do its part.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the readiness for a request to the end of its headers. Also how long an idle connection is kept.
    pub head: Duration,
    /// From the end of the headers to the end of the body.
    pub body: Duration,
    /// Without taking a single byte of what we send.
    pub write: Duration,
    /// For requests being answered when the server shuts down.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // Pooled SDK connections idle for up to a minute; a body of 4 MiB in 30 s is 140 KB/s.
        Timeouts {
            head: Duration::from_secs(60),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            shutdown: Duration::from_secs(10),
        }
    }
}

/// A request that was received whole.
#[derive(Debug)]
pub struct Request {
    pub parts: Parts,
    pub body: Bytes,
    pub peer: SocketAddr,
    /// Where the client asked for another protocol (`Connection: upgrade`): resolves once the answer 101 is sent.
    pub upgrade: Option<OnUpgrade>,
}

/// Why a request was not handed to the handler, or lost in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body exceeds [`BODY_BYTES_MAX`].
    BodyTooLarge,
    /// The body did not arrive in time, or broke off.
    BodyIncomplete,
    /// Too much is being received already; the client should try again.
    Overloaded,
    /// The `Host` header is missing or names something that this server is not: a browser tricked by DNS.
    ForeignHost,
    /// The `Origin` header says that a page of another site asks.
    ForeignOrigin,
    /// The handler panicked. The panic is in the log.
    Panicked,
}

impl Refusal {
    pub fn status(self) -> http::StatusCode {
        match self {
            Refusal::BodyTooLarge => http::StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyIncomplete => http::StatusCode::REQUEST_TIMEOUT,
            Refusal::Overloaded => http::StatusCode::SERVICE_UNAVAILABLE,
            Refusal::ForeignHost | Refusal::ForeignOrigin => http::StatusCode::FORBIDDEN,
            Refusal::Panicked => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;

    /// Words a refusal in the protocol that the request seems to speak. The status is [`Refusal::status`].
    fn refuse(&self, parts: &Parts, refusal: Refusal) -> Response;
}

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub timeouts: Timeouts,
    /// Host names, beyond addresses and `localhost`, under which clients may reach this server. `*` allows all.
    pub host_names: Vec<String>,
}

/// A listening server. Dropping it begins to stop it; [`Transport::shutdown`] also waits for requests in progress.
pub struct Transport {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// Closed once the last connection is gone.
    alive: mpsc::Receiver<Infallible>,
    patience: Duration,
}

impl Transport {
    /// Listens on `address` and serves from then on. Call within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn start<H: Handler>(
        address: SocketAddr,
        handler: Arc<H>,
        options: Options,
    ) -> io::Result<Transport> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let (guard, alive) = mpsc::channel(1);
        let patience = options.timeouts.shutdown;
        let server = Arc::new(Server {
            handler,
            options,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            body_units: Semaphore::new(BODY_UNITS_MAX),
        });
        tokio::spawn(accept(listener, server, stopping, guard));
        Ok(Transport { address, stop, alive, patience })
    }

    /// The address listened on, with the port that the system chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets requests in progress finish within the configured time, and returns.
    pub async fn shutdown(mut self) {
        // Nobody listens only if everything has ended already.
        let _ = self.stop.send(true);
        if timeout(self.patience, self.alive.recv()).await.is_err() {
            tracing::warn!("connections were still busy at shutdown and are cut off");
        }
    }
}

struct Server<H> {
    handler: Arc<H>,
    options: Options,
    connections: Arc<Semaphore>,
    body_units: Semaphore,
}

async fn accept<H: Handler>(
    listener: TcpListener,
    server: Arc<Server<H>>,
    mut stopping: watch::Receiver<bool>,
    guard: mpsc::Sender<Infallible>,
) {
    loop {
        let accepted = async {
            let permit =
                Arc::clone(&server.connections).acquire_owned().await.expect("the semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            // Also when the handle is gone.
            _ = stopping.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, stopping, guard) = (Arc::clone(&server), stopping.clone(), guard.clone());
                tokio::spawn(async move {
                    serve(stream, peer, server, stopping).await;
                    drop((permit, guard));
                });
            }
            Err(error) => {
                // A connection that broke in the queue, or no file descriptors left: the latter needs time to pass.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Serves one connection until it ends.
async fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    server: Arc<Server<H>>,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are small and written whole: waiting to fill a segment only adds latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY was refused");
    }
    let timeouts = server.options.timeouts;
    let service = service_fn(|request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(WriteDeadline::new(stream, timeouts.write)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            match timeout(timeouts.shutdown, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
}

impl<H: Handler> Server<H> {
    async fn answer(&self, mut request: http::Request<Incoming>, peer: SocketAddr) -> Response {
        let upgrade =
            request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        if let Err(refusal) = browser::check(&parts, &self.options.host_names) {
            return self.refuse(&parts, refusal);
        }
        let body = match self.receive(body).await {
            Ok(body) => body,
            Err(refusal) => return self.refuse(&parts, refusal),
        };
        // For the wording only: the handler takes the parts with it when it panics.
        let spare = spare_parts(&parts);
        let handled = self.handler.handle(Request { parts, body, peer, upgrade });
        match AssertUnwindSafe(handled).catch_unwind().await {
            Ok(response) => response,
            // The panic hook has logged message and place.
            Err(_) => self.refuse(&spare, Refusal::Panicked),
        }
    }

    fn refuse(&self, parts: &Parts, refusal: Refusal) -> Response {
        let mut response = self.handler.refuse(parts, refusal);
        *response.status_mut() = refusal.status();
        if matches!(refusal, Refusal::BodyTooLarge | Refusal::BodyIncomplete | Refusal::Overloaded) {
            // The rest of the body is not read, so the connection cannot carry another request.
            response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        }
        response
    }

    /// Reads a body within its bounds of size, time and memory.
    async fn receive(&self, body: Incoming) -> Result<Bytes, Refusal> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        // A chunked body may become as long as any.
        let announced = body.size_hint().upper().unwrap_or(BODY_BYTES_MAX as u64);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > BODY_BYTES_MAX {
            return Err(Refusal::BodyTooLarge);
        }
        let units = u32::try_from(announced.div_ceil(BODY_UNIT)).map_err(|_| Refusal::BodyTooLarge)?;
        let _permit = self.body_units.try_acquire_many(units).map_err(|_| Refusal::Overloaded)?;
        match timeout(self.options.timeouts.body, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
            Ok(Err(_)) | Err(_) => Err(Refusal::BodyIncomplete),
        }
    }
}

/// Method, URI and headers again; extensions stay with the original.
fn spare_parts(parts: &Parts) -> Parts {
    let (mut spare, ()) = http::Request::new(()).into_parts();
    spare.method = parts.method.clone();
    spare.uri = parts.uri.clone();
    spare.headers = parts.headers.clone();
    spare
}

#[cfg(test)]
mod tests;
