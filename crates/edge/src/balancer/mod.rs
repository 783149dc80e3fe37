//! The load balancer: takes routing configurations, listens, forwards, checks its targets' health.
//!
//! Worker threads, one runtime each, share nothing on a request's way but immutable tables behind an `Arc` and
//! counters; a new configuration is compiled beside them and swapped in. Health checks have a thread of their own.

mod clock;
mod counters;
mod http;
mod manager;
mod probe;
mod tables;
mod worker;

pub use counters::{GroupSample, ListenerSample};
pub use manager::{Balancer, StartError};

use gantry_decide::routing::HealthReport;
use std::net::SocketAddr;
use std::path::PathBuf;

/// How a balancer runs on its host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that carry traffic; at least one.
    pub workers: usize,
    /// Where a listener is that finds load balancers by the host name a client asks for.
    pub shared: Option<SocketAddr>,
    /// Where access logs go, below a directory named as their bucket. None keeps none.
    pub logs: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Settings { workers, shared: None, logs: None }
    }
}

/// What a balancer tells. Called from its threads: implementations hand over and return.
pub trait Observer: Send + Sync {
    /// A target's health changed, or a target is known for the first time.
    fn health(&self, report: HealthReport);

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
    #[error("listener {listener}: {protocol} is not served by this balancer")]
    Protocol { listener: String, protocol: String },
}
