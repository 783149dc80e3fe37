//! The words networks are made of: blocks of addresses, and what security groups allow; which address an interface
//! gets, and what a host's packet filter makes of the groups.

mod address;
mod block;
pub mod firewall;
mod neighbours;
mod rule;

pub use address::{free_address, free_ipv6_address, random_ipv6_block};
pub use block::{InvalidBlock, Ipv4Block, Ipv6Block};
pub use neighbours::Neighbours;
pub use rule::{InvalidRule, Peer, Ports, Protocol, Traffic};
