//! What a container's programs see as the root and below it: the image, the kernel's file systems, devices, volumes.
//! Runs in the container's first process and in its new namespaces, before the host's root is left.

use super::mounts::{Flags, Mount, Root};
use super::overlay;
use crate::runtime::cgroup::Hierarchies;
use crate::runtime::spec::{self, MASKED, READ_ONLY};
use crate::runtime::{ContainerConfig, Namespace, NetworkNamespace, TmpfsMount};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Device nodes that every container has, by major and minor number.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
/// What privileged containers do not get from the host's `/dev`: they have their own.
const OWN: [&str; 5] = ["pts", "shm", "mqueue", "console", "fd"];
/// What Docker lets users without rights do in networks that are not the host's: serve on every port, and ping.
const UNPRIVILEGED: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
/// Parameters of System V's objects.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// Bytes of the files in `/etc` together: far beyond what a task definition can ask for.
const NETWORK_FILES_MAX: &str = "1024k";
/// Devices of the host that a privileged container gets, and how deep they lie: far beyond what `/dev` holds.
const HOST_NODES_MAX: usize = 4096;
const HOST_NODES_DEPTH: usize = 4;

/// An error with what was being done.
fn doing(what: &str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// What of the file system goes with namespaces that are shared: another container's, or the host's.
#[derive(Debug, Default)]
pub struct Shared {
    pub proc: Option<Mount>,
    pub shm: Option<Mount>,
}

/// Builds it, and makes it the root of the calling process.
pub fn enter(
    directory: &Path,
    config: &ContainerConfig,
    groups: &Hierarchies,
    shared: &Shared,
) -> Result<(), String> {
    // Nothing that is mounted here shows on the host, and nothing there shows here.
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|error| format!("leaving the host's mounts: {error}"))?;
    overlay::mount(directory, config.layers.len())?;
    let root = Root::open(&directory.join("rootfs")).map_err(doing("the root file system"))?;
    let null = host_null().map_err(doing("the host's /dev/null"))?;
    kernel_file_systems(&root, config, groups, shared)?;
    files_and_volumes(&root, directory, config)?;
    if !config.privileged {
        mask(&root, null)?;
    }
    if config.read_only_root {
        seal(&root).map_err(doing("making the root file system read-only"))?;
    }
    leave_host(&root).map_err(doing("entering the root file system"))
}

fn kernel_file_systems(
    root: &Root,
    config: &ContainerConfig,
    groups: &Hierarchies,
    shared: &Shared,
) -> Result<(), String> {
    let own;
    let proc = match &shared.proc {
        Some(proc) => proc,
        None => {
            own = Mount::new("proc", &[], Flags::INERT).map_err(doing("/proc"))?;
            &own
        }
    };
    if config.network != NetworkNamespace::Host {
        for (name, value) in UNPRIVILEGED {
            // Kernels are built without.
            let _ = set_parameter(proc, name, value);
        }
    }
    // Before any volume is there, and through the mount itself: no name can lead elsewhere.
    for (name, value) in &config.sysctls {
        check_parameter(config, name)?;
        set_parameter(proc, name, value).map_err(|error| format!("sysctl {name}={value}: {error}"))?;
    }
    attach_plain(root, proc, "proc")?;

    let suid = Flags { no_suid: true, ..Flags::default() };
    let dev = Mount::new("tmpfs", &[("mode", "755"), ("size", "65536k")], suid).map_err(doing("/dev"))?;
    make_nodes(&dev, config.privileged).map_err(doing("the nodes in /dev"))?;
    attach_plain(root, &dev, "dev")?;
    let exec = Flags { no_suid: true, no_exec: true, ..Flags::default() };
    let pts = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let pts = Mount::new("devpts", &pts, exec).map_err(doing("/dev/pts"))?;
    attach_plain(root, &pts, "dev/pts")?;
    match &shared.shm {
        Some(shm) => attach_plain(root, shm, "dev/shm")?,
        None => {
            let size = config.shm_size.to_string();
            let shm = Mount::new("tmpfs", &[("mode", "1777"), ("size", &size)], Flags::INERT);
            attach_plain(root, &shm.map_err(doing("/dev/shm"))?, "dev/shm")?;
        }
    }
    // Kernels are built without.
    if let Ok(queues) = Mount::new("mqueue", &[], Flags::INERT) {
        attach_plain(root, &queues, "dev/mqueue")?;
    }
    // Never the host's own /sys: everything that the host mounted there would come along.
    let sealed = Flags::INERT.read_only(!config.privileged);
    let sys = Mount::new("sysfs", &[], sealed).map_err(doing("/sys"))?;
    attach_plain(root, &sys, "sys")?;
    control_groups(root, config, groups, sealed).map_err(doing("/sys/fs/cgroup"))
}

