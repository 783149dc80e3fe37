//! Records to response shapes.

pub mod capacity_provider;
pub mod cluster;
pub mod container_instance;
pub mod daemon;
pub mod service;
pub mod service_deployment;
pub mod task;
pub mod task_definition;
pub mod task_set;
