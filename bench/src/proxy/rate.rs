//! Latency at a fixed rate, whatever the proxy makes of it: requests are due by the clock, and one that waits for a
//! connection waits on the proxy's account.

use super::peers::Proxy;
use crate::table::{Row, print};
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Requests a second: a fraction of what each proxy can carry on one core.
const RATE: u64 = 2000;
const CONNECTIONS: usize = 32;
const TICK: Duration = Duration::from_millis(1);
const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n";
const BODY: usize = 64;

/// Asks each proxy for so many seconds.
///
/// # Errors
/// When a request fails.
pub fn measure<'p>(seconds: u64, proxies: impl Iterator<Item = &'p Proxy>) -> Result<()> {
    let mut rows = Vec::new();
    for proxy in proxies {
        let mut took = at_rate(proxy.port, seconds).with_context(|| format!("asking {}", proxy.name))?;
        took.sort_by(f64::total_cmp);
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let place = (took.len() as f64 * share) as usize;
            let value = took.get(place.min(took.len() - 1)).copied().unwrap_or(f64::NAN);
            rows.push(Row::new(format!("{}: {name}", proxy.name), "ms", vec![value]));
        }
    }
    print(
        &format!("Proxies: latency at {RATE} requests a second, kept connections, no request failed"),
        &rows,
    );
    Ok(())
}

/// How long each request took, in milliseconds.
fn at_rate(port: u16, seconds: u64) -> Result<Vec<f64>> {
    // As many as are due in all: the clock never waits.
    let (due, queue) = mpsc::channel::<Instant>();
    let queue = Arc::new(Mutex::new(queue));
    let mut workers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let queue = Arc::clone(&queue);
        workers.push(std::thread::spawn(move || -> Result<Vec<f64>> {
            let mut took = Vec::new();
            loop {
                let next = queue.lock().map(|queue| queue.recv());
                let Ok(Ok(due)) = next else { return Ok(took) };
                ask(&mut stream)?;
                took.push(due.elapsed().as_secs_f64() * 1000.0);
            }
        }));
    }
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        let wanted = begun.elapsed().as_millis() as u64 * RATE / 1000;
        for _ in sent..wanted {
            due.send(Instant::now())?;
        }
        sent = wanted;
        std::thread::sleep(TICK);
    }
    drop(due);
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.join().map_err(|_| anyhow::anyhow!("a client has panicked"))??);
    }
    ensure!(!all.is_empty(), "nothing was asked");
    Ok(all)
}

/// One request on a connection, and its whole answer.
///
/// # Errors
/// When it is another than the origin's.
pub fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = Vec::with_capacity(1024);
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..count]);
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && answer.len() >= head + 4 + BODY
        {
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            return Ok(());
        }
    }
}
