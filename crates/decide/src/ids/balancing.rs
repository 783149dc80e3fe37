//! Ids of Elastic Load Balancing: what stands behind `arn:aws:elasticloadbalancing:REGION:ACCOUNT:` in its ARNs.

use super::{CompactString, Deserialize, Deserializer, InvalidId, Serialize, Serializer, de, invalid};
use crate::random::Random;
use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits of each part of an id.
const DIGITS: usize = 16;

/// The random part of an id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Part(u64);

impl Part {
    fn random(random: &mut dyn Random) -> Part {
        Part(random.next_u64())
    }

    fn read(text: &str) -> Option<Part> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        let well_formed = text.len() == DIGITS && text.bytes().all(hex);
        well_formed.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.0, width = DIGITS)
    }
}

names! {
    /// The name of a load balancer, of a target group or of a trust store: nearly the same rules for all.
    BalancingName: 32 |b| b.is_ascii_alphanumeric() || b == b'-',
        "a name (1 to 32 letters, digits and hyphens)";
}

/// Which kind of load balancer: they differ in what they understand of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BalancerKind {
    /// HTTP and HTTPS.
    Application,
    /// TCP, UDP and TLS.
    Network,
}

impl BalancerKind {
    /// As ARNs name it.
    pub fn in_arn(self) -> &'static str {
        match self {
            BalancerKind::Application => "app",
            BalancerKind::Network => "net",
        }
    }
}

/// A load balancer: `app/NAME/DIGITS` or `net/NAME/DIGITS`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadBalancerId {
    pub kind: BalancerKind,
    pub name: BalancingName,
    part: Part,
}

impl LoadBalancerId {
    pub fn random(kind: BalancerKind, name: BalancingName, random: &mut dyn Random) -> LoadBalancerId {
        LoadBalancerId { kind, name, part: Part::random(random) }
    }

    /// The random part: names of hosts and addresses follow from it.
    pub fn number(&self) -> u64 {
        self.part.0
    }
}

impl fmt::Display for LoadBalancerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.in_arn(), self.name, self.part)
    }
}

impl FromStr for LoadBalancerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let read = || {
            let (kind, rest) = text.split_once('/')?;
            let (name, part) = rest.split_once('/')?;
            let kind = match kind {
                "app" => BalancerKind::Application,
                "net" => BalancerKind::Network,
                _ => return None,
            };
            Some(LoadBalancerId { kind, name: name.parse().ok()?, part: Part::read(part)? })
        };
        read().ok_or_else(|| invalid(text, "a load balancer's id (app/NAME/DIGITS or net/NAME/DIGITS)"))
    }
}

/// A listener of a load balancer: the balancer's id and 16 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId {
    pub balancer: LoadBalancerId,
    part: Part,
}

/// A rule of a listener: the listener's id and 16 digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    pub listener: ListenerId,
    part: Part,
}

/// A target group: `NAME/DIGITS`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetGroupId {
    pub name: BalancingName,
    part: Part,
}

/// A trust store: `NAME/DIGITS`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustStoreId {
    pub name: BalancingName,
    part: Part,
}

/// Ids of the form `OWNER/DIGITS`.
macro_rules! parts_of {
    ($($name:ident { $owner:ident: $of:ty } $expected:literal;)*) => {$(
        impl $name {
            pub fn random($owner: $of, random: &mut dyn Random) -> $name {
                $name { $owner, part: Part::random(random) }
            }

            /// The least of all ids of this owner, for ranges over them.
            pub fn least($owner: $of) -> $name {
                $name { $owner, part: Part(0) }
            }

            /// The greatest of all ids of this owner.
            pub fn greatest($owner: $of) -> $name {
                $name { $owner, part: Part(u64::MAX) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.$owner, self.part)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let read = || {
                    let (owner, part) = text.rsplit_once('/')?;
                    Some($name { $owner: owner.parse().ok()?, part: Part::read(part)? })
                };
                read().ok_or_else(|| invalid(text, $expected))
            }
        }
    )*};
}

parts_of! {
    ListenerId { balancer: LoadBalancerId } "a listener's id (its load balancer's, and DIGITS)";
    RuleId { listener: ListenerId } "a rule's id (its listener's, and DIGITS)";
    TargetGroupId { name: BalancingName } "a target group's id (NAME/DIGITS)";
    TrustStoreId { name: BalancingName } "a trust store's id (NAME/DIGITS)";
}

serde_as_text!(LoadBalancerId ListenerId RuleId TargetGroupId TrustStoreId);

macro_rules! debug_as_text {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

debug_as_text!(LoadBalancerId ListenerId RuleId TargetGroupId TrustStoreId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Seeded;

    #[test]
    fn ids_read_back_and_lie_within_their_owners() {
        let random = &mut Seeded::new(5);
        let id = LoadBalancerId::random(BalancerKind::Application, "web".parse().unwrap(), random);
        assert!(id.to_string().starts_with("app/web/") && id.to_string().len() == "app/web/".len() + DIGITS);
        assert_eq!(id.to_string().parse::<LoadBalancerId>().unwrap(), id);
        let listener = ListenerId::random(id.clone(), random);
        let rule = RuleId::random(listener.clone(), random);
        assert_eq!(rule.to_string().parse::<RuleId>().unwrap(), rule);
        assert!(ListenerId::least(id.clone()) < listener && listener < ListenerId::greatest(id));
        let group = TargetGroupId::random("web".parse().unwrap(), random);
        assert_eq!(group.to_string().parse::<TargetGroupId>().unwrap(), group);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "app",
            "app/web",
            "gwy/web/0123456789abcdef",
            "app/web/0123456789abcde",
            "app//0123456789abcdef",
        ] {
            assert!(text.parse::<LoadBalancerId>().is_err(), "{text}");
        }
        for text in ["web/0123456789ABCDEF", "web", "/0123456789abcdef"] {
            assert!(text.parse::<TargetGroupId>().is_err(), "{text}");
        }
    }
}
