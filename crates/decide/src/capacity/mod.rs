//! Capacity: which provider a task goes to, how many instances tasks need, and who makes room for whom.

pub mod eviction;
pub mod managed_instances;
pub mod managed_scaling;
pub mod reservation;
pub mod split;
