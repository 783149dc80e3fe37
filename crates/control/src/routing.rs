//! From load balancing's tables to what a balancer is told: pure, whole each time, in an order that follows from the
//! records alone, so that equal states give equal configurations.

use crate::services::acm::links as certificates;
use crate::services::ec2::links as networks;
use crate::services::ec2::state::Ec2State;
use crate::services::ecs;
use crate::services::elbv2::links::{self as trust_stores, codes};
use crate::services::elbv2::state::{
    Attributes, CROSS_ZONE, DRAINING_INTERVAL, ENDS_UNHEALTHY, Elbv2State, HealthCheck, Listener,
    LoadBalancer, RESPONSE_HEADERS, Read, TLS_HEADERS, Target, TargetGroup, TargetId, of_listener,
    of_load_balancer, of_target_group, own_ipv6_block,
};
use crate::sessions::neighbours;
use crate::state::{Installation, ScopeState, State};
use crate::tx::View;
use gantry_decide::arn::Arn;
use gantry_decide::ids::{BalancerKind, Scope};
pub use gantry_decide::routing::TargetNews;
use gantry_decide::routing::channel::{Pem, TrustStore};
use gantry_decide::routing::config::{
    self, Action, Address, Algorithm, CertificateArn, ClientCertificates, DesyncMode, ForwardedFor,
    HealthCheckPort, ListenerArn, ListenerAttributes, ListenerTls, LoadBalancerArn, LoadBalancerAttributes,
    LoadBalancerKind, LogDestination, Matcher, MinimumHealthy, RoutingConfig, Rule, RuleArn, Stickiness,
    TargetGroupArn, TargetGroupAttributes, TargetKey, TlsHeader, TrustStoreArn, Verification, ZoneName,
};
use gantry_decide::time::Timestamp;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The keys of load balancers' attributes are long: these begin several.
const UNHEALTHY_ROUTING: &str = "target_group_health.unhealthy_state_routing.minimum_healthy_targets";
const DNS_FAILOVER: &str = "target_group_health.dns_failover.minimum_healthy_targets";
/// Keeps the tickets of stickiness cookies apart from what else follows from the installation's key.
const STICKINESS: &str = "stickiness";

/// What every balancer of the installation is told now.
pub fn compile(state: &State, generation: u64) -> RoutingConfig {
    let mut config = RoutingConfig { generation, ..RoutingConfig::default() };
    let (mut addresses, mut names) = (BTreeSet::new(), BTreeSet::new());
    // Who came first keeps an address or a name that two accounts have; scopes choose without knowing of each other.
    let mut balancers: Vec<(&Scope, &ScopeState, &LoadBalancer)> = Vec::new();
    for (scope, state) in state.scopes() {
        let elbv2 = &state.elbv2;
        balancers.extend(elbv2.load_balancers.values().map(|balancer| (scope, state, balancer.as_ref())));
        if elbv2.target_groups.is_empty() {
            // Instances come and go by the thousand where nothing is balanced.
            continue;
        }
        let place = Surroundings::new(scope, state);
        config.target_groups.extend(elbv2.target_groups.values().map(|group| target_group(&place, group)));
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
            if let ClientCertificates::Verify(Verification { trust_store: arn, .. }) =
                &tls.client_certificates
            {
                let store = trust_stores::trust_store(view, arn.as_str());
                config.trust_stores.extend(store.map(|store| (arn.clone(), store.changed_at)));
            }
        }
        if state.installation.balancer_addresses.ipv6.is_none() {
            let own = own_ipv6_block(&state.installation);
            let is_own = |address: &Address| matches!(address.ip, IpAddr::V6(ip) if own.contains(ip));
            config.own_addresses =
                config.own_addresses.or(compiled.addresses.iter().any(is_own).then_some(own));
        }
        config.load_balancers.push(compiled);
    }
    config
}

/// What a balancer serves for a certificate that its configuration names.
pub fn certificate(state: &State, arn: &CertificateArn) -> Option<Pem> {
    certificates::pem(seen(state, &scope_of(arn.as_str())?)?, arn.as_str())
}

/// By what a balancer verifies clients for a trust store that its configuration names.
pub fn trust_store(state: &State, arn: &TrustStoreArn) -> Option<TrustStore> {
    let scope = scope_of(arn.as_str())?;
    let store = trust_stores::trust_store(seen(state, &scope)?, arn.as_str())?;
    Some(TrustStore {
        authorities: store.authorities.pem.clone(),
        revocation_lists: store.revocations.values().map(|file| file.pem.clone()).collect(),
    })
}

fn scope_of(arn: &str) -> Option<Scope> {
    let named: Arn = arn.parse().ok()?;
    Some(Scope { account: named.account.parse().ok()?, region: named.region.parse().ok()? })
}

/// A scope that there is, when nothing depends on the time.
fn seen<'a>(state: &'a State, scope: &'a Scope) -> Option<View<'a>> {
    Some(View { scope, state: state.get(scope)?, now: Timestamp::EPOCH })
}

