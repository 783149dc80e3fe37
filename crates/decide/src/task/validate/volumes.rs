//! Rules on volumes and on the mounts that use them.

use super::DefinitionError;
use crate::task::definition::TaskDefinition;
use crate::task::kinds::{DockerVolumeScope, EfsSwitch};
use crate::task::volume::{DockerVolume, EfsVolume, VolumeSource};
use std::collections::BTreeSet;

/// Characters of a volume's name: ECS's limit.
const MAX_NAME: usize = 255;

pub fn check(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    let mut names = BTreeSet::new();
    let mut at_launch = 0;
    for volume in &definition.volumes {
        let name = &volume.name;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return Err(DefinitionError::VolumeName);
        }
        if !names.insert(name.as_str()) {
            return Err(DefinitionError::VolumeNameTwice { name: name.clone() });
        }
        let wrong = |setting| Err(DefinitionError::VolumeSetting { name: name.clone(), setting });
        match &volume.source {
            VolumeSource::Host(host) => {
                if host.source_path.as_ref().is_some_and(|p| p.is_empty() || p.contains('\0')) {
                    return wrong("host.sourcePath");
                }
            }
            VolumeSource::Docker(docker) => {
                let DockerVolume { scope, autoprovision, .. } = docker;
                if *autoprovision == Some(true) && *scope != Some(DockerVolumeScope::Shared) {
                    return wrong("dockerVolumeConfiguration.autoprovision");
                }
            }
            VolumeSource::Efs(efs) => check_efs(name, efs)?,
            VolumeSource::S3Files(files) => {
                if !files.file_system_arn.starts_with("arn:") {
                    return wrong("s3filesVolumeConfiguration.fileSystemArn");
                }
                if files.transit_encryption_port.is_some_and(|p| !(1..=65535).contains(&p)) {
                    return wrong("s3filesVolumeConfiguration.transitEncryptionPort");
                }
            }
            VolumeSource::FsxWindows(fsx) => {
                if fsx.file_system_id.is_empty() {
                    return wrong("fsxWindowsFileServerVolumeConfiguration.fileSystemId");
                }
            }
            VolumeSource::ConfiguredAtLaunch(_) => at_launch += 1,
        }
    }
    if at_launch > 1 {
        return Err(DefinitionError::VolumesAtLaunch);
    }
    for container in &definition.container_definitions {
        let mut paths = BTreeSet::new();
        for mount in &container.mount_points {
            if !names.contains(mount.source_volume.as_str()) {
                let name = mount.source_volume.chars().take(MAX_NAME).collect();
                return Err(DefinitionError::UnknownVolume { name });
            }
            if !paths.insert(&mount.container_path) {
                return Err(DefinitionError::ContainerRepeats {
                    container: container.name.to_string(),
                    setting: "mountPoints",
                    value: mount.container_path.chars().take(MAX_NAME).collect(),
                });
            }
        }
    }
    Ok(())
}

fn check_efs(name: &str, efs: &EfsVolume) -> Result<(), DefinitionError> {
    let wrong = |setting| Err(DefinitionError::VolumeSetting { name: name.to_owned(), setting });
    if efs.file_system_id.is_empty() {
        return wrong("efsVolumeConfiguration.fileSystemId");
    }
    if efs.transit_encryption_port.is_some_and(|p| !(1..=65535).contains(&p)) {
        return wrong("efsVolumeConfiguration.transitEncryptionPort");
    }
    let Some(authorization) = &efs.authorization_config else { return Ok(()) };
    let encrypted = efs.transit_encryption == Some(EfsSwitch::Enabled);
    let plain = |what| Err(DefinitionError::TransitEncryption { name: name.to_owned(), what });
    if authorization.access_point_id.as_ref().is_some_and(|id| !id.is_empty()) {
        if !encrypted {
            return plain("an access point");
        }
        if efs.root_directory.as_deref().is_some_and(|root| !root.is_empty() && root != "/") {
            return Err(DefinitionError::AccessPointRoot { name: name.to_owned() });
        }
    }
    if authorization.iam == Some(EfsSwitch::Enabled) && !encrypted {
        return plain("IAM authorization");
    }
    Ok(())
}
