//! Capabilities: the kernel's, those that containers have by default, and what a definition adds and drops.

use serde::{Deserialize, Serialize};

macro_rules! capabilities {
    ($($name:ident = $number:literal,)*) => {
        /// The kernel's capabilities by name and number.
        const ALL: &[(&str, u8)] = &[$((stringify!($name), $number),)*];
    };
}

capabilities! {
    CHOWN = 0, DAC_OVERRIDE = 1, DAC_READ_SEARCH = 2, FOWNER = 3, FSETID = 4, KILL = 5, SETGID = 6, SETUID = 7,
    SETPCAP = 8, LINUX_IMMUTABLE = 9, NET_BIND_SERVICE = 10, NET_BROADCAST = 11, NET_ADMIN = 12, NET_RAW = 13,
    IPC_LOCK = 14, IPC_OWNER = 15, SYS_MODULE = 16, SYS_RAWIO = 17, SYS_CHROOT = 18, SYS_PTRACE = 19, SYS_PACCT = 20,
    SYS_ADMIN = 21, SYS_BOOT = 22, SYS_NICE = 23, SYS_RESOURCE = 24, SYS_TIME = 25, SYS_TTY_CONFIG = 26, MKNOD = 27,
    LEASE = 28, AUDIT_WRITE = 29, AUDIT_CONTROL = 30, SETFCAP = 31, MAC_OVERRIDE = 32, MAC_ADMIN = 33, SYSLOG = 34,
    WAKE_ALARM = 35, BLOCK_SUSPEND = 36, AUDIT_READ = 37, PERFMON = 38, BPF = 39, CHECKPOINT_RESTORE = 40,
}

/// What containers have unless told otherwise: Docker's list.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A set of capabilities, as the kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0}")]
pub struct UnknownCapability(String);

fn number(name: &str) -> Option<u8> {
    let bare = name.strip_prefix("CAP_").unwrap_or(name);
    ALL.iter().find(|(known, _)| *known == bare).map(|(_, number)| *number)
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities(DEFAULT.iter().filter_map(|name| number(name)).fold(0, |set, n| set | 1 << n))
    }
}

impl Capabilities {
    pub const NONE: Capabilities = Capabilities(0);

    /// All that this host can give: a root without a capability cannot hand it on.
    pub fn all(of_host: u64) -> Capabilities {
        Capabilities(ALL.iter().fold(0, |set, (_, n)| set | 1 << n) & of_host)
    }

    /// The default set with what is added and dropped; `ALL` means every one. Drops win over the default, additions
    /// over drops of all, as in Docker.
    ///
    /// # Errors
    /// For a name that the kernel does not know.
    pub fn new(add: &[String], drop: &[String]) -> Result<Capabilities, UnknownCapability> {
        let set = |names: &[String]| {
            names.iter().try_fold(0_u64, |set, name| match name.to_ascii_uppercase().as_str() {
                "ALL" => Ok(u64::MAX),
                name => number(name).map(|n| set | 1 << n).ok_or_else(|| UnknownCapability(name.to_owned())),
            })
        };
        let (add, drop) = (set(add)?, set(drop)?);
        let known = ALL.iter().fold(0, |set, (_, n)| set | 1_u64 << n);
        let kept = match (add == u64::MAX, drop == u64::MAX) {
            (true, _) => known & !if drop == u64::MAX { 0 } else { drop },
            (false, true) => add,
            (false, false) => (Capabilities::default().0 & !drop) | add,
        };
        Ok(Capabilities(kept & known))
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn has(self, name: &str) -> bool {
        number(name).is_some_and(|n| self.0 & 1 << n != 0)
    }

    pub fn with(self, name: &str) -> Capabilities {
        Capabilities(number(name).map_or(self.0, |n| self.0 | 1 << n))
    }

    /// What is in both.
    pub fn among(self, bits: u64) -> Capabilities {
        Capabilities(self.0 & bits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Capabilities {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Capabilities::new(&owned(add), &owned(drop)).unwrap()
    }

    #[test]
    fn additions_and_drops_work_as_in_docker() {
        // What `docker run` shows as CapEff.
        assert_eq!(Capabilities::default().bits(), 0xa804_25fb);
        assert_eq!(set(&[], &[]), Capabilities::default());
        assert!(!set(&[], &["NET_RAW"]).has("NET_RAW"));
        assert_eq!(set(&["SYS_TIME"], &["ALL"]), Capabilities::NONE.with("SYS_TIME"));
        assert!(set(&["ALL"], &["SYS_ADMIN"]).has("BPF"));
        assert!(!set(&["ALL"], &["SYS_ADMIN"]).has("SYS_ADMIN"));
        assert!(set(&["cap_sys_time"], &[]).has("SYS_TIME"));
        assert!(Capabilities::new(&["FLY".to_owned()], &[]).is_err());
    }
}
