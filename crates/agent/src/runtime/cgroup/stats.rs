//! What a group uses, read in the words of each version.

use super::Hierarchies;

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

impl Hierarchies {
    /// What a group uses. What the kernel does not tell is 0.
    pub fn stats(&self, group: &str) -> Stats {
        let read = |controller: &str, file: &str| self.of(controller)?.read(group, file).ok();
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

/// A value in lines of `name value`.
fn value_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::unified;
    use std::fs;

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
