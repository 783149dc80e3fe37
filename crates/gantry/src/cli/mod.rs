//! One file per command.

pub mod agent;
pub mod alarm;
pub mod env;
pub mod events;
pub mod exec;
pub mod explain;
pub mod image;
pub mod lb;
pub mod logs;
pub mod manual;
pub mod server;
pub mod status;
pub mod sweep;
pub mod up;
