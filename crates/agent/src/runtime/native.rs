//! Containers without a container engine: a shim for each, which this module starts, finds again and cleans up after.
//!
//! The truth is in the containers' directories and in /proc; nothing here must be remembered across restarts.

use super::{ContainerConfig, ContainerId, Runtime, RuntimeError, Started, State};
use crate::shim::{CONFIG_FILE, EXIT_FILE, Process, Report, Running, STATE_FILE};
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// How long a shim may take to start a container, on a busy machine with a slow disk.
const START_MAX: Duration = Duration::from_secs(60);
/// A shim's report: one line with one error text.
const REPORT_MAX: u64 = 64 << 10;
/// The shim writes down the end within milliseconds of it.
const EXIT_FILE_WAIT: Duration = Duration::from_secs(5);
const EXIT_FILE_LOOK: Duration = Duration::from_micros(500);
/// How long a killed process may take to go, when it is to be removed.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Where containers are kept, and the program that shims are.
#[derive(Debug)]
struct Inner {
    root: PathBuf,
    program: PathBuf,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct NativeRuntime(Arc<Inner>);

impl NativeRuntime {
    /// Keeps containers in directories below `root`. `program` is started as `program shim DIRECTORY`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(root: &Path, program: &Path) -> Result<NativeRuntime, RuntimeError> {
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        make().map_err(RuntimeError::io(format!("making {}", root.display())))?;
        Ok(NativeRuntime(Arc::new(Inner { root: root.to_owned(), program: program.to_owned() })))
    }

    fn directory(&self, id: &ContainerId) -> PathBuf {
        self.0.root.join(id.as_str())
    }

    fn prepare(&self, config: &ContainerConfig) -> io::Result<PathBuf> {
        let directory = self.directory(&config.id);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        fs::write(directory.join("hosts"), &config.hosts_file)?;
        fs::write(directory.join("hostname"), format!("{}\n", config.hostname))?;
        fs::write(directory.join("resolv.conf"), &config.resolv_conf)?;
        if let Some(parent) = config.log.path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(directory.join(CONFIG_FILE), serde_json::to_vec(config)?)?;
        Ok(directory)
    }

    /// Starts the shim and waits for its one report.
    async fn start(&self, directory: &Path) -> Result<Report, RuntimeError> {
        let mut shim = Command::new(&self.0.program)
            .arg("shim")
            .arg(directory)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RuntimeError::io(format!("starting {}", self.0.program.display())))?;
        let output = shim.stdout.take();
        // Reaps it when it ends, as long as this process lives.
        tokio::spawn(async move { shim.wait().await });
        let mut line = String::new();
        if let Some(output) = output {
            let mut output = BufReader::new(output.take(REPORT_MAX));
            let read = timeout(START_MAX, output.read_line(&mut line)).await;
            let read = read.map_err(|_| RuntimeError::Timeout { seconds: START_MAX.as_secs() })?;
            read.map_err(RuntimeError::io("hearing from the shim"))?;
        }
        serde_json::from_str(&line).map_err(|_| RuntimeError::Failed {
            step: super::Step::Create,
            text: "the container's shim ended without a word".to_owned(),
        })
    }

    fn running(&self, id: &ContainerId) -> Option<Running> {
        read(&self.directory(id).join(STATE_FILE))
    }

    fn exit(&self, id: &ContainerId) -> Option<Exit> {
        read(&self.directory(id).join(EXIT_FILE))
    }

    /// What became of a container whose process is gone.
    async fn ended(&self, id: &ContainerId, shim: Process, code: Option<i32>) -> Exit {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(exit) = self.exit(id) {
                return exit;
            }
            if waited >= EXIT_FILE_WAIT || !shim.is_there() {
                // The shim may have written it and gone in between.
                return self.exit(id).unwrap_or(Exit { code, out_of_memory: false, at: now() });
            }
            sleep(EXIT_FILE_LOOK).await;
            waited += EXIT_FILE_LOOK;
        }
    }
}

