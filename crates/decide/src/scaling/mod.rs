//! Scaling: what Auto Scaling groups do next, and how large machines of a type are.
//!
//! `group` is a group's whole conduct as one function of what it knows; `termination` chooses who goes. Both see facts
//! alone, so that the simulator runs what production runs.

pub mod group;
pub mod instance_type;
pub mod lifecycle;
pub mod termination;
pub mod user_data;
