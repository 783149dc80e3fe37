//! What a control plane and the balancers on other hosts say to each other, as JSON text over a WebSocket. It is ours:
//! nothing of AWS's stands for it.

use super::config::{CertificateArn, RoutingConfig, TargetGroupArn, TargetKey, TrustStoreArn};
use super::health::HealthReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Where a control plane takes balancers' connections; their requests are signed.
pub const PATH: &str = "/_gantry/balancer/ws";
/// The query parameter that names a balancer's process: two at the same time have different ones.
pub const NAME: &str = "name";
/// Characters of such a name: letters and digits.
pub const NAME_LENGTH: usize = 16;

/// A certificate with its key, as PEM. Its `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pem {
    /// The certificate, then the ones above it.
    pub chain: String,
    pub key: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem")
    }
}

/// What clients' certificates are verified by, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustStore {
    pub authorities: String,
    pub revocation_lists: Vec<String>,
}

/// A configuration with the certificates and trust stores that it names: all that a balancer needs to serve.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instructions {
    pub configuration: RoutingConfig,
    pub certificates: BTreeMap<CertificateArn, Pem>,
    /// None of them on the way to a balancer, which is told of each when it changes.
    #[serde(default)]
    pub trust_stores: BTreeMap<TrustStoreArn, Arc<TrustStore>>,
}

/// What a balancer is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToBalancer {
    /// To serve this from now on.
    Serve(Box<Instructions>),
    /// What a trust store is, before something is to be served that names it.
    TrustStore { arn: TrustStoreArn, store: Arc<TrustStore> },
    /// That the control plane is there.
    Alive,
}

/// What a balancer tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FromBalancer {
    /// How targets are now.
    Health(Vec<HealthReport>),
    /// Nothing of a deregistered target is under way any more.
    Drained { group: TargetGroupArn, target: TargetKey },
    /// It ends, and is not to be waited for.
    Leaving,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_read_back_and_keys_stay_out_of_debug_text() {
        let pem = Pem { chain: "chain".to_owned(), key: "secret".to_owned() };
        let certificates = BTreeMap::from([(CertificateArn::new("arn:1"), pem)]);
        let told = ToBalancer::Serve(Box::new(Instructions { certificates, ..Instructions::default() }));
        let text = serde_json::to_string(&told).unwrap();
        assert!(text.contains("secret") && !format!("{told:?}").contains("secret"));
        assert_eq!(serde_json::from_str::<ToBalancer>(&text).unwrap(), told);
        let leaving: FromBalancer = serde_json::from_str("\"leaving\"").unwrap();
        assert_eq!(leaving, FromBalancer::Leaving);
    }
}
