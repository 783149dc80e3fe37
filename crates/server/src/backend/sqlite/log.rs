//! SQLite's write-ahead log, tended in the background: moved into the file before it becomes long, and its own file
//! kept longer than it is filled.
//!
//! A commit that makes the log's file longer has the file system journal the new size too, which takes several times
//! as long as the data. So the file is made longer ahead of the commits, with zeros, which SQLite takes for the end of the log.

use super::{Observer, Point};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread::JoinHandle;

/// Filled bytes of the log after which it is moved. 8 MiB stay in the page cache, and their replay after a crash takes
/// some milliseconds.
const CHECKPOINT_EVERY_BYTES: u64 = 8 << 20;
/// Under load without a pause the background never catches the log's end, so the log is never begun anew. Beyond
/// this size the appending thread moves the rest itself, as soon as that is little.
pub(super) const WAL_BYTES_MAX: u64 = 64 << 20;
/// What counts as little: moved within a few milliseconds.
const REST_BYTES_MAX: u64 = 2 << 20;
/// How far the log's file reaches beyond its end when it was made longer: some hundred commits of a few records.
const AHEAD_BYTES: u64 = 4 << 20;
/// Made longer again when less than this is left: time enough to do it before it is used up.
const AHEAD_BYTES_MIN: u64 = 2 << 20;
/// Zeros written at a time; an append waits for no more than that.
const SLICE_BYTES: usize = 128 << 10;
/// The log's header.
const HEADER_BYTES: u64 = 32;
/// A page and its frame header in the log.
const FRAME_BYTES: u64 = 4096 + 24;

/// The appending thread's side. Dropping it waits for what the background is doing.
pub(super) struct Log {
    /// Taken when the store is dropped, which ends the thread.
    asks: Option<SyncSender<()>>,
    shared: Arc<Shared>,
    /// Where the log ended when it was last asked to be moved.
    asked_at: u64,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Held while SQLite writes to the log, and while zeros are written behind it.
    tail: Mutex<()>,
    /// Where the log ends: bytes filled.
    end: AtomicU64,
    /// Up to where its file is known to reach.
    length: AtomicU64,
    /// Up to where it is moved; 0 once all of it is, so that the next append begins it anew.
    moved: AtomicU64,
    checkpoint_due: AtomicBool,
}

impl Log {
    /// Starts the thread, which uses `connection`, and counts what `appender` writes. `path` is the log's file.
    pub(super) fn start(
        appender: &mut Connection,
        connection: Connection,
        path: PathBuf,
        observer: Option<Observer>,
    ) -> Result<Log, StartError> {
        let shared = Arc::new(Shared::default());
        let counting = Arc::clone(&shared);
        appender.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            let pages = u64::try_from(pages).unwrap_or(0);
            counting.end.store(HEADER_BYTES + pages * FRAME_BYTES, Ordering::Relaxed);
            Ok(())
        }))?;
        // One ask can wait while one is worked on; more say nothing new.
        let (asks, asked) = mpsc::sync_channel(1);
        let tended = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            while asked.recv().is_ok() {
                if let Err(error) = tended.lengthen(&path) {
                    // Commits are slower, and otherwise as they should be.
                    tracing::warn!(%error, "the file of the store's log could not be made longer");
                }
                if tended.checkpoint_due.swap(false, Ordering::Relaxed) {
                    tended.checkpoint(&connection, observer.as_ref());
                }
            }
        })?;
        let log = Log { asks: Some(asks), shared, asked_at: 0, thread: Some(thread) };
        // Ahead of the first commit.
        log.ask();
        Ok(log)
    }

    /// To be held while SQLite appends.
    pub(super) fn append(&self) -> MutexGuard<'_, ()> {
        self.shared.tail.lock()
    }

    /// Bytes of the log that are filled.
    #[cfg(test)]
    pub(super) fn filled(&self) -> u64 {
        self.shared.end.load(Ordering::Relaxed)
    }

    /// Sees to it after an append that the log stays short and its file ahead.
    pub(super) fn tend(&mut self, appender: &Connection) {
        let end = self.shared.end.load(Ordering::Relaxed);
        if end < self.asked_at {
            // Begun anew.
            self.asked_at = 0;
        }
        let rest = end.saturating_sub(self.shared.moved.load(Ordering::Relaxed));
        if end > WAL_BYTES_MAX && (rest < REST_BYTES_MAX || end > 2 * WAL_BYTES_MAX) {
            match checkpoint(appender) {
                Ok(done) => self.shared.note(&done),
                Err(error) => tracing::warn!(%error, "the store's log could not be shortened"),
            }
        }
        let due = end - self.asked_at >= CHECKPOINT_EVERY_BYTES;
        if due {
            self.asked_at = end;
            self.shared.checkpoint_due.store(true, Ordering::Relaxed);
        }
        if due || self.shared.length.load(Ordering::Relaxed) < end + AHEAD_BYTES_MIN {
            self.ask();
        }
    }

    fn ask(&self) {
        if let Some(asks) = &self.asks
            && let Err(TrySendError::Disconnected(())) = asks.try_send(())
        {
            tracing::warn!("the checkpoint thread is gone; the store's log grows until a restart");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the checkpoint thread panicked");
        }
    }
}

/// Why the log is not tended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("SQLite does not tell of its commits")]
    Hook(#[from] rusqlite::Error),
    #[error("no thread can be made")]
    Thread(#[from] io::Error),
}

impl Shared {
    /// Writes zeros behind the log, up to [`AHEAD_BYTES`] beyond its end.
    fn lengthen(&self, path: &PathBuf) -> io::Result<()> {
        if self.length.load(Ordering::Relaxed) >= self.end.load(Ordering::Relaxed) + AHEAD_BYTES_MIN {
            return Ok(());
        }
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            // SQLite makes it with the first commit, after which this is asked for again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let zeros = vec![0; SLICE_BYTES];
        let length = loop {
            let _tail = self.tail.lock();
            let length = file.metadata()?.len();
            if length >= self.end.load(Ordering::Relaxed) + AHEAD_BYTES {
                break length;
            }
            file.write_all_at(&zeros, length)?;
        };
        file.sync_data()?;
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn checkpoint(&self, connection: &Connection, observer: Option<&Observer>) {
        let pass = |point| {
            if let Some(observer) = observer {
                observer(point);
            }
        };
        pass(Point::BeforeCheckpoint);
        match checkpoint(connection) {
            Ok(done) => self.note(&done),
            // Nothing is lost: the log only stays long until the next one.
            Err(error) => tracing::warn!(%error, "a checkpoint of the store failed"),
        }
        pass(Point::AfterCheckpoint);
    }

    fn note(&self, done: &Checkpointed) {
        self.moved.store(if done.complete { 0 } else { done.moved_bytes }, Ordering::Relaxed);
    }
}

/// What a checkpoint achieved.
struct Checkpointed {
    /// How much of the log is in the file.
    moved_bytes: u64,
    /// All of it is: the next append begins the log anew.
    complete: bool,
}

/// Moves as much of the log into the file as goes without waiting for anyone.
fn checkpoint(connection: &Connection) -> rusqlite::Result<Checkpointed> {
    connection.query_row("pragma wal_checkpoint(passive)", (), |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let moved_bytes = HEADER_BYTES + u64::try_from(moved).unwrap_or(0) * FRAME_BYTES;
        Ok(Checkpointed { moved_bytes, complete: busy == 0 && log == moved })
    })
}
