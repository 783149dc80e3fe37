//! Copies of this process, which has one thread: so they can go on in ordinary code.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The other process: its number and a descriptor of it.
pub type Made = (i32, OwnedFd);

/// clone3(2) like fork(2), with namespaces and, in version 2, into a control group. `None` in the copy.
pub fn child(flags: u64, group: Option<&OwnedFd>) -> io::Result<Option<Made>> {
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
    made(pid, process)
}

/// A copy whose parent is this process's parent. `None` in the copy. By clone(2): containers' filters of system calls let
/// it pass.
pub fn sibling() -> io::Result<Option<Made>> {
    let mut process: libc::c_int = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD;
    // SAFETY: the copy shares no memory, so that it needs no stack of its own; the number outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, std::ptr::from_mut(&mut process), 0, 0) };
    made(pid, process)
}

fn made(pid: libc::c_long, process: libc::c_int) -> io::Result<Option<Made>> {
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        // SAFETY: the descriptor was just made, and is nobody else's.
        pid => Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(process) }))),
    }
}
