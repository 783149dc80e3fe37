//! Control groups: the limits of tasks and containers, what they use, and whether the kernel killed in them.
//!
//! A group is named by its absolute path, the same in every hierarchy. Hosts have either the one hierarchy of version 2,
//! or one for each controller of version 1; beside those, systemd's hybrid layout mounts one of version 2 that limits
//! nothing, and which is left alone.

use super::ContainerConfig;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
/// How often a group is made that vanishes meanwhile. An agent removes those above its own only when it ends.
const MAKE_TRIES: usize = 4;
/// The period that a quota of CPU time is for, in microseconds: the kernel's default.
pub const CPU_PERIOD_MICROS: u64 = 100_000;
/// Processes and threads of a container that asks for no limit of its own: far beyond what servers make (Java's largest
/// pools are some thousands), and half of the smallest number of processes that kernels let a host have.
pub const PIDS_DEFAULT: i64 = 16_384;

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

/// What a container uses. Counters go up from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nanoseconds of CPU time.
    pub cpu_nanos: u64,
    /// Nanoseconds that it waited for its quota's next period.
    pub throttled_nanos: u64,
    /// Bytes, the file cache included.
    pub memory_bytes: u64,
    /// Bytes of the file cache that the kernel gives up first.
    pub inactive_file_bytes: u64,
    /// The most that it was, in bytes; 0 where the kernel does not tell.
    pub memory_peak_bytes: u64,
    /// Bytes; `None` when there is no limit.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// What is written to a group: files and values, by controller.
type Setting = (&'static str, &'static str, String);

/// The hierarchies of this host.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    /// Directories and their controllers. One with none: version 2.
    mounts: Vec<(PathBuf, Vec<String>)>,
}

/// What CPU shares are in control groups of version 2: their range, 2 to 262,144, laid over that of weights, 1 to 10,000, as
/// runtimes do.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

