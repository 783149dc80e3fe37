//! Reads a tar stream entry by entry, for archives that may be hostile: every length is bounded before it is believed.
//!
//! The `tar` crate decodes header fields; its own iterator is not used because it reads long names and pax records of
//! any size into memory.

use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// A long name or link target: PATH_MAX, with the NUL that GNU tar writes.
const MAX_LONG_NAME: u64 = 4097;
/// Pax records of one entry. Extended attributes are at most 64 KiB each on Linux, and images carry one or two.
const MAX_PAX: u64 = 1 << 20;
/// Extended attributes of one entry; ext4 holds about a dozen.
const MAX_XATTRS: usize = 64;
/// Extension headers in a row before the entry that they belong to; real archives have three at most.
const MAX_EXTENSIONS: u32 = 16;

/// What is wrong with a tar stream.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("the archive has an invalid header checksum")]
    Checksum,
    #[error("the archive has an invalid {0} in a header")]
    Field(&'static str),
    #[error("the archive has a longer {0} than allowed")]
    TooLong(&'static str),
    #[error("the archive has an entry of an unsupported type ({0:?})")]
    UnsupportedType(char),
}

/// What an entry makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry's header, extensions applied. Paths are as written: nothing has been checked or cleaned.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number.
    pub device: (u32, u32),
    /// Bytes of content that follow.
    pub size: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar stream being read.
pub struct TarStream<R> {
    reader: R,
    /// Content bytes of the current entry not yet read.
    content: u64,
    /// Bytes between the content's end and the next header.
    padding: u64,
    ended: bool,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> TarStream<R> {
    pub fn new(reader: R) -> TarStream<R> {
        TarStream { reader, content: 0, padding: 0, ended: false }
    }

    /// The next entry, or none at the archive's end. What was left of the entry before is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        for _ in 0..MAX_EXTENSIONS {
            self.skip_rest()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size().map_err(|_| TarError::Field("size"))?;
            match header.as_bytes()[156] {
                b'L' => extensions.path = Some(trim_nul(self.extension(size, MAX_LONG_NAME, "name")?)),
                b'K' => {
                    extensions.link = Some(trim_nul(self.extension(size, MAX_LONG_NAME, "link target")?))
                }
                b'x' => extensions.read_pax(&self.extension(size, MAX_PAX, "pax header")?)?,
                // Defaults for all entries that follow: comments, in every archive seen.
                b'g' => drop(self.extension(size, MAX_PAX, "pax header")?),
                kind => return self.entry(&header, kind, extensions).map(Some),
            }
        }
        Err(TarError::TooLong("run of extension headers"))
    }

    /// The current entry's content.
    pub fn content(&mut self) -> Content<'_, R> {
        Content(self)
    }

    /// Reads what follows the archive's end, so that a digest over the stream is complete. At most `limit` bytes.
    pub fn drain(mut self, limit: u64) -> Result<R, TarError> {
        let drained =
            io::copy(&mut (&mut self.reader).take(limit + 1), &mut io::sink()).map_err(TarError::Read)?;
        if drained > limit {
            return Err(TarError::TooLong("trailer"));
        }
        Ok(self.reader)
    }

    fn entry(&mut self, header: &Header, kind: u8, extensions: Extensions) -> Result<Entry, TarError> {
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = match kind {
            // Old archives mark a directory by its name alone.
            b'0' | b'\0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'\0' | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::UnsupportedType(char::from(other))),
        };
        let size = match kind {
            Kind::File => match extensions.size {
                Some(size) => size,
                None => header.entry_size().map_err(|_| TarError::Field("size"))?,
            },
            // Other kinds have no content, whatever their size field says: Go's and GNU's readers agree.
            _ => 0,
        };
        let id = |extension: Option<u64>, field: io::Result<u64>, name| {
            let id = extension.map_or_else(|| field.map_err(|_| TarError::Field(name)), Ok)?;
            // All ones means "leave it" to chown and is nobody.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(TarError::Field(name))
        };
        let blank = |field| is_blank(header, field).then_some(0);
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            // Before 1970 in base 256, or garbage: not worth refusing an image for.
            None => (header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0), 0),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let number =
                    |n: io::Result<Option<u32>>| n.ok().flatten().ok_or(TarError::Field("device number"));
                (number(header.device_major())?, number(header.device_minor())?)
            }
            _ => (0, 0),
        };
        let entry = Entry {
            link: extensions
                .link
                .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            mode: if is_blank(header, MODE) {
                0
            } else {
                header.mode().map_err(|_| TarError::Field("mode"))? & 0o7777
            },
            uid: id(extensions.uid.or(blank(UID)), header.uid(), "uid")?,
            gid: id(extensions.gid.or(blank(GID)), header.gid(), "gid")?,
            xattrs: extensions.xattrs,
            path,
            kind,
            mtime,
            device,
            size,
        };
        self.set_content(size)?;
        Ok(entry)
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let read = read_full(&mut self.reader, header.as_mut_bytes())?;
        // A missing trailer is accepted, as everywhere; half a header is not.
        if read == 0 || header.as_bytes().iter().all(|b| *b == 0) {
            self.ended = true;
            return Ok(None);
        }
        if read < BLOCK {
            return Err(TarError::Truncated);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(TarError::Checksum);
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64, limit: u64, what: &'static str) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(TarError::TooLong(what));
        }
        self.set_content(size)?;
        let mut bytes = Vec::with_capacity(size as usize);
        self.content().read_to_end(&mut bytes).map_err(from_io)?;
        Ok(bytes)
    }

    fn set_content(&mut self, size: u64) -> Result<(), TarError> {
        // More than any file system holds; keeps the sums below from overflowing.
        if size > i64::MAX as u64 {
            return Err(TarError::Field("size"));
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.content + self.padding;
        let skipped =
            io::copy(&mut (&mut self.reader).take(rest), &mut io::sink()).map_err(TarError::Read)?;
        // The last entry's padding may be missing.
        if skipped < self.content {
            return Err(TarError::Truncated);
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }
}

/// The content of the current entry. A stream that ends before it gives `UnexpectedEof`.
pub struct Content<'a, R>(&'a mut TarStream<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.0.content).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.0.reader.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.content -= n as u64;
        Ok(n)
    }
}

