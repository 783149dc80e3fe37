//! Handlers by resource.

pub mod event;
pub mod group;
pub mod live_tail;
pub mod metric_filter;
pub mod stream;
pub mod tag;

use super::errors::LogsError;
use crate::bulk::{self, Plan, logs::Answer, logs::Request};
use crate::service::Reply;
use gantry_wire::Structure;

/// A plan on the store of events whose answer becomes a response.
fn plan<R: Structure + Send + 'static>(
    request: Request,
    respond: impl FnOnce(Answer) -> Result<R, LogsError> + Send + 'static,
) -> Plan {
    let reply = move |answer: Result<bulk::Answer, bulk::Error>| -> Reply {
        let bulk::Answer::Logs(answer) = answer.map_err(LogsError::from)?;
        Ok(Box::new(respond(answer)?))
    };
    Plan { request: bulk::Request::Logs(request), reply: Box::new(reply) }
}

/// A store that answers another question than the one it was asked is of no use.
fn other(answer: &Answer) -> LogsError {
    debug_assert!(false, "an unexpected answer: {answer:?}");
    LogsError::Unavailable
}
