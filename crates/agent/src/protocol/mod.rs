//! The agent's side of the ECS agent protocol: what arrives, made typed at the edge.

pub mod docker;
pub mod payload;
