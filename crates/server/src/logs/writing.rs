//! The store's thread: gathers appends, makes them durable together, moves events from memory to segments, and
//! removes what is not kept.

use super::group::{Group, bytes_of};
use super::segment::{Segment, SegmentError, sync_directory};
use super::wal::{self, Wal, WalError};
use super::{Done, Keep, Limits, OpenError, Shared};
use gantry_control::bulk;
use gantry_control::bulk::logs::{Answer, Append, StreamFacts};
use gantry_decide::ids::{LogGroupId, LogStreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Bytes of events written with one sync, beyond the append that reaches it: bounds what an answer waits for.
const COMMIT_BYTES_MAX: usize = 8 << 20;
/// How often what is stored is compared with what is to be kept.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What the thread is asked for.
pub enum Command {
    Append(Append, Done),
    #[cfg_attr(not(test), expect(dead_code, reason = "tests do not wait for the clock"))]
    Sweep(std::sync::mpsc::Sender<()>),
}

/// What the thread owns.
pub struct Writing {
    directory: PathBuf,
    limits: Limits,
    keep: Keep,
    wal: Wal,
    next_wal: u64,
    /// Journals before this one whose events may not be in segments yet.
    older: Vec<PathBuf>,
    older_bytes: u64,
    swept: Instant,
}

/// An append with its answer-to-be.
struct Taken {
    append: Append,
    first: u64,
    done: Done,
}

impl Writing {
    /// Reads what is there.
    pub fn open(
        directory: &Path,
        limits: Limits,
        keep: Keep,
    ) -> Result<(Writing, BTreeMap<LogGroupId, Group>), OpenError> {
        let wals = directory.join("wal");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        for path in [&wals, &directory.join("groups")] {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        }
        let mut groups = load_groups(&directory.join("groups"))?;
        let numbered = numbered_files(&wals, "wal").map_err(failed(&wals))?;
        let in_segments: BTreeMap<LogGroupId, u64> =
            groups.iter().map(|(id, group)| (*id, group.next_event)).collect();
        let (mut older, mut older_bytes) = (Vec::new(), 0);
        let next_wal = numbered.last().map_or(0, |(number, _)| number + 1);
        for (number, path) in numbered {
            let replay = wal::replay(&path, |mut append, mut first| {
                let flushed = in_segments.get(&append.group).copied().unwrap_or(0);
                let known = usize::try_from(flushed.saturating_sub(first)).unwrap_or(usize::MAX);
                let known = known.min(append.events.len());
                append.events.drain(..known);
                first += known as u64;
                groups.entry(append.group).or_default().take(append, first);
            });
            let replay = replay.map_err(failed(&path))?;
            if replay.torn && number + 1 == next_wal {
                tracing::info!(path = %path.display(), "the journal of log events ends in an append that was never acknowledged");
            } else if replay.torn {
                tracing::error!(path = %path.display(), "the journal of log events is damaged; what follows the damage is lost");
            }
            if replay.bytes <= wal::EMPTY_BYTES {
                std::fs::remove_file(&path).map_err(failed(&path))?;
                continue;
            }
            older_bytes += replay.bytes;
            older.push(path);
        }
        let path = wals.join(format!("{next_wal:016}.wal"));
        let wal = Wal::create(path).map_err(failed(&wals))?;
        let writing = Writing {
            directory: directory.to_owned(),
            limits,
            keep,
            wal,
            next_wal: next_wal + 1,
            older,
            older_bytes,
            swept: Instant::now(),
        };
        Ok((writing, groups))
    }

    /// Runs until nobody can ask for anything more.
    pub fn run(mut self, shared: &Shared, arriving: &Receiver<Command>) {
        loop {
            let mut waiting = Vec::new();
            let mut bytes = 0;
            let mut swept = None;
            let rest = SWEEP_EVERY.saturating_sub(self.swept.elapsed());
            let mut next = match arriving.recv_timeout(rest) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(command) = next {
                match command {
                    Command::Append(append, done) => {
                        bytes += bytes_of(&append);
                        waiting.push((append, done));
                    }
                    Command::Sweep(done) => swept = Some(done),
                }
                next = if bytes < COMMIT_BYTES_MAX { arriving.try_recv().ok() } else { None };
            }
            if !waiting.is_empty() {
                self.commit(shared, waiting);
                shared.queued.fetch_sub(bytes, Ordering::Relaxed);
                self.make_room(shared);
            }
            if swept.is_some() || self.swept.elapsed() >= SWEEP_EVERY {
                self.sweep(shared);
            }
            if let Some(done) = swept {
                // Who asked may have given up.
                let _ = done.send(());
            }
        }
    }

    /// Makes appends durable, shows them to readers, and answers.
    fn commit(&mut self, shared: &Shared, waiting: Vec<(Append, Done)>) {
        if shared.broken.load(Ordering::Relaxed) {
            waiting.into_iter().for_each(|(_, done)| done(Err(bulk::Error::Unavailable)));
            return;
        }
        let mut taken: Vec<Taken> = Vec::with_capacity(waiting.len());
        let mut refused: Vec<(Option<String>, Done)> = Vec::new();
        {
            let groups = shared.groups.lock();
            let mut next: BTreeMap<LogGroupId, u64> = BTreeMap::new();
            let mut cursors: BTreeMap<(LogGroupId, LogStreamId), String> = BTreeMap::new();
            for (append, done) in waiting {
                let group = groups.get(&append.group);
                if let Some(cursor) = &append.cursor {
                    let key = (append.group, append.stream);
                    let stored = || group.and_then(|group| group.facts.get(&append.stream)?.cursor.clone());
                    let at = cursors.get(&key).cloned().or_else(stored);
                    if at.is_some() && at != cursor.before {
                        refused.push((at, done));
                        continue;
                    }
                    cursors.insert(key, cursor.after.clone());
                }
                let stored = group.map_or(0, |group| group.next_event);
                let first = next.entry(append.group).or_insert(stored);
                let number = *first;
                *first += append.events.len() as u64;
                taken.push(Taken { append, first: number, done });
            }
        }
        let worth_writing = |taken: &&Taken| !taken.append.events.is_empty() || taken.append.cursor.is_some();
        let result = if taken.iter().any(|taken| worth_writing(&taken)) {
            self.wal.append(taken.iter().filter(worth_writing).map(|taken| (&taken.append, taken.first)))
        } else {
            Ok(())
        };
        let failure = match &result {
            Ok(()) => None,
            Err(error @ WalError::Write(_)) => {
                tracing::warn!(error = error as &dyn std::error::Error, "log events are refused");
                Some(bulk::Error::Busy)
            }
            Err(error @ WalError::Sync(_)) => {
                tracing::error!(error = error as &dyn std::error::Error, "no more log events are taken");
                shared.broken.store(true, Ordering::Relaxed);
                Some(bulk::Error::Unavailable)
            }
        };
        if let Some(failure) = failure {
            taken.into_iter().for_each(|taken| (taken.done)(Err(failure)));
            // What they were refused for may be an append that failed now.
            refused.into_iter().for_each(|(_, done)| done(Err(failure)));
            return;
        }
        let mut answers = Vec::with_capacity(taken.len());
        {
            let mut groups = shared.groups.lock();
            for Taken { append, first, done } in taken {
                shared.taps.show(&append, first);
                groups.entry(append.group).or_default().take(append, first);
                answers.push(done);
            }
        }
        answers.into_iter().for_each(|done| done(Ok(Answer::Appended)));
        refused.into_iter().for_each(|(at, done)| done(Ok(Answer::Elsewhere(at))));
    }

    /// Writes segments where a limit is reached.
    fn make_room(&mut self, shared: &Shared) {
        let (full, total) = {
            let groups = shared.groups.lock();
            let full = groups.iter().filter(|(_, group)| group.memory_bytes >= self.limits.group);
            let full: Vec<LogGroupId> = full.map(|(id, _)| *id).collect();
            (full, groups.values().map(|group| group.memory_bytes).sum::<usize>())
        };
        let result = if total >= self.limits.memory || self.older_bytes + self.wal.bytes >= self.limits.wal {
            self.begin_anew(shared)
        } else {
            full.into_iter().try_for_each(|id| self.write_segment(shared, id))
        };
        if let Err(error) = result {
            // Nothing is lost: it is in the journal, and in memory until there is room. Appends are refused when the
            // journal cannot grow either.
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "log events cannot be moved to segments");
        }
    }

    /// Writes all that is in memory, and begins a new journal.
    fn begin_anew(&mut self, shared: &Shared) -> Result<(), SegmentError> {
        let ids: Vec<LogGroupId> = {
            let groups = shared.groups.lock();
            groups.iter().filter(|(_, group)| !group.changed.is_empty()).map(|(id, _)| *id).collect()
        };
        ids.into_iter().try_for_each(|id| self.write_segment(shared, id))?;
        let path = self.directory.join("wal").join(format!("{:016}.wal", self.next_wal));
        let before = std::mem::replace(&mut self.wal, Wal::create(path)?);
        self.next_wal += 1;
        self.older.push(before.path);
        for path in self.older.drain(..) {
            // One that stays is replayed in vain.
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "a journal of log events cannot be removed");
            }
        }
        self.older_bytes = 0;
        Ok(())
    }

    fn write_segment(&self, shared: &Shared, id: LogGroupId) -> Result<(), SegmentError> {
        // Only this thread changes groups: what is taken here is still right at the end.
        let (mut events, merged, facts, next_event, number) = {
            let groups = shared.groups.lock();
            let Some(group) = groups.get(&id) else { return Ok(()) };
            let merged = group.to_merge(self.limits.group);
            let told = merged.iter().flat_map(|segment| segment.facts.keys());
            let facts: BTreeMap<LogStreamId, StreamFacts> = group
                .changed
                .iter()
                .chain(told)
                .filter_map(|id| group.facts.get(id).map(|facts| (*id, facts.clone())))
                .collect();
            (group.memory.clone(), merged, facts, group.next_event, group.next_segment)
        };
        let mut replaces = Vec::new();
        for segment in &merged {
            for block in &segment.blocks {
                segment.read(block, |row| {
                    let found = row.to_found();
                    events.insert(found.before(), Arc::new(found));
                })?;
            }
            replaces.push(segment.number);
            // What that one replaced may still be read by somebody, and so be there after a crash.
            replaces.extend(&segment.replaces);
        }
        replaces.sort_unstable();
        replaces.dedup();
        let directory = group_directory(&self.directory.join("groups"), id);
        if !directory.exists() {
            DirBuilder::new().mode(0o700).create(&directory)?;
            sync_directory(&directory)?;
        }
        let path = directory.join(format!("{number:016}.seg"));
        let events = events.values().map(AsRef::as_ref);
        let segment = Segment::write(&path, number, events, facts, next_event, replaces)?;
        if let Some(group) = shared.groups.lock().get_mut(&id) {
            group.written(segment);
        }
        Ok(())
    }

    /// Removes groups that are no more, and segments whose events have all expired.
    fn sweep(&mut self, shared: &Shared) {
        self.swept = Instant::now();
        // In this order: a group that has events here was made before they came, so it is among the kept ones, or gone.
        let known: Vec<LogGroupId> = shared.groups.lock().keys().copied().collect();
        let kept = (self.keep)();
        for id in known {
            match kept.get(&id) {
                None => {
                    shared.groups.lock().remove(&id);
                    let directory = group_directory(&self.directory.join("groups"), id);
                    remove(std::fs::remove_dir_all(&directory), &directory);
                }
                Some(from) => {
                    if let Some(group) = shared.groups.lock().get_mut(&id) {
                        group.expire(*from);
                    }
                }
            }
        }
    }
}

