//! The load balancers of this machine: told by the server in the same process what to do, and telling it how targets are.

use crate::config::balancers::LbListen;
use crate::own_addresses::OwnAddresses;
use anyhow::{Context, Result};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::{
    CertificateArn, RoutingConfig, TargetGroupArn, TargetKey, TrustStoreArn,
};
use gantry_edge::balancer::{Balancer, Inherited, Observer, Pem, Problem, Settings, TrustStore};
use gantry_server::balancers::Seat;
use gantry_server::server::{Certificates, Server};
use parking_lot::Mutex;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tells the server, and asks it for certificates.
struct Teller {
    seat: Seat,
    certificates: Certificates,
}

impl Observer for Teller {
    fn health(&self, report: HealthReport) {
        self.seat.health(&report);
    }

    fn drained(&self, group: &TargetGroupArn, target: &TargetKey) {
        self.seat.drained(group, target);
    }

    fn certificate(&self, arn: &CertificateArn) -> Option<Pem> {
        self.certificates.find(arn)
    }

    fn trust_store(&self, arn: &TrustStoreArn) -> Option<Arc<TrustStore>> {
        self.certificates.trust_store(arn)
    }

    fn problem(&self, problem: Problem) {
        tracing::warn!(error = &problem as &dyn std::error::Error, "a load balancer is not as it should be");
    }
}

/// Running load balancers.
pub struct LocalBalancer {
    shared: Option<SocketAddr>,
    feeding: JoinHandle<()>,
    own: Arc<Mutex<OwnAddresses>>,
}

/// Starts what carries traffic once it is opened, found by host name where the settings say. The usual address may be another
/// installation's: then there is none.
///
/// # Errors
/// When threads cannot be made, or an address that was named is taken.
pub fn start(
    listen: LbListen,
    logs: PathBuf,
    observer: Arc<dyn Observer>,
    inherited: Inherited,
) -> Result<Balancer> {
    let mut settings =
        Settings { shared: listen.address(), names: listen.names(), logs: Some(logs), ..Settings::default() };
    if listen == LbListen::Usual
        && let Some(address) = settings.shared
        && !inherited.has(address)
        && let Err(error) = TcpListener::bind(address)
    {
        tracing::warn!(%error, %address, "load balancers are not found by host name");
        settings.shared = None;
    }
    Balancer::inherit(&settings, observer, inherited).context("cannot start the load balancers")
}

impl LocalBalancer {
    /// Starts what carries traffic, and keeps it to what the server says.
    ///
    /// # Errors
    /// When threads cannot be made.
    pub fn start(server: &Server, listen: LbListen, data_dir: &Path) -> Result<LocalBalancer> {
        let (seat, certificates) = (server.balancers().local(), server.certificates());
        let logs = data_dir.join("access-logs");
        let balancer = start(listen, logs, Arc::new(Teller { seat, certificates }), Inherited::default())?;
        balancer.open();
        let shared = balancer.shared_address();
        let own = Arc::new(Mutex::new(OwnAddresses::open(data_dir)));
        let configurations = server.balancers().configurations();
        let feeding = tokio::spawn(feed(Arc::new(balancer), Arc::clone(&own), configurations));
        Ok(LocalBalancer { shared, feeding, own })
    }

    /// Where load balancers are found by host name.
    pub fn shared_address(&self) -> Option<SocketAddr> {
        self.shared
    }

    /// Closes every listener.
    pub async fn shutdown(self) {
        self.feeding.abort();
        // Aborted is what it shall be.
        let _ = self.feeding.await;
        self.own.lock().leave();
    }
}

async fn feed(
    balancer: Arc<Balancer>,
    own: Arc<Mutex<OwnAddresses>>,
    mut routing: watch::Receiver<Arc<RoutingConfig>>,
) {
    loop {
        let config = Arc::clone(&routing.borrow_and_update());
        let (told, own) = (Arc::clone(&balancer), Arc::clone(&own));
        // Rules are compiled, and sockets bound.
        let applied = tokio::task::spawn_blocking(move || {
            own.lock().lead(config.own_addresses);
            told.apply(&config)
        })
        .await;
        if let Err(error) = applied {
            tracing::error!(%error, "the load balancers could not take what they were told");
        }
        if routing.changed().await.is_err() {
            // The server has ended.
            return;
        }
    }
}