fn seconds(read: &Read<'_>, key: &str) -> Duration {
    Duration::from_secs(read.number(key).unwrap_or_default().into())
}

fn load_balancer(scope: &Scope, elbv2: &Elbv2State, balancer: &LoadBalancer) -> config::LoadBalancer {
    let kind = balancer.id.kind;
    let address = |(ip, zone): (IpAddr, &str)| Address { ip, zone: ZoneName::new(zone) };
    config::LoadBalancer {
        arn: LoadBalancerArn::new(&scope.balancing(balancer.id.clone()).to_string()),
        kind: match kind {
            BalancerKind::Application => LoadBalancerKind::Application,
            BalancerKind::Network => LoadBalancerKind::Network,
        },
        addresses: balancer.addresses().map(address).collect(),
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
            client_certificates: tls.client_certificates.clone(),
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
    let renamed = |(part, header): &(&str, TlsHeader)| {
        let name = read.text(&format!("routing.http.request.{part}.header_name"));
        (!name.is_empty()).then(|| (*header, name.to_owned()))
    };
    attributes.tls_headers = TLS_HEADERS.iter().filter_map(renamed).collect();
    attributes
}

/// What target groups of one scope are compiled from.
struct Surroundings<'a> {
    scope: &'a Scope,
    state: &'a ScopeState,
    networks: Cow<'a, Ec2State>,
    /// Of groups, by their load balancers: whether those spread requests over all zones.
    cross_zone: BTreeMap<&'a str, bool>,
}

impl<'a> Surroundings<'a> {
    fn new(scope: &'a Scope, state: &'a ScopeState) -> Surroundings<'a> {
        let elbv2 = &state.elbv2;
        let mut cross_zone = BTreeMap::new();
        for (balancer, action) in elbv2.actions() {
            let Some(balancer) = elbv2.load_balancer(balancer) else { continue };
            let on = Read::new(of_load_balancer(balancer.id.kind), &balancer.attributes).is_on(CROSS_ZONE);
            if let Action::Forward(forward) = action {
                cross_zone.extend(forward.groups.iter().map(|to| (to.group.as_str(), on)));
            }
        }
        Surroundings { scope, state, networks: state.ec2.seen(scope), cross_zone }
    }
}

/// The number by which stickiness cookies name a group or a target: nobody without the installation's key can tell of what.
fn ticket(installation: &Installation, name: &str) -> u64 {
    let id = installation.key().id(STICKINESS, name);
    id.iter().take(8).fold(0, |ticket, byte| ticket << 8 | u64::from(*byte))
}

