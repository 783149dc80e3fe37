//! Ids of EC2's networks, volumes, instances and launch templates: a prefix and 17 hexadecimal digits, which are 68 bits.

use super::{InvalidId, hex_digit, invalid};
use crate::random::Random;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

const DIGITS: usize = 17;
const MASK: u128 = (1 << (4 * DIGITS)) - 1;

/// FNV-1a with 128 bits: it spreads, it does not hide.
fn digest(text: &str) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    text.bytes().fold(OFFSET, |sum, byte| (sum ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// The digits that follow from a text: for ids that only stand beside others, as those of associations.
pub fn derived_digits(from: &str) -> String {
    format!("{:0width$x}", derived(from), width = DIGITS)
}

fn derived(from: &str) -> u128 {
    let sum = digest(from);
    // The high bits are the better mixed ones.
    (sum ^ (sum >> 60)) & MASK
}

macro_rules! network_ids {
    ($($(#[$doc:meta])* $name:ident: $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What stands before the digits, the hyphen included.
            pub const PREFIX: &'static str = $prefix;

            pub fn random(random: &mut dyn Random) -> $name {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                $name(u128::from_le_bytes(bytes) & MASK)
            }

            /// The id that follows from a text, always the same: for what exists without having been made.
            pub fn derived(from: &str) -> $name {
                $name(derived(from))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:0width$x}", $prefix, self.0, width = DIGITS)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let digits = text.strip_prefix($prefix);
                let digits = digits.filter(|d| d.len() == DIGITS && d.bytes().all(|b| hex_digit(b).is_some()));
                digits
                    .and_then(|digits| u128::from_str_radix(digits, 16).ok())
                    .map($name)
                    .ok_or_else(|| invalid(text, concat!("an id (", $prefix, " and 17 hexadecimal digits)")))
            }
        }

        serde_as_text!($name);
    )*};
}

network_ids! {
    /// A machine of the user's own that joined by an activation.
    ManagedInstanceId: "mi-";
    /// A volume.
    VolumeId: "vol-";
    /// A network interface.
    EniId: "eni-";
    /// A virtual private cloud: a network of its own.
    VpcId: "vpc-";
    /// A subnet of a VPC.
    SubnetId: "subnet-";
    /// A security group of a VPC.
    SecurityGroupId: "sg-";
    /// A rule of a security group.
    SecurityGroupRuleId: "sgr-";
    /// A route table of a VPC.
    RouteTableId: "rtb-";
    /// A network access list of a VPC.
    NetworkAclId: "acl-";
    /// A VPC's door to the internet.
    InternetGatewayId: "igw-";
    /// A machine that an Auto Scaling group had made.
    Ec2InstanceId: "i-";
    /// A launch template.
    LaunchTemplateId: "lt-";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Seeded;

    #[test]
    fn ids_read_back_and_differ() {
        let random = &mut Seeded::new(5);
        let id = VpcId::random(random);
        assert_eq!(id.to_string().parse::<VpcId>().unwrap(), id);
        assert_eq!(id.to_string().len(), "vpc-".len() + DIGITS);
        assert_eq!(VpcId::derived("a"), VpcId::derived("a"));
        assert_ne!(VpcId::derived("a").0, VpcId::derived("b").0);
        assert_eq!(VpcId::derived("").to_string().len(), "vpc-".len() + DIGITS);
        for text in ["", "vpc-", "subnet-0123456789abcdef0", "vpc-0123456789abcdeg0", "vpc-0123456789ABCDEF0"]
        {
            assert!(text.parse::<VpcId>().is_err(), "{text}");
        }
    }
}
