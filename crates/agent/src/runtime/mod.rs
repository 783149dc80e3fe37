//! Containers on this host: what one is made of, and who runs it.
//!
//! A container is configured completely before it is made: images are resolved, names are values. Runtimes know no
//! tasks, and of networks no more than which one to join. What an engine of somebody else's is told besides, because it
//! keeps images, volumes and addresses itself, is [`EngineParts`]; nothing else differs from runtime to runtime.

pub mod capabilities;
pub mod cgroup;
pub mod devices;
pub mod exec;
pub mod logs;
pub mod native;
pub mod process;
pub mod seccomp;
mod shims;
pub mod spec;

use crate::network::{Bridged, PortRequest};
use crate::protocol::payload::ContainerConfig as Docker;
use gantry_decide::task_engine::Exit;
use gantry_decide::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;

/// A container's name on this host, chosen by who makes it: 1 to 64 of letters, digits, `-` and `_`. It names a
/// directory, and comes from us alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Text that cannot name a container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no container id: 1 to 64 letters, digits, hyphens and underscores")]
pub struct InvalidContainerId(String);

impl ContainerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, InvalidContainerId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(ContainerId(text))
        } else {
            Err(InvalidContainerId(text.chars().take(100).collect()))
        }
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> String {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The network that a container is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkNamespace {
    /// The host's own.
    Host,
    /// One that was made and pinned here.
    Path(PathBuf),
    /// A new one with loopback only.
    Isolated,
    /// That of another container of the task, which runs.
    Container(ContainerId),
    /// A new one on the runtime's own bridge. Only engines have one.
    Bridge,
}

/// Whose processes, or whose System V and POSIX objects, a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container of the task, which runs.
    Container(ContainerId),
}

/// A directory or file of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindMount {
    /// Absolute; else the name of a volume that an engine keeps.
    pub source: PathBuf,
    /// Absolute, in the container.
    pub target: String,
    pub read_only: bool,
}

/// A file system in memory in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    pub target: String,
    /// As mount(8) takes them.
    pub options: Vec<String>,
}

/// A limit of setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// A device of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMapping {
    pub host_path: PathBuf,
    pub container_path: String,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

/// Where a container's output goes: see [`logs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    pub path: PathBuf,
    /// Bytes of one file before it is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included. With 0 nothing is written.
    pub max_files: u32,
}

/// What an engine is told of a container that keeps images, volumes and addresses itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineParts {
    /// As its own tools show the container.
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// What the payload says in the engine's own form.
    pub docker: Docker,
    /// Ports of the container, and where the host has them.
    pub ports: Vec<PortRequest>,
    /// Containers that run, and the names under which this one knows them.
    pub links: Vec<(ContainerId, String)>,
    /// Volumes among the mounts that are to be there first.
    pub volumes: Vec<EngineVolume>,
    /// What the container may write beside its volumes, of a task that says so.
    #[serde(default)]
    pub layer_bytes: Option<u64>,
    /// The engine sends the output where its own log driver says.
    pub own_log_driver: bool,
}

/// A volume that an engine keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineVolume {
    pub name: String,
    /// `local` where nothing else is said.
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Made where it is not there; else that is an error.
    pub make: bool,
}

/// Everything that a container is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub id: ContainerId,
    /// Unpacked image layers, uppermost first.
    pub layers: Vec<PathBuf>,
    /// Program and arguments. Empty only for a pause: see `init`.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub cwd: String,
    /// `user[:group]`, names of the image's own files or numbers. Empty: root.
    pub user: String,
    pub hostname: String,
    /// The NIS domain; empty: the host's.
    pub domainname: String,
    /// The first process is one of ours, which passes signals on to the program and collects orphans. Without `args`
    /// there is no program: it keeps the namespaces for other containers, until SIGTERM.
    pub init: bool,
    /// The program's terminal is one of its own; what it writes there goes to the log.
    pub tty: bool,
    /// Standard input stays open, with nothing to read, instead of being at its end.
    pub stdin_open: bool,
    /// Contents of the files in `/etc`.
    pub hosts_file: String,
    pub resolv_conf: String,
    pub read_only_root: bool,
    /// All capabilities and devices, and no filter of system calls.
    pub privileged: bool,
    pub capabilities: capabilities::Capabilities,
    /// A program cannot gain rights by executing another.
    pub no_new_privileges: bool,
    /// Relative share of CPU time; 1024 is one core's worth.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period of 100 ms.
    pub cpu_quota: Option<i64>,
    /// Bytes. Beyond it the kernel kills.
    pub memory_limit: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<u64>,
    /// Processes and threads; -1 is no limit, `None` is [`cgroup::PIDS_DEFAULT`].
    pub pids_limit: Option<i64>,
    pub rlimits: Vec<Rlimit>,
    pub sysctls: Vec<(String, String)>,
    pub mounts: Vec<BindMount>,
    pub tmpfs: Vec<TmpfsMount>,
    pub devices: Vec<DeviceMapping>,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    pub network: NetworkNamespace,
    pub pid: Namespace,
    pub ipc: Namespace,
    /// Absolute path of the control group that the container's own is made in.
    pub cgroup_parent: String,
    pub log: LogFile,
    /// Where what it writes outside of its volumes is; a directory of the container's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Box<EngineParts>>,
}

