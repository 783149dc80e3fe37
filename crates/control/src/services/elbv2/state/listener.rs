//! Listeners and their rules.

use super::{Attributes, Tags};
use gantry_decide::arn::{BalancingArn, BalancingResource};
use gantry_decide::ids::{ListenerId, RuleId, TrustStoreId};
use gantry_decide::routing::config::{
    Action, AlpnPolicy, ClientCertificates, Condition, Protocol, Transform,
};
use gantry_store::Record;
use serde::{Deserialize, Serialize};

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// `ELBSecurityPolicy-…`.
    pub policy: String,
    /// ARNs: the default certificate, and those for other names.
    pub certificate: String,
    pub more_certificates: Vec<String>,
    /// Of network load balancers alone.
    pub alpn: Option<AlpnPolicy>,
    /// Of HTTPS listeners alone.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

impl Tls {
    /// Whom it has clients' certificates verified by.
    pub fn trust_store(&self) -> Option<TrustStoreId> {
        let ClientCertificates::Verify(by) = &self.client_certificates else { return None };
        match by.trust_store.as_str().parse::<BalancingArn>().ok()?.resource {
            BalancingResource::TrustStore(id) => Some(id),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    pub id: ListenerId,
    /// The rule that every listener has, and that has no record: it is always last, without conditions.
    pub default_rule: RuleId,
    pub port: u16,
    pub protocol: Protocol,
    pub tls: Option<Tls>,
    pub default_action: Action,
    pub attributes: Attributes,
    pub tags: Tags,
    /// Of the default rule.
    pub rule_tags: Tags,
}

impl Record for Listener {
    const KIND: &'static str = "elbv2/listener";
    const VERSION: u32 = 1;
    type Key = ListenerId;

    fn key(&self) -> ListenerId {
        self.id.clone()
    }

    fn path(key: &ListenerId) -> String {
        key.to_string()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub id: RuleId,
    /// 1 to 50,000, each once within a listener; lower ones first.
    pub priority: u32,
    pub conditions: Vec<Condition>,
    pub transforms: Vec<Transform>,
    pub action: Action,
    pub tags: Tags,
}

impl Record for Rule {
    const KIND: &'static str = "elbv2/rule";
    const VERSION: u32 = 1;
    type Key = RuleId;

    fn key(&self) -> RuleId {
        self.id.clone()
    }

    fn path(key: &RuleId) -> String {
        key.to_string()
    }
}
