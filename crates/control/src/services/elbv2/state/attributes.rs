//! Attributes of load balancers, listeners and target groups: which there are, what they may be, and what comes of them.
//! One table says it, for checks, for answers and for `docs/load-balancing.md`.

use gantry_decide::ids::BalancerKind;
use gantry_decide::routing::config::{Protocol, TlsHeader};
use std::collections::BTreeMap;

/// Those that were set, by key; the others are as [`Attribute::default`] says.
pub type Attributes = BTreeMap<String, String>;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    Boolean,
    /// A whole number, the ends included.
    Number(u32, u32),
    OneOf(&'static [&'static str]),
    /// A whole number or `off`.
    NumberOrOff(u32, u32),
    Text,
    /// What a header can be called.
    HeaderName,
}

/// What becomes of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It does what is documented.
    Yes,
    /// It is kept and shown, and does nothing.
    Ignored,
    /// Only its default is taken.
    No,
}

/// An attribute that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub key: &'static str,
    pub default: &'static str,
    pub values: Values,
    pub served: Served,
}

const fn attribute(key: &'static str, default: &'static str, values: Values, served: Served) -> Attribute {
    Attribute { key, default, values, served }
}

use Served::{Ignored, No, Yes};
use Values::{Boolean, HeaderName, Number, NumberOrOff, OneOf, Text};

pub const DELETION_PROTECTION: &str = "deletion_protection.enabled";
/// Of load balancers, and of target groups, which may leave it to their load balancer.
pub const CROSS_ZONE: &str = "load_balancing.cross_zone.enabled";

/// Of every load balancer.
const OF_BALANCERS: &[Attribute] = &[
    attribute(DELETION_PROTECTION, "false", Boolean, Yes),
    attribute("access_logs.s3.enabled", "false", Boolean, Yes),
    attribute("access_logs.s3.bucket", "", Text, Yes),
    attribute("access_logs.s3.prefix", "", Text, Yes),
    attribute("ipv6.deny_all_igw_traffic", "false", Boolean, Ignored),
    attribute("zonal_shift.config.enabled", "false", Boolean, No),
];

const OF_APPLICATION: &[Attribute] = &[
    attribute(CROSS_ZONE, "true", OneOf(&["true"]), Yes),
    attribute("idle_timeout.timeout_seconds", "60", Number(1, 4000), Yes),
    attribute("client_keep_alive.seconds", "3600", Number(60, 604_800), Yes),
    attribute("connection_logs.s3.enabled", "false", Boolean, Yes),
    attribute("connection_logs.s3.bucket", "", Text, Yes),
    attribute("connection_logs.s3.prefix", "", Text, Yes),
    attribute("health_check_logs.s3.enabled", "false", Boolean, No),
    attribute("health_check_logs.s3.bucket", "", Text, Ignored),
    attribute("health_check_logs.s3.prefix", "", Text, Ignored),
    attribute(
        "routing.http.desync_mitigation_mode",
        "defensive",
        OneOf(&["monitor", "defensive", "strictest"]),
        Yes,
    ),
    attribute("routing.http.drop_invalid_header_fields.enabled", "false", Boolean, Yes),
    attribute("routing.http.preserve_host_header.enabled", "false", Boolean, Yes),
    attribute("routing.http.x_amzn_tls_version_and_cipher_suite.enabled", "false", Boolean, Yes),
    attribute("routing.http.xff_client_port.enabled", "false", Boolean, Yes),
    attribute(
        "routing.http.xff_header_processing.mode",
        "append",
        OneOf(&["append", "preserve", "remove"]),
        Yes,
    ),
    attribute("routing.http2.enabled", "true", Boolean, Yes),
    attribute("waf.fail_open.enabled", "false", Boolean, Ignored),
];

const OF_NETWORK: &[Attribute] = &[
    attribute(CROSS_ZONE, "false", Boolean, Yes),
    attribute(
        "dns_record.client_routing_policy",
        "any_availability_zone",
        OneOf(&["any_availability_zone", "availability_zone_affinity", "partial_availability_zone_affinity"]),
        Ignored,
    ),
    attribute("secondary_ips.auto_assigned.per_subnet", "0", Number(0, 7), No),
];

/// Headers of answers that a listener may set, by the part of the attribute's key that stands for them.
pub const RESPONSE_HEADERS: &[(&str, &str)] = &[
    ("strict_transport_security", "Strict-Transport-Security"),
    ("access_control_allow_origin", "Access-Control-Allow-Origin"),
    ("access_control_allow_methods", "Access-Control-Allow-Methods"),
    ("access_control_allow_headers", "Access-Control-Allow-Headers"),
    ("access_control_allow_credentials", "Access-Control-Allow-Credentials"),
    ("access_control_expose_headers", "Access-Control-Expose-Headers"),
    ("access_control_max_age", "Access-Control-Max-Age"),
    ("content_security_policy", "Content-Security-Policy"),
    ("x_content_type_options", "X-Content-Type-Options"),
    ("x_frame_options", "X-Frame-Options"),
];