impl Hierarchies {
    /// Looks what is mounted.
    pub fn of_host() -> io::Result<Hierarchies> {
        if kind(Path::new(ROOT))? == libc::CGROUP2_SUPER_MAGIC {
            return Ok(Hierarchies { mounts: vec![(PathBuf::from(ROOT), Vec::new())] });
        }
        let mut mounts = Vec::new();
        for entry in fs::read_dir(ROOT)? {
            let entry = entry?;
            // Links are second names of hierarchies with several controllers.
            if entry.file_type()?.is_dir() && kind(&entry.path())? == libc::CGROUP_SUPER_MAGIC {
                let names = entry.file_name().to_string_lossy().split(',').map(str::to_owned).collect();
                mounts.push((entry.path(), names));
            }
        }
        mounts.sort();
        if mounts.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no control groups are mounted"));
        }
        Ok(Hierarchies { mounts })
    }

    /// Whether there is the one of version 2.
    pub fn is_unified(&self) -> bool {
        self.mounts.iter().all(|(_, controllers)| controllers.is_empty())
    }

    /// A group's directory in each hierarchy, beside the hierarchy's name below `/sys/fs/cgroup` (empty in version 2).
    pub fn directories(&self, group: &str) -> Vec<(PathBuf, String)> {
        let directory = |(mount, _): &(PathBuf, Vec<String>)| {
            let name = mount.strip_prefix(ROOT).unwrap_or(mount);
            (mount.join(relative(group)), name.to_string_lossy().into_owned())
        };
        self.mounts.iter().map(directory).collect()
    }

    /// A group's directory where this controller is.
    pub fn directory(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let has = |names: &[String]| names.is_empty() || names.iter().any(|name| name == controller);
        let mount = self.mounts.iter().find(|(_, names)| has(names));
        mount.map(|(mount, _)| mount.join(relative(group)))
    }

    /// Makes a group and those above it. One that is there is no error. Other agents of the host may be at it too, making
    /// the same ones above, or removing those that just now nobody needs.
    pub fn make(&self, group: &str) -> io::Result<()> {
        let mut made = self.try_make(group);
        for _ in 1..MAKE_TRIES {
            match made {
                Err(error) if error.kind() == io::ErrorKind::NotFound => made = self.try_make(group),
                made => return made,
            }
        }
        made
    }

    fn try_make(&self, group: &str) -> io::Result<()> {
        for (mount, controllers) in &self.mounts {
            let directory = mount.join(relative(group));
            if controllers.is_empty() {
                make_second(mount, group)?;
            } else {
                make_first(mount, &directory)?;
            }
            if controllers.iter().any(|name| name == "cpuset") {
                finish_cpuset(mount, &directory)?;
            }
        }
        Ok(())
    }

    /// Moves the calling process there, which has one thread; also in the hierarchy of systemd's hybrid layout.
    pub fn join(&self, group: &str) -> io::Result<()> {
        if self.is_unified() {
            return self
                .directories(group)
                .iter()
                .try_for_each(|(directory, _)| fs::write(directory.join("cgroup.procs"), "0"));
        }
        let hybrid = Path::new(ROOT).join("unified");
        if kind(&hybrid) == Ok(libc::CGROUP2_SUPER_MAGIC) {
            let directory = hybrid.join(relative(group));
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("cgroup.procs"), "0")?;
        }
        // A thread that moves itself need not wait for the whole machine.
        self.directories(group).iter().try_for_each(|(directory, _)| fs::write(directory.join("tasks"), "0"))
    }

    /// The processes in a group.
    pub fn members(&self, group: &str) -> Vec<i32> {
        let Some((directory, _)) = self.directories(group).into_iter().next() else { return Vec::new() };
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
    }

    /// Limits a task's group, which is made when it is not there.
    pub fn limit_task(&self, group: &str, limits: TaskLimits) -> io::Result<()> {
        self.make(group)?;
        let TaskLimits { cpu_shares, cpu_quota, memory } = limits;
        self.write(group, &self.cpu(cpu_shares, cpu_quota))?;
        self.write(group, &self.memory(memory, None, None, None))
    }

    /// Limits a container's group.
    pub fn limit_container(&self, group: &str, config: &ContainerConfig) -> io::Result<()> {
        self.write(group, &self.cpu(config.cpu_shares, config.cpu_quota))?;
        self.write(
            group,
            &self.memory(
                config.memory_limit,
                config.memory_reservation,
                config.memory_swap,
                config.memory_swappiness,
            ),
        )?;
        let pids = config.pids_limit.filter(|limit| *limit != 0).unwrap_or(PIDS_DEFAULT);
        self.write(group, &[("pids", "pids.max", number_or_max(pids))])
    }

    fn cpu(&self, shares: Option<u64>, quota: Option<i64>) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.is_unified() {
            settings.extend(shares.map(|shares| ("cpu", "cpu.weight", weight(shares).to_string())));
            settings
                .extend(quota.map(|quota| {
                    ("cpu", "cpu.max", format!("{} {CPU_PERIOD_MICROS}", number_or_max(quota)))
                }));
        } else {
            settings.extend(shares.map(|shares| ("cpu", "cpu.shares", shares.to_string())));
            settings.extend(quota.map(|quota| ("cpu", "cpu.cfs_quota_us", quota.to_string())));
        }
        settings
    }

    fn memory(
        &self,
        limit: Option<i64>,
        reservation: Option<i64>,
        swap: Option<i64>,
        swappiness: Option<u64>,
    ) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.is_unified() {
            settings.extend(limit.map(|bytes| ("memory", "memory.max", number_or_max(bytes))));
            settings.extend(reservation.map(|bytes| ("memory", "memory.low", number_or_max(bytes))));
            // Version 2 counts swap alone, Docker's option with the memory.
            let alone = swap.map(|bytes| if bytes < 0 { -1 } else { (bytes - limit.unwrap_or(0)).max(0) });
            settings.extend(alone.map(|bytes| ("memory", "memory.swap.max", number_or_max(bytes))));
        } else {
            settings.extend(limit.map(|bytes| ("memory", "memory.limit_in_bytes", bytes.to_string())));
            // After the limit, below which it must not be.
            settings.extend(swap.map(|bytes| ("memory", "memory.memsw.limit_in_bytes", bytes.to_string())));
            settings
                .extend(reservation.map(|bytes| ("memory", "memory.soft_limit_in_bytes", bytes.to_string())));
            settings.extend(swappiness.map(|value| ("memory", "memory.swappiness", value.to_string())));
        }
        settings
    }

    /// # Errors
    /// Names the file. Limits that this kernel has no file for are errors too, but for swap: kernels are built without,
    /// and Docker then goes on.
    fn write(&self, group: &str, settings: &[Setting]) -> io::Result<()> {
        for (controller, file, value) in settings {
            let written = match self.directory(controller, group) {
                Some(directory) => fs::write(directory.join(file), value),
                None => Err(io::Error::from(io::ErrorKind::NotFound)),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_of_swap(file) => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{file}={value}: {error}"))),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// What a group uses. What the kernel does not tell is 0.
    pub fn stats(&self, group: &str) -> Stats {
        let read = |controller: &str, file: &str| {
            let directory = self.directory(controller, group)?;
            fs::read_to_string(directory.join(file)).ok()
        };
        let number =
            |controller: &str, file: &str| -> Option<u64> { read(controller, file)?.trim().parse().ok() };
        let field = |controller: &str, file: &str, name: &str| {
            read(controller, file).and_then(|text| value_of(&text, name)).unwrap_or(0)
        };
        if self.is_unified() {
            let io = read("io", "io.stat").unwrap_or_default();
            let total = |name: &str| {
                let fields = io.split_ascii_whitespace().filter_map(|field| field.strip_prefix(name));
                fields.filter_map(|field| field.strip_prefix('=')?.parse::<u64>().ok()).sum()
            };
            return Stats {
                cpu_nanos: field("cpu", "cpu.stat", "usage_usec") * 1000,
                throttled_nanos: field("cpu", "cpu.stat", "throttled_usec") * 1000,
                memory_bytes: number("memory", "memory.current").unwrap_or(0),
                inactive_file_bytes: field("memory", "memory.stat", "inactive_file"),
                memory_peak_bytes: number("memory", "memory.peak").unwrap_or(0),
                // Without a limit it says `max`.
                memory_limit: number("memory", "memory.max"),
                pids: number("pids", "pids.current").unwrap_or(0),
                read_bytes: total("rbytes"),
                written_bytes: total("wbytes"),
                reads: total("rios"),
                writes: total("wios"),
            };
        }
        let block = |file: &str, kind: &str| {
            let text = read("blkio", file).unwrap_or_default();
            let of_kind = |line: &str| line.split_once(' ')?.1.strip_prefix(kind)?.trim().parse::<u64>().ok();
            text.lines().filter_map(of_kind).sum()
        };
        Stats {
            cpu_nanos: number("cpuacct", "cpuacct.usage").unwrap_or(0),
            throttled_nanos: field("cpu", "cpu.stat", "throttled_time"),
            memory_bytes: number("memory", "memory.usage_in_bytes").unwrap_or(0),
            inactive_file_bytes: field("memory", "memory.stat", "total_inactive_file"),
            memory_peak_bytes: number("memory", "memory.max_usage_in_bytes").unwrap_or(0),
            // Without a limit it says the largest number of whole pages.
            memory_limit: number("memory", "memory.limit_in_bytes").filter(|bytes| *bytes < 1 << 62),
            pids: number("pids", "pids.current").unwrap_or(0),
            read_bytes: block("blkio.throttle.io_service_bytes", "Read"),
            written_bytes: block("blkio.throttle.io_service_bytes", "Write"),
            reads: block("blkio.throttle.io_serviced", "Read"),
            writes: block("blkio.throttle.io_serviced", "Write"),
        }
    }
}

/// The kind of a file system, by its magic number.
fn kind(path: &Path) -> rustix::io::Result<i64> {
    rustix::fs::statfs(path).map(|found| found.f_type)
}

fn relative(group: &str) -> &Path {
    Path::new(group.trim_start_matches('/'))
}

fn number_or_max(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

fn is_of_swap(file: &str) -> bool {
    matches!(file, "memory.memsw.limit_in_bytes" | "memory.swap.max" | "memory.swappiness")
}

/// A value in lines of `name value`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Makes a group of version 1. Those above it are there but for the first time, so they are only looked at then: there are
/// ten hierarchies.
fn make_first(mount: &Path, group: &Path) -> io::Result<()> {
    let made = match (fs::create_dir(group), group.parent()) {
        (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound && above != mount => {
            make_first(mount, above)?;
            fs::create_dir(group)
        }
        (made, _) => made,
    };
    unless_there(made)
}

/// Makes a group of version 2, and has those above it pass their controllers on, which somebody else may have made and
/// not come to yet.
fn make_second(mount: &Path, group: &str) -> io::Result<()> {
    let mut at = mount.to_owned();
    for part in relative(group).components() {
        pass_controllers_on(&at);
        at.push(part);
        unless_there(fs::create_dir(&at))?;
    }
    Ok(())
}

fn unless_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Lets groups below limit what this one may. What the kernel does not have it cannot pass on.
fn pass_controllers_on(directory: &Path) {
    let there = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let passed = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        let has = |list: &str| list.split_ascii_whitespace().any(|name| name == controller);
        if has(&there) && !has(&passed) {
            // A limit that needs it fails later, and says so.
            let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
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

/// Where a group may be: in each hierarchy, whatever the layout is.
fn candidates(group: &str) -> Vec<PathBuf> {
    let hierarchies = Hierarchies::of_host().map(|all| all.directories(group)).unwrap_or_default();
    let mut all: Vec<PathBuf> = hierarchies.into_iter().map(|(directory, _)| directory).collect();
    // Of the hybrid layout: see `join`.
    all.extend(Some(Path::new(ROOT).join("unified").join(relative(group))).filter(|path| path.exists()));
    all
}

/// Kills what runs in a group. Of groups by this path only our containers are members.
pub fn kill(group: &str) {
    for directory in candidates(group) {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
            // One that is gone is what is wanted.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Whether the kernel killed in a group for its memory use.
pub fn killed_for_memory(group: &str) -> bool {
    let killed = |line: &str| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0");
    candidates(group)
        .into_iter()
        .flat_map(|directory| [directory.join("memory.oom_control"), directory.join("memory.events")])
        .filter_map(|file| fs::read_to_string(file).ok())
        .any(|text| text.lines().any(killed))
}

/// Removes a group in every hierarchy. False while one is busy. One that is not there is gone.
pub fn remove(group: &str) -> bool {
    let mut clean = true;
    for directory in candidates(group) {
        match fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => clean = false,
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn unified(directory: &Path) -> Hierarchies {
        Hierarchies { mounts: vec![(directory.to_owned(), Vec::new())] }
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let directory = tempfile::tempdir().unwrap();
        let one = |controller: &str| (directory.path().join(controller), vec![controller.to_owned()]);
        let first = Hierarchies { mounts: ["cpu", "memory"].map(one).to_vec() };
        for controller in ["cpu", "memory"] {
            fs::create_dir(directory.path().join(controller)).unwrap();
        }
        let second = unified(directory.path());
        let limits = TaskLimits { cpu_shares: Some(1024), cpu_quota: Some(25_000), memory: Some(512 << 20) };
        first.limit_task("/gantry/t/1", limits).unwrap();
        second.limit_task("/gantry/t/1", limits).unwrap();
        let read = |file: &str| fs::read_to_string(directory.path().join(file)).unwrap();
        assert_eq!(read("cpu/gantry/t/1/cpu.shares"), "1024");
        assert_eq!(read("cpu/gantry/t/1/cpu.cfs_quota_us"), "25000");
        assert_eq!(read("memory/gantry/t/1/memory.limit_in_bytes"), "536870912");
        assert_eq!(read("gantry/t/1/cpu.weight"), "39");
        assert_eq!(read("gantry/t/1/cpu.max"), "25000 100000");
        assert_eq!(read("gantry/t/1/memory.max"), "536870912");
    }

    #[test]
    fn a_group_that_another_agent_has_only_just_made_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let all = Hierarchies { mounts: vec![(directory.path().to_owned(), vec!["cpuset".to_owned()])] };
        fs::create_dir(directory.path().join("gantry")).unwrap();
        for (file, text) in [("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")] {
            fs::write(directory.path().join(file), text).unwrap();
            fs::write(directory.path().join("gantry").join(file), "\n").unwrap();
        }
        all.make("/gantry/t/1").unwrap();
        for group in ["gantry", "gantry/t", "gantry/t/1"] {
            let cpus = fs::read_to_string(directory.path().join(group).join("cpuset.cpus")).unwrap();
            assert_eq!(cpus, "0-1\n", "{group}");
        }
    }

    #[test]
    fn use_is_read_in_the_words_of_version_2() {
        let directory = tempfile::tempdir().unwrap();
        let group = directory.path().join("c");
        fs::create_dir(&group).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nthrottled_usec 7\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 2048\n"),
            ("pids.current", "3\n"),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n"),
        ] {
            fs::write(group.join(file), text).unwrap();
        }
        let stats = unified(directory.path()).stats("/c");
        assert_eq!((stats.cpu_nanos, stats.throttled_nanos, stats.pids), (1_500_000, 7_000, 3));
        assert_eq!((stats.memory_bytes, stats.inactive_file_bytes, stats.memory_limit), (4096, 2048, None));
        assert_eq!((stats.read_bytes, stats.written_bytes, stats.reads, stats.writes), (15, 20, 2, 2));
    }
}
