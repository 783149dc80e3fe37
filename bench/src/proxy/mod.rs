//! The load balancer beside nginx and HAProxy: CPU time per request and per byte, requests per second, tail latency,
//! memory. Every proxy has one thread for traffic on a processor that nothing else of the benchmark uses, the same origin,
//! and its turn in every round. A copier that looks at nothing runs with them as the floor.

mod ask;
mod churn;
mod copy;
mod peers;
mod rate;
mod serve;

pub use copy::copy;
pub use serve::serve;

use crate::table::{Row, print};
use anyhow::{Context, Result, bail, ensure};
use ask::{Case, KEPT, LAYER4, SECOND, SECURE};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use peers::{Bench, Front, Proxy};
use std::process::Command;

/// Connections of which the memory is measured.
const IDLE: usize = 10_000;
/// Addresses of the origin: 127.0.0.1 and those that follow.
pub const ADDRESSES: u8 = 100;
/// The names under which this program runs as the balancer and as the copier.
pub const SERVE: &str = "proxy-serve";
pub const COPY: &str = "proxy-copy";

/// The most CPU time that a request, or a byte, may take here beside what it takes there.
struct Aim {
    here: &'static str,
    there: &'static str,
    most: f64,
}

const OURS: &str = "Gantry, 100 rules";
/// Beside plain reverse proxies.
const BESIDE_PEERS: [Aim; 2] =
    [Aim { here: OURS, there: "nginx", most: 0.95 }, Aim { here: OURS, there: "HAProxy", most: 0.88 }];
/// Rules are compiled, not walked.
const RULES: [Aim; 3] = [
    Aim { here: "Gantry, 1,000 rules", there: "Gantry, 10 rules", most: 1.05 },
    Aim { here: "Gantry, 1,000 rules, 100 targets", there: "nginx, 100 targets", most: 0.95 },
    Aim { here: "Gantry, 1,000 rules, 100 targets", there: "HAProxy, 100 targets", most: 0.88 },
];
/// Three times the bytes.
const LAYER4_AIMS: [Aim; 1] = [Aim { here: "Gantry", there: "HAProxy", most: 1.0 / 3.0 }];

const SECTIONS: &str = "http, rules, tls, h2, churn, idle, l4";

/// Runs one section, which takes below 100 seconds, or all.
///
/// # Errors
/// When a proxy is missing, or a request fails.
pub async fn run(section: Option<&str>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bench = Bench::start(folder.path(), share_processors()?)?;
    match section {
        Some("http") => http(&bench),
        Some("rules") => rules(&bench),
        Some("tls") => tls(&bench),
        Some("h2") => h2(&bench),
        Some("churn") => churn::run(&bench).await,
        Some("idle") => idle(&bench).await,
        Some("l4") => layer4(&bench),
        Some(other) => bail!("no section {other} of `proxy`: {SECTIONS}"),
        None => {
            http(&bench)?;
            rules(&bench)?;
            tls(&bench)?;
            h2(&bench)?;
            churn::run(&bench).await?;
            idle(&bench).await?;
            layer4(&bench)
        }
    }
}

/// Keeps this program, and what it starts, off one processor: that one is the measured proxy's. None where there is but
/// one.
fn share_processors() -> Result<Option<usize>> {
    let this = Pid::from_raw(0);
    let mut ours = sched_getaffinity(this)?;
    let all: Vec<usize> = (0..CpuSet::count()).filter(|cpu| ours.is_set(*cpu).unwrap_or(false)).collect();
    let Some(last) = all.last().copied().filter(|_| all.len() > 1) else { return Ok(None) };
    ours.unset(last)?;
    sched_setaffinity(this, &ours)?;
    Ok(Some(last))
}

/// HTTP/1.1.
fn http(bench: &Bench) -> Result<()> {
    let proxies = [
        bench.nginx("nginx", Front::Http, 1)?,
        bench.haproxy("HAProxy", Front::Http, 1)?,
        bench.ours(OURS, Front::Http, 100, 1)?,
        bench.copier()?,
    ];
    KEPT.iter().try_for_each(|case| measure(case, &proxies, &BESIDE_PEERS))
}

/// What rules, targets and logs cost.
fn rules(bench: &Bench) -> Result<()> {
    let proxies = [
        bench.ours("Gantry, 10 rules", Front::Http, 10, 1)?,
        bench.ours("Gantry, 1,000 rules", Front::Http, 1000, 1)?,
        bench.ours("Gantry, 100 rules, access logs", Front::Logged, 100, 1)?,
        bench.ours("Gantry, 10 rules, 100 targets", Front::Http, 10, ADDRESSES)?,
        bench.ours("Gantry, 1,000 rules, 100 targets", Front::Http, 1000, ADDRESSES)?,
        bench.nginx("nginx, 100 targets", Front::Http, ADDRESSES)?,
        bench.haproxy("HAProxy, 100 targets", Front::Http, ADDRESSES)?,
    ];
    measure(&Case { name: "rules and targets, 64 B, kept connections", ..KEPT[0] }, &proxies, &RULES)
}

/// HTTP/1.1 by TLS 1.3.
fn tls(bench: &Bench) -> Result<()> {
    let proxies = secure(bench)?;
    SECURE.iter().try_for_each(|case| measure(case, &proxies, &BESIDE_PEERS))
}

/// HTTP/2 by TLS 1.3.
fn h2(bench: &Bench) -> Result<()> {
    let proxies = secure(bench)?;
    SECOND.iter().try_for_each(|case| measure(case, &proxies, &BESIDE_PEERS))
}

