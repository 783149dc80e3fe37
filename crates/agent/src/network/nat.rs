//! Where packets are led: published ports to containers in bridge mode, whose own traffic leaves with the host's
//! address; and questions to the agent, in the namespaces of tasks, to the port where it listens.
//!
//! ```text
//! table ip gantry-NAME {
//!     map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//!     chain prerouting { type nat hook prerouting priority dstnat;
//!         ip daddr 127.0.0.0/8 ip daddr != 127.0.0.1 accept; ip daddr 169.254.0.0/16 accept
//!         fib daddr type local dnat to meta l4proto . th dport map @ports }
//!     chain output { type nat hook output priority dstnat; (the same) }
//!     chain postrouting { type nat hook postrouting priority srcnat;
//!         ip saddr BLOCK oifname != BRIDGE oifname != "gv*" masquerade
//!         ip saddr 127.0.0.0/8 oifname BRIDGE masquerade
//!         ip saddr BLOCK oifname BRIDGE ct status dnat masquerade }
//! }
//! ```
//!
//! In the namespace of a task, whose program may listen on every address at port 80 itself:
//!
//! ```text
//! table ip gantry-endpoints {
//!     chain output { type nat hook output priority dstnat; ip daddr ADDRESS tcp dport 80 dnat to ADDRESS:PORT }
//! }
//! ```

use super::block::Ipv4Block;
use super::netlink::Message;
use super::nft::{
    self, Batch, Header, Is, Line, Meta, OUTPUT, POSTROUTING, PREROUTING, PRIORITY_DESTINATION,
    PRIORITY_SOURCE, REGISTER_A, REGISTER_B, TableFamily, compare,
};
use gantry_decide::task::TransportProtocol;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A port of the host that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub protocol: TransportProtocol,
    pub host_port: u16,
    pub address: Ipv4Addr,
    pub container_port: u16,
}

const MAP: &str = "ports";
/// Where a packet says whose it is, and for whom, in its header.
const SOURCE_ADDRESS: u32 = 12;
const TARGET_ADDRESS: u32 = 16;

/// The table of one agent.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    line: Arc<Line>,
}

impl Table {
    pub fn new(name: String) -> Table {
        Table { name, line: Arc::default() }
    }

    /// Makes the table anew such that what a machine of this host sends elsewhere leaves with the host's address; what it
    /// sends to others of them, whose links begin with `links`, keeps its own.
    pub fn install_for_machine(&self, links: &str, machine: Ipv4Addr) -> io::Result<()> {
        let mut batch = Batch::anew(TableFamily::Ipv4, &self.name)?;
        batch.base_chain("postrouting", "nat", POSTROUTING, PRIORITY_SOURCE);
        batch.rule("postrouting", |rule| {
            nft::payload(rule, Header::Network, SOURCE_ADDRESS, 4, REGISTER_A);
            compare(rule, REGISTER_A, Is::Equal, &machine.octets());
            nft::meta(rule, Meta::OutputName, REGISTER_A);
            compare(rule, REGISTER_A, Is::Other, links.as_bytes());
            nft::masquerade(rule);
        });
        batch.commit(&self.line)
    }

    /// Makes the table anew with these ports, in one step: what was published stays so.
    pub fn install(&self, bridge: &str, block: Ipv4Block, ports: &[Published]) -> io::Result<()> {
        let mut batch = Batch::anew(TableFamily::Ipv4, &self.name)?;
        let key = (nft::TYPE_PROTOCOL << 6 | nft::TYPE_PORT, 8);
        batch.map(MAP, key, (nft::TYPE_IPV4 << 6 | nft::TYPE_PORT, 8), 1);
        batch.base_chain("prerouting", "nat", PREROUTING, PRIORITY_DESTINATION);
        batch.base_chain("output", "nat", OUTPUT, PRIORITY_DESTINATION);
        batch.base_chain("postrouting", "nat", POSTROUTING, PRIORITY_SOURCE);
        let loopback = Ipv4Block::new(Ipv4Addr::LOCALHOST, 8).expect("a block");
        let link_local = Ipv4Block::new(super::ENDPOINT_ADDRESS, 16).expect("a block");
        for chain in ["prerouting", "output"] {
            // Load balancers have loopback addresses of their own, where they listen on any port.
            batch.rule(chain, |rule| {
                within(rule, TARGET_ADDRESS, loopback);
                nft::payload(rule, Header::Network, TARGET_ADDRESS, 4, REGISTER_A);
                compare(rule, REGISTER_A, Is::Other, &Ipv4Addr::LOCALHOST.octets());
                nft::decide(rule, nft::Verdict::Accept);
            });
            // Nor is a container meant by those at which a host and its tasks ask for metadata.
            batch.rule(chain, |rule| {
                within(rule, TARGET_ADDRESS, link_local);
                nft::decide(rule, nft::Verdict::Accept);
            });
            batch.rule(chain, redirect);
        }
        batch.rule("postrouting", |rule| {
            within(rule, SOURCE_ADDRESS, block);
            leaving_by(rule, bridge, Is::Other);
            // Tasks in awsvpc mode see who asks; and the host asks them by the bridge's address, which is in the block.
            nft::meta(rule, Meta::OutputName, REGISTER_A);
            compare(rule, REGISTER_A, Is::Other, super::LINK_PREFIX.as_bytes());
            nft::masquerade(rule);
        });
        batch.rule("postrouting", |rule| {
            within(rule, SOURCE_ADDRESS, loopback);
            leaving_by(rule, bridge, Is::Equal);
            nft::masquerade(rule);
        });
        // A container that asks a published port, its own say: the answer has to come back by the host.
        batch.rule("postrouting", |rule| {
            within(rule, SOURCE_ADDRESS, block);
            leaving_by(rule, bridge, Is::Equal);
            nft::led_connection(rule);
            nft::masquerade(rule);
        });
        batch.add(MAP, ports, element);
        batch.commit(&self.line)
    }

