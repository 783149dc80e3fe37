//! How AWS bytes look: shapes, protocols, errors, signatures. Bytes in, typed values out, and back. No IO, no clock.
//!
//! A shape is a plain struct with a static member table ([`structure!`]); one reader and one writer per protocol serve
//! every shape in both directions. So a service of a thousand shapes costs a table, not a thousand derived codecs.

pub mod data_channel;
pub mod envelope;
pub mod error;
pub mod event_stream;
pub mod field;
pub mod json;
pub mod limits;
pub mod protocol;
pub mod query;
pub mod reading;
pub mod route;
pub mod shape;
pub mod sigv4;
pub mod xml;

pub use error::{ApiError, ErrorField};
pub use field::{Blob, EpochMillis, Field, Secret, Writer};
pub use limits::{Limits, Pattern};
pub use shape::{Member, Operation, OperationModel, Protocol, ServiceModel, Structure};
