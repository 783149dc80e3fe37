//! Carrying out the task engine's actions, each on a task of its own; what came of it is an event again.

use super::container::{self, Parts, container_id, pause_id, task_group, task_id};
use super::links::{Links, links};
use super::reach::{bindings, interface, requests};
use super::{Hands, Held, Input, Known, stop_signal, volumes};
use crate::config::AgentConfig;
use crate::endpoints::{self, Owner};
use crate::firelens;
use crate::images::{LocalImage, PullError, Reference};
use crate::logs::LogDriver;
use crate::network::{Bridged, NetworkError};
use crate::protocol::docker::LogConfig;
use crate::runtime::{ContainerId, NetworkNamespace, Runtime, RuntimeError, Step};
use crate::storage::{self, Ephemeral};
use gantry_api::{acs, ecs};
use gantry_decide::task::{NetworkMode, PortRange};
use gantry_decide::task_engine::{
    ContainerChange, Event, Failure, FailureKind, NetworkBinding, PullTimes, Submission, SubmitFailure,
    TaskArn,
};
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Among the keys of namespaces, of which none has such characters: the host's, for containers on an engine's bridge.
const ON_BRIDGE: &str = "(bridge)";

/// Between two attempts to fetch the options of a log driver.
const FETCH_AGAIN: Duration = Duration::from_secs(15);
/// How long an image may take to be ready without anybody being told.
const PULL_TOLD_AFTER: Duration = Duration::from_secs(2);

/// Makes a container's image ready.
pub async fn prepare_image<R: Runtime>(
    hands: Arc<Hands<R>>,
    task: TaskArn,
    container: String,
    known: Option<Arc<Known>>,
) {
    let started_at = super::now();
    let result = ready_image(&hands, &task, &container, known.as_deref()).await;
    let pull = Some(PullTimes { started_at, stopped_at: super::now() });
    let input = match result {
        Ok(image) => Input::Image { task, container, image: Box::new(image), pull },
        Err(failure) => Input::Event(Event::ImageFailed { task, container, failure, pull }),
    };
    hands.tell(input).await;
}

/// The image, once all that the task's containers are given is here: as on ECS, a task without its secrets pulls nothing.
async fn ready_image<R: Runtime>(
    hands: &Hands<R>,
    task: &TaskArn,
    container: &str,
    known: Option<&Known>,
) -> Result<LocalImage, Failure> {
    let image = known.and_then(|known| known.container(container)?.image.as_deref()).unwrap_or_default();
    let fetched = match known {
        Some(known) => hands.secrets.of(&hands.credentials, task, known.task()).await?,
        None => Arc::default(),
    };
    let auth = fetched.container(container).and_then(|given| given.registry.clone());
    let name: Reference = image.parse().map_err(|error| {
        let text = format!("invalid reference format: {image}: {error}");
        Failure::new(FailureKind::CannotPullContainerError, text)
    })?;
    let id = task_id(task);
    let ready = hands.images.ensure(&name, auth, &id);
    let ready = tokio::select! {
        ready = ready => ready,
        never = tell_of_pull(hands, (task, container), &name, super::now()) => match never {},
    };
    ready.map_err(|error| Failure::new(kind_of(&error), error.to_string()))
}

/// Tells the control plane of a pull that takes its time, so that who asks why a task does not run yet can see it. One that
/// does not is told of when the task runs.
async fn tell_of_pull<R: Runtime>(
    hands: &Hands<R>,
    (task, container): (&TaskArn, &str),
    image: &Reference,
    began: Timestamp,
) -> Infallible {
    sleep(PULL_TOLD_AFTER).await;
    let _awaiting = hands.awaited.begin(task, container, image);
    let request = ecs::SubmitTaskStateChangeRequest {
        cluster: Some(hands.config.cluster.clone()),
        task: Some(task.0.clone()),
        pull_started_at: Some(EpochMillis(began.as_millis())),
        ..Default::default()
    };
    if let Err(error) = hands.client.ecs::<ecs::SubmitTaskStateChange>(&request).await {
        // The next report says it too.
        tracing::debug!(task = %task, %error, "the beginning of a pull was not told");
    }
    std::future::pending().await
}

