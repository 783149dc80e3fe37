//! One direction of a TCP connection. What comes in small pieces is copied; what keeps filling the buffer goes through
//! a pipe within the kernel, and never comes into this process.

use super::super::clock::Watch;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// So many full buffers in a row are bulk, which is worth a pipe.
const FULL_BUFFERS: u32 = 4;
/// Asked of the kernel for a pipe, which holds so much at most while its receiver is slow: measured, a quarter of it
/// costs a fourth more processor time. The kernel may give less.
const PIPE: usize = 1024 * 1024;

/// Moves everything from one connection to the other, until the first one ends; then ends the second one's half, unless
/// the other direction has ended before, as `half` tells both.
///
/// # Errors
/// When either side breaks.
pub async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    scratch: &RefCell<Box<[u8]>>,
    half: &Cell<bool>,
    watch: &Watch,
    moved: &Cell<u64>,
) -> io::Result<()> {
    let mut full = 0;
    // What the receiver did not take at once: the buffer that pieces pass through is everybody's.
    let mut left = Vec::new();
    while full < FULL_BUFFERS {
        from.readable().await?;
        let count = match pass(from, to, &mut scratch.borrow_mut(), &mut left) {
            Ok(0) => return end(to, half),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        full = if count == scratch.borrow().len() { full + 1 } else { 0 };
        while !left.is_empty() {
            to.writable().await?;
            match to.try_write(&left) {
                Ok(count) => drop(left.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        watch.touch();
        moved.set(moved.get() + count as u64);
    }
    drop(left);
    let (out, into) = pipe()?;
    loop {
        from.readable().await?;
        let count = match from.try_io(Interest::READABLE, || splice(from, &into, PIPE)) {
            Ok(0) => return end(to, half),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut left = count;
        while left > 0 {
            to.writable().await?;
            match to.try_io(Interest::WRITABLE, || splice(&out, to, left)) {
                Ok(count) => left -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        watch.touch();
        moved.set(moved.get() + count as u64);
    }
}

/// Reads a piece and writes what the receiver takes of it; the rest is in `left`. How much was read: 0 at the end.
fn pass(from: &TcpStream, to: &TcpStream, buffer: &mut [u8], left: &mut Vec<u8>) -> io::Result<usize> {
    let count = read(from, buffer)?;
    if count > 0 {
        let written = match to.try_write(&buffer[..count]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        left.extend_from_slice(&buffer[written..count]);
    }
    Ok(count)
}

/// Reads what there is. What does not fill the buffer was all: that there is no more need not be asked for.
fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut all = None;
    let done = from.try_io(Interest::READABLE, || {
        // SAFETY: the buffer is as long as it says, and the descriptor open while it is borrowed.
        let count = unsafe { libc::recv(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        if (1..buffer.len()).contains(&count) {
            all = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    match (all, done) {
        (Some(count), _) => Ok(count),
        (None, done) => done,
    }
}

/// Tells the receiver that no more comes. When the other direction has ended as well, the connection's end tells it.
fn end(to: &TcpStream, half: &Cell<bool>) -> io::Result<()> {
    if half.replace(true) {
        return Ok(());
    }
    // SAFETY: the descriptor is open as long as the stream is borrowed.
    match unsafe { libc::shutdown(to.as_raw_fd(), libc::SHUT_WR) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors that the call writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both were just made, and nobody else has them.
    let (out, into) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // A smaller pipe works as well.
    // SAFETY: an open descriptor, and a number for an argument.
    unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
    Ok((out, into))
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both descriptors are open while they are borrowed; null offsets are for those that have none.
    let count = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), most, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
