//! Which address of a subnet an interface gets.

use super::Ipv4Block;
use crate::random::Random;
use std::net::Ipv4Addr;

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
}
