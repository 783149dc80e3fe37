//! The runtime: what the agent wants done to containers, as calls of Docker.

use super::api::{
    Container, ContainerState, Created, Info, Listed, Volume, VolumeCreate, Volumes, Waited, timestamp,
};
use super::cgroups::Driver;
use super::client::{CREATE_MAX, Client, DockerError, LOOK_MAX, REMOVE_MAX, START_MAX, quoted};
use super::create::{AGENT_LABEL, CONTAINER_LABEL, GROUP_LABEL, LOG_LABEL, create};
use super::logs::{Following, drained};
use super::{exec, pause};
use crate::attributes::of_runtime;
use crate::network::{Bridged, Published, free_port};
use crate::runtime::cgroup::{Stats, TaskLimits};
use crate::runtime::exec::{Exec, ExecRequest};
use crate::runtime::{
    ContainerConfig, ContainerId, EngineParts, EngineVolume, LogFile, Namespace, NetworkNamespace, Runtime,
    RuntimeError, Started, State, Step,
};
use futures_util::future::{FutureExt, ready};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use gantry_decide::task::TransportProtocol;
use gantry_decide::task_engine::Exit;
use http::Method;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Tries to start a container whose dynamic port somebody else took between two moments.
const PORT_TRIES: u32 = 5;
/// How long to wait before a daemon that is away is asked again.
const AWAY: Duration = Duration::from_millis(500);
/// For a daemon that works to say so.
const PING_MAX: Duration = Duration::from_secs(5);
/// Containers of an earlier run that are looked at at once.
const LOOKS: usize = 16;
/// Until a container that somebody removes is gone.
const REMOVAL_LOOK: Duration = Duration::from_millis(50);
const REMOVAL_LOOKS: u32 = 600;

/// See the module.
#[derive(Clone)]
pub struct DockerRuntime(Arc<Inner>);

struct Inner {
    client: Client,
    info: Info,
    driver: Driver,
    /// Of the agent, whose containers and volumes carry it.
    name: String,
    known: Mutex<BTreeMap<ContainerId, Known>>,
    /// One makes the pause image.
    pause: tokio::sync::OnceCell<()>,
    /// The storage driver has said that it cannot bound what a container writes.
    unbounded: AtomicBool,
}

/// A container that is there.
struct Known {
    docker_id: Arc<str>,
    group: Arc<str>,
    log: Option<LogFile>,
    following: Option<Following>,
}

/// An error of Docker's as a runtime's.
pub(super) fn error_of(step: Step, error: DockerError) -> RuntimeError {
    match error {
        DockerError::Timeout { after, .. } => RuntimeError::Timeout { seconds: after.as_secs() },
        other => RuntimeError::Failed { step, text: other.to_string() },
    }
}

fn creating(error: DockerError) -> RuntimeError {
    error_of(Step::Create, error)
}

impl DockerRuntime {
    /// The runtime of an agent of this name.
    ///
    /// # Errors
    /// When no engine answers, it is too old, or its control groups are out of reach.
    pub async fn connect(socket: &Path, name: &str) -> Result<DockerRuntime, DockerError> {
        let client = Client::connect(socket).await?;
        let info: Info = client.get("info", LOOK_MAX).await?;
        let driver = Driver::of(&info.cgroup_driver);
        driver.check()?;
        let (name, known, pause) = (name.to_owned(), Mutex::default(), tokio::sync::OnceCell::new());
        let unbounded = AtomicBool::new(false);
        Ok(DockerRuntime(Arc::new(Inner { client, info, driver, name, known, pause, unbounded })))
    }

    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// Containers and volumes that are there of the agent.
    ///
    /// # Errors
    /// When Docker cannot say.
    pub async fn leftovers(&self) -> Result<Vec<String>, DockerError> {
        let client = &self.0.client;
        let filters = filters(&[(AGENT_LABEL, &self.0.name)]);
        let containers: Vec<Listed> =
            client.get(&format!("containers/json?all=1&filters={filters}"), LOOK_MAX).await?;
        let volumes: Volumes = client.get(&format!("volumes?filters={filters}"), LOOK_MAX).await?;
        let containers = containers.into_iter().map(|one| format!("Docker container {}", one.id));
        let volumes = volumes.volumes.into_iter().flatten().map(|one| format!("Docker volume {}", one.name));
        Ok(containers.chain(volumes).collect())
    }