const OF_HTTP_LISTENERS: &[Attribute] = &[
    attribute("routing.http.response.server.enabled", "true", Boolean, Yes),
    attribute("routing.http.response.strict_transport_security.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_allow_origin.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_allow_methods.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_allow_headers.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_allow_credentials.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_expose_headers.header_value", "", Text, Yes),
    attribute("routing.http.response.access_control_max_age.header_value", "", Text, Yes),
    attribute("routing.http.response.content_security_policy.header_value", "", Text, Yes),
    attribute("routing.http.response.x_content_type_options.header_value", "", Text, Yes),
    attribute("routing.http.response.x_frame_options.header_value", "", Text, Yes),
];

/// Headers that tell a target about the client's TLS, by the part of the attribute's key that stands for them.
pub const TLS_HEADERS: &[(&str, TlsHeader)] = &[
    ("x_amzn_tls_version", TlsHeader::Version),
    ("x_amzn_tls_cipher_suite", TlsHeader::CipherSuite),
    ("x_amzn_mtls_clientcert", TlsHeader::ClientCertificate),
    ("x_amzn_mtls_clientcert_serial_number", TlsHeader::SerialNumber),
    ("x_amzn_mtls_clientcert_issuer", TlsHeader::Issuer),
    ("x_amzn_mtls_clientcert_subject", TlsHeader::Subject),
    ("x_amzn_mtls_clientcert_validity", TlsHeader::Validity),
    ("x_amzn_mtls_clientcert_leaf", TlsHeader::Leaf),
];

/// What those headers are called; empty for as usual.
const OF_HTTPS_LISTENERS: &[Attribute] = &[
    attribute("routing.http.request.x_amzn_mtls_clientcert_serial_number.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_mtls_clientcert_issuer.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_mtls_clientcert_subject.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_mtls_clientcert_validity.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_mtls_clientcert_leaf.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_mtls_clientcert.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_tls_version.header_name", "", HeaderName, Yes),
    attribute("routing.http.request.x_amzn_tls_cipher_suite.header_name", "", HeaderName, Yes),
];

const OF_TCP_LISTENERS: &[Attribute] = &[attribute("tcp.idle_timeout.seconds", "350", Number(60, 6000), Yes)];

/// Of every target group.
const OF_GROUPS: &[Attribute] = &[
    attribute("deregistration_delay.timeout_seconds", "300", Number(0, 3600), Yes),
    attribute("stickiness.enabled", "false", Boolean, Yes),
    attribute(
        CROSS_ZONE,
        "use_load_balancer_configuration",
        OneOf(&["true", "false", "use_load_balancer_configuration"]),
        Yes,
    ),
    attribute(
        "target_group_health.dns_failover.minimum_healthy_targets.count",
        "1",
        NumberOrOff(1, 1000),
        Yes,
    ),
    attribute(
        "target_group_health.dns_failover.minimum_healthy_targets.percentage",
        "off",
        NumberOrOff(1, 100),
        Yes,
    ),
    attribute(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
        "1",
        Number(1, 1000),
        Yes,
    ),
    attribute(
        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
        "off",
        NumberOrOff(1, 100),
        Yes,
    ),
];

const OF_HTTP_GROUPS: &[Attribute] = &[
    attribute(
        "load_balancing.algorithm.type",
        "round_robin",
        OneOf(&["round_robin", "least_outstanding_requests", "weighted_random"]),
        Yes,
    ),
    attribute("load_balancing.algorithm.anomaly_mitigation", "off", OneOf(&["on", "off"]), Yes),
    // 0 is off; else 30 to 900, which `check` knows.
    attribute("slow_start.duration_seconds", "0", Number(0, 900), Yes),
    attribute("stickiness.type", "lb_cookie", OneOf(&["lb_cookie", "app_cookie"]), Yes),
    attribute("stickiness.lb_cookie.duration_seconds", "86400", Number(1, 604_800), Yes),
    attribute("stickiness.app_cookie.duration_seconds", "86400", Number(1, 604_800), Yes),
    attribute("stickiness.app_cookie.cookie_name", "", Text, Yes),
];

const OF_OTHER_GROUPS: &[Attribute] = &[
    attribute("stickiness.type", "source_ip", OneOf(&["source_ip"]), Yes),
    // Only where connections of unhealthy targets are not ended, which `check` knows.
    attribute(DRAINING_INTERVAL, "0", Number(0, 360_000), Yes),
];

