//! Where a request goes: the configuration that a balancer is given, and what it decides from it.

pub mod channel;
mod choice;
pub mod config;
mod health;
mod index;
mod observers;
mod pattern;
mod rules;
mod sticky;
mod transform;

pub use choice::{
    Candidate, Standing, Tally, anomalies, choose, choose_group, in_service, in_service_of_zone,
};
pub use health::{Checked, HealthReport, HealthState, Probe, Reason, TargetHealth};
pub use observers::{ABSENCE_MAX, Observers, RETURN_MAX, TargetNews};
pub use pattern::InvalidPattern;
pub use pattern::check_regex;
pub use rules::{BrokenRule, Matched, Request, Rules};
pub use sticky::Ticket;
pub use transform::{Asked, Transforms};
