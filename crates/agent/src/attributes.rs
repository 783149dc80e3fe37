//! What an agent tells of itself when it registers: what it can do, and how much it has.

use crate::config::AgentConfig;
use gantry_api::ecs;
use std::fs;

/// Docker API versions whose features the native runtime has: task definitions ask by them for what came with each.
const DOCKER_API_VERSIONS: std::ops::RangeInclusive<u32> = 17..=44;

/// What works here; a capability that is not announced keeps tasks away that need it.
const CAPABILITIES: &[&str] = &[
    "com.amazonaws.ecs.capability.logging-driver.awsfirelens",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.fluentd",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.none",
    "com.amazonaws.ecs.capability.logging-driver.syslog",
    "com.amazonaws.ecs.capability.privileged-container",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.efs",
    "ecs.capability.efsAuth",
    "ecs.capability.execute-command",
    "ecs.capability.execution-role-awslogs",
    "ecs.capability.firelens.fluentbit",
    "ecs.capability.firelens.fluentd",
    "ecs.capability.firelens.non-root-user",
    "ecs.capability.firelens.options.config.file",
    "ecs.capability.full-sync",
    "ecs.capability.increased-task-cpu-limit",
    "ecs.capability.logging-driver.awsfirelens.log-driver-buffer-limit",
    "ecs.capability.pid-ipc-namespace-sharing",
    "ecs.capability.storage.ebs-task-volume-attach",
    "ecs.capability.task-cpu-mem-limit",
    "ecs.capability.task-eni",
    "gantry.execute-command",
    "gantry.inline-ebs",
    "gantry.inline-eni",
    "gantry.security-groups",
];

/// Ports of the host that no task gets: those that ECS reserves.
const RESERVED_PORTS: [&str; 6] = ["22", "2375", "2376", "51678", "51679", "51680"];

/// MiB of the host that tasks do not get: what the agent and its shims need.
const RESERVED_MEMORY: u32 = 128;

fn attribute(name: &str, value: Option<&str>) -> ecs::Attribute {
    ecs::Attribute { name: name.to_owned(), value: value.map(str::to_owned), ..Default::default() }
}

/// Everything to register. The user's own attributes only count on the first registration.
pub fn attributes(config: &AgentConfig, first: bool) -> Vec<ecs::Attribute> {
    let own = config.attributes.iter().filter(|_| first);
    let mut all: Vec<_> = own.map(|(name, value)| attribute(name, Some(value))).collect();
    all.extend(CAPABILITIES.iter().map(|name| attribute(name, None)));
    all.extend(DOCKER_API_VERSIONS.map(|version| {
        attribute(&format!("com.amazonaws.ecs.capability.docker-remote-api.1.{version}"), None)
    }));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    all.extend([
        attribute("ecs.os-type", Some("linux")),
        attribute("ecs.os-family", Some("LINUX")),
        attribute("ecs.cpu-architecture", Some(architecture)),
    ]);
    if let Some(zone) = &config.availability_zone {
        all.push(attribute("ecs.availability-zone", Some(zone)));
    }
    all
}

/// CPU units and MiB of tasks: as configured, or what the host has.
pub fn capacity(config: &AgentConfig) -> (u32, u32) {
    config.capacity.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cpu = u32::try_from(cores).unwrap_or(u32::MAX).saturating_mul(1024);
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        (cpu, memory_of(&text).saturating_sub(RESERVED_MEMORY).max(1))
    })
}

/// MiB of memory in all.
fn memory_of(meminfo: &str) -> u32 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    u32::try_from(kib / 1024).unwrap_or(u32::MAX)
}

/// The capacity as registration tells it.
pub fn resources((cpu, memory): (u32, u32)) -> Vec<ecs::Resource> {
    let number = |name: &str, value: u32| ecs::Resource {
        name: Some(name.to_owned()),
        type_: Some("INTEGER".to_owned()),
        integer_value: Some(i32::try_from(value).unwrap_or(i32::MAX)),
        ..Default::default()
    };
    let ports = |name: &str, values: &[&str]| ecs::Resource {
        name: Some(name.to_owned()),
        type_: Some("STRINGSET".to_owned()),
        string_set_value: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        ..Default::default()
    };
    vec![
        number("CPU", cpu),
        number("MEMORY", memory),
        ports("PORTS", &RESERVED_PORTS),
        ports("PORTS_UDP", &[]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(memory_of("MemTotal:       24584172 kB\nMemFree: 1 kB\n"), 24007);
        assert_eq!(memory_of(""), 0);
    }
}
