//! Orchestration: the AWS services as operations on typed state, the controllers that move what is towards what is
//! wanted. Still no IO, no clock, no thread: the server feeds [`engine::Engine`] with inputs and performs the effects
//! that it returns; a simulator can do the same with a clock of its own.

pub mod bulk;
pub mod call;
pub mod controllers;
pub mod engine;
pub mod feed;
pub mod fetch;
pub mod load;
pub mod machines;
pub mod page;
pub mod roles;
pub mod routing;
pub mod service;
pub mod services;
pub mod sessions;
pub mod state;
pub mod tx;
