//! Network namespaces, pinned by name where `ip netns` looks for them too.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

/// Where namespaces are pinned.
pub const DIRECTORY: &str = "/run/netns";

/// Where a namespace of this name is pinned.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Whether one of this name is there, complete.
pub fn exists(name: &str) -> bool {
    rustix::fs::statfs(path(name)).is_ok_and(|found| found.f_type == libc::NSFS_MAGIC)
}

/// Whose a namespace is that is to be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    New,
    /// That of a process which an engine started.
    Process(i32),
}

/// Whether the namespace that is pinned there is the one of a process.
pub fn is_of_process(path: &Path, pid: i32) -> bool {
    let same = |of: fs::Metadata, pinned: fs::Metadata| (of.dev(), of.ino()) == (pinned.dev(), pinned.ino());
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .and_then(|of| Ok(same(of, fs::metadata(path)?)))
        .unwrap_or(false)
}

/// Makes a namespace and runs `work` in it, on a thread of its own that ends with it: a thread that has left its
/// namespace is of no use any more. `before` runs on that thread while it is still in the host's.
///
/// It is pinned last: one that can be seen is complete, and a crash before leaves an empty file at most.
pub fn create<B: Send, T: Send>(
    name: &str,
    origin: Origin,
    before: impl FnOnce() -> io::Result<B> + Send,
    work: impl FnOnce(B, OwnedFd) -> io::Result<T> + Send,
) -> io::Result<T> {
    let path = path(name);
    let result = thread::scope(|scope| {
        let made = scope.spawn(|| {
            let prepared = before()?;
            fs::create_dir_all(DIRECTORY)?;
            File::create(&path)?;
            match origin {
                Origin::New => unshare(CloneFlags::CLONE_NEWNET)?,
                Origin::Process(pid) => {
                    setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
                }
            }
            let here = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
            let done = work(prepared, File::open(&here)?.into())?;
            mount(Some(here.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(done)
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    });
    if result.is_err() {
        // Half a namespace is of no use; the first error is the one to tell.
        let _ = remove(name);
    }
    result
}

/// Runs `work` in a namespace that is pinned, on a thread of its own.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path(name))?;
    thread::scope(|scope| {
        let done = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        done.join().unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    })
}

/// Unpins it; it goes with its last process. One that is not there is no error.
pub fn remove(name: &str) -> io::Result<()> {
    let path = path(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINVAL) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The names that begin so.
pub fn list(prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(DIRECTORY).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(prefix)).collect()
}