fn kind_of(_error: &PullError) -> FailureKind {
    FailureKind::CannotPullContainerError
}

/// Makes what the containers of a task share: its network in awsvpc mode (other modes have none of the task's own), and
/// the container that holds shared namespaces.
pub async fn set_up_network<R: Runtime>(hands: Arc<Hands<R>>, arn: TaskArn, known: Arc<Known>) {
    let mut result = match known.mode() {
        NetworkMode::Awsvpc if hands.config.runtime.is_docker() => join_pause(&hands, &arn, &known).await,
        NetworkMode::Awsvpc => match interface(known.task()) {
            Some((interface, _)) => {
                let (network, key) = (hands.network.clone(), task_id(&arn));
                match attach(&hands, move || network.attach_task(&key, &interface)).await {
                    Ok(listener) => serve(&hands, &task_id(&arn), listener, Owner::Task(arn.clone())),
                    Err(failure) => Err(failure),
                }
            }
            None => Err(Failure::new(
                FailureKind::ContainerNetworkingError,
                "the payload of an awsvpc task names no usable network interface",
            )),
        },
        NetworkMode::Bridge if hands.config.runtime.is_docker() => listen_on_bridge(&hands).await,
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => Ok(()),
    };
    if known.pause && result.is_ok() && !has_pause_of_network(&hands.config, &known) {
        result = start_pause(&hands, &arn, &known).await.map(drop);
    }
    if result.is_err() && known.mode() == NetworkMode::Awsvpc {
        // The first failure is the one to tell; leftovers are swept at the next start.
        let _ = detach(&hands, task_id(&arn)).await;
    }
    hands.tell(Input::Event(Event::NetworkSetUp { task: arn, result })).await;
}

/// Whether the pause container is there for the network already: an engine makes namespaces with containers only.
fn has_pause_of_network(config: &AgentConfig, known: &Known) -> bool {
    config.runtime.is_docker() && known.mode() == NetworkMode::Awsvpc
}

/// Whether a task has a pause container.
fn has_pause(config: &AgentConfig, known: &Known) -> bool {
    known.pause || has_pause_of_network(config, known)
}

/// Makes the network of a task in awsvpc mode in the namespace of its pause container.
async fn join_pause<R: Runtime>(hands: &Arc<Hands<R>>, arn: &TaskArn, known: &Known) -> Result<(), Failure> {
    let unusable = || {
        Failure::new(
            FailureKind::ContainerNetworkingError,
            "the payload of an awsvpc task names no usable network interface",
        )
    };
    let (interface, _) = interface(known.task()).ok_or_else(unusable)?;
    let pid = start_pause(hands, arn, known).await?;
    let (network, key) = (hands.network.clone(), task_id(arn));
    let attached = attach(hands, move || network.attach_process(&key, &interface, pid)).await;
    let done = match attached {
        Ok(listener) => serve(hands, &task_id(arn), listener, Owner::Task(arn.clone())),
        Err(failure) => Err(failure),
    };
    if done.is_err() {
        remove(&hands.runtime, &pause_id(arn)).await;
    }
    done
}

/// Answers the questions of who is in a namespace, until it is detached.
async fn listen<R: Runtime>(hands: &Arc<Hands<R>>, key: &str, owner: Owner) -> Result<(), Failure> {
    let (network, namespace) = (hands.network.clone(), key.to_owned());
    let listener = blocking(move || network.listen(&namespace)).await?;
    serve(hands, key, listener, owner)
}

fn serve<R: Runtime>(
    hands: &Arc<Hands<R>>,
    key: &str,
    listener: std::net::TcpListener,
    owner: Owner,
) -> Result<(), Failure> {
    let listener = TcpListener::from_std(listener)
        .map_err(|error| Failure::new(FailureKind::ContainerNetworkingError, error.to_string()))?;
    let serving = tokio::spawn(endpoints::serve(listener, Arc::downgrade(hands), owner));
    hands.listeners.lock().insert(key.to_owned(), Held(serving.abort_handle()));
    Ok(())
}

