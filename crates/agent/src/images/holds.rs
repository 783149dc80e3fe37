//! Which images an agent's containers run on, known on the disk: agents that share a store, and whoever collects in it
//! while an agent is away, must not take layers from under containers.
//!
//! ```text
//! holds/AGENT/HEX.json        HEX is the digest of an image's configuration
//! ```
//! The file is written before the first container of an image is made, and says so until a round of clean-up finds that
//! the last one's task is forgotten. It stays, with the time of that, for as long as the image does.

use super::digest::Digest;
use super::store::{ImageStore, Ingest, LocalImage, StoreError, children, read_bounded};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// What is on the disk of one image and agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    v: u32,
    /// The digest of the image's configuration.
    pub image: Digest,
    /// Directories of layers, by name.
    pub layers: BTreeSet<String>,
    pub in_use: bool,
    /// A service is going to need it: its age is no reason to give it up.
    #[serde(default)]
    pub wanted: bool,
    /// Milliseconds since 1970.
    pub last_used: u64,
}

struct Entry {
    hold: Hold,
    tasks: BTreeSet<String>,
    /// An earlier run of the agent had containers of it; which ones is not known yet.
    inherited: bool,
}

/// The holds of one agent.
pub struct Holds {
    directory: PathBuf,
    entries: Mutex<BTreeMap<Digest, Entry>>,
}

impl Holds {
    /// Takes up what an earlier run of the agent called `owner` left: until it is [settled](Holds::settle), all of it is
    /// in use.
    pub fn open(store: &ImageStore, owner: &str) -> Result<Holds, StoreError> {
        let directory = store.holds().join(owner);
        fs::create_dir_all(&directory).map_err(StoreError::io("making", &directory))?;
        let mut entries = BTreeMap::new();
        for hold in read_directory(&directory)? {
            let inherited = hold.in_use;
            entries.insert(hold.image, Entry { hold, tasks: BTreeSet::new(), inherited });
        }
        Ok(Holds { directory, entries: Mutex::new(entries) })
    }

    /// Holds the image for a task, whatever becomes of its name. False if its layers are no longer there.
    pub fn take(
        &self,
        store: &ImageStore,
        image: &LocalImage,
        task: &str,
        now: u64,
        _ingest: &Ingest,
    ) -> Result<bool, StoreError> {
        let mut entries = self.entries.lock();
        if !image.layers.iter().all(|layer| layer.is_dir()) {
            return Ok(false);
        }
        if let Some(entry) = entries.get_mut(&image.config_digest).filter(|entry| entry.hold.in_use) {
            entry.hold.last_used = now;
            entry.tasks.insert(task.to_owned());
            return Ok(true);
        }
        let names = image.layers.iter().filter_map(|layer| layer.file_name()?.to_str().map(str::to_owned));
        let (v, image, layers) = (VERSION, image.config_digest, names.collect());
        let wanted = entries.get(&image).is_some_and(|entry| entry.hold.wanted);
        let hold = Hold { v, image, layers, in_use: true, wanted, last_used: now };
        self.write(store, &hold)?;
        let tasks = BTreeSet::from([task.to_owned()]);
        entries.insert(image, Entry { hold, tasks, inherited: false });
        Ok(true)
    }

    /// Whether a container of the task could be started from the image without a look at the disk.
    pub fn join(&self, image: &Digest, task: &str, now: u64) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(image).filter(|entry| entry.hold.in_use) else { return false };
        entry.hold.last_used = now;
        entry.tasks.insert(task.to_owned());
        true
    }

    /// Puts on the disk which images services are going to need: `wanted`, with their layers.
    pub fn want(
        &self,
        store: &ImageStore,
        wanted: &BTreeMap<Digest, BTreeSet<String>>,
    ) -> Result<(), StoreError> {
        let mut entries = self.entries.lock();
        for (image, layers) in wanted {
            entries.entry(*image).or_insert_with(|| Entry {
                hold: Hold {
                    v: VERSION,
                    image: *image,
                    layers: layers.clone(),
                    in_use: false,
                    wanted: false,
                    last_used: 0,
                },
                tasks: BTreeSet::new(),
                inherited: false,
            });
        }
        for (image, entry) in entries.iter_mut() {
            let is = wanted.contains_key(image);
            if entry.hold.wanted != is {
                let hold = Hold { wanted: is, ..entry.hold.clone() };
                self.write(store, &hold)?;
                entry.hold = hold;
            }
        }
        Ok(())
    }

    /// Nothing of the task is left.
    pub fn release(&self, task: &str, now: u64) {
        for entry in self.entries.lock().values_mut() {
            if entry.tasks.remove(task) {
                entry.hold.last_used = now;
            }
        }
    }

    /// Tells which images the containers of an earlier run are of: no other is in use by one.
    pub fn settle(&self, found: &[(String, Digest)]) {
        let mut entries = self.entries.lock();
        for (task, image) in found {
            if let Some(entry) = entries.get_mut(image) {
                entry.tasks.insert(task.clone());
            }
        }
        for entry in entries.values_mut() {
            entry.inherited = false;
        }
    }

    /// Puts on the disk which images are no longer in use, and forgets those that are `gone`.
    pub fn write_back(&self, store: &ImageStore, gone: impl Fn(&Digest) -> bool) -> Result<(), StoreError> {
        let mut entries = self.entries.lock();
        let mut forgotten = Vec::new();
        for (image, entry) in entries.iter_mut() {
            if entry.inherited || !entry.tasks.is_empty() {
                continue;
            }
            if gone(image) {
                let path = self.path(image);
                match fs::remove_file(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("removing", &path)(error)),
                }
                forgotten.push(*image);
            } else if entry.hold.in_use {
                let hold = Hold { in_use: false, ..entry.hold.clone() };
                self.write(store, &hold)?;
                entry.hold = hold;
            }
        }
        for image in forgotten {
            entries.remove(&image);
        }
        Ok(())
    }

    fn path(&self, image: &Digest) -> PathBuf {
        self.directory.join(format!("{}.json", image.hex()))
    }

    fn write(&self, store: &ImageStore, hold: &Hold) -> Result<(), StoreError> {
        let path = self.path(&hold.image);
        let bytes =
            serde_json::to_vec(hold).map_err(|source| StoreError::Record { path: path.clone(), source })?;
        store.write_durably(&path, &bytes)
    }
}

impl ImageStore {
    /// What all agents of this store hold or held.
    pub fn all_holds(&self) -> Result<Vec<Hold>, StoreError> {
        let mut all = Vec::new();
        for directory in children(&self.holds())? {
            all.extend(read_directory(&directory)?);
        }
        Ok(all)
    }

    /// Forgets what an agent held. Its containers must be gone.
    pub fn forget_holds(&self, owner: &str) -> Result<(), StoreError> {
        let path = self.holds().join(owner);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("removing", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn holds(&self) -> PathBuf {
        self.root().join("holds")
    }
}

fn read_directory(directory: &Path) -> Result<Vec<Hold>, StoreError> {
    let mut holds = Vec::new();
    for path in children(directory)? {
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            // Forgotten since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("reading", &path)(error)),
        };
        let unreadable = |source| StoreError::Record { path: path.clone(), source };
        let hold: Hold = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if hold.v != VERSION {
            return Err(StoreError::Version { path, found: hold.v.to_string() });
        }
        holds.push(hold);
    }
    Ok(holds)
}
