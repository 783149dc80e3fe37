//! Rules on single containers and on how their sizes add up.

use super::DefinitionError;
use crate::task::definition::{ContainerDefinition, TaskDefinition, Tmpfs};
use crate::task::kinds::{IpcMode, LogDriver, NetworkMode, ResourceType};
use std::collections::BTreeSet;

/// Smallest memory that a container can have, MiB: ECS's rule (and Docker's).
const MIN_MEMORY: u32 = 4;
/// Environment files of a container: ECS's limit.
const MAX_ENVIRONMENT_FILES: usize = 10;
/// Exit codes that a restart policy may ignore: ECS's limit.
const MAX_IGNORED_EXIT_CODES: usize = 50;
/// Characters of an image's name before a digest: ECS's limit.
const MAX_IMAGE: usize = 255;

pub fn check(definition: &mut TaskDefinition) -> Result<(), DefinitionError> {
    let mut names = BTreeSet::new();
    for container in &mut definition.container_definitions {
        if !names.insert(container.name.clone()) {
            return Err(DefinitionError::ContainerNameTwice { name: container.name.to_string() });
        }
        fill_in(container);
    }
    if !definition.container_definitions.iter().any(|c| c.essential) {
        return Err(DefinitionError::NoEssentialContainer);
    }
    for container in &definition.container_definitions {
        check_image(&container.image)?;
        check_memory(definition, container)?;
        check_lists(container)?;
        check_linux(definition, container)?;
        check_secrets(definition, container)?;
        check_devices(definition, container)?;
    }
    check_totals(definition)?;
    check_firelens(definition)
}

/// Of these rules, those on what overrides may change.
pub fn check_overridden(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    for container in &definition.container_definitions {
        check_memory(definition, container)?;
        check_lists(container)?;
        check_secrets(definition, container)?;
        check_devices(definition, container)?;
    }
    check_totals(definition)
}

fn fill_in(container: &mut ContainerDefinition) {
    // Empty text means "not given" in these, as for a form left blank.
    for text in [&mut container.hostname, &mut container.user, &mut container.working_directory] {
        if text.as_deref().is_some_and(str::is_empty) {
            *text = None;
        }
    }
}

