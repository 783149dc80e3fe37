//! The image store of one agent: a directory of content named by digest.
//!
//! ```text
//! VERSION                     layout version
//! blobs/sha256/HEX            manifests and configurations (layer archives are not kept once they are unpacked)
//! layers/HEX                  unpacked layers by diff id, ready as overlay lower directories
//! images/HEX.json             one record per image name; HEX is the digest of the name
//! holds/AGENT/HEX.json        which images an agent's containers run on
//! partial/HEX                 what has come of a blob so far
//! tmp/                        what is being written; emptied when the store is opened and nobody else uses it
//! ```
//! Everything comes into being under `tmp/`, is synced, and is then renamed to its place: what has its final name is
//! whole, after any crash. Several processes may use one store; locks on the directory keep the collector apart from
//! them.

use super::config::ImageConfig;
use super::confined::remove_tree;
use super::digest::Digest;
use super::reference::Reference;
use super::unpack::{LayerError, Limits, Unpacked, unpack};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const LAYOUT_VERSION: &str = "1";
const RECORD_VERSION: u32 = 1;
/// A record holds an image's configuration; registries bound that at 4 to 8 MiB.
const MAX_RECORD: u64 = 16 << 20;

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("image store: {action} {path} failed")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("image store {path} has layout version '{found}', this program knows {LAYOUT_VERSION}")]
    Version { path: PathBuf, found: String },
    #[error("image store: {path} is not a record that this program can read")]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("content has digest {found}, not {expected}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("content is larger than the {limit} bytes announced")]
    TooLarge { limit: u64 },
    #[error("{needed} bytes are needed, {available} are free, and {reserve} are to stay so")]
    NoRoom { needed: u64, available: u64, reserve: u64 },
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// Whether the disk is full, or would soon be.
    pub fn is_no_space(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            }
            cause = error.source();
        }
        matches!(self, StoreError::NoRoom { .. })
    }
}

/// How an image got into the store; the pull behaviours treat them differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// From its registry.
    Pulled,
    /// From an archive, by the operator.
    Loaded,
    /// One of the images that Gantry carries.
    Sample,
}

/// A layer of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    pub diff_id: Digest,
    /// Bytes of file content.
    pub bytes: u64,
}

/// What the store knows about one image name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub name: Reference,
    /// What the name meant in its registry, an index's digest if it is one: a task's `imageDigest`.
    pub digest: Digest,
    /// Of this platform's manifest.
    pub manifest_digest: Digest,
    /// Of the configuration: Docker's image id.
    pub config_digest: Digest,
    pub config: ImageConfig,
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
    pub source: Source,
    /// When it was pulled, loaded or made, in milliseconds since 1970. Set by the store.
    #[serde(default)]
    pub stored_at: u64,
}

impl ImageRecord {
    /// Bytes of file content in all layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|l| l.bytes).sum()
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// An image that can be run at once.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalImage {
    pub name: Reference,
    /// What a task's `imageDigest` shows.
    pub digest: Digest,
    pub config_digest: Digest,
    pub config: ImageConfig,
    pub source: Source,
    /// Overlay lower directories, the uppermost first, each once. With many layers their paths together exceed what
    /// `mount(2)` takes: link to them under short names and mount from there.
    pub layers: Vec<PathBuf>,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub layers: u64,
    pub blobs: u64,
}

/// Alone with the store: see [`ImageStore::collector`].
pub struct Collector<'a> {
    store: &'a ImageStore,
    _lock: File,
}

impl Collector<'_> {
    /// Removes layers and blobs that no record names and no agent holds.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        let (store, records) = (self.store, self.store.list()?);
        let named = records
            .iter()
            .flat_map(|r| {
                r.layers.iter().map(|l| l.diff_id).chain([r.digest, r.manifest_digest, r.config_digest])
            })
            .map(|digest| digest.hex());
        let held = store.all_holds()?.into_iter().filter(|hold| hold.in_use);
        let held = held.flat_map(|hold| hold.layers.into_iter().chain([hold.image.hex()]));
        let needed: BTreeSet<String> = named.chain(held).collect();
        let mut collected = Collected::default();
        for path in children(&store.inner.root.join("layers"))? {
            if !is_named(&path, &needed) {
                store.discard(&path)?;
                collected.layers += 1;
            }
        }
        for path in children(&store.inner.root.join("blobs/sha256"))? {
            if !is_named(&path, &needed) {
                fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
                collected.blobs += 1;
            }
        }
        Ok(collected)
    }
}

/// A handle on a store; clones share it.
#[derive(Clone)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    next_temporary: AtomicU64,
    limits: Limits,
    /// Held shared for as long as this process has the store open.
    _open: File,
}

/// Keeps the collector away while content is in the store that no record names yet.
pub struct Ingest {
    _lock: File,
}

impl ImageStore {
    /// Opens the store in `root`, making it if it is not there. What a crash left half-written is removed.
    pub fn open(root: impl Into<PathBuf>) -> Result<ImageStore, StoreError> {
        ImageStore::open_with(root, Limits::default())
    }

