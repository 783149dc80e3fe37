//! The load balancer: takes routing configurations, listens, forwards, checks its targets' health.
//!
//! Worker threads, one runtime each, share nothing on a request's way but immutable tables behind an `Arc` and
//! counters; what a new configuration changes is compiled beside them and swapped in. Health checks have a thread of
//! their own.

mod access_log;
mod attic;
mod certificate;
mod clock;
mod connection_log;
mod counters;
mod groups;
pub mod hand_over;
mod handshake;
mod http;
mod http2;
mod l4;
mod manager;
mod probe;
mod sockets;
mod tables;
mod tls;
mod tls_log;
mod verifiers;
mod worker;

pub use counters::{GroupSample, ListenerSample};
pub use hand_over::Inherited;
#[doc(hidden)]
pub use http::understood;
pub use manager::{Balancer, StartError};
pub use tls::CertificateError;
pub use verifiers::TrustError;

use gantry_decide::routing::HealthReport;
pub use gantry_decide::routing::channel::{Pem, TrustStore};
use gantry_decide::routing::config::{CertificateArn, TargetGroupArn, TargetKey, TrustStoreArn};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a balancer runs on its host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that carry traffic; at least one.
    pub workers: usize,
    /// Where a listener is that finds load balancers by the host name a client asks for.
    pub shared: Option<SocketAddr>,
    /// Where they are also found so on their listeners' own ports, those that are free.
    pub names: Option<IpAddr>,
    /// Where access and connection logs go, below a directory named as their bucket. None keeps none.
    pub logs: Option<PathBuf>,
    /// How long one file of logs is written to; five minutes, as documented.
    pub log_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Settings { workers, shared: None, names: None, logs: None, log_interval: Duration::from_secs(300) }
    }
}

/// Whom a balancer tells, and asks. Called from its threads: implementations hand over and return.
pub trait Observer: Send + Sync {
    /// A target's health changed, or a target is known for the first time.
    fn health(&self, report: HealthReport);

    /// Nothing of a deregistered target is under way any more: its task may stop before the delay is over.
    fn drained(&self, group: &TargetGroupArn, target: &TargetKey) {
        let _ = (group, target);
    }

    /// A certificate that a configuration names; asked for while one is applied. None when there is no such.
    fn certificate(&self, arn: &CertificateArn) -> Option<Pem> {
        let _ = arn;
        None
    }

    /// A trust store that a configuration names, as with certificates.
    fn trust_store(&self, arn: &TrustStoreArn) -> Option<Arc<TrustStore>> {
        let _ = arn;
        None
    }

    /// A listener's address could not be taken, or a part of the configuration cannot be served.
    fn problem(&self, problem: Problem);
}

/// What a balancer cannot do of its configuration; the rest is served.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("listening on {address} for {listener}")]
    Listen {
        address: SocketAddr,
        listener: String,
        #[source]
        source: std::io::Error,
    },
    #[error("listener {listener}: {source}")]
    Rule {
        listener: String,
        #[source]
        source: gantry_decide::routing::BrokenRule,
    },
    #[error("listener {listener}: certificate {certificate} cannot be served")]
    Certificate {
        listener: String,
        certificate: String,
        #[source]
        source: CertificateError,
    },
    #[error("listener {listener}: no client can be verified by trust store {trust_store}")]
    TrustStore {
        listener: String,
        trust_store: TrustStoreArn,
        #[source]
        source: TrustError,
    },
}
