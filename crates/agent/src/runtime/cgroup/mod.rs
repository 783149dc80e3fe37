//! Control groups: the limits of tasks and containers, what they use, and whether the kernel killed in them.
//!
//! A group is named by its absolute path, the same in every hierarchy. Hosts have either the one hierarchy of version 2,
//! or one for each controller of version 1, of which containers have groups where something is limited or counted. Beside
//! those, systemd's hybrid layout mounts one of version 2 that limits nothing, and which is left alone.
//!
//! Files are found from descriptors: names in these file systems are looked up slowly, and by one at a time.

mod group;
mod hierarchy;
mod stats;

pub use group::Group;
pub(super) use hierarchy::{open_at, write_at};
pub use stats::Stats;

use hierarchy::{Hierarchy, Layout, kind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

const ROOT: &str = "/sys/fs/cgroup";
/// How often a group is made that vanishes meanwhile. An agent removes those above its own only when it ends.
const MAKE_TRIES: usize = 4;
/// The period that a quota of CPU time is for, in microseconds: the kernel's default.
pub const CPU_PERIOD_MICROS: u64 = 100_000;
/// Processes and threads of a container that asks for no limit of its own: far beyond what servers make (Java's largest
/// pools are some thousands), and half of the smallest number of processes that kernels let a host have.
pub const PIDS_DEFAULT: i64 = 16_384;
/// Controllers by which something is limited or counted. A group in each other hierarchy of version 1 (cpuset, freezer,
/// perf_event, names) would be a quarter of what making a container's groups costs, and of no use to anybody.
const NEEDED: [&str; 6] = ["blkio", "cpu", "cpuacct", "devices", "memory", "pids"];

/// The limits of a task, which its containers share. `None` changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLimits {
    /// Relative share of CPU time; 1024 is one core's worth.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each [`CPU_PERIOD_MICROS`].
    pub cpu_quota: Option<i64>,
    /// Bytes. Beyond it the kernel kills a process of the task.
    pub memory: Option<i64>,
}

/// The hierarchies of this host.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    /// Where groups are made: the one of version 2, or those of version 1 that are needed.
    used: Vec<Hierarchy>,
    /// The others of version 1.
    others: Vec<Hierarchy>,
    /// Of systemd's hybrid layout.
    hybrid: Option<Hierarchy>,
}

/// What CPU shares are in control groups of version 2: their range, 2 to 262,144, laid over that of weights, 1 to 10,000, as
/// runtimes do.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

impl Hierarchies {
    /// Looks what is mounted.
    ///
    /// # Errors
    /// When there are none, or they cannot be seen.
    pub fn of_host() -> io::Result<Hierarchies> {
        let root = PathBuf::from(ROOT);
        if kind(&root)? == libc::CGROUP2_SUPER_MAGIC {
            let used = vec![Hierarchy::open(root, Layout::Unified)?];
            return Ok(Hierarchies { used, others: Vec::new(), hybrid: None });
        }
        let mut mounts = Vec::new();
        for entry in fs::read_dir(&root)? {
            let entry = entry?;
            // Links are second names of hierarchies with several controllers.
            if entry.file_type()?.is_dir() && kind(&entry.path())? == libc::CGROUP_SUPER_MAGIC {
                let names = entry.file_name().to_string_lossy().split(',').map(str::to_owned).collect();
                mounts.push(Hierarchy::open(entry.path(), Layout::First(names))?);
            }
        }
        let hybrid = root.join("unified");
        let hybrid = match kind(&hybrid) {
            Ok(libc::CGROUP2_SUPER_MAGIC) => Some(Hierarchy::open(hybrid, Layout::Hybrid)?),
            _ => None,
        };
        Hierarchies::of_first(mounts, hybrid)
    }

