//! Sessions of ECS Exec that may be opened, or go on.

use super::TaskKey;
use gantry_decide::ids::{ContainerName, ExecSessionId};
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a session may be opened after it was asked for. The CLI opens it at once.
pub const EXEC_OPEN_MAX: Duration = Duration::from_secs(60);

/// How long a session may last: Session Manager's longest.
pub const EXEC_LAST_MAX: Duration = Duration::from_secs(24 * 3600);

/// A command to run in a container, for whoever has the token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecSession {
    pub id: ExecSessionId,
    pub task: TaskKey,
    pub container: ContainerName,
    pub command: String,
    /// See [`gantry_wire::data_channel::token_digest`].
    pub token_digest: String,
    pub made_at: Timestamp,
    /// Both sides have come: until it ends, each may come again after its connection broke.
    #[serde(default)]
    pub opened: bool,
}

impl Record for ExecSession {
    const KIND: &'static str = "ecs/exec-session";
    const VERSION: u32 = 1;
    type Key = ExecSessionId;

    fn key(&self) -> ExecSessionId {
        self.id
    }

    fn path(key: &ExecSessionId) -> String {
        key.to_string()
    }
}
