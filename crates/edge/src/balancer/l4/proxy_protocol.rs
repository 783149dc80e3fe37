//! Proxy protocol version 2: a header before a connection's first byte that tells a target whose it is.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
/// Version 2, and the command PROXY.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection from `source` to `destination`.
pub fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(PROXY);
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let addresses = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.push(TCP4);
            [from.octets(), to.octets()].concat()
        }
        (from, to) => {
            let wide = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            out.push(TCP6);
            [wide(from), wide(to)].concat()
        }
    };
    let length = addresses.len() as u16 + 4;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&addresses);
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let v4 = header("192.0.2.1:4660".parse().unwrap(), "198.51.100.2:80".parse().unwrap());
        assert_eq!(v4[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 80]);
        let v6 = header("[2001:db8::1]:1".parse().unwrap(), "198.51.100.2:80".parse().unwrap());
        assert_eq!((v6.len(), v6[13], v6[15]), (16 + 36, 0x21, 36));
    }
}
