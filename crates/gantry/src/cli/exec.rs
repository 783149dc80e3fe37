//! `gantry exec`: a command in a running container, at this terminal. What `aws ecs execute-command` does with AWS's
//! Session Manager plugin, without the plugin, and with the command's exit code.

use crate::api::{Api, ApiArgs, last};
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::data_channel::{Address, Channel, ChannelError, Heard, Payloads, Resume, client_version};
use gantry_api::{ecs, ssm};
use gantry_server::os::OsRandom;
use gantry_wire::data_channel::{
    HandshakeRequest, HandshakeResponse, PayloadType, ProcessedAction, Size, TERMINATE_SESSION,
};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write, stderr, stdin, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long the container's agent may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(60);
/// Bytes of standard input in one message.
const INPUT_BYTES: usize = 1024;
/// End of transmission: what a terminal takes for the end of its input, at the beginning of a line.
const END_OF_INPUT: u8 = 4;
/// What a shell gives for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Run a command in a running container, at this terminal
///
/// The task must have been run, or its service made, with --enable-execute-command. The command's exit code becomes
/// that of `gantry exec`. Ctrl-C and all other keys go to the command.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Task id, its first characters, or its ARN
    task: String,
    /// Container of the task; needed where it has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", default_value = "/bin/sh")]
    command: Vec<String>,
    #[command(flatten)]
    api: ApiArgs,
}

pub fn run(arguments: &ExecArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(execute(arguments))
}

async fn execute(arguments: &ExecArgs) -> Result<ExitCode> {
    let command = shlex::try_join(arguments.command.iter().map(String::as_str))
        .context("the command has a NUL character")?;
    let api = arguments.api.connect()?;
    let task = api.running_task(&arguments.task).await?;
    let request = ecs::ExecuteCommandRequest {
        cluster: task.split('/').nth(1).map(str::to_owned),
        container: arguments.container.clone(),
        command,
        interactive: true,
        task: last(&task).to_owned(),
    };
    let session = api.call::<ecs::ExecuteCommand>(request).await?.session.unwrap_or_default();
    let (Some(url), Some(token)) = (&session.stream_url, &session.token_value) else {
        bail!("the answer to ExecuteCommand names no session");
    };
    let address = Address { url: url.clone(), token: token.clone() };
    let resume = resume(Arc::new(api), session.session_id.clone().unwrap_or_default());
    let channel = Channel::clients(&address, resume, Box::new(OsRandom)).await?;
    let mut terminal = Terminal { channel, raw: None, exit_code: None };
    let ended = terminal.serve().await?;
    let Terminal { channel, raw, exit_code } = terminal;
    drop(raw);
    match (ended, exit_code) {
        (Ended::Here, _) => {
            channel.close(session.session_id.as_deref().unwrap_or_default(), "").await;
            Ok(ExitCode::from(INTERRUPTED))
        }
        (Ended::There(_), Some(code)) => Ok(ExitCode::from(code)),
        (Ended::There(reason), None) if !reason.is_empty() => bail!("{reason}"),
        (Ended::There(_), None) => bail!("the session broke off: the task may have stopped"),
    }
}

/// Asks where the session is after its connection broke, as AWS's plug-in does.
fn resume(api: Arc<Api>, session_id: String) -> Resume {
    Box::new(move || {
        let (api, session_id) = (Arc::clone(&api), session_id.clone());
        Box::pin(async move {
            let asked = api.ssm::<ssm::ResumeSession>(&ssm::ResumeSessionRequest { session_id }).await;
            let answer = asked.map_err(|error| ChannelError::Connect(error.to_string().into()))?;
            let (url, token) = answer.stream_url.zip(answer.token_value).ok_or(ChannelError::Over)?;
            Ok(Address { url, token })
        })
    })
}

/// Which side ended a session.
enum Ended {
    Here,
    There(String),
}

struct Terminal {
    channel: Channel,
    /// While the command runs, where standard input is a terminal.
    raw: Option<RawMode>,
    exit_code: Option<u8>,
}

