//! Netlink: how the kernel is asked for links, addresses, routes and firewall rules.
//!
//! A dozen messages are all that is needed, so they are written here: the general libraries are a hundred seconds of
//! build, and know no firewall rules. Calls wait for the kernel's answer, which comes at once.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const HEADER: usize = 16;
const F_REQUEST: u16 = 0x1;
pub const F_ACKNOWLEDGE: u16 = 0x4;
pub const F_REPLACE: u16 = 0x100;
pub const F_EXCLUSIVE: u16 = 0x200;
pub const F_CREATE: u16 = 0x400;
pub const F_APPEND: u16 = 0x800;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;
/// Set in the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The kernel's default room for what is sent, below which no request for more is needed.
const ROOM: usize = 64 << 10;
/// The kernel answers at once; a lost answer must not hang a thread.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of one read of answers: what is asked for is small, and what went wrong comes without what was sent.
const ANSWER_BYTES: usize = 8 << 10;

/// A message under construction, or several behind each other.
#[derive(Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// Begins a message; [`Message::end`] completes it. Returns where it began.
    pub fn begin(&mut self, kind: u16, flags: u16, sequence: u32) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&0_u32.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(&(flags | F_REQUEST).to_ne_bytes());
        self.0.extend_from_slice(&sequence.to_ne_bytes());
        self.0.extend_from_slice(&0_u32.to_ne_bytes());
        start
    }

    pub fn end(&mut self, start: usize) {
        let length = u32::try_from(self.0.len() - start).expect("messages are small");
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.align();
    }

    /// A fixed part, such as `struct ifinfomsg`.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Message {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Message {
        let length = u16::try_from(4 + value.len()).expect("attributes are small");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.align();
        self
    }

    /// Text with the zero byte that the kernel wants behind it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A number in the machine's order: routes and links.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A number in the network's order: the firewall.
    pub fn be(&mut self, kind: u16, value: u32) -> &mut Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Message {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("attributes are small");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn align(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }
}

/// A socket to the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// For links, addresses and routes.
    pub fn route() -> io::Result<Socket> {
        Socket::open(libc::NETLINK_ROUTE)
    }

    /// For the firewall.
    pub fn netfilter() -> io::Result<Socket> {
        Socket::open(libc::NETLINK_NETFILTER)
    }

    fn open(protocol: i32) -> io::Result<Socket> {
        // SAFETY: takes numbers only.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let limit = libc::timeval { tv_sec: ANSWER_MAX.as_secs() as libc::time_t, tv_usec: 0 };
        let socket = Socket { fd, sequence: 0 };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit)?;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &1)?;
        Ok(socket)
    }

    /// The number of a link in the socket's namespace.
    pub fn link(&self, name: &str) -> io::Result<u32> {
        // SAFETY: a structure of numbers and bytes only.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        // SAFETY: the structure lives until the call returns.
        match unsafe {
            libc::ioctl(self.fd.as_raw_fd(), libc::SIOCGIFINDEX, std::ptr::from_mut(&mut request))
        } {
            // SAFETY: the call has filled the number in.
            0 => Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        let (value, length) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
        // SAFETY: the value is as long as said, and lives until the call returns.
        let set = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, value, length) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Sends one message of `kind` that `fill` completes, and waits for the kernel's yes.
    pub fn request(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        let sequence = self.next_sequence();
        let mut message = Message::default();
        let start = message.begin(kind, flags | F_ACKNOWLEDGE, sequence);
        fill(&mut message);
        message.end(start);
        self.send(&message)?;
        self.acknowledged(sequence)
    }

    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        if message.0.len() > ROOM {
            // A batch goes in one piece, however long; the limit that others must keep is not for root.
            let room = 2 * message.0.len();
            nix::sys::socket::setsockopt(&self.fd, nix::sys::socket::sockopt::SndBufForce, &room)?;
        }
        let sent =
            nix::sys::socket::send(self.fd.as_raw_fd(), &message.0, nix::sys::socket::MsgFlags::empty())?;
        if sent == message.0.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// Reads answers until the one of this number; the first error counts.
    pub fn acknowledged(&mut self, last: u32) -> io::Result<()> {
        let mut buffer = [0; ANSWER_BYTES];
        let mut first_error = None;
        loop {
            let length =
                nix::sys::socket::recv(self.fd.as_raw_fd(), &mut buffer, nix::sys::socket::MsgFlags::empty());
            let length = match length {
                Err(nix::errno::Errno::EINTR) => continue,
                // After an error the kernel answers no later message of a batch.
                Err(nix::errno::Errno::EAGAIN) => {
                    return Err(first_error.unwrap_or(io::ErrorKind::TimedOut.into()));
                }
                other => other?,
            };
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER {
                let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let sequence = u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]);
                if size < HEADER || size > rest.len() {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                if kind == TYPE_ERROR && size >= HEADER + 4 {
                    let code = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
                    if code != 0 {
                        first_error.get_or_insert_with(|| io::Error::from_raw_os_error(-code));
                    }
                }
                if (kind == TYPE_ERROR || kind == TYPE_DONE) && (sequence == last || first_error.is_some()) {
                    return first_error.map_or(Ok(()), Err);
                }
                rest = &rest[rest.len().min(size.next_multiple_of(4))..];
            }
        }
    }
}