/// The container sees its own groups; who can write them has no limits.
fn control_groups(
    root: &Root,
    config: &ContainerConfig,
    groups: &Hierarchies,
    flags: Flags,
) -> io::Result<()> {
    let place = "sys/fs/cgroup";
    if groups.is_unified() {
        return root.attach(&Mount::new("cgroup2", &[], flags)?, place);
    }
    let top = Mount::new("tmpfs", &[("mode", "755")], Flags::INERT)?;
    root.attach(&top, place)?;
    let group = spec::cgroup(config);
    // Where it has no group of its own it is in that of shims, but for those that could not leave the agent's.
    let shims = groups.other_directories(super::GROUP).filter(|(directory, _)| directory.exists());
    for (directory, name) in groups.directories(&group).chain(shims) {
        mkdirat(&top, name, Mode::from_raw_mode(0o555))?;
        root.attach(&Mount::bind_path(&directory, flags)?, &format!("{place}/{name}"))?;
        if name.contains(',') {
            for second in name.split(',') {
                symlinkat(name, &top, second)?;
            }
        }
    }
    top.restrict(flags)
}

/// Attaches where the image has a directory or nothing. A link there could have what is mounted below it end up in
/// another place than what is masked later.
fn attach_plain(root: &Root, mount: &Mount, path: &str) -> Result<(), String> {
    let place = match root.find_plain(path) {
        Err(Errno::NOENT) => root.place(path, true),
        other => other.map_err(Into::into),
    };
    place.and_then(|place| mount.attach(place)).map_err(|error| format!("/{path}: {error}"))
}

/// Only what belongs to a namespace of the container's own: all else would be the host's. As Docker has it, and with
/// its words.
fn check_parameter(config: &ContainerConfig, name: &str) -> Result<(), String> {
    let name = name.replace('/', ".");
    let of_ipc = OF_IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
    if of_ipc && config.ipc == Namespace::Host {
        return Err(format!("sysctl \"{name}\" is not allowed in host ipc namespace"));
    }
    if name.starts_with("net.") && config.network == NetworkNamespace::Host {
        return Err(format!("sysctl \"{name}\" is not allowed in host net namespace"));
    }
    let of_name = name == "kernel.domainname" && config.network != NetworkNamespace::Host;
    if of_ipc || of_name || name.starts_with("net.") {
        return Ok(());
    }
    Err(format!("sysctl \"{name}\" is not in a separate kernel namespace"))
}

fn set_parameter(proc: &Mount, name: &str, value: &str) -> io::Result<()> {
    // Names with slashes have dots inside their parts.
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let file = openat(proc, format!("sys/{path}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fs::File::from(file).write_all(value.as_bytes())
}

fn make_nodes(dev: &Mount, privileged: bool) -> io::Result<()> {
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number)?;
    }
    for (name, target) in LINKS {
        symlinkat(target, dev, name)?;
    }
    if privileged {
        let mut made = 0;
        copy_nodes(Path::new("/dev"), dev.as_fd(), 0, &mut made)?;
    }
    Ok(())
}

