//! One end of an ECS Exec session's data channel, over WebSockets: the agent's, and that of `gantry exec`. When a connection
//! breaks another one is made, and the session goes on where it was.

use crate::channel::{self, DialError};
use crate::client::Client;
use crate::protocol::backoff::{Backoff, Growth};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt};
use gantry_decide::random::Random;
use gantry_wire::Secret;
use gantry_wire::data_channel::stream::{Stream, closing};
use gantry_wire::data_channel::{Kind, OpenDataChannel, PayloadType};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long the other side may take to acknowledge the last output.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// The same of one that has gone for a while: it may come again for less.
const FAREWELL_ABSENT_MAX: Duration = Duration::from_secs(60);
/// How long a control plane may be away, as one that is started again, before a session ends.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// For a connection to be made.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// For one message to be handed to the kernel.
const SEND_MAX: Duration = Duration::from_secs(30);
/// No deadline: far enough away.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// Our own clients' versions begin so; they understand exit codes in terminals.
pub const CLIENT_NAME: &str = "gantry-";

/// Payloads whose turn has come, each with the number of its type.
pub type Payloads = VecDeque<(u32, Vec<u8>)>;

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the data channel cannot be opened: {0}")]
    Connect(DialError),
    /// The session has ended meanwhile.
    #[error("the session has ended")]
    Over,
    #[error("the data channel broke")]
    Broken,
}

/// What a wait brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// Perhaps payloads.
    Something,
    /// The other side has ended the session, in these words; none for an ordinary end.
    Gone(String),
    /// The time is up.
    Idle,
}

type Socket = WebSocketStream<TcpStream>;
/// Makes a connection, once more each time.
type Dial = Box<dyn Fn() -> BoxFuture<'static, Result<Socket, ChannelError>> + Send>;

/// Where a client's session is, and the token that opens it.
#[derive(Clone)]
pub struct Address {
    /// `ws://host:port/path?query`.
    pub url: String,
    pub token: Secret,
}

/// Asks where to come again, and by which token; [`ChannelError::Over`] for a session that has ended.
pub type Resume = Box<dyn Fn() -> BoxFuture<'static, Result<Address, ChannelError>> + Send>;

pub struct Channel {
    link: Link,
    dial: Dial,
    stream: Stream,
    random: Box<dyn Random + Send>,
    /// The stream's time counts from here.
    start: Instant,
    /// Whether the other side is there, as who carries the session says.
    is_peer_there: bool,
}

/// The connection of the moment.
enum Link {
    Up(Box<Socket>),
    /// It broke then; another is being made, after a pause that grows.
    Down {
        since: Instant,
        backoff: Backoff,
        next: BoxFuture<'static, Result<Socket, ChannelError>>,
    },
}

/// Pauses between tries of a connection: at once, then up to two seconds.
const GROWTH: Growth =
    Growth { first: Duration::from_millis(100), longest: Duration::from_secs(2), tenths: 15 };

impl Channel {
    /// The container's end, for an agent that proves itself with its key. `path` is that of the session.
    ///
    /// # Errors
    /// When the control plane refuses, or is not reached.
    pub async fn agents(
        client: &Client,
        endpoint: &str,
        path: &str,
        random: Box<dyn Random + Send>,
    ) -> Result<Channel, ChannelError> {
        let (client, endpoint, path) = (client.clone(), endpoint.to_owned(), path.to_owned());
        let dial: Dial = Box::new(move || {
            let (client, endpoint, path) = (client.clone(), endpoint.clone(), path.clone());
            async move {
                let socket = channel::dial(Some(&client), &endpoint, &path, "role=agent").await;
                socket.map_err(ChannelError::Connect)
            }
            .boxed()
        });
        Ok(Channel::open(bounded(dial()).await?, dial, Kind::Output, random))
    }

