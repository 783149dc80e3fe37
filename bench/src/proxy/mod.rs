//! The load balancer beside nginx and HAProxy: CPU time per request, requests per second, tail latency, memory. Every
//! proxy has one thread for traffic, the same origin, and its turn in every round; wrk asks.

use crate::table::{Row, print};
use anyhow::{Context, Result, bail, ensure};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::*;
use gantry_decide::time::Timestamp;
use gantry_edge::balancer::{Balancer, Observer, Problem, Settings};
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
/// Of one proxy's turn.
const SECONDS: &str = "2s";
const CONNECTIONS: &str = "64";
/// How long a proxy may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(20);
/// The name under which this program runs as the balancer.
pub const SERVE: &str = "proxy-serve";

/// What is asked for, in which way.
struct Case {
    name: &'static str,
    path: &'static str,
    /// A connection for each request.
    close: bool,
    /// Bytes rather than requests count.
    bulk: bool,
}

const CASES: [Case; 4] = [
    Case { name: "64 B, kept connections", path: "/small", close: false, bulk: false },
    Case { name: "10 KiB, kept connections", path: "/middle", close: false, bulk: false },
    Case { name: "1 MiB, kept connections", path: "/large", close: false, bulk: true },
    Case { name: "64 B, a connection each", path: "/small", close: true, bulk: false },
];

/// A proxy under load.
struct Proxy {
    name: String,
    port: u16,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let www = folder.path().join("www");
    fs::create_dir(&www)?;
    for (name, bytes) in [("small", 64), ("middle", 10 * 1024), ("large", 1024 * 1024)] {
        fs::write(www.join(name), vec![b'x'; bytes])?;
    }
    let origin = nginx(folder.path(), "origin", |port| {
        format!("server {{ listen 127.0.0.1:{port} backlog=4096; root {}; }}", www.display())
    })?;
    let (near, layer4) = (origin.port, haproxy(folder.path(), "HAProxy, layer 4", "tcp", origin.port)?);
    let proxies = vec![
        nginx(folder.path(), "nginx", |port| {
            format!(
                "upstream o {{ server 127.0.0.1:{near}; keepalive 1024; keepalive_requests 1000000000; }}
                 server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://o; proxy_http_version 1.1;
                 proxy_set_header Connection \"\"; proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
            )
        })?,
        haproxy(folder.path(), "HAProxy", "http", near)?,
        ours("Gantry, 10 rules", "http", 10, near)?,
        ours("Gantry, 100 rules", "http", 100, near)?,
        ours("Gantry, 1,000 rules", "http", 1000, near)?,
    ];
    for case in &CASES {
        measure(case, &proxies)?;
    }
    let bulk = Case { name: "layer 4, 1 MiB, kept connections", ..CASES[2] };
    measure(&bulk, &[layer4, ours("Gantry, layer 4", "tcp", 0, near)?])
}

/// Gives every proxy its turns, and prints what came of them.
fn measure(case: &Case, proxies: &[Proxy]) -> Result<()> {
    let mut figures: Vec<[Vec<f64>; 3]> = proxies.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for (proxy, [cpu, rate, tail]) in proxies.iter().zip(&mut figures) {
            let before = cpu_seconds(proxy)?;
            let (requests, seconds, p99) = wrk(proxy.port, case)?;
            cpu.push((cpu_seconds(proxy)? - before) * 1e6 / requests);
            rate.push(requests / seconds);
            tail.push(p99);
        }
    }
    let mut rows = Vec::new();
    let per = if case.bulk { "CPU per MiB" } else { "CPU per request" };
    for (proxy, [cpu, rate, tail]) in proxies.iter().zip(figures) {
        rows.push(Row::new(format!("{}: {per}", proxy.name), "µs", cpu));
        rows.push(Row::new(format!("{}: rate", proxy.name), "1/s", rate));
        rows.push(Row::new(format!("{}: p99", proxy.name), "ms", tail));
        rows.push(Row::new(format!("{}: resident", proxy.name), "MiB", vec![resident(proxy)?]));
    }
    print(&format!("Proxies: {}", case.name), &rows);
    Ok(())
}

/// Requests answered, the seconds it took, and the 99th percentile in milliseconds.
fn wrk(port: u16, case: &Case) -> Result<(f64, f64, f64)> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, "-d", SECONDS, "--latency"]);
    if case.close {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://127.0.0.1:{port}{}", case.path)).output();
    let output = output.context("running wrk: install it (Debian: wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "requests failed:\n{text}");
    let after = |mark: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(mark))
            .map(str::trim)
            .with_context(|| text.clone())
    };
    let total = text.lines().find(|line| line.contains(" requests in ")).with_context(|| text.clone())?;
    let mut words = total.split_whitespace();
    let requests: f64 = words.next().unwrap_or_default().parse()?;
    let seconds = milliseconds(words.nth(2).unwrap_or_default().trim_end_matches(','))? / 1000.0;
    Ok((requests, seconds, milliseconds(after("99%")?)?))
}

/// `1.20ms`, `310.00us`, `2.01s`.
fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("no duration: {text}")
}

