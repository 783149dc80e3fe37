//! nf_tables in the kernel's own words: batches of commands, and the expressions that rules are made of. No program has
//! to be installed, and a change costs no process.

use super::netlink::{F_ACKNOWLEDGE, F_APPEND, F_CREATE, Message, Socket};
use parking_lot::Mutex;
use std::io;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

pub const PREROUTING: u32 = 0;
pub const INPUT: u32 = 1;
pub const FORWARD: u32 = 2;
pub const OUTPUT: u32 = 3;
pub const POSTROUTING: u32 = 4;
pub const PRIORITY_DESTINATION: i32 = -100;
pub const PRIORITY_FILTER: i32 = 0;
pub const PRIORITY_SOURCE: i32 = 100;

/// Where a rule's verdict goes.
const VERDICT: u32 = 0;
/// Registers of 32 bits that lie beside each other; the first is also the beginning of the first of 128 bits.
pub const REGISTER_A: u32 = 8;
pub const REGISTER_B: u32 = 9;

const ELEMENT: u16 = 1;
const VALUE: u16 = 1;
const VERDICT_VALUE: u16 = 2;
/// Elements in one command: a list of them is an attribute, of 64 KiB at most, and an element of ours takes at most 60
/// bytes: a name of 16, a verdict with a chain's name.
const ELEMENTS_PER_COMMAND: usize = 1000;

/// How `nft` shows keys and values of sets: types by their numbers there, six bits each.
pub const TYPE_IPV4: u32 = 7;
pub const TYPE_IPV6: u32 = 8;
pub const TYPE_PROTOCOL: u32 = 12;
pub const TYPE_PORT: u32 = 13;
pub const TYPE_LINK: u32 = 41;
/// What maps to verdicts.
const TYPE_VERDICT: u32 = 0xffff_ff00;
/// A link's name in a register.
pub const LINK_NAME_LENGTH: usize = 16;

/// The families of tables.
#[derive(Clone, Copy, Debug)]
pub enum TableFamily {
    Ipv4 = libc::NFPROTO_IPV4 as isize,
    /// Both versions of IP.
    Inet = libc::NFPROTO_INET as isize,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
}

/// The way to the kernel's firewall, of the namespace in which it is first used, which stays open: the kernel makes who
/// closes one wait until what others of the namespace removed is cleared away, for some 15 ms.
#[derive(Debug, Default)]
pub struct Line(Mutex<Option<Socket>>);

impl Line {
    fn tell(&self, message: &Message, last: u32) -> io::Result<()> {
        let mut line = self.0.lock();
        // After an error it is not used again: answers to this change could be taken for those to another.
        let mut socket = line.take().map_or_else(Socket::netfilter, Ok)?;
        socket.send(message)?;
        socket.acknowledged(last)?;
        *line = Some(socket);
        Ok(())
    }
}

/// One atomic change: all of it, or nothing.
pub struct Batch {
    message: Message,
    family: TableFamily,
    table: String,
    /// The number of the last message, and that of the last command.
    sequence: u32,
    last: u32,
}