fn secure(bench: &Bench) -> Result<[Proxy; 3]> {
    Ok([
        bench.nginx("nginx", Front::Https, 1)?,
        bench.haproxy("HAProxy", Front::Https, 1)?,
        bench.ours(OURS, Front::Https, 100, 1)?,
    ])
}

/// TCP as it is.
fn layer4(bench: &Bench) -> Result<()> {
    let mut proxies = vec![
        bench.haproxy("HAProxy", Front::Tcp, 1)?,
        bench.ours("Gantry", Front::Tcp, 0, 1)?,
        bench.copier()?,
    ];
    match bench.nginx("nginx stream", Front::Tcp, 1) {
        Ok(nginx) => proxies.insert(0, nginx),
        Err(error) => eprintln!("without nginx's stream module (Debian: libnginx-mod-stream): {error:#}"),
    }
    // Bytes are what layer 4 is for; what a connection or a small message costs there is shown, and mostly the kernel's.
    LAYER4.iter().try_for_each(|case| measure(case, &proxies, if case.bulk { &LAYER4_AIMS } else { &[] }))
}

/// What a kept connection costs while nothing is asked on it.
async fn idle(bench: &Bench) -> Result<()> {
    let proxies = [
        bench.nginx("nginx", Front::Http, 1)?,
        bench.haproxy("HAProxy", Front::Http, 1)?,
        bench.ours(OURS, Front::Http, 100, 1)?,
    ];
    let mut rows = Vec::new();
    for proxy in &proxies {
        eprintln!("proxy: {IDLE} idle connections of {}", proxy.name);
        // What the first requests claim is there once, however many connections there are.
        rate::open(proxy.port, 100).await?;
        let before = proxy.resident()?;
        let open = rate::open(proxy.port, IDLE).await?;
        let kib = (proxy.resident()? - before) * 1024.0 / IDLE as f64;
        rows.push(Row::new(proxy.name.clone(), "KiB", vec![kib]));
        drop(open);
    }
    print("Proxies: resident memory of a kept connection that has carried one request", &rows);
    Ok(())
}

/// What a proxy's turns came to, each a figure a turn.
#[derive(Default)]
struct Figures {
    cpu: Vec<f64>,
    rate: Vec<f64>,
    quantiles: [Vec<f64>; 3],
}

/// Gives every proxy its turns, and prints what came of them.
fn measure(case: &Case, proxies: &[Proxy], aims: &[Aim]) -> Result<()> {
    let mut figures: Vec<Figures> = proxies.iter().map(|_| Figures::default()).collect();
    for round in 1..=case.rounds {
        eprintln!("proxy: {}, round {round} of {}", case.name, case.rounds);
        for (proxy, figures) in proxies.iter().zip(&mut figures) {
            let before = proxy.cpu_seconds()?;
            let turn = case.ask(proxy.port).with_context(|| format!("asking {}", proxy.name))?;
            ensure!(turn.count > 0.0, "{} answered nothing", proxy.name);
            figures.cpu.push((proxy.cpu_seconds()? - before) * 1e6 / turn.count);
            figures.rate.push(turn.count / turn.seconds);
            figures.quantiles.iter_mut().zip(turn.quantiles).for_each(|(all, one)| all.push(one));
        }
    }
    let cpu_of = |name: &str| {
        let place = proxies.iter().position(|proxy| proxy.name == name);
        place.map(|place| figures[place].cpu.clone()).with_context(|| format!("no proxy is {name}"))
    };
    let mut compared = Vec::new();
    for Aim { here, there, most } in aims {
        let name = format!("{here}, CPU beside {there}: at most {most:.2}");
        compared.push((Row::beside(name, &cpu_of(here)?, &cpu_of(there)?), *most));
    }
    let mut rows = Vec::new();
    let (per, unit) = if case.bulk { ("CPU per MiB", "MiB/s") } else { ("CPU per request", "1/s") };
    for (proxy, Figures { cpu, rate, quantiles }) in proxies.iter().zip(figures) {
        if case.bulk {
            let per_second = cpu.iter().map(|micros| 1e6 / micros).collect();
            rows.push(Row::new(format!("{}: MiB per CPU second", proxy.name), "MiB", per_second));
        }
        rows.push(Row::new(format!("{}: {per}", proxy.name), "µs", cpu));
        rows.push(Row::new(format!("{}: rate", proxy.name), unit, rate));
        for (name, took) in ["p50", "p99", "p99.9"].iter().zip(quantiles) {
            rows.push(Row::new(format!("{}: {name}", proxy.name), "ms", took));
        }
        rows.push(Row::new(format!("{}: resident", proxy.name), "MiB", vec![proxy.resident()?]));
    }
    print(&format!("Proxies: {}", case.name), &rows);
    judge(compared);
    Ok(())
}

/// Says which aims are met: figures beside their peers', and the most that each may be.
fn judge(compared: Vec<(Row, f64)>) {
    if compared.is_empty() {
        return;
    }
    for (row, most) in &compared {
        println!("{}: {}", if row.median() <= *most { "met" } else { "MISSED" }, row.name);
    }
    print("Aims", &compared.into_iter().map(|(row, _)| row).collect::<Vec<_>>());
}

/// What a program prints, which is expected to end well.
fn output_of(command: &mut Command, package: &str) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}: install it (Debian: {package})"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
