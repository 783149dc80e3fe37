//! Listening sockets from one process to the next: a new one asks for them on a Unix socket, has them served, says so, and
//! the old one closes its own. Both have the same sockets of the kernel's, so that no client is refused at any time.
//!
//! A message is one byte; with a socket's kind comes the socket.

use super::sockets::Socket;
use super::worker::Bound;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::collections::BTreeMap;
use std::fs::{Permissions, rename, set_permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The first word of who wants sockets, in the only version there is.
const WANTS: u8 = b'1';
const CONNECTIONS: u8 = b'c';
const DATAGRAMS: u8 = b'd';
/// There are no more sockets.
const ALL: u8 = b'e';
/// The new process serves.
const SERVES: u8 = b's';
/// The old process has closed its sockets.
const CLOSED: u8 = b'x';
/// For the other process's next word. A new one compiles its configuration meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sockets of a predecessor.
#[derive(Debug, Default)]
pub struct Inherited(pub(super) BTreeMap<Bound, Socket>);

impl Inherited {
    /// Whether connections to this address are listened for.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.0.contains_key(&(address, false))
    }
}

/// The process that serves until now.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// Where a process waits for the one that shall take its place.
#[derive(Debug)]
pub struct Offer(UnixListener);

/// The process that takes this one's place.
#[derive(Debug)]
pub struct Successor(UnixStream);

/// Asks whoever offers its sockets at `path` for them. None when there is nobody.
///
/// # Errors
/// When there is somebody who does not give them.
pub fn ask(path: &Path) -> io::Result<Option<(Predecessor, Inherited)>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    patient(&stream)?;
    stream.write_all(&[WANTS])?;
    let mut sockets = BTreeMap::new();
    loop {
        let (kind, socket) = receive(&stream)?;
        let socket = match (kind, socket) {
            (ALL, _) => return Ok(Some((Predecessor(stream), Inherited(sockets)))),
            (CONNECTIONS, Some(socket)) => Socket::Stream(TcpListener::from(socket)),
            (DATAGRAMS, Some(socket)) => Socket::Datagram(UdpSocket::from(socket)),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks another language")),
        };
        sockets.insert((socket.address()?, kind == DATAGRAMS), socket);
    }
}

impl Predecessor {
    /// Has it listen no more; returns when it does not.
    ///
    /// # Errors
    /// When it is gone, or does not answer.
    pub fn replace(mut self) -> io::Result<()> {
        self.0.write_all(&[SERVES])?;
        expect(&mut self.0, CLOSED)
    }
}

/// Offers this process's sockets at `path`, to processes of the same user. Who offered there before does so no more.
///
/// # Errors
/// When the path cannot be had.
pub fn offer(path: &Path) -> io::Result<Offer> {
    // Bound beside it and then renamed: at no time is there nobody, or anybody who may not.
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    set_permissions(&fresh, Permissions::from_mode(0o600))?;
    rename(&fresh, path)?;
    Ok(Offer(listener))
}

impl Offer {
    /// Waits for a process that wants the sockets.
    ///
    /// # Errors
    /// When nobody can come any more.
    pub fn wait(&self) -> io::Result<Successor> {
        loop {
            let (mut stream, _) = self.0.accept()?;
            if patient(&stream).and_then(|()| expect(&mut stream, WANTS)).is_ok() {
                return Ok(Successor(stream));
            }
        }
    }
}

impl Successor {
    /// Gives it a socket.
    pub(super) fn give(&self, socket: &Socket) -> io::Result<()> {
        match socket {
            Socket::Stream(socket) => send(&self.0, CONNECTIONS, socket.as_fd()),
            Socket::Datagram(socket) => send(&self.0, DATAGRAMS, socket.as_fd()),
        }
    }

    /// It has all of them. Waits until it serves.
    ///
    /// # Errors
    /// When it ends before it does.
    pub fn serves(&mut self) -> io::Result<()> {
        self.0.write_all(&[ALL])?;
        expect(&mut self.0, SERVES)
    }

    /// Tells that this process listens no more.
    ///
    /// # Errors
    /// When it is gone.
    pub fn closed(mut self) -> io::Result<()> {
        self.0.write_all(&[CLOSED])
    }
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn expect(stream: &mut UnixStream, word: u8) -> io::Result<()> {
    let mut said = [0];
    stream.read_exact(&mut said)?;
    if said == [word] {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the other process speaks another language"))
}

fn send(stream: &UnixStream, kind: u8, socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket];
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("there is no room for a descriptor"));
    }
    sendmsg(stream, &[IoSlice::new(&[kind])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let socket = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    Ok((byte[0], socket))
}
