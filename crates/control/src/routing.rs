//! From load balancing's tables to what a balancer is told: pure, whole each time, in an order that follows from the
//! records alone, so that equal states give equal configurations.

use crate::services::acm::links as certificates;
use crate::services::ecs;
use crate::services::elbv2::links::codes;
use crate::services::elbv2::state::{
    Attributes, Elbv2State, HealthCheck, Listener, LoadBalancer, RESPONSE_HEADERS, Read, Target, TargetGroup,
    TargetId, of_listener, of_load_balancer, of_target_group,
};
use crate::sessions::neighbours;
use crate::state::{ScopeState, State};
use crate::tx::View;
use gantry_decide::arn::Arn;
use gantry_decide::ids::{BalancerKind, Scope};
pub use gantry_decide::routing::TargetNews;
use gantry_decide::routing::channel::Pem;
use gantry_decide::routing::config::{
    self, Address, Algorithm, CertificateArn, DesyncMode, ForwardedFor, HealthCheckPort, ListenerArn,
    ListenerAttributes, ListenerTls, LoadBalancerArn, LoadBalancerAttributes, LoadBalancerKind,
    LogDestination, Matcher, MinimumHealthy, RoutingConfig, Rule, RuleArn, Stickiness, TargetGroupArn,
    TargetGroupAttributes, TargetKey, ZoneName,
};
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The keys of load balancers' attributes are long: this one begins several.
const UNHEALTHY_ROUTING: &str = "target_group_health.unhealthy_state_routing.minimum_healthy_targets";

/// What every balancer of the installation is told now.
pub fn compile(state: &State, generation: u64) -> RoutingConfig {
    let mut config = RoutingConfig { generation, ..RoutingConfig::default() };
    let (mut addresses, mut names) = (BTreeSet::new(), BTreeSet::new());
    // Who came first keeps an address or a name that two accounts have; scopes choose without knowing of each other.
    let mut balancers: Vec<(&Scope, &ScopeState, &LoadBalancer)> = Vec::new();
    for (scope, state) in state.scopes() {
        let elbv2 = &state.elbv2;
        balancers.extend(elbv2.load_balancers.values().map(|balancer| (scope, state, balancer.as_ref())));
        config
            .target_groups
            .extend(elbv2.target_groups.values().map(|group| target_group(scope, state, group)));
    }
    balancers.sort_by_key(|(_, _, balancer)| balancer.created_at);
    for (scope, state, balancer) in balancers {
        let mut compiled = load_balancer(scope, &state.elbv2, balancer);
        compiled.addresses.retain(|address| addresses.insert(address.ip));
        compiled.host_names.retain(|name| names.insert(name.clone()));
        for tls in compiled.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            // Nothing here depends on the time.
            let view = View { scope, state, now: Timestamp::EPOCH };
            for arn in std::iter::once(&tls.default_certificate).chain(&tls.certificates) {
                let at = certificates::issued_at(view, arn.as_str());
                config.certificates.extend(at.map(|at| (arn.clone(), at)));
            }
        }
        config.load_balancers.push(compiled);
    }
    config
}

/// What a balancer serves for a certificate that its configuration names.
pub fn certificate(state: &State, arn: &CertificateArn) -> Option<Pem> {
    let named: Arn = arn.as_str().parse().ok()?;
    let scope = Scope { account: named.account.parse().ok()?, region: named.region.parse().ok()? };
    let view = View { scope: &scope, state: state.get(&scope)?, now: Timestamp::EPOCH };
    certificates::pem(view, arn.as_str())
}

fn seconds(read: &Read<'_>, key: &str) -> Duration {
    Duration::from_secs(read.number(key).unwrap_or_default().into())
}

fn load_balancer(scope: &Scope, elbv2: &Elbv2State, balancer: &LoadBalancer) -> config::LoadBalancer {
    let kind = balancer.id.kind;
    let address = |place: &crate::services::elbv2::state::Place| Address {
        ip: IpAddr::V4(place.address),
        zone: ZoneName::new(&place.zone),
    };
    config::LoadBalancer {
        arn: LoadBalancerArn::new(&scope.balancing(balancer.id.clone()).to_string()),
        kind: match kind {
            BalancerKind::Application => LoadBalancerKind::Application,
            BalancerKind::Network => LoadBalancerKind::Network,
        },
        addresses: balancer.places.iter().map(address).collect(),
        host_names: vec![balancer.dns_name(), balancer.short_name()],
        attributes: balancer_attributes(kind, &balancer.attributes),
        listeners: elbv2.listeners_of(&balancer.id).map(|one| listener(scope, elbv2, one)).collect(),
    }
}

