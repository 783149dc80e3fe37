//! Settings: flags, environment variables and a TOML file feed one typed configuration, read once at start.
//!
//! A flag wins over its environment variable, which wins over the file, which wins over the default.

pub mod balancers;
pub mod images;
pub mod period;
pub mod runtime;
pub mod stores;

use crate::instances::ProviderChoice;
use anyhow::{Context, Result};
use balancers::{LbAddresses, LbListen};
use clap::{Args, ValueEnum};
use gantry_agent::config::RuntimeKind;
use gantry_agent::images::ImageSettings;
use gantry_agent::network::Ipv4Block;
use gantry_agent::secrets::StoreSettings;
use gantry_agent::storage::{EfsTarget, InvalidEfsTarget};
use gantry_decide::ids::{AccountId, Region};
use gantry_decide::lease::Terms;
use gantry_server::Quotas;
use gantry_server::server::{
    BalancerAddresses, DefaultVpcBlock, EVENT_RETENTION, EXEC_RETURN, ROLE_LIFETIME,
};
use images::ImageFlags;
use period::Period;
use runtime::RuntimeFlags;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stores::StoreFlags;

/// Where state lives unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/gantry";
/// Loopback only: nothing listens further unless told to.
const LISTEN: &str = "127.0.0.1:4580";
/// The region of a machine that says nothing else: the one that tutorials use.
const REGION: &str = "us-east-1";

/// How requests are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Every signature is verified
    Strict,
    /// Any credentials are accepted, on loopback only; a 12-digit access key id names the account
    Open,
}

