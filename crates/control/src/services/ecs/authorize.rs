//! Operation to IAM action and resource ARNs.

pub mod resources;
