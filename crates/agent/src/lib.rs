//! The half of Gantry that acts on a host: images, containers, networks, and the agent that drives them.

pub mod agent;
mod attributes;
pub mod channel;
pub mod client;
pub mod config;
pub mod data_channel;
pub mod docker;
pub mod driver;
pub mod endpoints;
pub mod exec;
pub mod firelens;
mod gpus;
pub mod health;
pub mod images;
pub mod lease;
pub mod logs;
pub mod machine;
pub mod network;
pub mod protocol;
pub mod runtime;
pub mod secrets;
pub mod shim;
mod spot;
pub mod state;
pub mod storage;
pub mod sweep;
pub mod telemetry;
