//! Processes by number and start, and by descriptors: neither can be mistaken for another process.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A process that cannot be mistaken for another of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// Reads when a process was started.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(pid: i32) -> io::Result<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let started = field(&stat, 22).and_then(|text| text.parse().ok());
        started
            .map(|started| Process { pid, started })
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Whether it is still this one.
    pub fn is_there(self) -> bool {
        Process::of(self.pid).is_ok_and(|now| now == self)
    }

    /// A descriptor of exactly this process; `None` when it is gone.
    pub fn open(self) -> Option<OwnedFd> {
        let fd = open(self.pid).ok()?;
        // The number may have been given to another process; not so once the descriptor is open.
        self.is_there().then_some(fd)
    }
}

/// Whether a process is in a session, and has not ended without being collected.
pub fn lives_in_session(pid: i32, session: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    field(&stat, 6).is_some_and(|text| text.parse() == Ok(session)) && field(&stat, 3) != Some("Z")
}

/// A field of `/proc/PID/stat`, numbered as in proc(5), behind the second: that is the name, which may hold anything.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, behind) = stat.rsplit_once(") ")?;
    behind.split(' ').nth(number - 3)
}

/// A descriptor of the process that has this number now. Reads of it do not block.
///
/// # Errors
/// When there is none.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor from a number.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, libc::PIDFD_NONBLOCK) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })
}

/// Signals a process. One that is gone is no error.
pub fn signal(process: &OwnedFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; no signal information is given.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
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
pub fn exit_code(process: &OwnedFd) -> io::Result<i32> {
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
    let result = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, std::ptr::from_mut(&mut info)) };
    match result {
        0 if info.mask & INFO_EXIT != 0 => {}
        0 => return Err(io::Error::from_raw_os_error(libc::ENODATA)),
        _ => return Err(io::Error::last_os_error()),
    }
    Ok(code_of(info.exit_code))
}

/// Collects a child that has ended, this one or whichever: its number and exit code. With `WNOHANG` among the options,
/// none while none has ended. Not `nix`'s: real-time signals, which end processes too, have no name there.
///
/// # Errors
/// ECHILD when there is no such child.
pub fn collect(child: Option<i32>, options: libc::c_int) -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    loop {
        // SAFETY: the number lives until the call returns. -1: any child.
        match unsafe { libc::waitpid(child.unwrap_or(-1), std::ptr::from_mut(&mut status), options) } {
            0 => return Ok(None),
            pid if pid > 0 => return Ok(Some((pid, code_of(status)))),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

/// The exit code that a status of wait(2) stands for, as shells tell it.
fn code_of(status: libc::c_int) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_cannot_feign_fields() {
        let stat = "7 (a) S 1 (b) R 2 3 4 5";
        assert_eq!(field(stat, 3), Some("R"));
        assert_eq!(field(stat, 6), Some("4"));
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_there() && own.open().is_some());
        assert!(Process { started: own.started + 1, ..own }.open().is_none());
    }
}