    /// Like [`open`](Self::open), with other bounds on layers.
    pub fn open_with(root: impl Into<PathBuf>, limits: Limits) -> Result<ImageStore, StoreError> {
        let root = root.into();
        for directory in ["blobs/sha256", "layers", "images", "holds", "partial", "tmp"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(StoreError::io("making", &path))?;
        }
        // Layers hold setuid files: nobody but root may reach them by path.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&root, private).map_err(StoreError::io("protecting", &root))?;
        let version = root.join("VERSION");
        let found = match fs::read_to_string(&version) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(StoreError::io("reading", &version))?,
        };
        match found.trim() {
            LAYOUT_VERSION => {}
            // Also of an agent that is just making it, or that died so: what is written is the same.
            "" => fs::write(&version, LAYOUT_VERSION).map_err(StoreError::io("writing", &version))?,
            other => {
                let found = other.chars().take(32).collect();
                return Err(StoreError::Version { path: root, found });
            }
        }
        let tmp = root.join("tmp");
        let open = open_for_lock(&tmp)?;
        // Alone: whatever lies in tmp/ is of a process that died.
        if rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok() {
            empty_directory(&tmp)?;
        }
        rustix::fs::flock(&open, FlockOperation::LockShared)
            .map_err(|e| StoreError::io("locking", &tmp)(e.into()))?;
        Ok(ImageStore {
            inner: Arc::new(Inner { root, next_temporary: AtomicU64::new(0), limits, _open: open }),
        })
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The image called `name`, if all of it is here. A name with a digest is known too by another name of its repository
    /// that a registry gave that digest for.
    pub fn resolve(&self, name: &Reference) -> Result<Option<LocalImage>, StoreError> {
        let record = match (self.record(name)?, name.digest()) {
            (Some(record), _) => Some(record),
            (None, Some(digest)) => self.list()?.into_iter().find(|record| {
                record.source == Source::Pulled
                    && record.digest == digest
                    && record.name.name() == name.name()
            }),
            (None, None) => None,
        };
        let Some(record) = record else { return Ok(None) };
        // An image may have a layer twice, which overlay file systems refuse. Whatever the lower one brings or hides, the
        // upper one does too.
        let mut seen = BTreeSet::new();
        let layers = record.layers.iter().rev().map(|layer| layer.diff_id);
        let layers: Vec<PathBuf> =
            layers.filter(|id| seen.insert(*id)).map(|id| self.layer_path(&id)).collect();
        // An operator may have removed layers by hand: then the image is as good as absent and is fetched again.
        if !layers.iter().all(|path| path.is_dir()) {
            return Ok(None);
        }
        let ImageRecord { name, digest, config_digest, config, source, .. } = record;
        Ok(Some(LocalImage { name, digest, config_digest, config, source, layers }))
    }