/// Answers the questions of containers on the engine's bridge, from the first of them on.
async fn listen_on_bridge<R: Runtime>(hands: &Arc<Hands<R>>) -> Result<(), Failure> {
    let _one_at_a_time = hands.bridge.lock().await;
    if hands.listeners.lock().contains_key(ON_BRIDGE) {
        return Ok(());
    }
    let network = hands.network.clone();
    let listener = blocking(move || network.listen_on_host()).await?;
    serve(hands, ON_BRIDGE, listener, Owner::Bridge(None))
}

/// Answers them again after a restart.
pub async fn listen_on_bridge_again<R: Runtime>(hands: Arc<Hands<R>>) {
    if let Err(failure) = listen_on_bridge(&hands).await {
        tracing::warn!(reason = failure.reason(), "tasks on Docker's bridge cannot ask their agent");
    }
}

/// Answers again in a namespace that an earlier run made.
pub async fn listen_again<R: Runtime>(hands: Arc<Hands<R>>, key: String, owner: Owner) {
    if let Err(failure) = listen(&hands, &key, owner).await {
        tracing::warn!(namespace = key, reason = failure.reason(), "a task cannot ask its agent");
    }
}

/// Makes a network when it is its turn.
async fn attach<R: Runtime, T: Send + 'static>(
    hands: &Hands<R>,
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, Failure> {
    // Never closed.
    let _turn = hands.attaching.acquire().await;
    blocking(work).await
}

/// Takes a namespace away, and who listens in it.
async fn detach<R: Runtime>(hands: &Hands<R>, key: String) -> Result<(), Failure> {
    hands.listeners.lock().remove(&key);
    let network = hands.network.clone();
    blocking(move || network.detach(&key)).await
}

/// Makes the control group that a task's containers are in; one that is there is limited anew.
async fn make_group<R: Runtime>(hands: &Hands<R>, arn: &TaskArn, known: &Known) -> Result<(), Failure> {
    let (group, limits) = (task_group(&hands.config, arn), container::task_limits(known.task()));
    hands.runtime.create_task_group(&group, limits).await.map_err(|error| failure_of(&error))
}

