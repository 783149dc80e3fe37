//! Simulated agents: container instances that register, keep a real connection to the control plane and acknowledge what
//! they are sent. They start nothing, but remember it, so that every placement can be checked afterwards.

use crate::host::Host;
use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use gantry_agent::client::Client;
use gantry_api::{acs, ecs};
use gantry_wire::envelope::{Frame, seal};
use http::{HeaderName, HeaderValue};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// What one instance offers: room for all tasks of a benchmark on few of them.
pub const CPU: i32 = 1 << 20;
/// MiB.
pub const MEMORY: i32 = 1 << 22;
pub const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// Agents that join at the same time: several share a sync of the disk then.
const JOINING: usize = 64;

/// Tasks that agents were told to run, by the ARN of their instance.
type Told = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

pub struct Fleet {
    told: Told,
    tasks: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Fleet {
    /// Lets agents join the default cluster, with the attributes that a task definition asks for.
    pub async fn join(host: &Host, agents: usize, attributes: &[ecs::Attribute]) -> Result<Fleet> {
        let client = host.client()?;
        let told = Told::default();
        let (done, mut joined) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for first in 0..JOINING {
            let (client, told, attributes) = (client.clone(), Arc::clone(&told), attributes.to_vec());
            let (address, done) = (host.address().to_owned(), done.clone());
            tasks.push(tokio::spawn(async move {
                let mut open = Vec::new();
                for number in (first..agents).step_by(JOINING) {
                    let arn = register(&client, ZONES[number % ZONES.len()], &attributes).await?;
                    let socket = connect(&client, &address, &arn).await?;
                    let (ready, manifest) = tokio::sync::oneshot::channel();
                    open.push(tokio::spawn(serve(socket, arn, Arc::clone(&told), ready)));
                    manifest.await.context("an agent lost its connection")?;
                    done.send(())?;
                }
                for agent in open {
                    agent.await??;
                }
                Ok(())
            }));
        }
        drop(done);
        for number in 0..agents {
            joined.recv().await.with_context(|| format!("{number} of {agents} agents joined"))?;
        }
        Ok(Fleet { told, tasks })
    }

    /// How many tasks the agents were told of.
    pub fn tasks(&self) -> usize {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).values().map(BTreeSet::len).sum()
    }

