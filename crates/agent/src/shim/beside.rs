//! The shim of a program that runs beside a container's own.

use super::channel::{Failure, failed_start};
use super::host::Host;
use super::launch::{self, Groups};
use super::orders::{Report, Running};
use super::program::{Program, Streams};
use super::spawner::Agent;
use super::{CONFIG_FILE, STATE_FILE, load};
use crate::runtime::exec::ExecRequest;
use crate::runtime::process;
use crate::runtime::{ContainerConfig, Step};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Rounds of killing what a program started: who forks all the time may be missed once, hardly ever twice.
const KILL_ROUNDS: usize = 16;

fn create(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| (Step::Create, format!("{what}: {error}"))
}

/// Runs a program in the container of a directory until its end, or until the agent does not listen any more.
pub fn run(
    host: &Host,
    directory: &Path,
    request: &ExecRequest,
    streams: Vec<OwnedFd>,
    agent: &Agent,
) -> Result<(), Failure> {
    let config: ContainerConfig =
        load(&directory.join(CONFIG_FILE)).map_err(create("reading the configuration"))?;
    let running: Running = load(&directory.join(STATE_FILE)).map_err(create("reading the state"))?;
    let first =
        running.container.open().ok_or_else(|| failed_start("the container is not running".to_owned()))?;
    let streams = match (request.tty, <[OwnedFd; 3]>::try_from(streams)) {
        (Some(size), _) => Streams::Terminal { size, console: false },
        (None, Ok(pipes)) => Streams::Pipes(pipes),
        (None, Err(_)) => {
            return Err((Step::Create, "the program was given no input and outputs".to_owned()));
        }
    };
    let hierarchies = host.hierarchies_of(&config)?;
    let groups = Groups::of(&hierarchies, &config).map_err(create("opening the control group"))?;
    let program = Program {
        host,
        config: &config,
        args: &request.args,
        env: &request.env,
        cwd: request.cwd.as_deref().unwrap_or(&config.cwd),
        user: request.user.as_deref().unwrap_or(&config.user),
        streams,
        init: false,
    };
    let child = launch::beside(&groups, &first, program)?;
    let pid = Pid::from_raw(child.pid);
    let started = child.channel.wait_ready().and_then(|terminal| child.channel.go().map(|()| terminal));
    let terminal = started.inspect_err(|_| {
        let _ = kill(pid, Signal::SIGKILL);
        let _ = process::collect(Some(child.pid), 0);
    })?;
    let fds: Vec<_> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
    agent.tell(&Report::Executing, &fds);
    // The agent's now: without it the terminal is gone.
    drop(terminal);
    if !ends(&child.process, agent).map_err(create("watching the program"))? {
        kill_session(child.pid, &groups);
    }
    let Ok(Some((_, code))) = process::collect(Some(child.pid), 0) else {
        return Err(failed_start("the program's end was missed".to_owned()));
    };
    agent.tell(&Report::Ended(code), &[]);
    Ok(())
}

/// Waits for the end of the program. False when the agent does not listen any more.
fn ends(process: &OwnedFd, agent: &Agent) -> io::Result<bool> {
    let Some(socket) = agent.socket() else { return Ok(false) };
    loop {
        let mut fds =
            [PollFd::new(process.as_fd(), PollFlags::POLLIN), PollFd::new(socket, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if happened(&fds[0]) {
            return Ok(true);
        }
        // It says nothing after its order: that is the end of it.
        if happened(&fds[1]) {
            return Ok(false);
        }
    }
}

/// Kills the program with what it started, which is in the container's group and in its session.
fn kill_session(leader: i32, groups: &Groups<'_>) {
    for _ in 0..KILL_ROUNDS {
        let open = |pid| process::open(pid).ok().map(|process| (pid, process));
        let members = groups.members().into_iter().filter_map(open);
        // Looked at with the descriptor open, so that it is of the one that is looked at.
        let living = members.filter(|(pid, _)| process::lives_in_session(*pid, leader));
        let killed = living.filter(|(_, process)| process::signal(process, libc::SIGKILL).is_ok()).count();
        if killed == 0 {
            return;
        }
    }
}
