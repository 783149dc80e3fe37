//! Unpacks one image layer into a directory that overlayfs can take as a lower directory.
//!
//! Layers come from strangers. Nothing is written outside the directory, every amount is bounded, and what a container
//! has no business with (device nodes, foreign extended attributes) is left out.

use super::confined::{self, Confined, Parts};
use super::digest::{Digest, Hashing};
use super::tarstream::{Entry, Kind, TarError, TarStream, from_io};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Other names with this prefix are bookkeeping of the old aufs driver.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";
/// Long enough to keep system calls rare, short enough for the cache.
const COPY_BUFFER: usize = 128 << 10;

/// How much a layer may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries. The largest public images have some 300,000 files in all.
    pub entries: u64,
    /// Bytes of the unpacked tar stream. Machine-learning images reach 20 GiB in one layer.
    pub bytes: u64,
    /// Bytes of one path: the kernel's PATH_MAX less its NUL.
    pub path: usize,
    /// Whether device nodes are made. They are not by default: every runtime mounts its own `/dev`, and where no device
    /// control is at work a node in an image would open the host's disks.
    pub devices: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 2_000_000, bytes: 64 << 30, path: 4095, devices: false }
    }
}

/// The longest file name on every Linux file system.
const MAX_NAME: usize = 255;

/// What came out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the tar stream.
    pub diff_id: Digest,
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Device nodes that were left out.
    pub devices_skipped: u64,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error(transparent)]
    Archive(#[from] TarError),
    #[error("decompressing the layer failed")]
    Decompress(#[source] std::io::Error),
    #[error("layer entry '{path}' {what}")]
    Hostile { path: String, what: Hostile },
    #[error("layer has more than {0} entries")]
    TooManyEntries(u64),
    #[error("layer unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("failed to make layer entry '{path}'")]
    Write { path: String, source: std::io::Error },
    #[error("layer directory cannot be opened")]
    Root(#[source] std::io::Error),
}

/// What makes an entry unacceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hostile {
    #[error("climbs with '..'")]
    Climbs,
    #[error("has a NUL in its name")]
    Nul,
    #[error("is longer than a path may be")]
    TooLong,
    #[error("is an invalid whiteout")]
    Whiteout,
    #[error("would replace the root directory")]
    Root,
    #[error("links to what is not in the layer")]
    Link,
}

/// Unpacks the tar stream in `reader` (plain, gzip or zstd, told by its first bytes) into the empty directory `root`,
/// and returns the digest of the whole stream. Needs root's rights (ownership, whiteouts).
pub fn unpack(reader: impl Read, root: &Path, limits: &Limits) -> Result<Unpacked, LayerError> {
    let mut reader = BufReader::with_capacity(COPY_BUFFER, reader);
    let magic = reader.fill_buf().map_err(LayerError::Decompress)?;
    let plain: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(reader))
    } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        // The decoder refuses windows above 128 MiB by itself.
        Box::new(zstd::stream::read::Decoder::with_buffer(reader).map_err(LayerError::Decompress)?)
    } else {
        Box::new(reader)
    };
    // One byte more than allowed, to tell "exactly full" from "too large".
    let plain = Hashing::new(plain.take(limits.bytes.saturating_add(1)));
    let stream = TarStream::new(BufReader::with_capacity(COPY_BUFFER, plain));
    let root = Confined::open(root).map_err(|e| LayerError::Root(e.into()))?;
    let mut unpacker = Unpacker {
        stream,
        root,
        limits,
        entries: 0,
        bytes: 0,
        devices_skipped: 0,
        times: Vec::new(),
        buffer: vec![0; COPY_BUFFER],
    };
    unpacker.run()?;
    unpacker.finish()
}

struct Unpacker<'a, R> {
    stream: TarStream<BufReader<Hashing<R>>>,
    root: Confined,
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    devices_skipped: u64,
    /// Directories and the times to give them at the end, when nothing changes them any more.
    times: Vec<(Vec<u8>, Timestamps)>,
    buffer: Vec<u8>,
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}

/// Turns a failed system call into an error about `path`.
fn at(path: &[u8]) -> impl Fn(Errno) -> LayerError + '_ {
    |errno| LayerError::Write { path: show(path), source: errno.into() }
}

