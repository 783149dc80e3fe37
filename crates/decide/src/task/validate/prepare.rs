//! The first pass, on untyped JSON: presence, characters, number ranges and spellings.

use super::{DefinitionError, MAX_CONTAINERS, MAX_DEFINITION_BYTES};
use crate::ids::{ContainerName, Family};
use crate::task::units::{CpuUnits, MemoryMib};
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// Returns the definition with nulls dropped, sizes as plain numbers and every volume with a source; whatever the
/// typed reader will refuse after this was no task definition at all.
pub fn prepare(mut raw: Value) -> Result<Value, DefinitionError> {
    drop_nulls(&mut raw);
    let length = raw.to_string().len();
    if length > MAX_DEFINITION_BYTES {
        return Err(DefinitionError::TooLarge { length, max: MAX_DEFINITION_BYTES });
    }
    let Value::Object(task) = &mut raw else { return Err(DefinitionError::Family) };
    // Computed at registration; a described definition that is sent back carries the old values.
    task.remove("compatibilities");
    task.remove("requiresAttributes");

    if text(task, "family").parse::<Family>().is_err() {
        return Err(DefinitionError::Family);
    }
    size(task, "cpu", |text| Ok(text.parse::<CpuUnits>()?.to_string()))?;
    size(task, "memory", |text| Ok(text.parse::<MemoryMib>()?.to_string()))?;
    if let Some(Value::Object(storage)) = task.get("ephemeralStorage")
        && storage.get("sizeInGiB").and_then(Value::as_i64).is_some_and(|n| n < 0)
    {
        return Err(DefinitionError::TaskSetting { setting: "ephemeralStorage" });
    }
    let containers = match task.get_mut("containerDefinitions") {
        Some(Value::Array(containers)) if !containers.is_empty() => containers,
        _ => return Err(DefinitionError::NoContainers),
    };
    if containers.len() > MAX_CONTAINERS {
        return Err(DefinitionError::TooManyContainers { count: containers.len(), max: MAX_CONTAINERS });
    }
    for container in containers {
        match container {
            Value::Object(container) => prepare_container(container)?,
            _ => return Err(DefinitionError::ContainerNameMissing),
        }
    }
    if let Some(Value::Array(volumes)) = task.get_mut("volumes") {
        for volume in volumes {
            if let Value::Object(volume) = volume {
                prepare_volume(volume)?;
            }
        }
    }
    if let Some(Value::Array(constraints)) = task.get("placementConstraints")
        && constraints.iter().any(|c| c.get("expression").is_none() || c.get("type").is_none())
    {
        return Err(DefinitionError::ConstraintExpression);
    }
    Ok(raw)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn text<'a>(object: &'a Object, member: &str) -> &'a str {
    object.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn size(
    task: &mut Object,
    member: &str,
    read: impl Fn(&str) -> Result<String, DefinitionError>,
) -> Result<(), DefinitionError> {
    if let Some(Value::String(text)) = task.get_mut(member) {
        *text = read(text)?;
    }
    Ok(())
}

