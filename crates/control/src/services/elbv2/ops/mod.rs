//! Handlers, by resource.

pub mod account;
pub mod attribute;
pub mod certificate;
pub mod listener;
pub mod load_balancer;
pub mod rule;
pub mod tag;
pub mod target;
pub mod target_group;
pub mod trust_store;
