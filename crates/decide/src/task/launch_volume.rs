//! Managed EBS volumes: a definition names the volume, RunTask or the service says what it is.

use crate::task::definition::TaskDefinition;
use crate::task::kinds::FilesystemType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a launch says of the definition's volume that is configured at launch. Serialised names are ECS's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeConfiguration {
    pub name: String,
    #[serde(rename = "managedEBSVolume")]
    pub managed_ebs_volume: ManagedEbsVolume,
}

/// A volume that is made for a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedEbsVolume {
    pub role_arn: String,
    #[serde(rename = "sizeInGiB", default, skip_serializing_if = "Option::is_none")]
    pub size_in_gib: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_type: Option<FilesystemType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<String>,
    /// As given: volumes here have no tags of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_specifications: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_policy: Option<TerminationPolicy>,
}

/// What becomes of a volume at its task's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationPolicy {
    pub delete_on_termination: bool,
}

/// EBS's type where none is given.
const TYPE_DEFAULT: &str = "gp3";
/// EBS's types with their sizes in GiB, and whether they take `iops` and `throughput`; the first two need `iops`.
const TYPES: [(&str, i32, i32, bool, bool); 7] = [
    ("io1", 4, 16_384, true, false),
    ("io2", 4, 65_536, true, false),
    ("gp3", 1, 65_536, true, true),
    ("gp2", 1, 16_384, false, false),
    ("st1", 125, 16_384, false, false),
    ("sc1", 125, 16_384, false, false),
    ("standard", 1, 1024, false, false),
];

/// Why a launch cannot have its volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchVolumeError {
    #[error("Volume configuration is missing for volume '{name}', which is configured at launch.")]
    Missing { name: String },
    #[error("Volume '{name}' is not configured at launch in the task definition.")]
    Unknown { name: String },
    #[error("Only one volume can be configured at launch.")]
    TooMany,
    #[error("Invalid '{setting}' setting for the managed EBS volume '{name}'.")]
    Setting { name: String, setting: &'static str },
    #[error(
        "The managed EBS volume '{name}' cannot be made from a snapshot: there are no EBS snapshots here."
    )]
    Snapshot { name: String },
    #[error(
        "The managed EBS volume '{name}' cannot be encrypted: Gantry's volumes are plain files of their hosts."
    )]
    Encryption { name: String },
}

impl LaunchVolumeError {
    /// Whether EBS would make the volume, and it is only here that there is none.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, LaunchVolumeError::Snapshot { .. } | LaunchVolumeError::Encryption { .. })
    }
}

impl ManagedEbsVolume {
    pub fn volume_type(&self) -> &str {
        self.volume_type.as_deref().unwrap_or(TYPE_DEFAULT)
    }

    /// GiB; a checked one has a size.
    pub fn size(&self) -> u32 {
        self.size_in_gib.and_then(|size| u32::try_from(size).ok()).unwrap_or(0)
    }

    /// Whether it goes with its task: unless RunTask said otherwise.
    pub fn is_deleted_at_end(&self) -> bool {
        self.termination_policy.is_none_or(|policy| policy.delete_on_termination)
    }

    fn check(&self, name: &str) -> Result<(), LaunchVolumeError> {
        let wrong = |setting| Err(LaunchVolumeError::Setting { name: name.to_owned(), setting });
        if self.snapshot_id.is_some() {
            return Err(LaunchVolumeError::Snapshot { name: name.to_owned() });
        }
        if self.encrypted == Some(true) || self.kms_key_id.is_some() {
            return Err(LaunchVolumeError::Encryption { name: name.to_owned() });
        }
        let kind = TYPES.iter().find(|(kind, ..)| *kind == self.volume_type());
        let Some(&(kind, low, high, takes_iops, takes_throughput)) = kind else { return wrong("volumeType") };
        if !self.size_in_gib.is_some_and(|size| (low..=high).contains(&size)) {
            return wrong("sizeInGiB");
        }
        let needs_iops = kind.starts_with("io");
        if self.iops.map_or(needs_iops, |iops| !takes_iops || iops <= 0) {
            return wrong("iops");
        }
        if self.throughput.is_some_and(|throughput| !takes_throughput || throughput <= 0) {
            return wrong("throughput");
        }
        if self.filesystem_type == Some(FilesystemType::Ntfs) {
            return wrong("filesystemType");
        }
        Ok(())
    }
}

