//! The SQLite store on a real disk.
#![allow(clippy::unwrap_used)]

use super::*;
use gantry_store::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

fn batch(seq: u64, writes: &[(&str, Option<&str>)]) -> Batch {
    let write = |(key, value): &(&str, Option<&str>)| Write {
        key: (*key).to_owned(),
        value: value.map(|v| v.as_bytes().into()),
    };
    Batch { seq, writes: writes.iter().map(write).collect() }
}

fn load(store: &mut SqliteBackend) -> (u64, Vec<(String, String)>) {
    let mut rows = Vec::new();
    let seq = store.load(&mut |key, value| {
        rows.push((key.to_owned(), String::from_utf8(value.to_vec()).unwrap()));
        ControlFlow::Continue(())
    });
    rows.sort();
    (seq.unwrap(), rows)
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteBackend::open(directory.path()).unwrap();
    assert_eq!(load(&mut store), (0, vec![]));
    store
        .append(Fence(3), &[batch(1, &[("b", Some("{}")), ("a", Some("{\"v\":1}"))]), batch(2, &[])])
        .unwrap();
    store.append(Fence(3), &[batch(3, &[("b", None), ("c", Some("1")), ("a", Some("\"\u{e9}\""))])]).unwrap();
    drop(store);
    let mut store = SqliteBackend::open(directory.path()).unwrap();
    let rows = vec![("a".to_owned(), "\"\u{e9}\"".to_owned()), ("c".to_owned(), "1".to_owned())];
    assert_eq!(load(&mut store), (3, rows));
    assert!(matches!(
        store.append(Fence(2), &[batch(4, &[])]),
        Err(BackendError::Fenced { ours: 2, newest: 3 })
    ));
    assert!(matches!(
        store.append(Fence(3), &[batch(5, &[])]),
        Err(BackendError::Sequence { found: 5, last: 3 })
    ));
    store.append(Fence(3), &[batch(4, &[("d", Some("2"))])]).unwrap();
}

#[test]
fn one_process_at_a_time_and_nobody_else_reads() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut store = SqliteBackend::open(&data).unwrap();
    store.append(Fence(0), &[batch(1, &[("a", Some("1"))])]).unwrap();
    assert!(matches!(SqliteBackend::open(&data), Err(OpenError::InUse { .. })));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        files += 1;
    }
    assert!(files >= 3, "the file, its log and the lock");
    drop(store);
    SqliteBackend::open(&data).unwrap();
}

#[test]
fn newer_data_and_foreign_files_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteBackend::open(directory.path()).unwrap());
    let path = directory.path().join(FILE_NAME);
    Connection::open(&path).unwrap().execute("update meta set value = 9 where name = 'schema'", ()).unwrap();
    let error = SqliteBackend::open(directory.path()).err().unwrap();
    assert!(error.to_string().contains("schema version 9"), "{error}");

    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join(FILE_NAME), "this is a letter, not a database. ".repeat(100)).unwrap();
    assert!(matches!(SqliteBackend::open(foreign.path()), Err(OpenError::Sqlite { .. })));
    assert!(std::fs::read_to_string(foreign.path().join(FILE_NAME)).unwrap().starts_with("this is a letter"));
}

#[test]
fn the_log_stays_bounded_under_load_without_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteBackend::open(directory.path()).unwrap();
    let value = "x".repeat(256 << 10);
    for seq in 1..=700 {
        let key = format!("k{}", seq % 16);
        store.append(Fence(0), &[batch(seq, &[(&key, Some(&value))])]).unwrap();
    }
    let log = std::fs::metadata(directory.path().join("gantry.db-wal")).unwrap().len();
    assert!(log < log::WAL_BYTES_MAX + (24 << 20), "175 MiB were appended, the log has {} MiB", log >> 20);
}

#[test]
fn the_logs_file_is_ahead_of_what_is_appended_and_its_zeros_mean_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteBackend::open(directory.path()).unwrap();
    let log = directory.path().join("gantry.db-wal");
    let value = "x".repeat(64 << 10);
    for seq in 1..=400 {
        store.append(Fence(0), &[batch(seq, &[(&format!("k{}", seq % 7), Some(&value))])]).unwrap();
        if seq % 40 == 0 {
            let began = Instant::now();
            let filled = || store.log.filled();
            while std::fs::metadata(&log).unwrap().len() < filled() + (1 << 20) {
                assert!(
                    began.elapsed().as_secs() < 20,
                    "{} MiB are filled, and the file is not ahead",
                    filled() >> 20
                );
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    // As a crash leaves them.
    let crashed = tempfile::tempdir().unwrap();
    for name in [FILE_NAME, "gantry.db-wal"] {
        std::fs::copy(directory.path().join(name), crashed.path().join(name)).unwrap();
    }
    let (last, rows) = load(&mut SqliteBackend::open(crashed.path()).unwrap());
    assert_eq!((last, rows.len()), (400, 7));
    assert!(rows.iter().all(|(_, stored)| *stored == value));
}

/// Figures, by hand: `cargo test --release -p gantry-server sqlite::tests::figures -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures; judges nothing but that the rows are all there"]
fn figures() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteBackend::open(directory.path()).unwrap();
    let filler = "y".repeat(1400);
    let value = |n: u64| format!("{{\"v\":1,\"number\":{n},\"filler\":\"{filler}\"}}");
    let mut seq = 0;
    let began = Instant::now();
    for group in 0..100_u64 {
        let writes = (0..1000).map(|n| {
            // Spread like random task ids.
            let id = (group * 1000 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let key = format!("123456789012/eu-north-1/ecs/task/default/{id:016x}0123456789abcdef");
            Write { key, value: Some(value(id).into_bytes().into()) }
        });
        seq += 1;
        store.append(Fence(0), &[Batch { seq, writes: writes.collect() }]).unwrap();
    }
    println!("100,000 records in groups of 1,000: {:?}", began.elapsed());
    for group in [1_u64, 10, 100, 1000] {
        let rounds = (2000 / group).max(50);
        let began = Instant::now();
        for round in 0..rounds {
            let batches: Vec<Batch> = (0..group)
                .map(|n| {
                    seq += 1;
                    let key = format!("123456789012/eu-north-1/ecs/task/other/{:08x}", round * group + n);
                    Batch { seq, writes: vec![Write { key, value: Some(value(n).into_bytes().into()) }] }
                })
                .collect();
            store.append(Fence(0), &batches).unwrap();
        }
        let each = began.elapsed() / u32::try_from(rounds).unwrap();
        println!("groups of {group}: {each:?} each, {:.0} batches/s", group as f64 / each.as_secs_f64());
    }
    drop(store);
    for _ in 0..3 {
        let began = Instant::now();
        let mut store = SqliteBackend::open(directory.path()).unwrap();
        let opened = began.elapsed();
        let (mut rows, mut bytes) = (0_usize, 0_usize);
        store
            .load(&mut |key, value| {
                rows += 1;
                bytes += key.len() + value.len();
                ControlFlow::Continue(())
            })
            .unwrap();
        println!("open {opened:?}, then {rows} rows, {} MiB: {:?}", bytes >> 20, began.elapsed());
        assert!(rows >= 100_000);
    }
}
