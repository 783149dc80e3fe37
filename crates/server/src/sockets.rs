//! WebSockets of agents: the upgrade, and a pump between one connection and whoever decides what is said on it.
//!
//! Heartbeats and what silence means are not decided here. What is: how large a message may be, how much may wait for
//! a slow peer, and that nobody waits for it.

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Bytes of one message from an agent. The largest are metrics of the tasks of one host, in batches of ten tasks.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages that may wait for one agent. It is sent a manifest and one payload per fifty tasks when it connects;
/// one that is this far behind has stopped reading.
pub const OUTGOING_MAX: usize = 256;
/// How long one message may take to be handed to the kernel.
const SEND_MAX: Duration = Duration::from_secs(10);
/// How long to wait for the other side's half of a close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What to do on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    Text(String),
    /// Close with this WebSocket code and reason.
    Close(u16, &'static str),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed, or was cut off by the network.
    ByPeer,
    /// [`Outgoing::Close`], or every [`Mailbox`] of the connection is gone.
    ByUs,
    /// The peer did not read fast enough.
    TooSlow,
    /// The peer broke the protocol or a limit.
    Violation,
}

/// A request to upgrade that is not one for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this address speaks WebSocket (version 13) only")]
pub struct NotWebSocket;

/// The 101 answer to a WebSocket upgrade.
///
/// # Errors
/// When the request is not a proper upgrade to WebSocket version 13.
pub fn accept(parts: &Parts) -> Result<crate::transport::Response, NotWebSocket> {
    let headers = &parts.headers;
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(NotWebSocket)?;
    let proper = parts.method == Method::GET
        && lists(headers, CONNECTION, "upgrade")
        && lists(headers, UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !proper {
        return Err(NotWebSocket);
    }
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| NotWebSocket)?;
    let mut response = crate::transport::Response::new(Bytes::new().into());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Ok(response)
}

/// Whether a comma-separated header names a token.
fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Where messages for one connection are put. Never blocks.
#[derive(Clone, Debug)]
pub struct Mailbox {
    queue: mpsc::Sender<Outgoing>,
    overflow: Arc<Notify>,
}

/// The connection's end of a [`Mailbox`].
#[derive(Debug)]
pub struct Outbox {
    queue: mpsc::Receiver<Outgoing>,
    overflow: Arc<Notify>,
}

/// A queue of [`OUTGOING_MAX`] messages.
pub fn mailbox() -> (Mailbox, Outbox) {
    let (sender, queue) = mpsc::channel(OUTGOING_MAX);
    let overflow = Arc::new(Notify::new());
    (Mailbox { queue: sender, overflow: Arc::clone(&overflow) }, Outbox { queue, overflow })
}

impl Mailbox {
    /// Queues a message. If the peer is too far behind, the connection is cut instead: a message left out would make
    /// both sides believe different things, a new connection starts from what is.
    pub fn send(&self, message: Outgoing) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(message) {
            self.overflow.notify_one();
        }
    }

    /// Whether nothing waits: the last message is being sent, or was.
    pub fn is_empty(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }
}

/// Carries messages both ways until the connection ends. `on_text` is awaited for each message before the next is
/// read, so that a busy receiver slows the sender down.
pub async fn run<F>(upgrade: OnUpgrade, mut outbox: Outbox, mut on_text: impl FnMut(String) -> F) -> End
where
    F: Future<Output = ()>,
{
    let Ok(upgraded) = upgrade.await else { return End::ByPeer };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        // Most messages are small, and there are thousands of connections.
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10);
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    loop {
        tokio::select! {
            // Cutting off a slow peer comes before serving it further.
            biased;
            () = outbox.overflow.notified() => return End::TooSlow,
            outgoing = outbox.queue.recv() => {
                let (message, last) = match outgoing {
                    Some(Outgoing::Text(text)) => (Message::text(text), false),
                    Some(Outgoing::Close(code, reason)) => (close(code, reason), true),
                    None => (close(u16::from(CloseCode::Away), ""), true),
                };
                match timeout(SEND_MAX, socket.send(message)).await {
                    Ok(Ok(())) if last => {
                        // Reading on completes the closing handshake.
                        let drained = async { while let Some(Ok(_)) = socket.next().await {} };
                        // A peer that does not answer has been told all the same.
                        let _ = timeout(CLOSE_MAX, drained).await;
                        return End::ByUs;
                    }
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return ended(&error),
                    Err(_) => return End::TooSlow,
                }
            }
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => on_text(text.as_str().to_owned()).await,
                Some(Ok(Message::Binary(_))) => {
                    // The agent protocol is JSON text. The peer may be gone already.
                    let refusal = close(u16::from(CloseCode::Unsupported), "text messages only");
                    let _ = timeout(CLOSE_MAX, socket.send(refusal)).await;
                    return End::Violation;
                }
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    if let Error::Capacity(_) = error {
                        let refusal = close(u16::from(CloseCode::Size), "message too large");
                        let _ = timeout(CLOSE_MAX, socket.send(refusal)).await;
                    }
                    return ended(&error);
                }
                None => return End::ByPeer,
            },
        }
    }
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}

