//! One hierarchy of control groups: making groups in it, and finding them.

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub directory: PathBuf,
    layout: Layout,
    root: Arc<OwnedFd>,
}

/// What a hierarchy is on its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Of version 1, with these controllers.
    First(Vec<String>),
    /// The one of version 2.
    Unified,
    /// One of version 2 beside those of version 1, which have the controllers.
    Hybrid,
}

/// The kind of a file system, by its magic number.
pub fn kind(path: &Path) -> rustix::io::Result<i64> {
    rustix::fs::statfs(path).map(|found| found.f_type)
}

/// A group's path below the root of a hierarchy.
fn relative(group: &str) -> &Path {
    Path::new(group.trim_start_matches('/'))
}

fn directory_at(at: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a file of a group.
pub fn read_at(group: impl AsFd, file: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(group, file.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a file of a group to be written. Groups have the files that they have: none is made.
pub fn open_at(group: impl AsFd, file: &str) -> io::Result<File> {
    Ok(openat(group, file, OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC, Mode::empty())?.into())
}

/// The kernel takes one value with each write.
pub fn write_at(group: impl AsFd, file: &str, value: &str) -> io::Result<()> {
    open_at(group, file)?.write_all(value.as_bytes())
}

impl Hierarchy {
    pub fn open(directory: PathBuf, layout: Layout) -> io::Result<Hierarchy> {
        let root = Arc::new(directory_at(CWD, &directory)?);
        Ok(Hierarchy { directory, layout, root })
    }

    /// Whether it is the one of version 2.
    pub fn is_unified(&self) -> bool {
        self.layout == Layout::Unified
    }

    pub fn has(&self, controller: &str) -> bool {
        match &self.layout {
            Layout::First(controllers) => controllers.iter().any(|name| name == controller),
            Layout::Unified => true,
            Layout::Hybrid => false,
        }
    }

    /// A group's directory.
    pub fn path(&self, group: &str) -> PathBuf {
        self.directory.join(relative(group))
    }

    pub fn find(&self, group: &str) -> io::Result<OwnedFd> {
        Ok(directory_at(&self.root, relative(group))?)
    }

    /// Reads a file of a group.
    pub fn read(&self, group: &str, file: &str) -> io::Result<String> {
        read_at(&self.root, relative(group).join(file))
    }

    /// Makes a group and those above it. One that is there is no error.
    pub fn make(&self, group: &str) -> io::Result<OwnedFd> {
        let made = self.make_at(relative(group))?;
        if !self.is_unified() && self.has("cpuset") {
            finish_cpuset(&self.directory, &self.path(group))?;
        }
        Ok(made)
    }

    fn make_at(&self, group: &Path) -> io::Result<OwnedFd> {
        let (Some(above), Some(name)) = (group.parent(), group.file_name()) else {
            return Ok(directory_at(&self.root, group)?);
        };
        let above = match directory_at(&self.root, above) {
            // In version 2 somebody else may have made those above and not come to pass their controllers on.
            Ok(there) if !self.is_unified() => there,
            _ => self.make_at(above)?,
        };
        if self.is_unified() {
            pass_controllers_on(&above);
        }
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(directory_at(&above, Path::new(name))?),
            Err(error) => Err(error.into()),
        }
    }

    /// False while it is busy. One that is not there is gone.
    pub fn remove(&self, group: &str) -> bool {
        let removed = rustix::fs::unlinkat(&self.root, relative(group), rustix::fs::AtFlags::REMOVEDIR);
        removed != Err(rustix::io::Errno::BUSY)
    }
}

/// Lets groups below limit what this one may. What the kernel does not have it cannot pass on.
fn pass_controllers_on(group: &OwnedFd) {
    let there = read_at(group, "cgroup.controllers").unwrap_or_default();
    let passed = read_at(group, "cgroup.subtree_control").unwrap_or_default();
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        let has = |list: &str| list.split_ascii_whitespace().any(|name| name == controller);
        if has(&there) && !has(&passed) {
            // A limit that needs it fails later, and says so.
            let _ = write_at(group, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// A new group of version 1 has no CPUs and no memory nodes, and takes no processes before it has. Whoever made it may
/// not have come to that yet. Groups below it are born with what it has: each write would have the kernel think again
/// about which processors share work.
fn finish_cpuset(mount: &Path, group: &Path) -> io::Result<()> {
    const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
    let has = |file| fs::read(group.join(file)).is_ok_and(|text| !text.trim_ascii().is_empty());
    let above = match group.parent() {
        Some(above) if group != mount && !FILES.into_iter().all(has) => above,
        _ => return Ok(()),
    };
    finish_cpuset(mount, above)?;
    for file in FILES {
        fs::write(group.join(file), fs::read(above.join(file))?)?;
    }
    fs::write(group.join("cgroup.clone_children"), "1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_group_that_another_agent_has_only_just_made_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let sets =
            Hierarchy::open(directory.path().to_owned(), Layout::First(vec!["cpuset".to_owned()])).unwrap();
        fs::create_dir(directory.path().join("gantry")).unwrap();
        for (file, text) in [("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")] {
            fs::write(directory.path().join(file), text).unwrap();
            fs::write(directory.path().join("gantry").join(file), "\n").unwrap();
        }
        sets.make("/gantry/t/1").unwrap();
        for group in ["gantry", "gantry/t", "gantry/t/1"] {
            let cpus = fs::read_to_string(directory.path().join(group).join("cpuset.cpus")).unwrap();
            assert_eq!(cpus, "0-1\n", "{group}");
        }
    }

    #[test]
    fn controllers_are_passed_on_in_groups_that_are_there_too() {
        let directory = tempfile::tempdir().unwrap();
        let all = Hierarchy::open(directory.path().to_owned(), Layout::Unified).unwrap();
        let groups = ["", "gantry", "gantry/t"].map(|group| directory.path().join(group));
        for group in &groups {
            fs::create_dir_all(group).unwrap();
            fs::write(group.join("cgroup.controllers"), "cpu misc pids\n").unwrap();
            fs::write(group.join("cgroup.subtree_control"), "cpu\n").unwrap();
        }
        all.make("/gantry/t/1").unwrap();
        for group in &groups {
            let passed = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap();
            assert_eq!(passed, "+pids", "{}", group.display());
        }
        assert!(all.find("/gantry/t/1").is_ok());
    }
}