const OF_STREAM_GROUPS: &[Attribute] = &[
    attribute("deregistration_delay.connection_termination.enabled", "false", Boolean, Yes),
    attribute("proxy_protocol_v2.enabled", "false", Boolean, Yes),
    attribute(ENDS_UNHEALTHY, "true", Boolean, Yes),
];

const OF_DATAGRAM_GROUPS: &[Attribute] = &[
    attribute("deregistration_delay.connection_termination.enabled", "true", Boolean, Yes),
    attribute(ENDS_UNHEALTHY, "false", OneOf(&["false"]), Yes),
];

/// Of those that have both, connections have the header. Where it belongs among datagrams nobody says.
const OF_BOTH: &[Attribute] = &[attribute("proxy_protocol_v2.enabled", "false", Boolean, Yes)];
const OF_DATAGRAMS: &[Attribute] = &[attribute("proxy_protocol_v2.enabled", "false", Boolean, No)];

pub const DRAINING_INTERVAL: &str = "target_health_state.unhealthy.draining_interval_seconds";
pub const ENDS_UNHEALTHY: &str = "target_health_state.unhealthy.connection_termination.enabled";

pub const PRESERVE_CLIENT_IP: &str = "preserve_client_ip.enabled";
/// On AWS instances see the client's address with TCP and TLS, and addresses do not; with UDP all do. Here no target does:
/// the default is kept and shown where it says otherwise, and what is asked for beyond it is refused.
const PRESERVES: &[Attribute] = &[attribute(PRESERVE_CLIENT_IP, "true", Boolean, Ignored)];
const PRESERVES_ALWAYS: &[Attribute] = &[attribute(PRESERVE_CLIENT_IP, "true", OneOf(&["true"]), Ignored)];
const DOES_NOT_PRESERVE: &[Attribute] = &[attribute(PRESERVE_CLIENT_IP, "false", Boolean, No)];

/// The attributes of one resource, in tables.
pub type Known = Vec<&'static [Attribute]>;

pub fn of_load_balancer(kind: BalancerKind) -> Known {
    match kind {
        BalancerKind::Application => vec![OF_BALANCERS, OF_APPLICATION],
        BalancerKind::Network => vec![OF_BALANCERS, OF_NETWORK],
    }
}

pub fn of_listener(protocol: Protocol) -> Known {
    match protocol {
        Protocol::Http => vec![OF_HTTP_LISTENERS],
        Protocol::Https => vec![OF_HTTP_LISTENERS, OF_HTTPS_LISTENERS],
        Protocol::Tcp | Protocol::TcpUdp => vec![OF_TCP_LISTENERS],
        Protocol::Tls | Protocol::Udp => Vec::new(),
    }
}

pub fn of_target_group(group: &super::TargetGroup) -> Known {
    let of_address = group.target_type == super::TargetType::Ip;
    match group.protocol {
        Protocol::Http | Protocol::Https => vec![OF_GROUPS, OF_HTTP_GROUPS],
        Protocol::Tcp | Protocol::Tls => {
            let preserves = if of_address { DOES_NOT_PRESERVE } else { PRESERVES };
            vec![OF_GROUPS, OF_OTHER_GROUPS, OF_STREAM_GROUPS, preserves]
        }
        Protocol::Udp => {
            vec![OF_GROUPS, OF_OTHER_GROUPS, OF_DATAGRAM_GROUPS, OF_DATAGRAMS, PRESERVES_ALWAYS]
        }
        Protocol::TcpUdp => vec![OF_GROUPS, OF_OTHER_GROUPS, OF_DATAGRAM_GROUPS, OF_BOTH, PRESERVES_ALWAYS],
    }
}

/// A resource's attributes with their defaults.
#[derive(Clone, Debug)]
pub struct Read<'a> {
    pub known: Known,
    set: &'a Attributes,
}

impl<'a> Read<'a> {
    pub fn new(known: Known, set: &'a Attributes) -> Read<'a> {
        Read { known, set }
    }

    /// An attribute that this kind of resource has.
    pub fn find(&self, key: &str) -> Option<&'static Attribute> {
        self.known.iter().copied().flatten().find(|attribute| attribute.key == key)
    }

    /// Its value; empty for a key that there is not.
    pub fn text(&self, key: &str) -> &'a str {
        let set = self.set.get(key).map(String::as_str);
        set.or(self.find(key).map(|attribute| attribute.default)).unwrap_or_default()
    }

    pub fn is_on(&self, key: &str) -> bool {
        self.text(key) == "true"
    }

    /// A number; none where the value is `off`.
    pub fn number(&self, key: &str) -> Option<u32> {
        self.text(key).parse().ok()
    }

    /// All of them, in the tables' order.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        self.known.iter().copied().flatten().map(|attribute| (attribute.key, self.text(attribute.key)))
    }
}
