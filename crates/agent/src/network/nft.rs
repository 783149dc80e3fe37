//! The firewall rules of one agent, in a table of its own: outbound traffic of tasks leaves with the host's address, and
//! published ports lead to containers. Spoken to the kernel's nf_tables directly: no program has to be installed, and
//! publishing a port costs no process.
//!
//! ```text
//! table ip gantry-NAME {
//!     map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//!     chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local dnat to meta l4proto . th dport map @ports }
//!     chain output { type nat hook output priority dstnat; (the same) }
//!     chain postrouting { type nat hook postrouting priority srcnat;
//!         ip saddr BLOCK oifname != BRIDGE masquerade
//!         ip saddr 127.0.0.0/8 oifname BRIDGE masquerade }
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
use super::netlink::{F_ACKNOWLEDGE, F_APPEND, F_CREATE, Message, Socket};
use gantry_decide::task::TransportProtocol;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::Ipv4Addr;

/// A port of the host that leads to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub protocol: TransportProtocol,
    pub host_port: u16,
    pub address: Ipv4Addr,
    pub container_port: u16,
}

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
pub(super) const DELETE_ELEMENT: u16 = 14;

const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const PRIORITY_DESTINATION: i32 = -100;
const PRIORITY_SOURCE: i32 = 100;

/// Registers of 32 bits that lie beside each other; the first is also the beginning of the first of 128 bits.
const REGISTER_A: u32 = 8;
const REGISTER_B: u32 = 9;

const MAP: &str = "ports";
/// Ports in one command: a list of elements is an attribute, of 64 KiB at most, and a port takes 36 bytes.
const PORTS_PER_COMMAND: usize = 1024;
const ELEMENT: u16 = 1;
const VALUE: u16 = 1;

/// The table of one agent.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
}

/// One atomic change: all of it, or nothing.
struct Batch {
    message: Message,
    socket: Socket,
    table: String,
    /// The number of the last command.
    last: u32,
}

impl Table {
    /// Makes the table anew with these ports, in one step: what was published stays so.
    pub fn install(&self, bridge: &str, blocks: &[Ipv4Block], ports: &[Published]) -> io::Result<()> {
        let mut batch = Batch::begin(&self.name)?;
        // Making it first lets the removal succeed whether or not it was there.
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.table(NEW_TABLE);
        batch.map();
        batch.chain("prerouting", PREROUTING, PRIORITY_DESTINATION);
        batch.chain("output", OUTPUT, PRIORITY_DESTINATION);
        batch.chain("postrouting", POSTROUTING, PRIORITY_SOURCE);
        for chain in ["prerouting", "output"] {
            batch.rule(chain, redirect);
        }
        for block in blocks {
            batch.rule("postrouting", |rule| {
                from(rule, *block);
                leaving_by(rule, bridge, false);
                masquerade(rule);
            });
        }
        let loopback = Ipv4Block::new(Ipv4Addr::LOCALHOST, 8).expect("a block");
        batch.rule("postrouting", |rule| {
            from(rule, loopback);
            leaving_by(rule, bridge, true);
            masquerade(rule);
        });
        batch.elements(NEW_ELEMENT, ports);
        batch.commit()
    }

    pub fn publish(&self, ports: &[Published]) -> io::Result<()> {
        self.change(NEW_ELEMENT, ports)
    }

    /// Ports that are not there are no error.
    pub fn withdraw(&self, ports: &[Published]) -> io::Result<()> {
        let absent = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
        match self.change(DELETE_ELEMENT, ports) {
            // Nothing was removed then, so that those that are there have to go one by one.
            Err(error) if absent(&error) => ports
                .iter()
                .map(|port| self.change(DELETE_ELEMENT, std::slice::from_ref(port)))
                .find(|result| result.as_ref().is_err_and(|error| !absent(error)))
                .unwrap_or(Ok(())),
            other => other,
        }
    }