/// The volume of a launch, from what the request says and what the definition needs.
///
/// # Errors
/// When these do not fit together, or the volume is one that EBS would not make.
pub fn choose(
    given: Vec<VolumeConfiguration>,
    definition: &TaskDefinition,
) -> Result<Option<VolumeConfiguration>, LaunchVolumeError> {
    let wanted = definition.volume_configured_at_launch().map(|volume| volume.name.clone());
    let mut given = given.into_iter();
    match (wanted, given.next(), given.next()) {
        (None, None, _) => Ok(None),
        (Some(name), None, _) => Err(LaunchVolumeError::Missing { name }),
        (_, _, Some(_)) => Err(LaunchVolumeError::TooMany),
        (wanted, Some(volume), None) if wanted.as_ref() == Some(&volume.name) => {
            volume.managed_ebs_volume.check(&volume.name)?;
            Ok(Some(volume))
        }
        (_, Some(VolumeConfiguration { name, .. }), None) => Err(LaunchVolumeError::Unknown { name }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ids::AccountId;
    use crate::task::validate::validate;
    use serde_json::json;

    fn definition(volumes: Value) -> TaskDefinition {
        let container = json!({"name": "app", "image": "app", "memory": 64});
        let raw = json!({"family": "f", "containerDefinitions": [container], "volumes": volumes});
        validate(raw, AccountId::DEFAULT).unwrap()
    }

    fn given(name: &str, mut volume: Value) -> Vec<VolumeConfiguration> {
        volume["roleArn"] = json!("arn:aws:iam::123456789012:role/r");
        vec![serde_json::from_value(json!({"name": name, "managedEBSVolume": volume})).unwrap()]
    }

    #[test]
    fn a_volume_is_what_ebs_would_make() {
        let definition = definition(json!([{"name": "data", "configuredAtLaunch": true}]));
        let choose = |volume| choose(given("data", volume), &definition);
        let chosen = choose(json!({"sizeInGiB": 10})).unwrap().unwrap().managed_ebs_volume;
        assert_eq!((chosen.size(), chosen.volume_type(), chosen.is_deleted_at_end()), (10, "gp3", true));
        assert!(choose(json!({"sizeInGiB": 10, "encrypted": false})).is_ok());
        let kept = choose(json!({"sizeInGiB": 4, "volumeType": "io1", "iops": 100, "filesystemType": "ext4",
            "terminationPolicy": {"deleteOnTermination": false}}));
        assert!(!kept.unwrap().unwrap().managed_ebs_volume.is_deleted_at_end());
        for (volume, expected) in [
            (json!({}), "sizeInGiB"),
            (json!({"sizeInGiB": 0}), "sizeInGiB"),
            (json!({"sizeInGiB": 100, "volumeType": "st1"}), "sizeInGiB"),
            (json!({"sizeInGiB": 10, "volumeType": "huge"}), "volumeType"),
            (json!({"sizeInGiB": 10, "volumeType": "io2"}), "iops"),
            (json!({"sizeInGiB": 10, "volumeType": "gp2", "iops": 3000}), "iops"),
            (json!({"sizeInGiB": 10, "volumeType": "gp2", "throughput": 125}), "throughput"),
            (json!({"sizeInGiB": 10, "filesystemType": "ntfs"}), "filesystemType"),
            (json!({"sizeInGiB": 10, "snapshotId": "snap-1"}), "snapshot"),
            (json!({"sizeInGiB": 10, "encrypted": true}), "encrypted"),
            (json!({"sizeInGiB": 10, "kmsKeyId": "alias/aws/ebs"}), "encrypted"),
        ] {
            let text = choose(volume).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn request_and_definition_fit_together() {
        let with = definition(json!([{"name": "data", "configuredAtLaunch": true}]));
        let without = definition(json!([]));
        let volume = || given("data", json!({"sizeInGiB": 1}));
        assert_eq!(choose(Vec::new(), &without), Ok(None));
        let missing = LaunchVolumeError::Missing { name: "data".to_owned() };
        assert_eq!(choose(Vec::new(), &with), Err(missing));
        let unknown = Err(LaunchVolumeError::Unknown { name: "data".to_owned() });
        assert_eq!(choose(volume(), &without), unknown);
        assert!(matches!(choose(given("other", json!({})), &with), Err(LaunchVolumeError::Unknown { .. })));
        assert_eq!(choose([volume(), volume()].concat(), &with), Err(LaunchVolumeError::TooMany));
    }
}
