//! File operations that cannot leave a directory, whatever the paths and links in it say.
//!
//! Parents are opened with `openat2(RESOLVE_IN_ROOT)`, so that links are followed as a container would; the last
//! component is only ever used relative to its parent and never followed.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Tries for an `openat2` that lost a race against a rename elsewhere on the file system.
const RESOLVE_TRIES: usize = 16;

/// A directory opened as the root of everything that is done through it.
pub struct Confined {
    root: OwnedFd,
    /// The parent used last: archives list a directory's entries together.
    recent: Option<(Vec<u8>, OwnedFd)>,
}

/// A path in its parts. None of them is empty, `.`, `..` or holds a slash or NUL.
pub type Parts<'a> = [&'a [u8]];

impl Confined {
    pub fn open(root: &Path) -> rustix::io::Result<Confined> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Confined { root, recent: None })
    }

    /// The directory `parts`, following links inside the root; missing ones are made (0755, root's).
    pub fn directory(&mut self, parts: &Parts<'_>) -> rustix::io::Result<&OwnedFd> {
        let path = parts.join(&b'/');
        if self.recent.as_ref().is_none_or(|(recent, _)| *recent != path) {
            let fd = match self.resolve(&path) {
                Err(Errno::NOENT) => self.make_directories(parts)?,
                other => other?,
            };
            self.recent = Some((path, fd));
        }
        match &self.recent {
            Some((_, fd)) => Ok(fd),
            None => Err(Errno::NOENT),
        }
    }

    /// The existing directory `parts`, without making anything.
    pub fn existing(&self, parts: &Parts<'_>) -> rustix::io::Result<OwnedFd> {
        self.resolve(&parts.join(&b'/'))
    }

    /// Forgets the parent used last; to be called when a directory or link is replaced.
    pub fn forget(&mut self) {
        self.recent = None;
    }

    fn make_directories(&self, parts: &Parts<'_>) -> rustix::io::Result<OwnedFd> {
        let mut parent = self.resolve(b"")?;
        for end in 1..=parts.len() {
            let path = parts[..end].join(&b'/');
            parent = match self.resolve(&path) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&parent, parts[end - 1], Mode::from_raw_mode(0o755))?;
                    self.resolve(&path)?
                }
                other => other?,
            };
        }
        Ok(parent)
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        for _ in 0..RESOLVE_TRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

/// What `name` in `parent` is, without following it. None if there is nothing.
pub fn kind_of(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<(FileType, u64)>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_rdev))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes `name` in `parent` with all that is below it, never following a link. No error if there is nothing.
///
/// Iterative and with a handful of open files, because a hostile tree can be deeper than a stack.
pub fn remove_tree(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let open = |at: &dyn AsFdDyn, name: &[u8]| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at.fd(), name, flags, Mode::empty())
    };
    let mut current = open(&parent.as_fd(), name)?;
    let mut below: Vec<CString> = Vec::new();
    loop {
        match empty_files(&current)? {
            Some(child) => {
                current = open(&current.as_fd(), child.to_bytes())?;
                below.push(child);
            }
            None => match below.pop() {
                Some(done) => {
                    current = open(&current.as_fd(), b"..")?;
                    rustix::fs::unlinkat(&current, done, AtFlags::REMOVEDIR)?;
                }
                None => return rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            },
        }
    }
}

/// A borrowed descriptor behind one type, so that one closure opens from owned and borrowed ones.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl AsFdDyn for std::os::fd::BorrowedFd<'_> {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        *self
    }
}

/// Unlinks what is not a directory in `directory`; the first subdirectory that it meets, if any.
fn empty_files(directory: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    let mut subdirectory = None;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                subdirectory = Some(name.to_owned());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(subdirectory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/usr", root.join("absolute")).unwrap();
        symlink("../../../..", root.join("up")).unwrap();
        let mut confined = Confined::open(&root).unwrap();
        for (path, made) in [("lib/x", "usr/lib/x"), ("absolute/y", "usr/y"), ("up/z", "z")] {
            let parts: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
            confined.directory(&parts).unwrap();
            assert!(root.join(made).is_dir(), "{path}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_tree_deeper_than_any_stack_goes() {
        let dir = tempfile::tempdir().unwrap();
        let base = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut at = base.try_clone().unwrap();
        for _ in 0..5_000 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o755)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        rustix::fs::symlinkat("/etc/passwd", &at, "link").unwrap();
        remove_tree(&base, b"d").unwrap();
        remove_tree(&base, b"d").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Path::new("/etc/passwd").exists());
    }
}
