//! Where a request goes: the configuration that a balancer is given, and what it decides from it.

pub mod config;
mod health;

pub use health::{Checked, HealthReport, HealthState, Probe, Reason, TargetHealth};
