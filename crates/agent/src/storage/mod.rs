//! File systems that volumes of tasks are: network file systems of the operator's, and volumes made for one task.
//!
//! Each is mounted for one task, below `/run/gantry/AGENT/TASK`, where shims find it; a restart of the host leaves none.

mod disk;
mod efs;
mod ephemeral;
mod shared;

pub use disk::Disk;
pub use efs::{EfsMount, EfsTarget, InvalidEfsTarget};
pub use ephemeral::Ephemeral;
pub use shared::share;

use nix::mount::{MntFlags, umount2};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where file systems of all agents' tasks are mounted.
pub const DIRECTORY: &str = "/run/gantry";

/// Where a volume of a task is mounted.
pub fn place(agent: &str, task: &str, volume: &str) -> PathBuf {
    Path::new(DIRECTORY).join(agent).join(task).join(volume)
}

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("{0}")]
    Refused(String),
}

impl StorageError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StorageError {
        let doing = doing.into();
        move |source| StorageError::Io { doing, source }
    }

    /// With its cause.
    pub fn text(&self) -> String {
        match self {
            StorageError::Io { doing, source } => format!("{doing}: {source}"),
            StorageError::Refused(text) => text.clone(),
        }
    }
}

/// Whether something is mounted at a place.
fn is_mounted(place: &Path) -> io::Result<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(place)))
}

/// Unmounts the volumes of a task whose containers are gone. Failures are told, and are nobody's to wait for.
pub fn release(agent: &str, task: &str) {
    let directory = Path::new(DIRECTORY).join(agent).join(task);
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        // Nobody uses it any more but who holds a file of it open, and what that is goes with it.
        match umount2(&entry.path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => tracing::warn!(path = %entry.path().display(), %error, "a volume stays mounted"),
        }
        // What is not empty is still mounted: never remove what it holds.
        let _ = fs::remove_dir(entry.path());
    }
    let _ = fs::remove_dir(directory);
}

/// Deletes the managed volumes in the directory of a task's volumes: those that go with it.
pub fn delete_disks(volumes: &Path) {
    for entry in fs::read_dir(volumes).into_iter().flatten().flatten() {
        if entry.path().extension() == Some("img".as_ref())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            // The rest of the task's directory goes later, and this with it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Unmounts the volumes of all tasks but those that `stays` names.
pub fn release_others(agent: &str, stays: impl Fn(&str) -> bool) {
    for task in leftovers(agent) {
        if !stays(&task) {
            release(agent, &task);
        }
    }
    // Others of its agent's tasks may be there.
    let _ = fs::remove_dir(Path::new(DIRECTORY).join(agent));
}

/// The tasks of an agent that have volumes mounted.
pub fn leftovers(agent: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(DIRECTORY).join(agent)).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
