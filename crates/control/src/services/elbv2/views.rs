//! Records to response shapes.

use super::state::{
    AddressFamily, AddressType, Attributes, HealthCheck, Known, Listener, LoadBalancer, Read, Revocations,
    Rule, Scheme, Tags, Target, TargetGroup, TargetId, TargetType, TrustStore,
};
use super::{actions, conditions};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancerKind, Scope, derived_digits};
use gantry_decide::routing::config::{AlpnPolicy, ClientCertificates, Protocol, ProtocolVersion};
use gantry_decide::routing::{HealthState, Reason, TargetHealth};
use gantry_wire::EpochMillis;
use std::collections::BTreeSet;

/// The priority that a listener's default rule shows.
const DEFAULT_PRIORITY: &str = "default";

pub fn protocol(protocol: Protocol) -> elbv2::ProtocolEnum {
    match protocol {
        Protocol::Http => elbv2::ProtocolEnum::Http,
        Protocol::Https => elbv2::ProtocolEnum::Https,
        Protocol::Tcp => elbv2::ProtocolEnum::Tcp,
        Protocol::Tls => elbv2::ProtocolEnum::Tls,
        Protocol::Udp => elbv2::ProtocolEnum::Udp,
        Protocol::TcpUdp => elbv2::ProtocolEnum::TcpUdp,
    }
}

pub fn protocol_version(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::Http1 => "HTTP1",
        ProtocolVersion::Http2 => "HTTP2",
        ProtocolVersion::Grpc => "GRPC",
    }
}

pub fn alpn(policy: AlpnPolicy) -> &'static str {
    match policy {
        AlpnPolicy::None => "None",
        AlpnPolicy::Http1Only => "HTTP1Only",
        AlpnPolicy::Http2Only => "HTTP2Only",
        AlpnPolicy::Http2Optional => "HTTP2Optional",
        AlpnPolicy::Http2Preferred => "HTTP2Preferred",
    }
}

pub fn tags(tags: &Tags) -> Option<Vec<elbv2::Tag>> {
    let tag = |(key, value): (&String, &String)| elbv2::Tag { key: key.clone(), value: Some(value.clone()) };
    Some(tags.iter().map(tag).collect())
}

/// The zone of the names of a region's load balancers: DNS records name it beside them.
fn hosted_zone(scope: &Scope) -> String {
    let digits = derived_digits(&format!("{} load balancers", scope.region)).to_ascii_uppercase();
    format!("Z{}", &digits[..13])
}

pub fn address_type(address_type: AddressType) -> elbv2::IpAddressType {
    match address_type {
        AddressType::Ipv4 => elbv2::IpAddressType::Ipv4,
        AddressType::DualStack => elbv2::IpAddressType::Dualstack,
        AddressType::WithoutPublicIpv4 => elbv2::IpAddressType::DualstackWithoutPublicIpv4,
    }
}

pub fn source_nat(on: bool) -> elbv2::EnablePrefixForIpv6SourceNatEnum {
    if on {
        elbv2::EnablePrefixForIpv6SourceNatEnum::On
    } else {
        elbv2::EnablePrefixForIpv6SourceNatEnum::Off
    }
}

/// Whether security groups filter what comes by PrivateLink, as is said of network load balancers that have some.
pub fn filters_private_link(
    balancer: &LoadBalancer,
) -> Option<elbv2::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum> {
    use elbv2::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum as Filters;
    let said = balancer.id.kind == BalancerKind::Network && !balancer.security_groups.is_empty();
    said.then_some(if balancer.private_link_unfiltered { Filters::Off } else { Filters::On })
}

pub fn load_balancer(scope: &Scope, balancer: &LoadBalancer) -> elbv2::LoadBalancer {
    let has_ipv4 = balancer.address_type != AddressType::WithoutPublicIpv4;
    let zone = |place: &super::state::Place| elbv2::AvailabilityZone {
        zone_name: Some(place.zone.clone()),
        subnet_id: Some(place.subnet.to_string()),
        load_balancer_addresses: Some(vec![elbv2::LoadBalancerAddress {
            ip_address: has_ipv4.then(|| place.address.to_string()),
            i_pv6_address: place.ipv6.map(|address| address.to_string()),
            ..Default::default()
        }]),
        ..Default::default()
    };
    elbv2::LoadBalancer {
        load_balancer_arn: Some(scope.balancing(balancer.id.clone()).to_string()),
        load_balancer_name: Some(balancer.id.name.to_string()),
        dns_name: Some(balancer.dns_name()),
        canonical_hosted_zone_id: Some(hosted_zone(scope)),
        created_time: Some(EpochMillis(balancer.created_at.as_millis())),
        scheme: Some(match balancer.scheme {
            Scheme::InternetFacing => elbv2::LoadBalancerSchemeEnum::InternetFacing,
            Scheme::Internal => elbv2::LoadBalancerSchemeEnum::Internal,
        }),
        vpc_id: Some(balancer.vpc.to_string()),
        state: Some(elbv2::LoadBalancerState {
            code: Some(elbv2::LoadBalancerStateEnum::Active),
            reason: None,
        }),
        type_: Some(match balancer.id.kind {
            BalancerKind::Application => elbv2::LoadBalancerTypeEnum::Application,
            BalancerKind::Network => elbv2::LoadBalancerTypeEnum::Network,
        }),
        availability_zones: Some(balancer.places.iter().map(zone).collect()),
        security_groups: (!balancer.security_groups.is_empty())
            .then(|| balancer.security_groups.iter().map(ToString::to_string).collect()),
        ip_address_type: Some(address_type(balancer.address_type)),
        enable_prefix_for_ipv6_source_nat: (balancer.id.kind == BalancerKind::Network)
            .then(|| source_nat(balancer.source_nat)),
        enforce_security_group_inbound_rules_on_private_link_traffic: filters_private_link(balancer)
            .map(|filters| filters.as_str().to_owned()),
        ..Default::default()
    }
}

