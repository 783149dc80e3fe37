//! Managed EBS volumes and ephemeral storage: a file of the size asked for, with a file system in it, mounted through a
//! loop device.
//!
//! The file is sparse: it takes of the host's disk what the task has written. Making one takes the host's `mkfs`
//! programs, which every distribution has for ext4.

use super::{StorageError, is_mounted};
use gantry_api::acs;
use nix::mount::{MsFlags, mount};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the agent's directory: volumes that outlive their tasks.
pub const KEPT: &str = "kept-volumes";

const BYTES_PER_GIB: u64 = 1 << 30;
/// Of EBS's largest volume.
const GIB_MAX: u64 = 65_536;
/// Where loop devices are asked for.
const CONTROL: &str = "/dev/loop-control";
/// A device that was free may be taken by another before it is set up.
const LOOP_TRIES: usize = 16;
/// From the kernel's header: the next free device, and setting one up in one step (Linux 5.8).
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
/// The device goes with its last user.
const AUTOCLEAR: u32 = 4;

/// File systems by the preference of ECS, which has XFS where nothing else is asked for.
const KINDS: [&str; 2] = ["xfs", "ext4"];

/// A volume as the payload's attachment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The file that holds it.
    file: PathBuf,
    bytes: u64,
    /// As asked for.
    kind: Option<String>,
    /// Nobody looks at it again once it is unmounted, or its host has gone down.
    passing: bool,
}

impl Disk {
    /// The volume of this name among a task's attachments. `of_task` is the directory of the task's volumes.
    ///
    /// # Errors
    /// For one that is not there, or makes no sense.
    pub fn read(
        task: &acs::Task,
        volume: &str,
        of_task: &Path,
        data_dir: &Path,
    ) -> Result<Disk, StorageError> {
        let refused = |text: &str| StorageError::Refused(text.to_owned());
        let property = |attachment: &acs::TaskAttachment, name: &str| {
            let mut all = attachment.attachment_properties.iter().flatten();
            all.find(|property| property.name.as_deref() == Some(name))?.value.clone()
        };
        let mut attachments = task.attachments.iter().flatten();
        let attachment = attachments.find(|attachment| {
            attachment.attachment_type.as_deref() == Some("amazonebs")
                && property(attachment, "volumeName").as_deref() == Some(volume)
        });
        let attachment = attachment.ok_or_else(|| refused("no attachment says what it is"))?;
        let size = property(attachment, "volumeSizeGib").and_then(|size| size.parse::<u64>().ok());
        let size =
            size.filter(|size| (1..=GIB_MAX).contains(size)).ok_or_else(|| refused("it has no size"))?;
        let id = property(attachment, "volumeId").unwrap_or_default();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(refused("its id cannot name a file"));
        }
        let kind = property(attachment, "fileSystem");
        if kind.as_deref().is_some_and(|kind| !matches!(kind, "ext3" | "ext4" | "xfs")) {
            return Err(refused("its file system cannot be made here"));
        }
        let kept = property(attachment, "deleteOnTermination").as_deref() == Some("false");
        let directory = if kept { data_dir.join(KEPT) } else { of_task.to_owned() };
        let file = directory.join(format!("{id}.img"));
        Ok(Disk { file, bytes: size * BYTES_PER_GIB, kind, passing: false })
    }

    /// One that is of use as long as it is mounted, of so many GiB.
    pub fn passing(file: PathBuf, gib: u64) -> Disk {
        let bytes = gib.clamp(1, GIB_MAX) * BYTES_PER_GIB;
        Disk { file, bytes, kind: Some("ext4".to_owned()), passing: true }
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes and mounts it, if it is not there yet.
    ///
    /// # Errors
    /// When the host lacks what it takes: a `mkfs` for the file system, loop devices, room.
    pub fn provide(&self, place: &Path) -> Result<(), StorageError> {
        fs::create_dir_all(place).map_err(StorageError::io(place.display().to_string()))?;
        if is_mounted(place).map_err(StorageError::io("looking what is mounted"))? {
            return Ok(());
        }
        let (kind, program) = self.program()?;
        let directory = self.file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(StorageError::io(directory.display().to_string()))?;
        // A file without a file system in it, after a crash, is made anew.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.file);
        let file = file.map_err(StorageError::io(self.file.display().to_string()))?;
        file.set_len(self.bytes).map_err(StorageError::io("making a file of its size"))?;
        format(&program, if self.passing { PASSING } else { kind }, &self.file)?;
        let (device, _held) = attach(&file).map_err(StorageError::io("attaching a loop device"))?;
        // What is deleted in it gives the host's room back.
        let options = self.passing.then_some("discard");
        mount(Some(&device), place, Some(kind), MsFlags::empty(), options)
            .map_err(|error| StorageError::io(format!("mounting {kind}"))(error.into()))
    }

    /// The file system to make, and what makes it.
    fn program(&self) -> Result<(&str, PathBuf), StorageError> {
        let kinds = self.kind.as_deref().map_or(KINDS.to_vec(), |kind| vec![kind]);
        let found = kinds.iter().find_map(|kind| Some((*kind, find(&format!("mkfs.{kind}"))?)));
        found.ok_or_else(|| {
            StorageError::Refused(format!("this host has no mkfs.{}", kinds.last().unwrap_or(&"ext4")))
        })
    }
}

