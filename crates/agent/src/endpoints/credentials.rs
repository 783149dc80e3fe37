//! The credentials of tasks' roles, as the control plane gave them: in memory only, by ids that cannot be guessed.

use gantry_api::acs::{self, RoleCredentials};
use gantry_decide::task_engine::TaskArn;
use gantry_wire::sigv4::Credentials;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::pin;
use tokio::sync::Notify;

/// See the module.
#[derive(Default)]
pub struct RoleStore {
    known: Mutex<BTreeMap<String, (TaskArn, RoleCredentials)>>,
    /// Some came.
    news: Notify,
}

impl RoleStore {
    /// Keeps what came, over what was known of the same id. One without an id has no use.
    pub fn put(&self, task: &TaskArn, credentials: RoleCredentials) {
        if let Some(id) = credentials.credentials_id.clone().filter(|id| !id.is_empty()) {
            self.known.lock().insert(id, (task.clone(), credentials));
            self.news.notify_waiters();
        }
    }

    /// Takes the secrets out of a payload's task, and keeps them: what is left may be written down. What was kept is to be
    /// acknowledged: ids and expirations.
    pub fn take(&self, arn: &TaskArn, task: &mut acs::Task) -> Vec<(Option<String>, Option<String>)> {
        let mut taken = Vec::new();
        for member in [&mut task.role_credentials, &mut task.execution_role_credentials] {
            if let Some(given) = member.take() {
                let id = given.credentials_id.clone();
                taken.push((id.clone(), given.expiration.clone()));
                *member = Some(RoleCredentials {
                    credentials_id: id,
                    role_arn: given.role_arn.clone(),
                    ..RoleCredentials::default()
                });
                self.put(arn, given);
            }
        }
        taken
    }

    /// To sign with. `None` for an id that is not this task's, or whose secrets are not here.
    pub fn keys(&self, task: &TaskArn, id: &str) -> Option<Credentials> {
        let all = self.known.lock();
        let (_, known) = all.get(id).filter(|(owner, _)| owner == task)?;
        Some(Credentials {
            access_key_id: known.access_key_id.clone()?,
            secret_access_key: known.secret_access_key.clone()?,
            session_token: known.session_token.clone(),
        })
    }

    /// The same, once they are here: after a start of the agent the control plane has yet to send them.
    pub async fn wait_for(&self, task: &TaskArn, id: &str) -> Credentials {
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            if let Some(keys) = self.keys(task, id) {
                return keys;
            }
            news.await;
        }
    }

    /// As SDKs want them. `None` for an id that is not this task's, or whose secrets are not here.
    pub fn document(&self, task: &TaskArn, id: &str) -> Option<Value> {
        let all = self.known.lock();
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

    /// Drops what the task's own programs had: none of them runs any more.
    pub fn ended(&self, id: &str) {
        self.known.lock().remove(id);
    }

    pub fn forget(&self, task: &TaskArn) {
        self.known.lock().retain(|_, (owner, _)| owner != task);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_wire::Secret;

    fn given(id: &str, secret: &str) -> RoleCredentials {
        RoleCredentials {
            credentials_id: Some(id.to_owned()),
            role_arn: Some("arn:aws:iam::123456789012:role/r".to_owned()),
            access_key_id: Some("ASIA".to_owned()),
            secret_access_key: Some(Secret::new(secret)),
            session_token: Some(Secret::new("token")),
            expiration: Some("2031-01-01T06:00:00Z".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_payloads_secrets_are_kept_apart_from_it() {
        let store = RoleStore::default();
        let (arn, other) = (TaskArn("t".to_owned()), TaskArn("o".to_owned()));
        let mut task = acs::Task {
            role_credentials: Some(given("own", "s3cr3t")),
            execution_role_credentials: Some(given("execution", "hidden")),
            ..acs::Task::default()
        };
        let taken = store.take(&arn, &mut task);
        assert_eq!(taken[1], (Some("execution".to_owned()), Some("2031-01-01T06:00:00Z".to_owned())));
        let left = gantry_wire::json::to_string(&task);
        assert!(left.contains("own") && !left.contains("s3cr3t") && !left.contains("hidden"), "{left}");
        assert_eq!(store.document(&arn, "own").unwrap()["SecretAccessKey"], "s3cr3t");
        assert_eq!(store.document(&other, "own"), None);
        assert!(store.keys(&other, "own").is_none());
        store.ended("own");
        assert!(store.keys(&arn, "own").is_none());
        assert_eq!(store.wait_for(&arn, "execution").await.secret_access_key.expose(), "hidden");
        store.forget(&arn);
        assert!(store.keys(&arn, "execution").is_none());
    }

    #[tokio::test]
    async fn who_waits_gets_what_comes() {
        let store = std::sync::Arc::new(RoleStore::default());
        let arn = TaskArn("t".to_owned());
        let waiting = tokio::spawn({
            let (store, arn) = (std::sync::Arc::clone(&store), arn.clone());
            async move { store.wait_for(&arn, "own").await }
        });
        tokio::task::yield_now().await;
        store.put(&arn, given("own", "s3cr3t"));
        assert_eq!(waiting.await.unwrap().secret_access_key.expose(), "s3cr3t");
    }
}
