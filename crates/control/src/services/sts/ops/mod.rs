//! Handlers by resource.

pub mod identity;
