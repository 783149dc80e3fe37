//! Links, addresses and routes.

use super::netlink::{F_CREATE, F_EXCLUSIVE, F_REPLACE, Message, Socket};
use gantry_decide::network::Ipv6Block;
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_GROUP: u16 = 27;
const LINK_NAMESPACE_FD: u16 = 28;
const LINK_SEND_QUEUES: u16 = 31;
const LINK_RECEIVE_QUEUES: u16 = 32;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

const UP: u32 = libc::IFF_UP as u32;

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    // Which flags are meant.
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// The number of a link in the calling thread's namespace.
pub fn index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the text lives until the call returns.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Makes a bridge that is up, if there is none of the name. Its number.
pub fn bridge(socket: &mut Socket, name: &str) -> io::Result<u32> {
    let made = socket.request(NEW_LINK, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&link_header(0, UP)).text(LINK_NAME, name);
        message.nest(LINK_INFO, |info| {
            info.attribute(INFO_KIND, b"bridge");
        });
    });
    match made {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    let index = index(name)?;
    set_up(socket, index)?;
    Ok(index)
}

/// The two ends of a link between the host and a namespace.
pub struct Veth<'a> {
    /// Of the end that stays here.
    pub name: &'a str,
    /// The bridge that it becomes a port of.
    pub bridge: Option<u32>,
    /// Of the end that stays here, where it matters.
    pub mac: Option<[u8; 6]>,
    /// Of the other end.
    pub peer_mac: [u8; 6],
    /// Bytes of the largest packet.
    pub mtu: u32,
}

/// Makes a link that carries packets to other hosts as their routes say, in VXLAN's generic form and from this UDP port
/// on, if there is none of the name. Its number, and whether it was made.
pub fn tunnel(socket: &mut Socket, name: &str, port: u16, mtu: u32) -> io::Result<(u32, bool)> {
    const PORT: u16 = 15;
    const LEARNING: u16 = 7;
    const BY_ROUTE: u16 = 25;
    const GENERIC: u16 = 27;
    let made = socket.request(NEW_LINK, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&link_header(0, UP)).text(LINK_NAME, name).number(LINK_MTU, mtu);
        message.nest(LINK_INFO, |info| {
            info.attribute(INFO_KIND, b"vxlan").nest(INFO_DATA, |data| {
                data.attribute(LEARNING, &[0]).attribute(BY_ROUTE, &[1]);
                data.attribute(PORT, &port.to_be_bytes()).attribute(GENERIC, &[]);
            });
        });
    });
    match made {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
        _ => {}
    }
    // Another one's, with the same port, is in the way under another name.
    Ok((index(name).map_err(|error| made.as_ref().err().map_or(error, copy))?, made.is_ok()))
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

const TABLE_MAIN: u8 = 254;
const BY_BOOT: u8 = 3;
const UNICAST: u8 = 1;
const SCOPE_LINK: u8 = 253;
const ROUTE_TO: u16 = 1;
const ROUTE_LINK: u16 = 4;

/// Leads an address to another host, by a link of [`tunnel`]'s; where it led before does not matter.
pub fn add_tunnelled(socket: &mut Socket, to: IpAddr, host: Ipv4Addr, link: u32) -> io::Result<()> {
    const TYPE: u16 = 21;
    const ENCAPSULATION: u16 = 22;
    const BY_IP: u16 = 2;
    const NETWORK: u16 = 1;
    const HOST: u16 = 2;
    /// All VPCs are one network here: no address is given twice.
    const NUMBER: u64 = 1;
    let (of, bits, scope) = one(to);
    let header = [of, bits, 0, 0, TABLE_MAIN, BY_BOOT, scope, UNICAST, 0, 0, 0, 0];
    socket.request(NEW_ROUTE, F_CREATE | F_REPLACE, |message| {
        message.raw(&header).attribute(ROUTE_TO, &octets(to));
        message.nest(ENCAPSULATION, |way| {
            way.attribute(NETWORK, &NUMBER.to_be_bytes()).attribute(HOST, &host.octets());
        });
        message.attribute(TYPE, &BY_IP.to_ne_bytes()).number(ROUTE_LINK, link);
    })
}

