//! Addresses that are listened on: taken, kept while what is behind them changes, tried again while somebody else has
//! them, and closed.

use super::http::{Entrance, Hosts};
use super::tables::Door;
use super::worker::{Bound, Command};
use gantry_decide::network::Ipv6Block;
use rustix::net::sockopt::{set_ipv6_freebind, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// Connections that the kernel holds for a listener until a worker accepts them; the kernel's own bound may be lower.
const BACKLOG: i32 = 4096;

/// Why an address is listened on.
#[derive(Clone, Debug)]
pub struct Wish {
    pub entrance: Entrance,
    /// The listener whose own address it is: that it cannot be had is worth telling. None for what is only convenient.
    pub owner: Option<String>,
}

/// An address that could not be taken.
pub struct Refused {
    pub address: SocketAddr,
    pub owner: String,
    pub source: io::Error,
}

#[derive(Debug)]
pub enum Socket {
    Stream(TcpListener),
    Datagram(UdpSocket),
}

impl Socket {
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Stream(socket) => socket.local_addr(),
            Socket::Datagram(socket) => socket.local_addr(),
        }
    }
}

/// See the module.
pub struct Sockets {
    workers: Vec<UnboundedSender<Command>>,
    held: BTreeMap<Bound, (Wish, Socket)>,
    /// Could not be taken yet.
    wanted: BTreeMap<Bound, Wish>,
    /// Where load balancers are found by host name, whatever the configuration.
    shared: Option<SocketAddr>,
    /// Taken over from a predecessor, until the first configuration says what is wanted of them.
    inherited: BTreeMap<Bound, Socket>,
    /// Addresses that need not be the machine's when they are listened on: they are led to it.
    own: Option<Ipv6Block>,
    /// Workers accept nothing yet: who connects waits in the kernel, or is served by a predecessor.
    waiting: bool,
}

impl Sockets {
    pub fn new(workers: Vec<UnboundedSender<Command>>, inherited: BTreeMap<Bound, Socket>) -> Sockets {
        Sockets {
            workers,
            held: BTreeMap::new(),
            wanted: BTreeMap::new(),
            shared: None,
            inherited,
            own: None,
            waiting: true,
        }
    }

    /// Takes addresses of this block although they are no link's.
    pub fn own(&mut self, block: Option<Ipv6Block>) {
        self.own = block;
    }

    /// Has workers accept from now on.
    pub fn open(&mut self) {
        self.waiting = false;
        self.held.values().for_each(|(wish, socket)| self.tell(socket, &wish.entrance));
    }

    /// All that is listened on.
    pub fn held(&self) -> impl Iterator<Item = &Socket> {
        self.held.values().map(|(_, socket)| socket)
    }

    /// Listens nowhere any more. Whoever has the sockets too goes on.
    pub fn close_all(&mut self) {
        self.shared = None;
        self.listen(BTreeMap::new());
    }

    /// Listens for requests that name their load balancer by its host; returns where.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn share(&mut self, address: SocketAddr, hosts: Hosts) -> io::Result<SocketAddr> {
        let wish = Wish { entrance: Entrance::Shared(hosts), owner: None };
        let address = self.take((address, false), wish)?;
        self.shared = Some(address);
        Ok(address)
    }

    /// Listens on these addresses and on no others. Those that are not to be had now are tried again by
    /// [`Self::try_again`].
    pub fn listen(&mut self, mut wanted: BTreeMap<Bound, Wish>) -> Vec<Refused> {
        for (bound, (wish, socket)) in std::mem::take(&mut self.held) {
            let shared = !bound.1 && Some(bound.0) == self.shared;
            match wanted.remove(&bound) {
                _ if shared => drop(self.held.insert(bound, (wish, socket))),
                Some(new) if new.entrance.is(&wish.entrance) => {
                    self.held.insert(bound, (new, socket));
                }
                // Somebody else's now: the socket stays, so that nobody is refused meanwhile.
                Some(new) => {
                    self.tell(&socket, &new.entrance);
                    self.held.insert(bound, (new, socket));
                }
                None => self.send(|| Ok(Command::Close(bound))),
            }
        }
        self.wanted = wanted;
        let refused = self.try_again();
        self.inherited.clear();
        refused
    }

    /// Takes the addresses that are wanted and can be had now.
    pub fn try_again(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        for (bound, wish) in std::mem::take(&mut self.wanted) {
            if let Err(source) = self.take(bound, wish.clone()) {
                if let Some(owner) = wish.owner.clone() {
                    refused.push(Refused { address: bound.0, owner, source });
                }
                self.wanted.insert(bound, wish);
            }
        }
        refused
    }

    pub fn close(&mut self) {
        self.workers.clear();
    }

    fn take(&mut self, (address, datagrams): Bound, wish: Wish) -> io::Result<SocketAddr> {
        let socket = match self.inherited.remove(&(address, datagrams)) {
            Some(socket) => socket,
            None => {
                let own =
                    matches!(address.ip(), IpAddr::V6(ip) if self.own.is_some_and(|own| own.contains(ip)));
                let socket = unbound(address, datagrams)?;
                if own {
                    set_ipv6_freebind(&socket, true)?;
                }
                rustix::net::bind(&socket, &address)?;
                if datagrams {
                    Socket::Datagram(socket.into())
                } else {
                    rustix::net::listen(&socket, BACKLOG)?;
                    Socket::Stream(socket.into())
                }
            }
        };
        let address = socket.address()?;
        self.tell(&socket, &wish.entrance);
        self.held.insert((address, datagrams), (wish, socket));
        Ok(address)
    }

    /// Has workers serve a socket, in place of how they served it before.
    fn tell(&self, socket: &Socket, entrance: &Entrance) {
        if self.waiting {
            return;
        }
        match (socket, entrance) {
            (Socket::Stream(socket), entrance) => {
                self.send(|| Ok(Command::Listen { socket: socket.try_clone()?, entrance: entrance.clone() }))
            }
            (Socket::Datagram(socket), Entrance::Own(door)) => {
                let (Some(worker), Ok(socket)) = (self.workers.first(), socket.try_clone()) else { return };
                // A worker that has ended serves nobody.
                let _ = worker.send(Command::Receive { socket, door: Arc::<Door>::clone(door) });
            }
            // Datagrams name no host.
            (Socket::Datagram(_), Entrance::Shared(_)) => {}
        }
    }

    fn send(&self, make: impl Fn() -> io::Result<Command>) {
        for worker in &self.workers {
            match make() {
                Ok(command) => drop(worker.send(command)),
                Err(error) => tracing::warn!(%error, "a worker cannot have a listener's socket"),
            }
        }
    }
}

fn unbound(address: SocketAddr, datagrams: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if datagrams { SocketType::DGRAM } else { SocketType::STREAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if !datagrams {
        set_socket_reuseaddr(&socket, true)?;
    }
    Ok(socket)
}
