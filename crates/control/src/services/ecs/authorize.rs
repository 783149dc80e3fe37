//! Operation to IAM action and resource ARNs.

pub mod daemons;
pub mod resources;
pub mod services;
pub mod tasks;
