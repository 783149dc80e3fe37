//! Carrying out the task engine's actions, each on a task of its own; what came of it is an event again.

use super::container::{self, Parts, container_id, task_id};
use super::{Hands, Input, Known};
use crate::images::{LocalImage, PullError};
use crate::network::{Bridged, NetworkError, PortRequest, TaskInterface};
use crate::runtime::{NetworkNamespace, Runtime, RuntimeError, Step};
use gantry_api::{acs, ecs};
use gantry_decide::task::{NetworkMode, TransportProtocol};
use gantry_decide::task_engine::{
    ContainerChange, Event, Failure, FailureKind, NetworkBinding, PullTimes, Submission, SubmitFailure,
    TaskArn,
};
use gantry_decide::time::Timestamp;
use gantry_wire::EpochMillis;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Makes a container's image ready.
pub async fn prepare_image<R: Runtime>(
    hands: Arc<Hands<R>>,
    task: TaskArn,
    container: String,
    image: String,
) {
    let started_at = super::now();
    let result = match image.parse() {
        Ok(name) => hands
            .images
            .ensure(&name, hands.config.pull_behavior, None, None)
            .await
            .map_err(|error| Failure::new(kind_of(&error), error.to_string())),
        Err(error) => Err(Failure::new(
            FailureKind::CannotPullContainerError,
            format!("invalid reference format: {image}: {error}"),
        )),
    };
    let pull = Some(PullTimes { started_at, stopped_at: super::now() });
    let input = match result {
        Ok(image) => Input::Image { task, container, image: Box::new(image), pull },
        Err(failure) => Input::Event(Event::ImageFailed { task, container, failure, pull }),
    };
    hands.tell(input).await;
}

fn kind_of(_error: &PullError) -> FailureKind {
    FailureKind::CannotPullContainerError
}