    /// What is recorded under `name`.
    pub fn record(&self, name: &Reference) -> Result<Option<ImageRecord>, StoreError> {
        self.read_record(&self.record_path(name))
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let directory = self.inner.root.join("images");
        let mut records = Vec::new();
        for entry in fs::read_dir(&directory).map_err(StoreError::io("listing", &directory))? {
            let path = entry.map_err(StoreError::io("listing", &directory))?.path();
            // None: removed since the directory was read.
            records.extend(self.read_record(&path)?);
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// Starts to add content: until the result is dropped nothing is collected. Waits for a running collection.
    pub fn ingest(&self) -> Result<Ingest, StoreError> {
        let path = self.inner.root.join("layers");
        let lock = open_for_lock(&path)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared)
            .map_err(|e| StoreError::io("locking", &path)(e.into()))?;
        Ok(Ingest { _lock: lock })
    }

    /// Makes `record` the meaning of its name, at once and durably. Its layers must be in the store.
    pub fn commit(&self, mut record: ImageRecord, _ingest: &Ingest) -> Result<(), StoreError> {
        record.stored_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let path = self.record_path(&record.name);
        let bytes = serde_json::to_vec(&Versioned { v: RECORD_VERSION, record })
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        self.write_durably(&path, &bytes)
    }

    /// Forgets the name; whether it was there. Its content goes with the next collection.
    pub fn remove(&self, name: &Reference) -> Result<bool, StoreError> {
        let path = self.record_path(name);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.inner.root.join("images")).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("removing", &path)(error)),
        }
    }

    /// Keeps everyone from adding content, to give some up; none while somebody adds.
    pub fn collector(&self) -> Result<Option<Collector<'_>>, StoreError> {
        let lock = open_for_lock(&self.inner.root.join("layers"))?;
        let alone = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        Ok(alone.then_some(Collector { store: self, _lock: lock }))
    }

    /// Where the unpacked layer lies or will lie.
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.inner.root.join("layers").join(diff_id.hex())
    }

    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_path(diff_id).is_dir()
    }

    /// The sizes of all layers that records name, for layers that need no unpacking again.
    pub fn layer_sizes(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        Ok(self.list()?.iter().flat_map(|r| r.layers.iter().map(|l| (l.diff_id, l.bytes))).collect())
    }

    /// Unpacks a layer archive (plain, gzip or zstd) and keeps it if its diff id is `expected`, or any if none is
    /// expected. Two at once do the work twice and keep one.
    pub fn add_layer(
        &self,
        archive: impl Read,
        expected: Option<&Digest>,
        _ingest: &Ingest,
    ) -> Result<Unpacked, StoreError> {
        let temporary = self.temporary();
        fs::create_dir(&temporary).map_err(StoreError::io("making", &temporary))?;
        let result = self.unpack_into(archive, expected, &temporary);
        if result.is_err() {
            // The error that matters is the first one; what stays goes when the store is opened next.
            let _ = self.remove_path(&temporary);
        }
        result
    }

    fn unpack_into(
        &self,
        archive: impl Read,
        expected: Option<&Digest>,
        temporary: &Path,
    ) -> Result<Unpacked, StoreError> {
        // The root directory of most layers has no entry of its own.
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(temporary, readable).map_err(StoreError::io("protecting", temporary))?;
        let unpacked = unpack(archive, temporary, &self.inner.limits)?;
        if let Some(expected) = expected.filter(|e| **e != unpacked.diff_id) {
            return Err(StoreError::WrongDigest { expected: *expected, found: unpacked.diff_id });
        }
        // One sync of the file system instead of one per file.
        let directory = File::open(temporary).map_err(StoreError::io("opening", temporary))?;
        rustix::fs::syncfs(&directory).map_err(|e| StoreError::io("syncing", temporary)(e.into()))?;
        let place = self.layer_path(&unpacked.diff_id);
        match fs::rename(temporary, &place) {
            Ok(()) => sync_directory(&self.inner.root.join("layers"))?,
            // Someone else was faster with the same content.
            Err(_) if place.is_dir() => self.remove_path(temporary)?,
            Err(error) => return Err(StoreError::io("renaming", temporary)(error)),
        }
        Ok(unpacked)
    }

    /// Keeps a small document under its digest.
    pub fn add_blob(&self, bytes: &[u8], _ingest: &Ingest) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            self.write_durably(&path, bytes)?;
        }
        Ok(digest)
    }

    /// The document with this digest, if it is here and whole.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.blob_path(digest);
        match read_bounded(&path) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("reading", &path)(error)),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.root.join("blobs/sha256").join(digest.hex())
    }

    fn record_path(&self, name: &Reference) -> PathBuf {
        let file = format!("{}.json", Digest::of(name.to_string().as_bytes()).hex());
        self.inner.root.join("images").join(file)
    }

    fn read_record(&self, path: &Path) -> Result<Option<ImageRecord>, StoreError> {
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("reading", path)(error)),
        };
        let unreadable = |source| StoreError::Record { path: path.to_owned(), source };
        let Versioned { v, record } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if v != RECORD_VERSION {
            return Err(StoreError::Version { path: path.to_owned(), found: v.to_string() });
        }
        Ok(Some(record))
    }

    pub(super) fn temporary(&self) -> PathBuf {
        let number = self.inner.next_temporary.fetch_add(1, Ordering::Relaxed);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        self.inner.root.join("tmp").join(format!("{}-{nanos}-{number}", std::process::id()))
    }

    pub(super) fn write_durably(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary();
        let mut file = File::create_new(&temporary).map_err(StoreError::io("making", &temporary))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.and_then(|()| fs::rename(&temporary, path)).map_err(|error| {
            let _ = fs::remove_file(&temporary);
            StoreError::io("writing", path)(error)
        })?;
        path.parent().map_or(Ok(()), sync_directory)
    }

    /// Takes the layer out of its place first, so that a crash leaves no half of it there.
    fn discard(&self, path: &Path) -> Result<(), StoreError> {
        let temporary = self.temporary();
        fs::rename(path, &temporary).map_err(StoreError::io("removing", path))?;
        self.remove_path(&temporary)
    }

    fn remove_path(&self, path: &Path) -> Result<(), StoreError> {
        remove_at(path).map_err(StoreError::io("removing", path))
    }
}

fn open_for_lock(path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(StoreError::io("opening", path))
}

pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_RECORD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(StoreError::io("syncing", path))
}

pub(super) fn children(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(path).map_err(StoreError::io("listing", path))?;
    entries.map(|e| e.map(|e| e.path()).map_err(StoreError::io("listing", path))).collect()
}

fn is_named(path: &Path, named: &BTreeSet<String>) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| named.contains(n))
}

fn remove_at(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    Ok(remove_tree(&parent, name.as_encoded_bytes())?)
}

fn empty_directory(path: &Path) -> Result<(), StoreError> {
    for child in children(path)? {
        remove_at(&child).map_err(StoreError::io("removing", &child))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
