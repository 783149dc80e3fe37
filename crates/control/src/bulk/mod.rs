//! Bulk data: what is too much for the state and has append-oriented stores of its own, such as log events.
//!
//! Handlers do no IO. One that has to do with bulk data returns a [`Plan`]: what to do, and how to make the reply of
//! what came back. Whoever runs the plan answers only when what was appended is durable.

pub mod logs;
pub mod memory;

use crate::service::Reply;

/// What to do with bulk data.
#[derive(Debug)]
pub enum Request {
    Logs(logs::Request),
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    Logs(logs::Answer),
}

/// Why nothing came of it. Nothing was appended then, as far as anybody will ever see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("too much waits for the disk")]
    Busy,
    #[error("the store of bulk data cannot be used")]
    Unavailable,
}

/// A handler's part of an operation on bulk data.
pub struct Plan {
    pub request: Request,
    /// Makes the reply.
    pub reply: Box<dyn FnOnce(Result<Answer, Error>) -> Reply + Send>,
}
