//! The embedded store: one SQLite file in the data directory, rows of versioned JSON under readable keys.
//!
//! Write-ahead log with `synchronous=FULL`, so a commit is on the disk when it returns. The connection belongs to the
//! one thread that appends. Checkpoints (moving the log into the file) run on a second connection on a thread of
//! their own, so that appends do not wait for them; only when the log has become very long does an append help.
//! `sqlite3 gantry.db 'select key, value from record'` shows everything.

mod log;

use gantry_store::{Backend, BackendError, Batch, Fence, RowSink};
use log::Log;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Raised whenever an older Gantry would misread the tables (not the records, which have versions of their own).
const SCHEMA_VERSION: i64 = 1;

/// The file in the data directory.
pub const FILE_NAME: &str = "gantry.db";
/// Held locked while a process uses the data directory.
pub const LOCK_NAME: &str = "lock";

/// How long to wait for a lock that only the other connection of this process can hold, and only for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Address space for reading the file without copies; larger files are read the ordinary way beyond it.
const MMAP_BYTES: i64 = 1 << 30;

/// Where the store can be observed, for tests that kill the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    BeforeAppend,
    /// All rows written, not committed.
    BeforeCommit,
    /// Durable, the caller not yet told.
    AfterCommit,
    BeforeCheckpoint,
    AfterCheckpoint,
}

impl Point {
    pub const ALL: [Point; 5] = [
        Point::BeforeAppend,
        Point::BeforeCommit,
        Point::AfterCommit,
        Point::BeforeCheckpoint,
        Point::AfterCheckpoint,
    ];
}

/// Called at every [`Point`] that is passed, on the thread that passes it.
pub type Observer = Arc<dyn Fn(Point) + Send + Sync>;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot {doing} {path}", path = path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the data directory {path} is in use by another gantry process", path = path.display())]
    InUse { path: PathBuf },
    #[error(
        "the data in {path} has schema version {found}, but this Gantry knows versions up to {SCHEMA_VERSION}: it was \
         written by a newer Gantry; start that one, or restore a backup made before the upgrade",
        path = path.display()
    )]
    Newer { path: PathBuf, found: i64 },
    #[error("{path} is not a store of Gantry, or is damaged", path = path.display())]
    Sqlite {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}

/// An open store. Dropping it finishes a running checkpoint and unlocks the directory.
pub struct SqliteBackend {
    /// Before the connection: its thread ends first.
    log: Log,
    connection: Connection,
    last_seq: u64,
    newest_fence: Fence,
    observer: Option<Observer>,
    broken: bool,
    /// Held for the life of the store; the lock goes with the handle.
    _lock: File,
}

impl SqliteBackend {
    /// Opens the store in `directory`, making both where missing (modes 0700 and 0600).
    ///
    /// # Errors
    /// When another process uses the directory, the data is of a newer Gantry, or the file system refuses.
    pub fn open(directory: &Path) -> Result<SqliteBackend, OpenError> {
        SqliteBackend::open_observed(directory, None)
    }

    /// As [`SqliteBackend::open`], calling `observer` at every point that is passed.
    ///
    /// # Errors
    /// As [`SqliteBackend::open`].
    pub fn open_observed(directory: &Path, observer: Option<Observer>) -> Result<SqliteBackend, OpenError> {
        let lock = lock_directory(directory)?;
        let path = directory.join(FILE_NAME);
        // SQLite gives the log and its index the mode of the file, so that is made first.
        private_file(&path)?;
        let failed = |source| OpenError::Sqlite { path: path.clone(), source };
        let mut connection = connect(&path).map_err(failed)?;
        let (schema, last_seq, fence) = prepare(&mut connection).map_err(failed)?;
        if schema > SCHEMA_VERSION {
            return Err(OpenError::Newer { path, found: schema });
        }
        let log_path = directory.join(format!("{FILE_NAME}-wal"));
        let second = connect(&path).map_err(failed)?;
        let log =
            Log::start(&mut connection, second, log_path, observer.clone()).map_err(|error| match error {
                log::StartError::Hook(source) => failed(source),
                log::StartError::Thread(source) => {
                    OpenError::File { doing: "start the checkpoint thread for", path: path.clone(), source }
                }
            })?;
        Ok(SqliteBackend {
            log,
            connection,
            last_seq: last_seq.cast_unsigned(),
            newest_fence: Fence(fence.cast_unsigned()),
            observer,
            broken: false,
            _lock: lock,
        })
    }

