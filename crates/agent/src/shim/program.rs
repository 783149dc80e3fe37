//! The last steps before a program of a container: its terminal, limits, directory and user, the rights it keeps, the
//! filter of system calls, and the program itself. The same for the container's own and for those run beside it.

use super::channel::{Failure, ToShim, failed_start};
use super::host::Host;
use super::user;
use super::{clone, init, terminal};
use crate::runtime::spec::{self, Privileges, User};
use crate::runtime::{ContainerConfig, Rlimit, Step};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Descriptors that a program may have where its definition says nothing, as on Fargate: whatever the agent itself may
/// have, and at most as many.
const OPEN_FILES: u64 = 65_535;
const OPEN_FILES_LIMIT: &str = "RLIMIT_NOFILE";
/// The last of the kernel's signals.
const SIGNAL_MAX: libc::c_int = 64;

/// What a program reads from and writes to.
pub enum Streams {
    /// Standard input, output and error.
    Pipes([OwnedFd; 3]),
    /// One terminal of so many rows and columns; `console` makes it the container's `/dev/console` too.
    Terminal { size: (u16, u16), console: bool },
}

/// When the process that executes the program is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// It does everything itself.
    First,
    /// As the last step, by a process in between, which ends then. That is for process namespaces where others see it:
    /// who may trace processes there must find none that can do more than the container, or has something of the host's.
    Last,
}

/// A program to become.
pub struct Program<'a> {
    pub host: &'a Host,
    pub config: &'a ContainerConfig,
    pub args: &'a [String],
    /// Variables over the container's own.
    pub env: &'a [String],
    pub cwd: &'a str,
    pub user: &'a str,
    pub streams: Streams,
    /// Whether the calling process stays as the first one: see [`ContainerConfig::init`].
    pub init: bool,
}

impl Program<'_> {
    /// What it holds until it is executed.
    pub fn descriptors(&self) -> Vec<RawFd> {
        match &self.streams {
            Streams::Pipes(pipes) => pipes.iter().map(AsRawFd::as_raw_fd).collect(),
            Streams::Terminal { .. } => Vec::new(),
        }
    }

    /// Becomes the program once the shim agrees. Called in the container's root and namespaces, with all rights.
    ///
    /// # Errors
    /// When it cannot; otherwise there is no return.
    pub fn become_it(self, shim: &ToShim, birth: Birth) -> Result<std::convert::Infallible, Failure> {
        let create = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| (Step::Create, format!("{what}: {error}"))
        };
        let user = user::find(Path::new("/"), self.user).map_err(|text| (Step::Create, text))?;
        let master = self.set_streams(&user).map_err(create("setting up input and output"))?;
        let limits = &self.config.rlimits;
        let by_default = default_limit().filter(|limit| limits.iter().all(|named| named.name != limit.name));
        for limit in limits.iter().chain(&by_default) {
            set_limit(limit).map_err(|text| (Step::Create, text))?;
        }
        // Before the working directory is made.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        go_to(self.cwd)
            .map_err(|error| (Step::Create, format!("the working directory \"{}\": {error}", self.cwd)))?;
        reset_signals().map_err(|error| create("resetting signals")(error.into()))?;
        let env = spec::environment(self.config, self.env, &user.home);
        confine(self.host, spec::privileges(self.config, self.host.bounding_set), &user)
            .map_err(|error| failed_start(format!("cannot drop privileges: {error}")))?;
        let path = env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
        let words = |texts: &[String]| {
            let all = texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
            all.map_err(|_| failed_start("an argument or variable holds a NUL".to_owned()))
        };
        let found = match self.args.first() {
            Some(name) => Some(find(name, path).map_err(failed_start)?),
            None if self.init => None,
            None => return Err(failed_start("no command specified".to_owned())),
        };
        let file = found.as_ref().map(|file| file.to_string_lossy().into_owned());
        let (args, env) = (words(self.args)?, words(&env)?);
        if birth == Birth::Last {
            // A child of the shim, as if the shim itself had made it.
            if let Some((pid, process)) = clone::sibling().map_err(create("making the process"))? {
                shim.born(pid, &process);
                std::process::exit(0);
            }
            shim.wait_known();
        }
        nix::unistd::setsid().map_err(|error| create("beginning a session")(error.into()))?;
        if matches!(self.streams, Streams::Terminal { .. }) {
            terminal::take(&io::stdin()).map_err(create("taking the terminal"))?;
        }
        shim.ready(master);
        if self.init {
            init::split(file.is_some()).map_err(create("starting the first process"))?;
        }
        let file = words(&[file.unwrap_or_default()])?;
        let Err(errno) = nix::unistd::execve(&file[0], &args, &env);
        Err(failed_start(format!("exec {}: {}", self.args[0], errno.desc())))
    }

    fn set_streams(&self, user: &User) -> io::Result<Option<OwnedFd>> {
        match &self.streams {
            Streams::Pipes(pipes) => {
                for (number, pipe) in (0..).zip(pipes) {
                    give(pipe, user.uid)?;
                    replace(pipe, number)?;
                }
                close_others()?;
                Ok(None)
            }
            Streams::Terminal { size, console } => {
                let terminal = terminal::open(*size, user.uid)?;
                if *console {
                    terminal::make_console(&terminal.program)?;
                }
                for number in 0..3 {
                    replace(&terminal.program, number)?;
                }
                close_others()?;
                Ok(Some(terminal.ours))
            }
        }
    }
}

/// A pipe becomes the user's, who may open it anew as `/dev/stdout`. Other files are somebody's already.
fn give(pipe: &OwnedFd, uid: u32) -> io::Result<()> {
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(pipe)?.st_mode);
    if kind == rustix::fs::FileType::Fifo { std::os::unix::fs::fchown(pipe, Some(uid), None) } else { Ok(()) }
}

