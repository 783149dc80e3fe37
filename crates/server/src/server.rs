//! The server as a whole: store, keys, engine, writer and endpoint, started and stopped together.

use crate::backend::sqlite::{OpenError, SqliteBackend};
use crate::balancers::Balancers;
use crate::cell::{Cell, Shared};
pub use crate::certificates::Certificates;
use crate::certificates::Issuer;
use crate::endpoint::Endpoint;
use crate::exec::DataChannels;
pub use crate::exec::RETURN_MAX as EXEC_RETURN;
use crate::feed::FeedWriter;
use crate::instances::{InstanceProvider, Instances};
use crate::keys::{self, Auth, Keys, KeysError, SigningKeys};
use crate::loading::{self, LoadError};
use crate::logs::{self, LogStore};
use crate::objects::ObjectSource;
use crate::os::OsRandom;
use crate::target_news::{self, Mailbox};
use crate::transport::{Options, Transport};
use crate::writer::{Fatal, Writer};
use gantry_control::engine::{Engine, Input};
pub use gantry_control::feed::RETENTION as EVENT_RETENTION;
pub use gantry_control::roles::LIFETIME as ROLE_LIFETIME;
use gantry_control::roles::Roles;
pub use gantry_control::services::ec2::state::DefaultVpcBlock;
pub use gantry_control::services::elbv2::state::BalancerAddresses;
use gantry_control::state::Installation;
use gantry_decide::ids::AccountId;
use gantry_decide::lease::Terms;
use gantry_store::Fence;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How to run a server.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The account of the keys made on first start.
    pub account: AccountId,
    pub auth: Auth,
    /// How long credentials of tasks' roles are good for.
    pub role_lifetime: Duration,
    /// How long the feed keeps what happened.
    pub event_retention: Duration,
    /// How much of each thing an account may have.
    pub quotas: crate::Quotas,
    /// Where load balancers have their addresses.
    pub balancer_addresses: BalancerAddresses,
    /// Whether targets of load balancers may have loopback addresses.
    pub loopback_targets: bool,
    /// The block of default VPCs, where none is stored yet.
    pub default_vpc: DefaultVpcBlock,
    /// How long a session of ECS Exec waits for a side whose connection broke.
    pub exec_return: Duration,
    /// How long agents of which nothing is heard are waited for.
    pub leases: Terms,
    /// Where objects are that operations need.
    pub objects: Arc<dyn ObjectSource>,
    pub transport: Options,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    LogEvents(#[from] logs::OpenError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the feed of events cannot be started")]
    Feed(#[source] io::Error),
    #[error("the writer cannot be started")]
    Writer(#[source] io::Error),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A running server.
pub struct Server {
    transport: Transport,
    shared: Arc<Shared>,
    writer: Writer<Input>,
    feed: FeedWriter,
    keys: Arc<Keys>,
    balancers: Arc<Balancers>,
    /// Ends with the server.
    _carrying: JoinSet<()>,
    fatal: oneshot::Receiver<String>,
    instances: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the data and serves. Call within a tokio runtime.
    ///
    /// # Errors
    /// When the data, the keys or the address cannot be used. Nothing is left running then.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        config.auth.allowed_on(config.address)?;
        let mut backend = SqliteBackend::open(&config.data_dir)?;
        let keys = Arc::new(Keys::open_or_create(&config.data_dir, config.account)?);
        let session_key = keys::open_or_create_session_key(&config.data_dir)?;
        let (mut state, last_seq) = loading::load(&mut backend)?;
        state.install(Installation {
            key: Some(session_key.clone()),
            quotas: config.quotas,
            balancer_addresses: config.balancer_addresses,
            loopback_targets: config.loopback_targets,
            default_vpc: config.default_vpc,
        });
        let log_dir = config.data_dir.join("log-events");
        let shared = Shared::new(state.clone());
        let roles = Roles::new(session_key.clone(), config.role_lifetime);
        let engine = Engine::new(state, last_seq, Box::new(OsRandom), roles, config.leases);
        let (report, fatal) = oneshot::channel();
        let (performing, failing) = (Arc::clone(&shared), Arc::clone(&shared));
        let perform = move |effect| performing.perform(effect);
        let on_fatal = move |fatal: &Fatal| {
            failing.abandon();
            // Nobody listens any more when the server is being dropped.
            let _ = report.send(fatal.to_string());
        };
        // One process alone: the data directory's lock is the fence.
        let writer = Writer::start(engine, Box::new(backend), Fence(0), perform, on_fatal)
            .map_err(StartError::Writer)?;
        let keep = shared.keep_log_events(config.event_retention);
        let log_events = Arc::new(LogStore::open(&log_dir, logs::Limits::default(), keep)?);
        let feed =
            FeedWriter::start(Arc::clone(&shared), Arc::clone(&log_events)).map_err(StartError::Feed)?;
        let target_news = Arc::<Mailbox>::default();
        let balancers = Balancers::new(
            Arc::clone(&target_news),
            shared.routing(),
            Certificates::new(Arc::clone(&shared)),
        );
        let mut carrying = JoinSet::new();
        carrying.spawn(target_news::carry(target_news, writer.inbox()));
        carrying.spawn(Arc::clone(&balancers).look_after());
        let data_channels = Arc::new(DataChannels::new(config.exec_return));
        let parts = (log_events, Arc::clone(&balancers), data_channels);
        let services = Cell::new(Arc::clone(&shared), writer.inbox(), parts, config.objects);
        let endpoint = Arc::new(Endpoint {
            services,
            keys: Arc::clone(&keys),
            session_key,
            auth: config.auth,
            signing_keys: SigningKeys::default(),
        });
        let address = config.address;
        let transport = Transport::start(address, endpoint, config.transport)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let issuer = Issuer::new(Arc::clone(&shared), writer.inbox());
        carrying.spawn(issuer.run(shared.publications()));
        Ok(Server {
            transport,
            shared,
            writer,
            feed,
            keys,
            balancers,
            _carrying: carrying,
            fatal,
            instances: None,
        })
    }

    /// Has Auto Scaling groups' machines made by a provider from now on.
    pub fn provide_instances(&mut self, provider: Arc<dyn InstanceProvider>) {
        let instances = Instances::new(Arc::clone(&self.shared), self.writer.inbox(), provider);
        let running = tokio::spawn(instances.run(self.shared.publications()));
        if let Some(before) = self.instances.replace(running) {
            before.abort();
        }
    }

    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.transport.address()
    }

    /// The balancers, here and on other hosts.
    pub fn balancers(&self) -> &Arc<Balancers> {
        &self.balancers
    }

    /// Finds the certificates that balancers are told to serve.
    pub fn certificates(&self) -> Certificates {
        Certificates::new(Arc::clone(&self.shared))
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Waits until the server fails for good, and says why. The process must end then.
    pub async fn failed(&mut self) -> String {
        match (&mut self.fatal).await {
            Ok(reason) => reason,
            // Dropped unused: the writer ended as it was told to.
            Err(_) => std::future::pending().await,
        }
    }

    /// Finishes what was begun, makes it durable, and lets go of the data.
    ///
    /// # Errors
    /// When the server had failed before.
    pub async fn shutdown(self) -> Result<(), Fatal> {
        if let Some(instances) = &self.instances {
            instances.abort();
        }
        self.shared.end();
        self.transport.shutdown().await;
        let stopped = self.writer.stop();
        // Last, so that the feed has what the writer did last.
        self.feed.stop();
        stopped
    }
}
