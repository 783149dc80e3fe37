//! Operation to IAM action and resource ARNs.

pub mod resources;
pub mod tasks;
