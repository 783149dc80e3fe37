//! Task definitions: their typed form, the rules and defaults of registration, and overrides.

pub mod attributes;
pub mod definition;
pub mod fargate;
pub mod kinds;
pub mod launch_volume;
pub mod overrides;
pub mod proxy;
pub mod units;
pub mod validate;
pub mod volume;

pub use definition::*;
pub use kinds::*;
pub use overrides::{ContainerOverride, OverrideError, TaskOverride};
pub use units::{CpuUnits, InvalidUnits, MemoryMib};
pub use validate::{DefinitionError, validate};
pub use volume::*;
