//! The words of a packet filter, and how groups are said in them.

use super::Allowed;
use crate::ids::SecurityGroupId;
use crate::network::{Ipv4Block, Ipv6Block, Peer, Protocol};
use std::net::IpAddr;

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A set of addresses, empty.
    MakeSet(String, Family),
    DropSet(String, Family),
    Add(String, Vec<IpAddr>),
    Remove(String, Vec<IpAddr>),
    /// A chain, empty.
    MakeChain(String),
    /// These rules instead of those that the chain had.
    Fill(String, Vec<Rule>),
    DropChain(String),
    /// What comes from (`Out`) or goes to (`In`) this link passes the link's chain.
    Bind(Side, String),
    Unbind(Side, String),
}

/// Seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    In,
    Out,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::In, Side::Out];

    fn letter(self) -> char {
        match self {
            Side::In => 'i',
            Side::Out => 'o',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }
}

/// All of `matches` must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// On to another chain; if that decides nothing, the next rule.
    Jump(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Family(Family),
    /// The source is another one. Only behind the match of its family.
    NotFrom(IpAddr),
    /// The address of the other side lies in a block: the source of what comes in, the target of what goes out.
    Peer4(Side, Ipv4Block),
    Peer6(Side, Ipv6Block),
    /// It is an element of a set.
    PeerIn(Side, Family, String),
    /// By the protocol's number.
    Protocol(u8),
    /// The target port, first and last. Only behind a protocol that has ports.
    Ports(u16, u16),
    /// Only behind ICMP's protocols.
    IcmpType(u8),
    IcmpCode(u8),
}

/// The set of the addresses of all interfaces of the host.
pub fn task_set(family: Family) -> String {
    format!("tasks{}", family.digit())
}

pub(super) fn member_set(family: Family, group: SecurityGroupId) -> String {
    format!("{}-{group}", family.digit())
}

pub(super) fn group_chain(side: Side, group: SecurityGroupId) -> String {
    format!("{}-{group}", side.letter())
}

pub fn interface_chain(side: Side, link: &str) -> String {
    format!("{}-{link}", side.letter())
}

/// The rules that accept what a group allows.
pub(super) fn rules(side: Side, allowed: &Allowed) -> Vec<Rule> {
    let peers: Vec<Match> = match &allowed.peer {
        Peer::Ipv4(block) => vec![Match::Peer4(side, *block)],
        Peer::Ipv6(block) => vec![Match::Peer6(side, *block)],
        Peer::Group(id) => {
            Family::BOTH.map(|family| Match::PeerIn(side, family, member_set(family, *id))).into()
        }
    };
    let mut traffic = Vec::new();
    match allowed.traffic.protocol {
        Protocol::All => {}
        Protocol::Tcp => traffic.push(Match::Protocol(6)),
        Protocol::Udp => traffic.push(Match::Protocol(17)),
        Protocol::Icmp => traffic.push(Match::Protocol(1)),
        Protocol::Icmpv6 => traffic.push(Match::Protocol(58)),
        Protocol::Number(number) => traffic.push(Match::Protocol(number)),
    }
    if let Some(ports) = allowed.traffic.ports {
        match allowed.traffic.protocol {
            Protocol::Tcp | Protocol::Udp => {
                // Read and bounded when the rule was made.
                let port = |number: i32| u16::try_from(number.clamp(0, 65_535)).unwrap_or(u16::MAX);
                traffic.push(Match::Ports(port(ports.from), port(ports.to)));
            }
            Protocol::Icmp | Protocol::Icmpv6 => {
                // Any code of any type, or of one.
                if let Ok(kind) = u8::try_from(ports.from) {
                    traffic.push(Match::IcmpType(kind));
                    traffic.extend(u8::try_from(ports.to).ok().map(Match::IcmpCode));
                }
            }
            Protocol::Number(_) | Protocol::All => {}
        }
    }
    let rule = |peer: Match| {
        let mut matches = vec![peer];
        matches.extend(traffic.iter().cloned());
        Rule { matches, verdict: Verdict::Accept }
    };
    peers.into_iter().map(rule).collect()
}
