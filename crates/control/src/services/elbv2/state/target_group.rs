//! Target groups.

use super::{Attributes, Tags};
use gantry_decide::ids::{TargetGroupId, VpcId};
use gantry_decide::routing::config::{Protocol, ProtocolVersion};
use gantry_store::Record;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    Instance,
    Ip,
}

/// What addresses a group's targets are reached by: `IpAddressType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    #[default]
    Ipv4,
    Ipv6,
}

/// A group's health check as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub enabled: bool,
    pub protocol: Protocol,
    /// None: `traffic-port`, the one at which a target gets its requests.
    pub port: Option<u16>,
    /// None for TCP.
    pub path: Option<String>,
    /// In seconds.
    pub interval: u32,
    /// In seconds.
    pub timeout: u32,
    pub healthy_threshold: u32,
    pub unhealthy_threshold: u32,
    /// Codes as in the request: `200`, `200-299,301`. None for TCP.
    pub matcher: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetGroup {
    pub id: TargetGroupId,
    pub protocol: Protocol,
    /// For HTTP and HTTPS.
    pub version: Option<ProtocolVersion>,
    pub port: u16,
    pub vpc: VpcId,
    pub target_type: TargetType,
    #[serde(default)]
    pub address_family: AddressFamily,
    pub health_check: HealthCheck,
    pub attributes: Attributes,
    pub tags: Tags,
}

impl TargetGroup {
    /// Whether it speaks HTTP, and so belongs to application load balancers.
    pub fn is_http(&self) -> bool {
        matches!(self.protocol, Protocol::Http | Protocol::Https)
    }
}

impl Record for TargetGroup {
    const KIND: &'static str = "elbv2/target-group";
    const VERSION: u32 = 1;
    type Key = TargetGroupId;

    fn key(&self) -> TargetGroupId {
        self.id.clone()
    }

    fn path(key: &TargetGroupId) -> String {
        key.to_string()
    }
}
