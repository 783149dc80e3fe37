//! Segments: a group's events in the order of their times, in compressed blocks with an index behind them. Written
//! once, read by many, removed as a whole when a merger or time has made them idle.
//!
//! Name and version, then the blocks, the index, and at the end where the index begins. Blocks and index are frames.

use super::codec::{self, Damaged, Decoder, Encoder};
use gantry_control::bulk::logs::{Found, Place, StreamFacts};
use gantry_decide::ids::LogStreamId;
use gantry_decide::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: &[u8; 8] = b"GLOGSEG1";
/// zstd's default: four times smaller than level 1 makes of log lines on bad days, at a third of its speed.
const LEVEL: i32 = 3;
/// Bytes of messages in a block: what a reader unpacks for one event. Larger blocks compress hardly better.
const BLOCK_BYTES: usize = 256 << 10;
/// Where the index begins, and the name again: tells a whole segment from another file.
const TRAILER: usize = 16;

/// One block, as the index tells it.
#[derive(Clone, Debug)]
pub struct Block {
    offset: u64,
    length: usize,
    pub raw: usize,
    pub first: Place,
    pub last: Place,
    /// Indexes of [`Segment::streams`], rising.
    streams: Vec<u32>,
}

/// A segment with its index in memory: some hundred bytes for each quarter of a MiB of messages.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub number: u64,
    pub bytes: u64,
    /// What was known of the streams that had changed when it was written.
    pub facts: BTreeMap<LogStreamId, StreamFacts>,
    /// The number that the next event of the group has at least.
    pub next_event: u64,
    streams: Vec<LogStreamId>,
    pub blocks: Vec<Block>,
    /// Numbers of segments whose events are all in this one: a crash may have left them.
    pub replaces: Vec<u64>,
    doomed: AtomicBool,
}

impl Segment {
    /// The file goes when nobody reads it any more.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    /// Bytes of its events, unpacked.
    pub fn raw_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.raw).sum()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "a segment of log events cannot be removed");
        }
    }
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("not a segment of this version")]
    Unknown,
}