/// All processes of a proxy: nginx has a worker below its master.
fn processes(proxy: &Proxy) -> Vec<u32> {
    let own = proxy.child.id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
}

fn cpu_seconds(proxy: &Proxy) -> Result<f64> {
    let mut nanos = 0;
    for process in processes(proxy) {
        for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(nanos as f64 / 1e9)
}

fn resident(proxy: &Proxy) -> Result<f64> {
    let mut kilobytes = 0.0;
    for process in processes(proxy) {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        kilobytes += line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or_default();
    }
    Ok(kilobytes / 1024.0)
}

/// A port that nobody has; taken again by whom it is given to.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn begin(name: &str, port: u16, command: &mut Command) -> Result<Proxy> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let proxy =
        Proxy { name: name.to_owned(), port, child: child.with_context(|| format!("starting {name}"))? };
    let begun = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        ensure!(begun.elapsed() < PATIENCE, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(proxy)
}

fn nginx(folder: &Path, name: &str, server: impl FnOnce(u16) -> String) -> Result<Proxy> {
    let port = free_port()?;
    let own = folder.join(name);
    fs::create_dir(&own)?;
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}; ", own.join(kind).display()))
        .collect();
    let text = format!(
        "daemon off; worker_processes 1; pid {}; error_log /dev/null; events {{ worker_connections 8192; }}
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; sendfile on; {paths} {} }}",
        own.join("pid").display(),
        server(port)
    );
    let file = own.join("nginx.conf");
    fs::write(&file, text)?;
    begin(name, port, Command::new("nginx").arg("-c").arg(file))
}

fn haproxy(folder: &Path, name: &str, mode: &str, origin: u16) -> Result<Proxy> {
    let port = free_port()?;
    let options = if mode == "http" { "option forwardfor\n http-reuse always" } else { "option splice-auto" };
    let text = format!(
        "global\n nbthread 1\n maxconn 8192\ndefaults\n mode {mode}\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n {options}\nlisten l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{origin}{}\n",
        if mode == "http" { " pool-max-conn 1024" } else { "" }
    );
    let file = folder.join(format!("haproxy-{mode}.cfg"));
    fs::write(&file, text)?;
    begin(name, port, Command::new("haproxy").arg("-db").arg("-f").arg(file))
}

fn ours(name: &str, mode: &str, rules: u32, origin: u16) -> Result<Proxy> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([SERVE, mode, &rules.to_string(), &port.to_string(), &origin.to_string()]);
    begin(name, port, &mut command)
}

struct Silent;

impl Observer for Silent {
    fn health(&self, _report: HealthReport) {}

    fn problem(&self, problem: Problem) {
        eprintln!("{problem}");
    }
}

/// Runs as the balancer: `MODE RULES PORT ORIGIN`, with health checks and counters on, until it is killed.
pub fn serve(arguments: &[String]) -> Result<()> {
    let [mode, rules, port, origin] = arguments else { bail!("usage: {SERVE} MODE RULES PORT ORIGIN") };
    let (rules, port, origin): (u32, u16, u16) = (rules.parse()?, port.parse()?, origin.parse()?);
    let (protocol, kind) = match mode.as_str() {
        "http" => (Protocol::Http, LoadBalancerKind::Application),
        _ => (Protocol::Tcp, LoadBalancerKind::Network),
    };
    let group = TargetGroupArn::new("group");
    let forward = || {
        let groups = vec![WeightedGroup { group: group.clone(), weight: 1 }];
        Action::Forward(Forward { groups, stickiness: None })
    };
    let rule = |number: u32| Rule {
        arn: RuleArn::new(&number.to_string()),
        priority: number,
        conditions: vec![Condition::Path(vec![Pattern::Wildcard(format!("/service-{number}/*"))])],
        transforms: Vec::new(),
        action: forward(),
    };
    let config = RoutingConfig {
        generation: 1,
        load_balancers: vec![LoadBalancer {
            arn: LoadBalancerArn::new("balancer"),
            kind,
            addresses: vec![Address { ip: Ipv4Addr::LOCALHOST.into(), zone: ZoneName::new("zone") }],
            host_names: Vec::new(),
            attributes: LoadBalancerAttributes::default(),
            listeners: vec![Listener {
                arn: ListenerArn::new("listener"),
                port,
                protocol,
                tls: None,
                attributes: ListenerAttributes::default(),
                rules: (1..=rules).map(rule).collect(),
                default_action: forward(),
            }],
        }],
        target_groups: vec![TargetGroup {
            arn: group.clone(),
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
            targets: vec![Target {
                key: TargetKey { id: TargetId::new("origin"), port: origin },
                ip: Some(Ipv4Addr::LOCALHOST.into()),
                zone: None,
                registered: Timestamp::EPOCH,
                deregistered: None,
            }],
        }],
    };
    let balancer = Balancer::start(&Settings { workers: 1, ..Settings::default() }, Arc::new(Silent))?;
    ensure!(balancer.apply(&config), "a first configuration is refused");
    loop {
        std::thread::sleep(Duration::from_secs(60));
        balancer.samples();
    }
}
