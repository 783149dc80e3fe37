//! From a container's configuration to the OCI runtime specification that libcontainer works by.
//!
//! Our executor needs rights that the container shall not have: it loads the filter of system calls, which takes
//! CAP_SYS_ADMIN, and then takes capabilities away, which takes CAP_SETPCAP. So the specification carries both, and
//! [`Privileges`] says what is left after the executor. The two are made together, so that none goes without the other.

use super::capabilities::Capabilities;
use super::cgroup::{CPU_PERIOD_MICROS, PIDS_DEFAULT};
use super::{ContainerConfig, NetworkNamespace};
use serde_json::{Value, json};
use std::path::Path;

/// Who the container's program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: String,
}

/// What the executor leaves the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    pub capabilities: Capabilities,
    /// None for privileged containers.
    pub filter_system_calls: bool,
    pub no_new_privileges: bool,
    /// Not for privileged containers. Control groups are below /sys.
    pub read_only_sys: bool,
    pub is_root: bool,
}

/// What this host can give.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The capabilities that the shim itself may hand on: its bounding set.
    pub capabilities: u64,
    pub unified_cgroups: bool,
}

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Device nodes that every container has. Binding /dev/null over a file is how some are switched off.
const HARMLESS: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// Compiles a container whose files lie in `directory`.
pub fn compile(config: &ContainerConfig, user: &User, host: Host, directory: &Path) -> (Value, Privileges) {
    let mut capabilities = config.capabilities.among(host.capabilities);
    if config.privileged {
        capabilities = Capabilities::all(host.capabilities);
    } else if host.unified_cgroups {
        // There devices are not controlled by the group; without this nobody can make one, and the root file system
        // and volumes are mounted so that those in them do not work.
        capabilities = capabilities.without("MKNOD");
    }
    let privileges = Privileges {
        capabilities,
        filter_system_calls: !config.privileged,
        no_new_privileges: config.no_new_privileges,
        read_only_sys: !config.privileged,
        is_root: user.uid == 0,
    };
    let carried = capabilities.with("SYS_ADMIN").with("SETPCAP").names();
    let mut env = config.env.clone();
    if !env.iter().any(|pair| pair.starts_with("PATH=")) {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    if !env.iter().any(|pair| pair.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    if !env.iter().any(|pair| pair.starts_with("HOSTNAME=")) && !config.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", config.hostname));
    }
    let process = json!({
        "terminal": false,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
        "args": config.args,
        "env": env,
        "cwd": if config.cwd.is_empty() { "/" } else { &config.cwd },
        "capabilities": {
            "bounding": carried, "effective": carried, "permitted": carried, "inheritable": [], "ambient": [],
        },
        "rlimits": config.rlimits.iter().map(|limit| json!({
            "type": limit.name, "soft": limit.soft, "hard": limit.hard,
        })).collect::<Vec<_>>(),
        // Written out: libcontainer takes an absent field for true.
        "noNewPrivileges": false,
    });
    let mut linux = json!({
        "namespaces": namespaces(config),
        "cgroupsPath": cgroup(config),
        "resources": resources(config),
        "sysctl": config.sysctls.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "devices": [],
    });
    if !config.privileged {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": directory.join("rootfs"), "readonly": config.read_only_root},
        "mounts": mounts(config, host, directory),
        "linux": linux,
    });
    if config.network != NetworkNamespace::Host && !config.hostname.is_empty() {
        spec["hostname"] = json!(config.hostname);
    }
    (spec, privileges)
}

/// The container's own control group.
pub fn cgroup(config: &ContainerConfig) -> String {
    format!("{}/{}", config.cgroup_parent, config.id)
}

fn namespaces(config: &ContainerConfig) -> Vec<Value> {
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "mount"})];
    match &config.network {
        // The host's name belongs to the host's network.
        NetworkNamespace::Host => {}
        NetworkNamespace::Path(path) => {
            namespaces.extend([json!({"type": "uts"}), json!({"type": "network", "path": path})]);
        }
        NetworkNamespace::Isolated => namespaces.extend([json!({"type": "uts"}), json!({"type": "network"})]),
    }
    namespaces
}

