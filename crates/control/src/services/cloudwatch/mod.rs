//! Amazon CloudWatch, so far as it is there: what alarms say, for deployments that watch them. Who sets it is an operation
//! of Gantry's own (`services/gantry/ops/alarm.rs`); CloudWatch's operations, metrics and the judging of alarms are not
//! served.

pub mod links;
pub mod state;
