//! A WebSocket to the control plane, kept open: connected, signed, read with a limit on silence, connected again with
//! growing pauses.

use crate::client::{Client, ClientError};
use crate::lease::Lease;
use crate::protocol::backoff::{Backoff, Growth};
use futures_util::{SinkExt, StreamExt};
use gantry_decide::random::Random;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// For dialling and the handshake.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Silence after which the connection counts as dead; a random part of as much comes on top.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The age at which a connection is replaced; a random part of [`AGE_SPREAD`] comes on top.
const AGE_MAX: Duration = Duration::from_secs(30 * 60);
const AGE_SPREAD: Duration = Duration::from_secs(5 * 60);
/// A connection that lasted this long starts the pauses anew.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// How long a deregistered agent waits before it asks again.
const INACTIVE_PAUSE: Duration = Duration::from_secs(3600);
/// Bytes of one message: the control plane puts at most fifty tasks in one.
const MESSAGE_MAX: usize = 16 << 20;
/// For one message to be handed to the kernel.
const SEND_MAX: Duration = Duration::from_secs(30);

/// Where and how to connect.
pub struct Target {
    /// Base URL, `http://host:port/path`, as DiscoverPollEndpoint tells it.
    pub base: String,
    /// Encoded, sorted by name.
    pub query: String,
    pub growth: Growth,
}

/// What happens on a channel.
pub enum Incoming {
    Connected,
    Text(String),
}

/// Why no WebSocket was made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// With the beginning of the answer.
    #[error("refused with status {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("{0}")]
    Failed(String),
}

impl From<String> for DialError {
    fn from(reason: String) -> Self {
        DialError::Failed(reason)
    }
}

/// How a connection came to an end.
enum End {
    /// In order, or by age: the next one follows at once.
    Orderly,
    Broken(String),
    /// The instance is deregistered.
    Inactive,
    /// Nobody is interested any more.
    Abandoned,
}

/// Keeps a connection open until the receiver of `incoming` goes away. `target` is asked before each attempt; whether it
/// is the first connection is told to it. Messages that wait in `outgoing` while there is no connection are dropped:
/// the protocol says everything anew on a new one.
pub async fn keep<F, T>(
    name: &'static str,
    client: Client,
    lease: Option<Lease>,
    mut random: Box<dyn Random + Send>,
    mut target: T,
    incoming: mpsc::Sender<Incoming>,
    mut outgoing: mpsc::Receiver<String>,
) where
    T: FnMut(bool) -> F,
    F: Future<Output = Result<Target, ClientError>>,
{
    let mut first = true;
    let mut backoff: Option<Backoff> = None;
    loop {
        if let Some(lease) = &lease {
            lease.dial().await;
        }
        let start = Instant::now();
        let (end, growth) = match target(first).await {
            Err(error) => {
                if let (Some(lease), true) = (&lease, error.is_refused()) {
                    lease.refused();
                }
                (End::Broken(error.to_string()), Growth::of_acs(lease.is_some()))
            }
            Ok(target) => {
                let parts = (&incoming, &mut outgoing, lease.as_ref());
                let end = connection(&client, &target, random.as_mut(), parts, &mut first).await;
                (end, target.growth)
            }
        };
        if start.elapsed() > STEADY_AFTER {
            backoff = None;
        }
        let pause = match end {
            End::Abandoned => return,
            End::Orderly => {
                backoff = None;
                Duration::ZERO
            }
            End::Inactive => {
                tracing::warn!(channel = name, "the container instance is deregistered");
                INACTIVE_PAUSE
            }
            End::Broken(reason) => {
                let pause = backoff.get_or_insert_with(|| Backoff::new(growth)).pause(random.as_mut());
                tracing::warn!(channel = name, reason, ?pause, "the connection to the control plane is lost");
                pause
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = incoming.closed() => return,
        }
        while outgoing.try_recv().is_ok() {}
    }
}

async fn connection(
    client: &Client,
    target: &Target,
    random: &mut (dyn Random + Send),
    (incoming, outgoing, lease): (&mpsc::Sender<Incoming>, &mut mpsc::Receiver<String>, Option<&Lease>),
    first: &mut bool,
) -> End {
    let mut socket = match timeout(CONNECT_MAX, connect(client, target)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(end)) => return end,
        Err(_) => return End::Broken("the connection was not established in time".to_owned()),
    };
    *first = false;
    if incoming.send(Incoming::Connected).await.is_err() {
        return End::Abandoned;
    }
    let spread = |random: &mut (dyn Random + Send), most: Duration| {
        Duration::from_millis(random.below(most.as_millis() as usize + 1) as u64)
    };
    let expires = Instant::now() + AGE_MAX + spread(random, AGE_SPREAD);
    let mut silent_until = Instant::now() + SILENCE_MAX + spread(random, SILENCE_MAX);
    let mut renew_at = Instant::now() + lease.map_or(AGE_MAX, Lease::renew_every);
    loop {
        tokio::select! {
            message = timeout_at(silent_until, socket.next()) => {
                silent_until = Instant::now() + SILENCE_MAX + spread(random, SILENCE_MAX);
                match message {
                    Err(_) => return End::Broken("the control plane is silent".to_owned()),
                    Ok(None) => return End::Orderly,
                    Ok(Some(Err(error))) => return lost(&error),
                    Ok(Some(Ok(Message::Text(text)))) => {
                        if lease.is_some_and(|lease| lease.hears(text.as_str())) {
                            continue;
                        }
                        if incoming.send(Incoming::Text(text.as_str().to_owned())).await.is_err() {
                            return End::Abandoned;
                        }
                    }
                    Ok(Some(Ok(Message::Close(frame)))) => {
                        // The library has answered; 1000, 1001 and 1011 are how an orderly server goes.
                        let code = frame.map_or(1000, |frame| u16::from(frame.code));
                        return if [1000, 1001, 1011].contains(&code) {
                            End::Orderly
                        } else {
                            End::Broken(format!("closed with code {code}"))
                        };
                    }
                    Ok(Some(Ok(_))) => {}
                }
            }
            text = outgoing.recv() => {
                let Some(text) = text else { return End::Abandoned };
                match timeout(SEND_MAX, socket.send(Message::text(text))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return lost(&error),
                    Err(_) => return End::Broken("the control plane does not read".to_owned()),
                }
            }
            () = tokio::time::sleep_until(renew_at), if lease.is_some() => {
                let Some(lease) = lease else { continue };
                // After a pause of the process one request says as much as those that were left out.
                renew_at = Instant::now() + lease.renew_every();
                let text = lease.ask(false);
                match timeout(SEND_MAX, socket.send(Message::text(text))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return lost(&error),
                    Err(_) => return End::Broken("the control plane does not read".to_owned()),
                }
            }
            () = over(lease) => return End::Broken("the lease is over".to_owned()),
            () = tokio::time::sleep_until(expires) => {
                // A peer that does not hear it finds out by itself.
                let _ = timeout(SEND_MAX, socket.close(None)).await;
                return End::Orderly;
            }
            () = incoming.closed() => {
                let _ = timeout(SEND_MAX, socket.close(None)).await;
                return End::Abandoned;
            }
        }
    }
}

