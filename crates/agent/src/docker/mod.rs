//! Containers by Docker Engine, for hosts whose users want to see their tasks there.
//!
//! The task engine, health checks, endpoints, logs and ECS Exec are the agent's own, as with the native runtime. Docker
//! keeps images, volumes and the containers of bridge mode's networks. A task in awsvpc mode has a pause container, in
//! whose namespace the agent's own network layer puts the task's interface; its other containers join that.
//!
//! Nothing is kept here that would have to be saved: containers are found by their labels, and what became of one is
//! asked, never remembered. So there is no stream of events to fall behind: each container has one call that waits for
//! its end, made again after the daemon was away.

mod api;
mod cgroups;
pub mod client;
mod create;
mod exec;
pub mod firewall;
pub mod images;
mod logs;
pub mod parts;
mod pause;
mod runtime;

pub use client::{Client, DockerError};
pub use runtime::DockerRuntime;

use std::path::PathBuf;

/// Where Docker listens unless it was told otherwise.
pub const SOCKET: &str = "/var/run/docker.sock";

/// The socket that an address means, as in `DOCKER_HOST`: `unix://PATH`, or a path.
pub fn socket(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    path.starts_with('/').then(|| PathBuf::from(path))
}
