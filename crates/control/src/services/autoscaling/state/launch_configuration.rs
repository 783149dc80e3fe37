//! Launch configurations: how machines are to be made, before there were launch templates. They never change.

use crate::services::ec2::links::LaunchData;
use gantry_decide::ids::{LaunchConfigurationName, RequestId, Scope};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchConfiguration {
    pub name: LaunchConfigurationName,
    /// Stands in its ARN.
    pub id: RequestId,
    pub created_at: Timestamp,
    pub data: LaunchData,
}

impl LaunchConfiguration {
    pub fn arn(&self, scope: &Scope) -> String {
        configuration_arn(scope, &self.id.to_string(), self.name.as_str())
    }
}

/// The ARN of a configuration, of which the id may be `*`.
pub fn configuration_arn(scope: &Scope, id: &str, name: &str) -> String {
    let (region, account) = (&scope.region, scope.account);
    format!("arn:aws:autoscaling:{region}:{account}:launchConfiguration:{id}:launchConfigurationName/{name}")
}

impl Record for LaunchConfiguration {
    const KIND: &'static str = "autoscaling/launch-configuration";
    const VERSION: u32 = 1;
    type Key = LaunchConfigurationName;

    fn key(&self) -> LaunchConfigurationName {
        self.name.clone()
    }

    fn path(key: &LaunchConfigurationName) -> String {
        key.to_string()
    }
}
