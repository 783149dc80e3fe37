//! Task definitions as registered, and the counter that gives each family its revisions.

use super::Tags;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::ids::{Family, Scope, TaskDefinitionId};
use gantry_decide::task::definition::TaskDefinition;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskDefinitionStatus {
    Active,
    /// Deregistered: what runs goes on, nothing new may start.
    Inactive,
    DeleteInProgress,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskDefinitionRecord {
    pub id: TaskDefinitionId,
    pub status: TaskDefinitionStatus,
    /// Shared with every task that runs it.
    pub definition: Arc<TaskDefinition>,
    pub tags: Tags,
    pub registered_at: Timestamp,
    pub registered_by: String,
    pub deregistered_at: Option<Timestamp>,
    pub delete_requested_at: Option<Timestamp>,
}

impl TaskDefinitionRecord {
    pub fn arn(&self, scope: &Scope) -> EcsArn {
        scope.ecs(EcsResource::TaskDefinition(self.id.clone()))
    }
}

impl Record for TaskDefinitionRecord {
    const KIND: &'static str = "ecs/task-definition";
    const VERSION: u32 = 1;
    type Key = TaskDefinitionId;

    fn key(&self) -> TaskDefinitionId {
        self.id.clone()
    }

    fn path(key: &TaskDefinitionId) -> String {
        format!("{}/{}", key.family, key.revision)
    }
}

/// The last revision a family ever had. Outlives its revisions, because no number is given twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamilyRecord {
    pub family: Family,
    pub last_revision: u32,
}

impl Record for FamilyRecord {
    const KIND: &'static str = "ecs/family";
    const VERSION: u32 = 1;
    type Key = Family;

    fn key(&self) -> Family {
        self.family.clone()
    }

    fn path(key: &Family) -> String {
        key.to_string()
    }
}