/// What the command line and the environment say.
#[derive(Clone, Debug, Default, Args)]
pub struct ServerFlags {
    /// Directory for all state; /var/lib/gantry unless told otherwise
    #[arg(long, value_name = "DIR", env = "GANTRY_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API; 127.0.0.1:4580 unless told otherwise
    #[arg(long, value_name = "ADDRESS:PORT", env = "GANTRY_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// How requests are authenticated; strict unless told otherwise
    #[arg(long, value_enum, env = "GANTRY_AUTH")]
    pub auth: Option<Auth>,
    /// The 12-digit account that a fresh installation gets
    #[arg(long, value_name = "ID", env = "GANTRY_ACCOUNT")]
    pub account: Option<AccountId>,
    /// A host name, beside addresses and localhost, under which clients reach the API; may be repeated
    #[arg(long = "host-name", value_name = "NAME", env = "GANTRY_HOST_NAMES", value_delimiter = ',')]
    pub host_names: Vec<String>,
    /// How long `gantry events` and `gantry explain` know what happened; 168h unless told otherwise
    #[arg(long, value_name = "TIME", env = "GANTRY_EVENT_RETENTION")]
    event_retention: Option<Period>,
    /// A quota of ECS's other than its default; may be repeated
    #[arg(long = "quota", value_name = "NAME=NUMBER", env = "GANTRY_QUOTAS", value_delimiter = ',', value_parser = quota)]
    quotas: Vec<(String, String)>,
    /// How long credentials of tasks' roles are good; for tests
    #[arg(long, value_name = "TIME", env = "GANTRY_ROLE_LIFETIME", hide = true)]
    role_lifetime: Option<Period>,
    /// Who makes the instances of Auto Scaling groups: `local` makes machines of this one, `exec:` and a path calls a program
    #[arg(long, value_name = "local|exec:PATH", env = "GANTRY_INSTANCE_PROVIDER")]
    pub instance_provider: Option<ProviderChoice>,
    /// How long an agent of ours lets its tasks run without hearing of the server; a third of a second later they are
    /// given to others [default: 2250ms]
    #[arg(long, value_name = "TIME", env = "GANTRY_AGENT_LEASE")]
    agent_lease: Option<Period>,
    /// After which silence the tasks of other agents are given away [default: 5m]
    #[arg(long, value_name = "TIME", env = "GANTRY_AGENT_TIMEOUT")]
    agent_timeout: Option<Period>,
    /// Where load balancers have their addresses, on this machine or those of `gantry lb`; an IPv6 pool may stand beside the
    /// IPv4 one, after a comma [default: 127.64.0.0/10 and a block of unique local addresses]
    #[arg(long, value_name = "CIDR", env = "GANTRY_LB_ADDRESSES")]
    lb_addresses: Option<LbAddresses>,
    /// Lets targets have loopback addresses: whoever may register targets then publishes what runs on the machines that carry
    /// traffic
    #[arg(long, env = "GANTRY_LB_LOOPBACK_TARGETS", num_args = 0..=1, default_missing_value = "true")]
    lb_loopback_targets: Option<bool>,
    /// How long a session of ECS Exec waits for a client, or the container's agent, whose connection broke [default: 30s]
    #[arg(long, value_name = "TIME", env = "GANTRY_EXEC_RETURN")]
    exec_return: Option<Period>,
    /// The default VPC's block, for accounts that have made nothing in it yet; another one for each installation of a
    /// machine [default: 172.31.0.0/16]
    #[arg(long, value_name = "CIDR", env = "GANTRY_VPC_CIDR")]
    vpc_cidr: Option<DefaultVpcBlock>,
    /// A TOML file with the same settings
    #[arg(long, value_name = "FILE", env = "GANTRY_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What the file says. A name that is not known is an error, not a surprise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    auth: Option<Auth>,
    account: Option<AccountId>,
    agent_lease: Option<Period>,
    agent_timeout: Option<Period>,
    #[serde(default)]
    host_names: Vec<String>,
    event_retention: Option<Period>,
    #[serde(default)]
    quotas: BTreeMap<String, u32>,
    instance_provider: Option<ProviderChoice>,
    lb_addresses: Option<LbAddresses>,
    lb_loopback_targets: Option<bool>,
    vpc_cidr: Option<DefaultVpcBlock>,
    exec_return: Option<Period>,
    lb_listen: Option<LbListen>,
    region: Option<Region>,
    address_block: Option<Ipv4Block>,
    #[serde(default)]
    efs: BTreeMap<String, String>,
    cpu: Option<u32>,
    memory: Option<u32>,
    runtime: Option<runtime::RuntimeName>,
    docker_host: Option<String>,
    #[serde(default)]
    images: ImageFlags,
}

/// What the command line and the environment say of this machine's capacity.
#[derive(Clone, Debug, Default, Args)]
pub struct HostFlags {
    /// Region that the machine's capacity is in, us-east-1 unless told otherwise; requests to others find none
    #[arg(long, value_name = "REGION", env = "GANTRY_REGION")]
    pub region: Option<Region>,
    /// Addresses for tasks; chosen by itself where nothing leads to, and kept
    #[arg(long, value_name = "CIDR", env = "GANTRY_ADDRESS_BLOCK")]
    pub address_block: Option<Ipv4Block>,
    /// CPU units to offer, 1024 a core, instead of all
    #[arg(long, value_name = "UNITS", requires = "memory")]
    pub cpu: Option<u32>,
    /// MiB of memory to offer, instead of all
    #[arg(long, value_name = "MIB", requires = "cpu")]
    pub memory: Option<u32>,
    /// Where an EFS file system or access point is: a directory of this machine, or an export of an NFS server; may be repeated
    #[arg(long = "efs", value_name = "ID=PATH|ID=HOST:/PATH", env = "GANTRY_EFS", value_delimiter = ',', value_parser = efs)]
    pub efs: Vec<(String, EfsTarget)>,
    /// Where load balancers are found by the host name that a client asks for, as in http://NAME.elb.localhost:4581/, or `off`
    /// [default: 127.0.0.1:4581 where it is free]
    #[arg(long, value_name = "ADDRESS:PORT|off", env = "GANTRY_LB_LISTEN")]
    pub lb_listen: Option<LbListen>,
    /// Where GPUs have their devices; for tests
    #[arg(long, value_name = "DIR", env = "GANTRY_GPU_DEVICES", default_value = "/dev", hide = true)]
    pub gpu_devices: PathBuf,
    #[command(flatten)]
    pub runtime: RuntimeFlags,
    #[command(flatten)]
    pub images: ImageFlags,
    #[command(flatten)]
    pub stores: StoreFlags,
}

