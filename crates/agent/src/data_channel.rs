//! One end of an ECS Exec session's data channel, over a WebSocket: the agent's, and that of `gantry exec`.

use crate::channel;
use crate::client::Client;
use futures_util::{SinkExt, StreamExt};
use gantry_decide::random::Random;
use gantry_wire::data_channel::stream::{Stream, closing};
use gantry_wire::data_channel::{Kind, OpenDataChannel, PayloadType};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long the other side may take to acknowledge the last output.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
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
    Connect(String),
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

pub struct Channel {
    socket: WebSocketStream<TcpStream>,
    stream: Stream,
    random: Box<dyn Random + Send>,
    /// The stream's time counts from here.
    start: Instant,
}

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
        let socket = channel::dial(Some(client), endpoint, path, "role=agent").await;
        let socket = socket.map_err(ChannelError::Connect)?;
        Ok(Channel { socket, stream: Stream::new(Kind::Output), random, start: Instant::now() })
    }

    /// The end of who asked for the session, and was told its address, `ws://host:port/path?query`, and its token.
    ///
    /// # Errors
    /// When the control plane refuses, or is not reached.
    pub async fn clients(
        stream_url: &str,
        token: &str,
        random: Box<dyn Random + Send>,
    ) -> Result<Channel, ChannelError> {
        let connect = |reason: &str| ChannelError::Connect(reason.to_owned());
        let url = stream_url.replacen("ws", "http", 1);
        let (origin, target) = channel::split(&url).map_err(ChannelError::Connect)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let socket = channel::dial(None, origin, path, query).await.map_err(ChannelError::Connect)?;
        let mut channel = Channel { socket, stream: Stream::new(Kind::Input), random, start: Instant::now() };
        let id = faster_hex::hex_string(&channel.id());
        let open = OpenDataChannel {
            message_schema_version: "1.0".to_owned(),
            request_id: id.clone(),
            token_value: token.to_owned(),
            client_id: id,
            client_version: client_version(),
        };
        let text = serde_json::to_string(&open).map_err(|_| connect("the token is no text"))?;
        channel.write(Message::text(text)).await?;
        Ok(channel)
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
        let again = self.stream.wake_at().map_or(far, |at| self.start + at);
        tokio::select! {
            () = sleep_until(until.unwrap_or(far)) => Ok(Heard::Idle),
            () = sleep_until(again) => {
                let due = self.stream.due(self.start.elapsed()).ok_or(ChannelError::Broken)?;
                for message in due {
                    self.write(Message::binary(message)).await?;
                }
                Ok(Heard::Something)
            }
            message = self.socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => self.receive(&bytes, payloads).await,
                Some(Ok(Message::Close(_))) | None => Ok(Heard::Gone(String::new())),
                Some(Err(_)) => Err(ChannelError::Broken),
                Some(Ok(_)) => Ok(Heard::Something),
            },
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
        if let Some(reason) = received.closed {
            return Ok(Heard::Gone(reason));
        }
        for reply in received.replies {
            self.write(Message::binary(reply)).await?;
        }
        Ok(Heard::Something)
    }

    /// Sends a payload, again and again until it is acknowledged.
    ///
    /// # Errors
    /// When the other side cannot be reached any more.
    pub async fn send(&mut self, kind: PayloadType, payload: Vec<u8>) -> Result<(), ChannelError> {
        let id = self.id();
        let message = self.stream.send(self.start.elapsed(), now(), id, kind as u32, payload);
        self.write(Message::binary(message)).await
    }

    /// Sends a payload in JSON.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_json(&mut self, kind: PayloadType, value: &impl Serialize) -> Result<(), ChannelError> {
        self.send(kind, serde_json::to_vec(value).unwrap_or_default()).await
    }

    /// Waits until the other side has all that was sent, then tells it why the session ends.
    pub async fn close(mut self, session: &str, reason: &str) {
        let mut payloads = Payloads::new();
        let until = Instant::now() + FAREWELL_MAX;
        while !self.stream.is_quiet() {
            match self.next(Some(until), &mut payloads).await {
                Ok(Heard::Something) => payloads.clear(),
                Ok(Heard::Idle | Heard::Gone(_)) | Err(_) => break,
            }
        }
        let message = closing(session, now(), self.id(), reason);
        // Who has gone does not need to hear it.
        let _ = self.write(Message::binary(message)).await;
        let _ = timeout(SEND_MAX, self.socket.close(None)).await;
    }

    async fn write(&mut self, message: Message) -> Result<(), ChannelError> {
        let sent = timeout(SEND_MAX, self.socket.send(message)).await;
        sent.ok().and_then(Result::ok).ok_or(ChannelError::Broken)
    }

    fn id(&mut self) -> [u8; 16] {
        id(self.random.as_mut())
    }
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
