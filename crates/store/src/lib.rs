//! What Gantry remembers: typed tables with cheap snapshots, the writes they turn into, and the door to the disk.
//!
//! Pure data structures. A transaction works on a clone of the tables (O(1), structure is shared) and is dropped when
//! it fails; what it changed is drained as [`Write`]s, gathered into a [`Batch`], queued in a [`Journal`] and made
//! durable by a [`Backend`]. Backends that do IO live with the server; [`memory`] is the one for simulation and tests.

pub mod backend;
pub mod batch;
pub mod index;
pub mod journal;
pub mod memory;
pub mod record;
pub mod table;

pub use backend::{Backend, BackendError, Fence, RowSink};
pub use batch::{Batch, Write};
pub use index::Index;
pub use journal::Journal;
pub use record::{LoadError, Record, decode, encode};
pub use table::Table;