fn target_group(place: &Surroundings<'_>, group: &TargetGroup) -> config::TargetGroup {
    let arn = place.scope.balancing(group.id.clone()).to_string();
    let targets = place.state.elbv2.targets_of(&group.id);
    config::TargetGroup {
        ticket: ticket(&place.state.installation, &arn),
        protocol: group.protocol,
        protocol_version: group.version.unwrap_or_default(),
        attributes: group_attributes(group, place.cross_zone.get(arn.as_str()).copied()),
        health_check: health_check(&group.health_check),
        targets: targets.map(|one| target(place, group, &arn, one)).collect(),
        arn: TargetGroupArn::new(&arn),
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

/// `of_balancer`: whether the group's load balancer spreads requests over all zones, if it has one.
fn group_attributes(group: &TargetGroup, of_balancer: Option<bool>) -> TargetGroupAttributes {
    let read = Read::new(of_target_group(group), &group.attributes);
    let stickiness = || match read.text("stickiness.type") {
        "lb_cookie" => Stickiness::LbCookie(seconds(&read, "stickiness.lb_cookie.duration_seconds")),
        "app_cookie" => Stickiness::AppCookie {
            name: read.text("stickiness.app_cookie.cookie_name").to_owned(),
            duration: seconds(&read, "stickiness.app_cookie.duration_seconds"),
        },
        _ => Stickiness::SourceIp,
    };
    let minimum = |of: &str| MinimumHealthy {
        count: read.number(&format!("{of}.count")).unwrap_or_default(),
        percent: read.number(&format!("{of}.percentage")).and_then(|percent| u8::try_from(percent).ok()),
    };
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
        terminate_unhealthy: read.text(ENDS_UNHEALTHY) != "false",
        unhealthy_draining: seconds(&read, DRAINING_INTERVAL),
        fail_open_below: minimum(UNHEALTHY_ROUTING),
        cross_zone: match read.text(CROSS_ZONE) {
            "true" => true,
            "false" => false,
            _ => of_balancer.unwrap_or(true),
        },
        zone_healthy_from: minimum(DNS_FAILOVER),
        proxy_protocol: read.is_on("proxy_protocol_v2.enabled"),
    }
}

/// `of`: the ARN of its group.
fn target(place: &Surroundings<'_>, group: &TargetGroup, of: &str, target: &Target) -> config::Target {
    // Nothing here depends on the time.
    let view = View { scope: place.scope, state: place.state, now: Timestamp::EPOCH };
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
    let zone = match (&target.key.id, target.zone.as_deref()) {
        (_, Some("all")) => None,
        (_, Some(zone)) => Some(zone),
        (TargetId::Instance(_), None) => instance.and_then(|instance| instance.availability_zone()),
        (TargetId::Ip(address), None) => networks::zone_at(&place.networks, group.vpc, *address),
    };
    config::Target {
        ticket: ticket(&place.state.installation, &format!("{of} {} {}", target.key.id, target.key.port)),
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
    use crate::services::ec2::ops::subnet::describe_subnets;
    use crate::services::ecs::tests::world::World;
    use crate::services::elbv2::ops::{attribute, load_balancer, rule, target};
    use crate::services::elbv2::tests::{group as made_group, listener as made_listener, website};
    use gantry_decide::network::Ipv4Block;
    use gantry_decide::routing::config::{Action, Condition, Pattern};
    use gantry_wire::sigv4::SessionKey;
    use serde_json::json;
    use std::sync::Arc;

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
    fn cookies_tell_nobody_of_targets() {
        let mut world = World::new();
        let (_, _, group) = website(&mut world);
        let targets = json!([{ "Id": "10.0.0.7" }, { "Id": "10.0.0.8" }, { "Id": "10.0.0.7", "Port": 81 }]);
        let request = json!({ "TargetGroupArn": group, "Targets": targets });
        world.write(target::register_targets, request).unwrap();
        let tickets = |key: [u8; 32]| {
            let key = Some(SessionKey::new(&key));
            let mut state = State::default();
            state.install(Installation { key, ..Installation::default() });
            let mut scope = world.state.clone();
            scope.installation = Arc::clone(&state.scope(&world.scope).installation);
            state.replace(&world.scope, scope);
            let config = compile(&state, 1);
            let of_targets = config.target_groups[0].targets.iter().map(|target| target.ticket);
            of_targets.chain([config.target_groups[0].ticket]).collect::<BTreeSet<u64>>()
        };
        let one = tickets([1; 32]);
        assert_eq!((one.len(), &tickets([1; 32])), (4, &one), "all differ, and stay");
        assert!(one.is_disjoint(&tickets([2; 32])), "they follow from the installation's key");
    }

    #[test]
    fn groups_cross_zones_as_they_say_or_as_their_load_balancer_does() {
        let mut world = World::new();
        let (_, _, group) = website(&mut world);
        let request = json!({ "Name": "net", "Subnets": ["subnet-1", "subnet-2"], "Type": "network" });
        let network = world.write(load_balancer::create_load_balancer, request).unwrap();
        let network = &network["LoadBalancers"][0];
        let tcp = made_group(&mut world, "tcp", json!({ "Protocol": "TCP" }));
        made_listener(&mut world, network, 80, &tcp);
        let unused = made_group(&mut world, "unused", json!({ "Protocol": "TCP" }));
        let crosses = |world: &World, arn: &str| {
            let config = compiled(world);
            let found = config.target_groups.iter().find(|group| group.arn.as_str() == arn);
            found.unwrap().attributes.cross_zone
        };
        assert_eq!([&group, &tcp, &unused].map(|arn| crosses(&world, arn)), [true, false, true]);
        let set = |world: &mut World, arn: &str, value: &str| {
            let attributes = json!([{ "Key": CROSS_ZONE, "Value": value }]);
            let change = json!({ "TargetGroupArn": arn, "Attributes": attributes });
            world.write(attribute::modify_target_group_attributes, change).unwrap();
        };
        set(&mut world, &group, "false");
        set(&mut world, &tcp, "true");
        assert_eq!([&group, &tcp].map(|arn| crosses(&world, arn)), [false, true]);
        set(&mut world, &tcp, "use_load_balancer_configuration");
        let attributes = json!([{ "Key": CROSS_ZONE, "Value": "true" }]);
        let change = json!({ "LoadBalancerArn": network["LoadBalancerArn"], "Attributes": attributes });
        world.write(attribute::modify_load_balancer_attributes, change).unwrap();
        assert!(crosses(&world, &tcp));

        // Zones are those of the subnets that addresses belong to, unless they are named.
        let subnets = world.read(describe_subnets, json!({})).unwrap();
        let subnet = &subnets["Subnets"][1];
        let block: Ipv4Block = subnet["CidrBlock"].as_str().unwrap().parse().unwrap();
        let inside = block.base().to_string();
        let targets =
            json!([{ "Id": inside }, { "Id": "10.9.0.1" }, { "Id": "10.9.0.2", "AvailabilityZone": "all" }]);
        let request = json!({ "TargetGroupArn": tcp, "Targets": targets });
        world.write(target::register_targets, request).unwrap();
        let config = compiled(&world);
        let zones: BTreeMap<&str, Option<&str>> =
            (config.target_groups.iter().flat_map(|group| &group.targets))
                .map(|target| (target.key.id.as_str(), target.zone.as_ref().map(ZoneName::as_str)))
                .collect();
        assert_eq!(zones[inside.as_str()], subnet["AvailabilityZone"].as_str());
        assert_eq!((zones["10.9.0.1"], zones["10.9.0.2"]), (None, None));
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
