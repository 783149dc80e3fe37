//! The acting centre: everything of the control plane that touches sockets, disks, clocks and threads.

mod agents;
pub mod backend;
pub mod balancers;
pub mod cell;
mod certificates;
pub mod committer;
pub mod endpoint;
pub mod exec;
mod feed;
pub mod instances;
pub mod keys;
mod live_tail;
mod loading;
pub mod logs;
pub mod objects;
pub mod os;
pub mod server;
pub mod sockets;
mod target_news;
pub mod transport;
pub mod writer;

pub use gantry_control::services::ecs::quotas::{InvalidQuota, Quotas};
