//! The shim of a container: makes it, keeps its output, and writes its end down.

use super::channel::{Failure, failed_start};
use super::host::Host;
use super::launch::{self, Groups, Neighbour};
use super::orders::{Report, Running};
use super::output::{self, Output};
use super::program::{Program, Streams};
use super::spawner::Agent;
use super::{CONFIG_FILE, EXIT_FILE, STATE_FILE, load, overlay, save};
use crate::runtime::process::{self, Process};
use crate::runtime::spec;
use crate::runtime::{ContainerConfig, ContainerId, Step};
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rows and columns of a terminal that nobody looks at.
const TERMINAL: (u16, u16) = (24, 80);
/// How long the parent of orphans may take to collect a process, and how often that is looked for.
const COLLECT_WAIT: Duration = Duration::from_secs(3);
const COLLECT_LOOK: Duration = Duration::from_micros(500);

fn create(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| (Step::Create, format!("{what}: {error}"))
}

/// Makes the container of a directory, and stays with it until its end.
pub fn run(host: &Host, directory: &Path, agent: &mut Agent) -> Result<(), Failure> {
    let config: ContainerConfig =
        load(&directory.join(CONFIG_FILE)).map_err(create("reading the configuration"))?;
    let _kept = keep(directory)?;
    overlay::prepare(directory, &config.layers).map_err(|text| (Step::Create, text))?;
    let hierarchies = host.hierarchies_of(&config)?;
    let group = spec::cgroup(&config);
    let remove = || hierarchies.remove(&group);
    let groups = Groups::make(&hierarchies, &config).inspect_err(|_| _ = remove())?;
    let (running, process, mut output) = start(host, directory, &config, &groups).inspect_err(|_| {
        // What failed to start is of no use; the first error is the one that counts.
        hierarchies.kill(&group);
        while process::collect(None, 0).is_ok() {}
        remove();
    })?;
    drop(groups);
    agent.tell(&Report::Running(running), &[]);
    agent.hang_up();
    output.keep_until_end(&process).map_err(create("keeping the output"))?;
    let code = collect(Some(running.container.pid));
    end(host, directory, &config, code)
}

/// Stays with a container that another shim made.
pub fn resume(host: &Host, directory: &Path, agent: &mut Agent) -> Result<(), Failure> {
    let config: ContainerConfig =
        load(&directory.join(CONFIG_FILE)).map_err(create("reading the configuration"))?;
    let _kept = keep(directory)?;
    let before: Running = load(&directory.join(STATE_FILE)).map_err(create("reading the state"))?;
    let process = before.container.open().ok_or((Step::Create, "the container is gone".to_owned()))?;
    let output = match config.tty {
        true => Output::of_nothing(config.log.clone()),
        false => Output::of_pipes(directory, config.log.clone()),
    };
    let mut output = output.map_err(create("taking up the output"))?;
    let running = Running { shim: own().map_err(create("reading this process's state"))?, ..before };
    save(&directory.join(STATE_FILE), &running).map_err(create("writing down the state"))?;
    agent.tell(&Report::Running(running), &[]);
    agent.hang_up();
    output.keep_until_end(&process).map_err(create("keeping the output"))?;
    end(host, directory, &config, told(&process))
}

/// One shim at a time is a container's.
fn keep(directory: &Path) -> Result<Flock<File>, Failure> {
    let directory = File::open(directory).map_err(create("opening the container's directory"))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock)
        .map_err(|_| (Step::Create, "the container has a shim already".to_owned()))
}

fn own() -> io::Result<Process> {
    Process::of(std::process::id().cast_signed())
}

fn start(
    host: &Host,
    directory: &Path,
    config: &ContainerConfig,
    groups: &Groups<'_>,
) -> Result<(Running, OwnedFd, Output), Failure> {
    let streams = streams(directory, config).map_err(create("making the container's pipes"))?;
    let program = Program {
        host,
        config,
        args: &config.args,
        env: &[],
        cwd: &config.cwd,
        user: &config.user,
        streams,
        init: config.init,
    };
    let neighbour = |id: &ContainerId| neighbour(directory, id);
    let child = launch::container(host, (directory, config), groups, &neighbour, program)?;
    let terminal = child.channel.wait_ready()?;
    let output = match terminal {
        Some(ours) => Output::of_terminal(ours, config.log.clone()),
        None => Output::of_pipes(directory, config.log.clone()),
    };
    let output = output.map_err(create("opening the log"))?;
    let container =
        Process::of(child.pid).map_err(|error| failed_start(format!("the process is gone: {error}")))?;
    let shim = own().map_err(create("reading this process's state"))?;
    let running = Running { container, shim, at: now() };
    // Before the program runs: whoever finds the container later must be able to tell.
    save(&directory.join(STATE_FILE), &running).map_err(create("writing down the state"))?;
    child.channel.go()?;
    Ok((running, child.process, output))
}

fn streams(directory: &Path, config: &ContainerConfig) -> io::Result<Streams> {
    if config.tty {
        return Ok(Streams::Terminal { size: TERMINAL, console: true });
    }
    let stdin = match config.stdin_open {
        true => output::make_pipe(&directory.join("stdin"))?,
        false => File::open("/dev/null")?.into(),
    };
    let pipe = |name: &str| output::make_pipe(&directory.join(name));
    Ok(Streams::Pipes([stdin, pipe("stdout")?, pipe("stderr")?]))
}

/// Another container, in the directory beside this one's, if it runs.
fn neighbour(directory: &Path, id: &ContainerId) -> Option<Neighbour> {
    let running: Running = load(&directory.parent()?.join(id.as_str()).join(STATE_FILE)).ok()?;
    running.container.is_there().then_some(Neighbour { pid: running.container.pid })
}

/// Collects who has ended; the exit code of the container's first process.
fn collect(first: Option<i32>) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((ended, status))) = process::collect(None, libc::WNOHANG) {
        if Some(ended) == first {
            code = Some(status);
        }
    }
    code
}

/// How a process ended that was another's to collect. Older kernels tell nobody else.
fn told(process: &OwnedFd) -> Option<i32> {
    let start = Instant::now();
    loop {
        match process::exit_code(process) {
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) && start.elapsed() < COLLECT_WAIT => {
                std::thread::sleep(COLLECT_LOOK);
            }
            result => return result.ok(),
        }
    }
}

fn end(host: &Host, directory: &Path, config: &ContainerConfig, code: Option<i32>) -> Result<(), Failure> {
    let (hierarchies, group) = (host.hierarchies(), spec::cgroup(config));
    let out_of_memory = hierarchies.as_ref().is_ok_and(|all| all.killed_for_memory(&group));
    let exit = Exit { code, out_of_memory, at: now() };
    save(&directory.join(EXIT_FILE), &exit).map_err(create("writing down the end"))?;
    let hierarchies = hierarchies?;
    // In a process namespace of others what the container started lives on.
    hierarchies.kill(&group);
    let _ = collect(None);
    // The agent removes what is busy now.
    hierarchies.remove(&group);
    Ok(())
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
