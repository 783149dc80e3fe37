//! Kills a process that appends to the store, again and again, and compares what is on the disk with what it had
//! acknowledged.
//!
//! The child's batches are a function of their number alone, so the rows after any batch are known exactly. After
//! each SIGKILL the store is opened and must hold precisely the rows after *some* batch that is not older than the
//! last acknowledged one: nothing acknowledged is missing, nothing is there twice, no batch is torn. The child is
//! killed at random instants and at every named point of the store, a checkpoint included.
//!
//! SIGKILL spares the kernel's page cache, so this judges transactions and recovery; that a commit waits for the disk
//! is SQLite's `synchronous=FULL`.
#![allow(clippy::unwrap_used)]

use gantry_server::backend::sqlite::{Observer, Point, SqliteBackend};
use gantry_store::{Backend, Batch, Fence, Journal, Write};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How many kills; 200 by default.
const KILLS: &str = "GANTRY_CRASH_KILLS";
/// Set for the child: the data directory.
const CHILD_DATA: &str = "GANTRY_CRASH_CHILD_DATA";
/// Set for the child: `POINT:N:MICROSECONDS`, to die that long after passing the point for the Nth time; `-` for
/// waiting to be killed.
const CHILD_DEATH: &str = "GANTRY_CRASH_CHILD_DEATH";

type Rows = BTreeMap<String, Vec<u8>>;

