//! One type per kind of identifier, parsed once at the edge and shown in the form AWS shows it.

use crate::random::Random;
use crate::time::Timestamp;
use compact_str::CompactString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Text that is not an identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct InvalidId {
    pub text: String,
    /// What would have been right, in words: "an account id (12 digits)".
    pub expected: &'static str,
}

fn invalid(text: &str, expected: &'static str) -> InvalidId {
    // Bounded: the text may be an attacker's megabyte.
    InvalidId { text: text.chars().take(256).collect(), expected }
}

/// Serialises a type through its `Display` and `FromStr`.
macro_rules! serde_as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        deserialize_text!($name);
    )*};
}

/// Deserialises a type through its `FromStr`.
macro_rules! deserialize_text {
    ($($name:ident)*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                CompactString::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

mod network;
mod service;
pub use network::*;
pub use service::*;

/// An AWS account: 12 decimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

impl AccountId {
    /// The account of a fresh installation, unless the operator names another.
    pub const DEFAULT: AccountId = AccountId(123_456_789_012);
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [b'0'; 12];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        f.write_str(std::str::from_utf8(&digits).expect("digits are ASCII"))
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AccountId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(AccountId(number)),
            _ => Err(invalid(text, "an account id (12 digits)")),
        }
    }
}

/// Text restricted to a character class and a length, kept inline when short.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $max:literal $allowed:expr, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(CompactString);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let allowed: fn(u8) -> bool = $allowed;
                if !text.is_empty() && text.len() <= $max && text.bytes().all(allowed) {
                    Ok($name(CompactString::new(text)))
                } else {
                    Err(invalid(text, $expected))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.0.as_str(), f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        deserialize_text!($name);
    )*};
}

mod balancing;
pub use balancing::*;

/// Letters, digits, hyphen and underscore: what ECS allows in most names.
fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

names! {
    /// An AWS region name such as `eu-north-1`. Any name in AWS's form is served.
    Region: 64 |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-', "a region (lower-case letters, digits, hyphens)";
    /// A cluster's short name.
    ClusterName: 255 word, "a cluster name (1 to 255 letters, digits, hyphens, underscores)";
    /// A service's short name, unique in its cluster.
    ServiceName: 255 word, "a service name (1 to 255 letters, digits, hyphens, underscores)";
    /// A managed daemon's name, unique in its cluster.
    DaemonName: 255 word, "a daemon name (1 to 255 letters, digits, hyphens, underscores)";
    /// The family of a task definition.
    Family: 255 word, "a family (1 to 255 letters, digits, hyphens, underscores)";
    /// A container's name in its task definition.
    ContainerName: 255 word, "a container name (1 to 255 letters, digits, hyphens, underscores)";
    /// A capacity provider's name, `FARGATE` and `FARGATE_SPOT` included.
    CapacityProviderName: 255 word, "a capacity provider name (1 to 255 letters, digits, hyphens, underscores)";
    /// A role of IAM, without its path.
    RoleName: 64 |b| word(b) || matches!(b, b'+' | b'=' | b',' | b'.' | b'@'), "a role name (1 to 64 letters, digits and any of + = , . @ - _)";
    /// A log group's name.
    LogGroupName: 512 |b| word(b) || matches!(b, b'.' | b'/' | b'#'), "a log group name (1 to 512 letters, digits and any of . - _ / #)";
    /// A log stream's name, unique in its group.
    LogStreamName: 512 |b| b != b':' && b != b'*', "a log stream name (1 to 512 characters other than : and *)";
    /// An alarm's name, as CloudWatch has it.
    AlarmName: 255 |b| !b.is_ascii_control(), "an alarm name (1 to 255 characters)";
    /// An Auto Scaling group's name.
    AutoScalingGroupName: 255 |b| b != b':' && !b.is_ascii_control(), "an Auto Scaling group name (1 to 255 characters other than :)";
    /// A launch configuration's name.
    LaunchConfigurationName: 255 |b| b != b':' && !b.is_ascii_control(), "a launch configuration name (1 to 255 characters other than :)";
    /// A lifecycle hook's name, unique in its group.
    LifecycleHookName: 255 |b| word(b) || b == b'/', "a lifecycle hook name (1 to 255 letters, digits, hyphens, underscores, slashes)";
    /// A metric filter's name, unique in its log group.
    MetricFilterName: 512 |b| b != b':' && b != b'*', "a filter name (1 to 512 characters other than : and *)";
}

impl ClusterName {
    /// The cluster meant when a request names none.
    pub fn default_cluster() -> ClusterName {
        ClusterName(CompactString::const_new("default"))
    }
}

