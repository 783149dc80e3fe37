//! Blocks of addresses that lead to this machine although no link has them: IPv6 has one loopback address, where IPv4 has
//! millions.

use super::netlink::Socket;
use super::route;
use gantry_decide::network::Ipv6Block;
use std::fs;
use std::io;

/// Where a machine speaks to itself.
const LINK: &str = "lo";
/// The routes of the calling thread's network, a line each: destination, bits of its prefix, …, flags, link.
const ROUTES: &str = "/proc/thread-self/net/ipv6_route";
/// Flag of a route that ends at this machine (`RTF_LOCAL`).
const ENDS_HERE: u32 = 0x8000_0000;

/// A block does not lead here.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("this machine has no IPv6: nobody reaches {0} here")]
    NoIpv6(Ipv6Block),
    #[error("{0} leads to this machine when root runs Gantry, or has run `ip -6 route add local {0} dev lo`")]
    NotPermitted(Ipv6Block),
    #[error("{block} cannot be led to this machine")]
    Kernel {
        block: Ipv6Block,
        #[source]
        source: io::Error,
    },
}

/// Leads a block here, if it does not lead here already.
///
/// # Errors
/// When it does not.
pub fn lead(block: Ipv6Block) -> Result<(), LocalError> {
    let Ok(routes) = fs::read_to_string(ROUTES) else { return Err(LocalError::NoIpv6(block)) };
    if has(&routes, block) {
        return Ok(());
    }
    let led = || route::add_local_route(&mut Socket::route()?, block, route::index(LINK)?);
    led().map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => LocalError::NotPermitted(block),
        _ => LocalError::Kernel { block, source },
    })
}

/// Whether a block leads here.
pub fn leads(block: Ipv6Block) -> bool {
    fs::read_to_string(ROUTES).is_ok_and(|routes| has(&routes, block))
}

/// Leads a block here no more.
///
/// # Errors
/// When it does still.
pub fn leave(block: Ipv6Block) -> Result<(), LocalError> {
    if !leads(block) {
        return Ok(());
    }
    let left = || route::remove_local_route(&mut Socket::route()?, block, route::index(LINK)?);
    left().map_err(|source| LocalError::Kernel { block, source })
}

fn has(routes: &str, block: Ipv6Block) -> bool {
    let wanted = format!("{:032x} {:02x}", u128::from(block.base()), block.bits());
    let mut routes = routes.lines().filter(|line| line.starts_with(&wanted));
    routes.any(|line| {
        let flags = line.split_ascii_whitespace().nth(8).and_then(|text| u32::from_str_radix(text, 16).ok());
        flags.is_some_and(|flags| flags & ENDS_HERE != 0)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_route_that_ends_here_is_told_from_others() {
        let zero = "0".repeat(32);
        let line = |to: &str, bits: &str, flags: &str| {
            format!("{to} {bits} {zero} 00 {zero} 00000400 00000001 00000000 {flags}       lo\n")
        };
        let block: Ipv6Block = "fd01:203::/64".parse().unwrap();
        let to = "fd010203000000000000000000000000";
        assert!(has(&(line(&zero, "00", "00200200") + &line(to, "40", "80200001")), block));
        for other in [line(to, "40", "00200001"), line(to, "80", "80200001"), line(&zero, "40", "80200001")] {
            assert!(!has(&other, block), "{other}");
        }
    }
}
