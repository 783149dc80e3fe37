//! The journal of the store of events: what was appended and is not in segments yet. One file for all groups, so that
//! one sync makes all that came meanwhile durable.

use super::codec::{self, Damaged, Decoder, Encoder};
use gantry_control::bulk::logs::{Append, Event};
use gantry_decide::ids::{LogGroupId, LogStreamId};
use gantry_decide::log_cursor::Cursor;
use gantry_decide::time::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a journal begins with: name and version.
const MAGIC: &[u8; 8] = b"GLOGWAL1";
/// A journal without appends.
pub const EMPTY_BYTES: u64 = MAGIC.len() as u64;
/// For speed: segments are compressed better.
const LEVEL: i32 = 1;

/// The journal that is written to.
pub struct Wal {
    file: File,
    pub path: PathBuf,
    pub bytes: u64,
    buffer: Vec<u8>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// Nothing of it is there: a full disk, for example. Later appends may succeed.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// What is on the disk is not known. Nothing more may be appended.
    #[error("the journal cannot be synced")]
    Sync(#[source] io::Error),
}

impl Wal {
    pub fn create(path: PathBuf) -> io::Result<Wal> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(MAGIC)?;
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Wal { file, path, bytes: MAGIC.len() as u64, buffer: Vec::new() })
    }

    /// Writes appends, each with the number of its first event, and waits until they are on the disk.
    ///
    /// # Errors
    /// See [`WalError`].
    pub fn append<'a>(&mut self, appends: impl Iterator<Item = (&'a Append, u64)>) -> Result<(), WalError> {
        let mut raw = Encoder::default();
        for (append, first) in appends {
            encode(append, first, &mut raw);
        }
        self.buffer.clear();
        codec::seal(&raw.0, LEVEL, &mut self.buffer).map_err(WalError::Write)?;
        if let Err(error) = self.file.write_all(&self.buffer) {
            // Half a frame must not stand before whole ones.
            self.file.set_len(self.bytes).map_err(WalError::Sync)?;
            io::Seek::seek(&mut self.file, io::SeekFrom::Start(self.bytes)).map_err(WalError::Sync)?;
            return Err(WalError::Write(error));
        }
        self.file.sync_data().map_err(WalError::Sync)?;
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }
}

fn encode(append: &Append, first: u64, out: &mut Encoder) {
    out.0.extend_from_slice(&append.group.to_bytes());
    out.0.extend_from_slice(&append.stream.to_bytes());
    out.time(append.ingested_at);
    out.number(first);
    out.optional(append.cursor.as_ref(), |out, cursor| out.bytes(cursor.after.as_bytes()));
    out.number(append.events.len() as u64);
    let mut last = 0;
    for event in &append.events {
        let at = event.at.as_millis();
        out.signed(at.wrapping_sub(last));
        last = at;
        out.bytes(event.message.as_bytes());
    }
}

fn decode(input: &mut Decoder<'_>) -> Result<(Append, u64), Damaged> {
    let group = LogGroupId::from_bytes(input.array()?);
    let stream = LogStreamId::from_bytes(input.array()?);
    let ingested_at = input.time()?;
    let first = input.number()?;
    let after = input.optional(Decoder::text)?;
    let mut events = Vec::with_capacity(input.count()?);
    let mut last = 0_i64;
    for _ in 0..events.capacity() {
        last = last.wrapping_add(input.signed()?);
        events.push(Event { at: Timestamp::from_millis(last), message: input.text()? });
    }
    let cursor = after.map(|after| Cursor { before: None, after });
    Ok((Append { group, stream, ingested_at, events, cursor }, first))
}

/// What a journal holds, as far as it is whole.
pub struct Replay {
    /// Whether something behind the whole part is damaged: torn by a crash at the end of the last journal, a fault of
    /// the disk anywhere else.
    pub torn: bool,
    pub bytes: u64,
}

/// Reads a journal and hands its appends to `take`, each with the number of its first event.
///
/// # Errors
/// When it cannot be read or is of another version.
pub fn replay(path: &Path, mut take: impl FnMut(Append, u64)) -> io::Result<Replay> {
    let bytes = std::fs::read(path)?;
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        // A crash may have come before the name was written.
        if bytes.len() < MAGIC.len() {
            return Ok(Replay { torn: !bytes.is_empty(), bytes: bytes.len() as u64 });
        }
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a journal of this version"));
    };
    let mut torn = false;
    while !rest.is_empty() {
        let Ok((raw, length)) = codec::open(rest) else {
            torn = true;
            break;
        };
        let mut input = Decoder(&raw);
        while !input.is_empty() {
            let (append, first) = decode(&mut input).map_err(io::Error::other)?;
            take(append, first);
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(Replay { torn, bytes: bytes.len() as u64 })
}