fn balancer_attributes(kind: BalancerKind, set: &Attributes) -> LoadBalancerAttributes {
    let read = Read::new(of_load_balancer(kind), set);
    let logs = |name: &str| {
        let part = |part: &str| read.text(&format!("{name}.s3.{part}")).to_owned();
        (part("enabled") == "true").then(|| LogDestination { bucket: part("bucket"), prefix: part("prefix") })
    };
    let mut attributes = LoadBalancerAttributes {
        cross_zone: read.is_on("load_balancing.cross_zone.enabled"),
        access_logs: logs("access_logs"),
        connection_logs: logs("connection_logs"),
        ..LoadBalancerAttributes::default()
    };
    if kind == BalancerKind::Application {
        attributes.idle_timeout = seconds(&read, "idle_timeout.timeout_seconds");
        attributes.client_keep_alive = seconds(&read, "client_keep_alive.seconds");
        attributes.http2 = read.is_on("routing.http2.enabled");
        attributes.desync = match read.text("routing.http.desync_mitigation_mode") {
            "monitor" => DesyncMode::Monitor,
            "strictest" => DesyncMode::Strictest,
            _ => DesyncMode::Defensive,
        };
        attributes.forwarded_for = match read.text("routing.http.xff_header_processing.mode") {
            "preserve" => ForwardedFor::Preserve,
            "remove" => ForwardedFor::Remove,
            _ => ForwardedFor::Append,
        };
        attributes.forwarded_client_port = read.is_on("routing.http.xff_client_port.enabled");
        attributes.preserve_host = read.is_on("routing.http.preserve_host_header.enabled");
        attributes.drop_invalid_headers = read.is_on("routing.http.drop_invalid_header_fields.enabled");
        attributes.tls_headers = read.is_on("routing.http.x_amzn_tls_version_and_cipher_suite.enabled");
    }
    attributes
}

fn listener(scope: &Scope, elbv2: &Elbv2State, listener: &Listener) -> config::Listener {
    let rules = elbv2.rules_of(&listener.id).map(|rule| Rule {
        arn: RuleArn::new(&scope.balancing(rule.id.clone()).to_string()),
        priority: rule.priority,
        conditions: rule.conditions.clone(),
        transforms: rule.transforms.clone(),
        action: rule.action.clone(),
    });
    config::Listener {
        arn: ListenerArn::new(&scope.balancing(listener.id.clone()).to_string()),
        port: listener.port,
        protocol: listener.protocol,
        tls: listener.tls.as_ref().map(|tls| ListenerTls {
            policy: tls.policy.clone(),
            default_certificate: CertificateArn::new(&tls.certificate),
            certificates: tls.more_certificates.iter().map(|arn| CertificateArn::new(arn)).collect(),
            alpn: tls.alpn.unwrap_or_default(),
        }),
        attributes: listener_attributes(listener),
        rules: rules.collect(),
        default_action: listener.default_action.clone(),
    }
}

fn listener_attributes(listener: &Listener) -> ListenerAttributes {
    let read = Read::new(of_listener(listener.protocol), &listener.attributes);
    let mut attributes = ListenerAttributes::default();
    if let Some(idle) = read.number("tcp.idle_timeout.seconds") {
        attributes.tcp_idle_timeout = Duration::from_secs(idle.into());
    }
    if read.find("routing.http.response.server.enabled").is_some() {
        attributes.server_header = read.is_on("routing.http.response.server.enabled");
    }
    let header = |(part, name): &(&str, &str)| {
        let value = read.text(&format!("routing.http.response.{part}.header_value"));
        (!value.is_empty()).then(|| ((*name).to_owned(), value.to_owned()))
    };
    attributes.response_headers = RESPONSE_HEADERS.iter().filter_map(header).collect::<BTreeMap<_, _>>();
    attributes
}