    /// The end of who asked for the session, and was told its address and its token.
    ///
    /// # Errors
    /// When the control plane refuses, or is not reached.
    pub async fn clients(
        address: &Address,
        resume: Resume,
        random: Box<dyn Random + Send>,
    ) -> Result<Channel, ChannelError> {
        let dial: Dial = Box::new(move || {
            let address = resume();
            async move { connect(&address.await?).await }.boxed()
        });
        Ok(Channel::open(connect(address).await?, dial, Kind::Input, random))
    }

    fn open(socket: Socket, dial: Dial, kind: Kind, random: Box<dyn Random + Send>) -> Channel {
        let (link, stream, start) = (Link::Up(Box::new(socket)), Stream::new(kind), Instant::now());
        Channel { link, dial, stream, random, start, is_peer_there: true }
    }

    /// Whether more output may be sent.
    pub fn has_room(&self) -> bool {
        self.stream.has_room()
    }

    /// Since the channel was opened.
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits for a message, and repeats what was not acknowledged. Safe to be dropped at any await: what was received is
    /// in `payloads` before the replies are sent, and those are repeated on demand.
    ///
    /// # Errors
    /// When the other side cannot be reached any more.
    pub async fn next(
        &mut self,
        until: Option<Instant>,
        payloads: &mut Payloads,
    ) -> Result<Heard, ChannelError> {
        let far = Instant::now() + FAR;
        let until = until.unwrap_or(far);
        match &mut self.link {
            Link::Down { since, next, .. } => {
                let given_up = *since + AWAY_MAX;
                tokio::select! {
                    () = sleep_until(until) => Ok(Heard::Idle),
                    () = sleep_until(given_up) => Err(ChannelError::Broken),
                    made = next => {
                        self.made(made)?;
                        Ok(Heard::Something)
                    }
                }
            }
            Link::Up(socket) => {
                let again = self.stream.wake_at().map_or(far, |at| self.start + at);
                tokio::select! {
                    () = sleep_until(until) => Ok(Heard::Idle),
                    () = sleep_until(again) => {
                        let due = self.stream.due(self.start.elapsed()).ok_or(ChannelError::Broken)?;
                        for message in due {
                            self.write(Message::binary(message)).await;
                        }
                        Ok(Heard::Something)
                    }
                    message = socket.next() => match message {
                        Some(Ok(Message::Binary(bytes))) => self.receive(&bytes, payloads).await,
                        Some(Ok(Message::Close(_)) | Err(_)) | None => {
                            self.lost();
                            Ok(Heard::Something)
                        }
                        Some(Ok(_)) => Ok(Heard::Something),
                    },
                }
            }
        }
    }

    /// The connection broke: another one is made at once.
    fn lost(&mut self) {
        self.link =
            Link::Down { since: Instant::now(), backoff: Backoff::new(GROWTH), next: bounded((self.dial)()) };
    }

