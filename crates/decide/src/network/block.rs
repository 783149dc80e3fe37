//! Blocks of addresses in CIDR notation.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Text that is no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a block of addresses (ADDRESS/BITS)")]
pub struct InvalidBlock(pub String);

/// Addresses that share their first `bits`. `base` is the first of them.
macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident: $address:ident $number:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            base: $address,
            bits: u8,
        }

        impl $name {
            /// The block of `bits` that holds `address`; `None` for more bits than an address has.
            pub fn around(address: $address, bits: u8) -> Option<$name> {
                let host = $number::BITS.checked_sub(u32::from(bits))?;
                let mask = $number::MAX.checked_shl(host).unwrap_or(0);
                Some($name { base: $address::from($number::from(address) & mask), bits })
            }

            pub fn base(self) -> $address {
                self.base
            }

            /// Bits of the prefix.
            pub fn bits(self) -> u8 {
                self.bits
            }

            pub fn contains(self, address: $address) -> bool {
                $name::around(address, self.bits) == Some(self)
            }

            /// Whether all of `other` lies in this block.
            pub fn covers(self, other: $name) -> bool {
                self.bits <= other.bits && self.contains(other.base)
            }

            pub fn overlaps(self, other: $name) -> bool {
                self.covers(other) || other.covers(self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.base, self.bits)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidBlock;

            /// Any address of the block may stand for it, as EC2 takes it.
            fn from_str(text: &str) -> Result<$name, InvalidBlock> {
                let invalid = || InvalidBlock(text.chars().take(64).collect());
                let (address, bits) = text.split_once('/').ok_or_else(invalid)?;
                let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
                let bits = bits.parse().ok().filter(|_| digits).ok_or_else(invalid)?;
                $name::around(address.parse().map_err(|_| invalid())?, bits).ok_or_else(invalid)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

blocks! {
    /// A block of IPv4 addresses.
    Ipv4Block: Ipv4Addr u32;
    /// A block of IPv6 addresses.
    Ipv6Block: Ipv6Addr u128;
}

impl Ipv4Block {
    pub const ALL: Ipv4Block = Ipv4Block { base: Ipv4Addr::UNSPECIFIED, bits: 0 };

    /// The addresses of a subnet of this block that interfaces can have: a VPC keeps the first four and the last for
    /// itself. None for blocks that are no larger.
    pub fn usable(self) -> u32 {
        let all = 1_u64 << (32 - u32::from(self.bits));
        u32::try_from(all.saturating_sub(5)).unwrap_or(u32::MAX)
    }
}

impl Ipv6Block {
    pub const ALL: Ipv6Block = Ipv6Block { base: Ipv6Addr::UNSPECIFIED, bits: 0 };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn block(text: &str) -> Ipv4Block {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_hold_and_meet_each_other() {
        assert_eq!(block("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert!(block("10.0.0.0/8").covers(block("10.255.0.0/16")));
        assert!(!block("10.0.0.0/16").covers(block("10.0.0.0/8")));
        assert!(block("10.0.0.0/16").overlaps(block("10.0.0.0/8")));
        assert!(!block("10.0.0.0/16").overlaps(block("10.1.0.0/16")));
        assert!(block("0.0.0.0/0") == Ipv4Block::ALL && Ipv4Block::ALL.contains([255; 4].into()));
        assert_eq!(("fd00::1/8".parse::<Ipv6Block>().unwrap().to_string()), "fd00::/8");
        assert!("::/0".parse::<Ipv6Block>().unwrap().contains(Ipv6Addr::LOCALHOST));
    }

    #[test]
    fn a_vpc_keeps_five_addresses_of_a_subnet() {
        assert_eq!(block("10.0.0.0/28").usable(), 11);
        assert_eq!(block("172.31.0.0/20").usable(), 4091);
        assert_eq!(block("10.0.0.0/32").usable(), 0);
        assert_eq!(Ipv4Block::ALL.usable(), u32::MAX - 4);
    }

    #[test]
    fn odd_texts_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "a/8", "::/0"] {
            assert!(text.parse::<Ipv4Block>().is_err(), "{text}");
        }
        for text in ["::", "::/129", "10.0.0.0/8"] {
            assert!(text.parse::<Ipv6Block>().is_err(), "{text}");
        }
    }
}
