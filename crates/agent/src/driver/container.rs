//! From a payload's container and its image to what the runtime makes.

use super::Known;
use super::links::Links;
use super::reach::interface;
use super::volumes::Mount;
use crate::config::AgentConfig;
use crate::docker::parts;
use crate::endpoints::API_VARIABLE;
use crate::firelens;
use crate::gpus;
use crate::images::LocalImage;
use crate::logs::{LogDriver, OptionError, Writer};
use crate::protocol::docker::{Device, HostConfig};
use crate::protocol::payload::ContainerConfig as Docker;
use crate::runtime::capabilities::Capabilities;
use crate::runtime::cgroup::{CPU_PERIOD_MICROS, TaskLimits};
use crate::runtime::{
    BindMount, ContainerConfig, ContainerId, DeviceMapping, LogFile, Namespace, NetworkNamespace, Rlimit,
    TmpfsMount,
};
use crate::secrets::ForContainer;
use gantry_api::acs;
use gantry_decide::task::{IpcMode, PidMode};
use gantry_decide::task_engine::{Failure, FailureKind, TaskArn};
use gantry_wire::Secret;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const BYTES_PER_MIB: i64 = 1 << 20;
/// The kernel's bounds for shares of CPU time.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// Docker's smallest limit.
const MEMORY_MIN_MIB: i64 = 6;
const SHM_DEFAULT: u64 = 64 << 20;
/// The kernel's smallest quota of CPU time, in microseconds.
const CPU_QUOTA_MIN: i64 = 1000;
/// Characters of a host name that nobody chose: as many as Docker's.
const HOSTNAME_LENGTH: usize = 12;
/// By which AWS's SDKs find their region.
const REGION_VARIABLES: [&str; 2] = ["AWS_DEFAULT_REGION", "AWS_REGION"];
/// Of the log of a container that writes nothing.
const PAUSE_LOG_BYTES: u64 = 1 << 20;

/// The id of a task: the last part of its ARN, of letters and digits. Names directories, so other text is made harmless.
pub fn task_id(task: &TaskArn) -> String {
    let id = task.0.rsplit('/').next().unwrap_or_default();
    if (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        id.to_owned()
    } else {
        format!("{:032x}", hash(&task.0))
    }
}

/// The task's own cluster, by the name that its agent knows it by. Tasks on Fargate capacity are not in their agent's
/// cluster: as on AWS, theirs has its ARN.
pub fn cluster<'a>(config: &'a AgentConfig, task: &'a acs::Task) -> &'a str {
    let own = config.cluster.as_str();
    let is_own = |arn: &str| arn == own || arn.rsplit('/').next() == Some(own);
    task.task_cluster_arn.as_deref().filter(|arn| !is_own(arn)).unwrap_or(own)
}

/// The name of a task's container on this host: the same on every start, so that it can be found again.
pub fn container_id(task: &TaskArn, container: &str) -> ContainerId {
    let name = format!("{}-{:010}", task_id(task), hash(container) % 10_000_000_000);
    ContainerId::try_from(name).expect("letters, digits and a hyphen")
}

/// FNV-1a, 64 bits.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The log driver that a container asks for. `id` is what its runtime calls it.
///
/// # Errors
/// For one that this agent does not have, and for options that make no sense.
pub fn log_driver(
    config: &AgentConfig,
    known: &Known,
    task: &TaskArn,
    (container, id): (&str, &str),
    given: Option<&ForContainer>,
) -> Result<LogDriver, Failure> {
    let log = known.log(container);
    if firelens::is_routed(log) {
        return Ok(firelens::log_driver(config, task, known.task(), container, id));
    }
    let writer = Writer { region: &config.region, id, name: container };
    let secrets = given.map(|given| &given.log_options).filter(|options| !options.is_empty());
    let whole = log.zip(secrets).map(|(log, secrets)| log.with_secrets(secrets));
    let read = match LogDriver::read(whole.as_ref().or(log), writer) {
        // Docker has more drivers, and refuses what it does not know.
        Err(OptionError::Driver(_)) if config.runtime.is_docker() => Ok(LogDriver::Engine),
        // The reason is shown to everybody.
        Err(OptionError::Value { option, .. }) if secrets.is_some_and(|all| all.contains_key(option)) => {
            Err(OptionError::Secret { option })
        }
        other => other,
    };
    read.map_err(|error| Failure::new(FailureKind::CannotCreateContainerError, error.to_string()))
}

/// Where a container's log is.
pub fn log_path(data_dir: &Path, task: &TaskArn, container: &str) -> PathBuf {
    data_dir.join("logs").join(task_id(task)).join(format!("{container}.log"))
}

