//! Launch templates: how machines are to be made, in numbered versions.

use super::Tags;
use gantry_decide::ids::LaunchTemplateId;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// How a machine is to be made, kept as given, in EC2's spelling: what Gantry has no use for is shown again all the
/// same. User data may hold secrets, so `Debug` shows nothing.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchData(Value);

impl fmt::Debug for LaunchData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaunchData")
    }
}

impl LaunchData {
    pub fn new(value: Value) -> LaunchData {
        LaunchData(value)
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member)?.as_str().filter(|text| !text.is_empty())
    }

    pub fn image_id(&self) -> Option<&str> {
        self.text("ImageId")
    }

    pub fn instance_type(&self) -> Option<&str> {
        self.text("InstanceType")
    }

    /// Base64, as given.
    pub fn user_data(&self) -> Option<&str> {
        self.text("UserData")
    }

    /// The same with what `over` says in place of what this says.
    pub fn overlaid(&self, over: &LaunchData) -> LaunchData {
        let mut value = self.0.clone();
        match (value.as_object_mut(), over.0.as_object()) {
            (Some(members), Some(over)) => {
                members.extend(over.iter().map(|(name, value)| (name.clone(), value.clone())));
                LaunchData(value)
            }
            _ => over.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    pub id: LaunchTemplateId,
    /// Unique in its scope.
    pub name: String,
    pub created_at: Timestamp,
    /// The ARN of who made it.
    pub created_by: String,
    pub default_version: u64,
    /// The highest number that was ever given: none is given twice.
    pub latest_version: u64,
    pub tags: Tags,
    /// Of the request that made it: one that is repeated makes nothing more.
    pub client_token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchTemplateVersion {
    pub template: LaunchTemplateId,
    /// Counts from 1.
    pub number: u64,
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub data: LaunchData,
}

impl Record for LaunchTemplate {
    const KIND: &'static str = "ec2/launch-template";
    const VERSION: u32 = 1;
    type Key = LaunchTemplateId;

    fn key(&self) -> LaunchTemplateId {
        self.id
    }

    fn path(key: &LaunchTemplateId) -> String {
        key.to_string()
    }
}

impl Record for LaunchTemplateVersion {
    const KIND: &'static str = "ec2/launch-template-version";
    const VERSION: u32 = 1;
    type Key = (LaunchTemplateId, u64);

    fn key(&self) -> (LaunchTemplateId, u64) {
        (self.template, self.number)
    }

    fn path((template, number): &(LaunchTemplateId, u64)) -> String {
        format!("{template}/{number}")
    }
}