fn ended(error: &Error) -> End {
    match error {
        Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => End::TooSlow,
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::ByPeer,
        _ => End::Violation,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::transport::{Handler, Options, Refusal, Request, Response, Transport};
    use std::sync::Mutex;
    use tokio::net::TcpStream;
    use tokio_tungstenite::client_async;

    /// Answers each text with itself; `close` closes, `flood` overflows the mailbox.
    #[derive(Default)]
    struct Echo {
        ends: Mutex<Option<mpsc::UnboundedSender<End>>>,
    }

    impl Handler for Echo {
        async fn handle(&self, request: Request) -> Response {
            let response = match accept(&request.parts) {
                Ok(response) => response,
                Err(error) => {
                    let mut response = Response::new(error.to_string().into());
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    return response;
                }
            };
            let ends = self.ends.lock().unwrap().clone().unwrap();
            let (mailbox, outbox) = mailbox();
            tokio::spawn(async move {
                let end = run(request.upgrade.unwrap(), outbox, |text| {
                    match text.as_str() {
                        "close" => mailbox.send(Outgoing::Close(1001, "heartbeats are not answered")),
                        "flood" => {
                            (0..=OUTGOING_MAX).for_each(|_| mailbox.send(Outgoing::Text(text.clone())))
                        }
                        _ => mailbox.send(Outgoing::Text(text)),
                    }
                    std::future::ready(())
                });
                ends.send(end.await).unwrap();
            });
            response
        }

        fn refuse(&self, _parts: &Parts, refusal: Refusal) -> Response {
            Response::new(format!("{refusal:?}").into())
        }
    }

    type Client = WebSocketStream<TcpStream>;

    async fn connected() -> (Transport, Client, mpsc::UnboundedReceiver<End>) {
        let (sender, ends) = mpsc::unbounded_channel();
        let handler = Arc::new(Echo { ends: Mutex::new(Some(sender)) });
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Transport::start(address, handler, Options::default()).await.unwrap();
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let (client, _) = client_async(format!("ws://{}/ws", server.address()), stream).await.unwrap();
        (server, client, ends)
    }

    #[tokio::test]
    async fn carries_text_and_closes_with_code_and_reason() {
        let (_server, mut client, mut ends) = connected().await;
        for text in ["{}", "\u{e9}", ""] {
            client.send(Message::text(text)).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(text));
        }
        client.send(Message::text("close")).await.unwrap();
        let Message::Close(Some(frame)) = client.next().await.unwrap().unwrap() else { panic!("not closed") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "heartbeats are not answered"));
        while let Some(Ok(_)) = client.next().await {}
        assert_eq!(ends.recv().await, Some(End::ByUs));
    }

    #[tokio::test]
    async fn a_peer_that_is_too_far_behind_is_cut_off() {
        let (_server, mut client, mut ends) = connected().await;
        client.send(Message::text("flood")).await.unwrap();
        assert_eq!(ends.recv().await, Some(End::TooSlow));
    }

    #[tokio::test]
    async fn a_vanished_peer_ends_the_connection() {
        let (_server, client, mut ends) = connected().await;
        drop(client);
        assert_eq!(ends.recv().await, Some(End::ByPeer));
    }

    #[tokio::test]
    async fn large_and_binary_messages_are_violations() {
        for (message, code) in
            [(Message::text("a".repeat(MESSAGE_BYTES_MAX + 1)), 1009), (Message::binary(vec![1]), 1003)]
        {
            let (_server, mut client, mut ends) = connected().await;
            // The server may close before it has taken all of it.
            let _ = client.send(message).await;
            assert_eq!(ends.recv().await, Some(End::Violation));
            if let Some(Ok(Message::Close(Some(frame)))) = client.next().await {
                assert_eq!(u16::from(frame.code), code);
            }
        }
    }

    #[test]
    fn only_proper_upgrades_are_accepted() {
        let proper = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let parts = |method: &str, leave_out: &str| {
            let mut request = http::Request::builder().method(method).uri("/ws");
            for (name, value) in proper.iter().filter(|(name, _)| *name != leave_out) {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap().into_parts().0
        };
        let response = accept(&parts("GET", "")).unwrap();
        assert_eq!(response.status(), 101);
        // The example of RFC 6455, section 1.3.
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accept(&parts("POST", "")).is_err());
        for (name, _) in proper {
            assert!(accept(&parts("GET", name)).is_err(), "without {name}");
        }
    }
}