impl<R: Read> Unpacker<'_, R> {
    fn run(&mut self) -> Result<(), LayerError> {
        while let Some(entry) = self.stream.next_entry()? {
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(LayerError::TooManyEntries(self.limits.entries));
            }
            self.bytes = self.bytes.saturating_add(entry.size);
            if self.bytes > self.limits.bytes {
                return Err(LayerError::TooLarge(self.limits.bytes));
            }
            self.unpack_entry(&entry)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Unpacked, LayerError> {
        for (path, times) in self.times.drain(..).rev() {
            let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
            // A later entry may have replaced the directory: then there is nothing to date.
            if let Ok(directory) = self.root.existing(&parts) {
                let _ = rustix::fs::utimensat(&directory, ".", &times, AtFlags::empty());
            }
        }
        let hashing = self.stream.drain(self.limits.bytes)?.into_inner();
        if hashing.passed() > self.limits.bytes {
            return Err(LayerError::TooLarge(self.limits.bytes));
        }
        let (_, diff_id) = hashing.finish();
        Ok(Unpacked {
            diff_id,
            entries: self.entries,
            bytes: self.bytes,
            devices_skipped: self.devices_skipped,
        })
    }

    fn unpack_entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let parts = clean(&entry.path, self.limits.path)?;
        let Some((name, parent)) = parts.split_last() else {
            return match entry.kind {
                // "./": the root directory's own attributes.
                Kind::Directory => self.root_attributes(entry),
                _ => Err(LayerError::Hostile { path: show(&entry.path), what: Hostile::Root }),
            };
        };
        if name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(entry, parent, name);
        }
        self.root.directory(parent).map_err(at(&entry.path))?;
        match entry.kind {
            Kind::File => self.file(entry, parent, name),
            Kind::Directory => self.directory(entry, parent, name),
            Kind::Symlink => {
                self.clear(entry, parent, name)?;
                let directory = self.root.directory(parent).map_err(at(&entry.path))?;
                rustix::fs::symlinkat(entry.link.as_slice(), directory, *name).map_err(at(&entry.path))?;
                own_at(directory, name, entry)
            }
            Kind::Hardlink => self.hardlink(entry, parent, name),
            Kind::CharDevice | Kind::BlockDevice if !self.limits.devices => {
                self.devices_skipped += 1;
                Ok(())
            }
            Kind::CharDevice => self.node(entry, parent, name, FileType::CharacterDevice),
            Kind::BlockDevice => self.node(entry, parent, name, FileType::BlockDevice),
            Kind::Fifo => self.node(entry, parent, name, FileType::Fifo),
        }
    }

    fn root_attributes(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let directory = self.root.directory(&[]).map_err(at(&entry.path))?;
        let opened = open_directory(directory, b".").map_err(at(&entry.path))?;
        own(&opened, entry)?;
        self.times.push((Vec::new(), times(entry)));
        Ok(())
    }

    fn file(&mut self, entry: &Entry, parent: &Parts<'_>, name: &[u8]) -> Result<(), LayerError> {
        self.clear(entry, parent, name)?;
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o600))
            .map_err(at(&entry.path))?;
        let mut file = File::from(fd);
        let mut content = self.stream.content();
        loop {
            let n = content.read(&mut self.buffer).map_err(from_io)?;
            if n == 0 {
                break;
            }
            file.write_all(&self.buffer[..n])
                .map_err(|source| LayerError::Write { path: show(&entry.path), source })?;
        }
        own(&file, entry)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(at(&entry.path))
    }

    fn directory(&mut self, entry: &Entry, parent: &Parts<'_>, name: &[u8]) -> Result<(), LayerError> {
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        let existing = confined::kind_of(directory, name).map_err(at(&entry.path))?;
        if !matches!(existing, Some((FileType::Directory, _))) {
            // A whiteout in the same layer hides the lower directory; the new one must go on doing so.
            let hides = is_whiteout(existing);
            self.clear(entry, parent, name)?;
            let directory = self.root.directory(parent).map_err(at(&entry.path))?;
            rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o700)).map_err(at(&entry.path))?;
            if hides {
                let opened = open_directory(directory, name).map_err(at(&entry.path))?;
                make_opaque(&opened).map_err(at(&entry.path))?;
            }
        }
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        let opened = open_directory(directory, name).map_err(at(&entry.path))?;
        own(&opened, entry)?;
        let mut path = parent.join(&b'/');
        path.push(b'/');
        path.extend_from_slice(name);
        self.times.push((path, times(entry)));
        Ok(())
    }

    fn hardlink(&mut self, entry: &Entry, parent: &Parts<'_>, name: &[u8]) -> Result<(), LayerError> {
        let missing = || LayerError::Hostile { path: show(&entry.path), what: Hostile::Link };
        let target = clean(&entry.link, self.limits.path)?;
        let (target_name, target_parent) = target.split_last().ok_or_else(missing)?;
        let from = self.root.existing(target_parent).map_err(|_| missing())?;
        match confined::kind_of(&from, target_name).map_err(at(&entry.path))? {
            Some((FileType::Directory, _)) | None => return Err(missing()),
            Some(_) => {}
        }
        // A link onto itself would remove its own target.
        if same_file(&from, target_name, self.root.directory(parent).map_err(at(&entry.path))?, name) {
            return Ok(());
        }
        self.clear(entry, parent, name)?;
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        // Without SYMLINK_FOLLOW: a link to a symbolic link links the link.
        rustix::fs::linkat(&from, *target_name, directory, name, AtFlags::empty()).map_err(
            |errno| match errno {
                Errno::NOENT => missing(),
                other => at(&entry.path)(other),
            },
        )
    }

    fn node(
        &mut self,
        entry: &Entry,
        parent: &Parts<'_>,
        name: &[u8],
        kind: FileType,
    ) -> Result<(), LayerError> {
        self.clear(entry, parent, name)?;
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device)
            .map_err(at(&entry.path))?;
        own_at(directory, name, entry)?;
        // Just made by us and not a link: following is not possible.
        rustix::fs::chmodat(directory, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(at(&entry.path))
    }

    /// A whiteout speaks about lower layers only: what this layer itself brings under that name stays.
    fn whiteout(&mut self, entry: &Entry, parent: &Parts<'_>, name: &[u8]) -> Result<(), LayerError> {
        if name == OPAQUE_MARKER {
            let directory = self.root.directory(parent).map_err(at(&entry.path))?;
            let opened = open_directory(directory, b".").map_err(at(&entry.path))?;
            return make_opaque(&opened).map_err(at(&entry.path));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerError::Hostile { path: show(&entry.path), what: Hostile::Whiteout });
        }
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        match confined::kind_of(directory, hidden).map_err(at(&entry.path))? {
            None => rustix::fs::mknodat(directory, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(at(&entry.path)),
            Some((FileType::Directory, _)) => {
                let opened = open_directory(directory, hidden).map_err(at(&entry.path))?;
                make_opaque(&opened).map_err(at(&entry.path))
            }
            Some(_) => Ok(()),
        }
    }

    /// Makes room for `name`. What an earlier entry put there is replaced, as `tar` does.
    fn clear(&mut self, entry: &Entry, parent: &Parts<'_>, name: &[u8]) -> Result<(), LayerError> {
        let directory = self.root.directory(parent).map_err(at(&entry.path))?;
        let existing = confined::kind_of(directory, name).map_err(at(&entry.path))?;
        if existing.is_some() {
            confined::remove_tree(directory, name).map_err(at(&entry.path))?;
        }
        // A directory or link that goes, or a link that comes, may be part of the remembered parent's path.
        if matches!(existing, Some((FileType::Directory | FileType::Symlink, _))) {
            self.root.forget();
        }
        Ok(())
    }
}