fn prepare_container(container: &mut Object) -> Result<(), DefinitionError> {
    let name = text(container, "name");
    if name.is_empty() {
        return Err(DefinitionError::ContainerNameMissing);
    }
    if name.parse::<ContainerName>().is_err() {
        return Err(DefinitionError::ContainerName);
    }
    let name = name.to_owned();
    if text(container, "image").is_empty() {
        return Err(DefinitionError::ImageMissing);
    }
    let wrong = |setting| DefinitionError::ContainerSetting { container: name.clone(), setting };
    for setting in ["cpu", "memory", "memoryReservation", "startTimeout", "stopTimeout"] {
        if container.get(setting).and_then(Value::as_i64).is_some_and(|n| n < 0) {
            return Err(wrong(setting));
        }
    }
    check_ranges(container, &name)?;
    if let Some(Value::Array(mappings)) = container.get("portMappings") {
        for mapping in mappings {
            for setting in ["containerPort", "hostPort"] {
                let port = mapping.get(setting).and_then(Value::as_i64);
                if port.is_some_and(|p| !(0..=0xffff).contains(&p)) {
                    return Err(wrong(setting));
                }
            }
            let range = mapping.get("containerPortRange").and_then(Value::as_str);
            if range.is_some_and(|r| r.parse::<crate::task::PortRange>().is_err()) {
                return Err(wrong("containerPortRange"));
            }
        }
    }
    for (list, members) in [
        ("mountPoints", &["sourceVolume", "containerPath"][..]),
        ("volumesFrom", &["sourceContainer"]),
        ("environment", &["name"]),
        ("systemControls", &["namespace", "value"]),
    ] {
        if let Some(Value::Array(entries)) = container.get(list) {
            for entry in entries {
                let complete =
                    entry.as_object().is_some_and(|e| members.iter().all(|m| !text(e, m).is_empty()));
                if !complete {
                    return Err(wrong(list));
                }
            }
        }
    }
    // An unknown name would be the typed reader's to refuse; here it gets the words of the dependency rule.
    if let Some(Value::Array(dependencies)) = container.get("dependsOn") {
        for dependency in dependencies {
            let other = dependency.get("containerName").and_then(Value::as_str).unwrap_or_default();
            if other.parse::<ContainerName>().is_err() {
                let other = other.chars().take(255).collect();
                return Err(DefinitionError::UnknownContainer {
                    container: name,
                    setting: "dependsOn",
                    name: other,
                });
            }
        }
    }
    Ok(())
}

/// Numbers with a range of their own inside a container's structures. (structure, member, low, high)
const RANGES: [(&str, &str, i64, i64); 8] = [
    ("healthCheck", "interval", 5, 300),
    ("healthCheck", "timeout", 2, 60),
    ("healthCheck", "retries", 1, 10),
    ("healthCheck", "startPeriod", 0, 300),
    ("restartPolicy", "restartAttemptPeriod", 60, 1800),
    ("linuxParameters", "swappiness", 0, 100),
    ("linuxParameters", "maxSwap", 0, i32::MAX as i64),
    ("linuxParameters", "sharedMemorySize", 1, i32::MAX as i64),
];

fn check_ranges(container: &Object, name: &str) -> Result<(), DefinitionError> {
    for (structure, setting, low, high) in RANGES {
        let number = container.get(structure).and_then(|s| s.get(setting)).and_then(Value::as_i64);
        if number.is_some_and(|n| !(low..=high).contains(&n)) {
            return Err(DefinitionError::ContainerRange { container: name.to_owned(), setting, low, high });
        }
    }
    Ok(())
}

/// The members that say where a volume's data lives; at most one may be there.
const SOURCES: [&str; 5] = [
    "host",
    "dockerVolumeConfiguration",
    "efsVolumeConfiguration",
    "s3filesVolumeConfiguration",
    "fsxWindowsFileServerVolumeConfiguration",
];

fn prepare_volume(volume: &mut Object) -> Result<(), DefinitionError> {
    let at_launch = volume.remove("configuredAtLaunch") == Some(Value::Bool(true));
    // `host: {}` beside another source is what clients send that fill in every structure.
    let empty_host = volume.get("host").and_then(Value::as_object).is_some_and(Map::is_empty);
    let others = SOURCES[1..].iter().filter(|s| volume.contains_key(**s)).count() + usize::from(at_launch);
    if others > 0 && empty_host {
        volume.remove("host");
    }
    let hosts = usize::from(volume.contains_key("host"));
    match (hosts + others, at_launch) {
        (0, _) => {
            volume.insert("host".to_owned(), json!({}));
        }
        (1, true) => {
            volume.insert("configuredAtLaunch".to_owned(), Value::Bool(true));
        }
        (1, false) => {}
        _ => return Err(DefinitionError::VolumeSources { name: text(volume, "name").to_owned() }),
    }
    if !volume.contains_key("name") {
        return Err(DefinitionError::VolumeName);
    }
    Ok(())
}
