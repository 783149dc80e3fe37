//! Latency at a fixed rate while 1,000 targets a second come and go, each proxy told of them by its own means: the
//! balancer by configurations, HAProxy by its runtime API, nginx by reloads. Beside it the same without.

use super::peers::{Bench, Front, Proxy};
use super::rate::{self, RATE};
use super::{ADDRESSES, judge};
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const ROUNDS: usize = 3;
/// Of a turn.
const SECONDS: u64 = 3;
/// Reloads of nginx: each changes all its 100 targets.
const RELOAD: Duration = Duration::from_millis(100);
/// HAProxy's targets change ten at a time.
const TELL: Duration = Duration::from_millis(10);
const TOLD: u64 = 10;

/// Who changes a proxy's targets.
enum Changes {
    None,
    /// It does so itself.
    Itself,
    Nginx,
    Haproxy,
}

/// Measures all.
///
/// # Errors
/// When a proxy does not start or is gone. Requests that fail are counted and shown.
pub async fn run(bench: &Bench) -> Result<()> {
    let steady = [
        bench.copier()?,
        bench.nginx("nginx", Front::Http, ADDRESSES)?,
        bench.haproxy("HAProxy", Front::Http, ADDRESSES)?,
        bench.ours("Gantry, 100 rules", Front::Http, 100, ADDRESSES)?,
    ];
    let (nginx, haproxy, ours) = (
        bench.nginx("nginx, reloaded", Front::Http, ADDRESSES)?,
        bench.haproxy("HAProxy, told", Front::Http, ADDRESSES)?,
        bench.ours("Gantry, 100 rules, told", Front::Churn, 100, ADDRESSES)?,
    );
    let mut turns = vec![(bench.origin(), Changes::None)];
    turns.extend(steady.iter().map(|proxy| (proxy, Changes::None)));
    turns.extend([(&nginx, Changes::Nginx), (&haproxy, Changes::Haproxy), (&ours, Changes::Itself)]);
    let mut rows: Vec<Vec<Row>> = turns.iter().map(|(proxy, _)| rows_of(proxy)).collect();
    for round in 1..=ROUNDS {
        for ((proxy, changes), rows) in turns.iter().zip(&mut rows) {
            eprintln!("proxy: {RATE} requests a second, round {round} of {ROUNDS}, {}", proxy.name);
            let over = AtomicBool::new(false);
            let before = proxy.cpu_seconds()?;
            let asking = async {
                let asked = rate::at_rate(proxy.port, SECONDS).await;
                over.store(true, Relaxed);
                asked.with_context(|| format!("asking {}", proxy.name))
            };
            let changing = change(bench, proxy, changes, &over);
            let (mut asked, ()) = tokio::try_join!(asking, changing)?;
            if let Some(failure) = &asked.failure {
                eprintln!("proxy: {} failed {}: {failure}", proxy.name, asked.failed);
            }
            asked.took.sort_by(f64::total_cmp);
            let quantile = |share: f64| {
                let place = (asked.took.len() as f64 * share) as usize;
                asked.took.get(place.min(asked.took.len() - 1)).copied().unwrap_or(f64::NAN)
            };
            let cpu = (proxy.cpu_seconds()? - before) * 1e6 / asked.took.len() as f64;
            let values = [
                quantile(0.5),
                quantile(0.99),
                quantile(0.999),
                cpu,
                asked.failed as f64,
                asked.again as f64,
            ];
            for (row, value) in rows.iter_mut().zip(values) {
                row.values.push(value);
            }
        }
    }
    let compared = compared(&rows);
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    print(
        &format!(
            "Proxies: {RATE} requests a second, 100 targets; 1,000 of them come and go each second where told"
        ),
        &rows,
    );
    judge(compared);
    Ok(())
}

/// What we add to the origin's tail beside what the better of our peers adds, where targets come and go; and what fails.
fn compared(rows: &[Vec<Row>]) -> Vec<(Row, f64)> {
    let [origin, .., nginx, haproxy, ours] = rows else { return Vec::new() };
    let added = |of: &[Row]| -> Vec<f64> {
        of[P99].values.iter().zip(&origin[P99].values).map(|(through, direct)| through - direct).collect()
    };
    let failed = ours[FAILED].values.iter().sum();
    let [nginx, haproxy, ours] = [nginx, haproxy, ours].map(|of| Row::new("", "ms", added(of)));
    let best = if nginx.median() < haproxy.median() { nginx } else { haproxy };
    let name = "Gantry, added p99 beside the best peer's: at most 0.50";
    vec![
        (Row::beside(name, &ours.values, &best.values), 0.5),
        (Row::new("Gantry, failed: at most 0", "", vec![failed]), 0.0),
    ]
}

/// Places in [`rows_of`].
const P99: usize = 1;
const FAILED: usize = 4;

fn rows_of(proxy: &Proxy) -> Vec<Row> {
    let row = |what: &str, unit| Row::new(format!("{}: {what}", proxy.name), unit, Vec::new());
    vec![
        row("p50", "ms"),
        row("p99", "ms"),
        row("p99.9", "ms"),
        row("CPU per request", "µs"),
        row("failed", ""),
        row("asked again", ""),
    ]
}

/// Changes a proxy's targets until it is over.
async fn change(bench: &Bench, proxy: &Proxy, changes: &Changes, over: &AtomicBool) -> Result<()> {
    let begun = Instant::now();
    let mut turn = 0_u64;
    match changes {
        Changes::None | Changes::Itself => {}
        Changes::Nginx => {
            while !over.load(Relaxed) {
                turn += 1;
                bench.reload_nginx(proxy, turn)?;
                until(begun, RELOAD, turn).await;
            }
        }
        Changes::Haproxy => {
            let path = bench.haproxy_socket(proxy.port);
            while !over.load(Relaxed) {
                let mut commands = Vec::new();
                for _ in 0..TOLD {
                    // The slot gets the address that comes after all those it had.
                    let (slot, round) = (turn % u64::from(ADDRESSES), turn / u64::from(ADDRESSES) + 1);
                    let last = (slot + round) % u64::from(ADDRESSES) + 1;
                    commands.push(format!("set server l/s{} addr 127.0.0.{last}", slot + 1));
                    turn += 1;
                }
                let mut socket = UnixStream::connect(&path).await?;
                socket.write_all(format!("{}\n", commands.join(";")).as_bytes()).await?;
                let mut answer = String::new();
                socket.read_to_string(&mut answer).await?;
                let changed = answer.matches("IP changed from").count();
                ensure!(changed == commands.len(), "HAProxy refuses: {answer}");
                until(begun, TELL, turn / TOLD).await;
            }
        }
    }
    Ok(())
}

/// Waits for the time of a turn.
async fn until(begun: Instant, each: Duration, turn: u64) {
    let due = each * u32::try_from(turn).unwrap_or(u32::MAX);
    tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
}