/// Whose state it is: every record belongs to one account in one region, and no request can reach across.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    pub account: AccountId,
    pub region: Region,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.region)
    }
}

/// A family and revision: `web:7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskDefinitionId {
    pub family: Family,
    /// Counts from 1; never used twice in a family.
    pub revision: u32,
}

impl fmt::Display for TaskDefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.family, self.revision)
    }
}

impl fmt::Debug for TaskDefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskDefinitionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const EXPECTED: &str = "a task definition (family:revision)";
        let (family, revision) = text.split_once(':').ok_or_else(|| invalid(text, EXPECTED))?;
        match (family.parse(), revision.parse()) {
            (Ok(family), Ok(revision)) if revision > 0 => Ok(TaskDefinitionId { family, revision }),
            _ => Err(invalid(text, EXPECTED)),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The digits of some bytes, as many as fit, in a place of their own: an id is written at one go.
fn hex<'a>(bytes: &[u8], digits: &'a mut [u8]) -> &'a str {
    for (byte, pair) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    std::str::from_utf8(digits).expect("digits are ASCII")
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn parse_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

/// 128 bits, random unless a type says otherwise.
macro_rules! random_ids {
    ($($(#[$doc:meta])* $name:ident: $format:ident, $expected:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The ends of the order, for ranges over all ids.
            pub const MIN: $name = $name([0; 16]);
            pub const MAX: $name = $name([0xff; 16]);

            pub fn random(random: &mut dyn Random) -> $name {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                $name(bytes)
            }

            /// The bits themselves, for binary formats; [`Self::from_bytes`] reads them back.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            pub fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(random_ids!(@text $format, self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(random_ids!(@text $format, self.0))
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
                random_ids!(@parse $format, text).map($name).ok_or_else(|| invalid(text, $expected))
            }
        }

        deserialize_text!($name);
    )*};
    (@text hex, $bytes:expr) => { hex(&$bytes, &mut [0; 32]) };
    (@text uuid, $bytes:expr) => { uuid(&$bytes, &mut [b'-'; 36]) };
    (@parse hex, $text:ident) => { parse_hex($text.as_bytes()) };
    (@parse uuid, $text:ident) => { parse_uuid($text) };
}

/// Where the dashes of a UUID's text stand, as byte ranges.
const UUID_GROUPS: [(usize, usize); 5] = [(0, 4), (4, 6), (6, 8), (8, 10), (10, 16)];

/// `text` comes full of dashes, and keeps those that stand between groups.
fn uuid<'a>(bytes: &[u8; 16], text: &'a mut [u8; 36]) -> &'a str {
    for (index, (from, to)) in UUID_GROUPS.into_iter().enumerate() {
        // One dash before each group but the first.
        hex(&bytes[from..to], &mut text[2 * from + index..2 * to + index]);
    }
    std::str::from_utf8(text).expect("digits and dashes are ASCII")
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let dashes = text.bytes().enumerate().all(|(i, b)| (b == b'-') == matches!(i, 8 | 13 | 18 | 23));
    if text.len() != 36 || !dashes {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    parse_hex(&digits)
}

random_ids! {
    /// A task: 32 hexadecimal digits.
    TaskId: hex, "a task id (32 hexadecimal digits)";
    /// A container instance: 32 hexadecimal digits.
    ContainerInstanceId: hex, "a container instance id (32 hexadecimal digits)";
    /// A container of a task: a UUID, the last part of its ARN.
    ContainerId: uuid, "a container id (a UUID)";
    /// An attachment of a task, such as a network interface's.
    AttachmentId: uuid, "an attachment id (a UUID)";
    /// A set of role credentials of a task. Whoever knows it can fetch them: treat as a secret.
    CredentialsId: uuid, "a credentials id (a UUID)";
    /// A certificate of Certificate Manager: a UUID, the last part of its ARN.
    CertificateId: uuid, "a certificate id (a UUID)";
    /// An activation, by which machines of the user's own join: a UUID.
    ActivationId: uuid, "an activation id (a UUID)";
    /// A log group between its creation and its deletion: one made later under the same name is another.
    LogGroupId: hex, "a log group id (32 hexadecimal digits)";
    /// A log stream between its creation and its deletion.
    LogStreamId: hex, "a log stream id (32 hexadecimal digits)";
    /// An Auto Scaling group, beside its name.
    AutoScalingGroupId: uuid, "an Auto Scaling group's id (a UUID)";
    /// A scaling activity.
    ActivityId: uuid, "an activity id (a UUID)";
    /// One lifecycle action: what a hook holds an instance by.
    LifecycleActionToken: uuid, "a lifecycle action token (a UUID)";
    /// One request; echoed in `x-amzn-RequestId`.
    RequestId: uuid, "a request id (a UUID)";
}

