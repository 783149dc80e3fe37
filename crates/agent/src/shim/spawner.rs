//! The spawner: a process of the agent's binary that does nothing but to copy itself into shims. Its standard input is
//! the agent's socket, over which the sockets of orders come, one in each message. It ends with the agent; shims go on.

use super::channel::{self, Failure};
use super::host::{self, Host};
use super::mounts::{Flags, Mount};
use super::orders::{self, Order, Report};
use super::{beside, keeper};
use crate::runtime::{Step, process};
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, fork};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

/// The control group of spawners and shims. Not the agent's: a service manager that ends the agent by its group must not
/// end them.
pub const GROUP: &str = "/gantry-shims";
const JOIN_TRIES: usize = 3;
/// The argument of a spawner that has started itself once more: see [`seal`].
const SEALED: &str = "sealed";

/// Runs the spawner.
pub fn main(arguments: &[String]) -> ExitCode {
    let done = match arguments {
        [] => seal(),
        [word, namespaces] if word == SEALED => match namespaces.parse() {
            Ok(namespaces) => serve(&Host::find(namespaces)),
            Err(_) => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        },
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry shim (the agent's own): {error}");
            // The agent reads it when it finds the spawner gone. Somebody else's standard input is no such socket.
            let text = format!("starting the spawner of shims: {error}");
            let _ = orders::send(&io::stdin(), &Report::Failed { step: Step::Create, text }, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Executes this program again by a view of its file that nobody can write through. Containers' first processes are
/// copies of this one: what they could reach of it would be the agent's binary on the host.
fn seal() -> io::Result<()> {
    // Found by its mount, which is of the namespace that is left now.
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let own = Mount::from(open_tree(rustix::fs::CWD, "/proc/self/exe", how)?);
    own.restrict(Flags::READ_ONLY)?;
    let namespaces = host::hold_namespaces();
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    // Mounts of the host still come here; ours vanish with us and the containers.
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)?;
    host::leave_namespaces();
    let namespaces = CString::new(namespaces.to_string())?;
    let words = [c"gantry", c"shim", c"sealed", &namespaces];
    let nothing: [&CStr; 0] = [];
    let Err(error) = nix::unistd::execveat(&own, c"", &words, &nothing, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    Err(error.into())
}

fn serve(host: &Host) -> io::Result<()> {
    // SAFETY: names the process for who lists processes; the text is shorter than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"gantry-shim".as_ptr()) };
    let agent = take_input()?;
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    // The program of a container inherits the mask; Docker's is this one.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    leave_agents_group(host);
    // Shims are nobody's to wait for, nor are containers whose shims were killed: they come here rather than to a first
    // process of the host that may take its time, and until somebody has collected them nobody is told how they ended.
    handle_children(SigHandler::SigIgn)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    loop {
        let (message, mut fds) = channel::receive(&agent, 1)?;
        if message.is_empty() {
            return Ok(());
        }
        let Some(socket) = fds.pop() else { continue };
        // SAFETY: the process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => {}
            Ok(ForkResult::Child) => {
                drop(agent);
                shim(host, socket);
                std::process::exit(0)
            }
            Err(error) => {
                let text = format!("making a shim: {error}");
                // An agent that is gone needs to know nothing.
                let _ = orders::send(&socket, &Report::Failed { step: Step::Create, text }, &[]);
            }
        }
    }
}

/// Takes what is standard input, and puts /dev/null there.
fn take_input() -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor from a number.
    let own = unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) };
    if own < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and is nobody else's.
    let own = unsafe { OwnedFd::from_raw_fd(own) };
    let nothing = File::open("/dev/null")?;
    // SAFETY: both are numbers; what was open under the second has just been copied.
    unsafe { libc::dup2(nothing.as_raw_fd(), 0) };
    Ok(own)
}

fn handle_children(handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: no function of ours is called by the signal.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(drop).map_err(io::Error::from)
}

/// Where that is not possible shims stay with the agent, which is right for who gave the agent a group of its own.
fn leave_agents_group(host: &Host) {
    if let Ok(hierarchies) = host.hierarchies() {
        // Another agent that ends may remove it in between.
        for _ in 0..JOIN_TRIES {
            if hierarchies.join(GROUP).is_ok() {
                break;
            }
        }
    }
}

/// The shim's end of an order's socket.
pub struct Agent(Option<OwnedFd>);

impl Agent {
    /// An agent that is gone needs to know nothing: the files tell.
    pub fn tell(&self, report: &Report, fds: &[RawFd]) {
        if let Some(socket) = &self.0 {
            let _ = orders::send(socket, report, fds);
        }
    }

    /// Nothing more is to be told.
    pub fn hang_up(&mut self) {
        self.0 = None;
    }

    /// The socket, to see when nobody listens any more.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}

/// What a copy does: the one order that its socket brings.
fn shim(host: &Host, socket: OwnedFd) {
    let begun = begin(&socket);
    let mut agent = Agent(Some(socket));
    let done = begun.and_then(|order| match order {
        None => Ok(()),
        Some((Order::Run { directory }, _)) => keeper::run(host, &directory, &mut agent),
        Some((Order::Resume { directory }, _)) => keeper::resume(host, &directory, &mut agent),
        Some((Order::Exec { directory, request }, streams)) => {
            beside::run(host, &directory, &request, streams, &agent)
        }
    });
    if let Err((step, text)) = done {
        agent.tell(&Report::Failed { step, text }, &[]);
    }
}

fn begin(socket: &OwnedFd) -> Result<Option<(Order, Vec<OwnedFd>)>, Failure> {
    let prepare = || {
        handle_children(SigHandler::SigDfl)?;
        nix::unistd::setsid()?;
        // What containers leave behind becomes ours to wait for.
        nix::sys::prctl::set_child_subreaper(true)?;
        let own = process::open(std::process::id().cast_signed())?;
        orders::send(socket, &Report::Shim, &[own.as_raw_fd()])?;
        orders::receive(socket)
    };
    prepare().map_err(|error: io::Error| (Step::Create, format!("preparing the shim: {error}")))
}
