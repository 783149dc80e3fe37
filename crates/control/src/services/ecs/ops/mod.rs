//! Handlers by resource.

pub mod account_setting;
mod attempts;
pub mod attribute;
pub mod candidate;
pub mod capacity_provider;
pub mod cluster;
pub mod code_deploy;
pub mod container_instance;
mod controllers;
pub mod daemon;
pub mod daemon_task_definition;
pub mod deployment_configuration;
pub mod execute_command;
pub mod external_service;
pub mod idempotency;
pub mod managed_instances;
pub mod protection;
pub mod service;
pub mod service_deployment;
pub mod submit;
pub mod tag;
pub mod task;
pub mod task_definition;
pub mod task_set;