/// The name of the container of the agent's own that holds what a task's containers share.
const PAUSE: &str = "~internal~ecs~pause";

/// The container that holds what the containers of a task share.
pub fn pause_id(task: &TaskArn) -> ContainerId {
    container_id(task, PAUSE)
}

/// The control group of a task.
pub fn task_group(agent: &AgentConfig, task: &TaskArn) -> String {
    format!("/gantry/{}/{}", agent.name, task_id(task))
}

/// What a container is made of beside its image.
pub struct Parts<'a> {
    pub config: &'a AgentConfig,
    pub arn: &'a TaskArn,
    pub known: &'a Known,
    pub container: &'a acs::Container,
    pub docker: &'a Docker,
    pub image: &'a LocalImage,
    pub log: &'a LogDriver,
    pub network: NetworkNamespace,
    /// The address that is the container's, and its name: in awsvpc mode the task's; in bridge mode it has no name.
    pub interface: Option<(String, String)>,
    pub mounts: &'a [Mount],
    /// What a log router finds in its container.
    pub router: &'a [BindMount],
    pub links: &'a Links,
    /// Variables by which programs find the agent's endpoints.
    pub endpoints: &'a BTreeMap<String, String>,
    /// Where it writes, of a task with ephemeral storage of its own.
    pub writable: Option<PathBuf>,
    /// What does not stand in the payload.
    pub fetched: Option<&'a ForContainer>,
}

/// Compiles a container.
///
/// # Errors
/// For what the native runtime does not do yet, and for what makes no sense.
pub fn compile(parts: &Parts<'_>) -> Result<ContainerConfig, Failure> {
    let Parts { config: agent, arn, known, container, docker, image, log, network, interface, .. } = parts;
    let (config, host) = (&docker.config, &docker.host_config);
    refuse_what_is_not_there(agent, host)?;
    let name = container.name.as_deref().unwrap_or_default();
    let of_host = *network == NetworkNamespace::Host;
    let mut hosts_file = match of_host {
        true => super::resolv::hosts_of_host(),
        false => "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned(),
    };
    let hostname = match (config.hostname.as_deref(), interface) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some((_, name))) if !name.is_empty() => name.clone(),
        _ if of_host => super::resolv::name_of_host(),
        _ => task_id(arn).chars().take(HOSTNAME_LENGTH).collect(),
    };
    if let Some((address, _)) = interface {
        hosts_file.push_str(&format!("{address}\t{hostname}\n"));
    }
    hosts_file.push_str(&parts.links.hosts);
    for entry in host.extra_hosts.iter().flatten() {
        let (name, address) = entry.split_once(':').unwrap_or((entry, ""));
        hosts_file.push_str(&format!("{address}\t{name}\n"));
    }
    let capabilities = Capabilities::new(
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
    );
    let options = host.security_opt.as_deref().unwrap_or_default();
    let id = container_id(arn, name);
    let gpus = gpus(parts)?;
    Ok(ContainerConfig {
        layers: image.layers.clone(),
        args: args(container, image)?,
        env: environment(parts),
        cwd: config
            .working_dir
            .clone()
            .filter(|dir| !dir.is_empty())
            .unwrap_or_else(|| image.config.working_dir.clone()),
        user: config
            .user
            .clone()
            .filter(|user| !user.is_empty())
            .unwrap_or_else(|| image.config.user.clone()),
        hostname,
        domainname: String::new(),
        init: host.init == Some(true),
        tty: config.tty == Some(true),
        stdin_open: config.open_stdin == Some(true),
        hosts_file,
        resolv_conf: resolv_conf(host, of_host),
        read_only_root: host.readonly_rootfs.unwrap_or(false),
        privileged: host.privileged.unwrap_or(false),
        capabilities: capabilities
            .map_err(|error| Failure::new(FailureKind::CannotCreateContainerError, error.to_string()))?,
        no_new_privileges: options.iter().any(|option| {
            matches!(
                option.as_str(),
                "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
            )
        }),
        cpu_shares: Some(
            u64::try_from(container.cpu.unwrap_or(0))
                .unwrap_or(0)
                .clamp(*CPU_SHARES.start(), *CPU_SHARES.end()),
        ),
        // The task's own is its group's.
        cpu_quota: None,
        memory_limit: container.memory.filter(|mib| *mib > 0).map(mib),
        memory_reservation: host.memory_reservation.filter(|bytes| *bytes > 0),
        memory_swap: host.memory_swap,
        memory_swappiness: host.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
        pids_limit: None,
        rlimits: host.ulimits.iter().flatten().map(rlimit).collect(),
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        mounts: parts.mounts.iter().map(|mount| &mount.bind).chain(parts.router).cloned().collect(),
        tmpfs: tmpfs(host),
        devices: gpus
            .iter()
            .cloned()
            .chain(host.devices.iter().flatten().map(|device| DeviceMapping {
                host_path: PathBuf::from(&device.path_on_host),
                container_path: device.path_in_container.clone(),
                access: device.cgroup_permissions.clone(),
            }))
            .collect(),
        shm_size: host
            .shm_size
            .and_then(|bytes| u64::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
            .unwrap_or(SHM_DEFAULT),
        network: network.clone(),
        pid: match known.pid_mode {
            Some(PidMode::Host) => Namespace::Host,
            Some(PidMode::Task) => Namespace::Container(pause_id(arn)),
            None => Namespace::Private,
        },
        ipc: match known.ipc_mode {
            Some(IpcMode::Host) => Namespace::Host,
            Some(IpcMode::Task) => Namespace::Container(pause_id(arn)),
            Some(IpcMode::None) | None => Namespace::Private,
        },
        cgroup_parent: task_group(agent, arn),
        log: {
            let (max_bytes, max_files) = log.files();
            LogFile { path: log_path(&agent.data_dir, arn, name), max_bytes, max_files }
        },
        writable: parts.writable.clone(),
        engine: agent.runtime.is_docker().then(|| {
            let mut engine = parts::of_container(parts);
            let given = engine.docker.host_config.devices.get_or_insert_default();
            given.extend(gpus.iter().map(|device| Device {
                path_on_host: device.host_path.display().to_string(),
                path_in_container: device.container_path.clone(),
                cgroup_permissions: device.access.clone(),
            }));
            Box::new(engine)
        }),
        id,
    })
}

