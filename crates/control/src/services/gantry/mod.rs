//! What Gantry answers beyond AWS: why a service, a task or an instance is as it is, the feed of what happened, and what
//! alarms say.
//!
//! It speaks awsJson as the others do, so that routing, signatures and authorisation are the same, and has no state of
//! its own: `explain` reads the other services' tables, [`crate::feed`] says what events there are,
//! and alarms are CloudWatch's.

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
        write DeleteAlarm => authorize::delete_alarm, ops::alarm::delete_alarm;
        bulk Explain => authorize::explain, ops::explain::explain;
        read ListAlarms => authorize::list_alarms, ops::alarm::list_alarms;
        bulk ListEvents => authorize::list_events, ops::event::list_events;
        write SetAlarmState => authorize::set_alarm_state, ops::alarm::set_alarm_state;
    },
    later: &[],
};
