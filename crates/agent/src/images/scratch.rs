//! Content on its way into a store: files that hash what is written to them.
//!
//! What a registry sends goes to `partial/`, under the digest that it shall have, and outlives a pull that breaks off and
//! a process that dies: the next pull goes on where it stands. Nothing there is believed before its digest is.

use super::digest::{Digest, Hasher};
use super::store::{ImageStore, StoreError};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const COPY_BUFFER: usize = 1 << 20;

/// A file of the store that hashes what is written to it. It vanishes when dropped, unless it may be gone on with.
pub struct Scratch {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    keep: bool,
}

impl ImageStore {
    /// A file for content on its way in. It vanishes when dropped.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let path = self.temporary();
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(StoreError::io("making", &path))?;
        Ok(Scratch { path, file, hasher: Hasher::new(), keep: false })
    }

    /// What is here of the content with this digest, to be gone on with; nothing of it if somebody else writes it at the
    /// same time, or more is here than the `size` bytes that it has.
    pub fn partial(&self, digest: &Digest, size: u64) -> Result<Scratch, StoreError> {
        let path = self.partials().join(digest.hex());
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(StoreError::io("making", &path))?;
        let alone = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Who had it a moment ago may have finished and removed it.
        if !alone || !is_still(&file, &path) {
            return self.scratch();
        }
        let mut scratch = Scratch { path, file, hasher: Hasher::new(), keep: true };
        let known = scratch.file.metadata().map_err(StoreError::io("reading", &scratch.path))?.len();
        if known > size {
            scratch.restart()?;
        } else if known > 0 {
            let mut buffer = vec![0; COPY_BUFFER];
            loop {
                let read =
                    scratch.file.read(&mut buffer).map_err(StoreError::io("reading", &scratch.path))?;
                if read == 0 {
                    break;
                }
                scratch.hasher.update(&buffer[..read]);
            }
        }
        Ok(scratch)
    }

    /// Removes unfinished downloads that nobody goes on with and that are at least so old; how many.
    pub fn remove_partials(&self, age: Duration) -> Result<u64, StoreError> {
        let mut removed = 0;
        let directory = self.partials();
        for entry in fs::read_dir(&directory).map_err(StoreError::io("listing", &directory))? {
            let path = entry.map_err(StoreError::io("listing", &directory))?.path();
            // Gone since the directory was read.
            let Ok(file) = File::open(&path) else { continue };
            let changed = file.metadata().and_then(|known| known.modified());
            let changed = changed.map_err(StoreError::io("reading", &path))?;
            let old = SystemTime::now().duration_since(changed).is_ok_and(|found| found >= age);
            let idle = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if old && idle() {
                fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn partials(&self) -> PathBuf {
        self.root().join("partial")
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

impl Scratch {
    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Appends, refusing to go beyond `limit` bytes in all.
    pub fn append(&mut self, bytes: &[u8], limit: u64) -> Result<(), StoreError> {
        if self.bytes().saturating_add(bytes.len() as u64) > limit {
            return Err(StoreError::TooLarge { limit });
        }
        self.file.write_all(bytes).map_err(StoreError::io("writing", &self.path))?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Throws away what was written.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.hasher = Hasher::new();
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(StoreError::io("writing", &self.path))
    }

    /// Nobody will go on with it.
    pub fn discard(mut self) {
        self.keep = false;
    }

    /// Ends writing: the digest, and the content readable from its start.
    pub fn finish(mut self) -> Result<(Digest, Spooled), StoreError> {
        self.keep = false;
        let digest = std::mem::take(&mut self.hasher).finish();
        Ok((digest, Spooled { scratch: self }))
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep || self.bytes() == 0 {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Content of a [`Scratch`] that is complete. It vanishes when dropped.
pub struct Spooled {
    scratch: Scratch,
}

impl Spooled {
    /// A reader from the start; independent of others.
    pub fn reader(&self) -> Result<File, StoreError> {
        File::open(&self.scratch.path).map_err(StoreError::io("opening", &self.scratch.path))
    }

    /// All of it, if it is no longer than `limit` bytes.
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        let read = self.reader()?.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(StoreError::io("reading", &self.scratch.path))?;
        if bytes.len() as u64 > limit { Err(StoreError::TooLarge { limit }) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        (dir, store)
    }

    fn partials(store: &ImageStore) -> usize {
        fs::read_dir(store.partials()).unwrap().count()
    }

    #[test]
    fn a_download_goes_on_after_its_process_died() {
        let (_dir, store) = store();
        let (content, digest) = (b"first and second", Digest::of(b"first and second"));
        let mut first = store.partial(&digest, 16).unwrap();
        first.append(b"first ", 16).unwrap();
        // Somebody else who wants the same meanwhile has a file of their own.
        assert_eq!(store.partial(&digest, 16).unwrap().bytes(), 0);
        drop(first);
        let root = store.root().to_owned();
        drop(store);
        let store = ImageStore::open(root).unwrap();
        let mut second = store.partial(&digest, 16).unwrap();
        assert_eq!(second.bytes(), 6);
        second.append(b"and second", 16).unwrap();
        let (found, spooled) = second.finish().unwrap();
        assert_eq!((found, spooled.read(16).unwrap().as_slice()), (digest, &content[..]));
        drop(spooled);
        assert_eq!(partials(&store), 0);
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_begun_anew_or_removed() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        let mut long = store.partial(&digest, 100).unwrap();
        long.append(&[0; 100], 100).unwrap();
        drop(long);
        let shorter = store.partial(&digest, 50).unwrap();
        assert_eq!(shorter.bytes(), 0);
        drop(shorter);
        assert_eq!(partials(&store), 0);
        let mut one = store.partial(&digest, 50).unwrap();
        one.append(b"1", 50).unwrap();
        // In use, and then too young.
        assert_eq!(store.remove_partials(Duration::ZERO).unwrap(), 0);
        drop(one);
        assert_eq!(store.remove_partials(Duration::from_secs(60)).unwrap(), 0);
        assert_eq!((store.remove_partials(Duration::ZERO).unwrap(), partials(&store)), (1, 0));
        let mut given_up = store.partial(&digest, 50).unwrap();
        given_up.append(b"1", 50).unwrap();
        given_up.discard();
        assert_eq!(partials(&store), 0);
    }
}
