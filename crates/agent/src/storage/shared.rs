//! Directories whose mounts show in the mount namespaces of containers' shims. On hosts where systemd is not the first
//! process every mount is private, and what the agent mounts after a shim's namespace was made would not be seen there.

use nix::mount::{MsFlags, mount};
use parking_lot::Mutex;
use std::fs;
use std::io;
use std::path::Path;

/// Of statfs(2).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// Agents in one process share directories one after the other: two would both find nothing shared.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Makes mounts below a directory show wherever this mount namespace is copied to from now on. Stays so until the host
/// restarts, as `/run/netns` does after `ip netns add`: a mount of its own, which a namespace can do without. Where `/run` is
/// on a disk, a directory that nobody uses yet comes to be in memory, as it is elsewhere: what is there is of no use after
/// a restart, and quicker to make.
///
/// # Errors
/// When the directory cannot be made or mounted.
pub fn share(directory: &Path) -> io::Result<()> {
    let _alone = ONE_AT_A_TIME.lock();
    fs::create_dir_all(directory)?;
    let directory = fs::canonicalize(directory)?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let (is_own, is_shared) = match mount_of(&text, &directory) {
        Some((point, is_shared)) => (point == directory, is_shared),
        None => (false, false),
    };
    let is_used = fs::read_dir(&directory)?.next().is_some();
    // What is mounted in one that is used already would be hidden.
    if is_shared && (is_own || is_used) {
        return Ok(());
    }
    if !is_own && !is_used && !is_in_memory(&directory)? {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), &directory, Some("tmpfs"), flags, Some("mode=755"))?;
    } else if !is_own {
        mount(Some(&directory), &directory, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    // With nobody yet: what is mounted here would else be mounted below a shared /run, too.
    for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
        mount(None::<&str>, &directory, None::<&str>, propagation, None::<&str>)?;
    }
    Ok(())
}

fn is_in_memory(directory: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(directory)?.f_type;
    Ok(kind == libc::TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

/// The place of the mount that a path is in, and whether it is shared.
fn mount_of<'a>(mountinfo: &'a str, path: &Path) -> Option<(&'a Path, bool)> {
    let mut found: Option<(&Path, bool)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4).map(Path::new) else { continue };
        // Of mounts over each other the last is the one that is seen.
        let is_deeper = found.is_none_or(|(known, _)| point.starts_with(known));
        if path.starts_with(point) && is_deeper {
            // After the options, up to a hyphen.
            let shared = fields.skip(1).take_while(|field| *field != "-").any(|f| f.starts_with("shared:"));
            found = Some((point, shared));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_a_path_is_found() {
        let text = "\
26 27 254:0 / / rw,relatime - ext4 /dev/vda rw
28 26 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
29 28 0:26 / /run/netns rw,relatime master:1 - tmpfs tmpfs rw
30 29 0:26 / /run/netns rw,relatime shared:2 master:1 - tmpfs tmpfs rw
";
        let found = |path: &str| mount_of(text, Path::new(path));
        assert_eq!(found("/srv/data"), Some((Path::new("/"), false)));
        assert_eq!(found("/run/gantry"), Some((Path::new("/run"), true)));
        assert_eq!(found("/runner"), Some((Path::new("/"), false)));
        assert_eq!(found("/run/netns"), Some((Path::new("/run/netns"), true)));
    }
}