/// Makes the nodes that the host has in a directory.
fn copy_nodes(from: &Path, to: impl AsFd, depth: usize, made: &mut usize) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if depth == 0 && OWN.iter().any(|own| name == *own) {
            continue;
        }
        *made += 1;
        if *made > HOST_NODES_MAX {
            return Err(io::Error::other("the host has too many devices"));
        }
        if kind.is_dir() && depth < HOST_NODES_DEPTH {
            // The host's devices come and go.
            let _ = mkdirat(&to, &name, Mode::from_raw_mode(0o755));
            let how = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            copy_nodes(&entry.path(), openat(&to, &name, how, Mode::empty())?, depth + 1, made)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            let Ok(metadata) = entry.metadata() else { continue };
            let kind = if kind.is_char_device() { FileType::CharacterDevice } else { FileType::BlockDevice };
            let mode = Mode::from_raw_mode(metadata.permissions().mode() & 0o777);
            match mknodat(&to, &name, kind, mode, metadata.rdev()) {
                Ok(()) => {
                    let owner = (rustix::fs::Uid::from_raw(metadata.uid()), metadata.gid());
                    let group = rustix::fs::Gid::from_raw(owner.1);
                    let how = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(&to, &name, Some(owner.0), Some(group), how)?;
                }
                // One of those that every container has.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn files_and_volumes(root: &Root, directory: &Path, config: &ContainerConfig) -> Result<(), String> {
    network_files(root, directory, config)?;
    let devices =
        config.devices.iter().map(|d| (d.container_path.as_str(), Source::Host(&d.host_path, false)));
    let volumes = config.mounts.iter().map(|m| (m.target.as_str(), Source::Host(&m.source, m.read_only)));
    let memories = config.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), Source::Memory(tmpfs)));
    let mut all: Vec<_> = devices.chain(volumes).chain(memories).collect();
    // What lies in another volume comes after it, as in Docker.
    all.sort_by_key(|(target, _)| target.split('/').filter(|part| !part.is_empty()).count());
    for (target, source) in all {
        check_target(target)?;
        let (name, mount) = match source {
            Source::Host(path, read_only) => {
                (path.display().to_string(), Mount::bind_path(path, Flags::default().read_only(read_only)))
            }
            Source::Memory(tmpfs) => ("tmpfs".to_owned(), memory(tmpfs)),
        };
        let attached = mount.and_then(|mount| root.attach(&mount, target));
        attached.map_err(doing(&format!("mounting {name} at {target}")))?;
    }
    Ok(())
}

/// What the container finds in its `/etc` of names and networks. In a small file system of their own: what it writes there
/// is bounded, and counts as its memory.
fn network_files(root: &Root, directory: &Path, config: &ContainerConfig) -> Result<(), String> {
    let options = [("mode", "755"), ("size", NETWORK_FILES_MAX), ("nr_inodes", "8")];
    let all =
        Mount::new("tmpfs", &options, Flags::default()).map_err(doing("a file system for /etc/hosts"))?;
    // Attached where the host's mounts are, and left with them: before Linux 6.15 what is attached nowhere cannot be
    // copied.
    let beside = Root::open(&directory.join(overlay::LAYERS));
    beside.and_then(|place| all.attach(place)).map_err(doing("a place for /etc/hosts"))?;
    let flags = Flags::default().read_only(config.read_only_root);
    for (name, text) in [
        ("hosts", &config.hosts_file),
        ("hostname", &format!("{}\n", config.hostname)),
        ("resolv.conf", &config.resolv_conf),
    ] {
        let bound = || {
            let how = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&all, name, how, Mode::from_raw_mode(0o644))?;
            fs::File::from(file).write_all(text.as_bytes())?;
            root.attach(&Mount::bind(&all, Path::new(name), flags)?, &format!("etc/{name}"))
        };
        bound().map_err(doing(&format!("/etc/{name}")))?;
    }
    Ok(())
}

