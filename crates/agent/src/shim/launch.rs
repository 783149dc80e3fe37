//! Making processes in containers: the first one with its namespaces and control groups, and those beside it.
//!
//! The shim has one thread, so that its copies can go on in ordinary code. A copy is in its groups and namespaces before
//! it does anything for the container, cannot be looked into until it has become the program, and executes nothing of
//! the container's before it has all its restrictions.

use super::channel::{self, Failure, ToChild};
use super::clone;
use super::host::Host;
use super::mounts::{Flags, Mount};
use super::program::{Birth, Program};
use super::rootfs::{self, Shared};
use crate::runtime::cgroup::{Group, Hierarchies};
use crate::runtime::{ContainerConfig, ContainerId, Namespace, NetworkNamespace, Step, devices, spec};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A process that was made, before it becomes its program.
pub struct Child {
    pub pid: i32,
    pub process: OwnedFd,
    pub channel: ToChild,
}

fn create(what: &str) -> impl Fn(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| (Step::Create, format!("{what}: {error}"))
}

/// Another container of the task, which this one shares something with.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    pub pid: i32,
}

/// Namespaces of others that a container is to be in, and what shows of them in its file system.
#[derive(Default)]
struct Joined {
    network: Option<File>,
    pid: Option<File>,
    ipc: Option<File>,
    shared: Shared,
}

impl Joined {
    fn open(
        host: &Host,
        config: &ContainerConfig,
        neighbour: &dyn Fn(&ContainerId) -> Option<Neighbour>,
    ) -> Result<Joined, Failure> {
        let open =
            |path: PathBuf| File::open(&path).map_err(create(&format!("the namespace {}", path.display())));
        let find = |id: &ContainerId| {
            neighbour(id).ok_or_else(|| (Step::Create, format!("container {id} is not running")))
        };
        let of = |neighbour: Neighbour, name: &str| {
            open(PathBuf::from(format!("/proc/{}/ns/{name}", neighbour.pid))).map(Some)
        };
        let mut joined = Joined::default();
        match &config.network {
            NetworkNamespace::Path(path) => {
                let namespace = host.namespace(path);
                let what = format!("the namespace {}", path.display());
                joined.network = Some(namespace.map_err(create(&what))?);
            }
            NetworkNamespace::Container(id) => joined.network = of(find(id)?, "net")?,
            NetworkNamespace::Bridge => {
                return Err((
                    Step::Create,
                    "containers of this runtime have no bridge of its own".to_owned(),
                ));
            }
            NetworkNamespace::Host | NetworkNamespace::Isolated => {}
        }
        if let Namespace::Container(id) = &config.pid {
            let neighbour = find(id)?;
            joined.pid = of(neighbour, "pid")?;
            // Its own would have to be made by a process among those that are shared.
            let view = view_of(neighbour, Path::new("/proc"), libc::PROC_SUPER_MAGIC);
            joined.shared.proc = Some(view.map_err(create("the shared /proc"))?);
        }
        match &config.ipc {
            Namespace::Private => {}
            Namespace::Host => {
                let view = Mount::bind_path(Path::new("/dev/shm"), Flags::INERT);
                joined.shared.shm = Some(view.map_err(create("the host's /dev/shm"))?);
            }
            Namespace::Container(id) => {
                let neighbour = find(id)?;
                joined.ipc = of(neighbour, "ipc")?;
                let view = view_of(neighbour, Path::new("/dev/shm"), libc::TMPFS_MAGIC);
                joined.shared.shm = Some(view.map_err(create("the shared /dev/shm"))?);
            }
        }
        Ok(joined)
    }
}

/// A view of a file system of this kind in another container, taken by a process that goes there for it.
fn view_of(neighbour: Neighbour, path: &Path, kind: libc::c_long) -> io::Result<Mount> {
    let mounts = File::open(format!("/proc/{}/ns/mnt", neighbour.pid))?;
    let (ours, theirs) = channel::pair()?;
    let Some((pid, _)) = clone::child(0, None)? else {
        drop(ours);
        let taken = setns(&mounts, CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| Mount::view(path, Flags::INERT));
        match taken {
            Ok(view) => theirs.hand_over(view.into()),
            Err(error) => theirs.fail(&(Step::Create, error.to_string())),
        }
        std::process::exit(0)
    };
    drop(theirs);
    let taken = ours.wait_ready();
    // It has ended, or is about to.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
    match taken {
        // The container may have put something else there.
        Ok(Some(view)) if rustix::fs::fstatfs(&view)?.f_type == kind => Ok(view.into()),
        Ok(_) => Err(io::Error::other("it is not there")),
        Err((_, text)) => Err(io::Error::other(text)),
    }
}

/// The control groups of a container, for a process that joins them.
pub struct Groups<'a> {
    all: &'a Hierarchies,
    group: Group<'a>,
    /// Of version 1: see [`Group::entrances`].
    entrances: Vec<File>,
}

