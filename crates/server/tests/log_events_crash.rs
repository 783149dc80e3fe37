//! Kills a process that appends log events, again and again, and compares what is in the store with what it had
//! acknowledged.
//!
//! The child writes numbered events with cursors, as an agent does, through limits so small that segments and new
//! journals are made, and segments merged, all the time. After each SIGKILL the store must hold every acknowledged event, none twice, and in
//! order; its cursor must stand behind the last one that it holds.
#![allow(clippy::unwrap_used)]

use gantry_control::bulk::logs::{Answer, Append, Direction, Event, Place, Request, Scan};
use gantry_decide::ids::{LogGroupId, LogStreamId};
use gantry_decide::log_cursor::Cursor;
use gantry_decide::time::Timestamp;
use gantry_server::logs::{Limits, LogStore};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How many kills; 40 by default.
const KILLS: &str = "GANTRY_CRASH_KILLS";
/// Set for the child: the directory.
const CHILD_DATA: &str = "GANTRY_LOG_CRASH_CHILD_DATA";
/// Streams, one group each.
const STREAMS: u8 = 3;

fn open(path: &Path) -> LogStore {
    let always = Timestamp::from_millis(i64::MIN);
    let keep = move || (0..STREAMS).map(|number| (LogGroupId::from_bytes([number; 16]), always)).collect();
    LogStore::open(path, Limits { group: 200_000, memory: 30_000, wal: 30_000 }, Box::new(keep)).unwrap()
}

/// How many events a stream holds, by its cursor.
fn position(store: &LogStore, number: u8) -> u64 {
    let (group, stream) = (LogGroupId::from_bytes([number; 16]), LogStreamId::from_bytes([number; 16]));
    match store.read(&Request::Describe { group, streams: vec![stream] }).unwrap() {
        Answer::Streams(facts) => {
            let cursor = facts.get(&stream).and_then(|facts| facts.cursor.clone());
            cursor.map_or(0, |cursor| cursor.parse().unwrap())
        }
        answer => panic!("{answer:?}"),
    }
}

/// The process that dies. Nothing but a marker for the other test when run by itself.
#[test]
fn child() {
    let Ok(data) = std::env::var(CHILD_DATA) else { return };
    let store = open(Path::new(&data));
    let mut positions: Vec<u64> = (0..STREAMS).map(|number| position(&store, number)).collect();
    let mut random = SmallRng::seed_from_u64(positions.iter().sum());
    let (told, answers) = mpsc::channel();
    let mut out = std::io::stdout();
    let began = Instant::now();
    // A child that outlives its parent ends by itself.
    while began.elapsed() < Duration::from_secs(20) {
        for number in 0..STREAMS {
            let at = positions[usize::from(number)];
            let count = random.random_range(1..20);
            let event = |n: u64| Event {
                at: Timestamp::from_millis((at + n) as i64),
                message: format!("{} {}", at + n, "x".repeat(random.random_range(0..200))),
            };
            let append = Append {
                group: LogGroupId::from_bytes([number; 16]),
                stream: LogStreamId::from_bytes([number; 16]),
                ingested_at: Timestamp::EPOCH,
                events: (0..count).map(event).collect(),
                cursor: Some(Cursor {
                    before: (at > 0).then(|| at.to_string()),
                    after: (at + count).to_string(),
                }),
            };
            positions[usize::from(number)] = at + count;
            let told = told.clone();
            let done = move |answer: Result<Answer, _>| {
                assert!(matches!(answer, Ok(Answer::Appended)), "{answer:?}");
                told.send((number, at + count)).unwrap();
            };
            store.append(append, Box::new(done));
        }
        for _ in 0..STREAMS {
            let (number, position) = answers.recv().unwrap();
            out.write_all(format!("\nack {number} {position}\n").as_bytes()).unwrap();
        }
        out.flush().unwrap();
    }
}

fn run_and_kill(data: &Path, after: Duration, acknowledged: &mut [u64]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DATA, data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        kill(pid, Signal::SIGKILL).unwrap();
    });
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.strip_prefix("ack ").unwrap_or_default().split(' ');
        if let (Some(Ok(number)), Some(Ok(position))) =
            (words.next().map(str::parse::<usize>), words.next().map(str::parse))
        {
            acknowledged[number] = position;
        }
    }
    killer.join().unwrap();
    let output = child.wait_with_output().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(signal, Some(Signal::SIGKILL as i32), "the child failed instead of dying: {stderr}");
}

fn numbers(store: &LogStore, number: u8) -> Vec<u64> {
    let mut scan = Scan {
        group: LogGroupId::from_bytes([number; 16]),
        streams: None,
        from: Timestamp::from_millis(i64::MIN),
        until: Timestamp::NEVER,
        place: Place::START,
        direction: Direction::Forward,
        pattern: None,
        events_max: 10_000,
        bytes_max: 1 << 20,
    };
    let mut found = Vec::new();
    loop {
        let Answer::Page(page) = store.read(&Request::Scan(scan.clone())).unwrap() else { panic!() };
        let number = |message: &str| message.split(' ').next().unwrap().parse::<u64>().unwrap();
        found.extend(page.events.iter().map(|event| number(&event.message)));
        match page.next {
            Some(next) => scan.place = next,
            None => return found,
        }
    }
}

#[test]
fn no_acknowledged_event_is_lost_and_none_is_there_twice() {
    let kills: u32 = std::env::var(KILLS).map_or(40, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let mut random = SmallRng::seed_from_u64(0x10c5);
    let mut acknowledged = [0; STREAMS as usize];
    for n in 0..kills {
        let after = Duration::from_micros(random.random_range(5_000..120_000));
        run_and_kill(directory.path(), after, &mut acknowledged);
        let store = open(directory.path());
        for number in 0..STREAMS {
            let found = numbers(&store, number);
            let acknowledged = acknowledged[usize::from(number)];
            assert!(found.len() as u64 >= acknowledged, "kill {n}: {} of {acknowledged} left", found.len());
            assert!(found.iter().copied().eq(0..found.len() as u64), "kill {n}: gaps or repeats");
            assert_eq!(position(&store, number), found.len() as u64, "kill {n}: the cursor is elsewhere");
        }
    }
    println!("{kills} kills, {acknowledged:?} events acknowledged");
    assert!(kills < 40 || acknowledged.iter().sum::<u64>() > 1_000, "the children did no work worth killing");
}