/// Batch number `seq`: up to eight writes and removals among 400 keys. Every row names the batch that wrote it.
fn batch(seq: u64) -> Batch {
    let mut random = SmallRng::seed_from_u64(seq);
    let writes = (0..random.random_range(1..=8)).map(|_| {
        let key = format!("123456789012/eu-north-1/test/cell/{}", random.random_range(0..400));
        let filler = "z".repeat(random.random_range(0..4000));
        let value = format!(r#"{{"v":1,"batch":{seq},"filler":"{filler}"}}"#);
        (key, random.random_bool(0.8).then(|| value.into_bytes().into()))
    });
    // The same key may come up twice.
    let writes: BTreeMap<String, Option<Box<[u8]>>> = writes.collect();
    Batch::ordered(seq, writes.into_iter().map(|(key, value)| Write { key, value }).collect())
}

fn apply(rows: &mut Rows, batch: Batch) {
    for write in batch.writes {
        match write.value {
            Some(value) => rows.insert(write.key, value.into_vec()),
            None => rows.remove(&write.key),
        };
    }
}

/// The process that dies. Nothing but a marker for the other test when run by itself.
#[test]
fn child() {
    let (Ok(data), Ok(death)) = (std::env::var(CHILD_DATA), std::env::var(CHILD_DEATH)) else { return };
    let mut store = SqliteBackend::open_observed(Path::new(&data), observer(&death)).unwrap();
    let mut journal = Journal::default();
    let mut random = SmallRng::seed_from_u64(store.last_seq());
    let mut next = store.last_seq() + 1;
    let mut out = std::io::stdout();
    writeln!(out, "\nopen {}", store.last_seq()).unwrap();
    let began = Instant::now();
    // A child that outlives its parent ends by itself.
    while began.elapsed() < Duration::from_secs(20) {
        for _ in 0..random.random_range(1..=6) {
            journal.push(batch(next));
            next += 1;
        }
        while let Some(group) = journal.take_group() {
            store.append(Fence(1), &group).unwrap();
            // To the pipe in one write, which a kill cannot tear.
            out.write_all(format!("ack {}\n", journal.group_durable().unwrap()).as_bytes()).unwrap();
            out.flush().unwrap();
        }
    }
}

fn observer(death: &str) -> Option<Observer> {
    let mut parts = death.split(':');
    let name = parts.next()?.to_owned();
    let point = Point::ALL.into_iter().find(|point| format!("{point:?}") == name)?;
    let nth: u32 = parts.next()?.parse().unwrap();
    let micros: u64 = parts.next()?.parse().unwrap();
    let passed = AtomicU32::new(0);
    Some(Arc::new(move |here| {
        if here != point || passed.fetch_add(1, Ordering::Relaxed) + 1 != nth {
            return;
        }
        let die = move || {
            std::thread::sleep(Duration::from_micros(micros));
            raise(Signal::SIGKILL).unwrap();
        };
        if micros == 0 {
            raise(Signal::SIGKILL).unwrap();
        }
        std::thread::spawn(die);
    }))
}

/// Starts a child, lets it die, and returns the last batch that it acknowledged (0 if none) and whether it had
/// opened the store.
fn run_and_kill(data: &Path, death: &str, after: Duration) -> (u64, bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DATA, data)
        .env(CHILD_DEATH, death)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let killer = (death == "-").then(|| {
        std::thread::spawn(move || {
            std::thread::sleep(after);
            kill(pid, Signal::SIGKILL).unwrap();
        })
    });
    let (mut acknowledged, mut opened) = (0, false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(seq) = line.strip_prefix("ack ") {
            let seq = seq.parse().unwrap();
            assert!(seq > acknowledged, "acknowledgements go back from {acknowledged} to {seq}");
            acknowledged = seq;
        }
        opened |= line.starts_with("open ");
    }
    if let Some(killer) = killer {
        killer.join().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(signal, Some(Signal::SIGKILL as i32), "the child failed instead of dying ({death}): {stderr}");
    (acknowledged, opened)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_torn() {
    let kills: u32 = std::env::var(KILLS).map_or(200, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // Printed on failure with the captured output: the kills replay with it, as far as the machine's timing allows.
    let seed = 0x5eed;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut expected = Rows::new();
    let mut reached = 0;
    let (mut appended, mut beyond) = (0_u64, 0_u32);
    let mut at_points = [0_u32; Point::ALL.len()];
    for n in 0..kills {
        // Every other child dies at a named point, in turn; the rest wherever the signal finds them.
        let point = (n % 2 == 1).then(|| (n / 2) as usize % Point::ALL.len());
        let death = match point {
            None => "-".to_owned(),
            Some(index) => {
                let point = Point::ALL[index];
                let checkpoint = matches!(point, Point::BeforeCheckpoint | Point::AfterCheckpoint);
                let nth = if checkpoint { 1 } else { random.random_range(1..60) };
                // A checkpoint lasts a few hundred microseconds: a delay of up to 2 ms falls into it and after it.
                let during = point == Point::BeforeCheckpoint && random.random_bool(0.8);
                let micros = if during { random.random_range(1..2000) } else { 0 };
                at_points[index] += 1;
                format!("{point:?}:{nth}:{micros}")
            }
        };
        let after = Duration::from_micros(random.random_range(1_000..80_000));
        let (acknowledged, opened) = run_and_kill(&data, &death, after);
        assert!(opened || point.is_none(), "kill {n} ({death}): the child died before it opened the store");

        let mut store =
            SqliteBackend::open(&data).unwrap_or_else(|error| panic!("kill {n} ({death}): {error:?}"));
        let mut rows = Rows::new();
        let last = store
            .load(&mut |key, value| {
                assert!(rows.insert(key.to_owned(), value.to_vec()).is_none(), "{key} is there twice");
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(
            last >= acknowledged.max(reached),
            "kill {n} ({death}): {acknowledged} acknowledged, {last} kept"
        );
        beyond += u32::from(last > acknowledged.max(reached));
        for seq in reached + 1..=last {
            apply(&mut expected, batch(seq));
        }
        assert!(rows == expected, "kill {n} ({death}): the rows are not those after batch {last}");
        appended += last - reached;
        reached = last;
    }
    println!(
        "{kills} kills, {appended} batches; {beyond} times a batch had reached the disk and its acknowledgement had \
         not reached us; kills at {:?}: {at_points:?}",
        Point::ALL
    );
    assert!(kills < 100 || appended > u64::from(kills), "the children did no work worth killing");
}
