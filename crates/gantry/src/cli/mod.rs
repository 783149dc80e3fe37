//! One file per command.

pub mod env;
pub mod image;
pub mod manual;
pub mod server;
