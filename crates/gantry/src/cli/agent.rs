//! `gantry agent`: one agent, on this or another machine than the server.

use super::server::StopSignal;
use crate::config::efs;
use crate::config::images::ImageFlags;
use crate::config::runtime::RuntimeFlags;
use crate::config::stores::StoreFlags;
use crate::platform::{FARGATE_POOL, MTU, agent_config};
use anyhow::{Context, Result, bail};
use clap::Args;
use gantry_agent::agent;
use gantry_agent::config::{Access, AgentConfig, MachineIdentity};
use gantry_agent::network::Ipv4Block;
use gantry_agent::storage::EfsTarget;
use gantry_decide::ids::{Ec2InstanceId, Region};
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

/// Join this machine to a control plane as a container instance or as Fargate capacity
///
/// A machine that has no such key joins by an activation of Systems Manager, and takes tasks of the launch type EXTERNAL.
///
/// The key comes from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: `gantry env --agent` on the server's machine prints
/// one that may do nothing but what agents do.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The control plane, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL")]
    endpoint: String,
    /// The cluster to join
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "fargate")]
    cluster: String,
    /// Offer the machine as Fargate capacity instead
    #[arg(long)]
    fargate: bool,
    /// Join by the activation of this id, as a machine for tasks of the launch type EXTERNAL
    #[arg(
        long,
        value_name = "ID",
        env = "GANTRY_ACTIVATION_ID",
        requires = "activation_code",
        conflicts_with = "fargate"
    )]
    activation_id: Option<String>,
    /// The activation's code
    #[arg(
        long,
        value_name = "CODE",
        env = "GANTRY_ACTIVATION_CODE",
        hide_env_values = true,
        requires = "activation_id"
    )]
    activation_code: Option<String>,
    /// The Auto Scaling group that the machine belongs to: tasks of its capacity provider come here
    #[arg(long, value_name = "NAME", conflicts_with = "fargate")]
    auto_scaling_group: Option<String>,
    /// Drain when the machine's metadata service tells that the machine is about to be taken away
    #[arg(long, env = "ECS_ENABLE_SPOT_INSTANCE_DRAINING", value_parser = clap::builder::BoolishValueParser::new())]
    spot_draining: bool,
    /// Where that service is
    #[arg(long, value_name = "URL", env = "AWS_EC2_METADATA_SERVICE_ENDPOINT", default_value = METADATA, hide = true)]
    metadata_endpoint: String,
    /// Answer this machine's programs for the instance's metadata at 169.254.169.254; not on a cloud's machine, where the
    /// cloud does
    #[arg(long, env = "GANTRY_INSTANCE_METADATA", conflicts_with = "fargate", value_parser = clap::builder::BoolishValueParser::new())]
    instance_metadata: bool,
    #[arg(long, value_name = "REGION", env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    region: Region,
    /// Directory of the agent's state, containers, logs and images
    #[arg(long, value_name = "DIR", env = "GANTRY_AGENT_DATA_DIR", default_value = "/var/lib/gantry-agent")]
    data_dir: PathBuf,
    /// Directory of the images, where several agents of a machine share one
    #[arg(long, value_name = "DIR")]
    image_dir: Option<PathBuf>,
    /// The id of this machine, i-…, as its Auto Scaling group knows it
    #[arg(long, value_name = "ID")]
    instance_id: Option<Ec2InstanceId>,
    /// The instance type to tell of this machine
    #[arg(long, value_name = "TYPE", requires = "instance_id")]
    instance_type: Option<String>,
    /// End when the standard input does: for agents that are looked after
    #[arg(long, hide = true)]
    end_with_input: bool,
    /// Names what the agent makes on this machine: 1 to 8 lower-case letters and digits
    #[arg(long, value_name = "NAME", default_value = "agent")]
    name: String,
    /// Addresses for containers in bridge mode: a block that leads nowhere else
    #[arg(long, value_name = "CIDR", env = "GANTRY_ADDRESS_BLOCK", default_value = "10.191.0.0/18")]
    address_block: Ipv4Block,
    /// Bytes of the largest packet of tasks: no more than what the network between the machines takes
    #[arg(long, value_name = "BYTES", env = "GANTRY_MTU", default_value_t = MTU, value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: u32,
    /// By which other machines' agents reach this one, to carry what tasks say to each other [default: the one that
    /// leads to the server, unless that is on this machine]
    #[arg(long, value_name = "ADDRESS", env = "GANTRY_HOST_ADDRESS")]
    host_address: Option<Ipv4Addr>,
    /// CPU units to offer, 1024 a core, instead of all
    #[arg(long, value_name = "UNITS", requires = "memory")]
    cpu: Option<u32>,
    /// MiB of memory to offer, instead of all
    #[arg(long, value_name = "MIB", requires = "cpu")]
    memory: Option<u32>,
    /// An attribute of the container instance; may be repeated
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Where an EFS file system or access point is: a directory of this machine, or an export of an NFS server; may be repeated
    #[arg(long = "efs", value_name = "ID=PATH|ID=HOST:/PATH", env = "GANTRY_EFS", value_delimiter = ',', value_parser = efs)]
    efs: Vec<(String, EfsTarget)>,
    /// Availability zone to tell
    #[arg(long, value_name = "ZONE")]
    availability_zone: Option<String>,
    /// A TOML file with the settings of images, in the table [images]
    #[arg(long, value_name = "FILE", env = "GANTRY_AGENT_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeFlags,
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    stores: StoreFlags,
}

