//! A container's root file system: its image's layers below, what it writes above.

use crate::images::Confined;
use nix::mount::{MsFlags, mount as mount_at};
use std::fs;
use std::path::{Path, PathBuf};

/// Layers of one image: what overlay file systems can stack.
const LAYERS_MAX: usize = 500;

/// Mounts the layers, uppermost first, at `rootfs` in the directory.
///
/// Options of mount(2) must fit one page, which paths of some thirty layers do not: so the layers go by links with
/// short names, from within the directory.
pub fn mount(directory: &Path, layers: &[PathBuf]) -> Result<(), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(format!("an image of {} layers cannot be mounted", layers.len()));
    }
    for name in ["rootfs", "upper", "work", "l"] {
        match fs::create_dir(directory.join(name)) {
            // Of an earlier run.
            Err(error) if name == super::UPPER && error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.map_err(|error| failed(name, &error))?,
        }
    }
    let mut lower = String::new();
    for (index, layer) in layers.iter().enumerate() {
        let link = format!("l/{index}");
        std::os::unix::fs::symlink(layer, directory.join(&link))
            .map_err(|error| failed("a layer", &error))?;
        if index > 0 {
            lower.push(':');
        }
        lower.push_str(&link);
    }
    let back = std::env::current_dir().map_err(|error| failed("the working directory", &error))?;
    std::env::set_current_dir(directory).map_err(|error| failed("the container's directory", &error))?;
    let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
    // Device nodes of an image are never meant to work.
    let mounted =
        mount_at(Some("overlay"), "rootfs", Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()));
    let returned = std::env::set_current_dir(back);
    mounted.map_err(|error| failed("mounting the image's layers", &error))?;
    returned.map_err(|error| failed("the working directory", &error))
}

/// Makes a directory in the root file system where there is none, as Docker does with working directories. Links are
/// followed as the container will.
pub fn make_directory(root: &Path, path: &str) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("making the working directory \"{path}\": {error}");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name.as_bytes()),
        }
    }
    Confined::open(root).and_then(|mut root| root.directory(&parts).map(drop)).map_err(failed)
}