/// Whether there is such a table.
pub fn exists(family: TableFamily, table: &str) -> io::Result<bool> {
    let found = Socket::netfilter()?.request(SUBSYSTEM << 8 | GET_TABLE, 0, |message| {
        message.raw(&[family as u8, 0, 0, 0]).text(1, table);
    });
    match found {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A table that is not there is no error.
pub fn remove(family: TableFamily, table: &str) -> io::Result<()> {
    let mut batch = Batch::begin(family, table);
    // Making it first lets the removal succeed whether or not it was there.
    batch.table(NEW_TABLE);
    batch.table(DELETE_TABLE);
    batch.commit(&Line::default())
}

impl Batch {
    /// A change of a table that is there.
    pub fn begin(family: TableFamily, table: &str) -> Batch {
        let (message, table) = (Message::default(), table.to_owned());
        let mut batch = Batch { message, family, table, sequence: 0, last: 0 };
        batch.boundary(BATCH_BEGIN);
        batch
    }

    /// A table made anew, whatever it was before.
    pub fn anew(family: TableFamily, table: &str) -> io::Result<Batch> {
        let mut batch = Batch::begin(family, table);
        if exists(family, table)? {
            // Should it vanish meanwhile, this makes what the next command removes.
            batch.table(NEW_TABLE);
            batch.table(DELETE_TABLE);
        }
        batch.table(NEW_TABLE);
        Ok(batch)
    }

    fn boundary(&mut self, kind: u16) {
        self.sequence += 1;
        let start = self.message.begin(kind, 0, self.sequence);
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.message.raw(&[0, 0, high, low]);
        self.message.end(start);
    }

    fn command(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) {
        self.sequence += 1;
        self.last = self.sequence;
        let start = self.message.begin(SUBSYSTEM << 8 | kind, flags | F_ACKNOWLEDGE, self.last);
        self.message.raw(&[self.family as u8, 0, 0, 0]).text(1, &self.table);
        fill(&mut self.message);
        self.message.end(start);
    }

    pub fn commit(mut self, line: &Line) -> io::Result<()> {
        if self.last == 0 {
            return Ok(());
        }
        self.boundary(BATCH_END);
        line.tell(&self.message, self.last)
    }

    fn table(&mut self, kind: u16) {
        self.command(kind, if kind == NEW_TABLE { F_CREATE } else { 0 }, |_| {});
    }

    /// A chain that packets come to by themselves. `kind`: `nat` or `filter`.
    pub fn base_chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        self.command(NEW_CHAIN, F_CREATE, |message| {
            message.text(3, name);
            message.nest(4, |inner| {
                inner.be(1, hook).be(2, priority.cast_unsigned());
            });
            message.text(7, kind);
        });
    }

    /// A chain that others jump to.
    pub fn chain(&mut self, name: &str) {
        self.command(NEW_CHAIN, F_CREATE, |message| {
            message.text(3, name);
        });
    }

    /// Removes a chain with its rules; nothing may jump to it.
    pub fn delete_chain(&mut self, name: &str) {
        self.flush_chain(name);
        self.command(DELETE_CHAIN, 0, |message| {
            message.text(3, name);
        });
    }

    /// Removes the rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.command(DELETE_RULE, 0, |message| {
            message.text(2, name);
        });
    }

    pub fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Message)) {
        self.command(NEW_RULE, F_CREATE | F_APPEND, |message| {
            message.text(2, chain);
            message.nest(4, fill);
        });
    }

    /// A set of keys. Types are `nft`'s, lengths are in bytes; `number` differs from those of other sets of the batch.
    pub fn set(&mut self, name: &str, (key_type, key_length): (u32, u32), number: u32) {
        self.command(NEW_SET, F_CREATE, |message| {
            message.text(2, name).be(3, 0).be(4, key_type).be(5, key_length).be(10, number);
        });
    }

    /// A set that maps its keys to values.
    pub fn map(
        &mut self,
        name: &str,
        (key_type, key_length): (u32, u32),
        (value_type, value_length): (u32, u32),
        number: u32,
    ) {
        const IS_MAP: u32 = 0x8;
        self.command(NEW_SET, F_CREATE, |message| {
            message.text(2, name).be(3, IS_MAP).be(4, key_type).be(5, key_length);
            message.be(6, value_type).be(7, value_length).be(10, number);
        });
    }

    /// A set that maps its keys to verdicts.
    pub fn verdict_map(&mut self, name: &str, key: (u32, u32), number: u32) {
        self.map(name, key, (TYPE_VERDICT, 0), number);
    }

    pub fn delete_set(&mut self, name: &str) {
        self.command(DELETE_SET, 0, |message| {
            message.text(2, name);
        });
    }

    /// Puts elements in, each as `fill` writes it; those that are there stay.
    pub fn add<T: Copy>(&mut self, set: &str, elements: &[T], fill: impl Fn(&mut Message, T)) {
        self.elements((NEW_ELEMENT, F_CREATE), set, elements, fill);
    }

    /// Takes elements out; all of them have to be there.
    pub fn remove<T: Copy>(&mut self, set: &str, elements: &[T], fill: impl Fn(&mut Message, T)) {
        self.elements((DELETE_ELEMENT, 0), set, elements, fill);
    }

    fn elements<T: Copy>(
        &mut self,
        (kind, flags): (u16, u16),
        set: &str,
        elements: &[T],
        fill: impl Fn(&mut Message, T),
    ) {
        for some in elements.chunks(ELEMENTS_PER_COMMAND) {
            self.command(kind, flags, |message| {
                message.text(2, set);
                message.nest(3, |list| {
                    for one in some {
                        list.nest(ELEMENT, |element| fill(element, *one));
                    }
                });
            });
        }
    }
}