/// Removes such a route. One that is not there is no error.
pub fn remove_tunnelled(socket: &mut Socket, to: IpAddr, link: u32) -> io::Result<()> {
    let (of, bits, scope) = one(to);
    let header = [of, bits, 0, 0, TABLE_MAIN, 0, scope, 0, 0, 0, 0, 0];
    let removed = socket.request(DELETE_ROUTE, 0, |message| {
        message.raw(&header).attribute(ROUTE_TO, &octets(to)).number(ROUTE_LINK, link);
    });
    match removed {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// Makes a pair of links: one here, `eth0` in the other namespace, both still down.
///
/// Each end has the one queue that it uses. Left to itself the kernel makes as many as there are processors and gives up
/// all but one, for which it waits until no processor looks at them, and lets nobody else of the host change a
/// link meanwhile.
pub fn veth(socket: &mut Socket, veth: &Veth<'_>, namespace: &OwnedFd) -> io::Result<()> {
    socket.request(NEW_LINK, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&link_header(0, 0)).text(LINK_NAME, veth.name).number(LINK_MTU, veth.mtu);
        message.number(LINK_SEND_QUEUES, 1).number(LINK_RECEIVE_QUEUES, 1);
        if let Some(bridge) = veth.bridge {
            message.number(LINK_MASTER, bridge);
        }
        if let Some(mac) = veth.mac {
            message.attribute(LINK_ADDRESS, &mac);
        }
        message.nest(LINK_INFO, |info| {
            info.attribute(INFO_KIND, b"veth").nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.raw(&link_header(0, 0))
                        .text(LINK_NAME, "eth0")
                        .attribute(LINK_ADDRESS, &veth.peer_mac)
                        .number(LINK_MTU, veth.mtu)
                        .number(LINK_SEND_QUEUES, 1)
                        .number(LINK_RECEIVE_QUEUES, 1)
                        .number(LINK_NAMESPACE_FD, namespace.as_raw_fd().cast_unsigned());
                });
            });
        });
    })
}

