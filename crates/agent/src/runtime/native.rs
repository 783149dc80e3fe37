//! Containers without a container engine: a shim for each, which this module starts, finds again and cleans up after.
//!
//! The truth is in the containers' directories and in /proc; nothing here must be remembered across restarts.

use super::cgroup::{self, Hierarchies, Stats, TaskLimits};
use super::exec::{Exec, ExecRequest};
use super::{ContainerConfig, ContainerId, Runtime, RuntimeError, Started, State, Step};
use crate::shim::{CONFIG_FILE, EXIT_FILE, Process, Report, Running, STATE_FILE, UPPER};
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use serde::de::DeserializeOwned;
use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
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
/// How often, and after how long, the group of killed processes is tried to be removed: half a second in all.
const GROUP_LOOKS: usize = 100;
const GROUP_LOOK: Duration = Duration::from_millis(5);
/// How long the parent of orphans may take to collect one.
const REAP_WAIT: Duration = Duration::from_secs(1);

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

    /// Takes the container's name on this host. A name is taken until the container is removed.
    fn claim(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let directory = self.directory(id);
        fs::DirBuilder::new().mode(0o700).create(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RuntimeError::Exists(id.clone()),
            _ => RuntimeError::io(format!("making {}", directory.display()))(error),
        })
    }

    fn prepare(&self, config: &ContainerConfig) -> io::Result<PathBuf> {
        let directory = self.directory(&config.id);
        for (name, text) in [
            ("hosts", config.hosts_file.clone()),
            ("hostname", format!("{}\n", config.hostname)),
            ("resolv.conf", config.resolv_conf.clone()),
        ] {
            let file = directory.join(name);
            fs::write(&file, text)?;
            // Every user of the container reads them, whatever this process's mask is.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        }
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
        let report = match shim.stdout.take() {
            Some(output) => hear(output).await,
            None => Err(RuntimeError::Silent),
        };
        if report.is_err() {
            // It may go on, and nobody else knows of it. One that has ended is no error.
            let _ = shim.start_kill();
        }
        // Reaps it when it ends, as long as this process lives.
        tokio::spawn(async move { shim.wait().await });
        report
    }

    fn running(&self, id: &ContainerId) -> Option<Running> {
        read(&self.directory(id).join(STATE_FILE))
    }

    fn exit(&self, id: &ContainerId) -> Option<Exit> {
        read(&self.directory(id).join(EXIT_FILE))
    }

    /// What became of a container whose process is gone. `process` is a descriptor from before its end.
    async fn ended(&self, id: &ContainerId, shim: Process, process: Option<&OwnedFd>) -> Exit {
        let mut waited = Duration::ZERO;
        loop {
            // Asked in this order: a shim that has gone has written its file before.
            let lives = shim.is_there();
            if let Some(exit) = self.exit(id) {
                return exit;
            }
            if waited >= EXIT_FILE_WAIT || !lives {
                break;
            }
            sleep(EXIT_FILE_LOOK).await;
            waited += EXIT_FILE_LOOK;
        }
        // The shim was killed. Its container went to another parent, and the kernel tells how it ended once that has
        // collected it.
        let mut code = None;
        waited = Duration::ZERO;
        while let Some(process) = process {
            match exit_code(process) {
                Err(error) if error.raw_os_error() == Some(libc::ENODATA) && waited < REAP_WAIT => {}
                result => {
                    code = result.ok();
                    break;
                }
            }
            sleep(EXIT_FILE_LOOK).await;
            waited += EXIT_FILE_LOOK;
        }
        let config = read::<ContainerConfig>(&self.directory(id).join(CONFIG_FILE));
        let out_of_memory =
            config.is_some_and(|config| cgroup::killed_for_memory(&super::spec::cgroup(&config)));
        Exit { code, out_of_memory, at: now() }
    }
}

