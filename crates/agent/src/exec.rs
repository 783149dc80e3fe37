//! ECS Exec: one session's terminal, between a program in a container and the control plane's data channel.
//!
//! The program runs as root, as ECS documents, with the container's rights and limits. It ends with the session.

use crate::client::Client;
use crate::data_channel::{CLIENT_NAME, Channel, ChannelError, Heard, Payloads};
use crate::runtime::exec::{Exec, ExecRequest};
use crate::runtime::{ContainerId, Runtime, RuntimeError};
use gantry_decide::random::Random;
use gantry_wire::data_channel::{
    self, ClientAction, HandshakeComplete, HandshakeRequest, HandshakeResponse, PayloadType, SessionType,
    Size, TERMINATE_SESSION,
};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// How long a client may take to answer the handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// ECS ends a session after so long without a word from either side.
const IDLE_MAX: Duration = Duration::from_secs(20 * 60);
/// Bytes of one payload: a screenful.
const OUTPUT_BYTES: usize = 4096;
/// Bytes that may wait for a program that does not read its terminal.
const INPUT_WAITING_MAX: usize = 1 << 20;
/// The window of terminals until the client tells its own.
const SIZE: (u16, u16) = (24, 80);

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
    #[error(transparent)]
    Channel(#[from] ChannelError),
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

/// Carries one session to its end, and tells the client how it ended.
pub async fn run<R: Runtime>(
    client: &Client,
    endpoint: &str,
    runtime: &R,
    asked: Asked,
    random: Box<dyn Random + Send>,
) {
    let mut channel = match Channel::agents(client, endpoint, &asked.path, random).await {
        Ok(channel) => channel,
        Err(error) => return tracing::warn!(session = asked.session, %error, "an ECS Exec session failed"),
    };
    let end = serve(&mut channel, runtime, &asked).await;
    let reason = match &end {
        Ok(reason) => (*reason).to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::info!(session = asked.session, container = %asked.container, reason, "an ECS Exec session ended");
    channel.close(&asked.session, &reason).await;
}

/// The reason of its end, for the client; empty for the program's own.
async fn serve<R: Runtime>(
    channel: &mut Channel,
    runtime: &R,
    asked: &Asked,
) -> Result<&'static str, ExecError> {
    let client = timeout(HANDSHAKE_MAX, handshake(channel)).await.map_err(|_| ExecError::Handshake)??;
    let request = ExecRequest {
        args: shlex::split(&asked.command).filter(|args| !args.is_empty()).ok_or(ExecError::Command)?,
        env: vec!["TERM=xterm-256color".to_owned()],
        cwd: None,
        user: Some("0".to_owned()),
        tty: Some(SIZE),
    };
    let program = runtime.exec(&asked.container, request).await?;
    match terminal(channel, program).await? {
        End::Program(code) => {
            if client.starts_with(CLIENT_NAME) {
                channel.send(PayloadType::ExitCode, code.to_string().into_bytes()).await;
            }
            Ok("")
        }
        End::Client => Ok("The session was ended by the client."),
        End::Idle => Ok("Session timed out due to inactivity."),
    }
}

/// Agrees with the client on a terminal; the client's name and version.
async fn handshake(channel: &mut Channel) -> Result<String, ExecError> {
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
    channel.send_json(PayloadType::HandshakeRequest, &request).await;
    let mut buffer = Payloads::new();
    let response: HandshakeResponse = loop {
        if let Heard::Gone(_) = channel.next(None, &mut buffer).await? {
            return Err(ExecError::Handshake);
        }
        let answer = buffer.drain(..).find(|(kind, _)| *kind == PayloadType::HandshakeResponse as u32);
        if let Some((_, payload)) = answer {
            break serde_json::from_slice(&payload).map_err(|_| ExecError::Handshake)?;
        }
    };
    let took = i64::try_from(channel.age().as_nanos()).unwrap_or(i64::MAX);
    let complete = HandshakeComplete { handshake_time_to_complete: took, customer_message: String::new() };
    channel.send_json(PayloadType::HandshakeComplete, &complete).await;
    Ok(response.client_version)
}

/// Carries the terminal until the program or the client ends.
async fn terminal(channel: &mut Channel, program: Exec) -> Result<End, ExecError> {
    let Exec { mut stdin, mut stdout, terminal, mut exit, .. } = program;
    let mut output = vec![0; OUTPUT_BYTES];
    let mut input: VecDeque<u8> = VecDeque::new();
    let mut payloads = Payloads::new();
    let (mut ended, mut shown_all) = (None, false);
    let mut idle_at = Instant::now() + IDLE_MAX;
    loop {
        if let (Some(code), true) = (ended, shown_all) {
            return Ok(End::Program(code));
        }
        let waiting = input.make_contiguous();
        tokio::select! {
            read = stdout.read(&mut output), if !shown_all && channel.has_room() => match read {
                // A terminal whose last program has gone reads as an error.
                Ok(0) | Err(_) => shown_all = true,
                Ok(length) => {
                    idle_at = Instant::now() + IDLE_MAX;
                    channel.send(PayloadType::Output, output[..length].to_vec()).await;
                }
            },
            code = &mut exit, if ended.is_none() => ended = Some(code?),
            written = stdin.write(waiting), if !waiting.is_empty() => match written {
                Ok(length) => drop(input.drain(..length)),
                Err(_) => input.clear(),
            },
            heard = channel.next(Some(idle_at), &mut payloads) => {
                match heard? {
                    Heard::Something => {}
                    Heard::Idle => return Ok(End::Idle),
                    Heard::Gone(_) => return Ok(End::Client),
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

/// How a terminal came to its end.
enum End {
    Program(i32),
    Client,
    Idle,
}
