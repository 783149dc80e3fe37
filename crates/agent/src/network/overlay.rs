//! Between hosts: what tasks say to tasks of other hosts is carried in VXLAN packets, without an Ethernet header of its
//! own (the generic protocol extension), from host to host. One link for all, and a route for each task elsewhere.
//!
//! Who may send such packets could speak by any address: the firewall takes them from known hosts only, and the network
//! between the hosts has to be one that is trusted.

use super::netlink::Socket;
use super::{NetworkError, io as failed, route};
use gantry_decide::network::Neighbours;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// IANA's port for the extension.
pub const PORT: u16 = 4790;
/// Bytes that carrying a packet takes: headers of IPv4 or IPv6, UDP and VXLAN.
const HEADERS: u32 = 70;

/// See the module.
pub struct Overlay {
    own: Ipv4Addr,
    link: u32,
    file: PathBuf,
    /// Tasks elsewhere, each with its host.
    at: Mutex<BTreeMap<IpAddr, Ipv4Addr>>,
}

impl Overlay {
    /// Makes the link, or takes it over with the routes that are there.
    pub fn open(name: &str, own: Ipv4Addr, mtu: u32, file: PathBuf) -> Result<Overlay, NetworkError> {
        let mut socket = Socket::route().map_err(failed("opening a netlink socket"))?;
        let (link, made) = route::tunnel(&mut socket, name, PORT, mtu.saturating_sub(HEADERS))
            .map_err(failed("making the link to other hosts"))?;
        super::pass_on(name).map_err(failed("switching on forwarding"))?;
        // What is missing or damaged is told again.
        let text = fs::read(&file).unwrap_or_default();
        let at: BTreeMap<IpAddr, Ipv4Addr> = serde_json::from_slice(&text).unwrap_or_default();
        let overlay = Overlay { own, link, file, at: Mutex::new(BTreeMap::new()) };
        if made {
            overlay.hear(Neighbours { complete: true, at, gone: BTreeSet::new() })?;
        } else {
            *overlay.at.lock() = at;
        }
        Ok(overlay)
    }

    /// The other hosts that are known.
    pub fn hosts(&self) -> BTreeSet<IpAddr> {
        self.at.lock().values().copied().map(IpAddr::from).collect()
    }

    /// Leads the addresses of tasks to their hosts. Those of this host have routes of their own.
    pub fn hear(&self, news: Neighbours) -> Result<(), NetworkError> {
        let at = &mut *self.at.lock();
        let mut gone = news.gone;
        if news.complete {
            gone.extend(at.keys().filter(|address| !news.at.contains_key(address)));
        }
        gone.extend(news.at.iter().filter(|(_, host)| **host == self.own).map(|(address, _)| address));
        let mut socket = Socket::route().map_err(failed("opening a netlink socket"))?;
        for address in gone {
            if at.remove(&address).is_some() {
                route::remove_tunnelled(&mut socket, address, self.link)
                    .map_err(failed("removing the route to a task"))?;
            }
        }
        for (address, host) in news.at {
            if host != self.own && at.get(&address) != Some(&host) {
                route::add_tunnelled(&mut socket, address, host, self.link)
                    .map_err(failed("routing to a task"))?;
                at.insert(address, host);
            }
        }
        if let Err(error) = self.write(at) {
            tracing::warn!(file = %self.file.display(), %error, "where tasks are is not kept");
        }
        Ok(())
    }

    /// Not synced: what a crash of the host loses is told again.
    fn write(&self, at: &BTreeMap<IpAddr, Ipv4Addr>) -> io::Result<()> {
        let new = self.file.with_extension("tmp");
        fs::write(&new, serde_json::to_vec(at)?)?;
        fs::rename(new, &self.file)
    }
}
