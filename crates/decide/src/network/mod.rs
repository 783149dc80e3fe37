//! The words networks are made of: blocks of addresses, and what security groups allow.

mod block;
mod rule;

pub use block::{InvalidBlock, Ipv4Block, Ipv6Block};
pub use rule::{InvalidRule, Peer, Ports, Protocol, Traffic};
