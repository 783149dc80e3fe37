//! Ports of the host for containers in bridge mode.

use gantry_decide::task::TransportProtocol;
use gantry_decide::task_engine::HostPort;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;

/// Where the kernel says which ports are for everybody; ECS's agent takes dynamic ports from there too.
const RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// When it does not say.
const RANGE_DEFAULT: RangeInclusive<u16> = 49153..=65535;

/// A port that a container wants to be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    pub container_port: u16,
    /// 0: any that is free.
    pub host_port: u16,
    pub protocol: TransportProtocol,
}

/// The ports that this agent has given away.
#[derive(Debug, Default)]
pub struct Ports {
    taken: BTreeSet<HostPort>,
}

impl Ports {
    pub fn hold(&mut self, protocol: TransportProtocol, port: u16) {
        self.taken.insert(HostPort { protocol, port });
    }

    pub fn release(&mut self, protocol: TransportProtocol, port: u16) {
        self.taken.remove(&HostPort { protocol, port });
    }

    /// Takes the port that is asked for, or one from the dynamic range, `start` deciding where the search begins.
    /// `None` when it is in use, by a container or by another program of the host.
    pub fn take(&mut self, request: PortRequest, start: u64) -> Option<u16> {
        let protocol = request.protocol;
        if request.host_port != 0 {
            let wanted = HostPort { protocol, port: request.host_port };
            let free = !self.taken.contains(&wanted) && is_free(wanted);
            return free.then(|| {
                self.taken.insert(wanted);
                wanted.port
            });
        }
        let range = dynamic_range(&std::fs::read_to_string(RANGE_FILE).unwrap_or_default());
        let size = u64::from(range.end() - range.start()) + 1;
        let candidates = (0..size).map(|step| range.start() + ((start + step) % size) as u16);
        let port = candidates
            .map(|port| HostPort { protocol, port })
            .find(|candidate| !self.taken.contains(candidate) && is_free(*candidate))?;
        self.taken.insert(port);
        Some(port.port)
    }
}

fn dynamic_range(text: &str) -> RangeInclusive<u16> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first > 0 && first < last => first..=last,
        _ => RANGE_DEFAULT,
    }
}

/// Whether no program of the host listens there.
fn is_free(port: HostPort) -> bool {
    let address = (Ipv4Addr::UNSPECIFIED, port.port);
    match port.protocol {
        TransportProtocol::Tcp => TcpListener::bind(address).is_ok(),
        TransportProtocol::Udp => UdpSocket::bind(address).is_ok(),
    }
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
        let fixed =
            |host_port| PortRequest { container_port: 80, host_port, protocol: TransportProtocol::Tcp };
        assert_eq!(ports.take(fixed(used), 0), None);
        let first = ports.take(fixed(0), 7).unwrap();
        let second = ports.take(fixed(0), 7).unwrap();
        assert_ne!(first, second);
        assert_eq!(ports.take(fixed(first), 0), None);
        ports.release(TransportProtocol::Tcp, first);
        assert_eq!(ports.take(fixed(first), 0), Some(first));
    }

    #[test]
    fn the_range_is_the_kernels() {
        assert_eq!(dynamic_range("32768\t60999\n"), 32768..=60999);
        assert_eq!(dynamic_range("x"), RANGE_DEFAULT);
        assert_eq!(dynamic_range("9 3"), RANGE_DEFAULT);
    }
}
