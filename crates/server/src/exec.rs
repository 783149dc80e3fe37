//! ECS Exec's data channels: brings together who asked for a session and the container's agent, and carries what they
//! say. Both connect here; neither can reach the other by itself. A side whose connection broke may come again for a while,
//! and the session goes on: nothing is kept here of what was said, since each side says again what the other has not
//! acknowledged.

use crate::endpoint::Caller;
use crate::os::{self, OsRandom};
use crate::sockets;
use crate::transport::Response;
use crate::writer::Inbox;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use gantry_control::call::{self, Demand};
use gantry_control::engine::Input;
use gantry_control::services::ecs::links::ExecNews;
use gantry_control::services::ecs::state::ExecSession;
use gantry_control::tx::View;
use gantry_decide::ids::{ExecSessionId, Scope};
use gantry_decide::random::Random;
use gantry_wire::ApiError;
use gantry_wire::data_channel::{self, Kind, OpenDataChannel, stream, token_digest};
use http::request::Parts;
use hyper::body::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Sessions at once: ECS's limit for one container, and far more than people at terminals.
const SESSIONS_MAX: usize = 1_000;
/// Bytes of one message: a payload and its header.
const MESSAGE_MAX: usize = data_channel::PAYLOAD_MAX + 4096;
/// How long the first side waits for the other.
const MEET_MAX: Duration = Duration::from_secs(20);
/// How long a side whose connection broke may take to come again, unless the operator says otherwise: Session Manager's
/// plug-in tries for up to ten seconds.
pub const RETURN_MAX: Duration = Duration::from_secs(30);
/// No deadline: far enough away.
const FAR: Duration = Duration::from_secs(24 * 3600);
/// Sides of one session that come at the same moment.
const ARRIVALS_MAX: usize = 4;
/// Messages that wait for one side: as many as a side says before it waits for an acknowledgment.
const WAITING_MAX: usize = 64;
/// How long a client may take to show its token.
const TOKEN_MAX: Duration = Duration::from_secs(10);
/// How long one message may take to be handed to the kernel.
const SEND_MAX: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Shows a token in its first message.
    Client,
    /// Signs its request with an agent's key.
    Agent,
}

/// A request for one session's channel, by its path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub scope: Scope,
    id: ExecSessionId,
    side: Side,
}

impl Asked {
    /// `None` for paths of others.
    pub fn read(path: &str, query: &str) -> Option<Asked> {
        let mut parts = path.strip_prefix(data_channel::PATH)?.strip_prefix('/')?.split('/');
        let scope = Scope { account: parts.next()?.parse().ok()?, region: parts.next()?.parse().ok()? };
        let id = parts.next()?.parse().ok()?;
        let of_agent =
            form_urlencoded::parse(query.as_bytes()).any(|pair| pair == ("role".into(), "agent".into()));
        let side = if of_agent { Side::Agent } else { Side::Client };
        parts.next().is_none().then_some(Asked { scope, id, side })
    }

    /// Whether the request has to be signed.
    pub fn is_agents(&self) -> bool {
        self.side == Side::Agent
    }
}

/// Where what becomes of sessions is told.
pub type News = Inbox<Input>;

/// The sessions whose first side has come.
pub struct DataChannels {
    /// How long a side whose connection broke may take to come again.
    returns_within: Duration,
    open: Mutex<HashMap<ExecSessionId, mpsc::Sender<Arrival>>>,
}

/// A side that has come, or come again.
struct Arrival {
    side: Side,
    /// The digest of the client's token; of an agent none.
    token: Option<String>,
    socket: Socket,
}

impl DataChannels {
    pub fn new(returns_within: Duration) -> DataChannels {
        DataChannels { returns_within, open: Mutex::default() }
    }