fn target_group(scope: &Scope, state: &ScopeState, group: &TargetGroup) -> config::TargetGroup {
    config::TargetGroup {
        arn: TargetGroupArn::new(&scope.balancing(group.id.clone()).to_string()),
        protocol: group.protocol,
        protocol_version: group.version.unwrap_or_default(),
        attributes: group_attributes(group),
        health_check: health_check(&group.health_check),
        targets: state.elbv2.targets_of(&group.id).map(|one| target(scope, state, one)).collect(),
    }
}

fn health_check(check: &HealthCheck) -> config::HealthCheck {
    config::HealthCheck {
        enabled: check.enabled,
        protocol: check.protocol,
        port: check.port.map_or(HealthCheckPort::Traffic, HealthCheckPort::Port),
        path: check.path.clone().unwrap_or_default(),
        interval: Duration::from_secs(check.interval.into()),
        timeout: Duration::from_secs(check.timeout.into()),
        healthy_threshold: check.healthy_threshold,
        unhealthy_threshold: check.unhealthy_threshold,
        // What is stored was read so before.
        matcher: Matcher(check.matcher.as_deref().and_then(codes).unwrap_or_default()),
    }
}

fn group_attributes(group: &TargetGroup) -> TargetGroupAttributes {
    let read = Read::new(of_target_group(group), &group.attributes);
    let stickiness = || match read.text("stickiness.type") {
        "lb_cookie" => Stickiness::LbCookie(seconds(&read, "stickiness.lb_cookie.duration_seconds")),
        "app_cookie" => Stickiness::AppCookie {
            name: read.text("stickiness.app_cookie.cookie_name").to_owned(),
            duration: seconds(&read, "stickiness.app_cookie.duration_seconds"),
        },
        _ => Stickiness::SourceIp,
    };
    let percent = read.number(&format!("{UNHEALTHY_ROUTING}.percentage"));
    TargetGroupAttributes {
        deregistration_delay: seconds(&read, "deregistration_delay.timeout_seconds"),
        terminate_deregistered: read.is_on("deregistration_delay.connection_termination.enabled"),
        algorithm: match read.text("load_balancing.algorithm.type") {
            "least_outstanding_requests" => Algorithm::LeastOutstandingRequests,
            "weighted_random" => Algorithm::WeightedRandom {
                anomaly_mitigation: read.text("load_balancing.algorithm.anomaly_mitigation") == "on",
            },
            _ => Algorithm::RoundRobin,
        },
        slow_start: seconds(&read, "slow_start.duration_seconds"),
        stickiness: read.is_on("stickiness.enabled").then(stickiness),
        terminate_unhealthy: read.text("target_health_state.unhealthy.connection_termination.enabled")
            != "false",
        unhealthy_draining: seconds(&read, "target_health_state.unhealthy.draining_interval_seconds"),
        fail_open_below: MinimumHealthy {
            count: read.number(&format!("{UNHEALTHY_ROUTING}.count")).unwrap_or(1),
            percent: percent.and_then(|percent| u8::try_from(percent).ok()),
        },
        preserve_client_ip: read.is_on("preserve_client_ip.enabled"),
        proxy_protocol: read.is_on("proxy_protocol_v2.enabled"),
    }
}

