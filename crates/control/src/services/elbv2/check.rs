//! Input rules beyond the model's constraints: ARNs, names, tags, networks.

use super::errors::{Elbv2Error, Kind, Limit, shortened};
use super::state::{Listener, LoadBalancer, Rule, Tags, TargetGroup, TrustStore};
use crate::page::Page;
use crate::services::ec2;
use crate::services::ec2::links::NoSuchNetwork;
use crate::tx::View;
use gantry_api::elbv2;
use gantry_decide::arn::{BalancingArn, BalancingResource};
use gantry_decide::ids::{
    BalancingName, ListenerId, LoadBalancerId, RuleId, Scope, TargetGroupId, TrustStoreId,
};
use gantry_decide::routing::config::Protocol;

/// Tags of one resource: AWS's limit.
pub const TAGS_MAX: usize = 50;
/// Items of one page, at most and by default: AWS's.
const PAGE_MAX: i32 = 400;
/// Characters of a name: AWS's limit, which [`BalancingName`] has too.
const NAME_LENGTH_MAX: usize = 32;

/// A resource of the request's scope: what an ARN names elsewhere is not to be found here.
fn resource(scope: &Scope, text: &str, kind: Kind) -> Result<BalancingResource, Elbv2Error> {
    let arn = text.parse::<BalancingArn>().ok().filter(|arn| arn.scope == *scope);
    arn.map(|arn| arn.resource).ok_or_else(|| {
        Elbv2Error::validation(format!("'{}' is not a valid {} ARN", shortened(text), kind.noun()))
    })
}

/// Readers of ARNs of one kind, and finders of what they name.
macro_rules! by_arn {
    ($($read:ident $find:ident $variant:ident $id:ident $record:ident $get:ident;)*) => {$(
        /// # Errors
        /// For text that is no such ARN of this scope.
        pub fn $read(scope: &Scope, text: &str) -> Result<$id, Elbv2Error> {
            match resource(scope, text, Kind::$variant)? {
                BalancingResource::$variant(id) => Ok(id),
                _ => {
                    let text = shortened(text);
                    let noun = Kind::$variant.noun();
                    Err(Elbv2Error::validation(format!("'{text}' is not a valid {noun} ARN")))
                }
            }
        }

        /// # Errors
        /// For text that is no such ARN, and for one of nothing.
        pub fn $find<'a>(view: View<'a>, text: &str) -> Result<&'a $record, Elbv2Error> {
            let id = $read(view.scope, text)?;
            view.state.elbv2.$get(&id).ok_or_else(|| Elbv2Error::not_found(Kind::$variant, text))
        }
    )*};
}

by_arn! {
    load_balancer_id load_balancer LoadBalancer LoadBalancerId LoadBalancer load_balancer;
    listener_id listener Listener ListenerId Listener listener;
    rule_id rule Rule RuleId Rule rule;
    target_group_id target_group TargetGroup TargetGroupId TargetGroup target_group;
    trust_store_id trust_store TrustStore TrustStoreId TrustStore trust_store;
}

/// The page that a request wants.
///
/// # Errors
/// For text that is no marker of ours.
pub fn page(marker: Option<&str>, size: Option<i32>) -> Result<Page, Elbv2Error> {
    Ok(Page::read(marker, size, PAGE_MAX, PAGE_MAX)?)
}

/// The name of a new load balancer, target group or trust store.
///
/// # Errors
/// What AWS says of names that break its rules.
pub fn name(kind: Kind, text: &str) -> Result<BalancingName, Elbv2Error> {
    let what = match kind {
        Kind::LoadBalancer => "The load balancer name",
        Kind::TrustStore => "The trust store name",
        _ => "Target group name",
    };
    let shown = shortened(text);
    let refuse = |why: &str| Err(Elbv2Error::validation(format!("{what} '{shown}' {why}")));
    if text.is_empty() {
        return Err(Elbv2Error::validation(format!("A {} name must be specified", kind.noun())));
    }
    if text.chars().count() > NAME_LENGTH_MAX {
        return refuse(&format!("cannot be longer than '{NAME_LENGTH_MAX}' characters"));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return refuse("cannot begin or end with '-'");
    }
    if kind == Kind::LoadBalancer && text.starts_with("internal-") {
        return refuse("cannot begin with 'internal-'");
    }
    match text.parse() {
        Ok(name) => Ok(name),
        Err(_) => refuse("can only contain characters that are alphanumeric characters and hyphens(-)"),
    }
}

/// Reads tags.
///
/// # Errors
/// For repeated and reserved ones.
pub fn tags(given: Option<&[elbv2::Tag]>) -> Result<Tags, Elbv2Error> {
    let mut tags = Tags::new();
    for tag in given.unwrap_or_default() {
        if tag.key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:")) {
            return Err(Elbv2Error::validation(
                "Tag keys that begin with 'aws:' are reserved for system use",
            ));
        }
        if tags.insert(tag.key.clone(), tag.value.clone().unwrap_or_default()).is_some() {
            return Err(Elbv2Error::DuplicateTagKeys(tag.key.clone()));
        }
    }
    if tags.len() > TAGS_MAX { Err(Elbv2Error::TooMany(Limit::Tags)) } else { Ok(tags) }
}

/// As load balancing puts what is wrong with networks.
impl From<NoSuchNetwork> for Elbv2Error {
    fn from(error: NoSuchNetwork) -> Elbv2Error {
        match error {
            NoSuchNetwork::Subnet(id) => Elbv2Error::InvalidSubnet(id),
            NoSuchNetwork::SecurityGroup(id) => Elbv2Error::InvalidSecurityGroup(id),
            NoSuchNetwork::Vpcs(..) => Elbv2Error::configuration("All subnets must belong to the same VPC"),
            NoSuchNetwork::OtherVpc(group, _) => Elbv2Error::InvalidSecurityGroup(group),
        }
    }
}

/// # Errors
/// For a VPC that there is not.
pub fn vpc(view: View<'_>, text: &str) -> Result<gantry_decide::ids::VpcId, Elbv2Error> {
    let missing = || Elbv2Error::validation(format!("The VPC ID '{}' is not found", shortened(text)));
    let id = text.parse().map_err(|_| missing())?;
    ec2::links::has_vpc(&view.state.ec2.seen(view.scope), id).then_some(id).ok_or_else(missing)
}

/// A protocol that is served.
///
/// # Errors
/// None for those of gateway load balancers and of QUIC.
pub fn protocol(given: elbv2::ProtocolEnum) -> Option<Protocol> {
    Some(match given {
        elbv2::ProtocolEnum::Http => Protocol::Http,
        elbv2::ProtocolEnum::Https => Protocol::Https,
        elbv2::ProtocolEnum::Tcp => Protocol::Tcp,
        elbv2::ProtocolEnum::Tls => Protocol::Tls,
        elbv2::ProtocolEnum::Udp => Protocol::Udp,
        elbv2::ProtocolEnum::TcpUdp => Protocol::TcpUdp,
        elbv2::ProtocolEnum::Geneve | elbv2::ProtocolEnum::Quic | elbv2::ProtocolEnum::TcpQuic => {
            return None;
        }
    })
}
