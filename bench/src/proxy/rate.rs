//! Requests at a fixed rate, whatever the proxy makes of it: each goes out when it is due, on a kept connection that is
//! free or a new one, and none waits for another's answer.

use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Requests a second: a fraction of what each proxy can carry on one core.
pub const RATE: u64 = 2000;
/// Of the clock by which requests are due.
const TICK: Duration = Duration::from_millis(1);
/// What an answer may take before its request has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n";
const BODY: usize = 64;

/// How requests went.
#[derive(Default)]
pub struct Asked {
    /// How long each took that was answered well, in milliseconds.
    pub took: Vec<f64>,
    /// Those that a kept connection's end met before anything was answered, which were asked again on another one.
    pub again: u64,
    /// Those without a good answer, and what the first of them met.
    pub failed: u64,
    pub failure: Option<String>,
}

/// Asks for so many seconds.
///
/// # Errors
/// When the requests' clock stops.
pub async fn at_rate(port: u16, seconds: u64) -> Result<Asked> {
    LocalSet::new().run_until(asking(port, seconds)).await
}

async fn asking(port: u16, seconds: u64) -> Result<Asked> {
    let asked = Rc::new(RefCell::new(Asked::default()));
    let free = Rc::new(RefCell::new(Vec::new()));
    let mut under_way = JoinSet::new();
    let mut clock = interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        clock.tick().await;
        let wanted = begun.elapsed().as_millis() as u64 * RATE / 1000;
        for _ in sent..wanted {
            let (asked, free) = (Rc::clone(&asked), Rc::clone(&free));
            under_way.spawn_local(one(port, Instant::now(), asked, free));
        }
        sent = wanted;
        while under_way.try_join_next().is_some() {}
    }
    while let Some(done) = under_way.join_next().await {
        done.context("a request was never answered")?;
    }
    let asked = asked.take();
    ensure!(!asked.took.is_empty(), "nothing was answered: {:?}", asked.failure);
    Ok(asked)
}

/// One request, from when it is due to its answer.
async fn one(port: u16, due: Instant, asked: Rc<RefCell<Asked>>, free: Rc<RefCell<Vec<TcpStream>>>) {
    let kept = free.borrow_mut().pop();
    let reused = kept.is_some();
    let mut outcome = timeout(PATIENCE, on(kept, port)).await;
    if reused && matches!(outcome, Ok(Err(Unanswered::Silence(_)))) {
        asked.borrow_mut().again += 1;
        outcome = timeout(PATIENCE, on(None, port)).await;
    }
    let mut asked = asked.borrow_mut();
    match outcome {
        Ok(Ok(stream)) => {
            asked.took.push(due.elapsed().as_secs_f64() * 1000.0);
            free.borrow_mut().extend(stream);
        }
        Ok(Err(Unanswered::Silence(error) | Unanswered::Wrong(error))) => {
            asked.failed += 1;
            asked.failure.get_or_insert(format!("{error:#}"));
        }
        Err(_) => {
            asked.failed += 1;
            asked.failure.get_or_insert_with(|| "no answer".to_owned());
        }
    }
}

enum Unanswered {
    /// The connection ended without a word.
    Silence(anyhow::Error),
    Wrong(anyhow::Error),
}

/// Asks on this connection, or on a new one; gives it back when it stays open.
async fn on(kept: Option<TcpStream>, port: u16) -> Result<Option<TcpStream>, Unanswered> {
    let wrong = |error: std::io::Error| Unanswered::Wrong(error.into());
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(wrong)?;
            stream.set_nodelay(true).map_err(wrong)?;
            stream
        }
    };
    let silence = |error: std::io::Error| Unanswered::Silence(error.into());
    stream.write_all(REQUEST).await.map_err(silence)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        match stream.read_buf(&mut answer).await {
            Ok(0) | Err(_) if answer.is_empty() => {
                return Err(Unanswered::Silence(anyhow::anyhow!("a connection has ended")));
            }
            Ok(0) => return Err(Unanswered::Wrong(anyhow::anyhow!("an answer breaks off"))),
            Ok(_) => {}
            Err(error) => return Err(wrong(error)),
        }
        if let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n")
            && (answer.len() >= head + 4 + BODY || !answer.starts_with(b"HTTP/1.1 200"))
        {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            return match text.starts_with("http/1.1 200") {
                true => Ok(Some(stream).filter(|_| !text.contains("\r\nconnection: close"))),
                false => Err(Unanswered::Wrong(anyhow::anyhow!("{text}"))),
            };
        }
    }
}

/// Connections that have carried a request and were kept.
///
/// # Errors
/// When a request fails, or a connection is not kept.
pub async fn open(port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        match on(None, port).await {
            Ok(Some(stream)) => open.push(stream),
            Ok(None) => bail!("a connection is not kept"),
            Err(Unanswered::Silence(error) | Unanswered::Wrong(error)) => return Err(error),
        }
    }
    Ok(open)
}
