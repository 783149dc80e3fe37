//! A network namespace that stands for a machine of its own, beside this host: for agents that share the host's kernel
//! and nothing of its network.
//!
//! One link leads there. The host routes, and lends its address to what leaves (`nat`).

use super::nat::Table;
use super::netlink::Socket;
use super::route::{Route, Veth};
use super::{Origin, ROUTER_MAC, namespace, route};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

/// Of namespaces here. No agent's own begin so: those end a dash later.
const NAMESPACE_PREFIX: &str = "gantryhost-";
/// Of links to machines.
const LINK_PREFIX: &str = "gm-";
/// Bytes of the largest packet: what every link takes.
const MTU: u32 = 1500;

/// The network of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineNetwork {
    /// That of its agent: 1 to 8 lower-case letters and digits.
    pub name: String,
    /// By which this host reaches it.
    pub address: Ipv4Addr,
    /// By which it reaches this host.
    pub router: Ipv4Addr,
}

impl MachineNetwork {
    fn namespace(&self) -> String {
        format!("{NAMESPACE_PREFIX}{}", self.name)
    }

    fn link(&self) -> String {
        format!("{LINK_PREFIX}{}", self.name)
    }

    /// What leaves the machine for elsewhere does so by the host's address.
    fn table(&self) -> Table {
        super::table(&self.name)
    }

    /// Makes it, if it is not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(&self) -> io::Result<()> {
        let link = self.link();
        if !(namespace::exists(&self.namespace()) && route::index(&link).is_ok()) {
            self.remove()?;
            self.make(&link)?;
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").or_else(|error| {
            // A file system that cannot be written may say what is wanted already.
            let text = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap_or_default();
            if text.trim() == "1" { Ok(()) } else { Err(error) }
        })?;
        super::pass_on(&link)?;
        self.table().install_for_machine(LINK_PREFIX, self.address)
    }

    fn make(&self, link: &str) -> io::Result<()> {
        let octets = self.address.octets();
        // Locally administered, and as unique as the address.
        let peer_mac = [0x0a, 0x58, octets[0], octets[1], octets[2], octets[3]];
        let veth = Veth { name: link, bridge: None, mac: Some(ROUTER_MAC), peer_mac, mtu: MTU };
        let (address, router) = (IpAddr::from(self.address), IpAddr::from(self.router));
        namespace::create(&self.namespace(), Origin::New, Socket::route, |mut host, namespace| {
            route::veth(&mut host, &veth, &namespace)?;
            let mut inside = Socket::route()?;
            route::set_up(&mut inside, route::index("lo")?)?;
            let eth0 = route::index("eth0")?;
            route::add_address(&mut inside, eth0, address, 32)?;
            route::set_up(&mut inside, eth0)?;
            let out = Route { to: None, via: Some(router), link: eth0, source: Some(address) };
            route::add_route(&mut inside, out)
        })?;
        let mut host = Socket::route()?;
        let index = route::index(link)?;
        route::add_address(&mut host, index, router, 32)?;
        route::set_up(&mut host, index)?;
        let there = Route { to: Some(address), via: None, link: index, source: Some(router) };
        route::add_route(&mut host, there)
    }

    /// Listens inside, at the machine's own loopback address.
    ///
    /// # Errors
    /// When the port is taken, or there is no such machine.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        namespace::within(&self.namespace(), || TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
    }

    /// Does something inside, such as starting a program, which stays there.
    ///
    /// # Errors
    /// What `work` says, or that there is no such machine.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        namespace::within(&self.namespace(), work)
    }

    /// Removes it. One that is not there is no error; programs inside must have ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let (link, name) = (self.link(), self.namespace());
        route::delete(&mut Socket::route()?, &link)?;
        namespace::remove(&name)?;
        self.table().remove()
    }

    /// What of it is on this host.
    pub fn leftovers(&self) -> Vec<String> {
        let namespace =
            namespace::exists(&self.namespace()).then(|| format!("network namespace {}", self.namespace()));
        let link = route::index(&self.link()).is_ok().then(|| format!("link {}", self.link()));
        namespace.into_iter().chain(link).collect()
    }
}