    pub fn exists(&self) -> io::Result<bool> {
        let found = Socket::netfilter()?.request(SUBSYSTEM << 8 | GET_TABLE, 0, |message| {
            message.raw(&[libc::AF_INET as u8, 0, 0, 0]).text(1, &self.name);
        });
        match found {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds or removes ports: all of them, or none.
    pub(super) fn change(&self, kind: u16, ports: &[Published]) -> io::Result<()> {
        let mut batch = Batch::begin(&self.name)?;
        batch.elements(kind, ports);
        batch.commit()
    }

    /// A table that is not there is no error.
    pub fn remove(&self) -> io::Result<()> {
        let mut batch = Batch::begin(&self.name)?;
        batch.table(NEW_TABLE);
        batch.table(DELETE_TABLE);
        batch.commit()
    }
}

/// Leads what is asked of port 80 of an address, in the namespace of the calling thread, to another port of it.
pub fn install_endpoint(address: Ipv4Addr, port: u16) -> io::Result<()> {
    let mut batch = Batch::begin("gantry-endpoints")?;
    batch.table(NEW_TABLE);
    batch.table(DELETE_TABLE);
    batch.table(NEW_TABLE);
    batch.chain("output", OUTPUT, PRIORITY_DESTINATION);
    batch.rule("output", |rule| lead(rule, address, port));
    batch.commit()
}

impl Batch {
    fn begin(table: &str) -> io::Result<Batch> {
        let mut batch = Batch {
            message: Message::default(),
            socket: Socket::netfilter()?,
            table: table.to_owned(),
            last: 0,
        };
        batch.boundary(BATCH_BEGIN);
        Ok(batch)
    }

    fn boundary(&mut self, kind: u16) {
        let sequence = self.socket.next_sequence();
        let start = self.message.begin(kind, 0, sequence);
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.message.raw(&[0, 0, high, low]);
        self.message.end(start);
    }

    fn command(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) {
        self.last = self.socket.next_sequence();
        let start = self.message.begin(SUBSYSTEM << 8 | kind, flags | F_ACKNOWLEDGE, self.last);
        self.message.raw(&[libc::AF_INET as u8, 0, 0, 0]);
        fill(&mut self.message);
        self.message.end(start);
    }

    fn commit(mut self) -> io::Result<()> {
        let last = self.last;
        self.boundary(BATCH_END);
        self.socket.send(&self.message)?;
        self.socket.acknowledged(last)
    }

    fn table(&mut self, kind: u16) {
        let name = self.table.clone();
        self.command(kind, if kind == NEW_TABLE { F_CREATE } else { 0 }, |message| {
            message.text(1, &name);
        });
    }

    fn chain(&mut self, name: &str, hook: u32, priority: i32) {
        let table = self.table.clone();
        self.command(NEW_CHAIN, F_CREATE, |message| {
            message.text(1, &table).text(3, name);
            message.nest(4, |inner| {
                inner.be(1, hook).be(2, priority.cast_unsigned());
            });
            message.text(7, "nat");
        });
    }

    fn map(&mut self) {
        const IS_MAP: u32 = 0x8;
        // How `nft` shows it: inet_proto . inet_service, ipv4_addr . inet_service.
        const KEY_TYPE: u32 = 12 << 6 | 13;
        const DATA_TYPE: u32 = 7 << 6 | 13;
        let table = self.table.clone();
        self.command(NEW_SET, F_CREATE, |message| {
            message.text(1, &table).text(2, MAP).be(3, IS_MAP);
            message.be(4, KEY_TYPE).be(5, 8).be(6, DATA_TYPE).be(7, 8).be(10, 1);
        });
    }

    fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Message)) {
        let table = self.table.clone();
        self.command(NEW_RULE, F_CREATE | F_APPEND, |message| {
            message.text(1, &table).text(2, chain);
            message.nest(4, fill);
        });
    }

    fn elements(&mut self, kind: u16, ports: &[Published]) {
        let table = self.table.clone();
        for some in ports.chunks(PORTS_PER_COMMAND) {
            self.command(kind, if kind == NEW_ELEMENT { F_CREATE } else { 0 }, |message| {
                message.text(1, &table).text(2, MAP);
                message.nest(3, |list| some.iter().for_each(|port| element(list, *port)));
            });
        }
    }
}

/// One port of the map, and where it leads.
fn element(list: &mut Message, port: Published) {
    list.nest(ELEMENT, |element| {
        let protocol = match port.protocol {
            TransportProtocol::Tcp => libc::IPPROTO_TCP,
            TransportProtocol::Udp => libc::IPPROTO_UDP,
        };
        // Each part of a concatenation fills 32 bits.
        let mut key = [0; 8];
        key[0] = protocol as u8;
        key[4..6].copy_from_slice(&port.host_port.to_be_bytes());
        element.nest(1, |inner| {
            inner.attribute(VALUE, &key);
        });
        let mut data = [0; 8];
        data[..4].copy_from_slice(&port.address.octets());
        data[4..6].copy_from_slice(&port.container_port.to_be_bytes());
        element.nest(2, |inner| {
            inner.attribute(VALUE, &data);
        });
    });
}

fn expression(rule: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    rule.nest(ELEMENT, |element| {
        element.text(1, name).nest(2, fill);
    });
}

