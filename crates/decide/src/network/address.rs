//! Which address of a subnet an interface gets, and which block a VPC.

use super::{Ipv4Block, Ipv6Block};
use crate::random::Random;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A VPC keeps the first four addresses of a subnet for itself (and the last, see [`Ipv4Block::usable`]): its own, the
/// router's, the name server's, and one for later.
const RESERVED_FIRST: u32 = 4;

impl Ipv4Block {
    /// The address of the router of a subnet of this block: the first after the block's own.
    pub fn router(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base()).wrapping_add(1))
    }
}

/// A random free address of a subnet; `None` when `is_taken` says so of all. Random rather than lowest, so that an
/// address just released is seldom the next one given.
pub fn free_address(
    subnet: Ipv4Block,
    is_taken: impl Fn(Ipv4Addr) -> bool,
    random: &mut dyn Random,
) -> Option<Ipv4Addr> {
    let usable = u64::from(subnet.usable());
    if usable == 0 {
        return None;
    }
    let start = random.below(usize::try_from(usable).unwrap_or(usize::MAX)) as u64;
    (0..usable)
        .filter_map(|step| u32::try_from((start + step) % usable).ok())
        .map(|offset| Ipv4Addr::from(u32::from(subnet.base()) + RESERVED_FIRST + offset))
        .find(|address| !is_taken(*address))
}

/// A random free address of a subnet of 8 bits or more for hosts, past those that a VPC keeps for itself; `None` when
/// `is_taken` says so of a few.
pub fn free_ipv6_address(
    subnet: Ipv6Block,
    is_taken: impl Fn(Ipv6Addr) -> bool,
    random: &mut dyn Random,
) -> Option<Ipv6Addr> {
    /// Of 2^64 addresses the first that comes up is free; of the least, many have to be taken for all of these to be.
    const TRIES: usize = 64;
    let hosts = u128::MAX.checked_shr(u32::from(subnet.bits())).unwrap_or(0);
    (0..TRIES)
        .map(|_| random_u128(random) & hosts)
        .filter(|host| *host >= u128::from(RESERVED_FIRST) && *host != hosts)
        .map(|host| Ipv6Addr::from(u128::from(subnet.base()) | host))
        .find(|address| !is_taken(*address))
}

/// The block of a VPC that asks for one: of unique local addresses (RFC 4193), 48 bits random. Nobody beyond the
/// platform reaches them, and none is met again in a network that the platform is joined to.
pub fn random_ipv6_block(random: &mut dyn Random) -> Ipv6Block {
    /// Bits of the prefix of what EC2 gives a VPC.
    const BITS: u8 = 56;
    const UNIQUE_LOCAL: u128 = 0xfd << 120;
    let address = Ipv6Addr::from(UNIQUE_LOCAL | random_u128(random) >> 8);
    Ipv6Block::around(address, BITS).expect("an address has 128 bits")
}

fn random_u128(random: &mut dyn Random) -> u128 {
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Seeded;
    use std::collections::BTreeSet;

    #[test]
    fn addresses_are_unique_until_the_subnet_is_full() {
        let block: Ipv4Block = "10.9.0.21/28".parse().unwrap();
        let mut taken = BTreeSet::new();
        let random = &mut Seeded::new(3);
        while let Some(address) = free_address(block, |address| taken.contains(&address), random) {
            assert!(taken.insert(address));
            assert!((20..31).contains(&address.octets()[3]), "{address} is reserved");
        }
        assert_eq!(taken.len(), 11);
        assert_eq!(block.router(), Ipv4Addr::new(10, 9, 0, 17));
        assert_eq!(free_address("10.0.0.0/31".parse().unwrap(), |_| false, random), None);
    }

    #[test]
    fn ipv6_addresses_lie_in_their_subnet_past_the_first() {
        let random = &mut Seeded::new(4);
        let vpc = random_ipv6_block(random);
        assert!(vpc.bits() == 56 && vpc.to_string().starts_with("fd"), "{vpc}");
        assert_ne!(random_ipv6_block(random), vpc);
        let subnet = Ipv6Block::around(vpc.base(), 64).unwrap();
        let one = free_ipv6_address(subnet, |_| false, random).unwrap();
        assert!(subnet.contains(one));
        assert_ne!(free_ipv6_address(subnet, |address| address == one, random), Some(one));
        let small: Ipv6Block = "fd00::/120".parse().unwrap();
        for _ in 0..500 {
            let host = free_ipv6_address(small, |_| false, random).unwrap().octets()[15];
            assert!((4..255).contains(&host), "{host} is reserved");
        }
        assert_eq!(free_ipv6_address(subnet, |_| true, random), None);
    }
}
