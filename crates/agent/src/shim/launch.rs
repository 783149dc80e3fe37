//! Making processes in containers: the first one with its namespaces and control groups, and those beside it.
//!
//! The shim has one thread, so that its copies can go on in ordinary code. A copy is in its groups and namespaces before
//! it does anything for the container, cannot be looked into until it has become the program, and executes nothing of
//! the container's before it has all its restrictions.

use super::channel::{self, Failure, ToChild, ToShim};
use super::mounts::Mount;
use super::program::Program;
use super::rootfs;
use crate::runtime::cgroup::Hierarchies;
use crate::runtime::{ContainerConfig, ContainerId, Namespace, NetworkNamespace, Step, devices, spec};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A process that was made, before it becomes its program.
pub struct Child {
    pub pid: i32,
    pub process: OwnedFd,
    pub channel: ToChild,
}

/// What a copy of this process does until it is a program, in the container's root.
type Work<'a> = dyn FnOnce(&ToShim) -> Result<std::convert::Infallible, Failure> + 'a;

fn create(what: &str) -> impl Fn(io::Error) -> Failure {
    let what = what.to_owned();
    move |error| (Step::Create, format!("{what}: {error}"))
}

/// Another container of the task, which this one shares something with.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    pub pid: i32,
}

/// Namespaces of others that a container is to be in.
#[derive(Default)]
struct Joined {
    network: Option<File>,
    pid: Option<File>,
    ipc: Option<File>,
    shm: Option<Mount>,
}

impl Joined {
    fn open(
        config: &ContainerConfig,
        neighbour: &dyn Fn(&ContainerId) -> Option<Neighbour>,
    ) -> Result<Joined, Failure> {
        let open = |path: PathBuf| {
            File::open(&path).map(Some).map_err(create(&format!("the namespace {}", path.display())))
        };
        let of = |namespace: &Namespace, name: &str| match namespace {
            Namespace::Private | Namespace::Host => Ok(None),
            Namespace::Path(path) => open(path.clone()),
            Namespace::Container(id) => match neighbour(id) {
                Some(Neighbour { pid }) => open(PathBuf::from(format!("/proc/{pid}/ns/{name}"))),
                None => Err((Step::Create, format!("container {id} is not running"))),
            },
        };
        let network = match &config.network {
            NetworkNamespace::Path(path) => open(path.clone())?,
            NetworkNamespace::Host | NetworkNamespace::Isolated => None,
        };
        let shm = match &config.ipc {
            Namespace::Host => Some(
                Mount::bind_path(Path::new("/dev/shm"), super::mounts::Flags::INERT)
                    .map_err(create("the host's /dev/shm"))?,
            ),
            Namespace::Container(id) => match neighbour(id) {
                Some(neighbour) => Some(neighbours_shm(neighbour).map_err(create("the shared /dev/shm"))?),
                None => None,
            },
            Namespace::Private | Namespace::Path(_) => None,
        };
        Ok(Joined { network, pid: of(&config.pid, "pid")?, ipc: of(&config.ipc, "ipc")?, shm })
    }
}

/// A view of another container's `/dev/shm`, taken by a process that goes there for it.
fn neighbours_shm(neighbour: Neighbour) -> io::Result<Mount> {
    let mounts = File::open(format!("/proc/{}/ns/mnt", neighbour.pid))?;
    let (ours, theirs) = channel::pair()?;
    let child = copy(CloneFlags::empty().bits().cast_unsigned().into(), None)?;
    let Some(child) = child else {
        drop(ours);
        let taken = setns(&mounts, CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| Mount::bind_path(Path::new("/dev/shm"), super::mounts::Flags::INERT));
        match taken {
            Ok(view) => theirs.hand_over(view.into()),
            Err(error) => theirs.fail(&(Step::Create, error.to_string())),
        }
        std::process::exit(0)
    };
    drop(theirs);
    let taken = ours.wait_ready();
    // It has ended, or is about to.
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.0), None);
    match taken {
        Ok(Some(view)) => Ok(view.into()),
        Ok(None) => Err(io::Error::other("it is not there")),
        Err((_, text)) => Err(io::Error::other(text)),
    }
}

/// The control groups of a container, for a process that joins them.
pub struct Groups {
    all: Hierarchies,
    group: String,
    /// Of version 1.
    files: Vec<File>,
    /// Of version 2: processes are born in it.
    unified: Option<File>,
}

impl Groups {
    /// Makes a container's groups with its limits.
    pub fn make(config: &ContainerConfig) -> Result<Groups, Failure> {
        let all = Hierarchies::of_host().map_err(create("looking for control groups"))?;
        let group = spec::cgroup(config);
        let rules = devices::rules(config).map_err(|text| (Step::Create, text))?;
        all.make(&group).map_err(create("making the control group"))?;
        all.limit_container(&group, config).map_err(create("limiting the control group"))?;
        let groups = Groups::open(all, &group).map_err(create("opening the control group"))?;
        if let Some(rules) = rules {
            let restricted = match (&groups.unified, groups.all.directory("devices", &group)) {
                (Some(unified), _) => devices::restrict_second(std::os::fd::AsFd::as_fd(unified), &rules),
                (None, Some(directory)) => devices::restrict_first(&directory, &rules),
                (None, None) => Err(io::Error::new(io::ErrorKind::NotFound, "no such controller")),
            };
            restricted.map_err(create("restricting devices"))?;
        }
        Ok(groups)
    }