    /// Answers one side's upgrade, and carries the session once both are there.
    ///
    /// # Errors
    /// When there is no such session, or who asks may not take part.
    pub fn accept(
        self: &Arc<Self>,
        view: View<'_>,
        news: &News,
        caller: Option<&Caller>,
        asked: &Asked,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        let session = view.state.ecs.exec_sessions.get(&asked.id).ok_or_else(|| {
            let message =
                "There is no such session, or it was not opened in time. Execute the command again.";
            ApiError::new("InvalidParameterException", message)
        })?;
        if let Some(caller) = caller {
            permit(caller, view, session)?;
        }
        let response = sockets::accept(parts)
            .map_err(|error| ApiError::new("BadRequestException", error.to_string()))?;
        let (channels, news, asked) = (Arc::clone(self), news.clone(), asked.clone());
        let digest = session.token_digest.clone();
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_MAX))
                .max_frame_size(Some(MESSAGE_MAX));
            let mut socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            if asked.side == Side::Client && !shows(&mut socket, &digest).await {
                tracing::warn!(session = %asked.id, "a data channel was opened without its token");
                return end(socket, asked.id, "The session's token is not valid.").await;
            }
            let token = (asked.side == Side::Client).then_some(digest);
            channels.meet(&news, asked, token, socket).await;
        });
        Ok(response)
    }

    /// Brings a side to the other, or waits with the first.
    async fn meet(self: &Arc<Self>, news: &News, asked: Asked, token: Option<String>, socket: Socket) {
        let Asked { scope, id, side } = asked;
        let arrival = Arrival { side, token, socket };
        let refused = {
            let mut open = self.open.lock();
            match open.get(&id) {
                Some(session) => session.try_send(arrival).err().map(TrySendError::into_inner),
                None if open.len() >= SESSIONS_MAX => Some(arrival),
                None => {
                    let (arrivals, inbox) = mpsc::channel(ARRIVALS_MAX);
                    open.insert(id, arrivals);
                    let (channels, news) = (Arc::clone(self), news.clone());
                    tokio::spawn(async move {
                        let session = Session::begin(id, channels.returns_within, arrival);
                        channels.carry(session, scope, inbox, &news).await;
                    });
                    None
                }
            }
        };
        if let Some(arrival) = refused {
            end(arrival.socket, id, "The session has just ended, or too many are open.").await;
        }
    }

    /// Carries a session to its end.
    async fn carry(
        &self,
        mut session: Session,
        scope: Scope,
        mut arrivals: mpsc::Receiver<Arrival>,
        news: &News,
    ) {
        let id = session.id;
        let mut told = false;
        while session.next(&mut arrivals).await {
            if session.began && !told {
                told = true;
                tracing::info!(session = %id, "an ECS Exec session begins");
                let input = Input::ExecSession { scope: scope.clone(), id, news: ExecNews::Opened };
                // A writer that has ended has no use for it.
                let _ = news.hand_over(input).await;
            }
        }
        self.open.lock().remove(&id);
        session.end().await;
        // Who came at the last moment.
        while let Ok(arrival) = arrivals.try_recv() {
            end(arrival.socket, id, "The session has ended.").await;
        }
        if told {
            tracing::info!(session = %id, "an ECS Exec session has ended");
            let _ = news.hand_over(Input::ExecSession { scope, id, news: ExecNews::Ended }).await;
        }
    }
}

/// One session, which lasts beyond the connections of its sides.
struct Session {
    id: ExecSessionId,
    returns_within: Duration,
    client: End,
    agent: End,
    /// Both sides have been there.
    began: bool,
    /// The digest of the token that the client showed last: each is good for one connection.
    token: Option<String>,
    /// What ends the session, for each side that is there.
    last_words: Option<Vec<u8>>,
}

/// One side's connection, as far as it is there.
struct End {
    connection: Option<Connection>,
    /// Since when it is not.
    since: Instant,
}

struct Connection {
    reader: SplitStream<Socket>,
    /// To a task of its own, so that a side that reads slowly holds nobody up. What finds no room is said again by who
    /// said it.
    writer: mpsc::Sender<Message>,
    writing: JoinHandle<()>,
}