impl Runtime for NativeRuntime {
    async fn run(&self, config: ContainerConfig) -> Result<Started, RuntimeError> {
        let id = config.id.clone();
        let prepared = self.prepare(&config);
        let result = match prepared {
            Ok(directory) => self.start(&directory).await,
            Err(error) => Err(RuntimeError::io("writing the container's files")(error)),
        };
        match result {
            Ok(Report::Running(running)) => Ok(Started { pid: running.container.pid, at: running.at }),
            Ok(Report::Failed { step, text }) => {
                self.remove(&id).await?;
                Err(RuntimeError::Failed { step, text })
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = self.remove(&id).await;
                Err(error)
            }
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let Some(running) = self.running(id) else { return Ok(()) };
        match pidfd(running.container) {
            Some(fd) => send(&fd, signal).map_err(RuntimeError::io("signalling the container")),
            None => Ok(()),
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        if let Some(exit) = self.exit(id) {
            return Ok(exit);
        }
        let running = self.running(id).ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
        let mut code = None;
        if let Some(fd) = pidfd(running.container) {
            let fd = watch(fd)?;
            let _ready = fd.readable().await.map_err(RuntimeError::io("watching the container"))?;
            code = exit_code(fd.get_ref());
        }
        Ok(self.ended(id, running.shim, code).await)
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        if let Some(running) = self.running(id) {
            for process in [running.container, running.shim] {
                end(process).await?;
            }
        }
        if let Some(config) = read::<ContainerConfig>(&directory.join(CONFIG_FILE)) {
            let group = super::spec::cgroup(&config);
            // A group of processes that just died is busy for a moment.
            for _ in 0..100 {
                if remove_cgroup(&group) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        let removing = directory.clone();
        let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(removing)).await;
        match removed {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                Err(RuntimeError::io(format!("removing {}", directory.display()))(error))
            }
            _ => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<(ContainerId, State)>, RuntimeError> {
        let mut found = Vec::new();
        let entries = fs::read_dir(&self.0.root).map_err(RuntimeError::io("listing the containers"))?;
        for entry in entries.flatten() {
            let Some(id) =
                entry.file_name().to_str().and_then(|name| ContainerId::try_from(name.to_owned()).ok())
            else {
                continue;
            };
            let state = match (self.exit(&id), self.running(&id)) {
                (Some(exit), _) => State::Exited(exit),
                (None, Some(running)) if running.container.is_there() => {
                    State::Running(Started { pid: running.container.pid, at: running.at })
                }
                (None, Some(running)) => State::Exited(self.ended(&id, running.shim, None).await),
                // Never came to run.
                (None, None) => {
                    self.remove(&id).await?;
                    continue;
                }
            };
            found.push((id, state));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }
}

/// Kills a process and waits until it is gone.
async fn end(process: Process) -> Result<(), RuntimeError> {
    let Some(fd) = pidfd(process) else { return Ok(()) };
    send(&fd, libc::SIGKILL).map_err(RuntimeError::io("killing a process"))?;
    let fd = watch(fd)?;
    let gone = timeout(KILL_WAIT, fd.readable()).await;
    gone.map(drop).map_err(|_| RuntimeError::Timeout { seconds: KILL_WAIT.as_secs() })
}

/// Has the end of a process told by the reactor.
fn watch(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it away: it stays open and itself.
    let watched = unsafe { AsyncFd::register(fd) };
    watched.map_err(|error| RuntimeError::io("watching a process")(error.into()))
}

/// A descriptor of exactly this process; `None` when it is gone.
fn pidfd(process: Process) -> Option<OwnedFd> {
    // SAFETY: makes a descriptor from a number.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid, libc::PIDFD_NONBLOCK) };
    if raw < 0 {
        return None;
    }
    // SAFETY: the descriptor was just made, and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) };
    // The number may have been given to another process; not so once the descriptor is open.
    process.is_there().then_some(fd)
}

fn send(fd: &OwnedFd, signal: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open; no signal information is given.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}

/// How a process ended that is no child of ours: kernels from 6.15 on tell it.
fn exit_code(fd: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsRawFd;
    /// `struct pidfd_info`, in its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const GET_INFO: libc::c_ulong = 0xc040_ff0b;
    const INFO_EXIT: u64 = 1 << 3;
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the structure is as large as the request says, and lives until the call returns.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GET_INFO, std::ptr::from_mut(&mut info)) };
    if result != 0 || info.mask & INFO_EXIT == 0 {
        return None;
    }
    let status = info.exit_code;
    Some(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Removes a control group in every hierarchy. False while one is busy.
pub fn remove_cgroup(path: &str) -> bool {
    let relative = path.trim_start_matches('/');
    let mut clean = true;
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        match fs::remove_dir(hierarchy.join(relative)) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => clean = false,
            _ => {}
        }
    }
    clean
}
