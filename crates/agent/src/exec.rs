//! ECS Exec: one session's terminal, between a program in a container and the control plane's data channel.
//!
//! The program runs as root, as ECS documents, with the container's rights and limits. It ends with the session.

use crate::channel;
use crate::client::Client;
use crate::runtime::exec::{Exec, ExecRequest};
use crate::runtime::{ContainerId, Runtime, RuntimeError};
use futures_util::{SinkExt, StreamExt};
use gantry_decide::random::Random;
use gantry_wire::data_channel::stream::{Stream, closing};
use gantry_wire::data_channel::{self};
use gantry_wire::data_channel::{
    ClientAction, HandshakeComplete, HandshakeRequest, HandshakeResponse, Kind, PayloadType, SessionType,
    Size, TERMINATE_SESSION,
};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// How long a client may take to answer the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// ECS ends a session after so long without a word from either side.
const IDLE_MAX: Duration = Duration::from_secs(20 * 60);
/// Bytes of one payload: a screenful.
const OUTPUT_BYTES: usize = 4096;
/// Bytes that may wait for a program that does not read its terminal.
const INPUT_WAITING_MAX: usize = 1 << 20;
/// How long the client may take to acknowledge the last output.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// For one message to be handed to the kernel.
const SEND_MAX: Duration = Duration::from_secs(30);
/// The window of terminals until the client tells its own.
const SIZE: (u16, u16) = (24, 80);
/// Our own clients' names begin so; they understand exit codes in terminals.
pub const CLIENT_NAME: &str = "gantry-";

/// What the control plane asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub session: String,
    /// Path of the session's data channel.
    pub path: String,
    pub container: ContainerId,
    pub command: String,
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("the data channel cannot be opened: {0}")]
    Connect(String),
    #[error("the data channel broke")]
    Channel,
    #[error("the client did not answer the handshake")]
    Handshake,
    #[error("the command has quotes that do not close, or is empty")]
    Command,
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the program does not read its input")]
    Deaf,
}

/// The path of a session of a task, which lives where its ARN says.
pub fn path(task_arn: &str, session: &str) -> Option<String> {
    let mut parts = task_arn.split(':').skip(3);
    let (region, account) = (parts.next()?, parts.next()?);
    Some(data_channel::path(account, region, session))
}

type Socket = WebSocketStream<TcpStream>;

