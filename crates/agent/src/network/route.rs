//! Links, addresses and routes.

use super::netlink::{F_CREATE, F_EXCLUSIVE, Message, Socket};
use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE_FD: u16 = 28;
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

/// Makes a pair of links: `name` here, a port of the bridge and up; `eth0` in the other namespace, still down.
pub fn veth(
    socket: &mut Socket,
    name: &str,
    bridge: u32,
    peer_mac: [u8; 6],
    namespace: &OwnedFd,
) -> io::Result<()> {
    socket.request(NEW_LINK, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&link_header(0, UP)).text(LINK_NAME, name).number(LINK_MASTER, bridge);
        message.nest(LINK_INFO, |info| {
            info.attribute(INFO_KIND, b"veth").nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.raw(&link_header(0, 0))
                        .text(LINK_NAME, "eth0")
                        .attribute(LINK_ADDRESS, &peer_mac)
                        .number(LINK_NAMESPACE_FD, namespace.as_raw_fd().cast_unsigned());
                });
            });
        });
    })
}

pub fn set_up(socket: &mut Socket, index: u32) -> io::Result<()> {
    socket.request(NEW_LINK, 0, |message| {
        message.raw(&link_header(index, UP));
    })
}

/// A link that is not there is no error.
pub fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let Ok(index) = index(name) else { return Ok(()) };
    let deleted = socket.request(DELETE_LINK, 0, |message| {
        message.raw(&link_header(index, 0));
    });
    match deleted {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// An address that is there already is no error.
pub fn add_address(socket: &mut Socket, index: u32, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
    const LOCAL: u16 = 2;
    const ADDRESS: u16 = 1;
    let mut header = [libc::AF_INET as u8, prefix_length, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let added = socket.request(NEW_ADDRESS, F_CREATE | F_EXCLUSIVE, |message: &mut Message| {
        message.raw(&header).attribute(LOCAL, &address.octets()).attribute(ADDRESS, &address.octets());
    });
    match added {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// The way to everywhere else.
pub fn add_default_route(socket: &mut Socket, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    const GATEWAY: u16 = 5;
    const LINK: u16 = 4;
    const TABLE_MAIN: u8 = 254;
    const BY_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    let header = [libc::AF_INET as u8, 0, 0, 0, TABLE_MAIN, BY_BOOT, 0, UNICAST, 0, 0, 0, 0];
    socket.request(NEW_ROUTE, F_CREATE | F_EXCLUSIVE, |message| {
        message.raw(&header).attribute(GATEWAY, &gateway.octets()).number(LINK, index);
    })
}
