//! Client tokens: what a repeated request is answered with.

use gantry_decide::ids::ClusterName;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long a token is remembered. ECS publishes no figure; a day outlasts every client's retries.
pub const TOKEN_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// A token counts for one operation in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdempotencyKey {
    pub operation: String,
    pub cluster: ClusterName,
    pub token: String,
}

/// Without the token, which is nobody's business but its owner's.
impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.operation, self.cluster)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    pub key: IdempotencyKey,
    /// A digest of the request's other members: the same token with other parameters is a conflict.
    pub fingerprint: String,
    /// The ARNs that the first request made.
    pub resources: Vec<String>,
    pub made_at: Timestamp,
}

impl Record for IdempotencyRecord {
    const KIND: &'static str = "ecs/client-token";
    const VERSION: u32 = 1;
    type Key = IdempotencyKey;

    fn key(&self) -> IdempotencyKey {
        self.key.clone()
    }

    fn path(key: &IdempotencyKey) -> String {
        format!("{}/{}/{}", key.cluster, key.operation, key.token)
    }
}
