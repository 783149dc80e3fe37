//! What one rule of a security group allows: a kind of traffic, from or to a peer.

use super::{Ipv4Block, Ipv6Block};
use crate::ids::SecurityGroupId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A rule that EC2 does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    #[error("Invalid value '{0}' for IP protocol. Unknown protocol.")]
    Protocol(String),
    #[error("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")]
    NoPorts,
    #[error("TCP/UDP port ({0}) out of range")]
    PortRange(i32),
    #[error("Invalid TCP/UDP port range ({from}:{to})")]
    PortOrder { from: i32, to: i32 },
    #[error("ICMP type or code ({0}) out of range")]
    Icmp(i32),
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    /// Any other, by its number. Ports mean nothing to it here.
    Number(u8),
    All,
}

impl Protocol {
    /// Reads a name or a number; `-1` is all.
    ///
    /// # Errors
    /// For other text.
    pub fn read(text: &str) -> Result<Protocol, InvalidRule> {
        let unknown = || InvalidRule::Protocol(text.chars().take(64).collect());
        Ok(match text.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "icmpv6" => Protocol::Icmpv6,
            "-1" | "all" => Protocol::All,
            number => match number.parse().map_err(|_| unknown())? {
                1 => Protocol::Icmp,
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                58 => Protocol::Icmpv6,
                number => Protocol::Number(number),
            },
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Tcp => f.write_str("tcp"),
            Protocol::Udp => f.write_str("udp"),
            Protocol::Icmp => f.write_str("icmp"),
            Protocol::Icmpv6 => f.write_str("icmpv6"),
            Protocol::Number(number) => write!(f, "{number}"),
            Protocol::All => f.write_str("-1"),
        }
    }
}

/// The first and the last port, both included; for ICMP the type and the code, -1 for any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ports {
    pub from: i32,
    pub to: i32,
}

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Traffic {
    pub protocol: Protocol,
    /// `None` where the protocol has no ports or all are meant.
    pub ports: Option<Ports>,
}

impl Traffic {
    pub const ALL: Traffic = Traffic { protocol: Protocol::All, ports: None };

    /// # Errors
    /// Ports that the protocol must have or cannot have.
    pub fn read(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<Traffic, InvalidRule> {
        let protocol = Protocol::read(protocol)?;
        let ports = match protocol {
            Protocol::Tcp | Protocol::Udp => {
                let (Some(from), Some(to)) = (from, to) else { return Err(InvalidRule::NoPorts) };
                // All ports may be spelled like all types of ICMP.
                let (from, to) = if (from, to) == (-1, -1) { (0, 65535) } else { (from, to) };
                if let Some(wrong) = [from, to].into_iter().find(|port| !(0..=65535).contains(port)) {
                    return Err(InvalidRule::PortRange(wrong));
                }
                if from > to {
                    return Err(InvalidRule::PortOrder { from, to });
                }
                Some(Ports { from, to })
            }
            Protocol::Icmp | Protocol::Icmpv6 => {
                let (from, to) = (from.unwrap_or(-1), to.unwrap_or(-1));
                if let Some(wrong) = [from, to].into_iter().find(|number| !(-1..=255).contains(number)) {
                    return Err(InvalidRule::Icmp(wrong));
                }
                Some(Ports { from, to })
            }
            Protocol::Number(_) | Protocol::All => None,
        };
        Ok(Traffic { protocol, ports })
    }
}

/// The other side of the traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Peer {
    Ipv4(Ipv4Block),
    Ipv6(Ipv6Block),
    /// The interfaces of a security group, by their private addresses.
    Group(SecurityGroupId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ipv4(block) => write!(f, "{block}"),
            Peer::Ipv6(block) => write!(f, "{block}"),
            Peer::Group(id) => write!(f, "{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn protocols_have_names_and_numbers() {
        for (text, shown) in [("TCP", "tcp"), ("17", "udp"), ("58", "icmpv6"), ("all", "-1"), ("50", "50")] {
            assert_eq!(Protocol::read(text).unwrap().to_string(), shown);
        }
        for text in ["", "tcpp", "256", "-2"] {
            assert!(Protocol::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_follow_the_protocol() {
        let ports = |protocol, from, to| Traffic::read(protocol, from, to).map(|traffic| traffic.ports);
        assert_eq!(ports("tcp", Some(80), Some(81)), Ok(Some(Ports { from: 80, to: 81 })));
        assert_eq!(ports("udp", Some(-1), Some(-1)), Ok(Some(Ports { from: 0, to: 65535 })));
        assert_eq!(ports("icmp", Some(8), None), Ok(Some(Ports { from: 8, to: -1 })));
        assert_eq!(ports("-1", Some(80), Some(80)), Ok(None));
        assert_eq!(ports("tcp", Some(80), None), Err(InvalidRule::NoPorts));
        assert_eq!(ports("tcp", Some(2), Some(1)), Err(InvalidRule::PortOrder { from: 2, to: 1 }));
        assert_eq!(ports("udp", Some(0), Some(65536)), Err(InvalidRule::PortRange(65536)));
        assert_eq!(ports("icmp", Some(256), None), Err(InvalidRule::Icmp(256)));
    }
}
