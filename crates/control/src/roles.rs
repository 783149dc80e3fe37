//! The credentials of tasks' roles: issuing them, reading back whose they are, and what a role may do.
//!
//! Nothing of a session is stored. Its token says all of it (see [`SessionKey`]), and the ids under which containers fetch
//! credentials follow from the task and the key, so that they outlive restarts of everything.
//!
//! There is no IAM yet. A role is the name in a definition's ARN, taken as one of the task's own account, and may do what
//! [`RoleSession::allows`] says: policies come in there.

use crate::call::Demand;
use gantry_api::acs;
use gantry_decide::arn::{Arn, EcsArn, EcsResource, RoleArn};
use gantry_decide::ids::{CredentialsId, RoleName, Scope};
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use gantry_wire::sigv4::{SessionKey, sha256_hex};
use gantry_wire::xml::iso8601;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long credentials of tasks are good for, as on ECS.
pub const LIFETIME: Duration = Duration::from_secs(6 * 3600);
/// The form of the claims. A token of another version is not ours.
const VERSION: u32 = 1;
/// Characters of a role's id after `AROA`.
const ROLE_ID_LENGTH: usize = 17;

/// What a task has a role for. As messages to agents name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RoleType {
    /// Its own programs: `taskRoleArn`.
    TaskApplication,
    /// Its agent, on its behalf: `executionRoleArn`.
    TaskExecution,
}

impl RoleType {
    pub const ALL: [RoleType; 2] = [RoleType::TaskApplication, RoleType::TaskExecution];

    pub fn as_str(self) -> &'static str {
        match self {
            RoleType::TaskApplication => "TaskApplication",
            RoleType::TaskExecution => "TaskExecution",
        }
    }
}

/// What a task's execution role allows: of the managed policy that ECS offers for it, what is served here.
const EXECUTION_ACTIONS: &[&str] = &["logs:CreateLogStream", "logs:PutLogEvents"];
/// What a task may do for itself alone, as the ECS agent asks it with the task's role.
const OWN_TASK_ACTIONS: &[&str] = &["ecs:GetTaskProtection", "ecs:UpdateTaskProtection"];

/// A role that was taken on for a task, for some hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSession {
    pub role: RoleName,
    pub role_type: RoleType,
    /// The task that it was taken on for. The role is one of its account.
    pub task: EcsArn,
    pub expires: Timestamp,
}

/// A session in its token. Short names: it goes into each request's headers.
#[derive(Serialize, Deserialize)]
struct Claims {
    v: u32,
    r: RoleName,
    u: RoleType,
    /// The task's ARN.
    t: String,
    /// When it ends, in milliseconds.
    e: Timestamp,
}

impl RoleSession {
    /// The session of authentic claims. `None` for those of a version that is not known.
    pub fn read(claims: &[u8]) -> Option<RoleSession> {
        let Claims { v: VERSION, r, u, t, e } = serde_json::from_slice(claims).ok()? else { return None };
        let task: EcsArn = t.parse().ok()?;
        let is_task = matches!(task.resource, EcsResource::Task(..));
        is_task.then_some(RoleSession { role: r, role_type: u, task, expires: e })
    }

    fn claims(&self) -> Vec<u8> {
        let (r, u, e) = (self.role.clone(), self.role_type, self.expires);
        let claims = Claims { v: VERSION, r, u, t: self.task.to_string(), e };
        serde_json::to_vec(&claims).expect("numbers and text")
    }

    /// As on ECS, sessions have the id of their task.
    pub fn name(&self) -> String {
        match &self.task.resource {
            EcsResource::Task(_, id) => id.to_string(),
            other => other.to_string(),
        }
    }

    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub fn arn(&self) -> String {
        let account = self.task.scope.account.to_string();
        let resource = format!("assumed-role/{}/{}", self.role, self.name());
        Arn { service: "sts".to_owned(), region: String::new(), account, resource }.to_string()
    }

    /// `AROA…:SESSION`. Roles have no ids of their own yet: theirs follow from account and name.
    pub fn user_id(&self) -> String {
        let digest = sha256_hex(format!("{}/{}", self.task.scope.account, self.role).as_bytes());
        let id: String = digest.chars().take(ROLE_ID_LENGTH).collect();
        format!("AROA{}:{}", id.to_ascii_uppercase(), self.name())
    }

    /// Whether the role may do what is demanded. Deny by default.
    pub fn allows(&self, demand: &Demand) -> bool {
        let own = self.task.to_string();
        let only_own = !demand.resources.is_empty() && demand.resources.iter().all(|arn| *arn == own);
        // AWS lets everybody ask who they are, whatever their policies say.
        demand.action == "sts:GetCallerIdentity"
            || match self.role_type {
                RoleType::TaskApplication => OWN_TASK_ACTIONS.contains(&demand.action) && only_own,
                RoleType::TaskExecution => EXECUTION_ACTIONS.contains(&demand.action),
            }
    }
}

