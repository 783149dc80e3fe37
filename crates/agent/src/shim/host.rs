//! What a spawner knows of its host: found out once, for all its copies.

use super::channel::Failure;
use crate::network::NAMESPACES;
use crate::runtime::capabilities::Capabilities;
use crate::runtime::cgroup::Hierarchies;
use crate::runtime::{ContainerConfig, Step, seccomp};
use libc::sock_filter;
use nix::mount::{MntFlags, umount2};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;

/// See the module.
pub struct Host {
    /// The directory of pinned network namespaces, in the host's own mount namespace.
    namespaces: Option<OwnedFd>,
    hierarchies: Result<Hierarchies, String>,
    /// The capabilities that this process can hand on.
    pub bounding_set: u64,
    /// What of system calls most containers are allowed, and who they are: it takes a tenth of a millisecond to make.
    usual: (Capabilities, Vec<sock_filter>),
}

impl Host {
    /// In a process that shows no pinned namespaces. `namespaces` is what [`hold_namespaces`] returned before that.
    pub fn find(namespaces: RawFd) -> Host {
        // SAFETY: an open descriptor, kept for this process and nobody else's, or none.
        let namespaces = (namespaces >= 0).then(|| unsafe { OwnedFd::from_raw_fd(namespaces) });
        let hierarchies = Hierarchies::of_host().map_err(|error| error.to_string());
        let bounding_set = bounding_set();
        let usual = Capabilities::default().among(bounding_set);
        Host { namespaces, hierarchies, bounding_set, usual: (usual, seccomp::program(usual)) }
    }

    /// The filter of system calls for who has these capabilities.
    pub fn filter(&self, capabilities: Capabilities) -> Cow<'_, [sock_filter]> {
        let (usual, filter) = &self.usual;
        if capabilities == *usual { filter.into() } else { seccomp::program(capabilities).into() }
    }

    pub fn hierarchies(&self) -> Result<&Hierarchies, Failure> {
        let missing = |error: &String| (Step::Create, format!("looking for control groups: {error}"));
        self.hierarchies.as_ref().map_err(missing)
    }

    /// Those in which a container has groups. A privileged one may make some of its own, wherever it likes.
    pub fn hierarchies_of(&self, config: &ContainerConfig) -> Result<Cow<'_, Hierarchies>, Failure> {
        let all = self.hierarchies()?;
        Ok(if config.privileged { Cow::Owned(all.clone().everywhere()) } else { Cow::Borrowed(all) })
    }

    /// Opens a network namespace that is pinned there, or elsewhere.
    pub fn namespace(&self, path: &Path) -> io::Result<File> {
        match (&self.namespaces, path.strip_prefix(NAMESPACES)) {
            (Some(directory), Ok(name)) => {
                Ok(openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
            }
            _ => File::open(path),
        }
    }
}

/// A hold on the directory of network namespaces that the next program inherits, or -1 where there is none. To be taken
/// before the host's mount namespace is left.
pub fn hold_namespaces() -> RawFd {
    let held = openat(CWD, NAMESPACES, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    held.map_or(-1, IntoRawFd::into_raw_fd)
}

/// Has the calling process's mount namespace show no pinned network namespaces, nor those to come: every container's
/// begins as a copy of it, mount by mount, and each task has one there.
pub fn leave_namespaces() {
    // One over the other.
    const MOUNTS_MAX: usize = 16;
    for _ in 0..MOUNTS_MAX {
        if umount2(NAMESPACES, MntFlags::MNT_DETACH).is_err() {
            break;
        }
    }
}

fn bounding_set() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
