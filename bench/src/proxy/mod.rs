//! The load balancer beside nginx and HAProxy: CPU time per request, requests per second, tail latency, memory. Every
//! proxy has one thread for traffic, the same origin, and its turn in every round; wrk asks. A copier that looks at
//! nothing runs with them as the floor.

mod copy;
mod peers;
mod rate;
mod serve;

pub use copy::copy;
pub use serve::serve;

use crate::table::{Row, print};
use anyhow::{Context, Result, bail, ensure};
use peers::{Proxy, copier, cpu_seconds, haproxy, nginx, ours, resident};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

const CONNECTIONS: &str = "64";
/// Connections of which the memory is measured.
const IDLE: usize = 2000;
/// Addresses of the origin: 127.0.0.1 and those that follow.
pub const ADDRESSES: u8 = 100;
/// The names under which this program runs as the balancer and as the copier.
pub const SERVE: &str = "proxy-serve";
pub const COPY: &str = "proxy-copy";

/// How long it is measured.
#[derive(Clone, Copy)]
struct Length {
    rounds: usize,
    /// Of one proxy's turn, as wrk reads it.
    seconds: &'static str,
    /// Of a turn at a fixed rate, in seconds.
    rate: u64,
}

/// Ten minutes, and three.
const LONG: Length = Length { rounds: 7, seconds: "2s", rate: 10 };
const SHORT: Length = Length { rounds: 3, seconds: "1s", rate: 4 };

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

/// `short`: fewer and shorter rounds.
pub fn run(short: bool) -> Result<()> {
    let length = if short { SHORT } else { LONG };
    let folder = tempfile::tempdir()?;
    let www = folder.path().join("www");
    fs::create_dir(&www)?;
    for (name, bytes) in [("small", 64), ("middle", 10 * 1024), ("large", 1024 * 1024)] {
        fs::write(www.join(name), vec![b'x'; bytes])?;
    }
    let origin = nginx(folder.path(), "origin", |port| {
        let listen: String =
            (1..=ADDRESSES).map(|last| format!("listen 127.0.0.{last}:{port} backlog=4096; ")).collect();
        format!("server {{ {listen} root {}; }}", www.display())
    })?;
    let near = origin.port;
    let plain_nginx = nginx(folder.path(), "nginx", |port| {
        format!(
            "upstream o {{ server 127.0.0.1:{near}; keepalive 1024; keepalive_requests 1000000000; }}
             server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://o; proxy_http_version 1.1;
             proxy_set_header Connection \"\"; proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }} }}"
        )
    })?;
    let proxies = vec![
        plain_nginx,
        haproxy(folder.path(), "HAProxy", "http", near)?,
        ours("Gantry, 10 rules", "http", 10, 1, near)?,
        ours("Gantry, 100 rules", "http", 100, 1, near)?,
        ours("Gantry, 1,000 rules", "http", 1000, 1, near)?,
        ours("Gantry, 100 rules, 100 targets", "http", 100, ADDRESSES, near)?,
        copier(near)?,
    ];
    for case in &CASES {
        measure(case, &proxies, length)?;
    }
    let layer4 = [
        haproxy(folder.path(), "HAProxy, layer 4", "tcp", near)?,
        ours("Gantry, layer 4", "tcp", 0, 1, near)?,
        copier(near)?,
    ];
    measure(&Case { name: "layer 4, 1 MiB, kept connections", ..CASES[2] }, &layer4, length)?;
    measure(&Case { name: "layer 4, 64 B, a connection each", ..CASES[3] }, &layer4, length)?;
    let churned = ours("Gantry, 1,000 targets come and go each second", "churn", 100, ADDRESSES, near)?;
    rate::measure(length.rate, proxies.iter().chain([&churned]))?;
    idle(&proxies)
}

/// What a kept connection costs while nothing is asked on it.
fn idle(proxies: &[Proxy]) -> Result<()> {
    let mut rows = Vec::new();
    for proxy in proxies {
        let before = resident(proxy)?;
        let open = (0..IDLE).map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port))?;
            rate::ask(&mut stream)?;
            Ok(stream)
        });
        let open = open.collect::<Result<Vec<_>>>()?;
        let kib = (resident(proxy)? - before) * 1024.0 / IDLE as f64;
        rows.push(Row::new(proxy.name.clone(), "KiB", vec![kib]));
        drop(open);
    }
    print("Proxies: memory of an idle connection, beyond what the runs before had claimed", &rows);
    Ok(())
}

/// Gives every proxy its turns, and prints what came of them.
fn measure(case: &Case, proxies: &[Proxy], length: Length) -> Result<()> {
    let mut figures: Vec<[Vec<f64>; 3]> = proxies.iter().map(|_| Default::default()).collect();
    for _ in 0..length.rounds {
        for (proxy, [cpu, rate, tail]) in proxies.iter().zip(&mut figures) {
            let before = cpu_seconds(proxy)?;
            let (requests, seconds, p99) = wrk(proxy.port, case, length.seconds)?;
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
fn wrk(port: u16, case: &Case, time: &str) -> Result<(f64, f64, f64)> {
    let mut command = Command::new("wrk");
    command.args(["-t1", "-c", CONNECTIONS, "-d", time, "--latency"]);
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
