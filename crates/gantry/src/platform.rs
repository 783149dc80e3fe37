//! A server and the agents of its own machine in one process: what `gantry up` and `gantry demo` run.
//!
//! One agent offers the machine as Fargate capacity, one as a container instance of the cluster `default`. Both speak
//! to the server as agents elsewhere do, through its endpoint. Each offers the whole machine: who uses both kinds of
//! capacity at once shares it, as the machine's other programs do.

use crate::balancer::LocalBalancer;
use crate::cli::image::image_directory;
use crate::config::images::TASK_CLEANUP_WAIT;
use crate::config::{Auth, HostSettings, ServerSettings};
use crate::instances::{Installation, Provider};
use crate::objects;
use anyhow::{Context, Result, anyhow, bail};
use gantry_agent::agent;
use gantry_agent::config::{Access, AgentConfig, AtEnd, RuntimeKind};
use gantry_agent::images::ImageSettings;
use gantry_agent::network::Ipv4Block;
use gantry_agent::secrets::StoreSettings;
use gantry_decide::ids::Region;
use gantry_server::keys;
use gantry_server::server::{Config, Server};
use gantry_server::transport::Options;
use gantry_wire::Secret;
use gantry_wire::sigv4::Credentials;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The cluster whose instances are Fargate's capacity; users never see it.
pub const FARGATE_POOL: &str = "gantry-fargate-pool";
const DEFAULT_CLUSTER: &str = "default";
/// From SIGTERM to SIGKILL where a container does not say: ECS's default.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// For both agents to join: a matter of milliseconds, unless old containers have to be looked after first.
const JOIN_MAX: Duration = Duration::from_secs(60);

/// What to run.
pub struct PlatformConfig {
    pub server: ServerSettings,
    pub host: HostSettings,
    /// What becomes of the containers when the platform ends.
    pub at_end: AtEnd,
}

/// A running platform.
pub struct Platform {
    server: Server,
    balancer: LocalBalancer,
    endpoint: String,
    region: Region,
    agents: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    instances: Provider,
}

/// The server's part of the settings, as the server takes them.
/// `stores`: where objects are that operations need.
pub fn server_config(settings: ServerSettings, stores: &StoreSettings) -> Config {
    Config {
        data_dir: settings.data_dir,
        address: settings.listen,
        auth: match settings.auth {
            Auth::Strict => keys::Auth::Strict,
            Auth::Open => keys::Auth::Open,
        },
        account: settings.account,
        role_lifetime: settings.role_lifetime,
        event_retention: settings.event_retention,
        quotas: settings.quotas,
        balancer_addresses: settings.balancer_addresses,
        loopback_targets: settings.loopback_targets,
        default_vpc: settings.default_vpc,
        exec_return: settings.exec_return,
        leases: settings.leases,
        objects: objects::source(stores),
        transport: Options { host_names: settings.host_names, ..Options::default() },
    }
}

/// The two agents of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalAgent {
    Fargate,
    Instance,
}

impl LocalAgent {
    pub const ALL: [LocalAgent; 2] = [LocalAgent::Fargate, LocalAgent::Instance];

    fn cluster(self) -> &'static str {
        match self {
            LocalAgent::Fargate => FARGATE_POOL,
            LocalAgent::Instance => DEFAULT_CLUSTER,
        }
    }

    /// Where it keeps its state.
    pub fn directory(self, data_dir: &Path) -> PathBuf {
        data_dir.join("agents").join(match self {
            LocalAgent::Fargate => "fargate",
            LocalAgent::Instance => "instance",
        })
    }

    /// Names what it makes on the host. Two installations on one machine must not share it, so it follows from the
    /// data directory.
    ///
    /// # Errors
    /// When the directory does not exist.
    pub fn name(self, data_dir: &Path) -> Result<String> {
        let path = data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        let bytes = path.as_os_str().as_encoded_bytes();
        // FNV-1a: tells directories apart, and nothing else.
        let hash =
            bytes.iter().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
        let prefix = match self {
            LocalAgent::Fargate => 'f',
            LocalAgent::Instance => 'i',
        };
        Ok(format!("{prefix}{:07x}", hash >> 4))
    }
}

/// Bytes of the largest packet of tasks, where nobody says: what every link takes.
pub const MTU: u32 = 1500;

