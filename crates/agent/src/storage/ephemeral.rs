//! A task's ephemeral storage: a file system of the size that the task asks for, which holds everything that its containers
//! write and nobody asked to be kept. Who fills it is told that it is full; its host and its neighbours are not.
//!
//! It is there for tasks that name a size. Others may use what their host has: a file system for each of them would
//! cost every start.

use super::{Disk, StorageError, place};
use gantry_api::acs;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Its name among a task's volumes, which none of them can have.
const NAME: &str = ".ephemeral";

/// See the module.
pub struct Ephemeral {
    disk: Disk,
    place: PathBuf,
}

impl Ephemeral {
    /// That of a task, if it asks for one. `of_task` is the directory of the task's volumes.
    pub fn of(task: &acs::Task, agent: &str, id: &str, of_task: &Path) -> Option<Ephemeral> {
        let gib =
            task.ephemeral_storage_gib.and_then(|gib| u64::try_from(gib).ok()).filter(|gib| *gib > 0)?;
        let file = of_task.join(format!("{NAME}.img"));
        Some(Ephemeral { disk: Disk::passing(file, gib), place: place(agent, id, NAME) })
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// Where a container writes, but for its volumes.
    pub fn container(&self, id: &str) -> PathBuf {
        self.place.join("containers").join(id)
    }

    /// Where the task's empty volumes are.
    pub fn volumes(&self) -> PathBuf {
        self.place.join("volumes")
    }

    /// Makes and mounts it, if it is not there yet.
    ///
    /// # Errors
    /// When the host lacks what it takes: `mkfs.ext4`, loop devices, room.
    pub fn provide(&self) -> Result<(), StorageError> {
        self.disk.provide(&self.place)?;
        for directory in ["containers", "volumes"] {
            let directory = self.place.join(directory);
            // What programs of containers put here is for nobody of the host.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
            made.map_err(StorageError::io(directory.display().to_string()))?;
        }
        Ok(())
    }
}
