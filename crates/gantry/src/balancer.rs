//! The load balancers of this machine: told by the server in the same process what to do, and telling it how targets are.

use crate::config::balancers::LbListen;
use anyhow::{Context, Result};
use gantry_decide::routing::HealthReport;
use gantry_decide::routing::config::{RoutingConfig, TargetGroupArn, TargetKey};
use gantry_edge::balancer::{Balancer, Observer, Problem, Settings, StartError};
use gantry_server::server::Server;
use gantry_server::target_news::{Mailbox, TargetNews};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Tells the server.
struct Teller(Arc<Mailbox>);

impl Observer for Teller {
    fn health(&self, report: HealthReport) {
        self.0.put(TargetNews::Health(report));
    }

    fn drained(&self, group: &TargetGroupArn, target: &TargetKey) {
        self.0.put(TargetNews::Drained { group: group.clone(), target: target.clone() });
    }

    fn problem(&self, problem: Problem) {
        tracing::warn!(error = &problem as &dyn std::error::Error, "a load balancer is not as it should be");
    }
}

/// Running load balancers.
pub struct LocalBalancer {
    shared: Option<SocketAddr>,
    feeding: JoinHandle<()>,
}

/// Starts what carries traffic, found by host name where the settings say. The usual address may be another
/// installation's: then there is none.
///
/// # Errors
/// When threads cannot be made, or an address that was named is taken.
pub fn start(listen: LbListen, logs: PathBuf, observer: Arc<dyn Observer>) -> Result<Balancer> {
    let settings = Settings { shared: listen.address(), logs: Some(logs), ..Settings::default() };
    let balancer = match Balancer::start(&settings, observer.clone()) {
        Err(error @ StartError::Shared { .. }) if listen == LbListen::Usual => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "load balancers are not found by host name"
            );
            Balancer::start(&Settings { shared: None, ..settings }, observer)
        }
        balancer => balancer,
    };
    balancer.context("cannot start the load balancers")
}

impl LocalBalancer {
    /// Starts what carries traffic, and keeps it to what the server says.
    ///
    /// # Errors
    /// When threads cannot be made.
    pub fn start(server: &Server, listen: LbListen, data_dir: &Path) -> Result<LocalBalancer> {
        let teller = Arc::new(Teller(server.target_news()));
        let balancer = start(listen, data_dir.join("access-logs"), teller)?;
        let shared = balancer.shared_address();
        let feeding = tokio::spawn(feed(Arc::new(balancer), server.routing()));
        Ok(LocalBalancer { shared, feeding })
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
    }
}

async fn feed(balancer: Arc<Balancer>, mut routing: watch::Receiver<Arc<RoutingConfig>>) {
    loop {
        let config = Arc::clone(&routing.borrow_and_update());
        let told = Arc::clone(&balancer);
        // Rules are compiled, and sockets bound.
        let applied = tokio::task::spawn_blocking(move || told.apply(&config)).await;
        if let Err(error) = applied {
            tracing::error!(%error, "the load balancers could not take what they were told");
        }
        if routing.changed().await.is_err() {
            // The server has ended.
            return;
        }
    }
}