pub fn certificate(arn: &str, is_default: Option<bool>) -> elbv2::Certificate {
    elbv2::Certificate { certificate_arn: Some(arn.to_owned()), is_default }
}

/// A mode of mutual authentication, as it is named.
pub fn mode(client_certificates: &ClientCertificates) -> &'static str {
    match client_certificates {
        ClientCertificates::Off => "off",
        ClientCertificates::Passthrough => "passthrough",
        ClientCertificates::Verify(_) => "verify",
    }
}

fn mutual_authentication(asked: &ClientCertificates) -> elbv2::MutualAuthenticationAttributes {
    use elbv2::AdvertiseTrustStoreCaNamesEnum as Advertise;
    let mode = Some(mode(asked).to_owned());
    let ClientCertificates::Verify(by) = asked else {
        return elbv2::MutualAuthenticationAttributes { mode, ..Default::default() };
    };
    elbv2::MutualAuthenticationAttributes {
        mode,
        trust_store_arn: Some(by.trust_store.to_string()),
        ignore_client_certificate_expiry: Some(by.ignore_expiry),
        trust_store_association_status: Some(elbv2::TrustStoreAssociationStatusEnum::Active),
        advertise_trust_store_ca_names: Some(if by.advertise_authorities {
            Advertise::On
        } else {
            Advertise::Off
        }),
    }
}

pub fn trust_store(scope: &Scope, store: &TrustStore) -> elbv2::TrustStore {
    elbv2::TrustStore {
        name: Some(store.id.name.to_string()),
        trust_store_arn: Some(scope.balancing(store.id.clone()).to_string()),
        // It is made of files that are there already.
        status: Some(elbv2::TrustStoreStatus::Active),
        number_of_ca_certificates: i32::try_from(store.authorities.count).ok(),
        total_revoked_entries: i64::try_from(store.revoked()).ok(),
    }
}

pub fn revocation(
    scope: &Scope,
    store: &TrustStore,
    id: i64,
    file: &Revocations,
) -> elbv2::TrustStoreRevocation {
    elbv2::TrustStoreRevocation {
        trust_store_arn: Some(scope.balancing(store.id.clone()).to_string()),
        revocation_id: Some(id),
        revocation_type: Some(elbv2::RevocationType::Crl),
        number_of_revoked_entries: i64::try_from(file.entries).ok(),
    }
}

pub fn listener(scope: &Scope, listener: &Listener) -> elbv2::Listener {
    let tls = listener.tls.as_ref();
    elbv2::Listener {
        listener_arn: Some(scope.balancing(listener.id.clone()).to_string()),
        load_balancer_arn: Some(scope.balancing(listener.id.balancer.clone()).to_string()),
        port: Some(i32::from(listener.port)),
        protocol: Some(protocol(listener.protocol)),
        certificates: tls.map(|tls| vec![certificate(&tls.certificate, None)]),
        ssl_policy: tls.map(|tls| tls.policy.clone()),
        default_actions: Some(vec![actions::view(&listener.default_action)]),
        alpn_policy: tls.and_then(|tls| tls.alpn).map(|policy| vec![alpn(policy).to_owned()]),
        mutual_authentication: tls
            .filter(|_| listener.protocol == Protocol::Https)
            .map(|tls| mutual_authentication(&tls.client_certificates)),
    }
}

pub fn rule(scope: &Scope, rule: &Rule) -> elbv2::Rule {
    elbv2::Rule {
        rule_arn: Some(scope.balancing(rule.id.clone()).to_string()),
        priority: Some(rule.priority.to_string()),
        conditions: Some(rule.conditions.iter().map(conditions::view).collect()),
        actions: Some(vec![actions::view(&rule.action)]),
        is_default: Some(false),
        transforms: Some(rule.transforms.iter().map(actions::transform_view).collect()),
    }
}

