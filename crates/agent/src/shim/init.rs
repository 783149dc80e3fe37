//! The first process of a container that asked for one: it passes signals on to the program, collects what others leave
//! behind, and ends as the program does.
//!
//! It is the process that made the container, not a program of its own: nothing must be found in the image or mounted
//! there. It is as confined as the program, holds no descriptor of the host's, and cannot be looked into.

use crate::runtime::process;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};
use std::io;

/// Splits the calling process: the child returns, to become the program; the parent stays. Without a program nobody
/// returns, and the parent stays until SIGTERM.
pub fn split(program: bool) -> io::Result<()> {
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
    let child = if program {
        // SAFETY: the process has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
                // As from a shell: Ctrl-C is for the program's group. Without a terminal there is nothing to hand over.
                let own = Pid::from_raw(0);
                if nix::unistd::setpgid(own, own).is_ok() {
                    hand_over_terminal(nix::unistd::getpid());
                }
                return Ok(());
            }
            ForkResult::Parent { child } => Some(child.as_raw()),
        }
    } else {
        None
    };
    close_all()?;
    // SAFETY: names the process for who lists processes; the text is shorter than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"init".as_ptr()) };
    std::process::exit(stay(child, &all))
}

/// Makes a group the one in the foreground. Who asks is in the background, which the signal for that would stop.
fn hand_over_terminal(group: Pid) {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTTOU);
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None);
    // Not a terminal is the usual case.
    let _ = nix::unistd::tcsetpgrp(io::stdin(), group);
    let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None);
}

/// Closes all but input and outputs: the channel, for whose end the shim waits, and what is the host's.
fn close_all() -> io::Result<()> {
    // SAFETY: takes numbers only; the process goes on in a loop that uses no descriptor.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for signals; returns the program's exit code.
fn stay(child: Option<i32>, all: &SigSet) -> i32 {
    loop {
        let mut signal = 0;
        // SAFETY: both live until the call returns. By numbers, as real-time signals have no names.
        if unsafe { libc::sigwait(all.as_ref(), std::ptr::from_mut(&mut signal)) } != 0 {
            continue;
        }
        match (signal, child) {
            (libc::SIGCHLD, _) => {
                if let Some(code) = collect(child) {
                    return code;
                }
            }
            (signal, Some(child)) => {
                // SAFETY: takes numbers only. Its end is seen by the next SIGCHLD.
                let _ = unsafe { libc::kill(child, signal) };
            }
            (libc::SIGTERM | libc::SIGINT, None) => return 0,
            (_, None) => {}
        }
    }
}

/// Collects who has ended; the child's exit code when it is among them.
fn collect(child: Option<i32>) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((ended, status))) = process::collect(None, libc::WNOHANG) {
        if Some(ended) == child {
            code = Some(status);
        }
    }
    code
}