/// Issues tasks' credentials.
#[derive(Clone, Debug)]
pub struct Roles {
    key: SessionKey,
    lifetime: Duration,
}

impl Roles {
    /// `lifetime` is [`LIFETIME`] but for tests.
    pub fn new(key: SessionKey, lifetime: Duration) -> Roles {
        Roles { key, lifetime }
    }

    /// When credentials of `now` are to be replaced: half-way, hours before they end.
    pub fn refresh_at(&self, now: Timestamp) -> Timestamp {
        now + self.lifetime / 2
    }

    /// Credentials of a role for a task, good from now on. Their id is always the same for a task and what it has the
    /// role for. `None` if `role_arn` is no role's.
    pub fn issue(
        &self,
        now: Timestamp,
        scope: &Scope,
        task: EcsResource,
        role_arn: &str,
        role_type: RoleType,
    ) -> Option<acs::RoleCredentials> {
        let RoleArn { name, .. } = role_arn.parse().ok()?;
        // Shown in whole seconds, so that what is shown is what holds.
        let expires = (now + self.lifetime).as_millis() / 1000 * 1000;
        let session = RoleSession {
            role: name,
            role_type,
            task: scope.ecs(task),
            expires: Timestamp::from_millis(expires),
        };
        let named = format!("{}/{}", session.task, role_type.as_str());
        let id = CredentialsId::from_bytes(self.key.id("credentials id", &named));
        let issued = self.key.issue(&session.claims());
        Some(acs::RoleCredentials {
            credentials_id: Some(id.to_string()),
            role_arn: Some(role_arn.to_owned()),
            access_key_id: Some(issued.access_key_id),
            secret_access_key: Some(issued.secret_access_key),
            session_token: issued.session_token,
            expiration: Some(iso8601(EpochMillis(expires))),
        })
    }
}

#[cfg(test)]
pub(crate) fn for_tests(lifetime: Duration) -> Roles {
    Roles::new(SessionKey::new(&[1; SessionKey::LENGTH]), lifetime)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use gantry_decide::ids::{AccountId, ClusterName, TaskId};
    use gantry_decide::random::Seeded;

    fn session(role_type: RoleType) -> (RoleSession, acs::RoleCredentials) {
        let key = SessionKey::new(&[3; SessionKey::LENGTH]);
        let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() };
        let task = EcsResource::Task(ClusterName::default_cluster(), TaskId::random(&mut Seeded::new(4)));
        let roles = Roles::new(key.clone(), LIFETIME);
        let now = Timestamp::from_millis(1_900_000_000_123);
        let arn = "arn:aws:iam::111122223333:role/team/painter";
        let issued = roles.issue(now, &scope, task, arn, role_type).unwrap();
        let token = issued.session_token.as_ref().unwrap();
        let (claims, secret) = key.open(issued.access_key_id.as_deref().unwrap(), token.expose()).unwrap();
        assert_eq!(secret.expose(), issued.secret_access_key.as_ref().unwrap().expose());
        (RoleSession::read(&claims).unwrap(), issued)
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let (session, issued) = session(RoleType::TaskApplication);
        let id = session.name();
        assert_eq!(session.arn(), format!("arn:aws:sts::123456789012:assumed-role/painter/{id}"));
        assert!(session.user_id().starts_with("AROA") && session.user_id().ends_with(&format!(":{id}")));
        assert_eq!(session.expires, Timestamp::from_millis(1_900_021_600_000));
        assert_eq!(issued.expiration.as_deref(), Some("2030-03-17T23:46:40Z"));
        assert_eq!(issued.role_arn.as_deref(), Some("arn:aws:iam::111122223333:role/team/painter"));
        assert_ne!(issued.credentials_id, self::session(RoleType::TaskExecution).1.credentials_id);
        assert_eq!(RoleSession::read(br#"{"v":2}"#), None);
    }

    #[test]
    fn a_role_may_do_little_and_that_for_its_own_task() {
        let (task, _) = session(RoleType::TaskApplication);
        let (execution, _) = session(RoleType::TaskExecution);
        let protect = |tasks: &[&str]| Demand {
            action: "ecs:UpdateTaskProtection",
            resources: tasks.iter().map(|task| (*task).to_owned()).collect(),
        };
        let own = task.task.to_string();
        assert!(task.allows(&protect(&[&own])) && !execution.allows(&protect(&[&own])));
        assert!(!task.allows(&protect(&[&own, "arn:aws:ecs:other"])));
        assert!(!task.allows(&protect(&[])), "nothing named is not its own");
        assert!(!task.allows(&Demand::on_all("ecs:ListClusters")));
        let log = Demand::on("logs:PutLogEvents", "arn:aws:logs:x");
        assert!(execution.allows(&log) && !task.allows(&log));
        for session in [task, execution] {
            assert!(session.allows(&Demand::on_all("sts:GetCallerIdentity")));
        }
    }
}