/// Starts the container that holds what the others share; its first process. One that runs already is taken as it is.
async fn start_pause<R: Runtime>(hands: &Hands<R>, arn: &TaskArn, known: &Known) -> Result<i32, Failure> {
    let runtime = &hands.runtime;
    make_group(hands, arn, known).await?;
    let config = container::pause(&hands.config, arn, known.task())?;
    let started = match runtime.run(config.clone()).await {
        Err(RuntimeError::Exists(id)) => match runtime.started(&id).await {
            Ok(Some(started)) => Ok(started),
            Ok(None) => {
                runtime.remove(&id).await.map_err(|error| failure_of(&error))?;
                runtime.run(config).await
            }
            Err(error) => Err(error),
        },
        other => other,
    };
    started.map(|started| started.pid).map_err(|error| failure_of(&error))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let failed = |text: String| Failure::new(FailureKind::ContainerNetworkingError, text);
    match done {
        Ok(result) => result.map_err(|error| failed(explain(&error))),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn explain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What it takes to start a container.
pub struct Launch {
    pub known: Arc<Known>,
    pub image: Arc<LocalImage>,
    /// Those of the task's containers that are ready.
    pub images: BTreeMap<String, Arc<LocalImage>>,
    /// By which it asks its agent.
    pub key: Option<String>,
    /// The networks of the task's containers that run, in bridge mode.
    pub others: BTreeMap<String, Bridged>,
}

/// Creates and starts a container.
pub async fn launch<R: Runtime>(hands: Arc<Hands<R>>, arn: TaskArn, name: String, start: Launch) {
    let input = match try_launch(&hands, &arn, &name, &start).await {
        Ok(launched) => launched,
        Err(failure) => not_run(arn, name, failure),
    };
    hands.tell(input).await;
}

fn not_run(task: TaskArn, container: String, failure: Failure) -> Input {
    tracing::warn!(task = %task, container, reason = failure.reason(), "a container could not be run");
    Input::Event(Event::ContainerFailed { task, container, failure })
}

/// Says where a container's output goes whose log driver has options that are fetched, once they are. What cannot be had
/// now may be had later: only after a start of the agent is anything fetched for a container that runs already.
pub async fn log_driver<R: Runtime>(
    hands: Arc<Hands<R>>,
    known: Arc<Known>,
    arn: TaskArn,
    name: String,
) -> LogDriver {
    let id = hands.runtime.runtime_id(&container_id(&arn, &name));
    loop {
        let fetched = hands.secrets.of(&hands.credentials, &arn, known.task()).await;
        let driver = fetched.and_then(|fetched| {
            container::log_driver(&hands.config, &known, &arn, (&name, &id), fetched.container(&name))
        });
        match driver {
            Ok(driver) => return driver,
            Err(failure) => {
                tracing::warn!(task = %arn, container = name, reason = failure.reason(), "where a log goes is not known yet");
                sleep(FETCH_AGAIN).await;
                hands.secrets.forget(&arn);
            }
        }
    }
}

/// Starts a container again that has ended, as its restart policy has it.
pub async fn restart<R: Runtime>(
    hands: Arc<Hands<R>>,
    task: TaskArn,
    container: String,
    bindings: Vec<NetworkBinding>,
) {
    let id = container_id(&task, &container);
    let input = match hands.runtime.restart(&id).await {
        Ok(started) => {
            tracing::info!(task = %task, container, pid = started.pid, "a container runs again");
            // On an engine's bridge its address is another; elsewhere it has none.
            let bridged = hands.runtime.bridged(&id).await.ok();
            Input::Launched { task, container, pid: started.pid, bridged, bindings }
        }
        Err(error) => not_run(task, container, failure_of(&error)),
    };
    hands.tell(input).await;
}

/// The images of a container and of those that it takes volumes from. Containers that an earlier run of this agent
/// started are not prepared again: their images are there.
async fn images_of_volumes<R: Runtime>(
    hands: &Hands<R>,
    known: &Known,
    container: &acs::Container,
    ready: &BTreeMap<String, Arc<LocalImage>>,
) -> BTreeMap<String, Arc<LocalImage>> {
    let mut images = ready.clone();
    for name in container.volumes_from.iter().flatten().filter_map(|from| from.source_container.as_ref()) {
        let image = known.container(name).and_then(|container| container.image.as_ref()?.parse().ok());
        if let (Some(reference), false) = (image, images.contains_key(name))
            && let Ok(Some(found)) = hands.images.cached(&reference).await
        {
            images.insert(name.clone(), Arc::new(found));
        }
    }
    images
}

/// Makes what has to be made of a container's volumes.
async fn provide<R: Runtime>(
    hands: &Hands<R>,
    arn: &TaskArn,
    mounts: &[volumes::Mount],
    images: &BTreeMap<String, Arc<LocalImage>>,
) -> Result<(), Failure> {
    if mounts.is_empty() {
        return Ok(());
    }
    let _one_at_a_time = hands.volumes.lock().await;
    let layers =
        |mount: &volumes::Mount| images.get(&mount.owner).map(|i| i.layers.clone()).unwrap_or_default();
    let mounts: Vec<_> = mounts.iter().map(|mount| (mount.clone(), layers(mount))).collect();
    let scratch = hands.config.data_dir.join(volumes::SCRATCH).join(task_id(arn));
    let provided = tokio::task::spawn_blocking(move || {
        mounts.iter().try_for_each(|(mount, layers)| volumes::provide(mount, layers, &scratch))
    });
    let panicked =
        |error: tokio::task::JoinError| Failure::new(FailureKind::InvalidVolumeError, error.to_string());
    provided.await.unwrap_or_else(|error| Err(panicked(error)))
}

/// Makes a task's ephemeral storage.
async fn provide_ephemeral<R: Runtime>(hands: &Hands<R>, ephemeral: Ephemeral) -> Result<(), Failure> {
    let failed = |text: String| {
        let text = format!("failed to set up the task's ephemeral storage: {text}");
        Failure::new(FailureKind::ResourceInitializationError, text)
    };
    let _one_at_a_time = hands.volumes.lock().await;
    let provided = tokio::task::spawn_blocking(move || ephemeral.provide()).await;
    provided.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.text()))
}

