//! What RunTask, StartTask and schedules may change about a definition for one task.

use crate::ids::{AccountId, ContainerName};
use crate::task::definition::{
    ContainerDefinition, EnvironmentFile, EphemeralStorage, KeyValue, ResourceRequirement, TaskDefinition,
};
use crate::task::kinds::Compatibility;
use crate::task::units::{CpuUnits, InvalidUnits, MemoryMib, as_text};
use crate::task::validate::{DefinitionError, check_overridden, check_platform};
use serde::{Deserialize, Serialize};

/// Characters of the overrides as JSON: ECS's limit.
pub const MAX_OVERRIDES: usize = 8192;

/// Changes to the task; serialised names are ECS's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOverride {
    #[serde(default)]
    pub container_overrides: Vec<ContainerOverride>,
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUnits>,
    #[serde(default)]
    pub inference_accelerator_overrides: Vec<InferenceAcceleratorOverride>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    #[serde(default, with = "as_text", skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryMib>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<EphemeralStorage>,
}

/// Changes to one container, named in every override.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerOverride {
    #[serde(default)]
    pub name: String,
    /// Replaces the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Merged by name with the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Vec<KeyValue>>,
    /// Replaces the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_files: Option<Vec<EnvironmentFile>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i32>,
    /// Replaces the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<Vec<ResourceRequirement>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferenceAcceleratorOverride {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
}

