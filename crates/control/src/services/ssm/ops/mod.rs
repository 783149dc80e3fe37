//! Handlers by resource.

pub mod activation;
pub mod instance;