fn remove(result: io::Result<()>, path: &Path) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "expired log events cannot be removed");
        }
        _ => {}
    }
}

fn group_directory(groups: &Path, id: LogGroupId) -> PathBuf {
    groups.join(id.to_string())
}

/// Files `NUMBER.EXTENSION`, by number. What a crash left half-written beside them is removed.
fn numbered_files(directory: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Some((stem, ending)) = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.')) else {
            continue;
        };
        if ending == "tmp" {
            std::fs::remove_file(&path)?;
        } else if let (true, Ok(number)) = (ending == extension, stem.parse()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

fn load_groups(directory: &Path) -> Result<BTreeMap<LogGroupId, Group>, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let mut groups = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let entry = entry.map_err(failed(directory))?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<LogGroupId>() else { continue };
        let path = entry.path();
        let mut group = Group::default();
        let mut segments = Vec::new();
        for (number, path) in numbered_files(&path, "seg").map_err(failed(&path))? {
            match Segment::open(&path, number) {
                Ok(segment) => segments.push(segment),
                Err(SegmentError::Io(source)) => return Err(failed(&path)(source)),
                Err(error) => {
                    // The rest of the logs is worth more than a refusal to start. The file stays where it is.
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, path = %path.display(), "a segment of log events is damaged and left out");
                    group.next_segment = group.next_segment.max(number + 1);
                }
            }
        }
        let replaced: BTreeSet<u64> =
            segments.iter().flat_map(|segment| segment.replaces.iter().copied()).collect();
        for segment in segments {
            if replaced.contains(&segment.number) {
                segment.doom();
            } else {
                group.adopt(segment);
            }
        }
        groups.insert(id, group);
    }
    Ok(groups)
}