/// Has a link get no address of IPv6 when it is set up. To make one the kernel tells the link's other end of it, more than
/// once, and waits whether somebody has it: for a link without IPv6 that is a twentieth of what starting a task takes.
pub fn without_link_local(socket: &mut Socket, index: u32) -> io::Result<()> {
    const FAMILIES: u16 = 26;
    const ADDRESS_MODE: u16 = 8;
    const NONE: u8 = 1;
    let set = socket.request(NEW_LINK, 0, |message| {
        message.raw(&link_header(index, 0)).nest(FAMILIES, |families| {
            families.nest(libc::AF_INET6 as u16, |ipv6| {
                ipv6.attribute(ADDRESS_MODE, &[NONE]);
            });
        });
    });
    match set {
        // There is no IPv6 on it, or none at all.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

pub fn set_up(socket: &mut Socket, index: u32) -> io::Result<()> {
    socket.request(NEW_LINK, 0, |message| {
        message.raw(&link_header(index, UP));
    })
}

/// Sets up the port of a bridge, by which packets may leave that came by it: where bridges pass by the packet filter
/// (`br_netfilter`), a container that asks a port of its own by its host's address is led back on the bridge itself.
pub fn set_up_port(socket: &mut Socket, index: u32) -> io::Result<()> {
    const PORT_KIND: u16 = 4;
    const PORT_DATA: u16 = 5;
    const HAIRPIN: u16 = 4;
    socket.request(NEW_LINK, 0, |message| {
        message.raw(&link_header(index, UP)).nest(LINK_INFO, |info| {
            info.attribute(PORT_KIND, b"bridge").nest(PORT_DATA, |data| {
                data.attribute(HAIRPIN, &[1]);
            });
        });
    })
}

/// A link that is not there is no error.
pub fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let Ok(index) = index(name) else { return Ok(()) };
    absent_is_well(socket.request(DELETE_LINK, 0, |message| {
        message.raw(&link_header(index, 0));
    }))
}

/// Puts a link into a group, of which [`delete_group`] makes an end. One that is not there is no error.
pub fn join_group(socket: &mut Socket, name: &str, group: u32) -> io::Result<()> {
    let Ok(index) = index(name) else { return Ok(()) };
    let joined = socket.request(NEW_LINK, 0, |message| {
        message.raw(&link_header(index, 0)).number(LINK_GROUP, group);
    });
    absent_is_well(joined)
}

/// Deletes all links of a group, for which the kernel waits as long as for one. An empty one is no error.
pub fn delete_group(socket: &mut Socket, group: u32) -> io::Result<()> {
    absent_is_well(socket.request(DELETE_LINK, 0, |message| {
        message.raw(&link_header(0, 0)).number(LINK_GROUP, group);
    }))
}

fn absent_is_well(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Of a route to one address: its family, the bits of that, and the scope where it is at the other end of a link, of
/// which IPv6 knows none.
fn one(to: IpAddr) -> (u8, u8, u8) {
    let scope = if to.is_ipv4() { SCOPE_LINK } else { 0 };
    (family(to), (octets(to).len() * 8) as u8, scope)
}

/// Gives a link an address. One that is there already is no error.
pub fn add_address(socket: &mut Socket, index: u32, address: IpAddr, prefix_length: u8) -> io::Result<()> {
    address_with(socket, index, address, prefix_length, 0)
}

/// As [`add_address`], with no way to the others of its prefix: they are behind the router.
pub fn add_routed_address(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
    prefix_length: u8,
) -> io::Result<()> {
    /// The address was given by who knows that nobody else has it.
    const NO_DUPLICATE_DETECTION: u32 = 0x02;
    const NO_PREFIX_ROUTE: u32 = 0x200;
    address_with(socket, index, address, prefix_length, NO_DUPLICATE_DETECTION | NO_PREFIX_ROUTE)
}

fn address_with(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
    prefix_length: u8,
    flags: u32,
) -> io::Result<()> {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    const FLAGS: u16 = 8;
    let mut header = [family(address), prefix_length, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let added = socket.request(NEW_ADDRESS, F_CREATE | F_EXCLUSIVE, |message: &mut Message| {
        let address = octets(address);
        message.raw(&header).attribute(LOCAL, &address).attribute(ADDRESS, &address).number(FLAGS, flags);
    });
    match added {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// Takes an address from a link. One that is not there is no error.
pub fn remove_address(socket: &mut Socket, index: u32, address: IpAddr, prefix_length: u8) -> io::Result<()> {
    const LOCAL: u16 = 2;
    let mut header = [family(address), prefix_length, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let removed = socket.request(DELETE_ADDRESS, 0, |message: &mut Message| {
        message.raw(&header).attribute(LOCAL, &octets(address));
    });
    match removed {
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        other => other,
    }
}

/// Says by which hardware address a neighbour is found, so that nobody has to ask.
pub fn add_neighbour(socket: &mut Socket, index: u32, address: IpAddr, mac: [u8; 6]) -> io::Result<()> {
    const DESTINATION: u16 = 1;
    const LINK_LAYER: u16 = 2;
    const PERMANENT: u16 = 0x80;
    let mut header = [family(address), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    socket.request(NEW_NEIGHBOUR, F_CREATE | F_REPLACE, |message| {
        message.raw(&header).attribute(DESTINATION, &octets(address)).attribute(LINK_LAYER, &mac);
    })
}

/// A route by a link.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `None`: to everywhere that no other route leads to.
    pub to: Option<IpAddr>,
    /// The router, which is taken to be at the other end of the link whatever its address is; else the target is there
    /// itself.
    pub via: Option<IpAddr>,
    pub link: u32,
    /// By which the host speaks along this route.
    pub source: Option<IpAddr>,
}

/// # Errors
/// When there is a route to the target already, or the kernel refuses.
pub fn add_route(socket: &mut Socket, route: Route) -> io::Result<()> {
    const GATEWAY: u16 = 5;
    const SOURCE: u16 = 7;
    const ON_LINK: u32 = 4;
    let of = route.to.or(route.via).map_or(libc::AF_INET as u8, family);
    let bits = route.to.map_or(0, |to| one(to).1);
    let scope = route.to.filter(|_| route.via.is_none()).map_or(0, |to| one(to).2);
    let flags = if route.via.is_some() { ON_LINK } else { 0 };
    let mut header = [of, bits, 0, 0, TABLE_MAIN, BY_BOOT, scope, UNICAST, 0, 0, 0, 0];
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    socket.request(NEW_ROUTE, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&header).number(ROUTE_LINK, route.link);
        for (kind, address) in [(ROUTE_TO, route.to), (GATEWAY, route.via), (SOURCE, route.source)] {
            if let Some(address) = address {
                message.attribute(kind, &octets(address));
            }
        }
    })
}

/// Has addresses of a block end at this machine, as `ip -6 route add local` does.
///
/// # Errors
/// When there is such a route already, or the kernel refuses.
pub fn add_local_route(socket: &mut Socket, block: Ipv6Block, link: u32) -> io::Result<()> {
    socket.request(NEW_ROUTE, F_CREATE | F_EXCLUSIVE, |message| local_route(message, block, link))
}

/// # Errors
/// When there is no such route, or the kernel refuses.
pub fn remove_local_route(socket: &mut Socket, block: Ipv6Block, link: u32) -> io::Result<()> {
    socket.request(DELETE_ROUTE, 0, |message| local_route(message, block, link))
}

fn local_route(message: &mut Message, block: Ipv6Block, link: u32) {
    const TABLE_LOCAL: u8 = 255;
    const ENDS_HERE: u8 = 2;
    let header = [libc::AF_INET6 as u8, block.bits(), 0, 0, TABLE_LOCAL, BY_BOOT, 0, ENDS_HERE, 0, 0, 0, 0];
    message.raw(&header).attribute(ROUTE_TO, &block.base().octets()).number(ROUTE_LINK, link);
}