enum Source<'a> {
    Host(&'a Path, bool),
    Memory(&'a TmpfsMount),
}

/// The container's `/proc` is what shows programs what they may see.
fn check_target(target: &str) -> Result<(), String> {
    let mut parts = target.split('/').filter(|part| !part.is_empty() && *part != ".");
    match parts.next() {
        _ if !target.starts_with('/') => Err(format!("the mount's target \"{target}\" is not absolute")),
        None => Err("nothing can be mounted at /".to_owned()),
        Some("proc") => Err(format!("\"{target}\" cannot be mounted because it is inside /proc")),
        Some(_) => Ok(()),
    }
}

/// A file system in memory, with options as mount(8) takes them.
fn memory(tmpfs: &TmpfsMount) -> io::Result<Mount> {
    // As Docker has it.
    let mut flags = Flags::INERT;
    let mut data: Vec<(&str, &str)> = Vec::new();
    for option in &tmpfs.options {
        match option.as_str() {
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "nosuid" => flags.no_suid = true,
            "suid" => flags.no_suid = false,
            "nodev" => flags.no_devices = true,
            "dev" => flags.no_devices = false,
            "noexec" => flags.no_exec = true,
            "exec" => flags.no_exec = false,
            "noatime" => flags.no_access_times = true,
            "atime" => flags.no_access_times = false,
            // What has no meaning in memory, and ties to mounts elsewhere, which there are none of.
            "defaults" | "sync" | "async" | "dirsync" | "diratime" | "nodiratime" | "relatime"
            | "norelatime" | "strictatime" | "nostrictatime" | "mand" | "nomand" | "private" | "rprivate"
            | "slave" | "rslave" | "shared" | "rshared" | "unbindable" | "runbindable" => {}
            option => data.push(option.split_once('=').unwrap_or((option, ""))),
        }
    }
    Mount::new("tmpfs", &data, flags)
}

/// A view of the host's `/dev/null`, taken before anything of the container's is there, and looked at: what is bound
/// over the kernel's files must be nothing else.
fn host_null() -> io::Result<Mount> {
    let null = Mount::bind_path(Path::new("/dev/null"), Flags::READ_ONLY)?;
    let found = fstat(&null)?;
    if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && found.st_rdev == rustix::fs::makedev(1, 3)
    {
        Ok(null)
    } else {
        Err(io::Error::other("it is another file"))
    }
}

fn mask(root: &Root, null: Mount) -> Result<(), String> {
    let nothing = Mount::new("tmpfs", &[("size", "0k"), ("mode", "555")], Flags::INERT.read_only(true))
        .map_err(doing("an empty directory"))?;
    let (mut file, mut directory) = (Cover::new(null), Cover::new(nothing));
    let is_there = |path: &str| match root.find_plain(path) {
        Err(Errno::NOENT) => Ok(None),
        other => other.map(Some).map_err(|error| format!("/{path}: {error}")),
    };
    for path in MASKED {
        if let Some(place) = is_there(path)? {
            let is_directory = fstat(&place).map(|found| FileType::from_raw_mode(found.st_mode));
            let cover = match is_directory {
                Ok(FileType::Directory) => &mut directory,
                _ => &mut file,
            };
            cover.attach(&place).map_err(doing(&format!("masking /{path}")))?;
        }
    }
    for path in READ_ONLY {
        if let Some(place) = is_there(path)? {
            let view = Mount::bind(&place, Path::new(""), Flags::INERT.read_only(true));
            view.and_then(|view| view.attach(place)).map_err(doing(&format!("sealing /{path}")))?;
        }
    }
    Ok(())
}

/// A mount that lies over several places. It is attached itself first, and copied from then on: before Linux 6.15 a
/// mount that is attached nowhere cannot be copied.
struct Cover {
    mount: Mount,
    attached: bool,
}

impl Cover {
    fn new(mount: Mount) -> Cover {
        Cover { mount, attached: false }
    }

    fn attach(&mut self, place: &OwnedFd) -> io::Result<()> {
        if self.attached {
            return Mount::bind(&self.mount, Path::new(""), Flags::READ_ONLY)?.attach(place);
        }
        self.attached = true;
        self.mount.attach(place)
    }
}

fn seal(root: &Root) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    let path = format!("/proc/self/fd/{}", root.as_fd().as_raw_fd());
    Ok(mount(None::<&str>, path.as_str(), None::<&str>, flags, None::<&str>)?)
}

/// Makes the container's root the process's, and forgets the host's.
fn leave_host(root: &Root) -> io::Result<()> {
    nix::unistd::fchdir(root.as_fd())?;
    nix::unistd::pivot_root(".", ".")?;
    // The host's lies over it now.
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}
