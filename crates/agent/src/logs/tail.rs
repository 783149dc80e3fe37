//! Reads a container's log on, line by line, with positions that stay the same through rotations and restarts.

use crate::runtime::logs::{LINE_MAX, Stream, base_of, rotated};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Rotated files that are looked for.
const ROTATIONS_MAX: u32 = 100;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// The longest line of a log file: a part of what a program wrote, and what stands before it.
const ENTRY_MAX: usize = LINE_MAX + 64;

/// A line of the log: what a program wrote in one, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub stream: Stream,
    /// Whether the program's line ends here.
    pub ends: bool,
    pub text: String,
    /// Where the entry begins and ends in the whole of the log, in bytes.
    pub from: u64,
    pub to: u64,
}

/// A place in a log that is being written.
pub struct Tail {
    path: PathBuf,
    /// Of the next entry, in the whole of the log.
    position: u64,
    current: Option<Current>,
}

struct Current {
    file: File,
    base: u64,
}

/// What came of reading on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub entries: Vec<Entry>,
    /// Bytes that were rotated away before they were read.
    pub lost: u64,
}

impl Tail {
    pub fn new(path: &Path, position: u64) -> Tail {
        Tail { path: path.to_owned(), position, current: None }
    }

    /// Of the next entry, in the whole of the log.
    #[cfg(test)]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether there may be something to read. Two calls of stat(2) when there is not.
    pub fn has_more(&self) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(true) };
        let metadata = current.file.metadata()?;
        if current.base + metadata.len() > self.position {
            return Ok(true);
        }
        match std::fs::metadata(&self.path) {
            Ok(newest) => Ok((newest.dev(), newest.ino()) != (metadata.dev(), metadata.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next entries, some hundred KiB at most; none at the end of what is written.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn read(&mut self) -> io::Result<Read> {
        let mut read = Read::default();
        loop {
            let Some(current) = &self.current else {
                match self.find()? {
                    None => return Ok(read),
                    Some(found) => {
                        read.lost += found.base.saturating_sub(self.position);
                        self.position = self.position.max(found.base);
                        self.current = Some(found);
                    }
                }
                continue;
            };
            // The length first: what is found to be the end later was then all.
            let length = current.file.metadata()?.len();
            let offset = self.position - current.base;
            let mut bytes =
                vec![0; CHUNK.min(usize::try_from(length.saturating_sub(offset)).unwrap_or(CHUNK))];
            current.file.read_exact_at(&mut bytes, offset)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if whole == 0 {
                if bytes.len() > ENTRY_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "not a container's log"));
                }
                if !self.is_rotated(length)? {
                    return Ok(read);
                }
                // A rotated file ends with a whole line, unless its writer was killed within one.
                self.position += bytes.len() as u64;
                self.current = None;
                continue;
            }
            for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
                let from = self.position;
                self.position += line.len() as u64;
                read.entries.extend(entry(line, from, self.position));
            }
            if !read.entries.is_empty() {
                return Ok(read);
            }
        }
    }

    /// Whether another file follows the current one, whose length is given.
    fn is_rotated(&self, length: u64) -> io::Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let metadata = current.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(newest) => {
                let other = (newest.dev(), newest.ino()) != (metadata.dev(), metadata.ino());
                Ok(other && metadata.len() == length)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file that holds the position, or else the first one behind it.
    fn find(&self) -> io::Result<Option<Current>> {
        let mut best: Option<Current> = None;
        // From the newest on: a rotation meanwhile shows a file twice, and hides none but the new one.
        for index in 0..ROTATIONS_MAX {
            let file = match File::open(rotated(&self.path, index)) {
                Ok(file) => file,
                // Between two renames the newest is not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound && index == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            let Some(base) = base_of(&file)? else { continue };
            let end = base + file.metadata()?.len();
            if end > self.position || (index == 0 && end == self.position) {
                best = Some(Current { file, base });
            }
            if base <= self.position {
                break;
            }
        }
        Ok(best)
    }
}

fn entry(line: &[u8], from: u64, to: u64) -> Option<Entry> {
    let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
    let mut fields = text.splitn(4, ' ');
    let (seconds, nanos) = fields.next()?.split_once('.')?;
    let (seconds, nanos): (i64, i64) = (seconds.parse().ok()?, nanos.parse().ok()?);
    let at = seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)?;
    let stream = Stream::from_name(fields.next()?)?;
    let ends = fields.next()? == "F";
    Some(Entry { at, stream, ends, text: fields.next()?.to_owned(), from, to })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::LogFile;
    use crate::runtime::logs::Writer;
    use proptest::prelude::*;

    fn writer(path: &Path, max_bytes: u64, max_files: u32) -> Writer {
        Writer::open(LogFile { path: path.to_owned(), max_bytes, max_files }).unwrap()
    }

    fn rest(tail: &mut Tail) -> (Vec<String>, u64) {
        let (mut texts, mut lost) = (Vec::new(), 0);
        loop {
            let read = tail.read().unwrap();
            lost += read.lost;
            if read.entries.is_empty() {
                assert!(!tail.has_more().unwrap());
                return (texts, lost);
            }
            texts.extend(read.entries.into_iter().map(|entry| entry.text));
        }
    }

    #[test]
    fn what_is_rotated_away_unread_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        let mut writer = writer(&path, 100, 2);
        let mut tail = Tail::new(&path, 0);
        writer.write(Stream::Stdout, b"first\n", (1, 0)).unwrap();
        assert_eq!(rest(&mut tail), (vec!["first".to_owned()], 0));
        let unread = Tail::new(&path, tail.position());
        for number in 0..20 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), (number, 0)).unwrap();
        }
        let (texts, lost) = rest(&mut { unread });
        assert!(lost > 0);
        assert!(texts.len() < 20 && texts.last().unwrap() == "line 19", "{texts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// However a log is written, rotated, and its reader interrupted: each line comes once, in order.
        #[test]
        fn every_line_comes_once_in_order(
            steps in prop::collection::vec((0..4_u8, 1..120_usize), 1..60),
            max_bytes in 60..400_u64,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("app.log");
            let mut log = writer(&path, max_bytes, 90);
            let (mut written, mut found) = (Vec::new(), Vec::new());
            let mut tail = Tail::new(&path, 0);
            for (what, size) in steps {
                match what {
                    0 => log = writer(&path, max_bytes, 90),
                    1 => tail = Tail::new(&path, tail.position()),
                    2 => found.extend(rest(&mut tail).0),
                    _ => {
                        let text = format!("{} {}", written.len(), "x".repeat(size));
                        log.write(Stream::Stderr, format!("{text}\n").as_bytes(), (1, 0)).unwrap();
                        written.push(text);
                    }
                }
            }
            found.extend(rest(&mut tail).0);
            prop_assert_eq!(found, written);
        }
    }
}