fn compare(rule: &mut Message, register: u32, equal: bool, value: &[u8]) {
    expression(rule, "cmp", |compare| {
        compare.be(1, register).be(2, u32::from(!equal)).nest(3, |data| {
            data.attribute(VALUE, value);
        });
    });
}

/// To a published port of an address of this host: on to the container.
fn redirect(rule: &mut Message) {
    const LOCAL: u32 = 2;
    const BY_ADDRESS_TYPE: u32 = 3;
    const OF_DESTINATION: u32 = 2;
    const L4_PROTOCOL: u32 = 16;
    const TRANSPORT_HEADER: u32 = 2;
    const TO_DESTINATION: u32 = 1;
    expression(rule, "fib", |fib| {
        fib.be(1, REGISTER_A).be(2, BY_ADDRESS_TYPE).be(3, OF_DESTINATION);
    });
    compare(rule, REGISTER_A, true, &LOCAL.to_ne_bytes());
    expression(rule, "meta", |meta| {
        meta.be(1, REGISTER_A).be(2, L4_PROTOCOL);
    });
    expression(rule, "payload", |payload| {
        // The destination port.
        payload.be(1, REGISTER_B).be(2, TRANSPORT_HEADER).be(3, 2).be(4, 2);
    });
    expression(rule, "lookup", |lookup| {
        lookup.text(1, MAP).be(2, REGISTER_A).be(3, REGISTER_A).be(4, 1);
    });
    expression(rule, "nat", |nat| {
        nat.be(1, TO_DESTINATION).be(2, libc::AF_INET as u32).be(3, REGISTER_A).be(5, REGISTER_B);
    });
}

/// From port 80 of this address to its port `port`.
fn lead(rule: &mut Message, address: Ipv4Addr, port: u16) {
    const NETWORK_HEADER: u32 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    const DESTINATION_ADDRESS: u32 = 16;
    const L4_PROTOCOL: u32 = 16;
    const TO_DESTINATION: u32 = 1;
    const HTTP: u16 = 80;
    expression(rule, "payload", |payload| {
        payload.be(1, REGISTER_A).be(2, NETWORK_HEADER).be(3, DESTINATION_ADDRESS).be(4, 4);
    });
    compare(rule, REGISTER_A, true, &address.octets());
    expression(rule, "meta", |meta| {
        meta.be(1, REGISTER_A).be(2, L4_PROTOCOL);
    });
    compare(rule, REGISTER_A, true, &[libc::IPPROTO_TCP as u8]);
    expression(rule, "payload", |payload| {
        payload.be(1, REGISTER_A).be(2, TRANSPORT_HEADER).be(3, 2).be(4, 2);
    });
    compare(rule, REGISTER_A, true, &HTTP.to_be_bytes());
    for (register, value) in [(REGISTER_A, &address.octets()[..]), (REGISTER_B, &port.to_be_bytes()[..])] {
        expression(rule, "immediate", |immediate| {
            immediate.be(1, register).nest(2, |data| {
                data.attribute(VALUE, value);
            });
        });
    }
    expression(rule, "nat", |nat| {
        nat.be(1, TO_DESTINATION).be(2, libc::AF_INET as u32).be(3, REGISTER_A).be(5, REGISTER_B);
    });
}

fn from(rule: &mut Message, block: Ipv4Block) {
    const NETWORK_HEADER: u32 = 1;
    const SOURCE_ADDRESS: u32 = 12;
    expression(rule, "payload", |payload| {
        payload.be(1, REGISTER_A).be(2, NETWORK_HEADER).be(3, SOURCE_ADDRESS).be(4, 4);
    });
    let mask = u32::MAX << (32 - u32::from(block.prefix_length()));
    expression(rule, "bitwise", |bitwise| {
        bitwise.be(1, REGISTER_A).be(2, REGISTER_A).be(3, 4);
        bitwise.nest(4, |data| {
            data.attribute(VALUE, &mask.to_be_bytes());
        });
        bitwise.nest(5, |data| {
            data.attribute(VALUE, &[0; 4]);
        });
    });
    compare(rule, REGISTER_A, true, &block.base().octets());
}

fn leaving_by(rule: &mut Message, link: &str, this: bool) {
    const OUTPUT_NAME: u32 = 7;
    expression(rule, "meta", |meta| {
        meta.be(1, REGISTER_A).be(2, OUTPUT_NAME);
    });
    let mut name = [0; 16];
    name[..link.len()].copy_from_slice(link.as_bytes());
    compare(rule, REGISTER_A, this, &name);
}

fn masquerade(rule: &mut Message) {
    expression(rule, "masq", |_| {});
}
