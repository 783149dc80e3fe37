//! An agent as a whole: registers, takes up what it left, keeps its connections, drives its tasks, and ends as it was
//! told to.

use crate::attributes;
use crate::channel::{self, Target};
use crate::client::{Client, ClientError};
use crate::config::{Access, AgentConfig, AtEnd, RuntimeKind};
use crate::docker::{DockerError, DockerRuntime, firewall};
use crate::driver::{Driver, Ending, Hands, Saver, Tools, networks_of, pulls, resolv};
use crate::endpoints;
use crate::images::{ImageStore, Images, StoreError};
use crate::instance_metadata::{self, Facts};
use crate::lease::Lease;
use crate::network::{ENDPOINT_PORT, LINKS, Network, NetworkConfig, NetworkError, bridge_name, overlay_name};
use crate::protocol::backoff::{Backoff, Growth};
use crate::runtime::native::{NativeRuntime, Places};
use crate::runtime::{Runtime, RuntimeError};
use crate::spot;
use crate::state::{AgentState, Change, Instance, StateError};
use crate::sweep;
use crate::telemetry;
use gantry_api::ecs;
use gantry_decide::ids::RequestId;
use gantry_decide::random::Random;
use gantry_decide::task_engine::{Capacity, EngineConfig, HostPort, TaskEngine};
use gantry_wire::sigv4::{Credentials, machine_key};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What the control plane is told of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Messages that may wait for the control plane.
pub(crate) const OUTGOING_MAX: usize = 256;
/// Messages of the control plane that may wait for the loop.
pub(crate) const INCOMING_MAX: usize = 256;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the control plane does not accept the registration")]
    Refused(#[source] ClientError),
    #[error(
        "the data directory belongs to the cluster '{known}', not to '{wanted}'; use another one, or remove it when its \
         tasks are gone"
    )]
    OtherCluster { known: String, wanted: String },
    #[error(
        "the tasks in the data directory run on another runtime; use that one, or remove them with `gantry sweep`"
    )]
    OtherRuntime,
    #[error("Docker")]
    Docker(#[from] DockerError),
    #[error("the agent's state")]
    State(#[from] StateError),
    #[error("the image store")]
    Images(#[from] StoreError),
    #[error("the network")]
    Network(#[from] NetworkError),
    #[error("the container runtime")]
    Runtime(#[from] RuntimeError),
    #[error("'{0}' cannot name an agent: 1 to 8 lower-case letters and digits")]
    Name(String),
    #[error("a thread cannot be started")]
    Thread(#[source] std::io::Error),
    #[error("tasks in the host's namespace have nowhere to ask")]
    Listen(#[source] std::io::Error),
    #[error("the lease of tasks")]
    Lease(#[source] std::io::Error),
    #[error("the working directory")]
    Directory(#[source] std::io::Error),
    #[error("mounts cannot be shown to containers")]
    Shared(#[source] std::io::Error),
    #[error("a container's directory cannot be read")]
    Sweep(#[source] std::io::Error),
}

/// The operating system's randomness.
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        use rand::Rng;
        rand::rng().fill_bytes(bytes);
    }
}

/// Runs an agent until `shutdown` resolves. `joined` is called once, when the control plane has told it its tasks.
///
/// # Errors
/// When it cannot start, or can no longer save what it does.
pub async fn run(
    mut config: AgentConfig,
    joined: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    check_name(&config.name)?;
    // Shims, which are told paths of both, work in another directory.
    for directory in [&mut config.data_dir, &mut config.image_dir] {
        *directory = std::path::absolute(&*directory).map_err(AgentError::Directory)?;
    }
    for directory in [crate::network::NAMESPACES, crate::storage::DIRECTORY] {
        crate::storage::share(directory.as_ref()).map_err(AgentError::Shared)?;
    }
    let store = ImageStore::open(&config.image_dir)?;
    match &config.runtime {
        RuntimeKind::Native => {
            let images = Images::new(store, &config.name, config.images.clone())?;
            let places = Places::of(&config.name, &config.data_dir);
            let runtime = NativeRuntime::open(places, &config.program)?;
            runtime.warm_up().await?;
            run_on(config, runtime, images, joined, shutdown).await
        }
        RuntimeKind::Docker { socket } => {
            let runtime = DockerRuntime::connect(socket, &config.name).await?;
            let docker = runtime.client().clone();
            let images = Images::of_docker(docker, store, &config.name, config.images.clone())?;
            run_on(config, runtime, images, joined, shutdown).await
        }
    }
}

/// Runs an agent whose containers this runtime makes.
async fn run_on<R: Runtime>(
    config: AgentConfig,
    runtime: R,
    images: Images,
    joined: impl FnOnce() + Send,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AgentError> {
    let mut state = AgentState::open(&config.data_dir.join("state"))?;
    let saved = state.tasks()?;
    let (mut bridged, tasks) = networks_of(&saved);
    crate::storage::release_others(&config.name, |task| tasks.contains_key(task));
    if config.runtime.is_docker() {
        // Those are Docker's.
        bridged.clear();
    }
    let network = NetworkConfig {
        name: config.name.clone(),
        bridge_block: config.address_block,
        mtu: config.mtu,
        host_address: config.host_address,
        state: config.data_dir.join("state"),
        resolvers: resolv::servers(&resolv::of_host()),
    };
    let network = tokio::task::spawn_blocking(move || Network::open(network, bridged, &tasks));
    let network = network.await.map_err(|error| AgentError::Thread(error.into()))??;
    let config = AgentConfig { host_address: network.host_address(), ..config };
    if config.runtime.is_docker() {
        firewall::admit(&[&bridge_name(&config.name), LINKS, &overlay_name(&config.name)]).await;
    }
    let client = Client::new(&config.endpoint, &config.region, key(&config.access, &state)?)?;

    let capabilities = runtime.capabilities();
    let mut instance = register(&config, &client, &mut state, &capabilities).await?;
    let client = match &instance.machine {
        Some(key) => client.with_credentials(key.into()),
        None => client,
    };
    let host_listener = listen_on_host(&mut instance).await?;
    state.save(&[Change::Instance(instance.clone())])?;
    tracing::info!(instance = instance.container_instance_arn, cluster = config.cluster, "registered");
    let (cannot_save, save_failed) = oneshot::channel();
    let saver = Saver::start(state, cannot_save).map_err(AgentError::Thread)?;
    let engine = TaskEngine::new(engine_config(&config));
    let (acs_out, acs_outgoing) = mpsc::channel(OUTGOING_MAX);
    let (acs_in, messages) = mpsc::channel(INCOMING_MAX);
    let host_port = instance.host_port.unwrap_or_default();
    let tools = Tools {
        config: config.clone(),
        runtime: runtime.clone(),
        network: network.clone(),
        images,
        client: client.clone(),
        host_port,
    };
    let (hands, inbox) = Hands::new(tools, &instance);
    let on_host = endpoints::serve(host_listener, Arc::downgrade(&hands), endpoints::Owner::Host);
    let on_host = tokio::spawn(on_host);
    let logs = hands.logs.clone();
    let pulls = tokio::spawn(pulls::tell(Arc::clone(&hands), acs_out.clone()));
    let mut driver = Driver::new(engine, (Arc::clone(&hands), inbox), saver, instance.clone(), acs_out);
    let has_tasks = !saved.is_empty();
    let lease = config.has_lease().then(|| Lease::open(&config.name, &config.program, has_tasks)).transpose();
    let lease = lease.map_err(AgentError::Lease)?;
    driver.recover(saved).await?;
    let images = hands.images.clone();
    let cleaning = tokio::spawn(images.clone().keep_clean());
    let fetching = tokio::spawn(images.clone().keep_fetching());

    let acs = channel::keep(
        "acs",
        client.clone(),
        lease.clone(),
        Box::new(OsRandom),
        {
            let (client, config, instance) = (client.clone(), config.clone(), instance.clone());
            let version = runtime.version();
            move |first| {
                let (client, config, instance) = (client.clone(), config.clone(), instance.clone());
                let version = version.clone();
                async move { acs_target(client, config, instance, &version, first).await }
            }
        },
        acs_in,
        acs_outgoing,
    );
    let acs = tokio::spawn(acs);
    let for_instance =
        config.instance_metadata.then(|| answer_for_instance(&config, &network, &instance)).flatten();
    let leaving = config.spot_notices.clone().map(|endpoint| {
        let instance = instance.container_instance_arn.clone();
        tokio::spawn(spot::watch(endpoint, client, config.cluster.clone(), instance))
    });
    let telemetry = tokio::spawn(telemetry::keep(hands, instance));
    let at_end = config.at_end;
    let mut failure = None;
    let ending = async {
        tokio::select! {
            () = shutdown => {}
            Ok(error) = save_failed => failure = Some(error),
        }
        match at_end {
            AtEnd::LeaveRunning => Ending::Leave,
            AtEnd::StopAll => Ending::StopAll,
        }
    };
    let mut joined = Some(joined);
    driver
        .run(messages, lease.as_ref(), ending, || {
            if let Some(joined) = joined.take() {
                joined();
            }
        })
        .await;
    if let Some(lease) = lease.as_ref().filter(|_| at_end == AtEnd::LeaveRunning) {
        lease.leave(|request| driver.say(request)).await;
    }
    drop(driver);
    acs.abort();
    telemetry.abort();
    leaving.inspect(|watching| watching.abort());
    for_instance.inspect(|answering| answering.abort());
    on_host.abort();
    cleaning.abort();
    fetching.abort();
    pulls.abort();
    if at_end == AtEnd::StopAll {
        logs.finish().await;
        sweep::clear(&config.name, &config.data_dir, &runtime).await?;
        images.store().forget_holds(&config.name)?;
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

pub(crate) fn check_name(name: &str) -> Result<(), AgentError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if (1..=8).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(AgentError::Name(name.chars().take(32).collect()))
    }
}

fn engine_config(config: &AgentConfig) -> EngineConfig {
    let (cpu, memory) = attributes::capacity(config);
    let capacity =
        Capacity { cpu: cpu.into(), memory: memory.into(), reserved_ports: BTreeSet::<HostPort>::new() };
    EngineConfig {
        stop_timeout: config.stop_timeout,
        cleanup_wait: config.cleanup_wait,
        ..EngineConfig::new(capacity)
    }
}

/// Listens for tasks in the host's namespace: where the last run did, or at ECS's port, or at any.
async fn listen_on_host(instance: &mut Instance) -> Result<TcpListener, AgentError> {
    let wanted = [instance.host_port, Some(ENDPOINT_PORT), Some(0)];
    let mut failure = None;
    for port in wanted.into_iter().flatten() {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => {
                instance.host_port = listener.local_addr().ok().map(|address| address.port());
                return Ok(listener);
            }
            Err(error) => failure = Some(error),
        }
    }
    Err(AgentError::Listen(failure.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into())))
}

/// What the agent signs with at first: the key of the machine that it has become, or what it is to begin with.
fn key(access: &Access, state: &AgentState) -> Result<Credentials, StateError> {
    let (id, code) = match access {
        Access::Key(key) => return Ok(key.clone()),
        Access::Activation { id, code } => (id, code),
    };
    let known = state.instance()?.and_then(|instance| instance.machine);
    Ok(known.map_or_else(
        || Credentials { access_key_id: id.clone(), secret_access_key: code.clone(), session_token: None },
        |key| Credentials::from(&key),
    ))
}

/// Registers, anew or under the name that an earlier run was given.
async fn register(
    config: &AgentConfig,
    client: &Client,
    state: &mut AgentState,
    capabilities: &[String],
) -> Result<Instance, AgentError> {
    let known = state.instance()?;
    if let Some(known) = known.as_ref().filter(|known| known.cluster != config.cluster) {
        return Err(AgentError::OtherCluster {
            known: known.cluster.clone(),
            wanted: config.cluster.clone(),
        });
    }
    let docker = match &config.runtime {
        RuntimeKind::Native => None,
        RuntimeKind::Docker { socket } => Some(socket.clone()),
    };
    let moved = known.as_ref().is_some_and(|known| known.docker.is_some() != docker.is_some());
    if moved && !state.tasks()?.is_empty() {
        return Err(AgentError::OtherRuntime);
    }
    let request = ecs::RegisterContainerInstanceRequest {
        cluster: Some(config.cluster.clone()),
        container_instance_arn: known.as_ref().map(|known| known.container_instance_arn.clone()),
        attributes: Some(attributes::attributes(config, capabilities, known.is_none())),
        total_resources: Some(attributes::resources(attributes::capacity(config))),
        platform_devices: attributes::gpus(config),
        instance_identity_document: Some(attributes::identity_document(config)),
        instance_identity_document_signature: Some(String::new()),
        // The same for all attempts: one whose answer was lost must not make a second instance.
        client_token: Some(RequestId::random(&mut OsRandom).to_string()),
        ..Default::default()
    };
    let mut backoff = Backoff::new(Growth::REGISTER);
    let answer = loop {
        match client.ecs::<ecs::RegisterContainerInstance>(&request).await {
            Ok(answer) => break answer,
            Err(error) if error.is_transient() => {
                let pause = backoff.pause(&mut OsRandom);
                tracing::warn!(%error, ?pause, "registration failed; trying again");
                tokio::time::sleep(pause).await;
            }
            Err(error) => return Err(AgentError::Refused(error)),
        }
    };
    let registered = answer.container_instance.unwrap_or_default();
    let mut instance = known.unwrap_or(Instance {
        cluster: config.cluster.clone(),
        container_instance_arn: registered.container_instance_arn.unwrap_or_default(),
        timeline: 0,
        availability_zone: None,
        ec2_instance_id: None,
        host_port: None,
        machine: None,
        docker: None,
    });
    if let (Access::Activation { id, code }, None) = (&config.access, &instance.machine) {
        let machine = registered.ec2_instance_id.clone().unwrap_or_default();
        instance.machine = Some(machine_key(id, code, &machine).into());
    }
    instance.docker = docker;
    instance.ec2_instance_id = registered.ec2_instance_id.or(instance.ec2_instance_id);
    let zone = |attribute: &ecs::Attribute| attribute.name == "ecs.availability-zone";
    let zone = registered.attributes.into_iter().flatten().find(zone).and_then(|attribute| attribute.value);
    instance.availability_zone = zone.or(instance.availability_zone);
    state.save(&[Change::Instance(instance.clone())])?;
    Ok(instance)
}

/// Answers the machine's programs for the instance's metadata. An agent that cannot runs tasks all the same.
fn answer_for_instance(
    config: &AgentConfig,
    network: &Network,
    instance: &Instance,
) -> Option<JoinHandle<()>> {
    let listener = network
        .listen_for_instance()
        .map_err(|error| explained(&error))
        .and_then(|listener| TcpListener::from_std(listener).map_err(|error| error.to_string()));
    match listener {
        Ok(listener) => {
            // An ARN names the account behind its fourth colon.
            let account = instance.container_instance_arn.split(':').nth(4).unwrap_or_default();
            let id = instance.ec2_instance_id.as_deref().unwrap_or_default();
            let facts = Facts::new(config, account, id, instance.availability_zone.as_deref());
            Some(tokio::spawn(instance_metadata::serve(listener, facts)))
        }
        Err(reason) => {
            tracing::warn!(%reason, "programs of this machine find no instance metadata");
            None
        }
    }
}

fn explained(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Where the control plane has its sessions.
pub(crate) async fn poll_endpoints(
    client: &Client,
    config: &AgentConfig,
    instance: &Instance,
) -> Result<ecs::DiscoverPollEndpointResponse, ClientError> {
    let request = ecs::DiscoverPollEndpointRequest {
        cluster: Some(config.cluster.clone()),
        container_instance: Some(instance.container_instance_arn.clone()),
    };
    client.ecs::<ecs::DiscoverPollEndpoint>(&request).await
}

async fn acs_target(
    client: Client,
    config: AgentConfig,
    instance: Instance,
    version: &str,
    first: bool,
) -> Result<Target, ClientError> {
    let found = poll_endpoints(&client, &config, &instance).await?;
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("agentHash", "gantry")
        .append_pair("agentVersion", VERSION)
        .append_pair("clusterArn", &config.cluster)
        .append_pair("containerInstanceArn", &instance.container_instance_arn)
        .append_pair("dockerVersion", version)
        .append_pair("protocolVersion", "2")
        .append_pair("seqNum", "1")
        .append_pair("sendCredentials", if first { "true" } else { "false" })
        .finish();
    Ok(Target {
        base: found.endpoint.unwrap_or_default(),
        query: plain(&query),
        growth: Growth::of_acs(config.has_lease()),
    })
}

/// A form's plus signs as what signatures are made over.
pub(crate) fn plain(query: &str) -> String {
    query.replace('+', "%20")
}
