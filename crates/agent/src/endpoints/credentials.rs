//! The credentials of tasks' roles, as the control plane gave them: in memory only, by ids that cannot be guessed.

use gantry_api::acs::{self, RoleCredentials};
use gantry_decide::task_engine::TaskArn;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct Credentials(Mutex<BTreeMap<String, (TaskArn, RoleCredentials)>>);

impl Credentials {
    /// Keeps what came, over what was known of the same id. One without an id has no use.
    pub fn put(&self, task: &TaskArn, credentials: RoleCredentials) {
        if let Some(id) = credentials.credentials_id.clone().filter(|id| !id.is_empty()) {
            self.0.lock().insert(id, (task.clone(), credentials));
        }
    }

    /// Takes the secrets out of a payload's task, and keeps them: what is left may be written down.
    pub fn take(&self, arn: &TaskArn, task: &mut acs::Task) {
        for member in [&mut task.role_credentials, &mut task.execution_role_credentials] {
            if let Some(given) = member.take() {
                let id = given.credentials_id.clone();
                *member = Some(RoleCredentials {
                    credentials_id: id,
                    role_arn: given.role_arn.clone(),
                    ..RoleCredentials::default()
                });
                self.put(arn, given);
            }
        }
    }

    /// As SDKs want them. `None` for an id that is not this task's, or whose secrets are not here.
    pub fn document(&self, task: &TaskArn, id: &str) -> Option<Value> {
        let all = self.0.lock();
        let (owner, known) = all.get(id)?;
        let exposed = |secret: &Option<gantry_wire::Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        let document = || {
            json!({
                "RoleArn": known.role_arn,
                "AccessKeyId": known.access_key_id,
                "SecretAccessKey": exposed(&known.secret_access_key),
                "Token": exposed(&known.session_token),
                "Expiration": known.expiration,
            })
        };
        (owner == task && known.secret_access_key.is_some()).then(document)
    }

    pub fn forget(&self, task: &TaskArn) {
        self.0.lock().retain(|_, (owner, _)| owner != task);
    }
}