/// The key of an element.
pub fn key(element: &mut Message, bytes: &[u8]) {
    element.nest(1, |inner| {
        inner.attribute(VALUE, bytes);
    });
}

/// The value that an element's key maps to.
pub fn value(element: &mut Message, bytes: &[u8]) {
    element.nest(2, |inner| {
        inner.attribute(VALUE, bytes);
    });
}

/// The verdict that an element's key maps to.
pub fn verdict_value(element: &mut Message, verdict: Verdict<'_>) {
    element.nest(2, |inner| verdict_in(inner, verdict));
}

fn verdict_in(data: &mut Message, verdict: Verdict<'_>) {
    const ACCEPT: i32 = 1;
    const DROP: i32 = 0;
    const JUMP: i32 = -3;
    data.nest(VERDICT_VALUE, |inner| match verdict {
        Verdict::Accept => drop(inner.be(1, ACCEPT.cast_unsigned())),
        Verdict::Drop => drop(inner.be(1, DROP.cast_unsigned())),
        Verdict::Jump(chain) => drop(inner.be(1, JUMP.cast_unsigned()).text(2, chain)),
    });
}

/// A link's name as registers hold it.
pub fn link_name(name: &str) -> [u8; LINK_NAME_LENGTH] {
    let mut bytes = [0; LINK_NAME_LENGTH];
    let length = name.len().min(LINK_NAME_LENGTH - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn expression(rule: &mut Message, name: &str, fill: impl FnOnce(&mut Message)) {
    rule.nest(ELEMENT, |element| {
        element.text(1, name).nest(2, fill);
    });
}

/// How a register is compared with a value, as numbers of the network's order.
#[derive(Clone, Copy, Debug)]
pub enum Is {
    Equal = 0,
    Other = 1,
    AtMost = 3,
    AtLeast = 5,
}

/// Goes on if a register holds such a value. Of a name, the first bytes may do.
pub fn compare(rule: &mut Message, register: u32, is: Is, value: &[u8]) {
    expression(rule, "cmp", |compare| {
        compare.be(1, register).be(2, is as u32).nest(3, |data| {
            data.attribute(VALUE, value);
        });
    });
}

/// A fact about a packet that does not stand in it.
#[derive(Clone, Copy, Debug)]
pub enum Meta {
    InputName = 6,
    OutputName = 7,
    /// Of the process that sends it, by the machine's own order of bytes.
    User = 10,
    Group = 11,
    /// The family of the packet, for tables of both.
    Family = 15,
    Protocol = 16,
}

pub fn meta(rule: &mut Message, meta: Meta, register: u32) {
    expression(rule, "meta", |expression| {
        expression.be(1, register).be(2, meta as u32);
    });
}

/// The header that an offset counts from.
#[derive(Clone, Copy, Debug)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// Loads bytes of a packet.
pub fn payload(rule: &mut Message, header: Header, offset: u32, length: u32, register: u32) {
    expression(rule, "payload", |payload| {
        payload.be(1, register).be(2, header as u32).be(3, offset).be(4, length);
    });
}

/// The target port of TCP and UDP.
pub fn target_port(rule: &mut Message, register: u32) {
    payload(rule, Header::Transport, 2, 2, register);
}

/// Keeps the bits of a register, from its first, that `mask` has.
pub fn mask(rule: &mut Message, register: u32, mask: &[u8]) {
    expression(rule, "bitwise", |bitwise| {
        bitwise.be(1, register).be(2, register).be(3, mask.len() as u32);
        bitwise.nest(4, |data| {
            data.attribute(VALUE, mask);
        });
        bitwise.nest(5, |data| {
            data.attribute(VALUE, &vec![0; mask.len()]);
        });
    });
}

/// Goes on if the connection is known, or the packet has to do with one that is.
pub fn known_connection(rule: &mut Message) {
    const STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    of_connection(rule, STATE, ESTABLISHED_OR_RELATED);
}

/// Goes on if the connection was led elsewhere than it was meant for.
pub fn led_connection(rule: &mut Message) {
    const STATUS: u32 = 2;
    const DESTINATION_CHANGED: u32 = 1 << 5;
    of_connection(rule, STATUS, DESTINATION_CHANGED);
}

/// Goes on if what the kernel keeps of the connection has one of these bits.
fn of_connection(rule: &mut Message, what: u32, bits: u32) {
    expression(rule, "ct", |ct| {
        ct.be(1, REGISTER_A).be(2, what);
    });
    mask(rule, REGISTER_A, &bits.to_ne_bytes());
    compare(rule, REGISTER_A, Is::Other, &[0; 4]);
}

/// Goes on if the registers from this one on are a key of the set.
pub fn in_set(rule: &mut Message, set: &str, register: u32) {
    expression(rule, "lookup", |lookup| {
        lookup.text(1, set).be(2, register);
    });
}

/// Goes on with what the map has for the registers from this one on, in registers from that one on.
pub fn map_to(rule: &mut Message, map: &str, from: u32, to: u32) {
    expression(rule, "lookup", |lookup| {
        lookup.text(1, map).be(2, from).be(3, to).be(4, 1);
    });
}

/// Does what the map has for the registers from this one on, if it has something.
pub fn decide_by(rule: &mut Message, map: &str, register: u32) {
    expression(rule, "lookup", |lookup| {
        lookup.text(1, map).be(2, register).be(3, VERDICT).be(4, 1);
    });
}

pub fn decide(rule: &mut Message, verdict: Verdict<'_>) {
    expression(rule, "immediate", |immediate| {
        immediate.be(1, VERDICT).nest(2, |data| verdict_in(data, verdict));
    });
}

/// Loads a constant.
pub fn load(rule: &mut Message, register: u32, bytes: &[u8]) {
    expression(rule, "immediate", |immediate| {
        immediate.be(1, register).nest(2, |data| {
            data.attribute(VALUE, bytes);
        });
    });
}

/// Goes on if the target is an address of this host.
pub fn to_this_host(rule: &mut Message) {
    const OF_DESTINATION: u32 = 2;
    of_this_host(rule, OF_DESTINATION);
}

/// Goes on if the source is an address of this host.
pub fn from_this_host(rule: &mut Message) {
    const OF_SOURCE: u32 = 1;
    of_this_host(rule, OF_SOURCE);
}

fn of_this_host(rule: &mut Message, which: u32) {
    const LOCAL: u32 = 2;
    const BY_ADDRESS_TYPE: u32 = 3;
    expression(rule, "fib", |fib| {
        fib.be(1, REGISTER_A).be(2, BY_ADDRESS_TYPE).be(3, which);
    });
    compare(rule, REGISTER_A, Is::Equal, &LOCAL.to_ne_bytes());
}

/// Leads the packet to this port of the host that it is on.
pub fn redirect(rule: &mut Message, port: u16) {
    load(rule, REGISTER_A, &port.to_be_bytes());
    expression(rule, "redir", |redirect| {
        redirect.be(1, REGISTER_A);
    });
}

/// Leads the packet to the IPv4 address and port in registers.
pub fn lead_to(rule: &mut Message, address: u32, port: u32) {
    const TO_DESTINATION: u32 = 1;
    expression(rule, "nat", |nat| {
        nat.be(1, TO_DESTINATION).be(2, libc::AF_INET as u32).be(3, address).be(5, port);
    });
}

/// Lets the packet leave with the host's address.
pub fn masquerade(rule: &mut Message) {
    expression(rule, "masq", |_| {});
}
