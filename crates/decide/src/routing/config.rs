//! What a balancer is told: load balancers with their listeners and rules, target groups with their targets. Plain
//! data, whole each time, under a generation; keys of certificates are named here and come another way.

use crate::network::{Ipv4Block, Ipv6Block};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Everything one balancer serves. A balancer refuses a configuration older than the one it has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutingConfig {
    pub generation: u64,
    pub load_balancers: Vec<LoadBalancer>,
    /// IPv6 addresses that a balancer leads to its machine itself. None where no load balancer has one of them.
    #[serde(default)]
    pub own_addresses: Option<Ipv6Block>,
    /// Every target group, also those that no rule names: their targets are `unused`.
    pub target_groups: Vec<TargetGroup>,
    /// When each certificate that a listener names became what it is now: at another time it is to be fetched anew.
    #[serde(default)]
    pub certificates: BTreeMap<CertificateArn, Timestamp>,
    /// The same of each trust store.
    #[serde(default)]
    pub trust_stores: BTreeMap<TrustStoreArn, Timestamp>,
}

/// ARNs of Elastic Load Balancing and of certificates. A balancer compares and shows them, and reads nothing in them.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: &str) -> $name {
                $name(text.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    LoadBalancerArn;
    ListenerArn;
    RuleArn;
    TargetGroupArn;
    CertificateArn;
    TrustStoreArn;
    /// What a target was registered as: an instance's id, an address, or a load balancer's ARN.
    TargetId;
    /// An availability zone's name.
    ZoneName;
}

impl LoadBalancerArn {
    /// `app/NAME/ID`, the part that metrics and access logs show; all of it when it has no such part.
    pub fn tail(&self) -> &str {
        self.0.split_once(":loadbalancer/").map_or(&self.0, |(_, tail)| tail)
    }
}

impl ListenerArn {
    /// The part that access logs show: what stands behind the load balancer's.
    pub fn tail(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, tail)| tail)
    }
}

impl TargetGroupArn {
    /// `targetgroup/NAME/ID`, the part that metrics show; all of it when it has no such part.
    pub fn tail(&self) -> &str {
        self.0.find("targetgroup/").map_or(&self.0, |at| &self.0[at..])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoadBalancerKind {
    Application,
    Network,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    pub arn: LoadBalancerArn,
    pub kind: LoadBalancerKind,
    /// Its own addresses; each listener has its port on each of them.
    pub addresses: Vec<Address>,
    /// Host names, in lower case, by which a shared listener finds it: its DNS name first.
    pub host_names: Vec<String>,
    pub attributes: LoadBalancerAttributes,
    pub listeners: Vec<Listener>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    pub ip: IpAddr,
    pub zone: ZoneName,
}

/// Attributes of a load balancer that change what a balancer does. Defaults as documented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerAttributes {
    /// `idle_timeout.timeout_seconds`.
    #[serde(with = "millis")]
    pub idle_timeout: Duration,
    /// `client_keep_alive.seconds`: how long a client's connection may be used, from its start.
    #[serde(with = "millis")]
    pub client_keep_alive: Duration,
    /// `routing.http2.enabled`.
    pub http2: bool,
    /// `routing.http.desync_mitigation_mode`.
    pub desync: DesyncMode,
    /// `routing.http.xff_header_processing.mode`.
    pub forwarded_for: ForwardedFor,
    /// `routing.http.xff_client_port.enabled`.
    pub forwarded_client_port: bool,
    /// `routing.http.preserve_host_header.enabled`.
    pub preserve_host: bool,
    /// `routing.http.drop_invalid_header_fields.enabled`.
    pub drop_invalid_headers: bool,
    /// `routing.http.x_amzn_tls_version_and_cipher_suite.enabled`.
    pub tls_headers: bool,
    /// `access_logs.s3.*`, when enabled.
    pub access_logs: Option<LogDestination>,
    /// `connection_logs.s3.*`, when enabled.
    pub connection_logs: Option<LogDestination>,
}

impl Default for LoadBalancerAttributes {
    fn default() -> Self {
        LoadBalancerAttributes {
            idle_timeout: Duration::from_secs(60),
            client_keep_alive: Duration::from_secs(3600),
            http2: true,
            desync: DesyncMode::Defensive,
            forwarded_for: ForwardedFor::Append,
            forwarded_client_port: false,
            preserve_host: false,
            drop_invalid_headers: false,
            tls_headers: false,
            access_logs: None,
            connection_logs: None,
        }
    }
}

/// What becomes of requests that two servers could read differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DesyncMode {
    Monitor,
    #[default]
    Defensive,
    Strictest,
}

