//! Handlers, by what they do.

pub mod certificate;
pub mod import;
pub mod list;
pub mod request;
pub mod tag;
