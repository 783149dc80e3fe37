//! The process's descriptors: as many as the system lets it have, and room for them before they are needed.

use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs::File;
use std::io;

/// Descriptors that there is room for from the start: 128 KiB of the kernel's memory. A process of several threads whose
/// table of descriptors grows waits until every processor has let go of the old one (`expand_fdtable` in the kernel calls
/// `synchronize_rcu`): measured as 5 to 17 ms, at 256, 512, 1,024 descriptors and so on, in which nothing is served.
const ROOM: i32 = 16 * 1024;

/// Raises the soft limit of descriptors to the hard one, which systems set for programs that know what they do (1,024 and
/// 524,288 are common, and a load balancer's request takes two), and makes room for them. To be called before there are
/// threads.
///
/// # Errors
/// When the system refuses; all goes on as it did.
pub fn prepare() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let most = limit.maximum.and_then(|most| i32::try_from(most).ok()).unwrap_or(ROOM);
    // The kernel makes room up to the highest descriptor that there ever was.
    rustix::io::fcntl_dupfd_cloexec(File::open("/dev/null")?, ROOM.min(most) - 1)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel tells of this process, in `/proc/self/status`.
    fn room() -> i32 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        line.trim().parse().unwrap()
    }

    #[test]
    fn all_that_are_allowed_can_be_had_and_there_is_room() {
        prepare().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert!(room() >= ROOM.min(limit.maximum.unwrap().try_into().unwrap_or(ROOM)));
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let highest = open.filter_map(|fd| fd.unwrap().file_name().to_str()?.parse::<i32>().ok()).max();
        assert!(highest.is_some_and(|highest| highest < 1024), "nothing is left open there");
    }
}