    fn docker_id(&self, id: &ContainerId) -> Result<Arc<str>, RuntimeError> {
        let known = self.0.known.lock();
        known
            .get(id)
            .map(|known| Arc::clone(&known.docker_id))
            .ok_or_else(|| RuntimeError::Unknown(id.clone()))
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Container, RuntimeError> {
        let path = format!("containers/{}/json", self.docker_id(id)?);
        match self.0.client.get(&path, LOOK_MAX).await {
            Err(error) if error.is_absent() => Err(RuntimeError::Unknown(id.clone())),
            other => other.map_err(creating),
        }
    }

    /// Docker's ids of the containers that one refers to.
    fn neighbours(
        &self,
        config: &ContainerConfig,
        parts: &EngineParts,
    ) -> Result<BTreeMap<ContainerId, Arc<str>>, RuntimeError> {
        let spaces = [&config.pid, &config.ipc].into_iter().filter_map(|space| match space {
            Namespace::Container(id) => Some(id),
            Namespace::Private | Namespace::Host => None,
        });
        let network = match &config.network {
            NetworkNamespace::Container(id) => Some(id),
            _ => None,
        };
        let links = parts.links.iter().map(|(id, _)| id);
        spaces.chain(network).chain(links).map(|id| Ok((id.clone(), self.docker_id(id)?))).collect()
    }

    /// Makes a container, once, with the ports that are free now.
    async fn make(&self, config: &ContainerConfig, parts: &EngineParts) -> Result<Arc<str>, RuntimeError> {
        let inner = &self.0;
        let neighbours = self.neighbours(config, parts)?;
        let mut parts = parts.clone();
        for port in parts.ports.iter_mut().filter(|port| port.host_port == 0) {
            // Chosen here, as the stock agent does, so that it stays the same when the container starts again.
            let free = free_port(port.protocol, port.more);
            port.host_port = free.ok_or_else(|| RuntimeError::Failed {
                step: Step::Create,
                text: "no dynamic port is left".to_owned(),
            })?;
        }
        parts.labels.insert(GROUP_LABEL.to_owned(), config.cgroup_parent.clone());
        let neighbour = |id: &ContainerId| neighbours.get(id).map(|id| id.to_string()).unwrap_or_default();
        let parent = inner.driver.parent(&config.cgroup_parent);
        if inner.unbounded.load(Ordering::Relaxed) {
            parts.layer_bytes = None;
        }
        let mut document = create(&inner.name, config, &parts, parent, &neighbour);
        let path = format!("containers/create?name={}", quoted(&parts.name));
        let mut made = inner.client.post(&path, &document, CREATE_MAX).await;
        if !document.host_config.storage_opt.is_empty() && made.as_ref().is_err_and(cannot_bound) {
            self.note_unbounded();
            document.host_config.storage_opt.clear();
            made = inner.client.post(&path, &document, CREATE_MAX).await;
        }
        let made: Created = match made {
            Err(error) if error.is_conflict() => return Err(RuntimeError::Exists(config.id.clone())),
            other => other.map_err(creating)?,
        };
        for warning in made.warnings.iter().flatten() {
            tracing::warn!(container = parts.name, warning, "Docker makes a container, but");
        }
        let docker_id: Arc<str> = Arc::from(made.id);
        let known = Known {
            docker_id: Arc::clone(&docker_id),
            group: Arc::from(config.cgroup_parent.as_str()),
            log: Some(config.log.clone()).filter(|log| log.max_files > 0 && !config.args.is_empty()),
            following: None,
        };
        inner.known.lock().insert(config.id.clone(), known);
        Ok(docker_id)
    }

    /// What this daemon's containers write cannot be bounded, as most hosts' Docker cannot: the operator hears of it
    /// once, and tasks run all the same.
    fn note_unbounded(&self) {
        if !self.0.unbounded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                driver = self.0.info.driver,
                "Docker's storage driver bounds no container's own layer: of a task's ephemeral storage only its empty \
                 volumes have the size that it asks for"
            );
        }
    }

    /// Starts a container that was made, or has ended.
    async fn begin(&self, id: &ContainerId) -> Result<Started, RuntimeError> {
        let docker_id = self.docker_id(id)?;
        let path = format!("containers/{docker_id}/start");
        let started = self.0.client.order(Method::POST, &path, START_MAX).await;
        started.map_err(|error| error_of(Step::Start, error))?;
        let container = self.inspect(id).await?;
        self.follow(id);
        // One that has ended again was started all the same.
        Ok(container.state.start())
    }

    /// Takes a container's output over, unless that is being done.
    fn follow(&self, id: &ContainerId) {
        let mut known = self.0.known.lock();
        let Some(known) = known.get_mut(id) else { return };
        let live = known.following.as_ref().is_some_and(Following::is_live);
        if let (Some(log), false) = (&known.log, live) {
            let (client, docker_id) = (self.0.client.clone(), known.docker_id.to_string());
            known.following = Some(Following::start(client, docker_id, log.clone()));
        }
    }

    /// Waits until the output of a container that has ended is all there.
    async fn drain(&self, id: &ContainerId) {
        let done = self.0.known.lock().get(id).and_then(|known| Some(known.following.as_ref()?.done()));
        if let Some(done) = done {
            drained(done).await;
        }
    }

    async fn provide(&self, volume: &EngineVolume) -> Result<(), RuntimeError> {
        let client = &self.0.client;
        let failed = |text: String| RuntimeError::Volume { name: volume.name.clone(), text };
        let path = format!("volumes/{}", quoted(&volume.name));
        match client.get::<Volume>(&path, LOOK_MAX).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_absent() && volume.make => {}
            Err(error) if error.is_absent() => {
                return Err(failed("no such volume, and autoprovision is off".to_owned()));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
        let EngineVolume { name, driver, options, labels, .. } = volume;
        let driver = driver.as_deref().unwrap_or("local");
        let document = VolumeCreate { name, driver, driver_opts: options, labels };
        let made = client.post::<Volume>("volumes/create", &document, CREATE_MAX).await;
        made.map(drop).map_err(|error| failed(error.to_string()))
    }

    /// Removes the volumes of a task that no container uses.
    async fn remove_volumes(&self, group: &str) -> Result<(), DockerError> {
        let client = &self.0.client;
        let path = format!("volumes?filters={}", filters(&[(GROUP_LABEL, group)]));
        let found: Volumes = client.get(&path, LOOK_MAX).await?;
        for volume in found.volumes.into_iter().flatten() {
            let path = format!("volumes/{}", quoted(&volume.name));
            match client.order(Method::DELETE, &path, REMOVE_MAX).await {
                // Containers that have ended keep theirs.
                Err(error) if error.is_conflict() || error.is_absent() => {}
                other => other?,
            }
        }
        Ok(())
    }

    async fn state(self, found: Listed) -> Result<Option<(ContainerId, State)>, RuntimeError> {
        let label = |name: &str| found.labels.get(name).cloned().unwrap_or_default();
        let Ok(id) = ContainerId::try_from(label(CONTAINER_LABEL)) else { return Ok(None) };
        let known = Known {
            docker_id: Arc::from(found.id.as_str()),
            group: Arc::from(label(GROUP_LABEL)),
            log: log_file(&label(LOG_LABEL)),
            following: None,
        };
        self.0.known.lock().entry(id.clone()).or_insert(known);
        let container = match self.inspect(&id).await {
            Err(RuntimeError::Unknown(_)) => {
                self.0.known.lock().remove(&id);
                return Ok(None);
            }
            other => other?,
        };
        match container.state.status.as_str() {
            // Never came to run, or is on its way out.
            "created" | "removing" => {
                self.remove(&id).await?;
                Ok(None)
            }
            _ if container.state.running => {
                self.follow(&id);
                Ok(Some((id, State::Running(container.state.start()))))
            }
            _ => {
                self.follow(&id);
                self.drain(&id).await;
                Ok(Some((id, State::Exited(exit(&container)))))
            }
        }
    }
}

