//! What a volume begins with: as with Docker, an empty one gets what the image has where it is mounted, with owners and
//! modes. So a program that is not root finds a directory that it may write to.

use crate::images::Confined;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Timestamps, Uid};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

/// Directories below each other: far beyond what programs make, well within a thread's stack and descriptors.
const DEPTH_MAX: usize = 128;

/// Copies what the layers, uppermost first, have at `target` into the empty directory `volume`. Nothing there is nothing
/// to copy. `scratch` is a directory that is not there, for as long as this takes.
///
/// # Errors
/// When a file cannot be copied; the volume may then hold a part.
pub fn seed(layers: &[PathBuf], target: &str, volume: &Path, scratch: &Path) -> io::Result<()> {
    fs::create_dir_all(scratch)?;
    // A thread of its own, with mounts of its own, that ends with them.
    let copied = thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let Some(from) = open(layers, target, scratch)? else { return Ok(()) };
            let to: OwnedFd = File::open(volume)?.into();
            let stat = rustix::fs::fstat(&from)?;
            copy_directory(from, to.as_fd(), 0)?;
            rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
            Ok(rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
        });
        copying.join().unwrap_or_else(|_| Err(io::Error::other("the copying thread panicked")))
    });
    let removed = fs::remove_dir_all(scratch);
    copied.and(removed)
}

/// The directory as the image has it.
fn open(layers: &[PathBuf], target: &str, scratch: &Path) -> io::Result<Option<OwnedFd>> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    std::env::set_current_dir(scratch)?;
    // Options of mount(2) must fit a page, so that layers go by short names. Two are the least that can be stacked.
    for directory in ["image", "empty"] {
        fs::create_dir(directory)?;
    }
    let mut lower = String::new();
    for (index, layer) in layers.iter().enumerate() {
        std::os::unix::fs::symlink(layer, index.to_string())?;
        lower.push_str(&format!("{index}:"));
    }
    let options = format!("lowerdir={lower}empty");
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some("overlay"), "image", Some("overlay"), flags, Some(options.as_str()))?;
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name.as_bytes()),
        }
    }
    let image = Confined::open(Path::new("image"))?;
    match image.existing(&parts) {
        Ok(directory) => Ok(Some(readable(directory.as_fd(), c".")?)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn readable(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

/// Directories, files and links; devices, pipes and sockets of an image mean nothing in a volume.
fn copy_directory(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("more than {DEPTH_MAX} directories below each other")));
    }
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let below = readable(to, name)?;
                copy_directory(readable(from.as_fd(), name)?, below.as_fd(), depth + 1)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(rustix::fs::openat(&from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                io::copy(&mut source, &mut File::from(made))?;
            }
            FileType::Symlink => {
                let leads = rustix::fs::readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(leads.as_c_str(), to, name)?;
            }
            _ => continue,
        }
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // After the owner, whose change takes special bits away.
            rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
        }
        let times = Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: stat.st_atime,
                tv_nsec: stat.st_atime_nsec.cast_signed(),
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: stat.st_mtime_nsec.cast_signed(),
            },
        };
        rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
