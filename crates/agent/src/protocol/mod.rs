//! The agent's side of the ECS agent protocol: what arrives, made typed at the edge.

pub mod backoff;
pub mod docker;
pub mod manifest;
pub mod payload;
