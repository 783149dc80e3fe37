//! Operation to IAM action and resource ARNs.

pub mod resources;
pub mod services;
pub mod tasks;