fn replace(fd: &OwnedFd, number: i32) -> io::Result<()> {
    // SAFETY: both are numbers; what was open under the second is ours to replace.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has every descriptor but the three closed when the program is executed: one that leaked would be a way to the host.
fn close_others() -> io::Result<()> {
    // SAFETY: takes numbers only.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many descriptors a program may have that names no limit.
fn default_limit() -> Option<Rlimit> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let most = most.min(OPEN_FILES);
    Some(Rlimit { name: OPEN_FILES_LIMIT.to_owned(), soft: most, hard: most })
}

fn set_limit(limit: &Rlimit) -> Result<(), String> {
    const NAMES: [(&str, libc::__rlimit_resource_t); 16] = [
        ("AS", libc::RLIMIT_AS),
        ("CORE", libc::RLIMIT_CORE),
        ("CPU", libc::RLIMIT_CPU),
        ("DATA", libc::RLIMIT_DATA),
        ("FSIZE", libc::RLIMIT_FSIZE),
        ("LOCKS", libc::RLIMIT_LOCKS),
        ("MEMLOCK", libc::RLIMIT_MEMLOCK),
        ("MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        ("NICE", libc::RLIMIT_NICE),
        ("NOFILE", libc::RLIMIT_NOFILE),
        ("NPROC", libc::RLIMIT_NPROC),
        ("RSS", libc::RLIMIT_RSS),
        ("RTPRIO", libc::RLIMIT_RTPRIO),
        ("RTTIME", libc::RLIMIT_RTTIME),
        ("SIGPENDING", libc::RLIMIT_SIGPENDING),
        ("STACK", libc::RLIMIT_STACK),
    ];
    let name = limit.name.strip_prefix("RLIMIT_").unwrap_or(&limit.name);
    let resource = NAMES.iter().find(|(known, _)| *known == name);
    let (_, resource) = resource.ok_or_else(|| format!("unknown limit {}", limit.name))?;
    let values = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: the structure lives until the call returns.
    match unsafe { libc::setrlimit(*resource, std::ptr::from_ref(&values)) } {
        0 => Ok(()),
        _ => Err(format!(
            "error setting rlimit type {}: {}",
            name.to_ascii_lowercase(),
            io::Error::last_os_error()
        )),
    }
}

/// Enters the working directory, which is made where there is none, as Docker does. It must lie in the container: a
/// descriptor of the host's that stayed open could be named here.
fn go_to(cwd: &str) -> io::Result<()> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not absolute"));
    }
    match std::env::set_current_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(cwd)?;
            std::env::set_current_dir(cwd)?;
        }
        other => other?,
    }
    match std::env::current_dir() {
        // The kernel says "(unreachable)" of what is not below the root.
        Ok(path) if path.is_absolute() => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not in the container")),
    }
}

/// Programs expect no signal to be blocked or ignored; this process ignores SIGPIPE, and whatever the agent was started
/// to ignore, such as Ctrl-C in the background of a shell.
fn reset_signals() -> nix::Result<()> {
    for number in 1..=SIGNAL_MAX {
        // SAFETY: sets no handler. What cannot be set is as it has to be.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The file that a command means, or why there is none, in Docker's words.
fn find(name: &str, path: &str) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let look = |file: &Path| match std::fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("exec: \"{name}\": stat {}: no such file or directory", file.display()))
        }
        Err(error) => Err(format!("exec: \"{name}\": {error}")),
        Ok(metadata) if metadata.is_dir() => Err(format!("exec: \"{name}\": is a directory")),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Err(format!("exec: \"{name}\": permission denied"))
        }
        Ok(_) => Ok(file.to_owned()),
    };
    if name.contains('/') {
        return look(Path::new(name));
    }
    let found =
        path.split(':').filter(|dir| !dir.is_empty()).find_map(|dir| look(&Path::new(dir).join(name)).ok());
    found.ok_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH"))
}

/// Leaves the calling thread, which is the process's only one, what the container may have.
fn confine(host: &Host, privileges: Privileges, user: &User) -> io::Result<()> {
    let kept = privileges.capabilities;
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    for number in 0..=63_u32 {
        // SAFETY: takes numbers only.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
        if known < 0 {
            // Behind the kernel's last.
            break;
        }
        if known == 1 && kept.bits() & 1 << number == 0 {
            // SAFETY: takes numbers only.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) })?;
        }
    }
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    if privileges.no_new_privileges {
        // SAFETY: takes numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    let groups: Vec<libc::gid_t> = user.additional_gids.clone();
    // SAFETY: the list is as long as said, and lives until the call returns.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresgid(user.gid, user.gid, user.gid) })?;
    // The filter takes CAP_SYS_ADMIN to load, and the change of user takes that away.
    if privileges.filter_system_calls {
        load_filter(&host.filter(privileges.capabilities))?;
    }
    // SAFETY: takes numbers only.
    check(unsafe { libc::setresuid(user.uid, user.uid, user.uid) })?;
    // Who is not root has none of its own, as in Docker; what it may gain is bounded by what is kept.
    let own = if user.uid == 0 { kept.bits() } else { 0 };
    set_capabilities(own)
}

fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
        // The kernel reads it only.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` and the program it points to live until the call returns, which copies both.
    let loaded = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&filter))
    };
    if loaded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// capset(2) for the calling thread: effective and permitted, nothing to inherit.
fn set_capabilities(bits: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        let half = (bits >> shift) as u32;
        Data { effective: half, permitted: half, inheritable: 0 }
    };
    let data = [half(0), half(32)];
    // SAFETY: both structures are the kernel's of this version, and live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_ref(&header), data.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
