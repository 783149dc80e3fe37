//! The documents of Docker Engine's API, in the members that are written or read here.
//!
//! What a payload carries in the API's form already, [`crate::protocol::docker`], goes into a request as it is.

use crate::protocol::docker::{Config, HostConfig};
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An error.
#[derive(Debug, Deserialize)]
pub struct Message {
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    pub version: String,
    pub api_version: String,
}

/// What the engine is, and can do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// What keeps layers.
    pub driver: String,
    pub plugins: Plugins,
    /// `name=apparmor` and the like.
    pub security_options: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Plugins {
    pub log: Vec<String>,
    pub volume: Vec<String>,
}

/// A container to make.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Create {
    pub image: String,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub exposed_ports: BTreeMap<String, Empty>,
    pub host_config: CreateHost,
    #[serde(flatten)]
    pub config: Config,
}

/// What a container to make gets from its host.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateHost {
    pub mounts: Vec<Mount>,
    pub cgroup_parent: String,
    pub cpu_shares: u64,
    pub memory: i64,
    pub pids_limit: i64,
    pub pid_mode: String,
    pub ipc_mode: String,
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    pub links: Vec<String>,
    /// What the storage driver is told of the container's own layer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    #[serde(flatten)]
    pub host: HostConfig,
}

/// What a container sees of its host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mount {
    /// `bind` or `volume`.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// A path of the host, or a volume's name.
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// What was made.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    pub id: String,
    #[serde(default)]
    pub warnings: Option<Vec<String>>,
}

/// One of a list of containers.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub id: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    pub state: ContainerState,
    #[serde(default)]
    pub network_settings: NetworkSettings,
    #[serde(default)]
    pub config: ContainerLabels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerLabels {
    pub labels: Option<BTreeMap<String, String>>,
    pub tty: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    pub running: bool,
    /// Of the first process on the host; 0 when there is none.
    pub pid: i32,
    pub exit_code: i32,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// By `80/tcp`; null for ports that the host does not have.
    pub ports: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    pub networks: Option<BTreeMap<String, Endpoint>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
}

/// How a container ended.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Waited {
    #[expect(
        dead_code,
        reason = "its presence tells that the answer is whole; the container itself tells more"
    )]
    status_code: i64,
}

/// An image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    pub id: String,
    #[serde(default)]
    pub repo_digests: Option<Vec<String>>,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub config: Option<crate::images::RawConfig>,
}

/// One of a list of images.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedImage {
    pub id: String,
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A line of what pulling, loading and importing say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub stream: String,
    pub error: Option<String>,
    /// Of the layer that the line is about.
    pub id: String,
    /// `Downloading`, `Pull complete` and others.
    pub status: String,
    #[serde(rename = "progressDetail")]
    pub detail: ProgressDetail,
}

/// Bytes of a layer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    pub current: u64,
    pub total: u64,
}

/// A program to run beside a container's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecCreate<'a> {
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub cmd: &'a [String],
    pub env: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<&'a str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecState {
    pub running: bool,
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// On the host; 0 when it never ran.
    #[serde(default)]
    pub pid: i32,
}

/// A volume to make.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeCreate<'a> {
    pub name: &'a str,
    pub driver: &'a str,
    pub driver_opts: &'a BTreeMap<String, String>,
    pub labels: &'a BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volumes {
    pub volumes: Option<Vec<Volume>>,
}

/// Seconds since the epoch and nanoseconds of a time as the engine writes it, `2026-11-21T11:42:32.883434729Z` with no to
/// nine decimals. `None` for other text, and for the year 1, which means never.
pub fn instant(text: &str) -> Option<(u64, u32)> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut time = time.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    if !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || fraction.len() > 9
    {
        return None;
    }
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    // Days since the epoch; years begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some((u64::try_from(seconds).ok()?, nanos))
}

/// The same, to the millisecond.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let (seconds, nanos) = instant(text)?;
    Some(Timestamp::from_millis(i64::try_from(seconds).ok()? * 1000 + i64::from(nanos / 1_000_000)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_engine_s_times_are_read() {
        assert_eq!(instant("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(instant("2026-11-21T11:42:32.883434729Z"), Some((1_795_261_352, 883_434_729)));
        assert_eq!(instant("2024-02-29T23:59:59.5Z"), Some((1_709_251_199, 500_000_000)));
        assert_eq!(timestamp("2026-11-21T11:42:32.883Z"), Some(Timestamp::from_millis(1_795_261_352_883)));
        for text in
            ["0001-01-01T00:00:00Z", "", "2026-11-21", "2026-13-21T00:00:00Z", "2026-11-21T00:00:00+01:00"]
        {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn a_container_to_make_carries_the_payload_s_own_words() {
        let host: HostConfig = serde_json::from_str(r#"{"CapAdd":["SYS_TIME"],"ShmSize":8388608}"#).unwrap();
        let create = Create {
            image: "app:1".to_owned(),
            entrypoint: None,
            cmd: Vec::new(),
            env: Vec::new(),
            exposed_ports: BTreeMap::new(),
            host_config: CreateHost { memory: 7, host, ..CreateHost::default() },
            config: Config { user: Some("1000".to_owned()), ..Config::default() },
        };
        let shown = serde_json::to_value(&create).unwrap();
        assert_eq!((&shown["User"], &shown["Image"]), (&"1000".into(), &"app:1".into()));
        assert_eq!(shown["HostConfig"]["CapAdd"][0], "SYS_TIME");
        assert_eq!(
            (&shown["HostConfig"]["Memory"], &shown["HostConfig"]["ShmSize"]),
            (&7.into(), &8_388_608.into())
        );
    }
}
