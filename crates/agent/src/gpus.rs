//! NVIDIA GPUs of this host: how many there are, and what a container needs that is to use some of them.
//!
//! Which device has which id, the driver says; where it says nothing, the device's own name is its id. The driver's
//! libraries, which have to be the host's, are the user's to mount: nothing here knows where a distribution keeps them.

use crate::runtime::DeviceMapping;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the driver tells of its GPUs.
const DRIVER: &str = "/proc/driver/nvidia/gpus";
/// Devices that programs need beside those of their GPUs, where the host has them.
const COMMON: [&str; 4] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];
/// By which NVIDIA's own tools and libraries see which GPUs are theirs.
pub const VARIABLE: &str = "NVIDIA_VISIBLE_DEVICES";

/// The GPUs whose devices are in a directory (`/dev`): their devices by their ids.
pub fn of_host(devices: &Path) -> BTreeMap<String, PathBuf> {
    let named = ids(Path::new(DRIVER));
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("nvidia")?.parse::<u32>().ok();
    let gpus = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = named.get(&number(&name)?).cloned().unwrap_or(name);
        Some((id, entry.path()))
    });
    gpus.collect()
}

/// The ids of GPUs by the numbers of their devices.
fn ids(driver: &Path) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(driver).into_iter().flatten().flatten();
    let read = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path().join("information")).ok()?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
            line.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        Some((field("Device Minor")?.parse().ok()?, field("GPU UUID")?))
    });
    read.collect()
}

/// The devices by which a container uses GPUs of these ids.
///
/// # Errors
/// Names the first that this host does not have.
pub fn devices(directory: &Path, ids: &[&str]) -> Result<Vec<DeviceMapping>, String> {
    let mapping = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        DeviceMapping { container_path: format!("/dev/{name}"), host_path: path, access: "rwm".to_owned() }
    };
    let known = of_host(directory);
    let own = ids.iter().map(|id| known.get(*id).cloned().map(mapping).ok_or_else(|| (*id).to_owned()));
    let mut all = own.collect::<Result<Vec<_>, _>>()?;
    if !all.is_empty() {
        all.extend(
            COMMON.map(|name| directory.join(name)).into_iter().filter(|path| path.exists()).map(mapping),
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_are_counted_and_given_by_their_ids() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps", "null"] {
            fs::write(scratch.path().join(name), "").unwrap();
        }
        let found = of_host(scratch.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["nvidia0", "nvidia1"]);
        let given = devices(scratch.path(), &["nvidia1"]).unwrap();
        let paths: Vec<_> = given.iter().map(|device| device.container_path.as_str()).collect();
        assert_eq!(paths, ["/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"]);
        assert_eq!(devices(scratch.path(), &["nvidia0", "nvidia7"]), Err("nvidia7".to_owned()));
        assert_eq!(devices(scratch.path(), &[]), Ok(Vec::new()));
    }

    #[test]
    fn the_driver_names_its_gpus() {
        let scratch = tempfile::tempdir().unwrap();
        let gpu = scratch.path().join("0000:01:00.0");
        fs::create_dir(&gpu).unwrap();
        let text = "Model: \t\t NVIDIA A10G\nIRQ:   \t\t 120\nGPU UUID: \t GPU-8f3c\nDevice Minor: \t 1\nGPU Excluded:\t No\n";
        fs::write(gpu.join("information"), text).unwrap();
        assert_eq!(ids(scratch.path()), BTreeMap::from([(1, "GPU-8f3c".to_owned())]));
    }
}
