//! Pseudo terminals of containers' programs, made in the container's own `/dev/pts`.

use super::mounts::{Flags, Mount, Root};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Both ends.
pub struct Pair {
    pub ours: OwnedFd,
    pub program: OwnedFd,
}

/// Makes a terminal of so many rows and columns for a user.
pub fn open(size: (u16, u16), uid: u32) -> io::Result<Pair> {
    let ours = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/pts/ptmx")?;
    let unlocked: libc::c_int = 0;
    // SAFETY: the number lives until the call returns.
    check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, std::ptr::from_ref(&unlocked)) })?;
    let ours = OwnedFd::from(ours);
    let program = other_end(&ours)?;
    std::os::unix::fs::fchown(&program, Some(uid), None)?;
    resize(&ours, size)?;
    Ok(Pair { ours, program })
}

/// Opens the program's end of a terminal.
pub fn other_end(ours: &OwnedFd) -> io::Result<OwnedFd> {
    // By descriptor: a name could mean something else by now.
    let how = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes numbers only.
    let program = check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, how) })?;
    // SAFETY: the descriptor was just made, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Sets the rows and columns.
///
/// # Errors
/// When the terminal is gone.
pub fn resize(terminal: &impl AsFd, (rows, columns): (u16, u16)) -> io::Result<()> {
    let terminal = terminal.as_fd();
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives until the call returns.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(&size)) })?;
    Ok(())
}

/// Makes it the terminal of the calling process's session.
pub fn take(terminal: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Has it appear as `/dev/console` too, where some programs write.
pub fn make_console(terminal: &OwnedFd) -> io::Result<()> {
    let view = Mount::bind(terminal, Path::new(""), Flags::default())?;
    let root = Root::open(Path::new("/"))?;
    let place = match root.find_plain("dev/console") {
        Err(rustix::io::Errno::NOENT) => root.place("dev/console", false)?,
        // A link there, in a volume over /dev, is an error: what it leads to must stay as it is.
        other => other?,
    };
    view.attach(place)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
