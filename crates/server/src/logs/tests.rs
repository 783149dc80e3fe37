//! The store against a simple one in memory, through restarts, expiry and damage.
#![allow(clippy::unwrap_used)]

use super::group::Group;
use super::{Keep, Limits, LogStore, OpenError, scan};
use gantry_control::bulk::logs::{Answer, Append, Direction, Event, Found, Page, Place, Request, Scan};
use gantry_control::bulk::memory::MemoryLogs;
use gantry_decide::ids::{LogGroupId, LogStreamId};
use gantry_decide::log_cursor::Cursor;
use gantry_decide::log_filter::Pattern;
use gantry_decide::time::Timestamp;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

/// So small that every few appends make a segment, and some more a new journal.
const TINY: Limits = Limits { group: 1_500, memory: 3_000, wal: 6_000 };

/// So little in memory that segments are small, and are merged.
const FLAT: Limits = Limits { group: 20_000, memory: 1_500, wal: 6_000 };

type Kept = Arc<Mutex<BTreeMap<LogGroupId, Timestamp>>>;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn group(number: u8) -> LogGroupId {
    LogGroupId::from_bytes([number; 16])
}

fn stream(number: u8) -> LogStreamId {
    LogStreamId::from_bytes([number; 16])
}

fn keep(kept: &Kept) -> Keep {
    let kept = Arc::clone(kept);
    Box::new(move || kept.lock().clone())
}

/// Keeps groups 0 to 3 for ever.
fn all() -> Kept {
    Arc::new(Mutex::new((0..4).map(|number| (group(number), at(i64::MIN))).collect()))
}

fn open(path: &Path, kept: &Kept) -> LogStore {
    LogStore::open(path, TINY, keep(kept)).unwrap()
}

fn open_flat(path: &Path, kept: &Kept) -> LogStore {
    LogStore::open(path, FLAT, keep(kept)).unwrap()
}

fn append(store: &LogStore, append: Append) -> Answer {
    let (done, answer) = mpsc::channel();
    store.append(append, Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap().unwrap()
}

fn events(group_number: u8, stream_number: u8, events: &[(i64, &str)]) -> Append {
    let events =
        events.iter().map(|(millis, message)| Event { at: at(*millis), message: (*message).to_owned() });
    Append {
        group: group(group_number),
        stream: stream(stream_number),
        ingested_at: at(1_000),
        events: events.collect(),
        cursor: None,
    }
}

fn whole(group_number: u8) -> Scan {
    Scan {
        group: group(group_number),
        streams: None,
        from: at(i64::MIN),
        until: Timestamp::NEVER,
        place: Place::START,
        direction: Direction::Forward,
        pattern: None,
        events_max: 10_000,
        bytes_max: 1 << 20,
    }
}

fn page(store: &LogStore, scan: &Scan) -> Page {
    match store.read(&Request::Scan(scan.clone())).unwrap() {
        Answer::Page(page) => page,
        answer => panic!("{answer:?}"),
    }
}

fn messages(store: &LogStore, scan: &Scan) -> Vec<String> {
    page(store, scan).events.into_iter().map(|event| event.message).collect()
}

/// Page by page from one end to the other. `read` is asked again with the place that it answered.
fn walk(scan: &Scan, mut read: impl FnMut(&Scan) -> Page) -> Vec<Found> {
    let mut scan = scan.clone();
    scan.place = if scan.direction == Direction::Forward { Place::START } else { Place::END };
    let mut pages = Vec::new();
    loop {
        let page = read(&scan);
        assert!(page.events.len() <= scan.events_max);
        pages.push(page.events);
        let Some(next) = page.next else { break };
        assert_ne!(next, scan.place, "a page leads on");
        scan.place = next;
    }
    if scan.direction == Direction::Backward {
        pages.reverse();
    }
    pages.concat()
}

fn files(path: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, ending));
        } else if entry.to_string_lossy().ends_with(ending) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

#[derive(Clone, Debug)]
enum Step {
    Append { group: u8, stream: u8, events: Vec<(i64, String)>, cursor: Option<(u8, u8)> },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let events = prop::collection::vec((0..50_i64, "[a-c]{0,60}"), 0..12);
    let cursor = prop::option::of((0..3_u8, 0..3_u8));
    let append = (0..2_u8, 0..3_u8, events, cursor).prop_map(|(group, stream, mut events, cursor)| {
        events.sort();
        Step::Append { group, stream, events, cursor }
    });
    prop_oneof![12 => append, 1 => Just(Step::Reopen)]
}

