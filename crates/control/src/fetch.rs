//! What an operation needs of S3 before it can be carried out.
//!
//! Handlers do no IO. One that needs objects returns a [`Fetch`]: which ones, and the write that is made of them. Whoever
//! runs it gets the objects first; the write then judges a state that may have changed since.

use crate::service::Reply;
use crate::tx::{Tx, View};
use gantry_wire::ApiError;

/// An object, by its names as a caller gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    pub bucket: String,
    pub key: String,
    /// The current one if absent.
    pub version: Option<String>,
}

/// Why there is no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// For who asked for it.
    #[error("{0}")]
    Missing(String),
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
}

pub type Found = Result<Vec<u8>, ObjectError>;

/// A write that is made of what was found.
pub type Writing = Box<dyn FnOnce(&mut Tx<'_>, Vec<Found>) -> Reply + Send>;

/// A handler's part of an operation that needs objects.
pub struct Fetch {
    pub objects: Vec<ObjectName>,
    /// Runs on the writer, with what was found of each object, in their order.
    pub write: Writing,
}

/// Says what is to be fetched, from a published snapshot.
pub type Fetching = Box<dyn FnOnce(View<'_>) -> Result<Fetch, ApiError> + Send>;