/// Resolves when a lease is over.
async fn over(lease: Option<&Lease>) {
    match lease {
        Some(lease) => lease.over().await,
        None => std::future::pending().await,
    }
}

/// A connection that ended without a word counts as orderly: its process has died, and another may be there.
fn lost(error: &Error) -> End {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => End::Orderly,
        Error::Protocol(_) => End::Orderly,
        other => End::Broken(other.to_string()),
    }
}

async fn connect(client: &Client, target: &Target) -> Result<WebSocketStream<TcpStream>, End> {
    let (origin, path) = split(&target.base).map_err(End::Broken)?;
    let path = format!("/{}/ws", path.trim_matches('/'));
    dial(Some(client), origin, &path, &target.query).await.map_err(|error| match error {
        DialError::Refused { text, .. } if text.contains("InactiveInstanceException") => End::Inactive,
        error => End::Broken(error.to_string()),
    })
}

/// The origin and the path of an address.
pub fn split(base: &str) -> Result<(&str, &str), String> {
    let scheme = "http://";
    let rest = base.strip_prefix(scheme).ok_or_else(|| format!("'{base}' is no {scheme} address"))?;
    let host = rest.find('/').unwrap_or(rest.len());
    Ok(base.split_at(scheme.len() + host))
}

/// Opens a WebSocket to a path of `origin`, `http://host:port`, with a request that `client` signs, if any.
///
/// # Errors
/// When it is refused, or the other side is not reached.
pub async fn dial(
    client: Option<&Client>,
    origin: &str,
    path: &str,
    query: &str,
) -> Result<WebSocketStream<TcpStream>, DialError> {
    let (origin, _) = split(origin)?;
    let host = &origin["http://".len()..];
    let address = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let stream = TcpStream::connect(&address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let uri = format!("ws://{host}{path}?{query}");
    let mut request: Request<()> = uri.into_client_request().map_err(|error| error.to_string())?;
    for (name, value) in client.map(|client| client.sign_upgrade(host, path, query)).into_iter().flatten() {
        if let Ok(value) = HeaderValue::from_str(&value) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let text = String::from_utf8_lossy(body).chars().take(500).collect::<String>();
            Err(DialError::Refused { status: response.status(), text })
        }
        Err(error) => Err(error.to_string().into()),
    }
}