impl Runtime for NativeRuntime {
    async fn run(&self, config: ContainerConfig) -> Result<Started, RuntimeError> {
        let id = config.id.clone();
        self.claim(&id)?;
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

    async fn restart(&self, id: &ContainerId) -> Result<Started, RuntimeError> {
        let directory = self.directory(id);
        if self.exit(id).is_none() {
            return Err(RuntimeError::Unknown(id.clone()));
        }
        if let Some(shim) = self.running(id).and_then(|running| pidfd(running.shim)).map(watch).transpose()? {
            // It has written down the end and is clearing up.
            if timeout(EXIT_FILE_WAIT, shim.readable()).await.is_err() {
                send(shim.get_ref(), libc::SIGKILL).map_err(RuntimeError::io("killing an old shim"))?;
            }
        }
        let clearing = directory.clone();
        let cleared = tokio::task::spawn_blocking(move || clear_for_restart(&clearing)).await;
        cleared
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(RuntimeError::io(format!("clearing {}", directory.display())))?;
        match self.start(&directory).await? {
            Report::Running(running) => Ok(Started { pid: running.container.pid, at: running.at }),
            Report::Failed { step, text } => Err(RuntimeError::Failed { step, text }),
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
        let process = pidfd(running.container).map(watch).transpose()?;
        if let Some(process) = &process {
            let _ready = process.readable().await.map_err(RuntimeError::io("watching the container"))?;
        }
        Ok(self.ended(id, running.shim, process.as_ref().map(AsyncFd::get_ref)).await)
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
            // Of a container whose start was broken off, only the group knows the processes.
            cgroup::kill(&group);
            removed(&group).await;
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

    async fn exec(&self, id: &ContainerId, _request: ExecRequest) -> Result<Exec, RuntimeError> {
        let text = format!("programs cannot be run in container {id} yet");
        Err(RuntimeError::Failed { step: Step::Start, text })
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let config = read::<ContainerConfig>(&self.directory(id).join(CONFIG_FILE));
        let config = config.ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
        if !self.running(id).is_some_and(|running| running.container.is_there()) {
            return Err(RuntimeError::NotRunning(id.clone()));
        }
        Ok(hierarchies()?.stats(&super::spec::cgroup(&config)))
    }

    async fn create_task_group(&self, group: &str, limits: TaskLimits) -> Result<(), RuntimeError> {
        let limited = hierarchies()?.limit_task(group, limits);
        limited.map_err(RuntimeError::io("limiting the task's control group"))
    }

    async fn remove_task_group(&self, group: &str) -> Result<(), RuntimeError> {
        removed(group).await;
        Ok(())
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

/// Removes what one run of a container left and the next makes anew. What the program wrote stays.
fn clear_for_restart(directory: &Path) -> io::Result<()> {
    const KEPT: [&str; 5] = [CONFIG_FILE, UPPER, "hosts", "hostname", "resolv.conf"];
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn hierarchies() -> Result<Hierarchies, RuntimeError> {
    Hierarchies::of_host().map_err(RuntimeError::io("looking for control groups"))
}

/// Removes a group. One of processes that just died is busy for a moment; one that stays so is left to the next sweep.
async fn removed(group: &str) {
    for _ in 0..GROUP_LOOKS {
        if cgroup::remove(group) {
            break;
        }
        sleep(GROUP_LOOK).await;
    }
}

/// The shim's one line.
async fn hear(output: ChildStdout) -> Result<Report, RuntimeError> {
    let mut line = String::new();
    let mut output = BufReader::new(output.take(REPORT_MAX));
    let read = timeout(START_MAX, output.read_line(&mut line)).await;
    let read = read.map_err(|_| RuntimeError::Timeout { seconds: START_MAX.as_secs() })?;
    read.map_err(RuntimeError::io("hearing from the shim"))?;
    serde_json::from_str(&line).map_err(|_| RuntimeError::Silent)
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
///
/// # Errors
/// ENODATA before its parent has collected it, others from older kernels.
fn exit_code(fd: &OwnedFd) -> io::Result<i32> {
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
    match result {
        0 if info.mask & INFO_EXIT != 0 => {}
        0 => return Err(io::Error::from_raw_os_error(libc::ENODATA)),
        _ => return Err(io::Error::last_os_error()),
    }
    let status = info.exit_code;
    Ok(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
