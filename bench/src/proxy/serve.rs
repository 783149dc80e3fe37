//! This program as the balancer that is measured.

use super::SERVE;
use anyhow::{Result, bail, ensure};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::*;
use gantry_decide::time::Timestamp;
use gantry_edge::balancer::{Balancer, Observer, Pem, Problem, Settings};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often targets come and go where they do, and how many: a thousand a second.
const CHURN: Duration = Duration::from_millis(10);
const CHURNED: usize = 10;
/// Turns that a deregistered target stays: what it was asked is answered by then.
const STAYS: usize = 20;

/// Keeps health to itself, and has the certificate of the benchmark's folder.
struct Silent(PathBuf);

impl Observer for Silent {
    fn health(&self, _report: HealthReport) {}

    fn certificate(&self, _arn: &CertificateArn) -> Option<Pem> {
        let read = |name| std::fs::read_to_string(self.0.join(name)).ok();
        Some(Pem { chain: read("chain.pem")?, key: read("key.pem")? })
    }

    fn problem(&self, problem: Problem) {
        eprintln!("{problem}");
    }
}

/// Runs as the balancer: `MODE RULES TARGETS PORT ORIGIN FOLDER`, with health checks and counters on, until it is killed.
pub fn serve(arguments: &[String]) -> Result<()> {
    let [mode, rules, targets, port, origin, folder] = arguments else {
        bail!("usage: {SERVE} MODE RULES TARGETS PORT ORIGIN FOLDER")
    };
    let (rules, targets): (u32, u64) = (rules.parse()?, targets.parse()?);
    let (port, origin): (u16, u16) = (port.parse()?, origin.parse()?);
    let folder = PathBuf::from(folder);
    let (front, protocol, kind) = match mode.as_str() {
        "https" => (Protocol::Https, Protocol::Http, LoadBalancerKind::Application),
        "tcp" => (Protocol::Tcp, Protocol::Tcp, LoadBalancerKind::Network),
        _ => (Protocol::Http, Protocol::Http, LoadBalancerKind::Application),
    };
    let tls = (front == Protocol::Https).then(|| ListenerTls {
        policy: "ELBSecurityPolicy-TLS13-1-2-2021-06".to_owned(),
        default_certificate: CertificateArn::new("certificate"),
        certificates: Vec::new(),
        alpn: AlpnPolicy::None,
        client_certificates: ClientCertificates::Off,
    });
    let access_logs =
        (mode == "logged").then(|| LogDestination { bucket: "bench".to_owned(), prefix: String::new() });
    let group = TargetGroupArn::new("group");
    let forward = || {
        let groups = vec![WeightedGroup { group: group.clone(), weight: 1 }];
        Action::Forward(Forward { groups, stickiness: None, unused_stickiness: None })
    };
    let rule = |number: u32| Rule {
        arn: RuleArn::new(&number.to_string()),
        priority: number,
        conditions: vec![Condition::Path(vec![Pattern::Wildcard(format!("/service-{number}/*"))])],
        transforms: Vec::new(),
        action: forward(),
    };
    let mut config = RoutingConfig {
        generation: 1,
        load_balancers: vec![LoadBalancer {
            arn: LoadBalancerArn::new(
                "arn:aws:elasticloadbalancing:eu-north-1:111122223333:loadbalancer/app/bench/1",
            ),
            kind,
            addresses: vec![Address { ip: Ipv4Addr::LOCALHOST.into(), zone: ZoneName::new("zone") }],
            host_names: Vec::new(),
            attributes: LoadBalancerAttributes { access_logs, ..LoadBalancerAttributes::default() },
            listeners: vec![Listener {
                arn: ListenerArn::new("listener"),
                port,
                protocol: front,
                tls,
                attributes: ListenerAttributes::default(),
                rules: (1..=rules).map(rule).collect(),
                default_action: forward(),
            }],
        }],
        target_groups: vec![TargetGroup {
            arn: group.clone(),
            ticket: 0,
            protocol,
            protocol_version: ProtocolVersion::Http1,
            attributes: TargetGroupAttributes::default(),
            health_check: HealthCheck {
                enabled: true,
                protocol,
                port: HealthCheckPort::Traffic,
                path: "/small".to_owned(),
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(2),
                healthy_threshold: 2,
                unhealthy_threshold: 2,
                matcher: Matcher(vec![(200, 299)]),
            },
            targets: (0..targets).map(|number| target(number, targets, origin)).collect(),
        }],
        ..RoutingConfig::default()
    };
    let settings = Settings { workers: 1, logs: Some(folder.join("logs")), ..Settings::default() };
    let balancer = Balancer::start(&settings, Arc::new(Silent(folder)))?;
    ensure!(balancer.apply(&config), "a first configuration is refused");
    let mut made = targets;
    loop {
        if mode == "churn" {
            std::thread::sleep(CHURN);
            let now = Timestamp::EPOCH + SystemTime::now().duration_since(UNIX_EPOCH)?;
            let of_group = &mut config.target_groups[0].targets;
            let gone = of_group.len().saturating_sub(targets as usize + CHURNED * (STAYS - 1));
            of_group.drain(..gone.min(CHURNED));
            of_group.iter_mut().filter(|one| one.deregistered.is_none()).take(CHURNED).for_each(|one| {
                one.deregistered = Some(now);
            });
            for _ in 0..CHURNED {
                of_group.push(Target { registered: now, ..target(made, targets, origin) });
                made += 1;
            }
            config.generation += 1;
            ensure!(balancer.apply(&config), "a newer configuration is refused");
        } else {
            std::thread::sleep(Duration::from_secs(60));
        }
        balancer.samples();
    }
}

/// A target that was never there before, at one of the origin's addresses.
fn target(number: u64, addresses: u64, origin: u16) -> Target {
    let last = (number % addresses.max(1)) as u8 + 1;
    Target {
        key: TargetKey { id: TargetId::new(&format!("target-{number}")), port: origin },
        ticket: number,
        ip: Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))),
        zone: None,
        registered: Timestamp::EPOCH,
        deregistered: None,
    }
}
