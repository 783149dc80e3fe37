//! Every decision Gantry takes, as pure functions of (state, time, randomness), and the words they are made of.
//!
//! Nothing here reads a clock, opens a file, starts a thread or draws a random number of its own: what is needed is
//! an argument. The same code runs in production and in the simulator.

pub mod arn;
pub mod capacity;
pub mod deployment;
pub mod ids;
pub mod lease;
pub mod lifecycle;
pub mod log_cursor;
pub mod log_filter;
pub mod mutant;
pub mod network;
pub mod placement;
pub mod query;
pub mod random;
pub mod routing;
pub mod scaling;
pub mod task;
pub mod task_engine;
pub mod time;
