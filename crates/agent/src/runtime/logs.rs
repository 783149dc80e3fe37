//! A container's output on disk: one line of the log for each line that it wrote, as the container runtime interface of
//! Kubernetes has it: `TIME stdout|stderr F|P TEXT`, P for a part of a line too long for one. The time is in seconds
//! since the epoch with nine decimals. Files are rotated by size: `app.log`, `app.log.1` (older), `app.log.2`, …
//!
//! A file begins with `@BASE`, the number of bytes in all files before it, so that a place in a log has one number
//! however often it is rotated.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of one line; longer ones are written in parts.
pub const LINE_MAX: usize = 16 << 10;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// As logs name it.
    pub fn from_name(name: &str) -> Option<Stream> {
        [Stream::Stdout, Stream::Stderr].into_iter().find(|stream| stream.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// Writes one container's log. The shim's part.
pub struct Writer {
    file: super::LogFile,
    out: File,
    /// Bytes in all files before this one.
    base: u64,
    written: u64,
    /// The beginning of a line whose end has not come, by stream.
    pending: [Vec<u8>; 2],
    buffer: Vec<u8>,
}

impl Writer {
    pub fn open(file: super::LogFile) -> io::Result<Writer> {
        if file.max_files == 0 {
            let out = File::options().write(true).open("/dev/null")?;
            return Ok(Writer {
                file,
                out,
                base: 0,
                written: 0,
                pending: Default::default(),
                buffer: Vec::new(),
            });
        }
        let mut out = open(&file.path)?;
        let mut written = out.metadata()?.len();
        if written == 0 {
            written = begin(&mut out, 0)?;
        }
        let base = base_of(&File::open(&file.path)?)?.unwrap_or(0);
        Ok(Writer { file, out, base, written, pending: Default::default(), buffer: Vec::new() })
    }

    /// Takes output as it comes; whole lines go to the file.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: (u64, u32)) -> io::Result<()> {
        let slot = stream as usize;
        let mut pending = std::mem::take(&mut self.pending[slot]);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            pending.extend_from_slice(&bytes[..end]);
            self.lines(stream, &pending, true, now);
            pending.clear();
            bytes = &bytes[end + 1..];
        }
        pending.extend_from_slice(bytes);
        if pending.len() >= LINE_MAX {
            self.lines(stream, &pending, false, now);
            pending.clear();
        }
        self.pending[slot] = pending;
        self.flush()
    }

    /// Writes what never got its line's end.
    pub fn finish(&mut self, now: (u64, u32)) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() {
                self.lines(stream, &pending, true, now);
            }
        }
        self.flush()
    }

    fn lines(&mut self, stream: Stream, line: &[u8], whole: bool, (seconds, nanos): (u64, u32)) {
        let parts = line.len().div_ceil(LINE_MAX).max(1);
        for part in 0..parts {
            let text = &line[part * LINE_MAX..line.len().min((part + 1) * LINE_MAX)];
            let tag = if whole && part + 1 == parts { "F" } else { "P" };
            // Writing to memory cannot fail.
            let _ = write!(self.buffer, "{seconds}.{nanos:09} {} {tag} ", stream.name());
            self.buffer.extend_from_slice(text);
            self.buffer.push(b'\n');
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let rotates = self.file.max_files > 0 && self.written > BASE_LINE_MAX;
        if rotates && self.written + self.buffer.len() as u64 > self.file.max_bytes {
            self.rotate()?;
        }
        let result = self.out.write_all(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        result
    }

    fn rotate(&mut self) -> io::Result<()> {
        for index in (1..self.file.max_files).rev() {
            let older = rotated(&self.file.path, index);
            match std::fs::rename(rotated(&self.file.path, index - 1), older) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.file.max_files <= 1 {
            std::fs::remove_file(&self.file.path)?;
        }
        self.base += self.out.metadata()?.len();
        self.out = open(&self.file.path)?;
        self.written = begin(&mut self.out, self.base)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o640).open(path)
}

/// Bytes of the longest line that tells a file's base.
const BASE_LINE_MAX: u64 = 22;

/// Begins a file; returns how much was written. In one piece: who sees any of it sees all of it.
fn begin(out: &mut File, base: u64) -> io::Result<u64> {
    let line = format!("@{base}\n");
    out.write_all(line.as_bytes())?;
    Ok(line.len() as u64)
}

/// The number of bytes in all files of a log before this one. `None` of a file that is not begun yet; one of an older
/// version without a base counts as the first.
///
/// # Errors
/// When it cannot be read.
pub fn base_of(file: &File) -> io::Result<Option<u64>> {
    let mut bytes = [0; BASE_LINE_MAX as usize];
    let length = file.read_at(&mut bytes, 0)?;
    let line = bytes[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let base = line.strip_prefix(b"@").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    Ok((length > 0).then(|| base.unwrap_or(0)))
}

/// The name of the file that was rotated `index` times; 0 is the current one.
pub fn rotated(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

/// A line as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Seconds since the epoch and nanoseconds.
    pub at: (u64, u32),
    pub stream: Stream,
    pub text: String,
}

/// Reads a log from its oldest file on; [`Reader::read`] can be asked again when more was written.
pub struct Reader {
    path: PathBuf,
    /// Rotated files not yet read, the oldest last.
    older: Vec<File>,
    current: Option<BufReader<File>>,
    /// A line of the file whose end is not written yet.
    partial: Vec<u8>,
    /// Parts of a long line.
    parts: String,
}

/// Rotated files that are looked for.
const ROTATIONS_MAX: u32 = 100;

impl Reader {
    pub fn open(path: &Path) -> Reader {
        let mut older = Vec::new();
        for index in 0..ROTATIONS_MAX {
            match File::open(rotated(path, index)) {
                Ok(file) => older.push(file),
                Err(_) => break,
            }
        }
        Reader { path: path.to_owned(), older, current: None, partial: Vec::new(), parts: String::new() }
    }

    /// The next line that is there.
    pub fn read(&mut self) -> io::Result<Option<Line>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.older.pop() {
                    Some(file) => self.current = Some(BufReader::new(file)),
                    None => match File::open(&self.path) {
                        Ok(file) => self.current = Some(BufReader::new(file)),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                        Err(error) => return Err(error),
                    },
                }
                continue;
            };
            if current.read_until(b'\n', &mut self.partial)? == 0 || !self.partial.ends_with(b"\n") {
                if !self.older.is_empty() {
                    self.current = None;
                    continue;
                }
                if self.was_rotated()? {
                    self.current = None;
                    continue;
                }
                return Ok(None);
            }
            let line = std::mem::take(&mut self.partial);
            let text = String::from_utf8_lossy(&line[..line.len() - 1]).into_owned();
            if let Some(line) = self.take(&text) {
                return Ok(Some(line));
            }
        }
    }

    /// Whether the file that is being read is no longer the current one.
    fn was_rotated(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Some(current) = &self.current else { return Ok(false) };
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(metadata.ino() != current.get_ref().metadata()?.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, text: &str) -> Option<Line> {
        let mut fields = text.splitn(4, ' ');
        let (seconds, nanos) = fields.next()?.split_once('.')?;
        let at = (seconds.parse().ok()?, nanos.parse().ok()?);
        let stream = match fields.next()? {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            _ => return None,
        };
        let tag = fields.next()?;
        self.parts.push_str(fields.next()?);
        (tag == "F").then(|| Line { at, stream, text: std::mem::take(&mut self.parts) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::LogFile;

    fn lines(reader: &mut Reader) -> Vec<String> {
        std::iter::from_fn(|| reader.read().unwrap()).map(|line| line.text).collect()
    }

    #[test]
    fn lines_come_back_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let mut writer =
            Writer::open(LogFile { path: path.clone(), max_bytes: 1 << 20, max_files: 3 }).unwrap();
        writer.write(Stream::Stdout, b"one\ntw", (1, 2)).unwrap();
        writer.write(Stream::Stderr, b"err\n", (1, 3)).unwrap();
        let mut reader = Reader::open(&path);
        let first = reader.read().unwrap().unwrap();
        assert_eq!((first.at, first.stream, first.text.as_str()), ((1, 2), Stream::Stdout, "one"));
        assert_eq!(lines(&mut reader), ["err"]);
        let long = "x".repeat(40_000);
        writer.write(Stream::Stdout, format!("o\n{long}\nend").as_bytes(), (2, 0)).unwrap();
        writer.finish((3, 0)).unwrap();
        assert_eq!(lines(&mut reader), ["two", &long, "end"]);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        let mut writer = Writer::open(LogFile { path: path.clone(), max_bytes: 100, max_files: 3 }).unwrap();
        let mut following = Reader::open(&path);
        let mut followed = Vec::new();
        for number in 0..20 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes(), (number, 0)).unwrap();
            followed.extend(lines(&mut following));
        }
        assert_eq!(followed.len(), 20);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        let kept = lines(&mut Reader::open(&path));
        assert_eq!(kept.last().unwrap(), "line 19");
        assert!((4..12).contains(&kept.len()), "{kept:?}");
    }
}