/// The rule that a listener has from the start.
pub fn default_rule(scope: &Scope, listener: &Listener) -> elbv2::Rule {
    elbv2::Rule {
        rule_arn: Some(scope.balancing(listener.default_rule.clone()).to_string()),
        priority: Some(DEFAULT_PRIORITY.to_owned()),
        conditions: Some(Vec::new()),
        actions: Some(vec![actions::view(&listener.default_action)]),
        is_default: Some(true),
        transforms: Some(Vec::new()),
    }
}

pub fn target_type(target_type: TargetType) -> elbv2::TargetTypeEnum {
    match target_type {
        TargetType::Instance => elbv2::TargetTypeEnum::Instance,
        TargetType::Ip => elbv2::TargetTypeEnum::Ip,
    }
}

/// `users` are the load balancers that send requests to it.
pub fn target_group(
    scope: &Scope,
    group: &TargetGroup,
    users: &BTreeSet<gantry_decide::ids::LoadBalancerId>,
) -> elbv2::TargetGroup {
    let check: &HealthCheck = &group.health_check;
    let count = |n: u32| i32::try_from(n).ok();
    let matcher = check.matcher.as_ref().map(|codes| match group.version {
        Some(ProtocolVersion::Grpc) => elbv2::Matcher { grpc_code: Some(codes.clone()), http_code: None },
        _ => elbv2::Matcher { http_code: Some(codes.clone()), grpc_code: None },
    });
    elbv2::TargetGroup {
        target_group_arn: Some(scope.balancing(group.id.clone()).to_string()),
        target_group_name: Some(group.id.name.to_string()),
        protocol: Some(protocol(group.protocol)),
        port: Some(i32::from(group.port)),
        vpc_id: Some(group.vpc.to_string()),
        health_check_protocol: Some(protocol(check.protocol)),
        health_check_port: Some(check.port.map_or("traffic-port".to_owned(), |port| port.to_string())),
        health_check_enabled: Some(check.enabled),
        health_check_interval_seconds: count(check.interval),
        health_check_timeout_seconds: count(check.timeout),
        healthy_threshold_count: count(check.healthy_threshold),
        unhealthy_threshold_count: count(check.unhealthy_threshold),
        health_check_path: check.path.clone(),
        matcher,
        load_balancer_arns: Some(users.iter().map(|id| scope.balancing(id.clone()).to_string()).collect()),
        target_type: Some(target_type(group.target_type)),
        protocol_version: group.version.map(|version| protocol_version(version).to_owned()),
        ip_address_type: Some(match group.address_family {
            AddressFamily::Ipv4 => elbv2::TargetGroupIpAddressTypeEnum::Ipv4,
            AddressFamily::Ipv6 => elbv2::TargetGroupIpAddressTypeEnum::Ipv6,
        }),
        ..Default::default()
    }
}

/// The state of a target, as it is shown: what a balancer says counts only while the target is registered and its
/// group is used.
pub fn health_of(target: &Target, in_use: bool) -> TargetHealth {
    let (state, reason) = match &target.health {
        _ if target.deregistered_at.is_some() => (HealthState::Draining, Reason::DeregistrationInProgress),
        _ if !in_use => (HealthState::Unused, Reason::NotInUse),
        Some((health, _)) => return *health,
        None => (HealthState::Initial, Reason::RegistrationInProgress),
    };
    TargetHealth { state, reason: Some(reason) }
}

pub fn target_health(health: TargetHealth) -> elbv2::TargetHealth {
    elbv2::TargetHealth {
        state: health.state.as_str().parse().ok(),
        reason: health.reason.and_then(|reason| reason.code().parse().ok()),
        description: health.reason.map(Reason::description),
    }
}

/// `port` is where its health is checked.
pub fn target(
    id: &TargetId,
    port: u16,
    zone: Option<String>,
    check_port: u16,
    health: TargetHealth,
) -> elbv2::TargetHealthDescription {
    elbv2::TargetHealthDescription {
        target: Some(elbv2::TargetDescription {
            id: id.to_string(),
            port: Some(i32::from(port)),
            availability_zone: zone,
            quic_server_id: None,
        }),
        health_check_port: Some(check_port.to_string()),
        target_health: Some(target_health(health)),
        ..Default::default()
    }
}

/// All attributes of a resource, each as `shape` makes it of key and value.
pub fn attributes<T>(known: Known, set: &Attributes, shape: impl Fn(String, String) -> T) -> Option<Vec<T>> {
    let read = Read::new(known, set);
    Some(read.all().map(|(key, value)| shape(key.to_owned(), value.to_owned())).collect())
}
