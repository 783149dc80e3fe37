//! The shim: a small process of its own for each container, a re-execution of the agent's binary. It makes the
//! container, keeps its output, sees its end and writes that down, whether or not the agent runs.
//!
//! One thread, no async runtime: libcontainer forks and goes on in Rust code, which only a single thread may do.
//!
//! Files in the container's directory, all the agent's to remove:
//! `container.json` (its configuration), `state.json` (written when it runs), `exit.json` (written when it has ended),
//! `stdout` and `stderr` (named pipes: they outlive a killed shim, so that the container is not killed by SIGPIPE),
//! `upper` and `work` (what it wrote), `libcontainer/` and `config.json` (libcontainer's own).

mod executor;
mod overlay;
mod user;

use crate::runtime::cgroup;
use crate::runtime::logs::{Stream, Writer};
use crate::runtime::spec::{self, Host};
use crate::runtime::{ContainerConfig, Step};
use executor::FilteringExecutor;
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub const CONFIG_FILE: &str = "container.json";
pub const STATE_FILE: &str = "state.json";
pub const EXIT_FILE: &str = "exit.json";
/// The directory of what the container writes. It outlives one run of it.
pub const UPPER: &str = "upper";
/// Bytes taken from a pipe at once: what a pipe holds.
const READ_MAX: usize = 64 << 10;

/// A process that cannot be mistaken for another of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// Reads when a process was started.
    pub fn of(pid: i32) -> io::Result<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold anything; the start is the twentieth field behind it.
        let behind = stat.rsplit_once(") ").map(|(_, behind)| behind);
        let started = behind.and_then(|fields| fields.split(' ').nth(19)?.parse().ok());
        started
            .map(|started| Process { pid, started })
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Whether it is still this one.
    pub fn is_there(self) -> bool {
        Process::of(self.pid).is_ok_and(|now| now == self)
    }
}

/// A container that runs, as the shim leaves it for whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub container: Process,
    pub shim: Process,
    pub at: Timestamp,
}

/// What the shim tells the agent once, as one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    Running(Running),
    Failed { step: Step, text: String },
}

/// Runs the shim for the container in the directory that the only argument names.
pub fn main(arguments: &[String]) -> ExitCode {
    let [directory] = arguments else {
        eprintln!("usage: gantry shim DIRECTORY (the agent's own)");
        return ExitCode::from(2);
    };
    match run(Path::new(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err((step, text)) => {
            tell(&Report::Failed { step, text });
            ExitCode::FAILURE
        }
    }
}

type Failure = (Step, String);

fn create(text: impl Into<String>) -> Failure {
    (Step::Create, text.into())
}

fn doing(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| create(format!("{what}: {error}"))
}

fn run(directory: &Path) -> Result<(), Failure> {
    let config = fs::read(directory.join(CONFIG_FILE)).map_err(doing("reading the configuration"))?;
    let config: ContainerConfig =
        serde_json::from_slice(&config).map_err(|error| create(format!("the configuration: {error}")))?;
    detach().map_err(doing("leaving the agent's session"))?;
    overlay::mount(directory, &config.layers).map_err(create)?;
    let root = directory.join("rootfs");
    let user = user::find(&root, &config.user).map_err(create)?;
    overlay::make_directory(&root, &config.cwd).map_err(create)?;
    let host = Host { capabilities: bounding_set(), unified_cgroups: unified_cgroups() };
    let (spec, privileges) = spec::compile(&config, &user, host, directory);
    fs::write(directory.join("config.json"), spec.to_string()).map_err(doing("writing the specification"))?;

    let log = Writer::open(config.log.clone()).map_err(doing("opening the log"))?;
    let pipe = |name: &str| pipe(&directory.join(name), user.uid);
    let stdout = pipe("stdout").map_err(doing("making the pipe of standard output"))?;
    let stderr = pipe("stderr").map_err(doing("making the pipe of standard error"))?;
    let nothing = File::open("/dev/null").map_err(doing("opening /dev/null"))?;
    let state = directory.join("libcontainer");
    let built = ContainerBuilder::new(config.id.to_string(), SyscallType::default())
        .with_executor(FilteringExecutor { privileges })
        .with_root_path(state)
        .map(|builder| {
            builder.with_stdin(nothing).with_stdout(stdout.container).with_stderr(stderr.container)
        })
        .and_then(|builder| builder.as_init(directory).with_systemd(false).with_detach(true).build());
    let mut container = built.map_err(|error| {
        remove_groups(&config);
        create(explain(&error))
    })?;
    let started = start(&mut container, directory);
    let running = match started {
        Ok(running) => running,
        Err(failure) => {
            // What failed to start is of no use; the first error is the one that counts.
            let _ = container.delete(true);
            return Err(failure);
        }
    };
    tell(&Report::Running(running));
    let mut output = Output { log, pipes: [(stdout.ours, Stream::Stdout), (stderr.ours, Stream::Stderr)] };
    let pid = Pid::from_raw(running.container.pid);
    output.keep_until_end(pid).map_err(doing("keeping the output"))?;
    let exit = reap(pid, &config);
    save(&directory.join(EXIT_FILE), &exit).map_err(doing("writing down the end"))?;
    // The group and libcontainer's state; the agent removes what is left of both.
    let _ = container.delete(true);
    Ok(())
}

/// libcontainer's errors name their causes one below the other.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
}

