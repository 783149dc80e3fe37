//! Security groups in the kernel: what [`gantry_decide::network::firewall`] decides, as a table of nf_tables. On the
//! host's side of each link, where no program of a task can change it.
//!
//! ```text
//! table inet gantry-NAME {
//!     map out { type ifname : verdict; elements = { LINK : jump o-LINK } }
//!     map in { (the same, to i-LINK) }
//!     set tasks4 { type ipv4_addr }   set tasks6   set resolvers4   set resolvers6
//!     chain from-tasks { type filter hook forward priority 0;
//!         iifname { "gv*", "gb-*" } ip daddr 169.254.169.254 drop
//!         ct state established,related accept; (names) accept; iifname vmap @out }
//!     chain to-host { type filter hook input priority 0; (the same, and neighbour discovery) }
//!     chain to-tasks { type filter hook forward priority 1;
//!         ct state established,related accept; iifname "gx-NAME" ip saddr @hosts4 accept; oifname vmap @in }
//!     chain postrouting { type nat hook postrouting priority srcnat;
//!         ip saddr @tasks4 oifname != "gv*" oifname != "gb-*" oifname != "gx-*" masquerade }
//!     set hosts4; chain to-host also: udp dport 4790 ip saddr != @hosts4 drop, where hosts carry packets to each other
//!     set 4-GROUP, 6-GROUP; chain i-GROUP, o-GROUP, i-LINK, o-LINK (see the decisions)
//! }
//! ```
//!
//! Whoever is a task does not reach the metadata of the machine that its host may be: with the role of that, it could be
//! more than itself.
//!
//! As on EC2, security groups do not concern the questions of tasks to the name servers that they were given. What the
//! host itself, or another host of the platform, says to its tasks passes too: that is the machine's owner, who looks at a
//! page, and the platform, which checks health.

use super::instance;
use super::netlink::Message;
use super::nft::{
    self, Batch, FORWARD, Header, INPUT, Is, LINK_NAME_LENGTH, Line, Meta, POSTROUTING, PRIORITY_FILTER,
    PRIORITY_SOURCE, REGISTER_A, TYPE_IPV4, TYPE_IPV6, TYPE_LINK, TableFamily, compare,
};
use gantry_decide::network::firewall::{self, Change, Family, Match, Rule, Side};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// Links to tasks, bridges, and links to tasks of other hosts, of all agents of a host: what goes there keeps its address.
const ON_HOST: [&str; 3] = [super::LINK_PREFIX, "gb-", super::OVERLAY_PREFIX];
/// Addresses of other hosts, as the overlay knows them.
const HOSTS: &str = "hosts4";

/// The table of one agent.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: String,
    overlay: Option<(String, u16)>,
    line: Arc<Line>,
}

impl Table {
    /// `overlay`: the link to other hosts, if there is one, and its UDP port.
    pub fn new(name: String, overlay: Option<(String, u16)>) -> Table {
        Table { name, overlay, line: Arc::default() }
    }