/// What becomes of `X-Forwarded-For`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ForwardedFor {
    #[default]
    Append,
    Preserve,
    Remove,
}

/// Where logs go: a bucket (on one machine, a directory of that name) and a prefix within.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogDestination {
    pub bucket: String,
    pub prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    Http,
    Https,
    Tcp,
    Tls,
    Udp,
    TcpUdp,
}

impl Protocol {
    /// Whether a listener takes datagrams.
    pub fn has_datagrams(self) -> bool {
        matches!(self, Protocol::Udp | Protocol::TcpUdp)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub arn: ListenerArn,
    pub port: u16,
    pub protocol: Protocol,
    /// For HTTPS and TLS.
    pub tls: Option<ListenerTls>,
    #[serde(default)]
    pub attributes: ListenerAttributes,
    /// In any order; the balancer goes by priority.
    pub rules: Vec<Rule>,
    pub default_action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// `ELBSecurityPolicy-…`. A name without TLS 1.2 or 1.3 in it is served with what of it is still safe.
    pub policy: String,
    pub default_certificate: CertificateArn,
    pub certificates: Vec<CertificateArn>,
    #[serde(default)]
    pub alpn: AlpnPolicy,
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// `MutualAuthentication`: whether clients are asked for certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClientCertificates {
    #[default]
    Off,
    /// Targets are told of whatever a client shows, and judge it themselves.
    Passthrough,
    /// Who shows none that a trust store vouches for is refused.
    Verify(Verification),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub trust_store: TrustStoreArn,
    /// Clients' own certificates may have ended.
    pub ignore_expiry: bool,
    /// Clients are told whose certificates are taken.
    pub advertise_authorities: bool,
}

/// `AlpnPolicy` of a network load balancer's TLS listener. An application load balancer goes by `http2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AlpnPolicy {
    #[default]
    None,
    Http1Only,
    Http2Only,
    Http2Optional,
    Http2Preferred,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerAttributes {
    /// `tcp.idle_timeout.seconds`.
    #[serde(with = "millis")]
    pub tcp_idle_timeout: Duration,
    /// `routing.http.response.server.enabled`: whether our own answers say `Server: awselb/2.0`.
    pub server_header: bool,
    /// `routing.http.response.*.header_value`: headers that every answer gets, in place of the target's.
    pub response_headers: BTreeMap<String, String>,
    /// `routing.http.request.*.header_name`: names of the headers that tell targets of a client's TLS, where they are not
    /// the usual ones.
    pub tls_headers: BTreeMap<TlsHeader, String>,
}

/// A header that tells a target of a client's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsHeader {
    Version,
    CipherSuite,
    /// Of a client's certificate and those above it, where they are passed through.
    ClientCertificate,
    /// Of a client's certificate that was verified: this, and what follows.
    SerialNumber,
    Issuer,
    Subject,
    Validity,
    Leaf,
}

impl TlsHeader {
    /// What it is called where nobody says otherwise.
    pub fn usual_name(self) -> &'static str {
        match self {
            TlsHeader::Version => "x-amzn-tls-version",
            TlsHeader::CipherSuite => "x-amzn-tls-cipher-suite",
            TlsHeader::ClientCertificate => "X-Amzn-Mtls-Clientcert",
            TlsHeader::SerialNumber => "X-Amzn-Mtls-Clientcert-Serial-Number",
            TlsHeader::Issuer => "X-Amzn-Mtls-Clientcert-Issuer",
            TlsHeader::Subject => "X-Amzn-Mtls-Clientcert-Subject",
            TlsHeader::Validity => "X-Amzn-Mtls-Clientcert-Validity",
            TlsHeader::Leaf => "X-Amzn-Mtls-Clientcert-Leaf",
        }
    }
}

impl Default for ListenerAttributes {
    fn default() -> Self {
        ListenerAttributes {
            tcp_idle_timeout: Duration::from_secs(350),
            server_header: true,
            response_headers: BTreeMap::new(),
            tls_headers: BTreeMap::new(),
        }
    }
}