fn check_image(image: &str) -> Result<(), DefinitionError> {
    let (name, digest) = match image.split_once("@sha256:") {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/#".contains(&b);
    let name_fits = !name.is_empty() && name.len() <= MAX_IMAGE && name.bytes().all(allowed);
    let digest_fits = digest.is_none_or(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    if name_fits && digest_fits { Ok(()) } else { Err(DefinitionError::Image) }
}

fn setting(container: &ContainerDefinition, setting: &'static str) -> DefinitionError {
    DefinitionError::ContainerSetting { container: container.name.to_string(), setting }
}

fn check_memory(task: &TaskDefinition, container: &ContainerDefinition) -> Result<(), DefinitionError> {
    let name = || container.name.to_string();
    if task.memory.is_none() && container.memory.is_none() && container.memory_reservation.is_none() {
        return Err(DefinitionError::NoMemory { container: name() });
    }
    if container.memory.is_some_and(|m| m.0 < MIN_MEMORY) {
        return Err(setting(container, "memory"));
    }
    if container.memory_reservation.is_some_and(|m| m.0 < MIN_MEMORY) {
        return Err(setting(container, "memoryReservation"));
    }
    if let (Some(limit), Some(reserved)) = (container.memory, container.memory_reservation)
        && limit < reserved
    {
        return Err(DefinitionError::ReservationAboveMemory { container: name() });
    }
    for (value, what) in [(container.memory, "memory"), (container.memory_reservation, "memoryReservation")] {
        if let (Some(value), Some(task)) = (value, task.memory)
            && value > task
        {
            return Err(DefinitionError::AboveTask { container: name(), setting: what });
        }
    }
    if task.cpu.is_some_and(|cpu| container.cpu > cpu) {
        return Err(DefinitionError::AboveTask { container: name(), setting: "cpu" });
    }
    Ok(())
}

fn check_totals(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let containers = &task.container_definitions;
    let cpu = containers.iter().map(|c| u64::from(c.cpu.0)).sum::<u64>();
    if task.cpu.is_some_and(|limit| cpu > u64::from(limit.0)) {
        return Err(DefinitionError::TotalAboveTask { setting: "cpu" });
    }
    let reserved =
        containers.iter().map(|c| u64::from(c.memory_reservation.unwrap_or_default().0)).sum::<u64>();
    if task.memory.is_some_and(|limit| reserved > u64::from(limit.0)) {
        return Err(DefinitionError::TotalAboveTask { setting: "memoryReservation" });
    }
    Ok(())
}

fn check_lists(container: &ContainerDefinition) -> Result<(), DefinitionError> {
    let name = || container.name.to_string();
    let too_many = |setting, max| DefinitionError::ContainerCount { container: name(), setting, max };
    let files = container.environment_files.as_deref().unwrap_or_default();
    if files.len() > MAX_ENVIRONMENT_FILES {
        return Err(too_many("environmentFiles", MAX_ENVIRONMENT_FILES));
    }
    if files.iter().any(|f| !f.value.ends_with(".env")) {
        return Err(setting(container, "environmentFiles"));
    }
    if container.credential_specs.as_ref().is_some_and(|specs| specs.len() > 1) {
        return Err(too_many("credentialSpecs", 1));
    }
    if let Some(policy) = &container.restart_policy
        && policy.ignored_exit_codes.as_ref().is_some_and(|codes| codes.len() > MAX_IGNORED_EXIT_CODES)
    {
        return Err(too_many("ignoredExitCodes", MAX_IGNORED_EXIT_CODES));
    }
    let mut limits = BTreeSet::new();
    for ulimit in container.ulimits.iter().flatten() {
        if !limits.insert(ulimit.name) {
            let value = ulimit.name.to_string();
            return Err(DefinitionError::ContainerRepeats { container: name(), setting: "ulimits", value });
        }
        // -1 means unlimited.
        let unlimited = ulimit.hard_limit == -1;
        if ulimit.soft_limit < -1 || ulimit.hard_limit < -1 {
            return Err(setting(container, "ulimits"));
        }
        if !unlimited && (ulimit.soft_limit == -1 || ulimit.soft_limit > ulimit.hard_limit) {
            return Err(setting(container, "ulimits"));
        }
    }
    if let Some(check) = &container.health_check {
        let known = matches!(check.command.first().map(String::as_str), Some("CMD" | "CMD-SHELL" | "NONE"));
        let complete = check.command.len() > 1 || check.command.first().is_some_and(|c| c == "NONE");
        if !known || !complete {
            return Err(setting(container, "healthCheck"));
        }
    }
    for host in container.extra_hosts.iter().flatten() {
        if host.hostname.is_empty() || host.ip_address.parse::<std::net::IpAddr>().is_err() {
            return Err(setting(container, "extraHosts"));
        }
    }
    Ok(())
}

/// Kernel capabilities that ECS lets a definition add or drop.
const CAPABILITIES: [&str; 39] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// Mount options that ECS lets a tmpfs have, besides those with a value.
const TMPFS_OPTIONS: [&str; 31] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
];
const TMPFS_WORDS: [&str; 2] = ["strictatime", "nostrictatime"];
const TMPFS_KEYS: [&str; 7] = ["mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "size"];

fn tmpfs_fits(tmpfs: &Tmpfs) -> bool {
    let option_fits = |option: &String| {
        let word = option.as_str();
        let key = word.split_once('=').map_or(word, |(key, _)| key);
        TMPFS_OPTIONS.contains(&word) || TMPFS_WORDS.contains(&word) || TMPFS_KEYS.contains(&key)
    };
    tmpfs.size > 0
        && tmpfs.container_path.starts_with('/')
        && tmpfs.mount_options.iter().flatten().all(option_fits)
}

fn check_linux(task: &TaskDefinition, container: &ContainerDefinition) -> Result<(), DefinitionError> {
    if let Some(linux) = &container.linux_parameters {
        if let Some(capabilities) = &linux.capabilities {
            let mut all = capabilities.add.iter().chain(&capabilities.drop).flatten();
            if !all.all(|c| CAPABILITIES.contains(&c.as_str())) {
                return Err(setting(container, "capabilities"));
            }
        }
        if !linux.tmpfs.iter().flatten().all(tmpfs_fits) {
            return Err(setting(container, "tmpfs"));
        }
        if linux.devices.iter().flatten().any(|d| !d.host_path.starts_with('/')) {
            return Err(setting(container, "devices"));
        }
    }
    let mut namespaces = BTreeSet::new();
    for control in &container.system_controls {
        let namespace = control.namespace.as_deref().unwrap_or_default();
        if !namespaces.insert(namespace) {
            let value = namespace.to_owned();
            let container = container.name.to_string();
            return Err(DefinitionError::ContainerRepeats { container, setting: "systemControls", value });
        }
        // Such a sysctl would be the host's own.
        let of_network = namespace.starts_with("net.");
        if of_network && task.network_mode == Some(NetworkMode::Host) {
            return Err(DefinitionError::NotWithNetworkMode {
                what: "Network system controls",
                mode: NetworkMode::Host,
            });
        }
        if !of_network && task.ipc_mode == Some(IpcMode::Host) {
            return Err(setting(container, "systemControls"));
        }
    }
    Ok(())
}

fn check_secrets(task: &TaskDefinition, container: &ContainerDefinition) -> Result<(), DefinitionError> {
    let mut names: BTreeSet<&str> = container.environment.iter().map(|e| e.name.as_str()).collect();
    for secret in container.secrets.iter().flatten() {
        if secret.name.is_empty() || secret.value_from.is_empty() {
            return Err(setting(container, "secrets"));
        }
        if !names.insert(&secret.name) {
            let container = container.name.to_string();
            return Err(DefinitionError::SecretNameTwice { container, name: secret.name.clone() });
        }
    }
    let has = |secrets: &Option<Vec<_>>| secrets.as_ref().is_some_and(|s| !s.is_empty());
    let log_secrets = container.log_configuration.as_ref().is_some_and(|log| has(&log.secret_options));
    if task.execution_role_arn.is_none() {
        if has(&container.secrets) || log_secrets {
            return Err(DefinitionError::SecretsWithoutRole);
        }
        if container.repository_credentials.is_some() {
            return Err(DefinitionError::CredentialsWithoutRole);
        }
    }
    Ok(())
}

fn check_devices(task: &TaskDefinition, container: &ContainerDefinition) -> Result<(), DefinitionError> {
    for requirement in container.resource_requirements.iter().flatten() {
        let fits = match requirement.kind {
            ResourceType::Gpu => requirement.value.parse::<u32>().is_ok_and(|n| n > 0),
            ResourceType::InferenceAccelerator => {
                let mut known = task.inference_accelerators.iter().flatten();
                known.any(|a| a.device_name == requirement.value)
            }
        };
        if !fits {
            return Err(setting(container, "resourceRequirements"));
        }
    }
    Ok(())
}

fn check_firelens(task: &TaskDefinition) -> Result<(), DefinitionError> {
    let containers = &task.container_definitions;
    for container in containers {
        let Some(firelens) = &container.firelens_configuration else { continue };
        let option = |name: &str| firelens.options.as_ref()?.get(name).map(String::as_str);
        let has_value = option("config-file-value").is_some_and(|value| !value.is_empty());
        let file_fits = match option("config-file-type") {
            None => true,
            Some("file" | "s3") => has_value,
            Some(_) => false,
        };
        if !file_fits || !matches!(option("enable-ecs-log-metadata"), None | Some("true" | "false")) {
            return Err(setting(container, "firelensConfiguration"));
        }
    }
    let routers = containers.iter().filter(|c| c.firelens_configuration.is_some()).count();
    let routed = containers
        .iter()
        .any(|c| c.log_configuration.as_ref().is_some_and(|l| l.log_driver == LogDriver::Awsfirelens));
    match (routers, routed) {
        (0, false) | (1, true) => Ok(()),
        (0, true) => Err(DefinitionError::FirelensMissing),
        (1, false) => Err(DefinitionError::FirelensUnused),
        _ => Err(DefinitionError::FirelensTwice),
    }
}
