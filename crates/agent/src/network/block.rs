//! Blocks of addresses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Some contiguous IPv4 addresses, as `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Block {
    base: Ipv4Addr,
    bits: u8,
}

/// Text that is no block of a size that tasks can live in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no block of addresses like 10.200.0.0/16 (between /8 and /28)")]
pub struct InvalidBlock(String);

impl Ipv4Block {
    /// The block of `bits` that `address` is in.
    pub fn new(address: Ipv4Addr, bits: u8) -> Option<Ipv4Block> {
        let mask = u32::MAX << (32 - u32::from(bits).clamp(8, 28));
        (8..=28).contains(&bits).then(|| Ipv4Block { base: Ipv4Addr::from(u32::from(address) & mask), bits })
    }

    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    pub fn prefix_length(self) -> u8 {
        self.bits
    }

    pub fn size(self) -> u32 {
        1 << (32 - u32::from(self.bits))
    }

    /// The address at an offset; `None` beyond the end.
    pub fn address(self, offset: u32) -> Option<Ipv4Addr> {
        (offset < self.size()).then(|| Ipv4Addr::from(u32::from(self.base) + offset))
    }

    /// The first usable address: the gateway's.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        Ipv4Block::new(address, self.bits) == Some(self)
    }

    pub fn overlaps(self, other: Ipv4Block) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The two halves; `None` for the smallest block.
    pub fn halves(self) -> Option<(Ipv4Block, Ipv4Block)> {
        let low = Ipv4Block::new(self.base, self.bits + 1)?;
        let high = Ipv4Block::new(self.address(low.size())?, self.bits + 1)?;
        Some((low, high))
    }
}

impl fmt::Display for Ipv4Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl FromStr for Ipv4Block {
    type Err = InvalidBlock;

    fn from_str(text: &str) -> Result<Self, InvalidBlock> {
        let read = || {
            let (address, bits) = text.split_once('/')?;
            Ipv4Block::new(address.parse().ok()?, bits.parse().ok()?)
        };
        read().ok_or_else(|| InvalidBlock(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for Ipv4Block {
    type Error = InvalidBlock;

    fn try_from(text: String) -> Result<Self, InvalidBlock> {
        text.parse()
    }
}

impl From<Ipv4Block> for String {
    fn from(block: Ipv4Block) -> String {
        block.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_are_read_and_split() {
        let block: Ipv4Block = "10.200.3.4/16".parse().unwrap();
        assert_eq!(
            (block.to_string().as_str(), block.gateway()),
            ("10.200.0.0/16", "10.200.0.1".parse().unwrap())
        );
        let (low, high) = block.halves().unwrap();
        assert_eq!((low.to_string(), high.to_string()), ("10.200.0.0/17".into(), "10.200.128.0/17".into()));
        assert!(block.overlaps(low) && high.overlaps(block) && !low.overlaps(high));
        for wrong in ["", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/29", "10.0.0/24"] {
            assert!(wrong.parse::<Ipv4Block>().is_err(), "{wrong}");
        }
    }
}