    fn of_first(mut mounts: Vec<Hierarchy>, hybrid: Option<Hierarchy>) -> io::Result<Hierarchies> {
        mounts.sort_by(|a, b| a.directory.cmp(&b.directory));
        let needed = |hierarchy: &Hierarchy| NEEDED.into_iter().any(|controller| hierarchy.has(controller));
        let (used, others): (Vec<_>, Vec<_>) = mounts.into_iter().partition(needed);
        if used.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no control groups are mounted"));
        }
        Ok(Hierarchies { used, others, hybrid })
    }

    /// The same with groups in every hierarchy: of who is to leave another's everywhere, or to make groups itself.
    pub fn everywhere(mut self) -> Hierarchies {
        self.used.append(&mut self.others);
        self
    }

    /// Whether there is the one of version 2.
    pub fn is_unified(&self) -> bool {
        self.used.iter().all(Hierarchy::is_unified)
    }

    /// Where this controller is.
    fn of(&self, controller: &str) -> Option<&Hierarchy> {
        self.used.iter().find(|hierarchy| hierarchy.has(controller))
    }

    /// A group's directory in each hierarchy that is used, beside the hierarchy's name below `/sys/fs/cgroup` (empty in
    /// version 2).
    pub fn directories(&self, group: &str) -> impl Iterator<Item = (PathBuf, &str)> {
        self.used.iter().map(move |hierarchy| (hierarchy.path(group), name_of(hierarchy)))
    }

    /// The same in each of the others.
    pub fn other_directories(&self, group: &str) -> impl Iterator<Item = (PathBuf, &str)> {
        self.others.iter().map(move |hierarchy| (hierarchy.path(group), name_of(hierarchy)))
    }

    /// A group's directory where this controller is.
    pub fn directory(&self, controller: &str, group: &str) -> Option<PathBuf> {
        self.of(controller).map(|hierarchy| hierarchy.path(group))
    }

    /// Makes a group and those above it. One that is there is no error. Other agents of the host may be at it too, making
    /// the same ones above, or removing those that just now nobody needs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(&self, group: &str) -> io::Result<Group<'_>> {
        let try_make =
            || self.used.iter().map(|hierarchy| hierarchy.make(group)).collect::<io::Result<Vec<_>>>();
        let mut made = try_make();
        for _ in 1..MAKE_TRIES {
            match made {
                Err(error) if error.kind() == io::ErrorKind::NotFound => made = try_make(),
                _ => break,
            }
        }
        made.map(|places| Group { all: self, places })
    }

    /// Finds a group.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(&self, group: &str) -> io::Result<Group<'_>> {
        let places = self.used.iter().map(|hierarchy| hierarchy.find(group)).collect::<io::Result<_>>()?;
        Ok(Group { all: self, places })
    }

    /// Moves the calling process to a group, which is made if it is not there, in every hierarchy. It has one thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, group: &str) -> io::Result<()> {
        if let Some(hybrid) = &self.hybrid {
            write_at(hybrid.make(group)?, "cgroup.procs", "0")?;
        }
        let all = self.clone().everywhere();
        let group = all.make(group)?;
        match group.unified() {
            Some(place) => write_at(place, "cgroup.procs", "0"),
            None => group.entrances()?.iter_mut().try_for_each(|entrance| entrance.write_all(b"0")),
        }
    }

    /// The processes in a group; none where it is gone.
    pub fn members(&self, group: &str) -> Vec<i32> {
        // Who is in one hierarchy's is in all.
        let place = self.used.first().and_then(|hierarchy| hierarchy.find(group).ok());
        place.as_ref().map(group::members_at).unwrap_or_default()
    }

    /// Kills what runs in a group. Of groups by this path only our containers are members.
    pub fn kill(&self, group: &str) {
        for place in self.used.iter().filter_map(|hierarchy| hierarchy.find(group).ok()) {
            for pid in group::members_at(&place) {
                // One that is gone is what is wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Whether the kernel killed in a group for its memory use.
    pub fn killed_for_memory(&self, group: &str) -> bool {
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        let text = self.of("memory").and_then(|hierarchy| hierarchy.read(group, file).ok());
        let killed = |line: &str| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0");
        text.is_some_and(|text| text.lines().any(killed))
    }

    /// Removes a group in every hierarchy. False while one is busy. One that is not there is gone.
    pub fn remove(&self, group: &str) -> bool {
        let all = self.used.iter().chain(&self.others).chain(&self.hybrid);
        // Each of them, also behind one that is busy.
        all.filter(|hierarchy| !hierarchy.remove(group)).count() == 0
    }
}

fn name_of(hierarchy: &Hierarchy) -> &str {
    let name = hierarchy.directory.strip_prefix(ROOT).unwrap_or(&hierarchy.directory);
    name.to_str().unwrap_or_default()
}

/// Removes a group of this host: see [`Hierarchies::remove`].
pub fn remove(group: &str) -> bool {
    Hierarchies::of_host().is_ok_and(|all| all.remove(group))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    /// Version 2 in a directory.
    pub fn unified(directory: &Path) -> Hierarchies {
        let used = vec![Hierarchy::open(directory.to_owned(), Layout::Unified).unwrap()];
        Hierarchies { used, others: Vec::new(), hybrid: None }
    }

    /// Version 1 with a hierarchy for each of these, which may have several controllers.
    pub fn first(directory: &Path, names: &[&str]) -> Hierarchies {
        let mount = |name: &&str| {
            fs::create_dir_all(directory.join(name)).unwrap();
            let controllers = name.split(',').map(str::to_owned).collect();
            Hierarchy::open(directory.join(name), Layout::First(controllers)).unwrap()
        };
        Hierarchies::of_first(names.iter().map(mount).collect(), None).unwrap()
    }

    #[test]
    fn containers_have_groups_where_something_is_limited_or_counted() {
        let directory = tempfile::tempdir().unwrap();
        let all =
            first(directory.path(), &["systemd", "net_cls,net_prio", "memory", "cpuset", "cpu,cpuacct"]);
        let has_group = |name: &str, group: &str| directory.path().join(name).join(group).is_dir();
        all.make("/gantry/t/1").unwrap();
        let there = |group: &str| {
            ["cpu,cpuacct", "cpuset", "memory", "net_cls,net_prio", "systemd"]
                .map(|name| has_group(name, group))
        };
        assert_eq!(there("gantry/t/1"), [true, false, true, false, false]);
        fs::write(directory.path().join("cpuset/cpuset.cpus"), "0-1\n").unwrap();
        fs::write(directory.path().join("cpuset/cpuset.mems"), "0\n").unwrap();
        all.clone().everywhere().make("/gantry/t/2").unwrap();
        assert_eq!(there("gantry/t/2"), [true; 5]);
        // One that an earlier version made is removed everywhere. In a directory that is no kernel's, files are in the way.
        for file in fs::read_dir(directory.path().join("cpuset/gantry/t/2")).unwrap().flatten() {
            fs::remove_file(file.path()).unwrap();
        }
        assert!(all.remove("/gantry/t/2"));
        assert_eq!(there("gantry/t/2"), [false; 5]);
        assert!(all.remove("/gantry/t/2"), "it is gone");
    }

    #[test]
    fn members_of_a_group_are_those_of_the_first_hierarchy() {
        let directory = tempfile::tempdir().unwrap();
        let all = first(directory.path(), &["memory", "pids"]);
        assert_eq!(all.members("/gantry/t"), Vec::<i32>::new());
        all.make("/gantry/t").unwrap();
        fs::write(directory.path().join("memory/gantry/t/cgroup.procs"), "0\n1\n7\n").unwrap();
        assert_eq!(all.members("/gantry/t"), [7]);
    }
}
