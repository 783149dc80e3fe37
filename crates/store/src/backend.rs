//! The door to durable storage.

use crate::batch::Batch;
use std::error::Error;
use std::ops::ControlFlow;

/// Proof of leadership that every append carries: a store refuses one older than the newest it has seen, so that a
/// deposed leader cannot write. A store used by one process alone is given the same fence always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Takes rows while a store loads: stored key and value. Breaks to stop early.
pub type RowSink<'a> = dyn FnMut(&str, &[u8]) -> ControlFlow<()> + 'a;

/// Where batches are made durable.
pub trait Backend: Send {
    /// Hands every row to `sink` once, in any order, and returns the number of the last durable batch (0 for none).
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load(&mut self, sink: &mut RowSink<'_>) -> Result<u64, BackendError>;

    /// Makes batches durable, in order. All of them are when this returns `Ok`; after an error a prefix of them may
    /// be (whole batches only), and no further append is accepted until the store was opened anew.
    ///
    /// # Errors
    /// [`BackendError::retry_helps`] says whether the same call may succeed later.
    fn append(&mut self, fence: Fence, batches: &[Batch]) -> Result<(), BackendError>;
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("another server leads now: the store has seen fence {newest}, this one has {ours}")]
    Fenced { ours: u64, newest: u64 },
    #[error("batch {found} does not follow batch {last}, the last in the store")]
    Sequence { found: u64, last: u64 },
    #[error("the store failed and must be opened anew")]
    Broken,
    #[error("the store is busy: {doing}")]
    Busy {
        doing: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the store failed: {doing}")]
    Failed {
        doing: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl BackendError {
    /// Whether nothing was written and the same call may succeed later.
    pub fn retry_helps(&self) -> bool {
        matches!(self, BackendError::Busy { .. })
    }
}