    /// Makes the table anew, in one step.
    pub fn install(&self, resolvers: &[IpAddr], hosts: &[IpAddr], changes: &[Change]) -> io::Result<()> {
        let mut batch = Batch::anew(TableFamily::Inet, &self.name)?;
        for (number, family) in (1..).zip(Family::BOTH) {
            batch.set(&firewall::task_set(family), key_of(family), number);
            batch.set(resolver_set(family), key_of(family), 10 + number);
            let of_family: Vec<IpAddr> =
                resolvers.iter().copied().filter(|address| Family::of(*address) == family).collect();
            batch.add(resolver_set(family), &of_family, element);
        }
        for (number, side) in (20..).zip(Side::BOTH) {
            batch.verdict_map(map(side), (TYPE_LINK, LINK_NAME_LENGTH as u32), number);
        }
        batch.base_chain("from-tasks", "filter", FORWARD, PRIORITY_FILTER);
        batch.base_chain("to-host", "filter", INPUT, PRIORITY_FILTER);
        // A packet that one accepts comes to the next all the same.
        batch.base_chain("to-tasks", "filter", FORWARD, PRIORITY_FILTER + 1);
        batch.base_chain("postrouting", "nat", POSTROUTING, PRIORITY_SOURCE);
        batch.set(HOSTS, key_of(Family::V4), 30);
        batch.add(HOSTS, hosts, element);
        if let Some((_, port)) = &self.overlay {
            // Of known hosts only, also what belongs to a connection.
            for verdict in [nft::Verdict::Accept, nft::Verdict::Drop] {
                batch.rule("to-host", |rule| {
                    of_family(rule, Family::V4);
                    of_protocol(rule, libc::IPPROTO_UDP as u8);
                    nft::target_port(rule, REGISTER_A);
                    compare(rule, REGISTER_A, Is::Equal, &port.to_be_bytes());
                    if matches!(verdict, nft::Verdict::Accept) {
                        peer(rule, Side::In, Family::V4);
                        nft::in_set(rule, HOSTS, REGISTER_A);
                    }
                    nft::decide(rule, verdict);
                });
            }
        }
        for link in [super::LINK_PREFIX, "gb-"] {
            batch.rule("from-tasks", |rule| {
                nft::meta(rule, Meta::InputName, REGISTER_A);
                compare(rule, REGISTER_A, Is::Equal, link.as_bytes());
                of_family(rule, Family::V4);
                instance::for_instance(rule);
                nft::decide(rule, nft::Verdict::Drop);
            });
        }
        for chain in ["from-tasks", "to-host", "to-tasks"] {
            batch.rule(chain, |rule| {
                nft::known_connection(rule);
                nft::decide(rule, nft::Verdict::Accept);
            });
        }
        batch.rule("to-host", |rule| {
            neighbour_discovery(rule);
            nft::decide(rule, nft::Verdict::Accept);
        });
        for chain in ["from-tasks", "to-host"] {
            for family in Family::BOTH {
                for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
                    batch.rule(chain, |rule| {
                        to_resolver(rule, family, protocol as u8);
                        nft::decide(rule, nft::Verdict::Accept);
                    });
                }
            }
            batch.rule(chain, |rule| {
                nft::meta(rule, Meta::InputName, REGISTER_A);
                nft::decide_by(rule, map(Side::Out), REGISTER_A);
            });
        }
        if let Some((link, _)) = &self.overlay {
            batch.rule("to-tasks", |rule| {
                nft::meta(rule, Meta::InputName, REGISTER_A);
                compare(rule, REGISTER_A, Is::Equal, &nft::link_name(link));
                of_family(rule, Family::V4);
                peer(rule, Side::In, Family::V4);
                nft::in_set(rule, HOSTS, REGISTER_A);
                nft::decide(rule, nft::Verdict::Accept);
            });
        }
        batch.rule("to-tasks", |rule| {
            nft::meta(rule, Meta::OutputName, REGISTER_A);
            nft::decide_by(rule, map(Side::In), REGISTER_A);
        });
        for family in Family::BOTH {
            batch.rule("postrouting", |rule| {
                of_family(rule, family);
                peer(rule, Side::In, family);
                nft::in_set(rule, &firewall::task_set(family), REGISTER_A);
                for link in ON_HOST {
                    nft::meta(rule, Meta::OutputName, REGISTER_A);
                    compare(rule, REGISTER_A, Is::Other, link.as_bytes());
                }
                nft::masquerade(rule);
            });
        }
        add(&mut batch, changes);
        batch.commit(&self.line)
    }

    /// Other hosts are known now, or no longer.
    pub fn hosts(&self, joined: &[IpAddr], left: &[IpAddr]) -> io::Result<()> {
        let mut batch = Batch::begin(TableFamily::Inet, &self.name);
        batch.remove(HOSTS, left, element);
        batch.add(HOSTS, joined, element);
        batch.commit(&self.line)
    }

    /// All of the changes, or none.
    pub fn apply(&self, changes: &[Change]) -> io::Result<()> {
        let mut batch = Batch::begin(TableFamily::Inet, &self.name);
        add(&mut batch, changes);
        batch.commit(&self.line)
    }

    pub fn exists(&self) -> io::Result<bool> {
        nft::exists(TableFamily::Inet, &self.name)
    }

    /// A table that is not there is no error.
    pub fn remove(&self) -> io::Result<()> {
        nft::remove(TableFamily::Inet, &self.name)
    }
}

fn map(side: Side) -> &'static str {
    match side {
        Side::In => "in",
        Side::Out => "out",
    }
}

fn resolver_set(family: Family) -> &'static str {
    match family {
        Family::V4 => "resolvers4",
        Family::V6 => "resolvers6",
    }
}