impl<'a> Groups<'a> {
    /// Makes a container's groups with its limits.
    pub fn make(all: &'a Hierarchies, config: &ContainerConfig) -> Result<Groups<'a>, Failure> {
        let rules = devices::rules(config).map_err(|text| (Step::Create, text))?;
        let group = all.make(&spec::cgroup(config)).map_err(create("making the control group"))?;
        group.limit_container(config).map_err(create("limiting the control group"))?;
        if let Some(rules) = rules {
            let restricted = match (group.unified(), group.place("devices")) {
                (Some(unified), _) => devices::restrict_second(unified.as_fd(), &rules),
                (None, Some(place)) => devices::restrict_first(place, &rules),
                (None, None) => Err(io::Error::new(io::ErrorKind::NotFound, "no such controller")),
            };
            restricted.map_err(create("restricting devices"))?;
        }
        Groups::open(all, group).map_err(create("opening the control group"))
    }

    /// Those of a container that is there.
    pub fn of(all: &'a Hierarchies, config: &ContainerConfig) -> io::Result<Groups<'a>> {
        Groups::open(all, all.find(&spec::cgroup(config))?)
    }

    fn open(all: &'a Hierarchies, group: Group<'a>) -> io::Result<Groups<'a>> {
        let entrances = if all.is_unified() { Vec::new() } else { group.entrances()? };
        Ok(Groups { all, group, entrances })
    }

    /// Moves the calling thread there, which is its process's only one. In version 2 it is born there.
    fn join(&self) -> io::Result<()> {
        self.entrances.iter().try_for_each(|mut entrance| entrance.write_all(b"0"))
    }

    /// The processes in the container's group; none when it is gone.
    pub fn members(&self) -> Vec<i32> {
        self.group.members()
    }
}

/// Makes a container's first process.
pub fn container(
    host: &Host,
    (directory, config): (&Path, &ContainerConfig),
    groups: &Groups<'_>,
    neighbour: &dyn Fn(&ContainerId) -> Option<Neighbour>,
    program: Program<'_>,
) -> Result<Child, Failure> {
    let joined = Joined::open(host, config, neighbour)?;
    let mut flags = CloneFlags::CLONE_NEWNS;
    if config.pid == Namespace::Private {
        flags |= CloneFlags::CLONE_NEWPID;
    }
    if config.ipc == Namespace::Private {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    // The host's name belongs to the host's network.
    match config.network {
        NetworkNamespace::Host => {}
        NetworkNamespace::Path(_) | NetworkNamespace::Container(_) => flags |= CloneFlags::CLONE_NEWUTS,
        NetworkNamespace::Isolated | NetworkNamespace::Bridge => {
            flags |= CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNET;
        }
    }
    let own_name = flags.contains(CloneFlags::CLONE_NEWUTS);
    let birth = if joined.pid.is_some() { Birth::Last } else { Birth::First };
    process(flags, groups, birth, program, move || {
        set_up(config, groups, &joined, own_name).map_err(create("setting up namespaces"))?;
        rootfs::enter(directory, config, groups.all, &joined.shared).map_err(|text| (Step::Create, text))
    })
}

fn set_up(config: &ContainerConfig, groups: &Groups<'_>, joined: &Joined, own_name: bool) -> io::Result<()> {
    for (namespace, kind) in [
        (&joined.network, CloneFlags::CLONE_NEWNET),
        (&joined.ipc, CloneFlags::CLONE_NEWIPC),
        // Takes effect for the next process.
        (&joined.pid, CloneFlags::CLONE_NEWPID),
    ] {
        if let Some(namespace) = namespace {
            setns(namespace, kind)?;
        }
    }
    // Not before the groups are joined: what it shows as the root is where the process is.
    groups.join()?;
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    if own_name && !config.hostname.is_empty() {
        nix::unistd::sethostname(&config.hostname)?;
    }
    if own_name && !config.domainname.is_empty() {
        let name = config.domainname.as_bytes();
        // SAFETY: the text is as long as said, and lives until the call returns.
        if unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    if config.network == NetworkNamespace::Isolated {
        loopback_up()?;
    }
    Ok(())
}

fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: a structure of numbers and bytes only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the structure lives until the call returns.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a process beside a container's own, which `first` is a descriptor of.
pub fn beside(groups: &Groups<'_>, first: &OwnedFd, program: Program<'_>) -> Result<Child, Failure> {
    process(CloneFlags::empty(), groups, Birth::Last, program, move || {
        groups.join().map_err(create("joining the control group"))?;
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(first, all).map_err(|error| create("the container's namespaces")(error.into()))?;
        std::env::set_current_dir("/").map_err(create("the container's root"))
    })
}

/// Makes a process that does the work, which takes it to the container's root and namespaces, and becomes the program.
fn process(
    flags: CloneFlags,
    groups: &Groups<'_>,
    birth: Birth,
    program: Program<'_>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<Child, Failure> {
    let (ours, theirs) = channel::pair().map_err(create("a channel to the container"))?;
    let made = clone::child(flags.bits().cast_unsigned().into(), groups.group.unified())
        .map_err(create("making the container's first process"))?;
    if let Some((pid, process)) = made {
        drop(theirs);
        let born = match birth {
            Birth::First => Ok((pid, process)),
            Birth::Last => {
                let born = ours.wait_born();
                // It has nothing more to do, whatever came of it.
                let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
                born
            }
        };
        return born.map(|(pid, process)| Child { pid, process, channel: ours });
    }
    drop(ours);
    let prepare = || -> io::Result<()> {
        nix::sys::prctl::set_dumpable(false)?;
        // Modes are meant as they are written here.
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        Ok(())
    };
    let done = prepare().map_err(create("preparing the first process")).and_then(|()| {
        work()?;
        let mut kept = program.descriptors();
        kept.push(theirs.as_raw_fd());
        close_all_but(kept).map_err(create("closing what is the host's"))?;
        program.become_it(&theirs, birth)
    });
    let Err(failure) = done;
    theirs.fail(&failure);
    std::process::exit(127)
}

/// Closes all descriptors but input, outputs, and these. Those that own others are never dropped: the process goes on to
/// execute its program, or exits.
fn close_all_but(mut kept: Vec<RawFd>) -> io::Result<()> {
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if fd > from {
            // SAFETY: takes numbers only; see above for who thinks to own them.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) };
            if closed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        from = from.max(fd.saturating_add(1));
    }
    Ok(())
}