/// Reads a quota's name and value.
///
/// # Errors
/// For other text, with what there is.
fn quota(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is NAME=NUMBER")?;
    Quotas::default().set(name, value).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Reads an id and where its files are.
///
/// # Errors
/// For other text.
pub fn efs(text: &str) -> Result<(String, EfsTarget), String> {
    let (id, target) = text.split_once('=').ok_or("it is ID=PATH or ID=HOST:/PATH")?;
    Ok((id.to_owned(), target.parse().map_err(|error: InvalidEfsTarget| error.to_string())?))
}

/// What a machine offers, complete.
#[derive(Clone, Debug)]
pub struct HostSettings {
    pub region: Region,
    pub address_block: Option<Ipv4Block>,
    pub runtime: RuntimeKind,
    pub images: ImageSettings,
    /// Where GPUs have their devices.
    pub gpu_devices: PathBuf,
    /// Where the files of EFS file systems and access points are.
    pub efs: BTreeMap<String, EfsTarget>,
    /// Where tasks' secrets and files of variables are.
    pub stores: StoreSettings,
    /// How long what a stopped task leaves is kept.
    pub task_cleanup_wait: Duration,
    /// Where load balancers are found by the host name that a client asks for.
    pub lb_listen: LbListen,
    cpu: Option<u32>,
    memory: Option<u32>,
}

impl HostSettings {
    /// Puts everything together.
    ///
    /// # Errors
    /// When a file that the settings name cannot be read, or a value makes no sense.
    pub fn combine(flags: HostFlags, file: &File) -> Result<HostSettings> {
        let images = flags.images.over(&file.images);
        Ok(HostSettings {
            task_cleanup_wait: images.task_cleanup_wait()?,
            images: images.settings()?,
            runtime: flags
                .runtime
                .over(&RuntimeFlags { name: file.runtime, docker_host: file.docker_host.clone() })
                .kind()?,
            stores: flags.stores.settings()?,
            region: flags
                .region
                .or_else(|| file.region.clone())
                .unwrap_or_else(|| REGION.parse().expect("the default region is one")),
            address_block: flags.address_block.or(file.address_block),
            gpu_devices: flags.gpu_devices,
            efs: if flags.efs.is_empty() {
                let targets = file.efs.iter().map(|(id, target)| Ok((id.clone(), target.parse()?)));
                targets.collect::<Result<_, InvalidEfsTarget>>()?
            } else {
                flags.efs.into_iter().collect()
            },
            lb_listen: flags.lb_listen.or(file.lb_listen).unwrap_or_default(),
            cpu: flags.cpu.or(file.cpu),
            memory: flags.memory.or(file.memory),
        })
    }

    /// CPU units and MiB to offer, where not all.
    pub fn capacity(&self) -> Option<(u32, u32)> {
        self.cpu.zip(self.memory)
    }
}

impl File {
    fn read(path: &Path) -> Result<File> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a configuration of Gantry", path.display()))
    }
}

/// The settings of a server, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub auth: Auth,
    pub account: AccountId,
    /// How long credentials of tasks' roles are good for.
    pub role_lifetime: Duration,
    /// How long the feed keeps what happened.
    pub event_retention: Duration,
    /// How long agents of which nothing is heard are waited for.
    pub leases: Terms,
    pub host_names: Vec<String>,
    pub quotas: Quotas,
    pub balancer_addresses: BalancerAddresses,
    pub loopback_targets: bool,
    /// How long a session of ECS Exec waits for a side whose connection broke.
    pub exec_return: Duration,
    /// The block of default VPCs.
    pub default_vpc: DefaultVpcBlock,
    /// Who makes Auto Scaling groups' instances, where anybody does.
    pub instance_provider: Option<ProviderChoice>,
}

