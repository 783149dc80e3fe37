//! Load on an HTTP server: one prepared request sent again and again on some connections, so that the measuring costs
//! as little as can be. A signature holds for minutes, and the server verifies it each time.

use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came of some seconds of load.
pub struct Outcome {
    pub per_second: f64,
    /// Milliseconds.
    pub latencies: Vec<f64>,
}

pub async fn drive(address: &str, request: Vec<u8>, connections: usize, time: Duration) -> Result<Outcome> {
    let request = Arc::new(request);
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (address, request, stop) = (address.to_owned(), Arc::clone(&request), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move { connection(&address, &request, &stop).await }));
    }
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Outcome { per_second: latencies.len() as f64 / start.elapsed().as_secs_f64(), latencies })
}

async fn connection(address: &str, request: &[u8], stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut buffer[filled..]).await?;
            anyhow::ensure!(read > 0, "the connection was closed");
            filled += read;
            if is_complete(&buffer[..filled])? {
                break;
            }
        }
        latencies.push(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(latencies)
}

fn is_complete(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let text = String::from_utf8_lossy(&answer[..head]);
    if !text.starts_with("HTTP/1.1 200") {
        bail!("{}", String::from_utf8_lossy(answer));
    }
    let body = &answer[head + 4..];
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(body.len() >= value.trim().parse()?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(body.ends_with(b"0\r\n\r\n"));
        }
    }
    Ok(true)
}
