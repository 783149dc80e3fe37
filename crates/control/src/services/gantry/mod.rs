//! What Gantry answers beyond AWS: why a service, a task or an instance is as it is, and the feed of what happened.
//!
//! It speaks awsJson as the others do, so that routing, signatures and authorisation are the same, and has no state of
//! its own: `explain` reads the other services' tables, [`crate::feed`] says what events there are.

mod authorize;
mod check;
mod errors;
pub mod explain;
mod ops;
#[cfg(test)]
mod tests;
mod views;

use crate::service::Service;
use gantry_api::gantry;

pub static SERVICE: Service = Service {
    model: gantry::SERVICE,
    operations: crate::operations! { gantry;
        bulk Explain => authorize::explain, ops::explain::explain;
        bulk ListEvents => authorize::list_events, ops::event::list_events;
    },
    later: &[],
};
