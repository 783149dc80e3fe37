//! Amazon Elastic Container Service: clusters, task definitions, container instances and what belongs to them.
//!
//! The heart of Gantry. Records and indexes are in `state`, what a request may name in `check`, the words of every
//! refusal in `errors`.

pub mod check;
pub mod errors;
pub mod state;

use crate::service::Service;
use gantry_api::ecs;

pub static SERVICE: Service = Service { model: ecs::SERVICE, operations: &[], later: &[] };