fn scan_of_any() -> impl Strategy<Value = Scan> {
    let streams = prop::option::of(prop::collection::btree_set(0..4_u8, 0..3));
    let pattern = prop::option::of(prop_oneof![Just("aab"), Just("?abc ?cba"), Just("%^a.*c$%")]);
    let size = (1..20_usize, prop_oneof![Just(100_usize), Just(1 << 20)]);
    (streams, 0..60_i64, 0..60_i64, any::<bool>(), pattern, size).prop_map(
        |(streams, from, until, forward, pattern, (events_max, bytes_max))| Scan {
            streams: streams.map(|ids| ids.into_iter().map(stream).collect::<BTreeSet<_>>()),
            from: at(from - 5),
            until: at(until),
            direction: if forward { Direction::Forward } else { Direction::Backward },
            pattern: pattern.map(|text| Pattern::parse(text).unwrap()),
            events_max,
            bytes_max,
            ..whole(0)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_appended_is_found_as_in_a_simple_store(
        steps in prop::collection::vec(step(), 1..60),
        scans in prop::collection::vec(scan_of_any(), 1..6),
        flat in any::<bool>(),
    ) {
        let open = if flat { open_flat } else { open };
        let directory = tempfile::tempdir().unwrap();
        let kept = all();
        let mut store = open(directory.path(), &kept);
        let mut simple = MemoryLogs::default();
        for step in steps {
            match step {
                Step::Reopen => {
                    drop(store);
                    store = open(directory.path(), &kept);
                }
                Step::Append { group: of, stream: to, events: given, cursor } => {
                    let given: Vec<(i64, &str)> = given.iter().map(|(at, text)| (*at, text.as_str())).collect();
                    let mut request = events(of, to, &given);
                    request.cursor = cursor.map(|(before, after)| Cursor {
                        before: (before > 0).then(|| before.to_string()),
                        after: after.to_string(),
                    });
                    let right = format!("{:?}", simple.perform(Request::Append(request.clone())));
                    prop_assert_eq!(format!("{:?}", append(&store, request)), right);
                }
            }
        }
        for scan in scans {
            let pages = walk(&scan, |scan| page(&store, scan));
            let mut right = |scan: &Scan| match simple.perform(Request::Scan(scan.clone())) {
                Answer::Page(page) => page,
                answer => panic!("{answer:?}"),
            };
            prop_assert_eq!(&page(&store, &scan).events, &right(&scan).events);
            let right = walk(&scan, right);
            prop_assert_eq!(&pages, &right);
            // One that may hardly work at a time comes to the same.
            let sources = store.shared.groups.lock().get(&scan.group).map(Group::sources);
            if let Some(sources) = sources {
                prop_assert_eq!(&walk(&scan, |scan| scan::scan(scan, &sources, 0)), &right);
            }
        }
        let describe = |group| Request::Describe { group, streams: (0..4).map(stream).collect() };
        for number in 0..2 {
            let right = format!("{:?}", simple.perform(describe(group(number))));
            prop_assert_eq!(format!("{:?}", store.read(&describe(group(number))).unwrap()), right);
        }
    }
}

#[test]
fn events_move_to_segments_and_journals_begin_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), &all());
    let text = "x".repeat(200);
    for number in 0..100 {
        append(&store, events((number % 2) as u8, 0, &[(number, &text)]));
    }
    assert!(files(directory.path(), ".seg").len() > 4);
    let journals = files(directory.path(), ".wal");
    assert_eq!(journals.len(), 1, "{journals:?}");
    assert!(!journals[0].ends_with("0000000000000000.wal"));
    assert_eq!(messages(&store, &whole(0)).len(), 50);
}

#[test]
fn small_segments_become_one() {
    let directory = tempfile::tempdir().unwrap();
    let kept = all();
    let store = open_flat(directory.path(), &kept);
    let text = "x".repeat(100);
    let (mut most, mut merged) = (0, 0);
    let mut before = Vec::new();
    for number in 0..400 {
        append(&store, events((number % 2) as u8, 0, &[(400 - number, &text)]));
        let now = files(directory.path(), ".seg");
        most = most.max(now.len());
        if now.len() < before.len() {
            merged += 1;
        }
        if number == 150 {
            // As after a crash before what was merged is removed.
            for path in &now {
                std::fs::copy(path, path.with_extension("kept")).unwrap();
            }
        }
        before = now;
    }
    assert!(merged > 2 && most < 30, "{merged} mergers, {most} segments");
    let all = messages(&store, &whole(0)).len() + messages(&store, &whole(1)).len();
    assert_eq!(all, 400);
    drop(store);
    for path in files(directory.path(), ".kept") {
        let original = path.with_extension("seg");
        if original.exists() {
            std::fs::remove_file(path).unwrap()
        } else {
            std::fs::rename(path, original).unwrap()
        }
    }
    let store = open_flat(directory.path(), &kept);
    assert_eq!(
        messages(&store, &whole(0)).len() + messages(&store, &whole(1)).len(),
        400,
        "none is there twice"
    );
}

