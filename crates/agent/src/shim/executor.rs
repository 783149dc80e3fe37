//! The last steps before a container's program: it is found, rights that only the way here needed are dropped, the
//! filter of system calls is loaded, and the program executed.
//!
//! Runs in the container's first process, in its namespaces and root file system.

use crate::runtime::seccomp;
use crate::runtime::spec::Privileges;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};
use oci_spec::runtime::Spec;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone)]
pub struct FilteringExecutor {
    pub privileges: Privileges,
}

impl Executor for FilteringExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let invalid = |text: String| ExecutorValidationError::ArgValidationError(text);
        let process = spec.process().as_ref().ok_or_else(|| invalid("no process".to_owned()))?;
        let name = process.args().as_ref().and_then(|args| args.first());
        let name = name.ok_or_else(|| invalid("no command specified".to_owned()))?;
        find(name, path_of(spec)).map(drop).map_err(invalid)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failed = |text: String| ExecutorError::Other(text);
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let program = find(args.first().ok_or(ExecutorError::InvalidArg)?, path_of(spec)).map_err(failed)?;
        let c_string = |text: &str| CString::new(text).map_err(|_| ExecutorError::InvalidArg);
        let program = c_string(&program.to_string_lossy())?;
        let args = args.iter().map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
        if self.privileges.read_only_sys {
            seal_sys().map_err(|error| failed(format!("cannot make /sys read-only: {error}")))?;
        }
        confine(self.privileges).map_err(|error| failed(format!("cannot drop privileges: {error}")))?;
        let Err(errno) = nix::unistd::execv(&program, &args);
        Err(failed(format!("exec {program:?}: {errno}")))
    }
}

fn path_of(spec: &Spec) -> &str {
    let env = spec.process().as_ref().and_then(|process| process.env().as_ref());
    env.and_then(|env| env.iter().find_map(|pair| pair.strip_prefix("PATH="))).unwrap_or_default()
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

/// Makes every mount at and below /sys read-only. libcontainer mounts control groups of version 1 writable whatever the
/// specification says, and who can write them has no limits.
fn seal_sys() -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // The fifth field is where it is mounted; names there are the kernel's, without blanks.
    let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    for target in targets.filter(|target| *target == "/sys" || target.starts_with("/sys/")) {
        let flags = MsFlags::MS_REMOUNT
            | MsFlags::MS_BIND
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)?;
    }
    Ok(())
}

/// Leaves the calling thread, which is the process's only one, what the container may have.
fn confine(privileges: Privileges) -> io::Result<()> {
    let kept = privileges.capabilities;
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    for (name, number) in [("SYS_ADMIN", 21), ("SETPCAP", 8)] {
        if !kept.has(name) {
            // SAFETY: takes numbers only.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) })?;
        }
    }
    if privileges.no_new_privileges {
        // SAFETY: takes numbers only.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    }
    if privileges.filter_system_calls {
        let mut program = seccomp::program(kept);
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: `filter` and the program it points to live until the call returns, which copies both.
        let loaded = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&filter))
        };
        if loaded != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Who is not root has none of its own, as in Docker; what it may gain is bounded by what is kept.
    let own = if privileges.is_root { kept.bits() } else { 0 };
    set_capabilities(own)
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
