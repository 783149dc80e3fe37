//! Messages with descriptors between the agent, shims, and processes that become containers' programs.
//!
//! Between a shim and the process that becomes a program: that all is ready, leave to go on, and what went wrong. The end
//! of the channel without a word means that the program is executed.

use crate::runtime::Step;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
    sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What failed, and how.
pub type Failure = (Step, String);

/// The program cannot be executed.
pub fn failed_start(text: String) -> Failure {
    (Step::Start, text)
}

/// Descriptors of one message: input, outputs, and one more.
const FDS_MAX: usize = 4;
/// Bytes of an error's text.
const TEXT_MAX: usize = 4096;
const READY: u8 = b'r';
const CREATE_FAILED: u8 = b'c';
const START_FAILED: u8 = b's';
const BORN: u8 = b'b';
const GO: u8 = b'g';

/// Two ends of a channel that keeps messages apart.
pub fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message with descriptors.
///
/// # Errors
/// EPIPE when nobody is at the other end, EMSGSIZE for what is too long.
pub fn send(socket: &impl AsFd, message: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    loop {
        match sendmsg::<UnixAddr>(socket, &[IoSlice::new(message)], rights, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::Error::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Receives a message of at most so many bytes; an empty one when nobody is at the other end.
///
/// # Errors
/// EAGAIN when there is none yet and the socket does not block; of a message that is cut off.
pub fn receive(socket: &impl AsFd, max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; max];
    let mut space = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let socket = socket.as_fd().as_raw_fd();
    let received = loop {
        match recvmsg::<UnixAddr>(socket, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::Error::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the descriptors were just received, and are nobody else's.
            fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let length = received.bytes;
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// The shim's end.
pub struct ToChild(OwnedFd);

/// The other end.
pub struct ToShim(OwnedFd);

pub fn pair() -> io::Result<(ToChild, ToShim)> {
    let (shim, child) = sockets()?;
    Ok((ToChild(shim), ToShim(child)))
}

impl ToShim {
    /// All but the last step is done. Waits for leave, and ends this process when the shim is gone: nobody would know
    /// of the container.
    pub fn ready(&self, terminal: Option<OwnedFd>) {
        let fds: Vec<_> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
        match send(&self.0, &[READY], &fds).and_then(|()| receive(&self.0, 1)) {
            Ok((answer, _)) if answer == [GO] => {}
            _ => std::process::exit(1),
        }
    }

    /// Another process goes on in place of this one.
    pub fn born(&self, pid: i32, process: &OwnedFd) {
        let mut message = vec![BORN];
        message.extend_from_slice(&pid.to_ne_bytes());
        // A shim that is gone needs to know nothing.
        let _ = send(&self.0, &message, &[process.as_raw_fd()]);
    }

    /// In the other process: waits until the shim knows of it. What it says next must not come before that news, which
    /// the first process sends.
    pub fn wait_known(&self) {
        match receive(&self.0, 1) {
            Ok((answer, _)) if answer == [BORN] => {}
            _ => std::process::exit(1),
        }
    }

    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Hands a descriptor over, and asks for nothing.
    pub fn hand_over(&self, fd: OwnedFd) {
        // A shim that is gone needs nothing.
        let _ = send(&self.0, &[READY], &[fd.as_raw_fd()]);
    }

    pub fn fail(&self, (step, text): &Failure) {
        let kind = match step {
            Step::Create => CREATE_FAILED,
            Step::Start => START_FAILED,
        };
        let mut message = vec![kind];
        message.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_MAX)]);
        // A shim that is gone needs to know nothing.
        let _ = send(&self.0, &message, &[]);
    }
}

impl ToChild {
    /// Waits for the process that goes on in place of the first.
    pub fn wait_born(&self) -> Result<(i32, OwnedFd), Failure> {
        let (message, mut fds) = self.receive()?;
        match (message.split_first(), fds.pop()) {
            (Some((&BORN, pid)), Some(process)) => {
                let pid = <[u8; 4]>::try_from(pid).map(i32::from_ne_bytes);
                let pid = pid.map_err(|_| failed_start("a process without a number".to_owned()))?;
                send(&self.0, &[BORN], &[])
                    .map_err(|error| failed_start(format!("telling the new process: {error}")))?;
                Ok((pid, process))
            }
            (Some((&kind, text)), _) => Err(failure(kind, text)),
            (None, _) => Err((Step::Create, "the container's first process ended without a word".to_owned())),
        }
    }

    /// Waits until all but the last step is done; the terminal comes along where there is one.
    pub fn wait_ready(&self) -> Result<Option<OwnedFd>, Failure> {
        let (message, mut fds) = self.receive()?;
        match message.split_first() {
            Some((&READY, _)) => Ok(fds.pop()),
            Some((&kind, text)) => Err(failure(kind, text)),
            None => Err((Step::Create, "the container's first process ended without a word".to_owned())),
        }
    }

    /// Lets the child execute its program, and waits until it has.
    pub fn go(&self) -> Result<(), Failure> {
        send(&self.0, &[GO], &[])
            .map_err(|error| failed_start(format!("telling the container's first process: {error}")))?;
        match self.receive()?.0.split_first() {
            None => Ok(()),
            Some((&kind, text)) => Err(failure(kind, text)),
        }
    }

    fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), Failure> {
        receive(&self.0, TEXT_MAX + 1)
            .map_err(|error| failed_start(format!("hearing from the container: {error}")))
    }
}

fn failure(kind: u8, text: &[u8]) -> Failure {
    let step = if kind == CREATE_FAILED { Step::Create } else { Step::Start };
    (step, String::from_utf8_lossy(text).into_owned())
}