    /// Number of the last durable batch.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    fn pass(&self, point: Point) {
        if let Some(observer) = &self.observer {
            observer(point);
        }
    }

    fn write(&mut self, fence: Fence, batches: &[Batch], last: u64) -> rusqlite::Result<()> {
        let _appending = self.log.append();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "insert into record (key, value) values (?1, ?2) \
                 on conflict (key) do update set value = excluded.value",
            )?;
            let mut delete = transaction.prepare_cached("delete from record where key = ?1")?;
            for write in batches.iter().flat_map(|batch| &batch.writes) {
                match &write.value {
                    // Stored as text, so that the store's own tools show it; JSON is always UTF-8.
                    Some(value) => put.execute((&write.key, ToSqlOutput::Borrowed(ValueRef::Text(value))))?,
                    None => delete.execute((&write.key,))?,
                };
            }
            let mut meta = transaction.prepare_cached("update meta set value = ?2 where name = ?1")?;
            meta.execute(("last_seq", last.cast_signed()))?;
            if fence != self.newest_fence {
                meta.execute(("fence", fence.0.cast_signed()))?;
            }
        }
        if let Some(observer) = &self.observer {
            observer(Point::BeforeCommit);
        }
        transaction.commit()
    }
}

impl Backend for SqliteBackend {
    fn load(&mut self, sink: &mut RowSink<'_>) -> Result<u64, BackendError> {
        let failed =
            |source: rusqlite::Error| BackendError::Failed { doing: "loading", source: Box::new(source) };
        // As they lie in the file, one page after the other.
        let mut select = self.connection.prepare("select key, value from record").map_err(failed)?;
        let mut rows = select.query(()).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let key = row.get_ref(0).map_err(failed)?.as_str().map_err(|e| failed(e.into()))?;
            let value = row.get_ref(1).map_err(failed)?.as_bytes().map_err(|e| failed(e.into()))?;
            if sink(key, value).is_break() {
                break;
            }
        }
        Ok(self.last_seq)
    }

    fn append(&mut self, fence: Fence, batches: &[Batch]) -> Result<(), BackendError> {
        if self.broken {
            return Err(BackendError::Broken);
        }
        if fence < self.newest_fence {
            return Err(BackendError::Fenced { ours: fence.0, newest: self.newest_fence.0 });
        }
        let mut last = self.last_seq;
        for batch in batches {
            if batch.seq != last + 1 {
                return Err(BackendError::Sequence { found: batch.seq, last });
            }
            last = batch.seq;
        }
        self.pass(Point::BeforeAppend);
        match self.write(fence, batches, last) {
            Ok(()) => {
                self.last_seq = last;
                self.newest_fence = fence;
                self.pass(Point::AfterCommit);
                self.log.tend(&self.connection);
                Ok(())
            }
            Err(source) if is_busy(&source) => {
                Err(BackendError::Busy { doing: "waiting for the write lock", source: Box::new(source) })
            }
            Err(source) => {
                // After a failed sync nobody knows what the disk holds: only reading it anew tells.
                self.broken = true;
                Err(BackendError::Failed { doing: "appending", source: Box::new(source) })
            }
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let file_error = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { doing, path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(file_error("create the data directory", directory))?;
    let path = directory.join(LOCK_NAME);
    let lock = private_file(&path)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(OpenError::File { doing: "lock", path, source }),
    }
}

/// Opens or makes a file that only its owner may read.
fn private_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File { doing: "open", path: path.to_owned(), source })
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

/// Makes the tables of an empty file, and reads schema version, last batch and fence.
fn prepare(connection: &mut Connection) -> rusqlite::Result<(i64, i64, i64)> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let exists = transaction
        .query_row("select 1 from sqlite_schema where name = 'meta'", (), |_| Ok(()))
        .optional()?
        .is_some();
    if !exists {
        // A rowid table with an index on the key: rows of a kilobyte and more do not belong into interior pages,
        // where a table without rowid would keep them.
        transaction.execute_batch(
            "create table meta (name text primary key, value integer not null) without rowid, strict;
             create table record (id integer primary key, key text not null unique, value text not null) strict;",
        )?;
        transaction.execute(
            "insert into meta (name, value) values ('schema', ?1), ('last_seq', 0), ('fence', 0)",
            (SCHEMA_VERSION,),
        )?;
    }
    let read =
        |name: &str| transaction.query_row("select value from meta where name = ?1", (name,), |r| r.get(0));
    let found = (read("schema")?, read("last_seq")?, read("fence")?);
    transaction.commit()?;
    Ok(found)
}

#[cfg(test)]
mod tests;