async fn try_launch<R: Runtime>(
    hands: &Arc<Hands<R>>,
    arn: &TaskArn,
    name: &str,
    start: &Launch,
) -> Result<Input, Failure> {
    let Launch { known, image, images, key, others } = start;
    let vanished =
        || Failure::new(FailureKind::CannotCreateContainerError, "the payload has no such container");
    let containers = known.task().containers.as_deref().unwrap_or_default();
    let payload = containers.iter().find(|c| c.name.as_deref() == Some(name)).ok_or_else(vanished)?;
    let docker = known.docker(name).ok_or_else(vanished)?;
    let id = container_id(arn, name);
    stop_signal::of(&image.config)
        .map_err(|error| Failure::new(FailureKind::CannotCreateContainerError, error.to_string()))?;
    let fetched = hands.secrets.of(&hands.credentials, arn, known.task()).await?;
    let given = fetched.container(name);
    let log = container::log_driver(&hands.config, known, arn, (name, id.as_str()), given)?;
    let docker_runs = hands.config.runtime.is_docker();
    let is_named =
        |log: &LogConfig| log.config.as_ref().is_some_and(|all| all.contains_key("awslogs-stream"));
    // An engine gives the id by which a stream without a name is called when it makes the container; then the stream is
    // made with the first lines.
    if let LogDriver::Awslogs(to) = &log
        && (!docker_runs || known.log(name).is_some_and(is_named))
    {
        hands.logs.prepare(to).await.map_err(|error| {
            let text = format!(
                "failed to initialize logging driver: failed to create Cloudwatch log stream: {error}"
            );
            Failure::new(FailureKind::CannotStartContainerError, text)
        })?;
    }
    // Docker links itself.
    let links = if docker_runs { Links::default() } else { links(known.task(), payload, others)? };
    let images = images_of_volumes(hands, known, payload, images).await;
    let declared =
        |name: &str| images.get(name).map(|image| image.config.volumes.clone()).unwrap_or_default();
    let of = volumes::Of { agent: &hands.config, arn, task: known.task(), of_image: &declared };
    let mounts = volumes::mounts(of, payload)?;
    let ephemeral = volumes::ephemeral(&hands.config, arn, known.task());
    let writable = ephemeral.as_ref().map(|ephemeral| ephemeral.container(id.as_str()));
    if let Some(ephemeral) = ephemeral {
        provide_ephemeral(hands, ephemeral).await?;
    }
    provide(hands, arn, &mounts, &images).await?;
    let router = firelens::provide(&hands.config, arn, known, payload)?;
    make_group(hands, arn, known).await?;
    let mut bridged = None;
    let (network, own) = match known.mode() {
        // As Docker has it, whatever the task's mode is.
        _ if docker.config.network_disabled == Some(true) => (NetworkNamespace::Isolated, None),
        NetworkMode::Awsvpc => {
            let path = hands.network.path(&task_id(arn));
            let own = interface(known.task()).map(|(i, host)| (i.address.to_string(), host));
            match docker_runs {
                true => (NetworkNamespace::Container(pause_id(arn)), own),
                false => (NetworkNamespace::Path(path), own),
            }
        }
        NetworkMode::Bridge if docker_runs => (NetworkNamespace::Bridge, None),
        NetworkMode::Bridge => {
            let (network, key) = (hands.network.clone(), id.to_string());
            let ports = requests(payload);
            let (path, attached) = attach(hands, move || network.attach_bridged(&key, &ports)).await?;
            let own = Some((attached.address.to_string(), String::new()));
            bridged = Some(attached);
            if let Err(failure) = listen(hands, id.as_str(), Owner::Task(arn.clone())).await {
                // The first failure is the one to tell; leftovers are swept at the next start.
                let _ = detach(hands, id.to_string()).await;
                return Err(failure);
            }
            (NetworkNamespace::Path(path), own)
        }
        NetworkMode::Host => (NetworkNamespace::Host, None),
        NetworkMode::None => (NetworkNamespace::Isolated, None),
    };
    let host_port = (known.mode() == NetworkMode::Host).then_some(hands.host_port);
    // Without a network there is no way to the agent.
    let key = key.as_deref().filter(|_| network != NetworkNamespace::Isolated);
    let control_plane = &hands.config.endpoint;
    let endpoints =
        key.map(|key| endpoints::environment(key, host_port, known.role_credentials(), control_plane));
    let mut endpoints = endpoints.unwrap_or_default();
    endpoints.extend(firelens::variables(known, name, others));
    endpoints.extend(firelens::secret_variables(known, payload, &fetched));
    let parts = Parts {
        config: &hands.config,
        arn,
        known,
        container: payload,
        docker,
        image,
        log: &log,
        network,
        interface: own,
        mounts: &mounts,
        router: &router,
        links: &links,
        endpoints: &endpoints,
        writable,
        fetched: given,
    };
    let run = async {
        let config = container::compile(&parts)?;
        let on_engine_s_bridge = config.network == NetworkNamespace::Bridge;
        let started = hands.runtime.run(config).await.map_err(|error| failure_of(&error))?;
        // One that has ended meanwhile has no address any more.
        let own = if on_engine_s_bridge { hands.runtime.bridged(&id).await.ok() } else { None };
        Ok((started, own))
    };
    match run.await {
        Ok((started, own)) => {
            tracing::info!(task = %arn, container = name, pid = started.pid, "a container runs");
            let bridged = bridged.or(own);
            let bindings = bindings(known.mode(), payload, bridged.as_ref());
            let (task, container, pid) = (arn.clone(), name.to_owned(), started.pid);
            Ok(Input::Launched { task, container, pid, bridged, bindings })
        }
        Err(failure) => {
            if bridged.is_some() {
                // The first failure is the one to tell; leftovers are swept at the next start.
                let _ = detach(hands, id.to_string()).await;
            }
            Err(failure)
        }
    }
}

