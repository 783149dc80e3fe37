//! IPv6 of tasks in awsvpc mode: the second address of their interface, and what a host has to allow for it. What leaves
//! for elsewhere has the host's address, as with IPv4 (see `filter`).

use super::ROUTER_MAC;
use super::netlink::Socket;
use super::route::{self, Route};
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::Path;

/// A task's router, on every link: the host.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Bits of the prefix that addresses of one link have in common.
const LINK_LOCAL_BITS: u8 = 64;
/// Bytes that every link with IPv6 carries (RFC 8200); Linux takes it from links that carry fewer.
const MTU_MIN: u32 = 1280;

const SETTINGS: &str = "/proc/sys/net/ipv6/conf";

fn setting(link: &str, name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(format!("{SETTINGS}/{link}/{name}"))?.trim().to_owned())
}

fn set(link: &str, name: &str, value: &str) -> io::Result<()> {
    if setting(link, name)? == value { Ok(()) } else { fs::write(format!("{SETTINGS}/{link}/{name}"), value) }
}

/// Whether tasks can have IPv6 here, with links of this MTU: the kernel may lack it, or an operator have switched it
/// off.
pub fn is_possible(mtu: u32) -> bool {
    let on = |link| setting(link, "disable_ipv6").is_ok_and(|off| off == "0");
    mtu >= MTU_MIN && on("all") && on("default")
}

/// Gives a task's end of its link an address, in the namespace of the calling thread.
pub fn inside(socket: &mut Socket, eth0: u32, (address, prefix_length): (Ipv6Addr, u8)) -> io::Result<()> {
    // Engines switch it off in the namespaces that they make without.
    set("eth0", "disable_ipv6", "0")?;
    // There is one router, and it advertises nothing.
    set("eth0", "accept_ra", "0")?;
    route::add_routed_address(socket, eth0, address.into(), prefix_length)?;
    route::add_neighbour(socket, eth0, ROUTER.into(), ROUTER_MAC)?;
    route::add_route(socket, Route { to: None, via: Some(ROUTER.into()), link: eth0, source: None })
}

/// Makes the host the router at its end of a link.
pub fn outside(socket: &mut Socket, link: u32) -> io::Result<()> {
    forward()?;
    route::add_routed_address(socket, link, ROUTER.into(), LINK_LOCAL_BITS)
}

/// Lets packets pass from link to link, which in IPv6 is one setting for all of them.
fn forward() -> io::Result<()> {
    if setting("all", "forwarding")? == "1" {
        return Ok(());
    }
    // A router forgets the routes that other routers advertised to it, and listens to no more of them: a host that lives
    // by them is told to go on.
    for link in fs::read_dir(Path::new(SETTINGS))?.flatten() {
        let Some(link) = link.file_name().to_str().map(str::to_owned) else { continue };
        // One that has just gone needs nothing.
        if link != "all" && setting(&link, "accept_ra").is_ok_and(|accept| accept == "1") {
            let _ = set(&link, "accept_ra", "2");
        }
    }
    set("all", "forwarding", "1")
}
