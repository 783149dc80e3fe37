//! ECS Exec's data channels: brings together who asked for a session and the container's agent, and carries what they
//! say. Both connect here; neither can reach the other by itself.

use crate::endpoint::Caller;
use crate::os::{self, OsRandom};
use crate::sockets;
use crate::transport::Response;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use gantry_control::call::{self, Demand};
use gantry_control::services::ecs::state::ExecSession;
use gantry_control::tx::View;
use gantry_decide::ids::{ExecSessionId, Scope};
use gantry_decide::random::Random;
use gantry_wire::ApiError;
use gantry_wire::data_channel::{self, OpenDataChannel, stream, token_digest};
use http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Sessions at once: ECS's limit for one container, and far more than people at terminals.
const SESSIONS_MAX: usize = 1_000;
/// Bytes of one message: a payload and its header.
const MESSAGE_MAX: usize = data_channel::PAYLOAD_MAX + 4096;
/// How long the first side waits for the other.
const MEET_MAX: Duration = Duration::from_secs(20);
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

/// The sessions whose first side has come.
#[derive(Default)]
pub struct DataChannels {
    waiting: Mutex<HashMap<ExecSessionId, (Side, oneshot::Sender<Socket>)>>,
}

impl DataChannels {
    /// Answers one side's upgrade, and carries the session once both are there.
    ///
    /// # Errors
    /// When there is no such session, or who asks may not take part.
    pub fn accept(
        self: &Arc<Self>,
        view: View<'_>,
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
        let (channels, asked) = (Arc::clone(self), asked.clone());
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
            channels.meet(asked.id, asked.side, socket).await;
        });
        Ok(response)
    }

    /// The first side waits here, the second hands itself over.
    async fn meet(&self, id: ExecSessionId, side: Side, socket: Socket) {
        let receiver = {
            let mut waiting = self.waiting.lock();
            match waiting.remove(&id) {
                Some((other, first)) if other != side => {
                    // The first side may have given up in this instant; then both are closed.
                    let _ = first.send(socket);
                    return;
                }
                Some(known) => {
                    waiting.insert(id, known);
                    None
                }
                None if waiting.len() >= SESSIONS_MAX => None,
                None => {
                    let (sender, receiver) = oneshot::channel();
                    waiting.insert(id, (side, sender));
                    Some(receiver)
                }
            }
        };
        let Some(receiver) = receiver else {
            return end(socket, id, "The session is open already, or too many are.").await;
        };
        let met = timeout(MEET_MAX, receiver).await;
        self.waiting.lock().remove(&id);
        let Ok(Ok(other)) = met else {
            let missing = match side {
                Side::Client => "The container's agent did not answer.",
                Side::Agent => "Nobody opened the session.",
            };
            return end(socket, id, missing).await;
        };
        let (client, agent) = if side == Side::Client { (socket, other) } else { (other, socket) };
        tracing::info!(session = %id, "an ECS Exec session begins");
        carry(id, client, agent).await;
        tracing::info!(session = %id, "an ECS Exec session has ended");
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

/// Carries messages both ways until one side is gone, and tells the other.
async fn carry(id: ExecSessionId, client: Socket, agent: Socket) {
    let (mut to_client, from_client) = client.split();
    let (mut to_agent, from_agent) = agent.split();
    let gone = tokio::select! {
        () = pump(from_client, &mut to_agent) => Side::Client,
        () = pump(from_agent, &mut to_client) => Side::Agent,
    };
    // The end is told in the channel's own terms; who said so itself has been heard already and ignores it.
    let (left, reason) = match gone {
        Side::Client => (&mut to_agent, "The client has gone."),
        Side::Agent => (&mut to_client, ""),
    };
    let _ = timeout(SEND_MAX, left.send(Message::binary(closing(id, reason)))).await;
    let _ = timeout(SEND_MAX, to_client.close()).await;
    let _ = timeout(SEND_MAX, to_agent.close()).await;
}

async fn pump(
    mut from: impl Stream<Item = Result<Message, Error>> + Unpin,
    to: &mut (impl Sink<Message, Error = Error> + Unpin),
) {
    while let Some(Ok(message)) = from.next().await {
        if message.is_close() {
            return;
        }
        // Pings are answered by the library.
        let is_said = message.is_binary() || message.is_text();
        if is_said && !matches!(timeout(SEND_MAX, to.send(message)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn end(mut socket: Socket, id: ExecSessionId, reason: &str) {
    // A peer that has gone does not need to hear it.
    let _ = timeout(SEND_MAX, socket.send(Message::binary(closing(id, reason)))).await;
    let _ = timeout(SEND_MAX, socket.close(None)).await;
}

fn closing(id: ExecSessionId, reason: &str) -> Vec<u8> {
    let mut message_id = [0; 16];
    OsRandom.fill(&mut message_id);
    let now = u64::try_from(os::now().as_millis()).unwrap_or(0);
    stream::closing(&id.to_string(), now, message_id, reason)
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