    /// A connection was made, or could not be.
    fn made(&mut self, made: Result<Socket, ChannelError>) -> Result<(), ChannelError> {
        match (made, &mut self.link) {
            (Ok(socket), _) => {
                self.link = Link::Up(Box::new(socket));
                self.stream.again(self.start.elapsed());
                Ok(())
            }
            (Err(ChannelError::Connect(error)), Link::Down { backoff, next, .. }) if !is_final(&error) => {
                let (pause, dialled) = (backoff.pause(self.random.as_mut()), bounded((self.dial)()));
                *next = async move {
                    sleep(pause).await;
                    dialled.await
                }
                .boxed();
                Ok(())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn receive(&mut self, bytes: &[u8], payloads: &mut Payloads) -> Result<Heard, ChannelError> {
        let random = &mut self.random;
        let fresh = || id(random.as_mut());
        // What is damaged is not acknowledged, and so repeated.
        let Ok(received) = self.stream.receive(now(), fresh, bytes) else {
            return Ok(Heard::Something);
        };
        payloads.extend(received.payloads);
        if let Some(is_there) = received.present {
            if is_there && !self.is_peer_there {
                self.stream.again(self.start.elapsed());
            }
            self.is_peer_there = is_there;
        }
        if let Some(reason) = received.closed {
            return Ok(Heard::Gone(reason));
        }
        for reply in received.replies {
            self.write(Message::binary(reply)).await;
        }
        Ok(Heard::Something)
    }

    /// Sends a payload, again and again until it is acknowledged.
    pub async fn send(&mut self, kind: PayloadType, payload: Vec<u8>) {
        let id = self.id();
        let message = self.stream.send(self.start.elapsed(), now(), id, kind as u32, payload);
        self.write(Message::binary(message)).await;
    }

    /// Sends a payload in JSON.
    pub async fn send_json(&mut self, kind: PayloadType, value: &impl Serialize) {
        self.send(kind, serde_json::to_vec(value).unwrap_or_default()).await;
    }

    /// Waits until the other side has all that was sent, then tells it why the session ends.
    pub async fn close(mut self, session: &str, reason: &str) {
        let mut payloads = Payloads::new();
        let begun = Instant::now();
        while !self.stream.is_quiet() {
            // Who is to come again shall see the rest.
            let is_there = self.is_peer_there && matches!(self.link, Link::Up(_));
            let until = begun + if is_there { FAREWELL_MAX } else { FAREWELL_ABSENT_MAX };
            match self.next(Some(until), &mut payloads).await {
                Ok(Heard::Something) => payloads.clear(),
                Ok(Heard::Idle | Heard::Gone(_)) | Err(_) => break,
            }
        }
        let message = closing(session, now(), self.id(), reason);
        // Who has gone does not need to hear it.
        self.write(Message::binary(message)).await;
        if let Link::Up(socket) = &mut self.link {
            let _ = timeout(SEND_MAX, Socket::close(socket, None)).await;
        }
    }

    /// What cannot be said now is said again when there is a connection: it is not acknowledged.
    async fn write(&mut self, message: Message) {
        if let Link::Up(socket) = &mut self.link
            && !matches!(timeout(SEND_MAX, socket.send(message)).await, Ok(Ok(())))
        {
            self.lost();
        }
    }

    fn id(&mut self) -> [u8; 16] {
        id(self.random.as_mut())
    }
}

/// Connects to a session as its client, and shows the token.
async fn connect(address: &Address) -> Result<Socket, ChannelError> {
    let url = address.url.replacen("ws", "http", 1);
    let (origin, target) = channel::split(&url).map_err(|reason| ChannelError::Connect(reason.into()))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut socket = channel::dial(None, origin, path, query).await.map_err(ChannelError::Connect)?;
    let id = faster_hex::hex_string(&rand::random::<[u8; 16]>());
    let open = OpenDataChannel {
        message_schema_version: "1.0".to_owned(),
        request_id: id.clone(),
        token_value: address.token.expose().to_owned(),
        client_id: id,
        client_version: client_version(),
    };
    let failed = |reason: String| ChannelError::Connect(reason.into());
    let text = serde_json::to_string(&open).map_err(|error| failed(error.to_string()))?;
    let sent = timeout(SEND_MAX, socket.send(Message::text(text))).await;
    sent.map_err(|_| failed("the control plane does not read".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    Ok(socket)
}

/// Whether who was asked knows no such session any more, or will not have the caller.
fn is_final(error: &DialError) -> bool {
    matches!(error, DialError::Refused { status, .. } if status.is_client_error())
}

fn bounded(
    dialled: BoxFuture<'static, Result<Socket, ChannelError>>,
) -> BoxFuture<'static, Result<Socket, ChannelError>> {
    let late = || ChannelError::Connect("the connection was not established in time".to_owned().into());
    async move { timeout(CONNECT_MAX, dialled).await.unwrap_or_else(|_| Err(late())) }.boxed()
}

/// Name and version of our own clients.
pub fn client_version() -> String {
    format!("{CLIENT_NAME}{}", env!("CARGO_PKG_VERSION"))
}

fn id(random: &mut dyn Random) -> [u8; 16] {
    let mut id = [0; 16];
    random.fill(&mut id);
    id
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}