impl ListenerAttributes {
    /// What a header of a client's TLS is called.
    pub fn name_of(&self, header: TlsHeader) -> &str {
        self.tls_headers.get(&header).map_or(header.usual_name(), String::as_str)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub arn: RuleArn,
    /// 1 to 50,000, each once within a listener; lower ones first.
    pub priority: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    #[serde(default)]
    pub transforms: Vec<Transform>,
    pub action: Action,
}

/// A condition; any one of its values suffices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// Regardless of case.
    Host(Vec<Pattern>),
    /// The path without the query, by case.
    Path(Vec<Pattern>),
    /// Name and values regardless of case.
    Header { name: String, values: Vec<Pattern> },
    /// By case, without wildcards.
    Method(Vec<String>),
    /// Regardless of case; `\` takes a wildcard's meaning away.
    Query(Vec<QueryPattern>),
    /// The connection's peer.
    Source(Vec<Block>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Pattern {
    /// `*` stands for any characters, `?` for one.
    Wildcard(String),
    Regex(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryPattern {
    /// None: a parameter of any name.
    pub key: Option<String>,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Block {
    V4(Ipv4Block),
    V6(Ipv6Block),
}

/// What is rewritten before a request is forwarded; the first expression that matches is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Transform {
    Host(Vec<Rewrite>),
    /// Path and query.
    Url(Vec<Rewrite>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    pub regex: String,
    /// `$1` and so on stand for the expression's groups.
    pub replace: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    FixedResponse(FixedResponse),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    pub groups: Vec<WeightedGroup>,
    /// How long a client stays with a group; none, when group stickiness is off.
    #[serde(with = "millis::option", default)]
    pub stickiness: Option<Duration>,
    /// How long it was said to be for, while it is off: kept, so that it is shown as it was given.
    #[serde(with = "millis::option", default, skip_serializing_if = "Option::is_none")]
    pub unused_stickiness: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedGroup {
    pub group: TargetGroupArn,
    /// 0 to 999; a group's share is its part of the sum.
    pub weight: u16,
}

/// Parts hold `#{protocol}`, `#{host}`, `#{port}`, `#{path}` and `#{query}` where the request's are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// 301 rather than 302.
    pub permanent: bool,
    pub protocol: String,
    pub host: String,
    pub port: String,
    pub path: String,
    pub query: String,
}

impl Default for Redirect {
    fn default() -> Self {
        Redirect {
            permanent: false,
            protocol: "#{protocol}".to_owned(),
            host: "#{host}".to_owned(),
            port: "#{port}".to_owned(),
            path: "/#{path}".to_owned(),
            query: "#{query}".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FixedResponse {
    /// 2xx, 4xx or 5xx.
    pub status: u16,
    pub content_type: Option<String>,
    #[serde(default)]
    pub body: String,
}

/// What targets of an HTTP or HTTPS group speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProtocolVersion {
    #[default]
    Http1,
    Http2,
    Grpc,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetGroup {
    pub arn: TargetGroupArn,
    /// As stickiness cookies name it. One of a version that had none is 0, until the control plane tells anew.
    #[serde(default)]
    pub ticket: u64,
    pub protocol: Protocol,
    #[serde(default)]
    pub protocol_version: ProtocolVersion,
    #[serde(default)]
    pub attributes: TargetGroupAttributes,
    pub health_check: HealthCheck,
    pub targets: Vec<Target>,
}

/// A target within its group: the same id may be registered with several ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetKey {
    pub id: TargetId,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub key: TargetKey,
    /// As stickiness cookies name it; see [`TargetGroup::ticket`].
    #[serde(default)]
    pub ticket: u64,
    /// Where it is reached. None while an instance is stopped or unknown: `Target.InvalidState`.
    pub ip: Option<IpAddr>,
    /// None: in all zones.
    pub zone: Option<ZoneName>,
    pub registered: Timestamp,
    /// When it was deregistered. The configuration leaves a target out once its delay is over.
    pub deregistered: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetGroupAttributes {
    /// `deregistration_delay.timeout_seconds`.
    #[serde(with = "millis")]
    pub deregistration_delay: Duration,
    /// `deregistration_delay.connection_termination.enabled`: connections are closed at the delay's end.
    pub terminate_deregistered: bool,
    /// `load_balancing.algorithm.type`.
    pub algorithm: Algorithm,
    /// `slow_start.duration_seconds`; zero is off.
    #[serde(with = "millis")]
    pub slow_start: Duration,
    /// `stickiness.*`, when enabled.
    pub stickiness: Option<Stickiness>,
    /// `target_health_state.unhealthy.connection_termination.enabled`.
    pub terminate_unhealthy: bool,
    /// `target_health_state.unhealthy.draining_interval_seconds`.
    #[serde(with = "millis")]
    pub unhealthy_draining: Duration,
    /// `target_group_health.unhealthy_state_routing.minimum_healthy_targets.*`: below, all targets are used.
    pub fail_open_below: MinimumHealthy,
    /// Whether an address of the load balancer leads to targets of all zones, and not only to those of its own: the
    /// group's `load_balancing.cross_zone.enabled`, or what it leaves to the load balancer.
    pub cross_zone: bool,
    /// `target_group_health.dns_failover.minimum_healthy_targets.*`: a zone that has fewer is none that clients are led to.
    pub zone_healthy_from: MinimumHealthy,
    /// `proxy_protocol_v2.enabled`.
    pub proxy_protocol: bool,
}

impl Default for TargetGroupAttributes {
    fn default() -> Self {
        TargetGroupAttributes {
            deregistration_delay: Duration::from_secs(300),
            terminate_deregistered: false,
            algorithm: Algorithm::RoundRobin,
            slow_start: Duration::ZERO,
            stickiness: None,
            terminate_unhealthy: true,
            unhealthy_draining: Duration::ZERO,
            fail_open_below: MinimumHealthy::default(),
            cross_zone: true,
            zone_healthy_from: MinimumHealthy::default(),
            proxy_protocol: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    #[default]
    RoundRobin,
    LeastOutstandingRequests,
    #[serde(rename_all = "camelCase")]
    WeightedRandom {
        anomaly_mitigation: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stickiness {
    /// `lb_cookie`: from the first answer on, for so long.
    LbCookie(#[serde(with = "millis")] Duration),
    /// `app_cookie`: as long as the application's cookie is there, at most so long.
    AppCookie {
        name: String,
        #[serde(with = "millis")]
        duration: Duration,
    },
    /// `source_ip`, of network load balancers.
    SourceIp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MinimumHealthy {
    /// 0 is `off`.
    pub count: u32,
    /// 1 to 100; none is `off`.
    pub percent: Option<u8>,
}

impl Default for MinimumHealthy {
    fn default() -> Self {
        MinimumHealthy { count: 1, percent: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    pub enabled: bool,
    /// HTTP, HTTPS, TCP or TLS.
    pub protocol: Protocol,
    pub port: HealthCheckPort,
    /// For HTTP, HTTPS and gRPC.
    pub path: String,
    #[serde(with = "millis")]
    pub interval: Duration,
    #[serde(with = "millis")]
    pub timeout: Duration,
    pub healthy_threshold: u32,
    pub unhealthy_threshold: u32,
    pub matcher: Matcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthCheckPort {
    /// `traffic-port`.
    Traffic,
    Port(u16),
}

/// The codes of a healthy answer: of HTTP, or of gRPC for a gRPC group. Ranges hold both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Matcher(pub Vec<(u16, u16)>);

impl Matcher {
    pub fn accepts(&self, code: u16) -> bool {
        self.0.iter().any(|&(from, to)| (from..=to).contains(&code))
    }
}

/// Durations as whole milliseconds.
mod millis {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(duration.as_millis() as u64)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }

    pub mod option {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};
        use std::time::Duration;

        pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            value.map(|duration| duration.as_millis() as u64).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_configuration_reads_back_and_small_ones_have_defaults() {
        let text = r#"{
            "generation": 7,
            "loadBalancers": [{
                "arn": "arn:aws:elasticloadbalancing:eu-north-1:111122223333:loadbalancer/app/web/0123456789abcdef",
                "kind": "application",
                "addresses": [{"ip": "127.1.0.1", "zone": "eu-north-1a"}],
                "hostNames": ["web-1.elb.localhost"],
                "attributes": {"idleTimeout": 1500},
                "listeners": [{
                    "arn": "l", "port": 80, "protocol": "http", "tls": null,
                    "rules": [{
                        "arn": "r", "priority": 3,
                        "conditions": [{"path": [{"wildcard": "/api/*"}]}, {"source": [{"v4": "10.0.0.0/8"}]}],
                        "action": {"forward": {"groups": [{"group": "g", "weight": 1}], "stickiness": 60000}}
                    }],
                    "defaultAction": {"fixedResponse": {"status": 404, "contentType": null}}
                }]
            }],
            "targetGroups": []
        }"#;
        let config: RoutingConfig = serde_json::from_str(text).unwrap();
        let balancer = &config.load_balancers[0];
        assert_eq!(balancer.arn.tail(), "app/web/0123456789abcdef");
        assert_eq!(balancer.attributes.idle_timeout, Duration::from_millis(1500));
        assert_eq!(balancer.attributes.client_keep_alive, Duration::from_secs(3600));
        let again: RoutingConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }
}
