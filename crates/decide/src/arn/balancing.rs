//! ARNs of Elastic Load Balancing.

use super::{Arn, InvalidArn};
use crate::ids::{ListenerId, LoadBalancerId, RuleId, Scope, TargetGroupId, TrustStoreId};
use std::fmt;
use std::str::FromStr;

/// A resource of Elastic Load Balancing as its ARN names it, without account and region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BalancingResource {
    LoadBalancer(LoadBalancerId),
    Listener(ListenerId),
    Rule(RuleId),
    TargetGroup(TargetGroupId),
    TrustStore(TrustStoreId),
}

impl fmt::Display for BalancingResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BalancingResource::LoadBalancer(id) => write!(f, "loadbalancer/{id}"),
            BalancingResource::Listener(id) => write!(f, "listener/{id}"),
            BalancingResource::Rule(id) => write!(f, "listener-rule/{id}"),
            BalancingResource::TargetGroup(id) => write!(f, "targetgroup/{id}"),
            BalancingResource::TrustStore(id) => write!(f, "truststore/{id}"),
        }
    }
}

macro_rules! resources {
    ($($id:ident $variant:ident;)*) => {$(
        impl From<$id> for BalancingResource {
            fn from(id: $id) -> BalancingResource {
                BalancingResource::$variant(id)
            }
        }
    )*};
}

resources! {
    LoadBalancerId LoadBalancer;
    ListenerId Listener;
    RuleId Rule;
    TargetGroupId TargetGroup;
    TrustStoreId TrustStore;
}

/// `arn:aws:elasticloadbalancing:REGION:ACCOUNT:RESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BalancingArn {
    pub scope: Scope,
    pub resource: BalancingResource,
}

impl fmt::Display for BalancingArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scope { account, region } = &self.scope;
        write!(f, "arn:aws:elasticloadbalancing:{region}:{account}:{}", self.resource)
    }
}

impl FromStr for BalancingArn {
    type Err = InvalidArn;

    fn from_str(text: &str) -> Result<Self, InvalidArn> {
        let error = || InvalidArn { text: text.chars().take(256).collect() };
        let arn: Arn = text.parse()?;
        let read = || {
            let (kind, id) = arn.resource.split_once('/')?;
            let resource = match kind {
                "loadbalancer" => BalancingResource::LoadBalancer(id.parse().ok()?),
                "listener" => BalancingResource::Listener(id.parse().ok()?),
                "listener-rule" => BalancingResource::Rule(id.parse().ok()?),
                "targetgroup" => BalancingResource::TargetGroup(id.parse().ok()?),
                "truststore" => BalancingResource::TrustStore(id.parse().ok()?),
                _ => return None,
            };
            let scope = Scope { account: arn.account.parse().ok()?, region: arn.region.parse().ok()? };
            Some(BalancingArn { scope, resource })
        };
        read().filter(|_| arn.service == "elasticloadbalancing").ok_or_else(error)
    }
}

impl Scope {
    /// The ARN of a resource of Elastic Load Balancing in this scope.
    pub fn balancing(&self, resource: impl Into<BalancingResource>) -> BalancingArn {
        BalancingArn { scope: self.clone(), resource: resource.into() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arns_read_back_and_others_are_refused() {
        for resource in [
            "loadbalancer/app/web/0123456789abcdef",
            "loadbalancer/net/web/0123456789abcdef",
            "listener/app/web/0123456789abcdef/0123456789abcdef",
            "listener-rule/app/web/0123456789abcdef/0123456789abcdef/0123456789abcdef",
            "targetgroup/web/0123456789abcdef",
            "truststore/web/0123456789abcdef",
        ] {
            let text = format!("arn:aws:elasticloadbalancing:eu-north-1:111122223333:{resource}");
            assert_eq!(text.parse::<BalancingArn>().unwrap().to_string(), text);
            assert!(text.replace("elasticloadbalancing", "ecs").parse::<BalancingArn>().is_err());
            assert!(text.replace("0123456789abcdef", "x").parse::<BalancingArn>().is_err());
        }
    }
}