/// The devices of the GPUs that are the container's.
fn gpus(parts: &Parts<'_>) -> Result<Vec<DeviceMapping>, Failure> {
    let ids = parts.known.gpus(parts.container.name.as_deref().unwrap_or_default());
    gpus::devices(&parts.config.gpu_devices, &ids).map_err(|id| {
        let text = format!("this host has no GPU {}", id.escape_default());
        Failure::new(FailureKind::CannotCreateContainerError, text)
    })
}

/// What would otherwise be left out in silence.
fn refuse_what_is_not_there(agent: &AgentConfig, host: &HostConfig) -> Result<(), Failure> {
    if agent.runtime.is_docker() {
        // Docker refuses what the host does not have.
        return Ok(());
    }
    let options = host.security_opt.as_deref().unwrap_or_default();
    match options.iter().find(|option| !option.starts_with("no-new-privileges")) {
        Some(option) => {
            let text =
                format!("security option {option}: this agent's containers know only no-new-privileges");
            Err(Failure::new(FailureKind::HostConfigError, text))
        }
        None => Ok(()),
    }
}

/// As Docker has it: another entry point makes the image's command meaningless.
fn args(container: &acs::Container, image: &LocalImage) -> Result<Vec<String>, Failure> {
    let entry_point = container.entry_point.as_ref().filter(|words| !words.is_empty());
    let command = container.command.as_ref().filter(|words| !words.is_empty());
    let mut args = entry_point.unwrap_or(&image.config.entrypoint).clone();
    match (command, entry_point) {
        (Some(command), _) => args.extend(command.iter().cloned()),
        (None, None) => args.extend(image.config.cmd.iter().cloned()),
        (None, Some(_)) => {}
    }
    if args.is_empty() {
        return Err(Failure::new(FailureKind::CannotCreateContainerError, "no command specified"));
    }
    Ok(args)
}

