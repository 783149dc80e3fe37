//! A container's root file system: its image's layers below, what it writes above.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount as mount_at};
use std::fs;
use std::path::{Path, PathBuf};

/// Layers of one image: what overlay file systems can stack.
const LAYERS_MAX: usize = 500;
/// In a container's directory: short names of its layers. Of no use once they are mounted.
pub const LAYERS: &str = "l";

/// Makes what a mount of the layers, uppermost first, needs in the directory.
///
/// Options of mount(2) must fit one page, which paths of some thirty layers do not: so the layers go by links with
/// short names, from within the directory.
pub fn prepare(directory: &Path, layers: &[PathBuf]) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    if layers.len() > LAYERS_MAX {
        return Err(format!("an image of {} layers cannot be mounted", layers.len()));
    }
    for name in ["rootfs", LAYERS] {
        fs::create_dir(directory.join(name)).map_err(|error| failed(name, &error))?;
    }
    if layers.is_empty() {
        // A pause has no image.
        return fs::create_dir(directory.join(LAYERS).join("0"))
            .map_err(|error| failed("an empty layer", &error));
    }
    for (index, layer) in layers.iter().enumerate() {
        std::os::unix::fs::symlink(layer, directory.join(format!("{LAYERS}/{index}")))
            .map_err(|error| failed("a layer", &error))?;
    }
    Ok(())
}

/// Mounts so many layers, and goes to the directory that they are mounted in.
///
/// What the container writes there is gone with it, and with its host's next start: so nothing of it is synced. Without
/// `volatile` every unmount, and every `fsync` in there, would wait until the host's whole file system is on the disk.
pub fn mount(directory: &Path, layers: usize) -> Result<(), String> {
    std::env::set_current_dir(directory).map_err(|error| format!("the container's directory: {error}"))?;
    let lower: Vec<String> = (0..layers.max(1)).map(|index| format!("{LAYERS}/{index}")).collect();
    let options = format!("lowerdir={},upperdir=upper,workdir=work", lower.join(":"));
    let stack = |options: &str| {
        // Device nodes of an image are never meant to work.
        mount_at(Some("overlay"), "rootfs", Some("overlay"), MsFlags::MS_NODEV, Some(options))
    };
    match stack(&format!("{options},volatile")) {
        // Before Linux 5.10.
        Err(Errno::EINVAL) => stack(&options),
        mounted => mounted,
    }
    .map_err(|error| format!("mounting the image's layers: {error}"))
}