impl Segment {
    /// Writes a segment beside its final name and moves it there when it is on the disk.
    ///
    /// # Errors
    /// When the disk does not take it; nothing of that name is there then.
    pub fn write<'a>(
        path: &Path,
        number: u64,
        events: impl Iterator<Item = &'a Found>,
        facts: BTreeMap<LogStreamId, StreamFacts>,
        next_event: u64,
        replaces: Vec<u64>,
    ) -> Result<Segment, SegmentError> {
        let temporary = path.with_extension("tmp");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(MAGIC)?;
        let mut writer = Writer::new(file, MAGIC.len() as u64);
        for event in events {
            writer.event(event)?;
        }
        writer.end_block()?;
        let Writer { mut file, offset, blocks, streams, .. } = writer;
        let mut tail = Vec::new();
        codec::seal(&encode_index(&blocks, &streams, &facts, next_event, &replaces), LEVEL, &mut tail)?;
        tail.extend_from_slice(&offset.to_le_bytes());
        tail.extend_from_slice(MAGIC);
        file.write_all(&tail)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        sync_directory(path)?;
        let mut by_index: Vec<(LogStreamId, u32)> = streams.into_iter().collect();
        by_index.sort_by_key(|(_, index)| *index);
        let streams = by_index.into_iter().map(|(stream, _)| stream).collect();
        let bytes = offset + tail.len() as u64;
        let (path, doomed) = (path.to_owned(), AtomicBool::new(false));
        Ok(Segment { path, number, bytes, facts, next_event, streams, blocks, replaces, doomed })
    }

    /// Reads a segment's index.
    ///
    /// # Errors
    /// When the file is not a whole segment of this version.
    pub fn open(path: &Path, number: u64) -> Result<Segment, SegmentError> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let tail_at = bytes.checked_sub(TRAILER as u64).ok_or(SegmentError::Unknown)?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, tail_at)?;
        let mut trailer = Decoder(&trailer);
        let index_at = u64::from_le_bytes(trailer.array()?);
        if trailer.array()? != *MAGIC {
            return Err(SegmentError::Unknown);
        }
        let length = tail_at.checked_sub(index_at).and_then(|length| usize::try_from(length).ok());
        let mut index = vec![0; length.ok_or(Damaged)?];
        file.read_exact_at(&mut index, index_at)?;
        let (raw, _) = codec::open(&index)?;
        let mut input = Decoder(&raw);
        let next_event = input.number()?;
        let mut streams = Vec::with_capacity(input.count()?);
        for _ in 0..streams.capacity() {
            streams.push(LogStreamId::from_bytes(input.array()?));
        }
        let mut facts = BTreeMap::new();
        for _ in 0..input.count()? {
            let stream = LogStreamId::from_bytes(input.array()?);
            let known = StreamFacts {
                first_event: input.optional(Decoder::time)?,
                last_event: input.optional(Decoder::time)?,
                last_ingestion: input.optional(Decoder::time)?,
                cursor: input.optional(Decoder::text)?,
            };
            facts.insert(stream, known);
        }
        let mut blocks = Vec::with_capacity(input.count()?);
        for _ in 0..blocks.capacity() {
            let (offset, length, raw) = (input.number()?, input.number()?, input.number()?);
            let first = Place { at: input.time()?, number: input.number()? };
            let last = Place { at: input.time()?, number: input.number()? };
            let mut of_block = Vec::with_capacity(input.count()?);
            for _ in 0..of_block.capacity() {
                of_block.push(u32::try_from(input.number()?).map_err(|_| Damaged)?);
            }
            let length = usize::try_from(length).map_err(|_| Damaged)?;
            let raw = usize::try_from(raw).map_err(|_| Damaged)?;
            blocks.push(Block { offset, length, raw, first, last, streams: of_block });
        }
        let mut replaces = Vec::with_capacity(input.count()?);
        for _ in 0..replaces.capacity() {
            replaces.push(input.number()?);
        }
        let (path, doomed) = (path.to_owned(), AtomicBool::new(false));
        Ok(Segment { path, number, bytes, facts, next_event, streams, blocks, replaces, doomed })
    }

    /// Whether a block has events of streams that are wanted.
    pub fn has_any(&self, block: &Block, wanted: impl Fn(LogStreamId) -> bool) -> bool {
        block.streams.iter().filter_map(|index| self.streams.get(*index as usize)).any(|id| wanted(*id))
    }

    /// The last event's place; none in a segment that only tells about streams.
    pub fn last(&self) -> Option<Place> {
        self.blocks.last().map(|block| block.last)
    }

    /// Unpacks a block and hands its events to `take`, in order. Messages are only copied by who keeps them.
    ///
    /// # Errors
    /// When the block cannot be read.
    pub fn read(&self, block: &Block, mut take: impl FnMut(Row<'_>)) -> Result<(), SegmentError> {
        // Opened each time: what readers hold open is bounded by how many read, not by what there is.
        let file = File::open(&self.path)?;
        let mut bytes = vec![0; block.length];
        file.read_exact_at(&mut bytes, block.offset)?;
        let (raw, _) = codec::open(&bytes)?;
        let mut input = Decoder(&raw);
        let (mut at, mut number, mut ingested) = (0_i64, 0_i64, 0_i64);
        while !input.is_empty() {
            let stream = usize::try_from(input.number()?).ok().and_then(|index| self.streams.get(index));
            at = at.wrapping_add(input.signed()?);
            number = number.wrapping_add(input.signed()?);
            ingested = ingested.wrapping_add(input.signed()?);
            let message = std::str::from_utf8(input.bytes()?).map_err(|_| Damaged)?;
            take(Row { stream: *stream.ok_or(Damaged)?, at, number: number as u64, ingested, message });
        }
        Ok(())
    }
}

/// An event in a block.
pub struct Row<'a> {
    pub stream: LogStreamId,
    /// Milliseconds since the epoch, as `ingested`.
    pub at: i64,
    pub number: u64,
    pub ingested: i64,
    pub message: &'a str,
}

