//! How a service gets from the tasks it has to the tasks it should have.

pub mod alarms;
pub mod back_off;
pub mod breaker;
pub mod daemon;
pub mod events;
pub mod hooks;
pub mod managed_daemon;
pub mod rebalance;
pub mod replacement;
pub mod rolling;
pub mod shift;
pub mod stage;
pub mod status;
pub mod strategy;
pub mod task_set;
pub mod traffic;