/// A container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub pid: i32,
    pub at: Timestamp,
}

/// A container that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running(Started),
    Exited(Exit),
}

/// Which step failed: what users see differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Its file system, groups and namespaces.
    Create,
    /// Its program.
    Start,
}

/// Why a container cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{text}")]
    Failed { step: Step, text: String },
    /// One that the runtime keeps itself cannot be had.
    #[error("volume {name}: {text}")]
    Volume { name: String, text: String },
    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("the container did not start within {seconds} s")]
    Timeout { seconds: u64 },
    #[error("the container's shim ended without a word")]
    Silent,
    #[error("there is no container {0}")]
    Unknown(ContainerId),
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The one that is there is left as it is.
    #[error("there is a container {0} already")]
    Exists(ContainerId),
}

impl RuntimeError {
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> RuntimeError {
        let doing = doing.into();
        move |source| RuntimeError::Io { doing, source }
    }
}

/// Runs containers. Cheap to clone.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Makes a container and starts its program. On an error nothing is left of it.
    fn run(&self, config: ContainerConfig) -> impl Future<Output = Result<Started, RuntimeError>> + Send;

    /// Starts the program of a container that has ended again, with what it wrote before. On an error the container
    /// stays as it is, or with nothing but its end known.
    fn restart(&self, id: &ContainerId) -> impl Future<Output = Result<Started, RuntimeError>> + Send;

    /// Signals the container's first process. One that is gone is no error.
    fn signal(&self, id: &ContainerId, signal: i32) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Waits for the end of a container that was run, by this process or an earlier one.
    fn wait(&self, id: &ContainerId) -> impl Future<Output = Result<Exit, RuntimeError>> + Send;

    /// Kills it if it runs, and removes all that it left. One that is gone is no error.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Runs a program beside the container's, with the container's rights and limits. It is killed when the result's
    /// exit is dropped.
    fn exec(
        &self,
        id: &ContainerId,
        request: exec::ExecRequest,
    ) -> impl Future<Output = Result<exec::Exec, RuntimeError>> + Send;

    /// A container's first process, while it runs.
    fn started(&self, id: &ContainerId)
    -> impl Future<Output = Result<Option<Started>, RuntimeError>> + Send;

    /// What a running container uses.
    fn stats(&self, id: &ContainerId) -> impl Future<Output = Result<cgroup::Stats, RuntimeError>> + Send;

    /// Makes the control group that a task's containers are made in (their `cgroup_parent`), with the task's own limits,
    /// or changes the limits of one that is there.
    fn create_task_group(
        &self,
        group: &str,
        limits: cgroup::TaskLimits,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Removes it, once its containers are gone. One that is not there is no error.
    fn remove_task_group(&self, group: &str) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// The id by which users and the runtime's own tools know a container that was run.
    fn runtime_id(&self, id: &ContainerId) -> String {
        id.to_string()
    }

    /// The address and ports that the runtime gave a running container on its own bridge.
    fn bridged(&self, id: &ContainerId) -> impl Future<Output = Result<Bridged, RuntimeError>> + Send {
        let error = RuntimeError::NotRunning(id.clone());
        async move { Err(error) }
    }

    /// Whether it works.
    fn is_well(&self) -> impl Future<Output = bool> + Send {
        async { true }
    }

    /// Attributes of an instance that depend on the runtime, without values.
    fn capabilities(&self) -> Vec<String> {
        crate::attributes::native()
    }

    /// Its version, as the control plane is told.
    fn version(&self) -> String {
        format!("gantry {}", env!("CARGO_PKG_VERSION"))
    }

    /// Ends what serves the runtime beside the containers, which go on.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// All containers that are there.
    fn list(&self) -> impl Future<Output = Result<Vec<(ContainerId, State)>, RuntimeError>> + Send;
}