/// Carries one session to its end, and tells the client how it ended.
pub async fn run<R: Runtime>(
    client: &Client,
    endpoint: &str,
    runtime: &R,
    asked: Asked,
    random: Box<dyn Random + Send>,
) {
    let socket = match channel::dial(client, endpoint, &asked.path, "role=agent").await {
        Ok(socket) => socket,
        Err(reason) => {
            let error = ExecError::Connect(reason);
            return tracing::warn!(session = asked.session, %error, "an ECS Exec session failed");
        }
    };
    let mut session = Session { socket, stream: Stream::new(Kind::Output), random, start: Instant::now() };
    let end = session.serve(runtime, &asked).await;
    let reason = match &end {
        Ok(reason) => (*reason).to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::info!(session = asked.session, container = %asked.container, reason, "an ECS Exec session ended");
    session.farewell(&asked.session, &reason).await;
}

struct Session {
    socket: Socket,
    stream: Stream,
    random: Box<dyn Random + Send>,
    start: Instant,
}

impl Session {
    /// The reason of its end, for the client; empty for the program's own.
    async fn serve<R: Runtime>(&mut self, runtime: &R, asked: &Asked) -> Result<&'static str, ExecError> {
        let client = timeout(HANDSHAKE_MAX, self.handshake()).await.map_err(|_| ExecError::Handshake)??;
        let request = ExecRequest {
            args: shlex::split(&asked.command).filter(|args| !args.is_empty()).ok_or(ExecError::Command)?,
            env: vec!["TERM=xterm-256color".to_owned()],
            cwd: None,
            user: Some("0".to_owned()),
            tty: Some(SIZE),
        };
        let program = runtime.exec(&asked.container, request).await?;
        match self.terminal(program).await? {
            End::Program(code) => {
                if client.starts_with(CLIENT_NAME) {
                    self.send(PayloadType::ExitCode, code.to_string().into_bytes()).await?;
                }
                Ok("")
            }
            End::Client => Ok("The session was ended by the client."),
            End::Idle => Ok("Session timed out due to inactivity."),
        }
    }

    /// Agrees with the client on a terminal; the client's name and version.
    async fn handshake(&mut self) -> Result<String, ExecError> {
        let request = HandshakeRequest {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            requested_client_actions: vec![ClientAction {
                action_type: "SessionType".to_owned(),
                action_parameters: SessionType {
                    session_type: "InteractiveCommands".to_owned(),
                    properties: serde_json::json!({}),
                },
            }],
        };
        self.send_json(PayloadType::HandshakeRequest, &request).await?;
        let mut buffer = VecDeque::new();
        let response: HandshakeResponse = loop {
            if self.next(None, &mut buffer).await? == Heard::Gone {
                return Err(ExecError::Handshake);
            }
            let answer = buffer.drain(..).find(|(kind, _)| *kind == PayloadType::HandshakeResponse as u32);
            if let Some((_, payload)) = answer {
                break serde_json::from_slice(&payload).map_err(|_| ExecError::Handshake)?;
            }
        };
        let took = i64::try_from(self.start.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let complete =
            HandshakeComplete { handshake_time_to_complete: took, customer_message: String::new() };
        self.send_json(PayloadType::HandshakeComplete, &complete).await?;
        Ok(response.client_version)
    }

    /// Carries the terminal until the program or the client ends.
    async fn terminal(&mut self, program: Exec) -> Result<End, ExecError> {
        let Exec { mut stdin, mut stdout, terminal, mut exit, .. } = program;
        let mut output = vec![0; OUTPUT_BYTES];
        let mut input: VecDeque<u8> = VecDeque::new();
        let mut payloads = VecDeque::new();
        let (mut ended, mut shown_all) = (None, false);
        let mut idle_at = Instant::now() + IDLE_MAX;
        loop {
            if let (Some(code), true) = (ended, shown_all) {
                return Ok(End::Program(code));
            }
            let waiting = input.make_contiguous();
            tokio::select! {
                read = stdout.read(&mut output), if !shown_all && self.stream.has_room() => match read {
                    // A terminal whose last program has gone reads as an error.
                    Ok(0) | Err(_) => shown_all = true,
                    Ok(length) => {
                        idle_at = Instant::now() + IDLE_MAX;
                        self.send(PayloadType::Output, output[..length].to_vec()).await?;
                    }
                },
                code = &mut exit, if ended.is_none() => ended = Some(code?),
                written = stdin.write(waiting), if !waiting.is_empty() => match written {
                    Ok(length) => drop(input.drain(..length)),
                    Err(_) => input.clear(),
                },
                heard = self.next(Some(idle_at), &mut payloads) => {
                    match heard? {
                        Heard::Something => {}
                        Heard::Idle => return Ok(End::Idle),
                        Heard::Gone => return Ok(End::Client),
                    }
                    for (kind, payload) in payloads.drain(..) {
                        idle_at = Instant::now() + IDLE_MAX;
                        match PayloadType::of(kind) {
                            Some(PayloadType::Output) => input.extend(payload),
                            Some(PayloadType::Size) => {
                                let size = serde_json::from_slice::<Size>(&payload);
                                if let (Ok(size), Some(terminal)) = (size, &terminal) {
                                    // A program that has just ended has no terminal any more.
                                    let _ = terminal.resize(size.rows, size.cols);
                                }
                            }
                            Some(PayloadType::Flag) if payload == TERMINATE_SESSION.to_be_bytes() => {
                                return Ok(End::Client);
                            }
                            _ => {}
                        }
                    }
                    if input.len() > INPUT_WAITING_MAX {
                        return Err(ExecError::Deaf);
                    }
                }
            }
        }
    }

    /// Waits for a message, and repeats what was not acknowledged. Safe to be dropped at any await: what was received is
    /// in `payloads` before the replies are sent, and those are repeated on demand.
    async fn next(
        &mut self,
        until: Option<Instant>,
        payloads: &mut VecDeque<(u32, Vec<u8>)>,
    ) -> Result<Heard, ExecError> {
        let far = Instant::now() + IDLE_MAX;
        let again = self.stream.wake_at().map_or(far, |at| self.start + at);
        tokio::select! {
            () = sleep_until(until.unwrap_or(far)) => Ok(Heard::Idle),
            () = sleep_until(again) => {
                let due = self.stream.due(self.start.elapsed()).ok_or(ExecError::Channel)?;
                for message in due {
                    self.put(message).await?;
                }
                Ok(Heard::Something)
            }
            message = self.socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let random = &mut self.random;
                    let fresh = || id(random.as_mut());
                    // What is damaged is not acknowledged, and so repeated.
                    let Ok(received) = self.stream.receive(now(), fresh, &bytes) else {
                        return Ok(Heard::Something);
                    };
                    payloads.extend(received.payloads);
                    if received.closed.is_some() {
                        return Ok(Heard::Gone);
                    }
                    for reply in received.replies {
                        self.put(reply).await?;
                    }
                    Ok(Heard::Something)
                }
                Some(Ok(Message::Close(_))) | None => Ok(Heard::Gone),
                Some(Err(_)) => Err(ExecError::Channel),
                Some(Ok(_)) => Ok(Heard::Something),
            },
        }
    }

    async fn send(&mut self, kind: PayloadType, payload: Vec<u8>) -> Result<(), ExecError> {
        let id = id(self.random.as_mut());
        let message = self.stream.send(self.start.elapsed(), now(), id, kind as u32, payload);
        self.put(message).await
    }

    async fn send_json(&mut self, kind: PayloadType, value: &impl Serialize) -> Result<(), ExecError> {
        self.send(kind, serde_json::to_vec(value).unwrap_or_default()).await
    }

    async fn put(&mut self, message: Vec<u8>) -> Result<(), ExecError> {
        let sent = timeout(SEND_MAX, self.socket.send(Message::binary(message))).await;
        sent.ok().and_then(Result::ok).ok_or(ExecError::Channel)
    }

    /// Waits until the client has all that was sent, then closes.
    async fn farewell(mut self, session: &str, reason: &str) {
        let mut payloads = VecDeque::new();
        let until = Instant::now() + FAREWELL_MAX;
        while !self.stream.is_quiet() {
            match self.next(Some(until), &mut payloads).await {
                Ok(Heard::Something) => payloads.clear(),
                Ok(Heard::Idle | Heard::Gone) | Err(_) => break,
            }
        }
        let id = id(self.random.as_mut());
        // A client that has gone does not need to hear it.
        let _ = self.put(closing(session, now(), id, reason)).await;
        let _ = timeout(SEND_MAX, self.socket.close(None)).await;
    }
}

/// How a terminal came to its end.
enum End {
    Program(i32),
    Client,
    Idle,
}

#[derive(PartialEq)]
enum Heard {
    Something,
    /// The other side has ended the session.
    Gone,
    /// The time is up.
    Idle,
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