/// The parts of a path in an archive. A leading slash means the layer's root, as for Docker.
fn clean(path: &[u8], max: usize) -> Result<Vec<&[u8]>, LayerError> {
    let hostile = |what| LayerError::Hostile { path: show(path), what };
    if path.len() > max {
        return Err(hostile(Hostile::TooLong));
    }
    if path.contains(&0) {
        return Err(hostile(Hostile::Nul));
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(hostile(Hostile::Climbs));
    }
    if parts.iter().any(|p| p.len() > MAX_NAME) {
        return Err(hostile(Hostile::TooLong));
    }
    Ok(parts)
}

fn is_whiteout(existing: Option<(FileType, u64)>) -> bool {
    matches!(existing, Some((FileType::CharacterDevice, 0)))
}

fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn make_opaque(directory: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(directory, OVERLAY_OPAQUE, b"y", XattrFlags::empty())
}

fn same_file(a: &OwnedFd, a_name: &[u8], b: &OwnedFd, b_name: &[u8]) -> bool {
    let stat = |at: &OwnedFd, name: &[u8]| rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((stat(a, a_name), stat(b, b_name)), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn own_at(directory: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(at(&entry.path))?;
    rustix::fs::utimensat(directory, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW).map_err(at(&entry.path))
}

/// Owner, then mode (a change of owner clears setuid), then attributes (it clears capabilities too).
fn own(fd: impl AsFd, entry: &Entry) -> Result<(), LayerError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(&fd, Some(uid), Some(gid)).map_err(at(&entry.path))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode)).map_err(at(&entry.path))?;
    for (name, value) in &entry.xattrs {
        // File capabilities and the user's own. Never `trusted.overlay.*`, which would speak to overlayfs.
        let kept = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if !kept || name.contains(&0) || name.len() > MAX_NAME {
            continue;
        }
        match rustix::fs::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
            // The file system has no room or no support for it: Docker carries on too.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC | Errno::RANGE) => {}
            Err(error) => return Err(at(&entry.path)(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
