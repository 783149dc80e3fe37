//! Programs that run beside a container's own: health checks, and what users execute.

use super::RuntimeError;
use super::native::START_MAX;
use super::shims::Shims;
use crate::shim::orders::{Order, Report};
use crate::shim::resize_terminal;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::future::Future;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// What to run. It has the container's capabilities, limits and view.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExecRequest {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`, beside the container's own, over those of the same name.
    pub env: Vec<String>,
    /// The container's when `None`.
    pub cwd: Option<String>,
    /// `user[:group]` as in the container's configuration; the container's when `None`.
    pub user: Option<String>,
    /// Its input and outputs are one terminal of this many rows and columns.
    pub tty: Option<(u16, u16)>,
}

/// The terminal of a program.
pub trait Terminal: Send + Sync {
    /// Tells the program that its window has changed.
    ///
    /// # Errors
    /// When the terminal is gone.
    fn resize(&self, rows: u16, columns: u16) -> io::Result<()>;
}

pub type Input = Pin<Box<dyn AsyncWrite + Send>>;
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// A program that runs. Outputs that nobody reads stop it sooner or later, as pipes do.
pub struct Exec {
    /// Dropping it is the end of the program's input, unless there is a terminal.
    pub stdin: Input,
    /// With a terminal, all that it shows.
    pub stdout: Output,
    /// Empty with a terminal.
    pub stderr: Output,
    pub terminal: Option<Box<dyn Terminal>>,
    /// Its exit code, 128 and more for a signal. Dropped early, the program is killed with all it started that has not
    /// left its session.
    pub exit: Pin<Box<dyn Future<Output = Result<i32, RuntimeError>> + Send>>,
}

/// Runs a program in the container of a directory.
pub(super) async fn start(
    shims: &Shims,
    directory: PathBuf,
    request: ExecRequest,
) -> Result<Exec, RuntimeError> {
    let tty = request.tty.is_some();
    let failed = || RuntimeError::io("making the program's input and outputs");
    let mut pipes = Vec::new();
    if !tty {
        for _ in 0..3 {
            pipes.push(io::pipe().map_err(failed())?);
        }
    }
    let order = Order::Exec { directory, request };
    let mut line = match pipes.as_slice() {
        [stdin, stdout, stderr] => {
            let fds = [stdin.0.as_raw_fd(), stdout.1.as_raw_fd(), stderr.1.as_raw_fd()];
            shims.order(&order, &fds).await?
        }
        _ => shims.order(&order, &[]).await?,
    };
    let heard = timeout(START_MAX, line.hear()).await;
    let terminal = match heard.map_err(|_| RuntimeError::Timeout { seconds: START_MAX.as_secs() })?? {
        Some((Report::Executing, mut fds)) => fds.pop(),
        Some((Report::Failed { step, text }, _)) => return Err(RuntimeError::Failed { step, text }),
        _ => return Err(RuntimeError::Silent),
    };
    let exit = Box::pin(async move {
        match line.hear().await? {
            Some((Report::Ended(code), _)) => Ok(code),
            Some((Report::Failed { step, text }, _)) => Err(RuntimeError::Failed { step, text }),
            _ => Err(RuntimeError::Silent),
        }
    });
    let mut ends = pipes.into_iter();
    match (terminal, ends.next(), ends.next(), ends.next()) {
        (Some(terminal), ..) if tty => {
            let copy = || terminal.try_clone().and_then(Shown::new);
            Ok(Exec {
                stdin: Box::pin(copy().map_err(failed())?),
                stdout: Box::pin(copy().map_err(failed())?),
                stderr: Box::pin(tokio::io::empty()),
                terminal: Some(Box::new(Window(terminal.try_clone().map_err(failed())?))),
                exit,
            })
        }
        (_, Some(stdin), Some(stdout), Some(stderr)) => {
            let output = |pipe: PipeReader| pipe::Receiver::from_owned_fd(pipe.into());
            Ok(Exec {
                stdin: Box::pin(pipe::Sender::from_owned_fd(stdin.1.into()).map_err(failed())?),
                stdout: Box::pin(output(stdout.0).map_err(failed())?),
                stderr: Box::pin(output(stderr.0).map_err(failed())?),
                terminal: None,
                exit,
            })
        }
        _ => Err(RuntimeError::Silent),
    }
}

/// Our end of a terminal.
struct Window(OwnedFd);

impl Terminal for Window {
    fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        resize_terminal(&self.0, (rows, columns))
    }
}

/// What is typed into a terminal and what it shows.
struct Shown(AsyncFd<File>);

impl Shown {
    fn new(terminal: OwnedFd) -> io::Result<Shown> {
        let flags = OFlag::from_bits_retain(fcntl(&terminal, FcntlArg::F_GETFL)?);
        fcntl(&terminal, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away: it stays open and itself.
        Ok(Shown(unsafe { AsyncFd::register(File::from(terminal)) }?))
    }
}

impl AsyncRead for Shown {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match ready.try_io(|terminal| terminal.get_ref().read(room)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // No program has it open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Shown {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = std::task::ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|terminal| terminal.get_ref().write(bytes)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