    /// All of the ports, or none.
    pub fn publish(&self, ports: &[Published]) -> io::Result<()> {
        let mut batch = Batch::begin(TableFamily::Ipv4, &self.name);
        batch.add(MAP, ports, element);
        batch.commit(&self.line)
    }

    /// Ports that are not there are no error.
    pub fn withdraw(&self, ports: &[Published]) -> io::Result<()> {
        let absent = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
        match self.remove_ports(ports) {
            // Nothing was removed then, so that those that are there have to go one by one.
            Err(error) if absent(&error) => ports
                .iter()
                .map(|port| self.remove_ports(std::slice::from_ref(port)))
                .find(|result| result.as_ref().is_err_and(|error| !absent(error)))
                .unwrap_or(Ok(())),
            other => other,
        }
    }

    /// All of the ports, or none.
    pub(super) fn remove_ports(&self, ports: &[Published]) -> io::Result<()> {
        let mut batch = Batch::begin(TableFamily::Ipv4, &self.name);
        batch.remove(MAP, ports, element);
        batch.commit(&self.line)
    }

    pub fn exists(&self) -> io::Result<bool> {
        nft::exists(TableFamily::Ipv4, &self.name)
    }

    /// A table that is not there is no error.
    pub fn remove(&self) -> io::Result<()> {
        nft::remove(TableFamily::Ipv4, &self.name)
    }
}

/// The table of endpoints in a task's own namespace.
pub const ENDPOINTS: &str = "gantry-endpoints";

/// Leads what is asked of port 80 of an address, in the namespace of the calling thread, to another port of it: by who
/// is there, and by who is behind its links.
pub fn install_endpoint(table: &str, address: Ipv4Addr, port: u16) -> io::Result<()> {
    let mut batch = Batch::anew(TableFamily::Ipv4, table)?;
    for (chain, hook) in [("prerouting", PREROUTING), ("output", OUTPUT)] {
        batch.base_chain(chain, "nat", hook, PRIORITY_DESTINATION);
        batch.rule(chain, |rule| lead(rule, address, port));
    }
    batch.commit(&Line::default())
}

/// One port of the map, and where it leads. Each part of a concatenation fills 32 bits.
fn element(element: &mut Message, port: Published) {
    let protocol = match port.protocol {
        TransportProtocol::Tcp => libc::IPPROTO_TCP,
        TransportProtocol::Udp => libc::IPPROTO_UDP,
    };
    let mut key = [0; 8];
    key[0] = protocol as u8;
    key[4..6].copy_from_slice(&port.host_port.to_be_bytes());
    nft::key(element, &key);
    let mut value = [0; 8];
    value[..4].copy_from_slice(&port.address.octets());
    value[4..6].copy_from_slice(&port.container_port.to_be_bytes());
    nft::value(element, &value);
}

/// To a published port of an address of this host: on to the container.
fn redirect(rule: &mut Message) {
    nft::to_this_host(rule);
    nft::meta(rule, Meta::Protocol, REGISTER_A);
    nft::target_port(rule, REGISTER_B);
    nft::map_to(rule, MAP, REGISTER_A, REGISTER_A);
    nft::lead_to(rule, REGISTER_A, REGISTER_B);
}

/// From port 80 of this address to its port `port`.
pub(super) fn lead(rule: &mut Message, address: Ipv4Addr, port: u16) {
    const HTTP: u16 = 80;
    nft::payload(rule, Header::Network, TARGET_ADDRESS, 4, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &address.octets());
    nft::meta(rule, Meta::Protocol, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &[libc::IPPROTO_TCP as u8]);
    nft::target_port(rule, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &HTTP.to_be_bytes());
    nft::load(rule, REGISTER_A, &address.octets());
    nft::load(rule, REGISTER_B, &port.to_be_bytes());
    nft::lead_to(rule, REGISTER_A, REGISTER_B);
}

fn within(rule: &mut Message, address: u32, block: Ipv4Block) {
    nft::payload(rule, Header::Network, address, 4, REGISTER_A);
    let mask = u32::MAX << (32 - u32::from(block.prefix_length()));
    nft::mask(rule, REGISTER_A, &mask.to_be_bytes());
    compare(rule, REGISTER_A, Is::Equal, &block.base().octets());
}

fn leaving_by(rule: &mut Message, link: &str, is: Is) {
    nft::meta(rule, Meta::OutputName, REGISTER_A);
    compare(rule, REGISTER_A, is, &nft::link_name(link));
}
