//! The acting centre: everything of the control plane that touches sockets, disks, clocks and threads.

pub mod backend;
pub mod committer;
pub mod keys;
pub mod sockets;
pub mod transport;
pub mod writer;