/// Where number fields stand in a header.
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;

/// Sparing writers leave number fields empty; that means zero.
fn is_blank(header: &Header, field: std::ops::Range<usize>) -> bool {
    header.as_bytes()[field].iter().all(|b| matches!(b, 0 | b' '))
}

/// An error met while reading content, told apart from a short archive.
pub(super) fn from_io(error: io::Error) -> TarError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => TarError::Truncated,
        _ => TarError::Read(error),
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, TarError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(from_io(error)),
        }
    }
    Ok(filled)
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

impl Extensions {
    /// Records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), TarError> {
        const BAD: TarError = TarError::Field("pax record");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
            let length: usize = number(&records[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(BAD)?;
            if length < space + 3 || length > records.len() || records[length - 1] != b'\n' {
                return Err(BAD);
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
            self.apply(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let long = |name| {
            if value.len() as u64 > MAX_LONG_NAME { Err(TarError::TooLong(name)) } else { Ok(value.to_vec()) }
        };
        match key {
            b"path" => self.path = Some(long("name")?),
            b"linkpath" => self.link = Some(long("link target")?),
            b"size" => self.size = Some(number(value).ok_or(TarError::Field("size"))?),
            b"uid" => self.uid = Some(number(value).ok_or(TarError::Field("uid"))?),
            b"gid" => self.gid = Some(number(value).ok_or(TarError::Field("gid"))?),
            b"mtime" => self.mtime = pax_time(value),
            // Sparse files in pax form: their content is not the file's bytes.
            _ if key.starts_with(b"GNU.sparse.") => return Err(TarError::UnsupportedType('S')),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if self.xattrs.len() == MAX_XATTRS {
                        return Err(TarError::TooLong("list of extended attributes"));
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `[-]SECONDS[.FRACTION]`.
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // A negative time counts its fraction towards the past; a second's part of 1969 interests nobody.
    Some(if whole < 0 || seconds.starts_with('-') { (whole, 0) } else { (whole, nanos) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn raw(kind: u8, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_path("x").unwrap();
        header.set_size(size);
        header.as_mut_bytes()[156] = kind;
        header.set_cksum();
        header
    }

    fn all(bytes: &[u8]) -> Result<Vec<Entry>, TarError> {
        let mut stream = TarStream::new(bytes);
        std::iter::from_fn(|| stream.next_entry().transpose()).collect()
    }

    #[test]
    fn names_longer_than_a_header_are_read_in_gnu_and_pax_form() {
        let long = format!("{}/file", "d".repeat(200));
        let gnu = archive(|b| {
            let mut header = Header::new_gnu();
            header.set_size(3);
            b.append_data(&mut header, &long, &b"abc"[..]).unwrap();
        });
        assert_eq!(all(&gnu).unwrap()[0].path, long.as_bytes());
        let pax = archive(|b| {
            b.append_pax_extensions([
                ("path", long.as_bytes()),
                ("size", b"3"),
                ("mtime", b"1.5"),
                ("SCHILY.xattr.user.a", b"v\0w"),
            ])
            .unwrap();
            b.append(&raw(b'0', 3), &b"abc"[..]).unwrap();
        });
        let entry = &all(&pax).unwrap()[0];
        assert_eq!((entry.path.as_slice(), entry.size, entry.mtime), (long.as_bytes(), 3, (1, 500_000_000)));
        assert_eq!(entry.xattrs, [(b"user.a".to_vec(), b"v\0w".to_vec())]);
    }

    #[test]
    fn a_huge_extension_is_refused_unread() {
        for kind in [b'L', b'K', b'x', b'g'] {
            let header = raw(kind, 1 << 40);
            assert!(matches!(all(header.as_bytes()), Err(TarError::TooLong(_))));
        }
        let chain: Vec<u8> = (0..100).flat_map(|_| raw(b'x', 0).as_bytes().to_vec()).collect();
        assert!(matches!(all(&chain), Err(TarError::TooLong(_))));
    }

    #[test]
    fn damage_is_noticed() {
        let mut bytes = raw(b'0', 10).as_bytes().to_vec();
        assert!(matches!(all(&bytes[..300]), Err(TarError::Truncated)));
        bytes.extend(b"12345");
        assert!(matches!(all(&bytes), Err(TarError::Truncated)));
        bytes[0] ^= 1;
        assert!(matches!(all(&bytes), Err(TarError::Checksum)));
        assert!(matches!(all(raw(b'S', 0).as_bytes()), Err(TarError::UnsupportedType('S'))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..2048), fix in any::<bool>()) {
            if fix && bytes.len() >= BLOCK {
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bytes[..BLOCK]);
                header.set_cksum();
                bytes[..BLOCK].copy_from_slice(header.as_bytes());
            }
            let _ = all(&bytes);
        }

        #[test]
        fn no_pax_records_panic(records in "([0-9]{1,3} [a-zA-Z.]{0,20}=?[0-9.-]{0,10}\n?){0,4}") {
            let _ = Extensions::default().read_pax(records.as_bytes());
        }
    }
}