fn failure_of(error: &RuntimeError) -> Failure {
    let kind = match error {
        RuntimeError::Failed { step: Step::Start, .. } => FailureKind::CannotStartContainerError,
        RuntimeError::Volume { .. } => FailureKind::CannotCreateVolumeError,
        RuntimeError::Failed { step: Step::Create, .. }
        | RuntimeError::Io { .. }
        | RuntimeError::Silent
        | RuntimeError::Unknown(_)
        | RuntimeError::NotRunning(_)
        | RuntimeError::Exists(_) => FailureKind::CannotCreateContainerError,
        RuntimeError::Timeout { .. } => FailureKind::DockerTimeoutError,
    };
    Failure::new(kind, explain(error))
}

/// Waits for a container's end.
pub async fn watch<R: Runtime>(hands: Arc<Hands<R>>, task: TaskArn, container: String) {
    let id = container_id(&task, &container);
    let exit = hands.runtime.wait(&id).await;
    hands.logs.ended(&task_id(&task), &container);
    match exit {
        Ok(exit) => {
            tracing::info!(task = %task, container, code = exit.code, "a container has ended");
            hands.tell(Input::Event(Event::ContainerExited { task, container, exit })).await;
        }
        Err(error) => {
            tracing::error!(task = %task, container, error = %explain(&error), "a container cannot be watched");
            let exit =
                gantry_decide::task_engine::Exit { code: None, out_of_memory: false, at: super::now() };
            hands.tell(Input::Event(Event::ContainerExited { task, container, exit })).await;
        }
    }
}

/// Removes what is left of a container.
pub async fn remove<R: Runtime>(runtime: &R, id: &ContainerId) {
    if let Err(error) = runtime.remove(id).await {
        tracing::warn!(container = %id, error = explain(&error), "a container's remains cannot be removed");
    }
}

/// Removes the rest of a task, once its containers are gone.
pub async fn forget<R: Runtime>(hands: Arc<Hands<R>>, task: TaskArn, removals: Vec<JoinHandle<()>>) {
    for removal in removals {
        // One that panicked has removed what it could.
        let _ = removal.await;
    }
    if let Err(error) = hands.runtime.remove_task_group(&task_group(&hands.config, &task)).await {
        tracing::warn!(task = %task, error = explain(&error), "a control group is left behind");
    }
    hands.credentials.forget(&task);
    hands.secrets.forget(&task);
    let id = task_id(&task);
    hands.images.release(&id);
    hands.logs.forget(&id).await;
    let directories = ["logs", volumes::TASK_VOLUMES, firelens::DIRECTORY]
        .map(|kind| hands.config.data_dir.join(kind).join(&id));
    let removing = tokio::task::spawn_blocking(move || {
        for directory in directories {
            // Most tasks have no volumes.
            let _ = std::fs::remove_dir_all(directory);
        }
    });
    let _ = removing.await;
}

