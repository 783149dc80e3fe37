//! Handlers by resource.

pub mod activity;
pub mod group;
pub mod hook;
pub mod instance;
pub mod launch_configuration;
pub mod process;
pub mod tag;
pub mod word;

/// Records of a page, at most and by default: AWS's.
const PAGE_MAX: i32 = 100;
const PAGE_DEFAULT: i32 = 50;
