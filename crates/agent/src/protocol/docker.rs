//! The Docker Engine API's container configuration, in which payloads carry much of a task definition as JSON text.
//!
//! Only the members that have an effect here. Others are ignored, as the stock agent hands them on to an engine that
//! may or may not know them; a known member of a wrong type makes its task invalid. Null counts as absent.

use gantry_wire::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `Config`: the container itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// A name or number, with `:group` or without.
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub open_stdin: Option<bool>,
    pub tty: Option<bool>,
    pub network_disabled: Option<bool>,
    pub healthcheck: Option<Healthcheck>,
}

/// A container's health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `CMD` with arguments, `CMD-SHELL` with a line, or `NONE`.
    pub test: Option<Vec<String>>,
    /// Nanoseconds, as the other two.
    pub interval: Option<i64>,
    pub timeout: Option<i64>,
    pub start_period: Option<i64>,
    pub retries: Option<i64>,
}

/// `HostConfig`: what the container gets from its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    pub network_mode: Option<String>,
    pub privileged: Option<bool>,
    pub readonly_rootfs: Option<bool>,
    pub dns: Option<Vec<String>>,
    pub dns_search: Option<Vec<String>>,
    /// `host:address`.
    pub extra_hosts: Option<Vec<String>>,
    pub security_opt: Option<Vec<String>>,
    pub ulimits: Option<Vec<Ulimit>>,
    pub cap_add: Option<Vec<String>>,
    pub cap_drop: Option<Vec<String>>,
    pub devices: Option<Vec<Device>>,
    pub init: Option<bool>,
    /// Bytes.
    pub shm_size: Option<i64>,
    /// Mount options by path.
    pub tmpfs: Option<BTreeMap<String, String>>,
    /// Bytes of memory and swap together; -1 for no limit.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    pub sysctls: Option<BTreeMap<String, String>>,
    pub log_config: Option<LogConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    pub path_on_host: String,
    pub path_in_container: String,
    /// Of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub driver: Option<String>,
    pub config: Option<BTreeMap<String, String>>,
}

impl LogConfig {
    /// With options whose values were fetched, over those that stand in the payload.
    pub fn with_secrets(&self, options: &BTreeMap<String, Secret>) -> LogConfig {
        let mut all = self.clone();
        let exposed = options.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
        all.config.get_or_insert_default().extend(exposed);
        all
    }
}
