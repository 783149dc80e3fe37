//! Programs beside a container's own, through Docker.

use super::api::{Created, ExecCreate, ExecStart, ExecState};
use super::client::{Client, DockerError, LOOK_MAX, START_MAX};
use super::runtime::error_of;
use crate::runtime::exec::{Exec, ExecRequest, Terminal};
use crate::runtime::{RuntimeError, Step};
use http::Method;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Bytes that wait between Docker and a reader.
const PIPE: usize = 64 << 10;
/// Bytes before each piece of output without a terminal: which output it is of, and how many follow.
const HEADER: usize = 8;
/// Between two looks whether a program runs, or what it ended with.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// From the end of a program's output to its exit code.
const EXIT_MAX: Duration = Duration::from_secs(10);
/// Words that a failed start may have.
const WORDS_MAX: u64 = 4096;

type Stream = TokioIo<Upgraded>;

/// Starts a program in a container.
pub async fn start(client: &Client, docker_id: &str, request: ExecRequest) -> Result<Exec, RuntimeError> {
    let tty = request.tty.is_some();
    let create = ExecCreate {
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: !tty,
        tty,
        cmd: &request.args,
        env: &request.env,
        user: request.user.as_deref(),
        working_dir: request.cwd.as_deref(),
    };
    let failed = |error| error_of(Step::Start, error);
    let made: Created =
        client.post(&format!("containers/{docker_id}/exec"), &create, LOOK_MAX).await.map_err(failed)?;
    let start = ExecStart { detach: false, tty };
    let stream =
        client.hijack(&format!("exec/{}/start", made.id), &start, START_MAX).await.map_err(failed)?;
    let (mut output, input) = split(TokioIo::new(stream));
    let pid = match begun(client, &made.id).await.map_err(failed)? {
        Some(pid) => pid,
        None => return Err(RuntimeError::Failed { step: Step::Start, text: words(&mut output, tty).await }),
    };
    let killer = Killer { pid: Some(pid) };
    let (own_input, typed) = duplex(PIPE);
    let (shown, own_output) = duplex(PIPE);
    let (complained, own_errors) = duplex(PIPE);
    let (drained, all_read) = oneshot::channel();
    tokio::spawn(pass_on(typed, input));
    tokio::spawn(async move {
        // A reader that has gone has no use for more; the program's end is told otherwise.
        let _ = if tty { show(output, shown).await } else { part(output, shown, complained).await };
        let _ = drained.send(());
    });
    let terminal = request.tty.map(|size| {
        let window = Window { client: client.clone(), exec: made.id.clone() };
        // One that cannot be told its size has another: nothing fails for that.
        let _ = window.resize(size.0, size.1);
        Box::new(window) as Box<dyn Terminal>
    });
    let (client, exec) = (client.clone(), made.id);
    let exit = Box::pin(async move {
        let mut killer = killer;
        // Whoever started it may have left programs that hold its output open; its own end is asked for.
        tokio::select! {
            _ = all_read => {}
            () = gone(pid) => {}
        }
        let code = exit_code(&client, &exec).await;
        killer.pid = None;
        code
    });
    Ok(Exec {
        stdin: Box::pin(own_input),
        stdout: Box::pin(own_output),
        stderr: Box::pin(own_errors),
        terminal,
        exit,
    })
}

/// Waits until a program runs or has run: its process on the host. `None` when it never did.
async fn begun(client: &Client, exec: &str) -> Result<Option<i32>, DockerError> {
    let looking = async {
        loop {
            let state: ExecState = client.get(&format!("exec/{exec}/json"), LOOK_MAX).await?;
            match state {
                ExecState { pid: 1.., .. } => return Ok(Some(state.pid)),
                ExecState { running: false, exit_code: Some(_), .. } => return Ok(None),
                _ => sleep(LOOK_EVERY).await,
            }
        }
    };
    let late = |_| DockerError::Timeout { doing: "starting a program".to_owned(), after: START_MAX };
    timeout(START_MAX, looking).await.map_err(late)?
}

/// What Docker says instead of the output of a program that cannot be started.
async fn words(output: &mut ReadHalf<Stream>, tty: bool) -> String {
    let mut text = Vec::new();
    // What has come is told, whether or not all has.
    let _ = timeout(LOOK_MAX, output.take(WORDS_MAX).read_to_end(&mut text)).await;
    let text = if tty { &text[..] } else { text.get(HEADER..).unwrap_or_default() };
    String::from_utf8_lossy(text).trim().to_owned()
}

async fn exit_code(client: &Client, exec: &str) -> Result<i32, RuntimeError> {
    let asking = async {
        loop {
            let state: ExecState = client.get(&format!("exec/{exec}/json"), LOOK_MAX).await?;
            if let ExecState { running: false, exit_code: Some(code), .. } = state {
                return Ok(code);
            }
            sleep(LOOK_EVERY).await;
        }
    };
    match timeout(EXIT_MAX, asking).await {
        Ok(result) => result.map_err(|error| error_of(Step::Start, error)),
        Err(_) => Err(RuntimeError::Timeout { seconds: EXIT_MAX.as_secs() }),
    }
}

/// Waits for the end of a process that is not ours.
async fn gone(pid: i32) {
    /// Between two looks at a process: its output tells most ends sooner.
    const EVERY: Duration = Duration::from_millis(100);
    while std::path::Path::new("/proc").join(pid.to_string()).exists() {
        sleep(EVERY).await;
    }
}

/// What is written to the program; its end is the program's end of input.
async fn pass_on(mut typed: DuplexStream, mut input: WriteHalf<Stream>) {
    // A program that reads no more takes nothing more.
    let _ = tokio::io::copy(&mut typed, &mut input).await;
    let _ = input.shutdown().await;
}

async fn show(mut output: ReadHalf<Stream>, mut shown: DuplexStream) -> io::Result<()> {
    tokio::io::copy(&mut output, &mut shown).await.map(drop)
}

/// Takes both outputs apart.
async fn part(
    mut output: ReadHalf<Stream>,
    mut shown: DuplexStream,
    mut errors: DuplexStream,
) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        match output.read_exact(&mut header).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => drop(other?),
        }
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut piece = (&mut output).take(length.into());
        let to = if header[0] == 2 { &mut errors } else { &mut shown };
        if tokio::io::copy(&mut piece, to).await.is_err() {
            // Nobody reads this one; the other goes on.
            tokio::io::copy(&mut piece, &mut tokio::io::sink()).await?;
        }
    }
}

/// Kills a program, with all it started that has not left its session, when nobody waits for its end any more. Docker
/// itself cannot do that.
struct Killer {
    pid: Option<i32>,
}

impl Drop for Killer {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            // It leads its group, as everything that runc starts. One that has gone is what is wanted.
            let _ = kill(Pid::from_raw(-pid), Signal::SIGKILL);
        }
    }
}

struct Window {
    client: Client,
    exec: String,
}

impl Terminal for Window {
    fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let (client, path) = (self.client.clone(), format!("exec/{}/resize?h={rows}&w={columns}", self.exec));
        tokio::spawn(async move {
            // A program that has just ended has no terminal any more.
            let _ = client.order(Method::POST, &path, LOOK_MAX).await;
        });
        Ok(())
    }
}
