//! Account settings that somebody set; what nobody set has AWS's default.

use gantry_store::Record;
use serde::{Deserialize, Serialize};

/// Whose setting: a principal's own, or the account's default for everybody without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountSettingKey {
    /// `None` for the account's default (`PutAccountSettingDefault`).
    pub principal_arn: Option<String>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountSetting {
    pub principal_arn: Option<String>,
    pub name: String,
    pub value: String,
}

impl Record for AccountSetting {
    const KIND: &'static str = "ecs/account-setting";
    const VERSION: u32 = 1;
    type Key = AccountSettingKey;

    fn key(&self) -> AccountSettingKey {
        AccountSettingKey { principal_arn: self.principal_arn.clone(), name: self.name.clone() }
    }

    fn path(key: &AccountSettingKey) -> String {
        format!("{}/{}", key.name, key.principal_arn.as_deref().unwrap_or("default"))
    }
}
