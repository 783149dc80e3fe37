//! Handlers by resource.

pub mod activation;
pub mod instance;
pub mod session;