/// The image's variables, those of links over them, those of files, the task's and its secrets over these, and last the ones that lead to the agent.
fn environment(parts: &Parts<'_>) -> Vec<String> {
    fn pair<'a>((name, value): (&'a String, &'a String)) -> (&'a str, &'a str) {
        (name, value)
    }
    let image = &parts.image.config.env;
    let mut all: BTreeMap<&str, &str> = image.iter().filter_map(|pair| pair.split_once('=')).collect();
    all.extend(parts.links.environment.iter().map(pair));
    fn exposed<'a>((name, value): (&'a String, &'a Secret)) -> (&'a str, &'a str) {
        (name, value.expose())
    }
    all.extend(parts.fetched.iter().flat_map(|given| given.files.iter().map(exposed)));
    all.extend(parts.container.environment.iter().flatten().map(pair));
    all.extend(parts.fetched.iter().flat_map(|given| given.secrets.iter().map(exposed)));
    let region = &parts.config.region;
    // As the stock agent has it: who sets one of them means both.
    if !REGION_VARIABLES.iter().any(|name| all.contains_key(name)) {
        all.extend(REGION_VARIABLES.map(|name| (name, region.as_str())));
    }
    for (name, value) in parts.endpoints.iter().map(pair) {
        if name != API_VARIABLE || !all.contains_key(name) {
            all.insert(name, value);
        }
    }
    let gpus = parts.known.gpus(parts.container.name.as_deref().unwrap_or_default()).join(",");
    if !gpus.is_empty() {
        all.insert(gpus::VARIABLE, &gpus);
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What a task's containers share: the task's size, where it has one. A task's CPU is a limit, a container's a weight.
pub fn task_limits(task: &acs::Task) -> TaskLimits {
    let cores = task.cpu.filter(|cores| *cores > 0.0);
    TaskLimits {
        cpu_shares: None,
        cpu_quota: cores.map(|cores| ((cores * CPU_PERIOD_MICROS as f64) as i64).max(CPU_QUOTA_MIN)),
        memory: task.memory.filter(|mib| *mib > 0).map(mib),
    }
}

fn mib(mib: i32) -> i64 {
    i64::from(mib).max(MEMORY_MIN_MIB) * BYTES_PER_MIB
}

/// The container that holds the namespaces that a task's containers share. It has no image.
///
/// # Errors
/// Never for what a payload says.
pub fn pause(agent: &AgentConfig, arn: &TaskArn, task: &acs::Task) -> Result<ContainerConfig, Failure> {
    let nothing = Capabilities::new(&[], &["ALL".to_owned()])
        .map_err(|error| Failure::new(FailureKind::CannotCreateContainerError, error.to_string()))?;
    let named = interface(task).map(|(_, name)| name).filter(|name| !name.is_empty());
    Ok(ContainerConfig {
        id: pause_id(arn),
        layers: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        // On an engine the containers of an awsvpc task have its host name.
        hostname: named.unwrap_or_else(|| task_id(arn).chars().take(HOSTNAME_LENGTH).collect()),
        domainname: String::new(),
        init: true,
        tty: false,
        stdin_open: false,
        hosts_file: String::new(),
        resolv_conf: String::new(),
        read_only_root: true,
        privileged: false,
        capabilities: nothing,
        no_new_privileges: true,
        cpu_shares: Some(*CPU_SHARES.start()),
        cpu_quota: None,
        memory_limit: None,
        memory_reservation: None,
        memory_swap: None,
        memory_swappiness: None,
        pids_limit: None,
        rlimits: Vec::new(),
        sysctls: Vec::new(),
        mounts: Vec::new(),
        tmpfs: Vec::new(),
        devices: Vec::new(),
        shm_size: SHM_DEFAULT,
        network: NetworkNamespace::Isolated,
        pid: Namespace::Private,
        ipc: Namespace::Private,
        cgroup_parent: task_group(agent, arn),
        log: LogFile {
            path: log_path(&agent.data_dir, arn, PAUSE),
            max_bytes: PAUSE_LOG_BYTES,
            max_files: 1,
        },
        writable: None,
        engine: agent.runtime.is_docker().then(|| Box::new(parts::of_pause(agent, arn, task, PAUSE))),
    })
}

fn rlimit(limit: &crate::protocol::docker::Ulimit) -> Rlimit {
    // -1 means none.
    let value = |number: i64| u64::try_from(number).unwrap_or(libc::RLIM_INFINITY);
    Rlimit {
        name: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
        soft: value(limit.soft),
        hard: value(limit.hard),
    }
}

fn tmpfs(host: &HostConfig) -> Vec<TmpfsMount> {
    let mounts = host.tmpfs.iter().flatten();
    mounts
        .map(|(target, options)| TmpfsMount {
            target: target.clone(),
            options: options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect(),
        })
        .collect()
}

/// Name servers as asked for, or the host's. A resolver on the host's loopback is out of reach but in its own network.
fn resolv_conf(host: &HostConfig, of_host: bool) -> String {
    let servers = host.dns.as_deref().unwrap_or_default();
    let mut text = match servers {
        [] if of_host => super::resolv::in_host(),
        [] => super::resolv::of_host(),
        servers => servers.iter().map(|server| format!("nameserver {server}\n")).collect(),
    };
    if let Some(search) = host.dns_search.as_ref().filter(|search| !search.is_empty()) {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text
}