/// An ext4 file system without what it takes to survive its host.
const PASSING: &str = "passing";

/// A program of the system's.
fn find(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.exists())
}

fn format(program: &Path, kind: &str, file: &Path) -> Result<(), StorageError> {
    let mut command = Command::new(program);
    match kind {
        "xfs" => command.args(["-q", "-f"]),
        // Tables are zero in a file that was empty, and nothing is there to be discarded.
        PASSING => command
            .args(["-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode"])
            .args(["-E", "lazy_itable_init=1,nodiscard"]),
        _ => command.args(["-q", "-F", "-m", "0"]),
    };
    let output = command.arg(file).stdin(Stdio::null()).output();
    let output = output.map_err(StorageError::io(program.display().to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(256).collect();
    Err(StorageError::Refused(format!("{}: {said}", program.display())))
}

/// A loop device for a file, held open: it goes when nobody has it open or mounted any more.
fn attach(file: &File) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    for _ in 0..LOOP_TRIES {
        // SAFETY: takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        // The kernel's `loop_config`: the file, the size of blocks (0: the default), then 232 bytes of `loop_info64`,
        // whose flags come after five numbers of 64 bits and three of 32, then 64 reserved bytes.
        let mut config = [0_u8; 304];
        config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
        config[60..64].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
        // SAFETY: the kernel reads the 304 bytes of its structure, and no more.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) };
        if result == 0 {
            return Ok((path, device));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn task(size: &str, id: &str, rest: &str) -> acs::Task {
        let text = format!(
            r#"{{"attachments":[{{"attachmentType":"amazonebs","attachmentProperties":[
            {{"name":"volumeName","value":"data"}},{{"name":"volumeSizeGib","value":"{size}"}},
            {{"name":"volumeId","value":"{id}"}}{rest}]}}]}}"#
        );
        gantry_wire::json::from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn attachments_are_read() {
        let read =
            |task: &acs::Task, name: &str| Disk::read(task, name, Path::new("/d/volumes/t"), Path::new("/d"));
        let disk = read(&task("3", "vol-1", ""), "data").unwrap();
        let file = PathBuf::from("/d/volumes/t/vol-1.img");
        assert_eq!(disk, Disk { file, bytes: 3 << 30, kind: None, passing: false });
        let kept = task(
            "1",
            "vol-1",
            r#",{"name":"deleteOnTermination","value":"false"},{"name":"fileSystem","value":"ext4"}"#,
        );
        let disk = read(&kept, "data").unwrap();
        assert_eq!((disk.file, disk.kind.as_deref()), ("/d/kept-volumes/vol-1.img".into(), Some("ext4")));
        assert!(read(&kept, "other").is_err());
        for bad in [
            task("0", "vol-1", ""),
            task("99999999999", "vol-1", ""),
            task("1", "../x", ""),
            task("1", "", ""),
        ] {
            assert!(read(&bad, "data").is_err());
        }
        assert!(read(&task("1", "v", r#",{"name":"fileSystem","value":"ntfs"}"#), "data").is_err());
    }
}