/// Where EC2 has its metadata service.
const METADATA: &str = "http://169.254.169.254";
/// Says to the control plane which Auto Scaling group a machine belongs to.
const GROUP_ATTRIBUTE: &str = "gantry.auto-scaling-group";

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an attribute is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub fn run(arguments: AgentArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: try `sudo -E gantry agent`");
    }
    let looked_after = arguments.end_with_input;
    let config = config(arguments)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    runtime.block_on(async {
        let mut stop = StopSignal::listen()?;
        let (cluster, endpoint) = (config.cluster.clone(), config.endpoint.clone());
        let joined = move || eprintln!("Joined the cluster {cluster} at {endpoint}.");
        let told = async move {
            tokio::select! {
                () = stop.received() => {}
                () = input_ended(), if looked_after => {}
            }
        };
        agent::run(config, joined, told).await?;
        eprintln!("The agent stopped. Containers run on; its next start finds them.");
        Ok(())
    })
}

/// Waits for the end of the standard input; what comes before is dropped.
async fn input_ended() {
    let (ended, told) = tokio::sync::oneshot::channel();
    // A thread of its own, for which nobody waits when the agent ends otherwise.
    std::thread::spawn(move || {
        // One that cannot be read has nobody at its other end either.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // Nobody listens any more when the agent has ended.
        let _ = ended.send(());
    });
    // The thread ends only so.
    let _ = told.await;
}

/// The address by which this machine speaks to the server, if that is on another.
fn own_address(endpoint: &str) -> Option<Ipv4Addr> {
    let server = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).trim_end_matches('/');
    // Nothing is sent: the kernel only looks for the way.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(server).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => {
            let server = socket.peer_addr().ok()?.ip();
            (!address.is_loopback() && server != IpAddr::V4(address)).then_some(address)
        }
        IpAddr::V6(_) => None,
    }
}

fn config(arguments: AgentArgs) -> Result<AgentConfig> {
    let variable = |name: &str| {
        std::env::var(name).with_context(|| {
            format!("{name} is not set: `gantry env --agent` on the server's machine prints it")
        })
    };
    let external = arguments.activation_id.is_some();
    let access = match arguments.activation_id.zip(arguments.activation_code) {
        Some((id, code)) => Access::Activation { id, code: Secret::new(code) },
        None => Access::Key(Credentials {
            access_key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret_access_key: Secret::new(&variable("AWS_SECRET_ACCESS_KEY")?),
            session_token: None,
        }),
    };
    let group = arguments.auto_scaling_group.map(|name| (GROUP_ATTRIBUTE.to_owned(), name));
    let images = arguments.images.over_file(arguments.config.as_deref())?;
    let cleanup_wait = images.task_cleanup_wait()?;
    let own = || super::image::image_directory(&arguments.data_dir);
    let image_dir = arguments.image_dir.clone().unwrap_or_else(own);
    let base = agent_config(
        &arguments.endpoint,
        &arguments.region,
        access,
        arguments.data_dir,
        image_dir,
        arguments.address_block,
    )?;
    Ok(AgentConfig {
        cluster: if arguments.fargate { FARGATE_POOL.to_owned() } else { arguments.cluster },
        name: arguments.name,
        mtu: arguments.mtu,
        host_address: arguments.host_address.or_else(|| own_address(&arguments.endpoint)),
        capacity: arguments.cpu.zip(arguments.memory),
        external,
        spot_notices: arguments.spot_draining.then_some(arguments.metadata_endpoint),
        attributes: arguments.attributes.into_iter().chain(group).collect(),
        availability_zone: arguments.availability_zone,
        instance_metadata: arguments.instance_metadata,
        machine: arguments.instance_id.map(|id| MachineIdentity {
            instance_id: id.to_string(),
            instance_type: arguments.instance_type,
        }),
        efs: arguments.efs.into_iter().collect(),
        runtime: arguments.runtime.kind()?,
        images: images.settings()?,
        stores: arguments.stores.settings()?,
        cleanup_wait,
        holds_leases: true,
        ..base
    })
}