/// Takes what a task's containers shared away.
pub async fn tear_down_network<R: Runtime>(
    hands: Arc<Hands<R>>,
    task: TaskArn,
    keys: Vec<String>,
    known: Option<Arc<Known>>,
) {
    if known.as_ref().is_some_and(|known| has_pause(&hands.config, known)) {
        remove(&hands.runtime, &pause_id(&task)).await;
    }
    for key in keys {
        if let Err(failure) = detach(&hands, key).await {
            tracing::warn!(task = %task, reason = failure.reason(), "a network is left behind until the next start");
        }
    }
    if let Some(id) = known.as_ref().and_then(|known| known.role_credentials()) {
        hands.credentials.ended(id);
    }
    hands.tell(Input::Event(Event::NetworkTornDown { task: task.clone() })).await;
    // No container of it runs any more, nor will.
    let (agent, id) = (hands.config.name.clone(), task_id(&task));
    let volumes = hands.config.data_dir.join(volumes::TASK_VOLUMES).join(&id);
    let released = tokio::task::spawn_blocking(move || {
        storage::release(&agent, &id);
        storage::delete_disks(&volumes);
    });
    // One that panicked has released what it could.
    let _ = released.await;
    if let Err(error) = hands.runtime.remove_task_group(&task_group(&hands.config, &task)).await {
        tracing::warn!(task = %task, error = explain(&error), "a control group is left until the task is forgotten");
    }
}

/// Tells the control plane of a task.
pub async fn submit<R: Runtime>(hands: Arc<Hands<R>>, submission: Submission) {
    let millis = |at: Timestamp| EpochMillis(at.as_millis());
    let request = ecs::SubmitTaskStateChangeRequest {
        cluster: Some(hands.config.cluster.clone()),
        task: Some(submission.task.0.clone()),
        status: Some(submission.status.as_str().to_owned()),
        reason: Some(submission.reason.clone()),
        pull_started_at: submission.pull_started_at.map(millis),
        pull_stopped_at: submission.pull_stopped_at.map(millis),
        execution_stopped_at: submission.execution_stopped_at.map(millis),
        containers: Some(submission.containers.iter().map(change).collect::<Vec<_>>())
            .filter(|c| !c.is_empty()),
        ..Default::default()
    };
    let result = hands.client.ecs::<ecs::SubmitTaskStateChange>(&request).await;
    let (task, id) = (submission.task, submission.id);
    let event = match result {
        Ok(_) => Event::Submitted { task, id },
        Err(error) => {
            tracing::warn!(task = %task, status = %submission.status, %error, "a report was not taken");
            let refused = error.code() == Some("InvalidParameterException");
            let failure = if refused { SubmitFailure::Refused } else { SubmitFailure::Later };
            Event::SubmitFailed { task, id, failure }
        }
    };
    hands.tell(Input::Event(event)).await;
}

fn change(change: &ContainerChange) -> ecs::ContainerStateChange {
    let binding = |binding: &NetworkBinding| {
        let (container, host, more) = (binding.container_port, binding.host_port, binding.more);
        let range = |first: u16| PortRange::of_several(first, more).map(|range| range.to_string());
        let one = |port: u16| (more == 0).then_some(port.into());
        ecs::NetworkBinding {
            bind_ip: Some(binding.bind_ip.clone()),
            container_port: one(container),
            container_port_range: range(container),
            host_port: one(host),
            host_port_range: range(host),
            protocol: binding.protocol.as_str().parse().ok(),
        }
    };
    ecs::ContainerStateChange {
        container_name: Some(change.name.clone()),
        status: Some(change.status.as_str().to_owned()),
        runtime_id: change.runtime_id.clone(),
        image_digest: change.image_digest.clone(),
        exit_code: change.exit_code,
        reason: change.reason.clone(),
        network_bindings: Some(change.bindings.iter().map(binding).collect::<Vec<_>>())
            .filter(|b| !b.is_empty()),
    }
}
