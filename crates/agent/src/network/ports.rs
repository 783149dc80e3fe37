//! Ports of the host for containers in bridge mode.

use gantry_decide::task::TransportProtocol;
use gantry_decide::task_engine::HostPort;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, listen, setsockopt, socket,
    sockopt,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where the kernel says which ports are for everybody; ECS's agent takes dynamic ports from there too.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// When it does not say.
const RANGE_DEFAULT: RangeInclusive<u16> = 49153..=65535;

/// A port that a container wants to be reached at, or several that follow each other, on the host as in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub container_port: u16,
    /// 0: any that is free.
    pub host_port: u16,
    pub protocol: TransportProtocol,
    /// Ports beyond the first.
    #[serde(default)]
    pub more: u16,
}

/// The ports that this agent has given away. Sockets of the agent's own hold each, so that neither a program nor
/// another agent of this host takes it too; what arrives there goes to the container before any socket sees it.
#[derive(Debug, Default)]
pub struct Ports {
    /// Without sockets where a program of the host had come first when the agent began again.
    taken: BTreeMap<HostPort, Holding>,
}

/// The sockets that hold a port.
#[derive(Debug, Default)]
struct Holding {
    /// Of the host's IPv4 addresses.
    _ipv4: Vec<OwnedFd>,
    /// Of all of its IPv6 addresses, those to come too; none where the kernel has no IPv6.
    ipv6: Option<OwnedFd>,
}

impl Ports {
    /// Takes a port that leads to a container already.
    pub fn take_over(&mut self, protocol: TransportProtocol, port: u16) {
        let held = HostPort { protocol, port };
        let sockets = hold(held, &addresses()).unwrap_or_else(|error| {
            tracing::warn!(port, %error, "a published port is in use by another program too: containers get what arrives");
            Holding::default()
        });
        self.taken.insert(held, sockets);
    }

    /// The bound socket to which a port's IPv6 packets come, if the agent holds it.
    pub fn ipv6(&self, protocol: TransportProtocol, port: u16) -> Option<OwnedFd> {
        self.taken.get(&HostPort { protocol, port })?.ipv6.as_ref()?.try_clone().ok()
    }

    pub fn release(&mut self, protocol: TransportProtocol, port: u16) {
        self.taken.remove(&HostPort { protocol, port });
    }

    /// Takes the ports that are asked for, or some from the dynamic range, `start` deciding where the search begins. The
    /// first; `None` when they are in use, by a container or by another program of the host.
    pub fn take(&mut self, request: PortRequest, start: u64) -> Option<u16> {
        let (protocol, addresses) = (request.protocol, addresses());
        if request.host_port != 0 {
            return self
                .try_take(HostPort { protocol, port: request.host_port }, request.more, &addresses)
                .ok();
        }
        let range = dynamic_range(&std::fs::read_to_string(RANGE_FILE).unwrap_or_default());
        // Where the first can be, so that the last is in the range too.
        let size = (u64::from(range.end() - range.start()) + 1).checked_sub(request.more.into())?;
        let mut step = 0;
        while step < size {
            let offset = (start % size + step) % size;
            let port = range.start() + offset as u16;
            match self.try_take(HostPort { protocol, port }, request.more, &addresses) {
                Ok(port) => return Some(port),
                // On behind the one that is in use, or from the beginning of the range.
                Err(in_use) => step += (u64::from(in_use - port) + 1).min(size - offset),
            }
        }
        None
    }

    /// Takes a port and those that follow it, or none of them. The first, or else one that is in use.
    fn try_take(&mut self, wanted: HostPort, more: u16, addresses: &[Ipv4Addr]) -> Result<u16, u16> {
        let HostPort { protocol, port: first } = wanted;
        let last = first.checked_add(more).ok_or(first)?;
        for port in first..=last {
            let next = HostPort { protocol, port };
            let sockets = if self.taken.contains_key(&next) { None } else { hold(next, addresses).ok() };
            let Some(sockets) = sockets else {
                (first..port).for_each(|port| self.release(protocol, port));
                return Err(port);
            };
            self.taken.insert(next, sockets);
        }
        Ok(first)
    }
}

fn dynamic_range(text: &str) -> RangeInclusive<u16> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first < last => first..=last,
        _ => RANGE_DEFAULT,
    }
}

/// The host's addresses whose published ports lead to containers: all but the loopback addresses that load balancers
/// have for themselves, and those at which metadata is asked for. One that the host gets later leads to containers too, and only there a program may come first.
fn addresses() -> Vec<Ipv4Addr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let found = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let own: BTreeSet<Ipv4Addr> =
        found.filter(|address| !address.is_loopback() && !address.is_link_local()).collect();
    [Ipv4Addr::LOCALHOST].into_iter().chain(own).collect()
}