/// Whether a container was refused because the storage driver knows no sizes, or has not been prepared for them.
/// Drivers word it in their own ways: overlay2 and others name the option, those with quotas miss these.
fn cannot_bound(error: &DockerError) -> bool {
    let DockerError::Refused { message, .. } = error else { return false };
    let message = message.to_ascii_lowercase();
    let is_full = message.contains("exceeded");
    !is_full && ["storage-opt", "storage opt", "quota"].iter().any(|word| message.contains(word))
}

/// A filter of lists by labels, as a part of a query.
fn filters(labels: &[(&str, &str)]) -> String {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    quoted(&serde_json::json!({ "label": labels }).to_string())
}

/// Where a container's output is kept, as its label says.
fn log_file(label: &str) -> Option<LogFile> {
    let mut words = label.splitn(3, ' ');
    let (max_bytes, max_files) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let path = words.next().filter(|path| path.starts_with('/'))?.into();
    (max_files > 0).then_some(LogFile { path, max_bytes, max_files })
}

impl ContainerState {
    fn start(&self) -> Started {
        let at = timestamp(&self.started_at).unwrap_or_else(crate::driver::now);
        Started { pid: self.pid, at }
    }
}

impl Container {
    fn started(&self) -> Option<Started> {
        self.state.running.then(|| self.state.start())
    }
}

