//! What a task runs: its definition with the overrides applied, stored once for all tasks that run it unchanged.

use gantry_decide::task::definition::TaskDefinition;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::Deref;
use std::sync::Arc;

/// A task's definition with the overrides applied.
///
/// Not stored where it is the registered one, word for word: a definition takes kilobytes, and thousands of tasks
/// share it. It is found again by its id when the task is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveDefinition {
    /// Absent only between reading a stored task and [`EffectiveDefinition::resolve`].
    definition: Option<Arc<TaskDefinition>>,
    /// Kept in the task's own record.
    own: bool,
}

impl EffectiveDefinition {
    /// The definition as registered.
    pub fn registered(definition: Arc<TaskDefinition>) -> EffectiveDefinition {
        EffectiveDefinition { definition: Some(definition), own: false }
    }

    /// One that only the task has: changed by overrides, or about to be deleted.
    pub fn own(definition: Arc<TaskDefinition>) -> EffectiveDefinition {
        EffectiveDefinition { definition: Some(definition), own: true }
    }

    /// The registered definition of a task that is being loaded, until [`EffectiveDefinition::resolve`] has found it.
    pub fn unresolved() -> EffectiveDefinition {
        EffectiveDefinition { definition: None, own: false }
    }

    /// Whether the registered definition must stay for the task to be read again.
    pub fn is_registered(&self) -> bool {
        !self.own
    }

    /// Finds what was not stored with the task, and shares what was although it equals what is registered. False if
    /// there is nothing to find.
    pub fn resolve(&mut self, registered: Option<&Arc<TaskDefinition>>) -> bool {
        match (&self.definition, registered) {
            (None, Some(registered)) => *self = EffectiveDefinition::registered(Arc::clone(registered)),
            (Some(own), Some(registered)) if own == registered => {
                // Still stored with the task, until it is next written.
                self.definition = Some(Arc::clone(registered));
                self.own = false;
            }
            _ => {}
        }
        self.definition.is_some()
    }

    /// The definition, to be shared.
    pub fn shared(&self) -> &Arc<TaskDefinition> {
        self.definition.as_ref().expect("whoever loads a task resolves its definition first")
    }
}

impl Deref for EffectiveDefinition {
    type Target = TaskDefinition;

    fn deref(&self) -> &TaskDefinition {
        self.shared()
    }
}

impl Serialize for EffectiveDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.definition.as_ref().filter(|_| self.own).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EffectiveDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let definition = Option::<Arc<TaskDefinition>>::deserialize(deserializer)?;
        Ok(EffectiveDefinition { own: definition.is_some(), definition })
    }
}