fn target(scope: &Scope, state: &ScopeState, target: &Target) -> config::Target {
    // Nothing here depends on the time.
    let view = View { scope, state, now: Timestamp::EPOCH };
    let instance = match &target.key.id {
        TargetId::Instance(id) => ecs::links::on_machine(view, id).next(),
        TargetId::Ip(_) => None,
    };
    let ip = match &target.key.id {
        TargetId::Ip(address) => Some(*address),
        // An agent that names no address is on the server's machine.
        TargetId::Instance(_) => instance.map(|instance| {
            let told = instance.attribute(neighbours::ATTRIBUTE).and_then(|text| text.parse().ok());
            IpAddr::V4(told.unwrap_or(Ipv4Addr::LOCALHOST))
        }),
    };
    let zone = target.zone.as_deref().filter(|zone| *zone != "all");
    let zone = zone.or(instance.and_then(|instance| instance.availability_zone()));
    config::Target {
        key: TargetKey { id: config::TargetId::new(&target.key.id.to_string()), port: target.key.port },
        ip,
        zone: zone.map(ZoneName::new),
        registered: target.registered_at,
        deregistered: target.deregistered_at,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::services::ecs::tests::world::World;
    use crate::services::elbv2::ops::{attribute, rule, target};
    use crate::services::elbv2::tests::website;
    use gantry_decide::routing::config::{Action, Condition, Pattern};
    use serde_json::json;

    fn compiled(world: &World) -> RoutingConfig {
        let mut state = State::default();
        state.replace(&world.scope, world.state.clone());
        compile(&state, 7)
    }

    #[test]
    fn everything_that_was_asked_for_is_told() {
        let mut world = World::new();
        let (balancer, listener, group) = website(&mut world);
        let conditions = json!([{ "Field": "path-pattern", "Values": ["/api/*"] }]);
        let actions = json!([{ "Type": "forward", "TargetGroupArn": group }]);
        let request =
            json!({ "ListenerArn": listener, "Priority": 5, "Conditions": conditions, "Actions": actions });
        world.write(rule::create_rule, request).unwrap();
        let request = json!({ "TargetGroupArn": group, "Targets": [{ "Id": "10.0.0.7", "Port": 8080 }] });
        world.write(target::register_targets, request.clone()).unwrap();
        let attributes = json!([
            { "Key": "deregistration_delay.timeout_seconds", "Value": "5" },
            { "Key": "stickiness.enabled", "Value": "true" },
        ]);
        let change = json!({ "TargetGroupArn": group, "Attributes": attributes });
        world.write(attribute::modify_target_group_attributes, change).unwrap();
        let idle = json!([{ "Key": "idle_timeout.timeout_seconds", "Value": "9" }]);
        let change = json!({ "LoadBalancerArn": balancer, "Attributes": idle });
        world.write(attribute::modify_load_balancer_attributes, change).unwrap();
        world.write(target::deregister_targets, request).unwrap();

        let config = compiled(&world);
        assert_eq!(config.generation, 7);
        let [told] = config.load_balancers.as_slice() else { panic!("{config:?}") };
        assert_eq!(told.arn.as_str(), balancer);
        assert!(told.host_names.contains(&"web.elb.localhost".to_owned()), "{:?}", told.host_names);
        assert_eq!(told.addresses.len(), 2);
        assert_eq!(told.attributes.idle_timeout, Duration::from_secs(9));
        let [rule] = told.listeners[0].rules.as_slice() else { panic!("{config:?}") };
        assert_eq!(rule.priority, 5);
        assert_eq!(rule.conditions, [Condition::Path(vec![Pattern::Wildcard("/api/*".to_owned())])]);
        assert!(
            matches!(&rule.action, Action::Forward(forward) if forward.groups[0].group.as_str() == group)
        );
        let [told] = config.target_groups.as_slice() else { panic!("{config:?}") };
        assert_eq!(told.attributes.deregistration_delay, Duration::from_secs(5));
        assert_eq!(told.attributes.stickiness, Some(Stickiness::LbCookie(Duration::from_secs(86400))));
        assert!(told.health_check.matcher.accepts(200) && !told.health_check.matcher.accepts(201));
        let target = &told.targets[0];
        assert_eq!((target.ip, target.key.port), (Some("10.0.0.7".parse().unwrap()), 8080));
        assert_eq!(target.deregistered, Some(world.now));
        assert_eq!(compiled(&world), config, "equal states, equal configurations");
    }

    #[test]
    fn no_address_and_no_name_is_given_twice() {
        let mut world = World::new();
        website(&mut world);
        let mut state = State::default();
        state.replace(&world.scope, world.state.clone());
        let other = Scope { region: "us-east-1".parse().unwrap(), ..world.scope.clone() };
        state.replace(&other, world.state.clone());
        let config = compile(&state, 1);
        let addresses: Vec<IpAddr> =
            config.load_balancers.iter().flat_map(|b| b.addresses.iter().map(|a| a.ip)).collect();
        assert_eq!(addresses.len(), 2, "the second of the two has none");
        assert!(config.load_balancers[1].host_names.is_empty());
    }
}