fn exit(container: &Container) -> Exit {
    let state = &container.state;
    let at = timestamp(&state.finished_at).unwrap_or_else(crate::driver::now);
    Exit { code: Some(state.exit_code), out_of_memory: state.oom_killed, at }
}

/// Whether a start failed because a port of the host was taken.
fn is_port_taken(error: &RuntimeError) -> bool {
    let text = error.to_string();
    ["port is already allocated", "address already in use"].iter().any(|words| text.contains(words))
}

impl Runtime for DockerRuntime {
    async fn run(&self, config: ContainerConfig) -> Result<Started, RuntimeError> {
        let no_parts = || RuntimeError::Failed {
            step: Step::Create,
            text: "the container was configured for another runtime".to_owned(),
        };
        let parts = config.engine.as_deref().ok_or_else(no_parts)?;
        if parts.image == pause::IMAGE {
            let client = &self.0.client;
            self.0.pause.get_or_try_init(|| pause::ensure(client)).await.map_err(creating)?;
        }
        for volume in &parts.volumes {
            self.provide(volume).await?;
        }
        let has_dynamic = parts.ports.iter().any(|port| port.host_port == 0);
        let mut tries = if has_dynamic { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            self.make(&config, parts).await?;
            match self.begin(&config.id).await {
                Ok(started) => return Ok(started),
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = self.remove(&config.id).await;
                    if tries == 0 || !is_port_taken(&error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn restart(&self, id: &ContainerId) -> Result<Started, RuntimeError> {
        self.begin(id).await
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RuntimeError> {
        let docker_id = match self.docker_id(id) {
            Ok(docker_id) => docker_id,
            Err(_) => return Ok(()),
        };
        let path = format!("containers/{docker_id}/kill?signal={signal}");
        match self.0.client.order(Method::POST, &path, LOOK_MAX).await {
            Err(error) if error.is_absent() || error.is_conflict() => Ok(()),
            other => other.map_err(|error| error_of(Step::Start, error)),
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let docker_id = self.docker_id(id)?;
        let path = format!("containers/{docker_id}/wait?condition=not-running");
        // It lasts as long as the container; the daemon's end breaks the connection.
        const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        loop {
            match self.0.client.post::<Waited>(&path, &(), NEVER).await {
                Err(error) if error.is_absent() => return Err(RuntimeError::Unknown(id.clone())),
                // What it is, the container itself tells when the daemon is back. Until then its state is kept.
                Err(error) if !error.is_transient() => return Err(creating(error)),
                Err(_) => sleep(AWAY).await,
                Ok(_) => {}
            }
            match self.inspect(id).await {
                Ok(container) if !container.state.running => {
                    self.drain(id).await;
                    return Ok(exit(&container));
                }
                Err(RuntimeError::Unknown(_)) => return Err(RuntimeError::Unknown(id.clone())),
                // It runs again, or the daemon is away.
                Ok(_) | Err(_) => {}
            }
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(docker_id) = self.docker_id(id) else { return Ok(()) };
        let path = format!("containers/{docker_id}?force=1&v=1");
        for _ in 0..REMOVAL_LOOKS {
            match self.0.client.order(Method::DELETE, &path, REMOVE_MAX).await {
                // Somebody else removes it.
                Err(error) if error.is_conflict() => sleep(REMOVAL_LOOK).await,
                Err(error) if !error.is_absent() => return Err(creating(error)),
                _ => break,
            }
        }
        self.0.known.lock().remove(id);
        Ok(())
    }

    async fn exec(&self, id: &ContainerId, request: ExecRequest) -> Result<Exec, RuntimeError> {
        if !self.inspect(id).await?.state.running {
            return Err(RuntimeError::NotRunning(id.clone()));
        }
        exec::start(&self.0.client, &self.docker_id(id)?, request).await
    }

    async fn started(&self, id: &ContainerId) -> Result<Option<Started>, RuntimeError> {
        match self.inspect(id).await {
            Ok(container) => Ok(container.started()),
            Err(RuntimeError::Unknown(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let (docker_id, group) = {
            let known = self.0.known.lock();
            let known = known.get(id).ok_or_else(|| RuntimeError::Unknown(id.clone()))?;
            (Arc::clone(&known.docker_id), Arc::clone(&known.group))
        };
        let stats = self.0.driver.stats(&group, &docker_id);
        let stats = stats.map_err(RuntimeError::io("looking for control groups"))?;
        stats.ok_or_else(|| RuntimeError::NotRunning(id.clone()))
    }

    async fn create_task_group(&self, group: &str, limits: TaskLimits) -> Result<(), RuntimeError> {
        let limited = self.0.driver.limit(group, limits).await;
        limited.map_err(RuntimeError::io("limiting the task's control group"))
    }

    async fn remove_task_group(&self, group: &str) -> Result<(), RuntimeError> {
        self.remove_volumes(group).await.map_err(creating)?;
        self.0.driver.remove(group).await;
        Ok(())
    }

    fn runtime_id(&self, id: &ContainerId) -> String {
        self.docker_id(id).map_or_else(|_| id.to_string(), |docker_id| docker_id.to_string())
    }

    async fn bridged(&self, id: &ContainerId) -> Result<Bridged, RuntimeError> {
        let settings = self.inspect(id).await?.network_settings;
        let networks = settings.networks.unwrap_or_default();
        let address = networks.get("bridge").and_then(|endpoint| endpoint.ip_address.parse().ok());
        let address = address.ok_or_else(|| RuntimeError::NotRunning(id.clone()))?;
        let mut ports = Vec::new();
        for (port, bindings) in settings.ports.unwrap_or_default() {
            let Some((container_port, protocol)) = port.split_once('/') else { continue };
            let (Ok(container_port), Ok(protocol)) = (container_port.parse(), protocol.parse()) else {
                continue;
            };
            let protocol: TransportProtocol = protocol;
            // Those of IPv6 repeat those of IPv4.
            for binding in bindings.into_iter().flatten().filter(|binding| !binding.host_ip.contains(':')) {
                if let Ok(host_port) = binding.host_port.parse() {
                    ports.push(Published { protocol, host_port, address, container_port });
                }
            }
        }
        Ok(Bridged { address, ports })
    }

    async fn is_well(&self) -> bool {
        self.0.client.order(Method::GET, "_ping", PING_MAX).await.is_ok()
    }

    fn capabilities(&self) -> Vec<String> {
        let Info { plugins, security_options, .. } = &self.0.info;
        let mut all = of_runtime(self.0.client.minor(), &plugins.log, &plugins.volume);
        for name in ["apparmor", "selinux"] {
            if security_options.iter().any(|option| option.contains(&format!("name={name}"))) {
                all.push(format!("com.amazonaws.ecs.capability.{name}"));
            }
        }
        all
    }

    fn version(&self) -> String {
        self.0.client.engine.to_string()
    }

    async fn list(&self) -> Result<Vec<(ContainerId, State)>, RuntimeError> {
        let path = format!("containers/json?all=1&filters={}", filters(&[(AGENT_LABEL, &self.0.name)]));
        let listed: Vec<Listed> = self.0.client.get(&path, LOOK_MAX).await.map_err(creating)?;
        let looks: Vec<_> = listed.into_iter().map(|one| self.clone().state(one).boxed()).collect();
        let looks = stream::iter(looks).buffer_unordered(LOOKS);
        let mut found: Vec<_> = looks.filter_map(|state| ready(state.transpose())).try_collect().await?;
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::client::fake::{answer, engine, version};
    use super::*;

    const CREATED: &str = r#"{"Id":"c0","Warnings":null}"#;

    fn info(driver: &str) -> String {
        answer("200 OK", &format!(r#"{{"CgroupDriver":"cgroupfs","Driver":"{driver}"}}"#))
    }

    fn sized(id: &str) -> (ContainerConfig, EngineParts) {
        let config = ContainerConfig {
            id: ContainerId::try_from(id.to_owned()).unwrap(),
            ..crate::runtime::spec::tests::config()
        };
        let parts = EngineParts { layer_bytes: Some(21 << 30), ..EngineParts::default() };
        (config, parts)
    }

    #[tokio::test]
    async fn who_cannot_bound_layers_is_asked_once_and_makes_containers_all_the_same() {
        let refusal = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option";
        let refusal = answer("500 Internal Server Error", &format!(r#"{{"message":"{refusal}"}}"#));
        let made = || answer("201 Created", CREATED);
        let answers = vec![version("1.41"), info("overlay2"), refusal, made(), made()];
        let (_directory, socket, mut asked) = engine(answers);
        let runtime = DockerRuntime::connect(&socket, "agent").await.unwrap();
        for id in ["one", "other"] {
            let (config, parts) = sized(id);
            assert_eq!(&*runtime.make(&config, &parts).await.unwrap(), "c0");
        }
        let mut sizes = Vec::new();
        while let Ok(request) = asked.try_recv() {
            if request.contains("containers/create") {
                sizes.push(request.contains(r#""StorageOpt":{"size":"22548578304"}"#));
            }
        }
        assert_eq!(sizes, [true, false, false]);
    }

    #[tokio::test]
    async fn other_refusals_are_the_container_s_own() {
        let refusal = answer("500 Internal Server Error", r#"{"message":"write /x: disk quota exceeded"}"#);
        let (_directory, socket, _) = engine(vec![version("1.41"), info("btrfs"), refusal]);
        let runtime = DockerRuntime::connect(&socket, "agent").await.unwrap();
        let (config, parts) = sized("one");
        let error = runtime.make(&config, &parts).await.unwrap_err();
        assert!(error.to_string().contains("disk quota exceeded"), "{error}");
    }
}