/// Why overrides are refused. `Display` is the message that the caller sees.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error("Override for container named {name} is not a container in the TaskDefinition.")]
    UnknownContainer { name: String },
    #[error("Container overrides must name each container at most once: {name} is named twice.")]
    ContainerTwice { name: String },
    #[error("Overrides length {length} exceeds the maximum of {max} characters.")]
    TooLong { length: usize, max: usize },
    #[error("Invalid '{setting}' setting in the override for container '{container}'.")]
    ContainerSetting { container: String, setting: &'static str },
    #[error(transparent)]
    TaskSize(#[from] InvalidUnits),
    #[error("The overrides could not be read: {0}")]
    Malformed(#[source] serde_json::Error),
    /// The definition would not have been accepted with these values.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

impl OverrideError {
    /// The error code that ECS answers with.
    pub fn code(&self) -> &'static str {
        match self {
            OverrideError::Definition(error) => error.code(),
            _ => "InvalidParameterException",
        }
    }
}

impl TaskOverride {
    /// Reads a request's overrides (their JSON, in ECS's spelling), bounded in length, sizes normalised.
    pub fn read(mut raw: serde_json::Value) -> Result<TaskOverride, OverrideError> {
        let length = raw.to_string().chars().count();
        if length > MAX_OVERRIDES {
            return Err(OverrideError::TooLong { length, max: MAX_OVERRIDES });
        }
        if let Some(serde_json::Value::String(cpu)) = raw.get_mut("cpu") {
            *cpu = cpu.parse::<CpuUnits>()?.to_string();
        }
        if let Some(serde_json::Value::String(memory)) = raw.get_mut("memory") {
            *memory = memory.parse::<MemoryMib>()?.to_string();
        }
        serde_json::from_value(raw).map_err(OverrideError::Malformed)
    }

    /// Whether a task under these overrides is exactly its definition.
    pub fn is_empty(&self) -> bool {
        let TaskOverride {
            container_overrides,
            cpu,
            inference_accelerator_overrides,
            execution_role_arn,
            memory,
            task_role_arn,
            ephemeral_storage,
        } = self;
        container_overrides.iter().all(ContainerOverride::is_empty)
            && inference_accelerator_overrides.is_empty()
            && cpu.is_none()
            && memory.is_none()
            && execution_role_arn.is_none()
            && task_role_arn.is_none()
            && ephemeral_storage.is_none()
    }

    /// The overrides as a task shows them: one entry for each container, also where nothing is overridden.
    pub fn shown_for(&self, definition: &TaskDefinition) -> TaskOverride {
        let mut shown = self.clone();
        for container in &definition.container_definitions {
            let name = container.name.as_str();
            if !shown.container_overrides.iter().any(|o| o.name == name) {
                shown
                    .container_overrides
                    .push(ContainerOverride { name: name.to_owned(), ..Default::default() });
            }
        }
        shown
    }

    /// The definition with these changes: what the task really runs. `launch` is what it is launched on, whose sizes
    /// must fit again.
    pub fn apply(
        &self,
        definition: &TaskDefinition,
        account: AccountId,
        launch: Compatibility,
    ) -> Result<TaskDefinition, OverrideError> {
        let mut effective = definition.clone();
        let mut named: Vec<&str> = Vec::new();
        for change in &self.container_overrides {
            let name = change.name.as_str();
            let container = name
                .parse::<ContainerName>()
                .ok()
                .and_then(|n| effective.container_definitions.iter_mut().find(|c| c.name == n));
            let Some(container) = container else {
                return Err(OverrideError::UnknownContainer { name: name.chars().take(255).collect() });
            };
            if named.contains(&name) {
                return Err(OverrideError::ContainerTwice { name: name.to_owned() });
            }
            named.push(name);
            change.apply(container)?;
        }
        effective.cpu = self.cpu.or(effective.cpu);
        effective.memory = self.memory.or(effective.memory);
        effective.ephemeral_storage = self.ephemeral_storage.or(effective.ephemeral_storage);
        for (role, change) in [
            (&mut effective.task_role_arn, &self.task_role_arn),
            (&mut effective.execution_role_arn, &self.execution_role_arn),
        ] {
            match change.as_deref() {
                None | Some("") => {}
                Some(arn) if arn.starts_with("arn:") => *role = Some(arn.to_owned()),
                Some(name) => *role = Some(format!("arn:aws:iam::{account}:role/{name}")),
            }
        }
        for change in &self.inference_accelerator_overrides {
            let accelerators = effective.inference_accelerators.iter_mut().flatten();
            for accelerator in accelerators.filter(|a| Some(&a.device_name) == change.device_name.as_ref()) {
                if let Some(kind) = &change.device_type {
                    accelerator.device_type.clone_from(kind);
                }
            }
        }
        check_overridden(&effective)?;
        if effective.is_compatible_with(launch) {
            check_platform(&effective, launch)?;
        }
        Ok(effective)
    }
}

impl ContainerOverride {
    fn is_empty(&self) -> bool {
        let ContainerOverride {
            name: _,
            command,
            environment,
            environment_files,
            cpu,
            memory,
            memory_reservation,
            resource_requirements,
        } = self;
        command.is_none()
            && environment.is_none()
            && environment_files.is_none()
            && cpu.is_none()
            && memory.is_none()
            && memory_reservation.is_none()
            && resource_requirements.is_none()
    }

    fn apply(&self, container: &mut ContainerDefinition) -> Result<(), OverrideError> {
        let amount = |value: Option<i32>, low: i32, setting| match value {
            None => Ok(None),
            Some(n) if n >= low => Ok(u32::try_from(n).ok()),
            Some(_) => Err(OverrideError::ContainerSetting { container: self.name.clone(), setting }),
        };
        // 4 MiB is the least that a container can have.
        if let Some(cpu) = amount(self.cpu, 0, "cpu")? {
            container.cpu = CpuUnits(cpu);
        }
        if let Some(memory) = amount(self.memory, 4, "memory")? {
            container.memory = Some(MemoryMib(memory));
        }
        if let Some(reservation) = amount(self.memory_reservation, 4, "memoryReservation")? {
            container.memory_reservation = Some(MemoryMib(reservation));
        }
        if let Some(command) = &self.command {
            container.command = Some(command.clone());
        }
        for change in self.environment.iter().flatten() {
            if change.name.is_empty() {
                let setting = "environment";
                return Err(OverrideError::ContainerSetting { container: self.name.clone(), setting });
            }
            match container.environment.iter_mut().find(|e| e.name == change.name) {
                Some(existing) => existing.value.clone_from(&change.value),
                None => container.environment.push(change.clone()),
            }
        }
        if let Some(files) = &self.environment_files {
            container.environment_files = Some(files.clone());
        }
        if let Some(requirements) = &self.resource_requirements {
            container.resource_requirements = Some(requirements.clone());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::task::validate;
    use serde_json::{Value, json};

    fn definition() -> TaskDefinition {
        let raw = json!({
            "family": "web", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
            "cpu": "256", "memory": "512", "taskRoleArn": "web-role",
            "containerDefinitions": [
                {"name": "app", "image": "app:1", "command": ["serve"], "memory": 256,
                 "environment": [{"name": "MODE", "value": "blue"}, {"name": "LEVEL", "value": "1"}]},
                {"name": "side", "image": "side:1"},
            ],
        });
        validate(raw, AccountId::DEFAULT).unwrap()
    }

    fn apply(raw: Value) -> Result<Value, String> {
        let effective = TaskOverride::read(raw)
            .and_then(|o| o.apply(&definition(), AccountId::DEFAULT, Compatibility::Fargate))
            .map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(effective).unwrap())
    }

    /// Applies overrides and compares one place of the result.
    fn check(raw: Value, pointer: &str, expected: Value) {
        let effective = apply(raw.clone()).unwrap();
        assert_eq!(effective.pointer(pointer), Some(&expected), "{raw} at {pointer}");
    }

    fn refused(raw: Value, message: &str) {
        assert_eq!(apply(raw).unwrap_err(), message);
    }

    #[test]
    fn overrides_replace_or_merge() {
        let app = |change: Value| {
            let mut change = change;
            change["name"] = json!("app");
            json!({ "containerOverrides": [change] })
        };
        check(app(json!({"command": ["x", "y"]})), "/containerDefinitions/0/command", json!(["x", "y"]));
        check(app(json!({"command": []})), "/containerDefinitions/0/command", json!([]));
        check(
            app(json!({"environment": [{"name": "MODE", "value": "green"}, {"name": "NEW", "value": "2"}]})),
            "/containerDefinitions/0/environment",
            json!([{"name": "MODE", "value": "green"}, {"name": "LEVEL", "value": "1"}, {"name": "NEW", "value": "2"}]),
        );
        check(app(json!({"cpu": 64})), "/containerDefinitions/0/cpu", json!(64));
        check(app(json!({"memory": 300})), "/containerDefinitions/0/memory", json!(300));
        check(app(json!({"memory": 300})), "/containerDefinitions/1/name", json!("side"));
        check(json!({"cpu": ".5 vCPU", "memory": "1GB"}), "/cpu", json!("512"));
        check(json!({"taskRoleArn": "other"}), "/taskRoleArn", json!("arn:aws:iam::123456789012:role/other"));
        check(
            json!({"executionRoleArn": "arn:aws:iam::1:role/x"}),
            "/executionRoleArn",
            json!("arn:aws:iam::1:role/x"),
        );
        check(json!({"ephemeralStorage": {"sizeInGiB": 50}}), "/ephemeralStorage/sizeInGiB", json!(50));
        check(json!({}), "/taskRoleArn", json!("arn:aws:iam::123456789012:role/web-role"));
    }

    #[test]
    fn wrong_overrides_are_refused() {
        refused(
            json!({"containerOverrides": [{"name": "db"}]}),
            "Override for container named db is not a container in the TaskDefinition.",
        );
        refused(
            json!({"containerOverrides": [{"command": ["x"]}]}),
            "Override for container named  is not a container in the TaskDefinition.",
        );
        refused(
            json!({"containerOverrides": [{"name": "app"}, {"name": "app"}]}),
            "Container overrides must name each container at most once: app is named twice.",
        );
        refused(
            json!({"containerOverrides": [{"name": "app", "memory": 2}]}),
            "Invalid 'memory' setting in the override for container 'app'.",
        );
        refused(
            json!({"containerOverrides": [{"name": "app", "memoryReservation": 400}]}),
            "Invalid setting for container 'app'. 'memory' must be greater than or equal to 'memoryReservation'.",
        );
        refused(
            json!({"cpu": "512"}),
            "No Fargate configuration exists for given values: 512 CPU, 512 memory.",
        );
        refused(
            json!({"containerOverrides": [{"name": "app", "memory": 600}]}),
            "The 'memory' setting for container 'app' is greater than for the task.",
        );
        refused(
            json!({"containerOverrides": [{"name": "app", "cpu": 200}, {"name": "side", "cpu": 200}]}),
            "The total 'cpu' setting of all containers is greater than for the task.",
        );
        let file = json!([{"type": "s3", "value": "arn:aws:s3:::bucket/variables.txt"}]);
        refused(
            json!({"containerOverrides": [{"name": "app", "environmentFiles": file}]}),
            "Invalid 'environmentFiles' setting for container 'app'.",
        );
        for size in [20, 201] {
            refused(
                json!({"ephemeralStorage": {"sizeInGiB": size}}),
                "Ephemeral storage size must be between 21 and 200 GiB.",
            );
        }
        refused(json!({"cpu": "lots"}), "Invalid 'cpu' setting for task.");
        refused(
            json!({"containerOverrides": [{"name": "app", "command": ["x".repeat(9000)]}]}),
            "Overrides length 9054 exceeds the maximum of 8192 characters.",
        );
    }

    #[test]
    fn every_container_is_shown() {
        let none = TaskOverride::default();
        assert!(none.is_empty());
        let shown = serde_json::to_value(none.shown_for(&definition())).unwrap();
        assert_eq!(
            shown,
            json!({"containerOverrides": [{"name": "app"}, {"name": "side"}], "inferenceAcceleratorOverrides": []})
        );
    }
}