impl ServerSettings {
    /// Reads the file that the flags name, and puts everything together. Returns the file too, for other settings.
    ///
    /// # Errors
    /// When the file cannot be read or says something unknown.
    pub fn read(flags: ServerFlags) -> Result<(ServerSettings, File)> {
        let file = flags.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        Ok((ServerSettings::combine(flags, file.clone())?, file))
    }

    fn combine(flags: ServerFlags, file: File) -> Result<ServerSettings> {
        let listen = LISTEN.parse().expect("the default address is one");
        let mut quotas = Quotas::default();
        let of_file = file.quotas.into_iter().map(|(name, value)| (name, value.to_string()));
        for (name, value) in of_file.chain(flags.quotas) {
            quotas.set(&name, &value)?;
        }
        Ok(ServerSettings {
            quotas,
            balancer_addresses: flags.lb_addresses.or(file.lb_addresses).unwrap_or_default().0,
            loopback_targets: flags.lb_loopback_targets.or(file.lb_loopback_targets).unwrap_or(false),
            exec_return: flags.exec_return.or(file.exec_return).map_or(EXEC_RETURN, |period| period.0),
            default_vpc: flags.vpc_cidr.or(file.vpc_cidr).unwrap_or_default(),
            data_dir: flags.data_dir.or(file.data_dir).unwrap_or_else(|| PathBuf::from(DATA_DIR)),
            listen: flags.listen.or(file.listen).unwrap_or(listen),
            auth: flags.auth.or(file.auth).unwrap_or(Auth::Strict),
            account: flags.account.or(file.account).unwrap_or(AccountId::DEFAULT),
            role_lifetime: flags.role_lifetime.map_or(ROLE_LIFETIME, |period| period.0),
            event_retention: flags
                .event_retention
                .or(file.event_retention)
                .map_or(EVENT_RETENTION, |period| period.0),
            instance_provider: flags.instance_provider.or(file.instance_provider),
            leases: Terms::of(
                flags.agent_lease.or(file.agent_lease).map_or(Terms::USUAL.length, |period| period.0),
                flags.agent_timeout.or(file.agent_timeout).map_or(Terms::USUAL.without, |period| period.0),
            ),
            host_names: if flags.host_names.is_empty() { file.host_names } else { flags.host_names },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let text = "data-dir = '/srv/g'\nauth = 'open'\nlisten = '127.0.0.1:1'\n\
                    [quotas]\nclusters = 3\ntasks-per-service = 9";
        let file: File = toml::from_str(text).unwrap();
        let flags = ServerFlags {
            listen: Some("127.0.0.1:2".parse().unwrap()),
            quotas: vec![quota("clusters=4").unwrap()],
            ..ServerFlags::default()
        };
        let settings = ServerSettings::combine(flags, file).unwrap();
        assert_eq!((settings.quotas.clusters, settings.quotas.tasks), (4, 9));
        assert_eq!(settings.data_dir, Path::new("/srv/g"));
        assert_eq!(settings.listen, "127.0.0.1:2".parse().unwrap());
        assert_eq!((settings.auth, settings.account), (Auth::Open, AccountId::DEFAULT));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<File>("lissen = '127.0.0.1:1'").is_err());
        assert!(toml::from_str::<File>("account = '12'").is_err());
        let file: File = toml::from_str("[quotas]\ncolours = 7").unwrap();
        assert!(ServerSettings::combine(ServerFlags::default(), file).is_err());
        assert!(quota("clusters").is_err() && quota("clusters=0").is_err());
    }
}