/// An agent's settings where nothing special is asked for.
pub fn agent_config(
    endpoint: &str,
    region: &Region,
    access: Access,
    data_dir: PathBuf,
    image_dir: PathBuf,
    address_block: Ipv4Block,
) -> Result<AgentConfig> {
    Ok(AgentConfig {
        endpoint: endpoint.to_owned(),
        region: region.to_string(),
        access,
        cluster: DEFAULT_CLUSTER.to_owned(),
        name: String::new(),
        data_dir,
        image_dir,
        runtime: RuntimeKind::Native,
        program: std::env::current_exe().context("cannot find this program's own file")?,
        address_block,
        mtu: MTU,
        host_address: None,
        capacity: None,
        external: false,
        spot_notices: None,
        attributes: std::collections::BTreeMap::new(),
        availability_zone: None,
        instance_metadata: false,
        machine: None,
        efs: std::collections::BTreeMap::new(),
        gpu_devices: PathBuf::from("/dev"),
        images: ImageSettings::default(),
        stores: StoreSettings::default(),
        stop_timeout: STOP_TIMEOUT,
        cleanup_wait: TASK_CLEANUP_WAIT,
        at_end: AtEnd::LeaveRunning,
        // In the server's own process it could not be away from it.
        holds_leases: false,
    })
}

/// The agent's own key, as it signs with it.
pub fn credentials(pair: &keys::KeyPair) -> Credentials {
    Credentials {
        access_key_id: pair.access_key_id.clone(),
        secret_access_key: Secret::new(&pair.secret_access_key),
        session_token: None,
    }
}

impl Platform {
    /// Starts everything, and returns when the agents have joined.
    ///
    /// # Errors
    /// When a part cannot start; nothing is left running then.
    pub async fn start(config: PlatformConfig) -> Result<Platform> {
        let PlatformConfig { server: settings, host, at_end } = config;
        let data_dir = settings.data_dir.clone();
        let provider = settings.instance_provider.clone();
        let vpc = settings.default_vpc.block();
        let server = Server::start(server_config(settings, &host.stores)).await?;
        let endpoint = format!("http://{}", server.address());
        let balancer = LocalBalancer::start(&server, host.lb_listen, &data_dir)?;
        let (stop, _) = watch::channel(false);
        let region = host.region.clone();
        let (agents, instances) = (JoinSet::new(), Provider::default());
        let mut platform = Platform { server, balancer, endpoint, region, agents, stop, instances };
        let vpc = Ipv4Block::new(vpc.base(), vpc.bits()).context("the default VPC's block is too small")?;
        let block = choose_block(&data_dir, host.address_block, &[vpc])?;
        let (low, high) = block.halves().context("the block of addresses is too small")?;
        let (joined, mut joins) = mpsc::channel(LocalAgent::ALL.len());
        for (local, block) in LocalAgent::ALL.into_iter().zip([low, high]) {
            let base = agent_config(
                &platform.endpoint,
                &host.region,
                Access::Key(credentials(&platform.server.keys().agent)),
                local.directory(&data_dir),
                image_directory(&data_dir),
                block,
            )?;
            let config = AgentConfig {
                cluster: local.cluster().to_owned(),
                name: local.name(&data_dir)?,
                capacity: host.capacity(),
                runtime: host.runtime.clone(),
                images: host.images.clone(),
                efs: host.efs.clone(),
                stores: host.stores.clone(),
                gpu_devices: if local == LocalAgent::Fargate {
                    PathBuf::new()
                } else {
                    host.gpu_devices.clone()
                },
                cleanup_wait: host.task_cleanup_wait,
                at_end,
                ..base
            };
            platform.launch(config, joined.clone());
        }
        drop(joined);
        for _ in LocalAgent::ALL {
            let come = timeout(JOIN_MAX, joins.recv()).await;
            if !matches!(come, Ok(Some(()))) {
                let reason = platform.agent_failure().await;
                // The first failure is the one to tell.
                let _ = platform.shutdown().await;
                return Err(reason);
            }
        }
        let installation = Installation {
            data_dir: &data_dir,
            tasks: Some(block),
            task_cleanup_wait: host.task_cleanup_wait,
        };
        match Provider::start(&mut platform.server, provider.as_ref(), installation).await {
            Ok(instances) => platform.instances = instances,
            Err(reason) => {
                // As above.
                let _ = platform.shutdown().await;
                return Err(reason);
            }
        }
        Ok(platform)
    }

    fn launch(&mut self, config: AgentConfig, joined: mpsc::Sender<()>) {
        let mut stop = self.stop.subscribe();
        self.agents.spawn(async move {
            let told = async move {
                // The sender going away means the same.
                let _ = stop.wait_for(|stop| *stop).await;
            };
            let name = config.cluster.clone();
            let join = move || {
                // Nobody waits any more when the start was given up.
                let _ = joined.try_send(());
            };
            agent::run(config, join, told).await.with_context(|| format!("the agent of the cluster {name}"))
        });
    }