/// Occupies a port at these addresses, and so at all of them at once: no program of the host may have it then, nor the same
/// port of IPv6.
fn hold(port: HostPort, addresses: &[Ipv4Addr]) -> io::Result<Holding> {
    Ok(Holding { _ipv4: hold_ipv4(port, addresses)?, ipv6: hold_ipv6(port)? })
}

fn hold_ipv6(port: HostPort) -> io::Result<Option<OwnedFd>> {
    let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port.port, 0, 0));
    let bound = |reuse: bool| -> nix::Result<OwnedFd> {
        let kind = match port.protocol {
            TransportProtocol::Tcp => SockType::Stream,
            TransportProtocol::Udp => SockType::Datagram,
        };
        let socket = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&socket, sockopt::ReuseAddr, &reuse)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(socket)
    };
    // As with IPv4, connections of a former owner are in the way of who does not listen.
    let listening = || {
        let socket = bound(true)?;
        listen(&socket, Backlog::new(0)?)?;
        Ok(socket)
    };
    let held = match port.protocol {
        TransportProtocol::Tcp => bound(false).or_else(|_| listening()),
        TransportProtocol::Udp => bound(false),
    };
    match held {
        Ok(socket) => Ok(Some(socket)),
        // The kernel has no IPv6, or somebody switched it off.
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn hold_ipv4(port: HostPort, addresses: &[Ipv4Addr]) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = Vec::with_capacity(addresses.len());
    for address in addresses {
        let socket = match port.protocol {
            TransportProtocol::Tcp => exclude(SocketAddrV4::new(*address, port.port)),
            TransportProtocol::Udp => UdpSocket::bind((*address, port.port)).map(OwnedFd::from),
        };
        match socket {
            // The address has just gone.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            other => sockets.push(other?),
        }
    }
    Ok(sockets)
}

/// Occupies a port of TCP. Without listening where that does: who comes while there is no container behind is refused at
/// once then, and may ask elsewhere, while a connection to a listener would be made and lost.
fn exclude(address: SocketAddrV4) -> io::Result<OwnedFd> {
    let silent = || -> nix::Result<OwnedFd> {
        // Without SO_REUSEADDR, a bound socket excludes those that have it as well.
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(address))?;
        Ok(socket)
    };
    // Connections of the port's former owner are in its way for a minute, as they are not in a listener's.
    silent().or_else(|_| TcpListener::bind(address).map(OwnedFd::from))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ports_are_given_once_and_never_anothers() {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let used = listener.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let fixed = |host_port| PortRequest {
            container_port: 80,
            host_port,
            protocol: TransportProtocol::Tcp,
            more: 0,
        };
        assert_eq!(ports.take(fixed(used), 0), None);
        let first = ports.take(fixed(0), 7).unwrap();
        let second = ports.take(fixed(0), 7).unwrap();
        assert_ne!(first, second);
        assert_eq!(ports.take(fixed(first), 0), None);
        ports.release(TransportProtocol::Tcp, first);
        assert_eq!(ports.take(fixed(first), 0), Some(first));
    }

    #[test]
    fn who_comes_to_a_port_without_a_container_is_refused() {
        let mut ports = Ports::default();
        let request =
            PortRequest { container_port: 80, host_port: 0, protocol: TransportProtocol::Tcp, more: 0 };
        let port = ports.take(request, 11).unwrap();
        let refused = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err());
    }

    #[test]
    fn ranges_are_taken_whole_or_not_at_all() {
        let protocol = TransportProtocol::Udp;
        let range = |host_port, more| PortRequest { container_port: 100, host_port, protocol, more };
        let mut ports = Ports::default();
        let first = ports.take(range(0, 19), 3).unwrap();
        let other = ports.take(range(0, 19), 3).unwrap();
        assert!(other.abs_diff(first) >= 20);
        assert_eq!(ports.take(range(first + 5, 0), 0), None);
        (first..first + 20).filter(|port| *port != first + 12).for_each(|port| ports.release(protocol, port));
        assert_eq!(ports.take(range(first, 19), 0), None);
        assert_eq!(ports.take(range(first, 11), 0), Some(first), "what came before is free again");
        assert_eq!(ports.take(range(0, u16::MAX), 0), None);
    }

    #[test]
    fn the_range_is_the_kernels() {
        assert_eq!(dynamic_range("32768\t60999\n"), 32768..=60999);
        assert_eq!(dynamic_range("x"), RANGE_DEFAULT);
        assert_eq!(dynamic_range("9 3"), RANGE_DEFAULT);
    }
}