fn key_of(family: Family) -> (u32, u32) {
    match family {
        Family::V4 => (TYPE_IPV4, 4),
        Family::V6 => (TYPE_IPV6, 16),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn element(element: &mut Message, address: IpAddr) {
    nft::key(element, &octets(address));
}

fn add(batch: &mut Batch, changes: &[Change]) {
    // Numbers of sets differ from those of the table's own.
    for (number, change) in (100..).zip(changes) {
        match change {
            Change::MakeSet(name, family) => batch.set(name, key_of(*family), number),
            Change::DropSet(name, _) => batch.delete_set(name),
            Change::Add(name, addresses) => batch.add(name, addresses, element),
            Change::Remove(name, addresses) => batch.remove(name, addresses, element),
            Change::MakeChain(name) => batch.chain(name),
            Change::DropChain(name) => batch.delete_chain(name),
            Change::Fill(name, rules) => {
                batch.flush_chain(name);
                for rule in rules {
                    batch.rule(name, |message| add_rule(message, rule));
                }
            }
            Change::Bind(side, link) => {
                let chain = firewall::interface_chain(*side, link);
                batch.add(map(*side), &[link.as_str()], |element, link| {
                    nft::key(element, &nft::link_name(link));
                    nft::verdict_value(element, nft::Verdict::Jump(&chain));
                });
            }
            Change::Unbind(side, link) => batch.remove(map(*side), &[link.as_str()], |element, link| {
                nft::key(element, &nft::link_name(link));
            }),
        }
    }
}

pub(super) fn add_rule(message: &mut Message, rule: &Rule) {
    for one in &rule.matches {
        add_match(message, one);
    }
    let verdict = match &rule.verdict {
        firewall::Verdict::Accept => nft::Verdict::Accept,
        firewall::Verdict::Drop => nft::Verdict::Drop,
        firewall::Verdict::Jump(chain) => nft::Verdict::Jump(chain),
    };
    nft::decide(message, verdict);
}

fn add_match(rule: &mut Message, one: &Match) {
    match one {
        Match::Family(family) => of_family(rule, *family),
        Match::NotFrom(address) => {
            peer(rule, Side::In, Family::of(*address));
            compare(rule, REGISTER_A, Is::Other, &octets(*address));
        }
        Match::Peer4(side, block) => {
            of_family(rule, Family::V4);
            let mask = u32::MAX.checked_shl(32 - u32::from(block.bits())).unwrap_or(0).to_be_bytes();
            within(rule, *side, block.base().into(), &mask);
        }
        Match::Peer6(side, block) => {
            of_family(rule, Family::V6);
            let mask = u128::MAX.checked_shl(128 - u32::from(block.bits())).unwrap_or(0).to_be_bytes();
            within(rule, *side, block.base().into(), &mask);
        }
        Match::PeerIn(side, family, set) => {
            of_family(rule, *family);
            peer(rule, *side, *family);
            nft::in_set(rule, set, REGISTER_A);
        }
        Match::Protocol(number) => of_protocol(rule, *number),
        Match::Ports(first, last) => {
            nft::target_port(rule, REGISTER_A);
            compare(rule, REGISTER_A, Is::AtLeast, &first.to_be_bytes());
            compare(rule, REGISTER_A, Is::AtMost, &last.to_be_bytes());
        }
        Match::IcmpType(kind) => {
            nft::payload(rule, Header::Transport, 0, 1, REGISTER_A);
            compare(rule, REGISTER_A, Is::Equal, &[*kind]);
        }
        Match::IcmpCode(code) => {
            nft::payload(rule, Header::Transport, 1, 1, REGISTER_A);
            compare(rule, REGISTER_A, Is::Equal, &[*code]);
        }
    }
}

fn of_family(rule: &mut Message, family: Family) {
    let number = match family {
        Family::V4 => libc::NFPROTO_IPV4,
        Family::V6 => libc::NFPROTO_IPV6,
    };
    nft::meta(rule, Meta::Family, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &[number as u8]);
}

fn of_protocol(rule: &mut Message, number: u8) {
    nft::meta(rule, Meta::Protocol, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &[number]);
}

/// Loads the address of the other side: the source of what comes in, the target of what goes out.
fn peer(rule: &mut Message, side: Side, family: Family) {
    let (offset, length) = match (family, side) {
        (Family::V4, Side::In) => (12, 4),
        (Family::V4, Side::Out) => (16, 4),
        (Family::V6, Side::In) => (8, 16),
        (Family::V6, Side::Out) => (24, 16),
    };
    nft::payload(rule, Header::Network, offset, length, REGISTER_A);
}

fn within(rule: &mut Message, side: Side, base: IpAddr, mask: &[u8]) {
    if mask.iter().all(|byte| *byte == 0) {
        return;
    }
    peer(rule, side, Family::of(base));
    nft::mask(rule, REGISTER_A, mask);
    compare(rule, REGISTER_A, Is::Equal, &octets(base));
}

/// By which neighbours find each other in IPv6: router and neighbour solicitation and advertisement, redirect.
fn neighbour_discovery(rule: &mut Message) {
    const FIRST: u8 = 133;
    const LAST: u8 = 137;
    of_protocol(rule, libc::IPPROTO_ICMPV6 as u8);
    nft::payload(rule, Header::Transport, 0, 1, REGISTER_A);
    compare(rule, REGISTER_A, Is::AtLeast, &[FIRST]);
    compare(rule, REGISTER_A, Is::AtMost, &[LAST]);
}

fn to_resolver(rule: &mut Message, family: Family, protocol: u8) {
    const DOMAIN: u16 = 53;
    of_family(rule, family);
    of_protocol(rule, protocol);
    nft::target_port(rule, REGISTER_A);
    compare(rule, REGISTER_A, Is::Equal, &DOMAIN.to_be_bytes());
    peer(rule, Side::Out, family);
    nft::in_set(rule, resolver_set(family), REGISTER_A);
}
