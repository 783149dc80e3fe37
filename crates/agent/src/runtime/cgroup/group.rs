//! A group in each hierarchy that is used, open: setting its limits, and moving processes into it.

use super::hierarchy::{open_at, read_at, write_at};
use super::{CPU_PERIOD_MICROS, Hierarchies, PIDS_DEFAULT, TaskLimits, weight};
use crate::runtime::ContainerConfig;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// What is written to a group: files and values, by controller.
type Setting = (&'static str, &'static str, String);

/// See the module.
#[derive(Debug)]
pub struct Group<'a> {
    pub(super) all: &'a Hierarchies,
    /// As the hierarchies that are used.
    pub(super) places: Vec<OwnedFd>,
}

impl Group<'_> {
    /// Where this controller is.
    pub fn place(&self, controller: &str) -> Option<&OwnedFd> {
        let found = self.all.used.iter().position(|hierarchy| hierarchy.has(controller));
        found.and_then(|index| self.places.get(index))
    }

    /// The one of version 2, if that is what there is.
    pub fn unified(&self) -> Option<&OwnedFd> {
        self.places.first().filter(|_| self.all.is_unified())
    }

    /// What threads write themselves into, in version 1: other than a process, a thread that moves itself need not wait for
    /// the whole machine, which took ten milliseconds at times.
    pub fn entrances(&self) -> io::Result<Vec<File>> {
        self.places.iter().map(|place| open_at(place, "tasks")).collect()
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<i32> {
        self.places.first().map(members_at).unwrap_or_default()
    }

    /// Limits a task's group.
    pub fn limit_task(&self, limits: TaskLimits) -> io::Result<()> {
        let TaskLimits { cpu_shares, cpu_quota, memory } = limits;
        self.write(&self.cpu(cpu_shares, cpu_quota))?;
        self.write(&self.memory(memory, None, None, None))
    }

    /// Limits a container's group.
    pub fn limit_container(&self, config: &ContainerConfig) -> io::Result<()> {
        self.write(&self.cpu(config.cpu_shares, config.cpu_quota))?;
        self.write(&self.memory(
            config.memory_limit,
            config.memory_reservation,
            config.memory_swap,
            config.memory_swappiness,
        ))?;
        let pids = config.pids_limit.filter(|limit| *limit != 0).unwrap_or(PIDS_DEFAULT);
        self.write(&[("pids", "pids.max", number_or_max(pids))])
    }

    fn cpu(&self, shares: Option<u64>, quota: Option<i64>) -> Vec<Setting> {
        let mut settings = Vec::new();
        if self.all.is_unified() {
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
        if self.all.is_unified() {
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
    fn write(&self, settings: &[Setting]) -> io::Result<()> {
        for (controller, file, value) in settings {
            let written = match self.place(controller) {
                Some(place) => write_at(place, file, value),
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
}

/// The processes in a group.
pub(super) fn members_at(place: &OwnedFd) -> Vec<i32> {
    let text = read_at(place, "cgroup.procs").unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect()
}

fn number_or_max(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

fn is_of_swap(file: &str) -> bool {
    matches!(file, "memory.memsw.limit_in_bytes" | "memory.swap.max" | "memory.swappiness")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::{first, unified};
    use super::*;
    use std::fs;
    use std::path::Path;

    const LIMITS: TaskLimits =
        TaskLimits { cpu_shares: Some(1024), cpu_quota: Some(25_000), memory: Some(512 << 20) };

    /// A group with the files that a kernel would give it.
    fn limited(all: &Hierarchies, directory: &Path, files: &[&str]) -> Vec<String> {
        let group = all.make("/gantry/t/1").unwrap();
        for file in files {
            fs::write(directory.join(file), "").unwrap();
        }
        group.limit_task(LIMITS).unwrap();
        files.iter().map(|file| fs::read_to_string(directory.join(file)).unwrap()).collect()
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            "cpu/gantry/t/1/cpu.shares",
            "cpu/gantry/t/1/cpu.cfs_quota_us",
            "memory/gantry/t/1/memory.limit_in_bytes",
        ];
        let first = first(directory.path(), &["cpu", "memory"]);
        assert_eq!(limited(&first, directory.path(), &files), ["1024", "25000", "536870912"]);
        let files = ["cpu.weight", "cpu.max", "memory.max"].map(|file| format!("gantry/t/1/{file}"));
        let files = files.each_ref().map(String::as_str);
        let second = unified(directory.path());
        assert_eq!(limited(&second, directory.path(), &files), ["39", "25000 100000", "536870912"]);
    }

    #[test]
    fn a_kernel_that_does_not_count_swap_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let all = first(directory.path(), &["memory"]);
        let group = all.make("/gantry/t/1").unwrap();
        let setting = |file| [("memory", file, "1".to_owned())];
        group.write(&setting("memory.memsw.limit_in_bytes")).unwrap();
        let error = group.write(&setting("memory.limit_in_bytes")).unwrap_err();
        assert!(error.to_string().starts_with("memory.limit_in_bytes=1: "), "{error}");
    }
}