    /// Compares what agents were told with what the control plane says: `placed` tasks, each at one instance, none of
    /// them with more than it has. `allowed` says whether a zone may have a task of a family.
    pub async fn check(
        &self,
        client: &Client,
        placed: usize,
        needs: (i32, i32),
        allowed: impl Fn(&str, &str) -> bool,
    ) -> Result<()> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let zones = self.check_instances(client, &told, needs).await?;
        let (mut counted, mut next_token) = (0, None);
        loop {
            let list = ecs::ListTasksRequest { next_token, ..Default::default() };
            let page = client.ecs::<ecs::ListTasks>(&list).await?;
            let tasks = page.task_arns.unwrap_or_default();
            if !tasks.is_empty() {
                let describe = ecs::DescribeTasksRequest { tasks, ..Default::default() };
                for task in client.ecs::<ecs::DescribeTasks>(&describe).await?.tasks.unwrap_or_default() {
                    let arn = task.task_arn.context("a task's ARN")?;
                    let instance = task.container_instance_arn.context("a task's instance")?;
                    let here = told.get(&instance).is_some_and(|tasks| tasks.contains(&arn));
                    ensure!(here, "{arn} is at {instance}, which does not know");
                    let family = task.group.unwrap_or_default();
                    ensure!(
                        allowed(&family, &zones[&instance]),
                        "{arn} of {family} is in {}",
                        zones[&instance]
                    );
                    counted += 1;
                }
            }
            next_token = page.next_token;
            if next_token.is_none() {
                break;
            }
        }
        let told: usize = told.values().map(BTreeSet::len).sum();
        ensure!(placed == counted && placed == told, "{placed} placed, {counted} listed, {told} told");
        Ok(())
    }

    /// Returns each instance's zone.
    async fn check_instances(
        &self,
        client: &Client,
        told: &BTreeMap<String, BTreeSet<String>>,
        (cpu, memory): (i32, i32),
    ) -> Result<BTreeMap<String, String>> {
        let mut zones = BTreeMap::new();
        let mut next_token = None;
        loop {
            let list = ecs::ListContainerInstancesRequest { next_token, ..Default::default() };
            let page = client.ecs::<ecs::ListContainerInstances>(&list).await?;
            let container_instances = page.container_instance_arns.unwrap_or_default();
            let describe =
                ecs::DescribeContainerInstancesRequest { container_instances, ..Default::default() };
            let answer = client.ecs::<ecs::DescribeContainerInstances>(&describe).await?;
            for instance in answer.container_instances.unwrap_or_default() {
                let arn = instance.container_instance_arn.context("an instance's ARN")?;
                let tasks = i32::try_from(told.get(&arn).map_or(0, BTreeSet::len))?;
                let remaining = instance.remaining_resources.unwrap_or_default();
                for (name, all, each) in [("CPU", CPU, cpu), ("MEMORY", MEMORY, memory)] {
                    let left = remaining.iter().find(|resource| resource.name.as_deref() == Some(name));
                    let left = left.and_then(|resource| resource.integer_value).context("what remains")?;
                    ensure!(
                        left >= 0 && left == all - tasks * each,
                        "{arn}: {tasks} tasks, {name} {left} left"
                    );
                }
                let attributes = instance.attributes.unwrap_or_default();
                let zone = attributes.into_iter().find(|attribute| attribute.name == ZONE);
                zones.insert(arn, zone.and_then(|zone| zone.value).unwrap_or_default());
            }
            next_token = page.next_token;
            if next_token.is_none() {
                return Ok(zones);
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

const ZONE: &str = "ecs.availability-zone";

async fn register(client: &Client, zone: &str, attributes: &[ecs::Attribute]) -> Result<String> {
    let zone = ecs::Attribute { name: ZONE.to_owned(), value: Some(zone.to_owned()), ..Default::default() };
    let number = |name: &str, value| ecs::Resource {
        name: Some(name.to_owned()),
        type_: Some("INTEGER".to_owned()),
        integer_value: Some(value),
        ..Default::default()
    };
    let request = ecs::RegisterContainerInstanceRequest {
        attributes: Some(attributes.iter().cloned().chain([zone]).collect()),
        total_resources: Some(vec![number("CPU", CPU), number("MEMORY", MEMORY)]),
        ..Default::default()
    };
    let answer = client.ecs::<ecs::RegisterContainerInstance>(&request).await?;
    answer
        .container_instance
        .and_then(|instance| instance.container_instance_arn)
        .context("an instance's ARN")
}

type Socket = WebSocketStream<TcpStream>;

async fn connect(client: &Client, address: &str, arn: &str) -> Result<Socket> {
    let arn = arn.replace(':', "%3A").replace('/', "%2F");
    let query = format!(
        "agentHash=bench&agentVersion=1.0.0&clusterArn=default&containerInstanceArn={arn}&dockerVersion=bench\
         &protocolVersion=2&seqNum=1&sendCredentials=true"
    );
    let mut request = format!("ws://{address}/acs/ws?{query}").into_client_request()?;
    for (name, value) in client.sign_upgrade(address, "/acs/ws", &query) {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(client_async(request, stream).await?.0)
}

/// Acknowledges whatever comes. `ready` is told of the manifest, with which a session begins.
async fn serve(
    mut socket: Socket,
    arn: String,
    told: Told,
    ready: tokio::sync::oneshot::Sender<()>,
) -> Result<()> {
    let mut ready = Some(ready);
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let Some(frame) = Frame::open(&text) else { continue };
        let message_id = match frame.kind.as_ref() {
            "PayloadMessage" => {
                let payload: acs::PayloadMessage = frame.message()?;
                let tasks = payload.tasks.unwrap_or_default().into_iter().filter_map(|task| task.arn);
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(arn.clone())
                    .or_default()
                    .extend(tasks);
                Some(payload.message_id)
            }
            "TaskManifestMessage" => {
                let manifest: acs::TaskManifestMessage = frame.message()?;
                ready.take().map(|ready| ready.send(()));
                manifest.message_id
            }
            "HeartbeatMessage" => {
                let heartbeat: acs::HeartbeatMessage = frame.message()?;
                let ack = acs::HeartbeatAckRequest { message_id: heartbeat.message_id };
                socket.send(Message::text(seal("HeartbeatAckRequest", &ack))).await?;
                None
            }
            _ => None,
        };
        if message_id.is_some() {
            let ack = acs::AckRequest {
                cluster: Some("default".to_owned()),
                container_instance: Some(arn.clone()),
                message_id,
            };
            socket.send(Message::text(seal("AckRequest", &ack))).await?;
        }
    }
    Ok(())
}
