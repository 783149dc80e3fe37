//! What actions work with, shared with everything that runs beside the loop.

use super::pulls::Awaited;
use super::{Asked, EVENTS_MAX, Input, TaskSnapshot};
use crate::client::Client;
use crate::config::AgentConfig;
use crate::endpoints::{Api, RoleStore};
use crate::images::Images;
use crate::logs::Shipping;
use crate::network::Network;
use crate::runtime::Runtime;
use crate::secrets::Secrets;
use crate::state::Instance;
use crate::telemetry::Usage;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

/// Networks that are made at once; no more of their makers could go on at a time.
const ATTACHING_MAX: usize = 4;

/// See the module.
pub struct Hands<R> {
    pub config: AgentConfig,
    pub runtime: R,
    pub network: Network,
    pub images: Images,
    pub client: Client,
    pub logs: Shipping,
    pub instance_arn: String,
    pub availability_zone: Option<String>,
    /// Where tasks in the host's namespace ask, on its loopback.
    pub host_port: u16,
    pub usage: Usage<R>,
    pub credentials: RoleStore,
    /// For tasks' calls of AWS APIs.
    pub api: Api,
    pub secrets: Secrets,
    /// Whose images have long been awaited.
    pub(super) awaited: Awaited,
    /// A container's health has changed.
    pub health_news: Notify,
    /// Networks are made by a few at a time: the kernel makes links one after the other, and who waits holds a thread.
    pub(super) attaching: Semaphore,
    /// One volume is made at a time: containers of a task that start at once may share one.
    pub(super) volumes: tokio::sync::Mutex<()>,
    /// One listens for containers on the engine's bridge.
    pub(super) bridge: tokio::sync::Mutex<()>,
    /// By the key of the namespace that they are in.
    pub(super) listeners: Mutex<BTreeMap<String, Held>>,
    events: mpsc::Sender<Input>,
}

/// The parts of [`Hands`] that are made elsewhere.
pub struct Tools<R> {
    pub config: AgentConfig,
    pub runtime: R,
    pub network: Network,
    pub images: Images,
    pub client: Client,
    /// Where tasks in the host's namespace ask, on its loopback.
    pub host_port: u16,
}

impl<R: Runtime> Hands<R> {
    pub fn new(tools: Tools<R>, instance: &Instance) -> (Arc<Hands<R>>, mpsc::Receiver<Input>) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let Tools { config, runtime, network, images, client, host_port } = tools;
        let hands = Hands {
            instance_arn: instance.container_instance_arn.clone(),
            availability_zone: instance
                .availability_zone
                .clone()
                .or_else(|| config.availability_zone.clone()),
            usage: Usage::new(runtime.clone()),
            logs: Shipping::new(client.clone()),
            credentials: RoleStore::default(),
            api: Api::new(&config.endpoint),
            secrets: Secrets::new(config.stores.clone(), &config.endpoint, &config.region),
            awaited: Awaited::default(),
            health_news: Notify::new(),
            attaching: Semaphore::new(ATTACHING_MAX),
            volumes: tokio::sync::Mutex::default(),
            bridge: tokio::sync::Mutex::default(),
            listeners: Mutex::default(),
            config,
            runtime,
            network,
            images,
            client,
            host_port,
            events,
        };
        (Arc::new(hands), inbox)
    }

    /// Tells the loop. One that has ended has no use for it.
    pub(super) async fn tell(&self, input: Input) {
        let _ = self.events.send(input).await;
    }

    /// Asks the loop for its tasks. One that has ended has none.
    pub async fn ask(&self, asked: Asked) -> Vec<TaskSnapshot> {
        let (reply, answer) = oneshot::channel();
        self.tell(Input::Asked(asked, reply)).await;
        answer.await.unwrap_or_default()
    }
}

/// Work that ends when nobody holds it any more.
pub struct Held(pub AbortHandle);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.abort();
    }
}