fn start(container: &mut Container, directory: &Path) -> Result<Running, Failure> {
    let failed = |text: String| (Step::Start, text);
    let pid = container.pid().ok_or_else(|| failed("the container has no process".to_owned()))?.as_raw();
    let process = Process::of(pid).map_err(|error| failed(format!("the process is gone: {error}")))?;
    let shim =
        Process::of(std::process::id().cast_signed()).map_err(doing("reading this process's state"))?;
    let running = Running { container: process, shim, at: now() };
    // Before the program runs: whoever finds the container later must be able to tell.
    save(&directory.join(STATE_FILE), &running).map_err(doing("writing down the state"))?;
    container.start().map_err(|error| failed(explain(&error)))?;
    Ok(running)
}

/// Tells the agent, and closes the only way to it.
fn tell(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    // An agent that is gone finds the state file.
    let _ = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    if let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") {
        for fd in 0..=2 {
            // SAFETY: both descriptors are open; what was standard output is ours to replace.
            unsafe { libc::dup2(nothing.as_raw_fd(), fd) };
        }
    }
}

/// Lets go of the agent: its session, its signals, its mounts. Orphans of the container become our children.
fn detach() -> io::Result<()> {
    nix::unistd::setsid()?;
    // The container's root directory is made by us, and its program inherits the mask; Docker's is this one.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    // Mounts of the host still come here; ours stay here and vanish with us and the container.
    nix::mount::mount(
        None::<&str>,
        "/",
        None::<&str>,
        nix::mount::MsFlags::MS_SLAVE | nix::mount::MsFlags::MS_REC,
        None::<&str>,
    )?;
    std::env::set_current_dir("/")
}

struct Pipe {
    ours: File,
    container: OwnedFd,
}

/// A named pipe. The container's end is open for reading too: so a write never fails for want of a reader. It is the
/// container's user's, who opens it anew as /dev/stdout.
fn pipe(path: &Path, uid: u32) -> io::Result<Pipe> {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    std::os::unix::fs::chown(path, Some(uid), None)?;
    let container = File::options().read(true).write(true).open(path)?;
    let ours = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    Ok(Pipe { ours, container: container.into() })
}

struct Output {
    log: Writer,
    pipes: [(File, Stream); 2],
}

impl Output {
    /// Moves output to the log until the container's first process has ended, and then what is left of it.
    fn keep_until_end(&mut self, pid: Pid) -> io::Result<()> {
        // SAFETY: makes a descriptor from a number.
        let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let process = unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) };
        let mut buffer = vec![0; READ_MAX];
        loop {
            let ended = {
                let mut fds = [
                    PollFd::new(self.pipes[0].0.as_fd(), PollFlags::POLLIN),
                    PollFd::new(self.pipes[1].0.as_fd(), PollFlags::POLLIN),
                    PollFd::new(process.as_fd(), PollFlags::POLLIN),
                ];
                match poll(&mut fds, PollTimeout::NONE) {
                    Err(nix::errno::Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                    Ok(_) => fds[2].revents().is_some_and(|events| !events.is_empty()),
                }
            };
            // A full disk must not stop the container: what cannot be written is lost.
            self.take(&mut buffer, if ended { usize::MAX } else { 1 });
            if ended {
                let _ = self.log.finish(clock());
                return Ok(());
            }
        }
    }

    /// Takes up to so many reads from each pipe.
    fn take(&mut self, buffer: &mut [u8], reads: usize) {
        for (pipe, stream) in &mut self.pipes {
            for _ in 0..reads {
                match pipe.read(buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => {
                        let _ = self.log.write(*stream, &buffer[..count], clock());
                    }
                }
            }
        }
    }
}

/// Collects the container's end, and that of processes it left behind.
fn reap(pid: Pid, config: &ContainerConfig) -> Exit {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(ended, status)) if ended == pid => code = Some(status),
            // As shells tell it.
            Ok(WaitStatus::Signaled(ended, signal, _)) if ended == pid => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => break,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => break,
        }
    }
    Exit { code, out_of_memory: cgroup::killed_for_memory(&spec::cgroup(config)), at: now() }
}

/// After a failed creation libcontainer may leave the group behind.
fn remove_groups(config: &ContainerConfig) {
    cgroup::remove(&spec::cgroup(config));
}

fn unified_cgroups() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The capabilities that this process can hand on.
fn bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Writes a file that is either complete or not there.
fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let unfinished: PathBuf = path.with_extension("tmp");
    fs::write(&unfinished, serde_json::to_vec(value)?)?;
    fs::rename(&unfinished, path)
}

fn clock() -> (u64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs(), now.subsec_nanos())
}

fn now() -> Timestamp {
    let (seconds, nanos) = clock();
    Timestamp::from_millis(i64::try_from(seconds).unwrap_or(0) * 1000 + i64::from(nanos / 1_000_000))
}
