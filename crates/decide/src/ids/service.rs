//! Ids of what a service goes through: deployments, its revisions, and the records of its deployments.

use super::{CompactString, Deserialize, Deserializer, InvalidId, Serialize, Serializer, de, invalid};
use crate::random::Random;
use std::fmt;
use std::str::FromStr;

/// 19 digits, as on AWS.
fn number(random: &mut dyn Random) -> u64 {
    const LOW: u64 = 1_000_000_000_000_000_000;
    const HIGH: u64 = 9_223_372_036_854_775_807;
    LOW + random.next_u64() % (HIGH - LOW)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A deployment of a service. AWS shows it as `ecs-svc/` and up to 19 digits; the tasks that it starts carry that
/// text in `startedBy`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId(u64);

impl DeploymentId {
    /// Always 19 digits, as on AWS.
    pub fn random(random: &mut dyn Random) -> DeploymentId {
        DeploymentId(number(random))
    }

    /// The digits alone, without the prefix.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ecs-svc/{}", self.0)
    }
}

impl fmt::Debug for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeploymentId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = text.strip_prefix("ecs-svc/").and_then(digits);
        number.map(DeploymentId).ok_or_else(|| invalid(text, "a deployment id (ecs-svc/ and digits)"))
    }
}

/// What a service ran, or was to run, at one time: up to 19 digits, the last part of its ARN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRevisionId(u64);

impl ServiceRevisionId {
    pub const MIN: ServiceRevisionId = ServiceRevisionId(0);
    pub const MAX: ServiceRevisionId = ServiceRevisionId(u64::MAX);

    pub fn random(random: &mut dyn Random) -> ServiceRevisionId {
        ServiceRevisionId(number(random))
    }
}

impl fmt::Display for ServiceRevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ServiceRevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServiceRevisionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        digits(text).map(ServiceRevisionId).ok_or_else(|| invalid(text, "a service revision (digits)"))
    }
}

/// Characters of a service deployment's id.
const LENGTH: usize = 21;
/// 64 of them, that a URL may hold.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The record of one attempt to deploy a service: 21 characters, the last part of its ARN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceDeploymentId([u8; LENGTH]);

impl ServiceDeploymentId {
    pub const MIN: ServiceDeploymentId = ServiceDeploymentId([0; LENGTH]);
    pub const MAX: ServiceDeploymentId = ServiceDeploymentId([u8::MAX; LENGTH]);

    pub fn random(random: &mut dyn Random) -> ServiceDeploymentId {
        let mut characters = [0; LENGTH];
        random.fill(&mut characters);
        ServiceDeploymentId(characters.map(|byte| ALPHABET[usize::from(byte % 64)]))
    }
}

impl fmt::Display for ServiceDeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ServiceDeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl FromStr for ServiceDeploymentId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let characters = <[u8; LENGTH]>::try_from(text.as_bytes()).ok();
        characters
            .filter(|characters| characters.iter().all(|byte| ALPHABET.contains(byte)))
            .map(ServiceDeploymentId)
            .ok_or_else(|| {
                invalid(text, "a service deployment id (21 letters, digits, hyphens and underscores)")
            })
    }
}

serde_as_text!(DeploymentId ServiceRevisionId ServiceDeploymentId);
