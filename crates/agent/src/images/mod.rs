//! Images: naming, fetching, unpacking, keeping and making them.
//!
//! [`Images`] is what an agent uses: it brings an image into the [`ImageStore`] as its pull behaviour asks, and answers
//! with overlay lower directories and the image's configuration.

mod archive;
mod auth;
mod builder;
mod bundle;
mod cleanup;
mod config;
mod confined;
mod digest;
mod disk;
mod holds;
mod janitor;
mod policy;
mod prefetch;
mod progress;
mod pull;
mod reference;
mod registry;
mod scratch;
mod settings;
mod store;
mod tarstream;
pub(crate) mod transport;
mod unpack;

pub use archive::{ArchiveError, load};
pub use auth::{AuthError, EngineAuth};
pub use builder::{BuildError, BuiltLayer, FileContent, ImageBuilder};
pub use bundle::write_bundle;
pub use cleanup::{CleanupRules, select_for_cleanup};
pub use config::{ImageConfig, RawConfig};
pub(crate) use confined::Confined;
pub use digest::{Digest, Hasher, InvalidDigest};
pub use disk::{DiskRules, Space};
pub use janitor::{Because, Cleaned};
pub use policy::{Cached, OnFailure, PullBehavior, PullPlan, plan};
#[cfg(test)]
pub use progress::Progress;
pub use progress::{PullStatus, Tracked};
pub use pull::{Images, PullOptions};
pub use reference::{InvalidPart, InvalidReference, Reference};
pub use registry::{PullError, RegistryAuth};
pub use settings::ImageSettings;
pub use store::{
    Collected, Collector, ImageRecord, ImageStore, Ingest, LayerRecord, LocalImage, Source, StoreError,
};
pub use transport::{Trust, TrustError};
pub use unpack::{LayerError, Limits, Unpacked};
