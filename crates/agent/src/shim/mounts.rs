//! Mounts by descriptors: made away from any path, given their restrictions, and only then attached to a place that was
//! found without leaving the container's root. Between looking and mounting there is no name that a neighbour with a
//! shared volume could exchange. Takes Linux 5.12.

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Tries of a look-up that something is renamed under. A container that renames all the time is the one that waits.
const RESOLVE_TRIES: usize = 64;

/// Links that are followed to one place: as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// What a mount does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_devices: bool,
    pub no_exec: bool,
    pub no_access_times: bool,
}

impl Flags {
    pub const READ_ONLY: Flags =
        Flags { read_only: true, no_suid: false, no_devices: false, no_exec: false, no_access_times: false };
    /// Neither programs nor devices in it work.
    pub const INERT: Flags =
        Flags { read_only: false, no_suid: true, no_devices: true, no_exec: true, no_access_times: false };

    pub fn read_only(self, read_only: bool) -> Flags {
        Flags { read_only, ..self }
    }

    fn attributes(self) -> MountAttrFlags {
        let mut flags = MountAttrFlags::empty();
        flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, self.read_only);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOSUID, self.no_suid);
        flags.set(MountAttrFlags::MOUNT_ATTR_NODEV, self.no_devices);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, self.no_exec);
        flags.set(MountAttrFlags::MOUNT_ATTR_NOATIME, self.no_access_times);
        flags
    }
}

/// A mount that is not attached yet, or the place of one.
#[derive(Debug)]
pub struct Mount(OwnedFd);

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Mount {
    /// One that another process made.
    fn from(fd: OwnedFd) -> Mount {
        Mount(fd)
    }
}

impl From<Mount> for OwnedFd {
    fn from(mount: Mount) -> OwnedFd {
        mount.0
    }
}

impl Mount {
    /// A new file system. Options without a value are flags.
    pub fn new(kind: &str, options: &[(&str, &str)], flags: Flags) -> io::Result<Mount> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (name, value) in options {
            if value.is_empty() {
                fsconfig_set_flag(&context, *name)?;
            } else {
                fsconfig_set_string(&context, *name, *value)?;
            }
        }
        fsconfig_create(&context)?;
        Ok(Mount(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags.attributes())?))
    }

    /// A second view of a file or directory, with all that is mounted below it. What is mounted there later does not
    /// show.
    pub fn bind(at: impl AsFd, path: &Path, flags: Flags) -> io::Result<Mount> {
        let how = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let mount = Mount(open_tree(at, path, how)?);
        mount.restrict(flags)?;
        Ok(mount)
    }

    /// A second view of a file system's place, without what is mounted below it.
    pub fn view(path: &Path, flags: Flags) -> io::Result<Mount> {
        let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = Mount(open_tree(CWD, path, how)?);
        mount.restrict(flags)?;
        Ok(mount)
    }

    /// A second view of a path of this process.
    pub fn bind_path(path: &Path, flags: Flags) -> io::Result<Mount> {
        Mount::bind(CWD, path, flags)
    }

    /// Sets restrictions, here and below, and cuts the ties to where it came from.
    pub fn restrict(&self, flags: Flags) -> io::Result<()> {
        #[repr(C)]
        struct Attributes {
            set: u64,
            clear: u64,
            propagation: u64,
            user_namespace: u64,
        }
        let attributes = Attributes {
            set: u64::from(flags.attributes().bits()),
            // The setting of access times is a field of its own, which is cleared to be set.
            clear: if flags.no_access_times { MountAttrFlags::MOUNT_ATTR__ATIME.bits().into() } else { 0 },
            propagation: libc::MS_PRIVATE,
            user_namespace: 0,
        };
        // SAFETY: the structure is as large as said, and lives until the call returns; the path is empty.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                self.0.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
                std::ptr::from_ref(&attributes),
                size_of::<Attributes>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    pub fn is_directory(&self) -> io::Result<bool> {
        Ok(FileType::from_raw_mode(fstat(&self.0)?.st_mode) == FileType::Directory)
    }

    /// Attaches it on a place that was opened.
    pub fn attach(&self, place: impl AsFd) -> io::Result<()> {
        let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, "", place, "", how)?)
    }
}

/// The root of a container, through which everything in it is found.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        Ok(Root(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// What is at a path, following links inside the root.
    pub fn find(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.look(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// What is at a path without any link on the way.
    pub fn find_plain(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.look(path, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// The same, where what is at the path may itself be a link.
    fn find_link(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        self.open_at(path, OFlags::NOFOLLOW, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    fn look(&self, path: &str, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        self.open_at(path, OFlags::empty(), resolve)
    }

    fn open_at(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        for _ in 0..RESOLVE_TRIES {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The place for a mount; what is missing is made, directories as Docker does (0755, root's), or an empty file. A
    /// link to what is missing is followed inside the root, so that what it leads to is made.
    pub fn place(&self, path: &str, directory: bool) -> io::Result<OwnedFd> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leads upwards"));
        }
        match self.find(&parts.join("/")) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        // Links are read one by one here: every look-up is of a path without any.
        let mut ahead: Vec<String> = parts.into_iter().rev().map(str::to_owned).collect();
        let mut behind: Vec<String> = Vec::new();
        let (mut parent, mut links) = (self.find_plain("")?, 0);
        while let Some(name) = ahead.pop() {
            if name == ".." {
                behind.pop();
                parent = self.find_plain(&behind.join("/"))?;
                continue;
            }
            behind.push(name);
            let path = behind.join("/");
            let found = match self.find_link(&path) {
                Err(Errno::NOENT) => {
                    let name = behind.last().map(String::as_str).unwrap_or_default();
                    if directory || !ahead.is_empty() {
                        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    } else {
                        let how = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                        openat(&parent, name, how, Mode::from_raw_mode(0o644))?;
                    }
                    self.find_plain(&path)?
                }
                other => other?,
            };
            if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink {
                parent = found;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            let target = readlinkat(&found, "", Vec::new())?;
            let target = target.to_str().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            let parts = target.split('/').filter(|part| !part.is_empty() && *part != ".");
            ahead.extend(parts.rev().map(str::to_owned));
            behind.pop();
            if target.starts_with('/') {
                behind.clear();
                parent = self.find_plain("")?;
            }
        }
        Ok(parent)
    }

    /// Attaches a mount at a path.
    pub fn attach(&self, mount: &Mount, path: &str) -> io::Result<()> {
        mount.attach(self.place(path, mount.is_directory()?)?)
    }
}
