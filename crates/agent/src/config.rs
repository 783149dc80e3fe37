//! How an agent runs: whom it belongs to, where it keeps things, what it offers.

use crate::images::ImageSettings;
use crate::network::Ipv4Block;
use crate::secrets::StoreSettings;
use crate::storage::EfsTarget;
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// What becomes of the containers when the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// They run on; the next start finds them.
    LeaveRunning,
    /// They are stopped, reported, and removed with everything that was made for them.
    StopAll,
}

/// Who makes an agent's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RuntimeKind {
    /// This program itself.
    #[default]
    Native,
    /// The Docker Engine that listens at this socket.
    Docker { socket: PathBuf },
}

impl RuntimeKind {
    pub fn is_docker(&self) -> bool {
        matches!(self, RuntimeKind::Docker { .. })
    }
}

/// How an agent shows who it is.
#[derive(Clone, Debug)]
pub enum Access {
    /// With a key that the operator gave it.
    Key(Credentials),
    /// With an activation, to begin with: id and code. What the machine is then called is on its disk.
    Activation { id: String, code: Secret },
}

/// What an agent tells of the machine that it runs on, as EC2's identity documents do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineIdentity {
    /// `i-…`.
    pub instance_id: String,
    /// Such as `t3.micro`.
    pub instance_type: Option<String>,
}

/// The settings of one agent, complete.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Base URL of the control plane, `http://host:port`.
    pub endpoint: String,
    pub region: String,
    /// The key that the operator gave it, or the activation that it joins by.
    pub access: Access,
    /// Name of the cluster to join.
    pub cluster: String,
    /// Names what the agent makes on the host: 1 to 8 lower-case letters and digits. Agents of one host have different ones.
    pub name: String,
    /// State, containers, logs and volumes.
    pub data_dir: PathBuf,
    /// The image store; agents of one host may share it.
    pub image_dir: PathBuf,
    pub runtime: RuntimeKind,
    /// The program that shims are: this one.
    pub program: PathBuf,
    /// Addresses of containers in bridge mode.
    pub address_block: Ipv4Block,
    /// Bytes of the largest packet of tasks and containers.
    pub mtu: u32,
    /// By which other hosts reach this one, to carry what tasks say to each other; without it, they do not.
    pub host_address: Option<Ipv4Addr>,
    /// CPU units and MiB to offer; else all of the host.
    pub capacity: Option<(u32, u32)>,
    /// Whether the machine is one of the user's own, in ECS's sense of launch type EXTERNAL.
    pub external: bool,
    /// The metadata service that tells when the machine is about to be taken away, where that is asked.
    pub spot_notices: Option<String>,
    /// The user's own attributes.
    pub attributes: BTreeMap<String, String>,
    pub availability_zone: Option<String>,
    /// Whether the agent answers the machine's programs for the instance's metadata, at the address that EC2 has for
    /// that: not where a cloud answers there itself.
    pub instance_metadata: bool,
    /// Which of EC2's machines this is, where it is one.
    pub machine: Option<MachineIdentity>,
    /// Where the host's GPUs have their devices: `/dev`.
    pub gpu_devices: PathBuf,
    /// Where the files of EFS file systems and access points are, by their ids.
    pub efs: BTreeMap<String, EfsTarget>,
    pub images: ImageSettings,
    /// Where tasks' secrets and files of variables are.
    pub stores: StoreSettings,
    /// From SIGTERM to SIGKILL where the container does not say.
    pub stop_timeout: Duration,
    /// How long a stopped task's remains are kept.
    pub cleanup_wait: Duration,
    pub at_end: AtEnd,
    /// Tasks end when the control plane gives the agent no lease. Only the native runtime's can.
    pub holds_leases: bool,
}

impl AgentConfig {
    /// Whether the agent asks for leases, and has what ends tasks without one.
    pub fn has_lease(&self) -> bool {
        self.holds_leases && !self.runtime.is_docker()
    }
}