    async fn agent_failure(&mut self) -> anyhow::Error {
        let ended = timeout(Duration::from_secs(1), self.agents.join_next()).await;
        match ended {
            Ok(Some(Ok(Err(error)))) => error,
            Ok(Some(Err(error))) => error.into(),
            _ => anyhow!("the agents did not join within {} s", JOIN_MAX.as_secs()),
        }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where load balancers are found by host name.
    pub fn load_balancers(&self) -> Option<SocketAddr> {
        self.balancer.shared_address()
    }

    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Waits until a part fails for good, and says why. The process must end then.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            reason = self.server.failed() => anyhow!("the server had to stop: {reason}"),
            Some(ended) = self.agents.join_next() => match ended {
                Ok(Ok(())) => anyhow!("an agent ended by itself"),
                Ok(Err(error)) => error,
                Err(error) => error.into(),
            },
        }
    }

    /// Ends the agents, then the server.
    ///
    /// # Errors
    /// When a part had failed before, or could not end in order.
    pub async fn shutdown(mut self) -> Result<()> {
        self.instances.shutdown().await;
        // Agents that have ended do not hear it.
        let _ = self.stop.send(true);
        let mut first = None;
        while let Some(ended) = self.agents.join_next().await {
            let result = ended.map_err(anyhow::Error::from).and_then(|result| result);
            if let Err(error) = result {
                first.get_or_insert(error);
            }
        }
        self.balancer.shutdown().await;
        self.server.shutdown().await?;
        first.map_or(Ok(()), Err)
    }
}

/// In a directory: the block of addresses of what runs from there, chosen once.
const BLOCK_FILE: &str = "address-block";

/// The block to use: as asked for, as before, or one that nothing on this machine leads to and none of `others` meets.
pub fn choose_block(directory: &Path, asked: Option<Ipv4Block>, others: &[Ipv4Block]) -> Result<Ipv4Block> {
    let file = directory.join(BLOCK_FILE);
    let block = match (asked, std::fs::read_to_string(&file)) {
        (Some(block), _) => block,
        (None, Ok(text)) => text.trim().parse().with_context(|| format!("{} is damaged", file.display()))?,
        (None, Err(_)) => {
            let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
            free_block(&routes, others)?
        }
    };
    std::fs::write(&file, format!("{block}\n"))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(block)
}

/// A /18 of 10.192.0.0/10 that no route of this machine overlaps, nor any of `others`.
fn free_block(routes: &str, others: &[Ipv4Block]) -> Result<Ipv4Block> {
    let routed = routes.lines().skip(1).filter_map(route);
    let taken: Vec<Ipv4Block> = routed.chain(others.iter().copied()).collect();
    for second in 192..=255_u8 {
        for third in [0, 64, 128, 192] {
            let block = Ipv4Block::new(std::net::Ipv4Addr::new(10, second, third, 0), 18);
            if let Some(block) = block.filter(|block| !taken.iter().any(|other| other.overlaps(*block))) {
                return Ok(block);
            }
        }
    }
    bail!("every block of 10.192.0.0/10 has a route on this machine; name another one with --address-block")
}

/// A line of /proc/net/route: interface, destination and so on, numbers in the machine's order. Default routes lead
/// everywhere and overlap nothing.
fn route(line: &str) -> Option<Ipv4Block> {
    let mut fields = line.split_whitespace();
    let destination = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?;
    let bits = u8::try_from(mask.count_ones()).ok()?;
    let address = std::net::Ipv4Addr::from(destination.swap_bytes());
    // Routes to single hosts count as their neighbourhood.
    (bits > 0).then(|| Ipv4Block::new(address, bits.clamp(8, 28)))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_block_is_chosen_that_nothing_leads_to() {
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n";
        let default = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n";
        let lan = "eth0\t0000C00A\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        let free = |routes: &str| free_block(routes, &[]);
        assert_eq!(free(&format!("{header}{default}")).unwrap().to_string(), "10.192.0.0/18");
        assert_eq!(free(&format!("{header}{default}{lan}")).unwrap().to_string(), "10.193.0.0/18");
    }

    #[test]
    fn agents_of_two_installations_have_different_names() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names: std::collections::BTreeSet<String> = [&a, &b]
            .iter()
            .flat_map(|dir| LocalAgent::ALL.map(|local| local.name(dir.path()).unwrap()))
            .collect();
        assert_eq!(names.len(), 4);
        assert!(names.iter().all(|name| name.len() == 8));
    }
}