/// Makes the network of a task in awsvpc mode; other modes have none of the task's own.
pub async fn set_up_network<R: Runtime>(hands: Arc<Hands<R>>, arn: TaskArn, known: Arc<Known>) {
    let result = match known.mode {
        NetworkMode::Awsvpc => match interface(&known.task) {
            Some((interface, _)) => {
                let (network, key) = (hands.network.clone(), task_id(&arn));
                blocking(move || network.attach_task(&key, interface).map(drop)).await
            }
            None => Err(Failure::new(
                FailureKind::ContainerNetworkingError,
                "the payload of an awsvpc task names no usable network interface",
            )),
        },
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => Ok(()),
    };
    hands.tell(Input::Event(Event::NetworkSetUp { task: arn, result })).await;
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

/// The interface that the control plane chose, with the task's host name.
fn interface(task: &acs::Task) -> Option<(TaskInterface, String)> {
    let eni = task.elastic_network_interfaces.as_ref()?.first()?;
    let addresses = eni.ipv4_addresses.as_deref().unwrap_or_default();
    let primary = addresses.iter().find(|a| a.primary == Some(true)).or(addresses.first())?;
    let (gateway, prefix) = eni.subnet_gateway_ipv4_address.as_deref()?.split_once('/')?;
    let mut mac = [0; 6];
    let text = eni.mac_address.as_deref()?;
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    let interface = TaskInterface {
        address: primary.private_address.as_deref()?.parse::<Ipv4Addr>().ok()?,
        prefix_length: prefix.parse().ok().filter(|bits| (8..=30).contains(bits))?,
        gateway: gateway.parse().ok()?,
        mac,
    };
    Some((interface, eni.private_dns_name.clone().unwrap_or_default()))
}

/// Creates and starts a container.
pub async fn launch<R: Runtime>(
    hands: Arc<Hands<R>>,
    arn: TaskArn,
    name: String,
    known: Arc<Known>,
    image: Arc<LocalImage>,
) {
    let input = match try_launch(&hands, &arn, &name, &known, &image).await {
        Ok(launched) => launched,
        Err(failure) => {
            tracing::warn!(task = %arn, container = name, reason = failure.reason(), "a container could not be run");
            Input::Event(Event::ContainerFailed { task: arn, container: name, failure })
        }
    };
    hands.tell(input).await;
}

async fn try_launch<R: Runtime>(
    hands: &Arc<Hands<R>>,
    arn: &TaskArn,
    name: &str,
    known: &Known,
    image: &LocalImage,
) -> Result<Input, Failure> {
    let vanished =
        || Failure::new(FailureKind::CannotCreateContainerError, "the payload has no such container");
    let containers = known.task.containers.as_deref().unwrap_or_default();
    let payload = containers.iter().find(|c| c.name.as_deref() == Some(name)).ok_or_else(vanished)?;
    let docker = known.docker.get(name).ok_or_else(vanished)?;
    let id = container_id(arn, name);
    let mut bridged = None;
    let (network, own) = match known.mode {
        NetworkMode::Awsvpc => {
            let path = hands.network.path(&task_id(arn));
            let own = interface(&known.task).map(|(i, host)| (i.address.to_string(), host));
            (NetworkNamespace::Path(path), own)
        }
        NetworkMode::Bridge => {
            let (network, key) = (hands.network.clone(), id.to_string());
            let ports = requests(payload);
            let (path, attached) = blocking(move || network.attach_bridged(&key, &ports)).await?;
            bridged = Some(attached);
            (NetworkNamespace::Path(path), None)
        }
        NetworkMode::Host => (NetworkNamespace::Host, None),
        NetworkMode::None => (NetworkNamespace::Isolated, None),
    };
    let parts = Parts {
        config: &hands.config,
        arn,
        task: &known.task,
        container: payload,
        docker,
        image,
        network,
        interface: own,
    };
    let run = async {
        let config = container::compile(&parts)?;
        for mount in config.mounts.iter().filter(|mount| mount.source.starts_with(&hands.config.data_dir)) {
            std::fs::create_dir_all(&mount.source).map_err(|error| {
                Failure::new(FailureKind::InvalidVolumeError, format!("{}: {error}", mount.source.display()))
            })?;
        }
        hands.runtime.run(config).await.map_err(|error| failure_of(&error))
    };
    match run.await {
        Ok(started) => {
            tracing::info!(task = %arn, container = name, pid = started.pid, "a container runs");
            let bindings = bindings(known.mode, payload, bridged.as_ref());
            Ok(Input::Launched { task: arn.clone(), container: name.to_owned(), bridged, bindings })
        }
        Err(failure) => {
            if bridged.is_some() {
                let (network, key) = (hands.network.clone(), id.to_string());
                // The first failure is the one to tell; leftovers are swept at the next start.
                let _ = blocking(move || network.detach(&key)).await;
            }
            Err(failure)
        }
    }
}

fn failure_of(error: &RuntimeError) -> Failure {
    let kind = match error {
        RuntimeError::Failed { step: Step::Start, .. } => FailureKind::CannotStartContainerError,
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

fn protocol(mapping: &acs::PortMapping) -> TransportProtocol {
    match mapping.protocol.as_deref() {
        Some("udp") => TransportProtocol::Udp,
        _ => TransportProtocol::Tcp,
    }
}

fn requests(container: &acs::Container) -> Vec<PortRequest> {
    let port = |number: Option<i32>| u16::try_from(number.unwrap_or(0)).unwrap_or(0);
    let mappings = container.port_mappings.iter().flatten();
    mappings
        .map(|mapping| PortRequest {
            container_port: port(mapping.container_port),
            host_port: port(mapping.host_port),
            protocol: protocol(mapping),
        })
        .filter(|request| request.container_port != 0)
        .collect()
}

/// What the control plane is told of a container's ports.
pub fn bindings(
    mode: NetworkMode,
    container: &acs::Container,
    bridged: Option<&Bridged>,
) -> Vec<NetworkBinding> {
    let binding = |container_port, host_port, protocol| NetworkBinding {
        bind_ip: "0.0.0.0".to_owned(),
        container_port,
        host_port,
        protocol,
    };
    match (mode, bridged) {
        (NetworkMode::Bridge, Some(bridged)) => bridged
            .ports
            .iter()
            .map(|port| binding(port.container_port, port.host_port, port.protocol))
            .collect(),
        (NetworkMode::Host, _) => requests(container)
            .into_iter()
            .map(|request| binding(request.container_port, request.container_port, request.protocol))
            .collect(),
        _ => Vec::new(),
    }
}

/// Waits for a container's end.
pub async fn watch<R: Runtime>(hands: Arc<Hands<R>>, task: TaskArn, container: String) {
    let id = container_id(&task, &container);
    match hands.runtime.wait(&id).await {
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

/// Takes a task's networks away.
pub async fn tear_down_network<R: Runtime>(hands: Arc<Hands<R>>, task: TaskArn, keys: Vec<String>) {
    for key in keys {
        let network = hands.network.clone();
        if let Err(failure) = blocking(move || network.detach(&key)).await {
            tracing::warn!(task = %task, reason = failure.reason(), "a network is left behind until the next start");
        }
    }
    hands.tell(Input::Event(Event::NetworkTornDown { task })).await;
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
    let binding = |binding: &NetworkBinding| ecs::NetworkBinding {
        bind_ip: Some(binding.bind_ip.clone()),
        container_port: Some(binding.container_port.into()),
        host_port: Some(binding.host_port.into()),
        protocol: binding.protocol.as_str().parse().ok(),
        ..Default::default()
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
