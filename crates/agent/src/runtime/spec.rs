//! What a container's program is left with: rights, variables, and which of the kernel's files it does not see.

use super::ContainerConfig;
use super::capabilities::Capabilities;

/// Who a program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: String,
}

/// The rights that a program keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Of root; others have none of their own, and can gain no more.
    pub capabilities: Capabilities,
    /// None for privileged containers.
    pub filter_system_calls: bool,
    pub no_new_privileges: bool,
}

/// Files and directories of the kernel that containers do not see: Docker's list.
pub const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];
/// What they see and cannot write.
pub const READ_ONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// The rights of a container's programs, where the shim itself can hand on so many capabilities.
pub fn privileges(config: &ContainerConfig, of_host: u64) -> Privileges {
    let capabilities = match config.privileged {
        true => Capabilities::all(of_host),
        false => config.capabilities.among(of_host),
    };
    Privileges {
        capabilities,
        filter_system_calls: !config.privileged,
        no_new_privileges: config.no_new_privileges,
    }
}

/// A program's variables: the container's with others over them, and what Docker adds where it is missing.
pub fn environment(config: &ContainerConfig, over: &[String], home: &str) -> Vec<String> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> =
        config.env.iter().filter(|pair| !over.iter().any(|own| name(own) == name(pair))).cloned().collect();
    env.extend(over.iter().cloned());
    let mut missing = |variable: &str, value: &str| {
        if !value.is_empty() && !env.iter().any(|pair| name(pair) == variable) {
            env.push(format!("{variable}={value}"));
        }
    };
    missing("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    missing("HOME", home);
    missing("HOSTNAME", &config.hostname);
    missing("TERM", if config.tty { "xterm" } else { "" });
    env
}

/// The container's own control group.
pub fn cgroup(config: &ContainerConfig) -> String {
    format!("{}/{}", config.cgroup_parent, config.id)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::runtime::{ContainerId, LogFile, Namespace, NetworkNamespace};

    pub fn config() -> ContainerConfig {
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
            capabilities: Capabilities::default(),
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
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            devices: Vec::new(),
            shm_size: 64 << 20,
            network: NetworkNamespace::Isolated,
            pid: Namespace::Private,
            ipc: Namespace::Private,
            cgroup_parent: "/gantry/test/task".to_owned(),
            log: LogFile { path: "/log".into(), max_bytes: 1, max_files: 1 },
            writable: None,
            engine: None,
        }
    }

    #[test]
    fn rights_are_those_asked_for_and_the_host_has() {
        let usual = privileges(&config(), u64::MAX);
        assert_eq!(usual.capabilities, Capabilities::default());
        assert!(usual.filter_system_calls);
        let poor = privileges(&config(), !1);
        assert!(!poor.capabilities.has("CHOWN") && poor.capabilities.has("KILL"));
        let privileged = privileges(&ContainerConfig { privileged: true, ..config() }, u64::MAX);
        assert!(privileged.capabilities.has("SYS_ADMIN") && !privileged.filter_system_calls);
    }

    #[test]
    fn variables_of_a_program_beside_the_containers_win() {
        let config = ContainerConfig { env: vec!["A=1".to_owned(), "B=2".to_owned()], tty: true, ..config() };
        let env = environment(&config, &["B=3".to_owned(), "HOME=/srv".to_owned()], "/root");
        let has = |pair: &str| env.iter().any(|known| known == pair);
        assert!(has("A=1") && has("B=3") && !has("B=2"));
        assert!(has("HOME=/srv") && has("HOSTNAME=host") && has("TERM=xterm"));
        assert!(env.iter().any(|pair| pair.starts_with("PATH=/usr/local/sbin:")));
    }
}