impl Connection {
    fn new(socket: Socket) -> Connection {
        let (sink, reader) = socket.split();
        let (writer, queue) = mpsc::channel(WAITING_MAX);
        Connection { reader, writer, writing: tokio::spawn(write(queue, sink)) }
    }

    /// Says the last word, and closes.
    async fn close(self, last_words: Option<Vec<u8>>) {
        if let Some(words) = last_words {
            let _ = timeout(SEND_MAX, self.writer.send(Message::binary(words))).await;
        }
        drop(self.writer);
        // It closes the connection when all is said.
        let _ = timeout(SEND_MAX, self.writing).await;
    }
}

async fn write(mut queue: mpsc::Receiver<Message>, mut sink: SplitSink<Socket, Message>) {
    while let Some(message) = queue.recv().await {
        if !matches!(timeout(SEND_MAX, sink.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = timeout(SEND_MAX, sink.close()).await;
}

impl End {
    /// What its side says next; None when it has gone. Never, while it is not there.
    async fn next(&mut self) -> Option<Message> {
        let Some(connection) = &mut self.connection else { return std::future::pending().await };
        tokio::select! {
            () = connection.writer.closed() => None,
            message = connection.reader.next() => match message {
                Some(Ok(message)) if !message.is_close() => Some(message),
                _ => None,
            },
        }
    }

    fn say(&self, bytes: Bytes) {
        if let Some(connection) = &self.connection {
            // See `Connection::writer`.
            let _ = connection.writer.try_send(Message::Binary(bytes));
        }
    }
}

/// What may happen next in a session.
enum Event {
    Arrived(Option<Box<Arrival>>),
    Said(Side, Option<Message>),
    /// A side did not come, or come again, in time.
    Missing(Side),
}

impl Session {
    fn begin(id: ExecSessionId, returns_within: Duration, first: Arrival) -> Session {
        let absent = || End { connection: None, since: Instant::now() };
        let (client, agent) = (absent(), absent());
        let mut session =
            Session { id, returns_within, client, agent, began: false, token: None, last_words: None };
        session.arrive(first);
        session
    }

    /// Takes the next step. False once the session is over.
    async fn next(&mut self, arrivals: &mut mpsc::Receiver<Arrival>) -> bool {
        let (missing, until) = self.missing();
        let event = tokio::select! {
            arrival = arrivals.recv() => Event::Arrived(arrival.map(Box::new)),
            said = self.client.next() => Event::Said(Side::Client, said),
            said = self.agent.next() => Event::Said(Side::Agent, said),
            () = sleep_until(until) => Event::Missing(missing),
        };
        match event {
            Event::Arrived(Some(arrival)) => self.arrive(*arrival),
            Event::Arrived(None) => return false,
            Event::Said(side, Some(Message::Binary(bytes))) => {
                if Kind::of(&bytes) == Some(Kind::ChannelClosed) {
                    return self.over(bytes.to_vec());
                }
                self.other(side).say(bytes);
            }
            // Pings are answered by the library, and there is no text but the first.
            Event::Said(_, Some(_)) => {}
            Event::Said(side, None) => self.leave(side),
            Event::Missing(side) => {
                let reason = match (side, self.began) {
                    (Side::Client, true) => "The client has gone.",
                    (Side::Client, false) => "Nobody opened the session.",
                    (Side::Agent, true) => "The container's agent has gone.",
                    (Side::Agent, false) => "The container's agent did not answer.",
                };
                return self.over(closing(self.id, reason));
            }
        }
        true
    }

    /// Who is waited for, and until when.
    fn missing(&self) -> (Side, Instant) {
        let within = if self.began { self.returns_within } else { MEET_MAX };
        let absent = |end: &End| end.connection.is_none().then_some(end.since + within);
        match (absent(&self.client), absent(&self.agent)) {
            (Some(client), Some(agent)) if agent < client => (Side::Agent, agent),
            (Some(client), _) => (Side::Client, client),
            (None, Some(agent)) => (Side::Agent, agent),
            (None, None) => (Side::Client, Instant::now() + FAR),
        }
    }

    fn over(&mut self, last_words: Vec<u8>) -> bool {
        self.last_words = Some(last_words);
        false
    }

    fn end_of(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Agent => &mut self.agent,
        }
    }

    fn other(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.agent,
            Side::Agent => &self.client,
        }
    }

    fn arrive(&mut self, Arrival { side, token, socket }: Arrival) {
        if side == Side::Client {
            if self.token == token {
                tokio::spawn(end(socket, self.id, "The session is open already."));
                return;
            }
            self.token = token;
        }
        // An older connection, whose end nobody noticed, goes without a word.
        self.end_of(side).connection = Some(Connection::new(socket));
        self.began |= self.client.connection.is_some() && self.agent.connection.is_some();
        self.tell_agent();
    }

    fn leave(&mut self, side: Side) {
        let end = self.end_of(side);
        end.connection = None;
        end.since = Instant::now();
        if side == Side::Client {
            self.tell_agent();
        }
    }

    /// The agent keeps what its program shows for a client that has gone for a while.
    fn tell_agent(&self) {
        let presence = stream::presence(now(), message_id(), self.client.connection.is_some());
        if self.began {
            self.agent.say(presence.into());
        }
    }

    async fn end(self) {
        let Session { client, agent, last_words, .. } = self;
        let [client, agent] = [client, agent].map(|end| async {
            if let Some(connection) = end.connection {
                connection.close(last_words.clone()).await;
            }
        });
        tokio::join!(client, agent);
    }
}

fn permit(caller: &Caller, view: View<'_>, session: &ExecSession) -> Result<(), ApiError> {
    let instance = view.state.ecs.task(&session.task).and_then(|task| task.instance.as_ref());
    let arn = instance.map_or("*".to_owned(), |instance| instance.arn(view.scope).to_string());
    if caller.scope != *view.scope {
        return Err(ApiError::new(
            "AccessDeniedException",
            "The session belongs to another account or region.",
        ));
    }
    call::permit(caller, &Demand::on("ecs:Poll", arn))
}

/// Whether the client's first message shows the session's token.
async fn shows(socket: &mut Socket, digest: &str) -> bool {
    let Ok(Some(Ok(Message::Text(text)))) = timeout(TOKEN_MAX, socket.next()).await else { return false };
    let Ok(opening) = serde_json::from_str::<OpenDataChannel>(&text) else { return false };
    token_digest(&opening.token_value).as_bytes().ct_eq(digest.as_bytes()).into()
}

async fn end(mut socket: Socket, id: ExecSessionId, reason: &str) {
    // A peer that has gone does not need to hear it.
    let _ = timeout(SEND_MAX, socket.send(Message::binary(closing(id, reason)))).await;
    let _ = timeout(SEND_MAX, socket.close(None)).await;
}

fn closing(id: ExecSessionId, reason: &str) -> Vec<u8> {
    stream::closing(&id.to_string(), now(), message_id(), reason)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(os::now().as_millis()).unwrap_or(0)
}

fn message_id() -> [u8; 16] {
    let mut id = [0; 16];
    OsRandom.fill(&mut id);
    id
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_name_a_session_and_a_side() {
        let id = "ecs-execute-command-00112233445566778899aabbccddeeff";
        let path = data_channel::path("123456789012", "eu-north-1", id);
        let client = Asked::read(&path, "role=publish_subscribe").unwrap();
        assert_eq!((client.id.to_string().as_str(), client.is_agents()), (id, false));
        assert!(Asked::read(&path, "role=agent").unwrap().is_agents());
        for wrong in
            ["/v1/data-channel", "/v1/data-channel/1/x/y", "/v1/data-channels/a", &format!("{path}/x")]
        {
            assert_eq!(Asked::read(wrong, ""), None, "{wrong}");
        }
    }
}
