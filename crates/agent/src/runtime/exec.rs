//! Programs that run beside a container's own: health checks, and what users execute.

use super::RuntimeError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

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
