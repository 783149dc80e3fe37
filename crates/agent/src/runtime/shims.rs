//! The agent's end of shims: the spawner that they are copies of, and a line to each.

use super::RuntimeError;
use super::process;
use crate::shim::orders::{self, Order, Report};
use crate::shim::sockets;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long the spawner may take to make a shim, on a busy machine that has to load the program first.
const SPAWN_MAX: Duration = Duration::from_secs(30);
/// Spawners tried for one order: the first may have been killed since the last order.
const SPAWNERS_MAX: usize = 2;

/// Makes shims.
#[derive(Debug)]
pub struct Shims {
    program: PathBuf,
    spawner: Mutex<Option<Spawner>>,
}

#[derive(Debug)]
struct Spawner {
    socket: AsyncFd<OwnedFd>,
    process: Child,
}

/// To one shim.
#[derive(Debug)]
pub struct Line {
    socket: AsyncFd<OwnedFd>,
    shim: Option<OwnedFd>,
}

impl Shims {
    /// `program` is started as `program shim` when the first shim is needed.
    pub fn new(program: &Path) -> Shims {
        Shims { program: program.to_owned(), spawner: Mutex::new(None) }
    }

    /// Starts the spawner if there is none, so that the first order need not wait for it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub async fn warm_up(&self) -> Result<(), RuntimeError> {
        let mut spawner = self.spawner.lock().await;
        if spawner.is_none() {
            *spawner = Some(Spawner::start(&self.program)?);
        }
        Ok(())
    }

    /// Has a shim made for an order.
    ///
    /// # Errors
    /// When there is no spawner to be had, and for an order that is too long.
    pub async fn order(&self, order: &Order, fds: &[RawFd]) -> Result<Line, RuntimeError> {
        let mut last = RuntimeError::Silent;
        for _ in 0..SPAWNERS_MAX {
            let (ours, theirs) = sockets().map_err(RuntimeError::io("making a socket for a shim"))?;
            orders::send(&ours, order, fds).map_err(RuntimeError::io("telling a shim what to do"))?;
            let mut line = Line { socket: watch(ours)?, shim: None };
            let handed = {
                let mut spawner = self.spawner.lock().await;
                let current = match &mut *spawner {
                    Some(current) => current,
                    none => none.insert(Spawner::start(&self.program)?),
                };
                current.hand(&theirs).await
            };
            drop(theirs);
            if handed.is_ok() {
                match timeout(SPAWN_MAX, line.hear()).await {
                    Ok(Ok(Some((Report::Shim, mut fds)))) => {
                        line.shim = fds.pop();
                        return Ok(line);
                    }
                    Ok(Ok(Some((Report::Failed { step, text }, _)))) => {
                        return Err(RuntimeError::Failed { step, text });
                    }
                    // It has ended, or it is no spawner of ours.
                    Ok(_) => {}
                    Err(_) => last = RuntimeError::Timeout { seconds: SPAWN_MAX.as_secs() },
                }
            }
            if let Some(mut spawner) = self.spawner.lock().await.take() {
                last = spawner.last_words().unwrap_or(last);
                // One that has ended already is what is wanted.
                let _ = spawner.process.start_kill();
                spawner.collect();
            }
        }
        Err(last)
    }

    /// Ends the spawner, and waits until it is gone. Shims go on; a later order starts another.
    pub async fn close(&self) {
        let Some(Spawner { socket, mut process }) = self.spawner.lock().await.take() else { return };
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let ending = pid.and_then(|pid| watch(process::open(pid).ok()?).ok());
        drop(socket);
        if let Some(ending) = ending {
            // Not by waiting for a signal, which only the runtime hears that started it.
            let ended = timeout(SPAWN_MAX, ending.readable()).await;
            if ended.is_err() {
                let _ = process.start_kill();
            }
        }
        // Collects it.
        let _ = process.try_wait();
    }
}

impl Drop for Shims {
    fn drop(&mut self) {
        if let Some(spawner) = self.spawner.get_mut().take() {
            spawner.collect();
        }
    }
}

impl Spawner {
    fn start(program: &Path) -> Result<Spawner, RuntimeError> {
        let (ours, theirs) = sockets().map_err(RuntimeError::io("making the spawner's socket"))?;
        let process = Command::new(program)
            .arg("shim")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RuntimeError::io(format!("starting {}", program.display())))?;
        Ok(Spawner { socket: watch(ours)?, process })
    }

    /// Hands the spawner the socket of an order.
    async fn hand(&self, socket: &OwnedFd) -> io::Result<()> {
        let fds = [socket.as_raw_fd()];
        loop {
            let mut writable = self.socket.writable().await?;
            match writable.try_io(|own| orders::hand(own.get_ref(), &fds)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Why it has ended, if it said so.
    fn last_words(&self) -> Option<RuntimeError> {
        match orders::receive::<Report>(self.socket.get_ref()) {
            Ok(Some((Report::Failed { step, text }, _))) => Some(RuntimeError::Failed { step, text }),
            _ => None,
        }
    }

    /// Waits for its end in the background, as long as this process lives.
    fn collect(self) {
        let Spawner { socket, mut process } = self;
        drop(socket);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { process.wait().await });
        }
    }
}

impl Line {
    /// What the shim tells next; `None` when it has ended.
    ///
    /// # Errors
    /// When it talks nonsense.
    pub async fn hear(&mut self) -> Result<Option<(Report, Vec<OwnedFd>)>, RuntimeError> {
        loop {
            let readable = self.socket.readable().await;
            let mut readable = readable.map_err(RuntimeError::io("hearing from a shim"))?;
            match readable.try_io(|own| orders::receive(own.get_ref())) {
                Ok(result) => return result.map_err(RuntimeError::io("hearing from a shim")),
                Err(_would_block) => {}
            }
        }
    }

    /// Kills the shim. One that is gone is no error.
    pub fn kill(&self) {
        if let Some(shim) = &self.shim {
            let _ = process::signal(shim, libc::SIGKILL);
        }
    }
}

/// Has the socket wait in the reactor instead of in the call.
fn watch(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    let set = || {
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
    };
    set().map_err(|error| RuntimeError::io("a shim's socket")(error.into()))?;
    // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away: it stays open and itself.
    let watched = unsafe { AsyncFd::register(socket) };
    watched.map_err(io::Error::from).map_err(RuntimeError::io("watching a shim's socket"))
}