    /// Those of a container that is there.
    pub fn of(config: &ContainerConfig) -> io::Result<Groups> {
        Groups::open(Hierarchies::of_host()?, &spec::cgroup(config))
    }

    fn open(all: Hierarchies, group: &str) -> io::Result<Groups> {
        let directories = all.directories(group);
        if all.is_unified() {
            let (directory, _) = &directories[0];
            let unified = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?;
            return Ok(Groups { all, group: group.to_owned(), files: Vec::new(), unified: Some(unified) });
        }
        let open =
            |(directory, _): &(PathBuf, String)| File::options().write(true).open(directory.join("tasks"));
        let files = directories.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Groups { all, group: group.to_owned(), files, unified: None })
    }

    /// Moves the calling thread there, which is its process's only one. Other than a process, a thread that moves itself
    /// need not wait for the whole machine: that took ten milliseconds at times.
    fn join(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|mut file| file.write_all(b"0"))
    }

    /// The processes in the container's group; none when it is gone.
    pub fn members(&self) -> Vec<i32> {
        self.all.members(&self.group)
    }
}

/// Makes a container's first process.
pub fn container(
    directory: &Path,
    config: &ContainerConfig,
    groups: &Groups,
    neighbour: &dyn Fn(&ContainerId) -> Option<Neighbour>,
    program: Program<'_>,
) -> Result<Child, Failure> {
    let joined = Joined::open(config, neighbour)?;
    let mut flags = CloneFlags::CLONE_NEWNS;
    match (&config.pid, &joined.pid) {
        (Namespace::Private, _) => flags |= CloneFlags::CLONE_NEWPID,
        (_, Some(namespace)) => {
            // Takes effect for the next process.
            setns(namespace, CloneFlags::CLONE_NEWPID)
                .map_err(|error| create("the shared process namespace")(error.into()))?;
        }
        (_, None) => {}
    }
    if config.ipc == Namespace::Private {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    // The host's name belongs to the host's network.
    match config.network {
        NetworkNamespace::Host => {}
        NetworkNamespace::Path(_) => flags |= CloneFlags::CLONE_NEWUTS,
        NetworkNamespace::Isolated => flags |= CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNET,
    }
    let own_name = flags.contains(CloneFlags::CLONE_NEWUTS);
    process(flags, groups, move |shim| {
        set_up(config, groups, &joined, own_name).map_err(create("setting up namespaces"))?;
        rootfs::enter(directory, config, &groups.all, joined.shm.as_ref())
            .map_err(|text| (Step::Create, text))?;
        program.become_it(shim)
    })
}

fn set_up(config: &ContainerConfig, groups: &Groups, joined: &Joined, own_name: bool) -> io::Result<()> {
    for (namespace, kind) in
        [(&joined.network, CloneFlags::CLONE_NEWNET), (&joined.ipc, CloneFlags::CLONE_NEWIPC)]
    {
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
pub fn beside(groups: &Groups, first: &OwnedFd, program: Program<'_>) -> Result<Child, Failure> {
    setns(first, CloneFlags::CLONE_NEWPID)
        .map_err(|error| create("the container's process namespace")(error.into()))?;
    process(CloneFlags::empty(), groups, move |shim| {
        groups.join().map_err(create("joining the control group"))?;
        let rest = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWCGROUP;
        setns(first, rest).map_err(|error| create("the container's namespaces")(error.into()))?;
        std::env::set_current_dir("/").map_err(create("the container's root"))?;
        program.become_it(shim)
    })
}

fn process<'a>(
    flags: CloneFlags,
    groups: &Groups,
    work: impl FnOnce(&ToShim) -> Result<std::convert::Infallible, Failure> + 'a,
) -> Result<Child, Failure> {
    let work: Box<Work<'a>> = Box::new(work);
    let (ours, theirs) = channel::pair().map_err(create("a channel to the container"))?;
    let made = copy(flags.bits().cast_unsigned().into(), groups.unified.as_ref())
        .map_err(create("making the container's first process"))?;
    if let Some((pid, process)) = made {
        return Ok(Child { pid, process, channel: ours });
    }
    drop(ours);
    let prepared = || -> io::Result<()> {
        nix::sys::prctl::set_dumpable(false)?;
        nix::unistd::setsid()?;
        // Modes are meant as they are written here.
        nix::sys::stat::umask(nix::sys::stat::Mode::empty());
        Ok(())
    };
    let result = prepared().map_err(create("preparing the first process")).and_then(|()| work(&theirs));
    let Err(failure) = result;
    theirs.fail(&failure);
    std::process::exit(127)
}

/// clone3(2) like fork(2), with namespaces and, in version 2, into a control group. `None` in the copy.
fn copy(flags: u64, group: Option<&File>) -> io::Result<Option<(i32, OwnedFd)>> {
    const INTO_GROUP: u64 = 1 << 33;
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut process: libc::c_int = -1;
    let mut arguments = Arguments {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: std::ptr::from_mut(&mut process) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Arguments::default()
    };
    if let Some(group) = group {
        arguments.flags |= INTO_GROUP;
        arguments.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: the structure is as large as said; the copy shares no memory, and this process has one thread.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(&mut arguments), size_of::<Arguments>())
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the descriptor was just made, and is nobody else's.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(process) }))),
    }
}