#[test]
fn groups_that_are_no_more_and_expired_events_go() {
    let directory = tempfile::tempdir().unwrap();
    let kept = all();
    let store = open(directory.path(), &kept);
    let text = "x".repeat(1_500);
    for number in 0..10 {
        append(&store, events(0, 0, &[(number, &text)]));
        append(&store, events(1, 0, &[(number, &text)]));
    }
    append(&store, events(0, 0, &[(3, "in memory, expired"), (9, "in memory, kept")]));
    kept.lock().remove(&group(1));
    kept.lock().insert(group(0), at(6));
    store.sweep();
    assert!(messages(&store, &whole(1)).is_empty());
    assert!(!directory.path().join("groups").join(group(1).to_string()).exists());
    let left = messages(&store, &whole(0));
    assert_eq!(left.len(), 5, "6, 7, 8, 9 and one in memory");
    assert_eq!(left[4], "in memory, kept");
    assert_eq!(files(&directory.path().join("groups"), ".seg").len(), 4);

    // All expire; the numbers of events still go on, so no token comes to mean another place.
    let last = page(&store, &whole(0)).events[4].number;
    kept.lock().insert(group(0), at(100));
    store.sweep();
    drop(store);
    let store = open(directory.path(), &kept);
    append(&store, events(0, 0, &[(200, "new")]));
    let events = page(&store, &whole(0)).events;
    assert!(events.last().unwrap().number > last, "{events:?}");
}

#[test]
fn a_torn_journal_loses_only_what_was_never_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let kept = all();
    let store = open(directory.path(), &kept);
    append(&store, events(0, 0, &[(1, "one")]));
    append(&store, events(0, 0, &[(2, "two")]));
    drop(store);
    let journal = files(directory.path(), ".wal").pop().unwrap();
    let bytes = std::fs::read(&journal).unwrap();
    for length in (0..bytes.len()).rev() {
        std::fs::write(&journal, &bytes[..length]).unwrap();
        let store = open(directory.path(), &kept);
        let found = messages(&store, &whole(0));
        assert!(["one", "two"].starts_with(&found.iter().map(String::as_str).collect::<Vec<_>>()));
        assert!(found.len() < 2, "the last frame is not whole");
        append(&store, events(0, 0, &[(3, "after")]));
        drop(store);
        let store = open(directory.path(), &kept);
        assert_eq!(messages(&store, &whole(0)).last().unwrap(), "after");
        drop(store);
        for later in files(directory.path(), ".wal").into_iter().filter(|path| *path != journal) {
            std::fs::remove_file(later).unwrap();
        }
    }
}

#[test]
fn a_damaged_segment_is_left_out_and_the_rest_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let kept = all();
    let store = open(directory.path(), &kept);
    let text = "x".repeat(1_500);
    append(&store, events(0, 0, &[(1, &text)]));
    append(&store, events(0, 0, &[(2, &text)]));
    drop(store);
    let segments = files(directory.path(), ".seg");
    assert_eq!(segments.len(), 2);
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    // Behind the name is the header of the first block, behind that its content.
    bytes[30] ^= 1;
    std::fs::write(&segments[0], &bytes).unwrap();
    let store = open(directory.path(), &kept);
    assert_eq!(page(&store, &whole(0)).events[0].at, at(2));
    drop(store);
    std::fs::write(&segments[0], &bytes[..20]).unwrap();
    std::fs::write(segments[0].with_extension("tmp"), b"half").unwrap();
    let store = open(directory.path(), &kept);
    assert_eq!(page(&store, &whole(0)).events.len(), 1);
    assert!(files(directory.path(), ".tmp").is_empty());
}

#[test]
fn data_of_another_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &all()));
    std::fs::write(directory.path().join("wal/0000000000000007.wal"), b"GLOGWAL2 and more").unwrap();
    let error = LogStore::open(directory.path(), TINY, keep(&all())).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
