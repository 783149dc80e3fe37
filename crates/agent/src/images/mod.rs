//! Images: naming, fetching, unpacking, keeping and making them.
//!
//! The [`ImageStore`] answers with overlay lower directories and the image's configuration.

mod archive;
mod builder;
mod config;
mod confined;
mod digest;
mod reference;
mod store;
mod tarstream;
mod unpack;

pub use archive::{ArchiveError, load};
pub use builder::{BuildError, FileContent, ImageBuilder};
pub use config::ImageConfig;
pub use digest::{Digest, Hasher, InvalidDigest};
pub use reference::{InvalidPart, InvalidReference, Reference};
pub use store::{Collected, ImageRecord, ImageStore, Ingest, LayerRecord, LocalImage, Source, StoreError};
pub use unpack::{LayerError, Limits, Unpacked};