impl Row<'_> {
    pub fn to_found(&self) -> Found {
        Found {
            stream: self.stream,
            at: Timestamp::from_millis(self.at),
            number: self.number,
            ingested_at: Timestamp::from_millis(self.ingested),
            message: self.message.to_owned(),
        }
    }
}

fn encode_index(
    blocks: &[Block],
    streams: &BTreeMap<LogStreamId, u32>,
    facts: &BTreeMap<LogStreamId, StreamFacts>,
    next_event: u64,
    replaces: &[u64],
) -> Vec<u8> {
    let mut out = Encoder::default();
    out.number(next_event);
    let mut by_index: Vec<_> = streams.iter().collect();
    by_index.sort_by_key(|(_, index)| **index);
    out.number(by_index.len() as u64);
    for (stream, _) in by_index {
        out.0.extend_from_slice(&stream.to_bytes());
    }
    out.number(facts.len() as u64);
    for (stream, known) in facts {
        out.0.extend_from_slice(&stream.to_bytes());
        for time in [known.first_event, known.last_event, known.last_ingestion] {
            out.optional(time, Encoder::time);
        }
        out.optional(known.cursor.as_deref(), |out, cursor| out.bytes(cursor.as_bytes()));
    }
    out.number(blocks.len() as u64);
    for block in blocks {
        out.number(block.offset);
        out.number(block.length as u64);
        out.number(block.raw as u64);
        for place in [block.first, block.last] {
            out.time(place.at);
            out.number(place.number);
        }
        out.number(block.streams.len() as u64);
        block.streams.iter().for_each(|index| out.number(u64::from(*index)));
    }
    out.number(replaces.len() as u64);
    replaces.iter().for_each(|number| out.number(*number));
    out.0
}

struct Writer {
    file: File,
    offset: u64,
    blocks: Vec<Block>,
    streams: BTreeMap<LogStreamId, u32>,
    raw: Encoder,
    first: Option<Place>,
    last: Place,
    ingested: i64,
    in_block: BTreeSet<u32>,
}

impl Writer {
    fn new(file: File, offset: u64) -> Writer {
        Writer {
            file,
            offset,
            blocks: Vec::new(),
            streams: BTreeMap::new(),
            raw: Encoder::default(),
            first: None,
            last: Place::default(),
            ingested: 0,
            in_block: BTreeSet::new(),
        }
    }

    fn event(&mut self, event: &Found) -> io::Result<()> {
        let next = self.streams.len() as u32;
        let index = *self.streams.entry(event.stream).or_insert(next);
        let (at, ingested) = (event.at.as_millis(), event.ingested_at.as_millis());
        let place = event.before();
        let (last_at, last_number) = match self.first {
            Some(_) => (self.last.at.as_millis(), self.last.number),
            None => (0, 0),
        };
        self.raw.number(u64::from(index));
        self.raw.signed(at.wrapping_sub(last_at));
        self.raw.signed((event.number as i64).wrapping_sub(last_number as i64));
        self.raw.signed(ingested.wrapping_sub(self.ingested));
        self.raw.bytes(event.message.as_bytes());
        self.in_block.insert(index);
        self.first.get_or_insert(place);
        self.last = place;
        self.ingested = ingested;
        if self.raw.0.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let Some(first) = self.first.take() else { return Ok(()) };
        let mut frame = Vec::new();
        codec::seal(&self.raw.0, LEVEL, &mut frame)?;
        self.file.write_all(&frame)?;
        self.blocks.push(Block {
            offset: self.offset,
            length: frame.len(),
            raw: self.raw.0.len(),
            first,
            last: self.last,
            streams: std::mem::take(&mut self.in_block).into_iter().collect(),
        });
        self.offset += frame.len() as u64;
        self.raw.0.clear();
        self.ingested = 0;
        Ok(())
    }
}

pub(super) fn sync_directory(of: &Path) -> io::Result<()> {
    match of.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