/// How long the tasks share their first digits that are made after one another.
const TASK_IDS_TURN_MILLIS: i64 = 64;

impl TaskId {
    /// The id of a task made now: its first four digits turn with the time, once round in 70 minutes, the others are
    /// random. So tasks made together lie together in tables and on the store's pages, and making them touches few of
    /// either; and whoever shortens ids to eight digits or more still tells them apart.
    pub fn new(now: Timestamp, random: &mut dyn Random) -> TaskId {
        let mut id = TaskId::random(random);
        let turn = now.as_millis() / TASK_IDS_TURN_MILLIS;
        // The lowest 16 bits, also of a time before 1970.
        id.0[..2].copy_from_slice(&turn.to_be_bytes()[6..]);
        id
    }
}

/// A session of ECS Exec: `ecs-execute-command-` and 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecSessionId([u8; 16]);

const EXEC_SESSION: &str = "ecs-execute-command-";

impl ExecSessionId {
    pub fn random(random: &mut dyn Random) -> ExecSessionId {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        ExecSessionId(bytes)
    }
}

impl fmt::Display for ExecSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXEC_SESSION)?;
        f.write_str(hex(&self.0, &mut [0; 32]))
    }
}

impl fmt::Debug for ExecSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ExecSessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix(EXEC_SESSION).and_then(|digits| parse_hex(digits.as_bytes()));
        let expected = "an ECS Exec session id (ecs-execute-command- and 32 hexadecimal digits)";
        digits.map(ExecSessionId).ok_or_else(|| invalid(text, expected))
    }
}

serde_as_text!(AccountId TaskDefinitionId ExecSessionId);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Seeded;

    fn round_trip<T: FromStr<Err = InvalidId> + fmt::Display + PartialEq + fmt::Debug>(value: T) {
        assert_eq!(value.to_string().parse::<T>().unwrap(), value);
    }

    #[test]
    fn every_id_reads_back_what_it_shows() {
        let random = &mut Seeded::new(1);
        round_trip(TaskId::random(random));
        round_trip(ContainerInstanceId::random(random));
        round_trip(ContainerId::random(random));
        round_trip(DeploymentId::random(random));
        round_trip(ServiceRevisionId::random(random));
        round_trip(ServiceDeploymentId::random(random));
        round_trip(EniId::random(random));
        round_trip(ExecSessionId::random(random));
        round_trip(AccountId::DEFAULT);
        round_trip("web-front_2:7".parse::<TaskDefinitionId>().unwrap());
    }

    #[test]
    fn tasks_made_together_stand_together() {
        let random = &mut Seeded::new(3);
        let mut made = |millis| TaskId::new(Timestamp::from_millis(millis), random);
        let (one, other) = (made(1_700_000_000_000), made(1_700_000_000_001));
        assert_eq!(one.to_string()[..4], other.to_string()[..4]);
        assert_ne!(one.to_string()[4..], other.to_string()[4..]);
        assert!(made(1_700_000_000_100) > one.max(other));
        [one, made(0), made(-1), made(i64::MAX)].into_iter().for_each(round_trip);
    }

    #[test]
    fn ids_look_as_on_aws() {
        let random = &mut Seeded::new(2);
        assert_eq!(TaskId::random(random).to_string().len(), 32);
        assert_eq!(ContainerId::random(random).to_string().len(), 36);
        assert_eq!(EniId::random(random).to_string().len(), 21);
        assert_eq!(DeploymentId::random(random).to_string().len(), "ecs-svc/".len() + 19);
        assert_eq!("000000000042".parse::<AccountId>().unwrap().to_string(), "000000000042");
    }

    #[test]
    fn wrong_text_is_refused() {
        assert!("12345678901".parse::<AccountId>().is_err());
        assert!("+12345678901".parse::<AccountId>().is_err());
        assert!("".parse::<ClusterName>().is_err());
        assert!("a b".parse::<ClusterName>().is_err());
        assert!("web:0".parse::<TaskDefinitionId>().is_err());
        assert!("web".parse::<TaskDefinitionId>().is_err());
        assert!("ecs-svc/".parse::<DeploymentId>().is_err());
        assert!("+7".parse::<ServiceRevisionId>().is_err());
        assert!("deployment/of/21/char".parse::<ServiceDeploymentId>().is_err());
        assert!("ecs-execute-command-5e".parse::<ExecSessionId>().is_err());
        assert!("5E".repeat(16).parse::<TaskId>().is_err());
        assert!("x".repeat(1 << 20).parse::<TaskId>().unwrap_err().to_string().len() < 400);
    }
}