fn resources(config: &ContainerConfig) -> Value {
    let device = |device: &super::DeviceMapping| {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(&device.host_path).ok()?;
        let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
        let kind = if metadata.mode() & libc::S_IFMT == libc::S_IFBLK { "b" } else { "c" };
        Some(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": device.access}))
    };
    let mut devices = vec![json!({"allow": config.privileged, "access": "rwm"})];
    devices.extend(config.devices.iter().filter_map(device));
    let mut resources = json!({ "devices": devices });
    let mut memory = serde_json::Map::new();
    for (name, value) in [
        ("limit", config.memory_limit),
        ("reservation", config.memory_reservation),
        ("swap", config.memory_swap),
    ] {
        if let Some(value) = value {
            memory.insert(name.to_owned(), json!(value));
        }
    }
    if let Some(swappiness) = config.memory_swappiness {
        memory.insert("swappiness".to_owned(), json!(swappiness));
    }
    if !memory.is_empty() {
        resources["memory"] = Value::Object(memory);
    }
    let mut cpu = serde_json::Map::new();
    if let Some(shares) = config.cpu_shares {
        cpu.insert("shares".to_owned(), json!(shares));
    }
    if let Some(quota) = config.cpu_quota {
        cpu.insert("quota".to_owned(), json!(quota));
        cpu.insert("period".to_owned(), json!(CPU_PERIOD_MICROS));
    }
    resources["pids"] = json!({"limit": config.pids_limit.unwrap_or(PIDS_DEFAULT)});
    if !cpu.is_empty() {
        resources["cpu"] = Value::Object(cpu);
    }
    resources
}

fn mounts(config: &ContainerConfig, host: Host, directory: &Path) -> Vec<Value> {
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": source, "options": options});
    let shm = format!("size={}", config.shm_size);
    let sys = if config.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ];
    // Never the host's own /sys: everything that the host mounted there would come along, writable.
    mounts.push(mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]));
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]));
    for file in ["hosts", "hostname", "resolv.conf"] {
        let source = directory.join(file);
        let options: &[&str] = if config.read_only_root { &["rbind", "ro"] } else { &["rbind", "rw"] };
        mounts.push(mount(&format!("/etc/{file}"), "bind", &source.to_string_lossy(), options));
    }
    for tmpfs in &config.tmpfs {
        mounts.push(json!({"destination": tmpfs.target, "type": "tmpfs", "source": "tmpfs", "options": tmpfs.options}));
    }
    for bind in &config.mounts {
        let access = if bind.read_only { "ro" } else { "rw" };
        let mut options = vec!["rbind", "rprivate", access];
        if host.unified_cgroups
            && !config.privileged
            && !HARMLESS.iter().any(|node| bind.source == Path::new(node))
        {
            // With the mounts below it.
            options.push("rnodev");
        }
        mounts.push(mount(&bind.target, "bind", &bind.source.to_string_lossy(), &options));
    }
    for device in &config.devices {
        mounts.push(mount(
            &device.container_path,
            "bind",
            &device.host_path.to_string_lossy(),
            &["bind", "rw"],
        ));
    }
    mounts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::{BindMount, ContainerId, LogFile, Namespace};

    fn config(volumes: &[&str]) -> ContainerConfig {
        let bind = |source: &&str| BindMount {
            source: source.into(),
            target: format!("/volumes{source}"),
            read_only: false,
        };
        ContainerConfig {
            id: ContainerId::try_from("c".to_owned()).unwrap(),
            layers: Vec::new(),
            args: vec!["/bin/true".to_owned()],
            env: Vec::new(),
            cwd: String::new(),
            user: String::new(),
            hostname: "host".to_owned(),
            domainname: String::new(),
            init: false,
            tty: false,
            stdin_open: false,
            hosts_file: String::new(),
            resolv_conf: String::new(),
            read_only_root: false,
            privileged: false,
            capabilities: Capabilities::default().with("MKNOD"),
            no_new_privileges: false,
            cpu_shares: None,
            cpu_quota: None,
            memory_limit: None,
            memory_reservation: None,
            memory_swap: None,
            memory_swappiness: None,
            pids_limit: None,
            rlimits: Vec::new(),
            sysctls: Vec::new(),
            mounts: volumes.iter().map(bind).collect(),
            tmpfs: Vec::new(),
            devices: Vec::new(),
            shm_size: 64 << 20,
            network: NetworkNamespace::Isolated,
            pid: Namespace::Private,
            ipc: Namespace::Private,
            cgroup_parent: "/gantry/test/task".to_owned(),
            log: LogFile { path: "/log".into(), max_bytes: 1, max_files: 1 },
        }
    }

    fn compiled(config: &ContainerConfig, unified_cgroups: bool) -> (Value, Privileges) {
        let host = Host { capabilities: u64::MAX, unified_cgroups };
        compile(config, &User::default(), host, Path::new("/c"))
    }

    fn has_option(spec: &Value, target: &str, option: &str) -> bool {
        let mounts = spec["mounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["destination"] == target).unwrap();
        mount["options"].as_array().unwrap().iter().any(|known| known == option)
    }

    #[test]
    fn devices_are_out_of_reach_where_groups_do_not_control_them() {
        let usual = config(&["/dev", "/dev/null"]);
        let (spec, privileges) = compiled(&usual, true);
        assert!(!privileges.capabilities.has("MKNOD"));
        assert!(!spec["process"]["capabilities"].to_string().contains("MKNOD"));
        assert!(has_option(&spec, "/volumes/dev", "rnodev"));
        assert!(!has_option(&spec, "/volumes/dev/null", "rnodev"));

        let (spec, privileges) = compiled(&usual, false);
        assert!(privileges.capabilities.has("MKNOD"));
        assert!(!has_option(&spec, "/volumes/dev", "rnodev"));

        let (spec, privileges) = compiled(&ContainerConfig { privileged: true, ..usual }, true);
        assert!(privileges.capabilities.has("MKNOD"));
        assert!(!has_option(&spec, "/volumes/dev", "rnodev"));
    }

    #[test]
    fn what_only_the_executor_needs_is_taken_away_again() {
        let (spec, privileges) = compiled(&config(&[]), false);
        assert!(spec["process"]["capabilities"]["effective"].to_string().contains("CAP_SYS_ADMIN"));
        assert_eq!(privileges.capabilities, Capabilities::default());
        assert!(privileges.filter_system_calls && privileges.read_only_sys);
        assert_eq!(spec["process"]["noNewPrivileges"], false);
        let (_, privileged) = compiled(&ContainerConfig { privileged: true, ..config(&[]) }, false);
        assert!(!privileged.filter_system_calls && !privileged.read_only_sys);
    }
}
