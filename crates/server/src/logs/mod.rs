//! The store of log events: bulk data beside the state, on the local disk.
//!
//! Appends go to a journal shared by all groups, and are answered when it is synced; whatever arrives during a sync
//! is written together. Events stay in memory until their group has enough for a segment: sorted, compressed, with an
//! index by time and stream. When memory or the journal is full, all groups are written and the journal begins anew.
//! After a crash it is replayed. A group is a directory; its deletion and the end of an event's retention are found
//! out by comparing with the state now and then, so nothing is lost when nobody tells.
//!
//! `DIR/wal/NUMBER.wal`, `DIR/groups/GROUP/NUMBER.seg`.

mod codec;
mod group;
mod scan;
mod segment;
mod tap;
#[cfg(test)]
mod tests;
mod wal;
mod writing;

use gantry_control::bulk::logs::{Answer, Append, Page, Request, Scan};
use gantry_control::bulk::{self};
use gantry_decide::ids::LogGroupId;
use gantry_decide::time::Timestamp;
use group::Group;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;
pub use tap::Tap;
use tap::Taps;
use writing::{Command, Writing};

/// Appends that may wait for the disk.
const QUEUE_MAX: usize = 4096;
/// Bytes of events that may wait for the disk: some seconds' work of a slow one. Callers beyond are told to slow down.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Called with what came of an append, on the store's thread; must not wait.
pub type Done = Box<dyn FnOnce(Result<Answer, bulk::Error>) + Send>;
/// Tells which groups there are, and from when on their events are kept.
pub type Keep = Box<dyn Fn() -> BTreeMap<LogGroupId, Timestamp> + Send>;

/// When events go from memory to segments. In bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one group in memory: the size of segments, before compression.
    pub group: usize,
    /// Of all groups in memory.
    pub memory: usize,
    /// Of journals: bounds how long a replay takes.
    pub wal: u64,
}

impl Default for Limits {
    /// 48 MiB in memory at most; a replay of some 0.3 s.
    fn default() -> Limits {
        Limits { group: 8 << 20, memory: 48 << 20, wal: 64 << 20 }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the log events in {path} cannot be opened", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the store of log events cannot be started")]
    Thread(#[source] io::Error),
}

/// What the store's thread and its readers share.
struct Shared {
    groups: Mutex<BTreeMap<LogGroupId, Group>>,
    taps: Taps,
    queued: AtomicUsize,
    /// Set when what is on the disk is not known any more.
    broken: AtomicBool,
}

/// The open store. Dropping it makes durable what was handed over, and ends.
pub struct LogStore {
    shared: Arc<Shared>,
    commands: Option<SyncSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl LogStore {
    /// Opens or creates the store in a directory that belongs to this process alone.
    ///
    /// # Errors
    /// When it cannot be read, or was written by another version.
    pub fn open(directory: &Path, limits: Limits, keep: Keep) -> Result<LogStore, OpenError> {
        let (writing, groups) = Writing::open(directory, limits, keep)?;
        let (commands, arriving) = mpsc::sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared {
            groups: Mutex::new(groups),
            taps: Taps::default(),
            queued: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-events".to_owned())
            .spawn(move || writing.run(&of_thread, &arriving))
            .map_err(OpenError::Thread)?;
        Ok(LogStore { shared, commands: Some(commands), thread: Some(thread) })
    }

    /// Appends events; `done` is told when they are on the disk, or why they are not.
    pub fn append(&self, append: Append, done: Done) {
        if self.shared.broken.load(Ordering::Relaxed) {
            return done(Err(bulk::Error::Unavailable));
        }
        let bytes = group::bytes_of(&append);
        let queued = self.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        let Some(commands) = self.commands.as_ref().filter(|_| queued < QUEUE_BYTES_MAX) else {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            return done(Err(bulk::Error::Busy));
        };
        if let Err(error) = commands.try_send(Command::Append(append, done)) {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            match error {
                TrySendError::Full(Command::Append(_, done)) => done(Err(bulk::Error::Busy)),
                TrySendError::Disconnected(Command::Append(_, done)) => done(Err(bulk::Error::Unavailable)),
                TrySendError::Full(_) | TrySendError::Disconnected(_) => {}
            }
        }
    }

    /// Answers what changes nothing. Reads the disk: not for threads that must not wait.
    pub fn read(&self, request: &Request) -> Result<Answer, bulk::Error> {
        let groups = &self.shared.groups;
        match request {
            Request::Scan(scan) => Ok(Answer::Page(self.scan(scan))),
            Request::Describe { group, streams } => {
                let groups = groups.lock();
                let facts = groups.get(group).map(|group| &group.facts);
                let known = |id| facts.and_then(|facts| facts.get(id)).map(|facts| (*id, facts.clone()));
                Ok(Answer::Streams(streams.iter().filter_map(known).collect()))
            }
            Request::Measure(ids) => {
                let groups = groups.lock();
                let size = |id: &LogGroupId| (*id, groups.get(id).map_or(0, Group::stored_bytes));
                Ok(Answer::Sizes(ids.iter().map(size).collect()))
            }
            // Only `append` can answer when the disk has it.
            Request::Append(_) => Err(bulk::Error::Unavailable),
        }
    }

    /// Follows groups from now on.
    ///
    /// # Errors
    /// When too many do.
    pub fn follow(&self, groups: BTreeSet<LogGroupId>) -> Result<Arc<Tap>, bulk::Error> {
        self.shared.taps.open(groups).ok_or(bulk::Error::Busy)
    }

    fn scan(&self, request: &Scan) -> Page {
        let sources = self.shared.groups.lock().get(&request.group).map(Group::sources);
        sources.map_or_else(Page::default, |sources| scan::scan(request, &sources, scan::SCAN_BYTES_MAX))
    }

    /// Compares with the state now, and waits until what is not kept is gone: for tests.
    #[cfg(test)]
    fn sweep(&self) {
        let (done, swept) = mpsc::channel();
        let commands = self.commands.as_ref().expect("the store is open");
        commands.send(Command::Sweep(done)).expect("the thread lives as long as the store");
        swept.recv().expect("a sweep is answered");
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the store of log events panicked");
        }
    }
}
