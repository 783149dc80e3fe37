//! What an agent tells of itself when it registers: what it can do, and how much it has.

use crate::config::AgentConfig;
use crate::network::ipv6_is_possible;
use gantry_api::ecs;
use std::collections::BTreeSet;
use std::fs;

/// The first version of Docker's API that task definitions ask for by what came with it.
const DOCKER_API_FIRST: u32 = 17;
/// The last one whose features the native runtime has.
const DOCKER_API_NATIVE: u32 = 44;
/// The log drivers that the agent has itself, whatever the runtime.
const LOG_DRIVERS: [&str; 6] = ["awsfirelens", "awslogs", "fluentd", "json-file", "none", "syslog"];

/// What depends on the runtime, for one that has the features of Docker's API up to this minor version, log drivers
/// beside the agent's own, and these volume drivers.
pub fn of_runtime(api: u32, log_drivers: &[String], volume_drivers: &[String]) -> Vec<String> {
    let drivers: BTreeSet<&str> =
        LOG_DRIVERS.into_iter().chain(log_drivers.iter().map(String::as_str)).collect();
    let versions = (DOCKER_API_FIRST..=api).map(|minor| format!("docker-remote-api.1.{minor}"));
    let drivers = drivers.into_iter().map(|driver| format!("logging-driver.{driver}"));
    let mut all: Vec<String> =
        versions.chain(drivers).map(|name| format!("com.amazonaws.ecs.capability.{name}")).collect();
    all.extend(volume_drivers.iter().map(|driver| format!("ecs.capability.docker-plugin.{driver}")));
    all
}

/// The same of the native runtime.
pub fn native() -> Vec<String> {
    of_runtime(DOCKER_API_NATIVE, &[], &["local".to_owned()])
}

/// What works here; a capability that is not announced keeps tasks away that need it.
const CAPABILITIES: &[&str] = &[
    "com.amazonaws.ecs.capability.privileged-container",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "ecs.capability.aws-appmesh",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.network.container-port-range",
    "ecs.capability.efs",
    "ecs.capability.efsAuth",
    "ecs.capability.env-files.s3",
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
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.asm.bootstrap.log-driver",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.ssm.bootstrap.log-driver",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.storage.ebs-task-volume-attach",
    "ecs.capability.task-cpu-mem-limit",
    "ecs.capability.task-eni",
    "gantry.execute-command",
    "gantry.inline-ebs",
    "gantry.image-prefetch",
    "gantry.inline-eni",
    "gantry.security-groups",
];

/// What machines of the user's own do not announce, as the stock agent there: what needs a VPC or EBS.
const NOT_EXTERNAL: &[&str] = &[
    "ecs.capability.aws-appmesh",
    "ecs.capability.storage.ebs-task-volume-attach",
    "ecs.capability.task-eni",
    "gantry.inline-ebs",
    "gantry.inline-eni",
    "gantry.security-groups",
];
/// Marks such a machine.
const EXTERNAL: &str = "ecs.capability.external";

/// Ports of the host that no task gets: those that ECS reserves.
const RESERVED_PORTS: [&str; 6] = ["22", "2375", "2376", "51678", "51679", "51680"];

/// MiB of the host that tasks do not get: what the agent and its shims need.
const RESERVED_MEMORY: u32 = 128;

fn attribute(name: &str, value: Option<&str>) -> ecs::Attribute {
    ecs::Attribute { name: name.to_owned(), value: value.map(str::to_owned), ..Default::default() }
}

/// Everything to register. The user's own attributes only count on the first registration.
pub fn attributes(config: &AgentConfig, of_runtime: &[String], first: bool) -> Vec<ecs::Attribute> {
    let own = config.attributes.iter().filter(|_| first);
    let mut all: Vec<_> = own.map(|(name, value)| attribute(name, Some(value))).collect();
    let announced = CAPABILITIES.iter().filter(|name| !(config.external && NOT_EXTERNAL.contains(name)));
    all.extend(announced.map(|name| attribute(name, None)));
    all.extend(config.external.then(|| attribute(EXTERNAL, None)));
    all.extend(of_runtime.iter().map(|name| attribute(name, None)));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
    all.extend([
        attribute("ecs.os-type", Some("linux")),
        attribute("ecs.os-family", Some("LINUX")),
        attribute("ecs.cpu-architecture", Some(architecture)),
        attribute("gantry.runtime", Some(if config.runtime.is_docker() { "docker" } else { "native" })),
    ]);
    if !config.external && ipv6_is_possible(config.mtu) {
        all.push(attribute("ecs.capability.task-eni.ipv6", None));
    }
    if config.has_lease() {
        all.push(attribute("gantry.lease", None));
    }
    if let Some(address) = config.host_address {
        all.push(attribute("gantry.host-address", Some(&address.to_string())));
    }
    if let Some(zone) = &config.availability_zone {
        all.push(attribute("ecs.availability-zone", Some(zone)));
    }
    all
}

/// The document by which EC2 tells machines who they are; empty where none is known.
pub fn identity_document(config: &AgentConfig) -> String {
    let Some(machine) = &config.machine else { return String::new() };
    let document = serde_json::json!({
        "instanceId": machine.instance_id,
        "instanceType": machine.instance_type,
        "availabilityZone": config.availability_zone,
        "region": config.region,
    });
    document.to_string()
}

/// The host's GPUs as registration tells them.
pub fn gpus(config: &AgentConfig) -> Option<Vec<ecs::PlatformDevice>> {
    let device = |id| ecs::PlatformDevice { id, type_: ecs::PlatformDeviceType::Gpu };
    let gpus: Vec<_> = crate::gpus::of_host(&config.gpu_devices).into_keys().map(device).collect();
    Some(gpus).filter(|gpus| !gpus.is_empty())
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
