//! The half of Gantry that acts on a host.

pub mod images;
pub mod network;
pub mod protocol;
pub mod runtime;
pub mod shim;
pub mod state;