impl Terminal {
    async fn serve(&mut self) -> Result<Ended> {
        let mut resized = signal(SignalKind::window_change())?;
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut payloads = Payloads::new();
        let mut input = None;
        let begin_until = Instant::now() + BEGIN_MAX;
        loop {
            let until = input.is_none().then_some(begin_until);
            tokio::select! {
                heard = self.channel.next(until, &mut payloads) => {
                    let heard = heard?;
                    for (kind, payload) in std::mem::take(&mut payloads) {
                        if self.take(kind, &payload).await? {
                            input = Some(self.begin().await?);
                        }
                    }
                    match heard {
                        Heard::Something => {}
                        Heard::Gone(reason) => return Ok(Ended::There(reason)),
                        Heard::Idle => bail!("the container's agent did not begin within {} s", BEGIN_MAX.as_secs()),
                    }
                }
                typed = typed(&mut input), if self.channel.has_room() => {
                    self.channel.send(PayloadType::Output, typed).await;
                }
                Some(()) = resized.recv(), if input.is_some() => self.tell_size().await?,
                () = either(&mut interrupted, &mut terminated) => {
                    let flag = TERMINATE_SESSION.to_be_bytes().to_vec();
                    self.channel.send(PayloadType::Flag, flag).await;
                    return Ok(Ended::Here);
                }
            }
        }
    }

    /// Takes a payload of the other side. True for the one after which the command runs.
    async fn take(&mut self, kind: u32, payload: &[u8]) -> Result<bool> {
        match PayloadType::of(kind) {
            Some(PayloadType::HandshakeRequest) => {
                let request: HandshakeRequest =
                    serde_json::from_slice(payload).context("the agent's handshake is not to be read")?;
                self.channel.send_json(PayloadType::HandshakeResponse, &agree(request)).await;
            }
            Some(PayloadType::HandshakeComplete) => return Ok(true),
            Some(PayloadType::Output) => show(stdout(), payload)?,
            Some(PayloadType::StdErr) => show(stderr(), payload)?,
            Some(PayloadType::ExitCode) => {
                self.exit_code = std::str::from_utf8(payload).ok().and_then(|code| code.parse().ok());
            }
            Some(PayloadType::HandshakeResponse | PayloadType::Size | PayloadType::Flag) | None => {}
        }
        Ok(false)
    }

    /// Hands the keyboard over.
    async fn begin(&mut self) -> Result<mpsc::Receiver<Vec<u8>>> {
        self.tell_size().await?;
        self.raw = RawMode::enter()?;
        Ok(read_input(self.raw.is_some())?)
    }

    async fn tell_size(&mut self) -> Result<()> {
        let window = [tcgetwinsize(stdin()), tcgetwinsize(stdout())].into_iter().flatten().next();
        if let Some(window) = window.filter(|window| window.ws_col > 0) {
            let size = Size { cols: window.ws_col, rows: window.ws_row };
            self.channel.send_json(PayloadType::Size, &size).await;
        }
        Ok(())
    }
}

/// Says yes to a terminal, and that anything else is not known.
fn agree(request: HandshakeRequest) -> HandshakeResponse {
    let processed = |action: gantry_wire::data_channel::ClientAction| {
        let is_terminal = action.action_parameters.session_type == "InteractiveCommands";
        ProcessedAction {
            action_type: action.action_type,
            action_status: if is_terminal { 1 } else { 3 },
            error: String::new(),
        }
    };
    HandshakeResponse {
        client_version: client_version(),
        processed_client_actions: request.requested_client_actions.into_iter().map(processed).collect(),
        errors: None,
    }
}

fn show(mut out: impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write what the command shows")
}

/// What was typed next; never, before there is a keyboard and after its end.
async fn typed(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Vec<u8> {
    if let Some(typed) = match input {
        Some(input) => input.recv().await,
        None => None,
    } {
        return typed;
    }
    std::future::pending().await
}

async fn either(a: &mut Signal, b: &mut Signal) {
    tokio::select! {
        _ = a.recv() => {}
        _ = b.recv() => {}
    }
}

/// Reads standard input on a thread of its own, which ends with the process: a read of a terminal cannot be called off.
fn read_input(is_terminal: bool) -> std::io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    let read = move || {
        let mut buffer = [0; INPUT_BYTES];
        let mut last = b'\n';
        while let Ok(length @ 1..) = stdin().read(&mut buffer) {
            last = buffer[length - 1];
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
        if !is_terminal {
            // Within a line, the first one only ends the line.
            let times = if last == b'\n' { 1 } else { 2 };
            let _ = sender.blocking_send(vec![END_OF_INPUT; times]);
        }
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// A terminal that hands every key on; as it was before when dropped.
struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` where standard input is no terminal.
    fn enter() -> Result<Option<RawMode>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        let before = tcgetattr(stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Some(RawMode { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
