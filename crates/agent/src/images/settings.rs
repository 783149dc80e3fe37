//! What an operator can say about images: when they are pulled and how, how long they stay, how full the disk may get.

use super::cleanup::CleanupRules;
use super::disk::DiskRules;
use super::policy::PullBehavior;
use super::pull::PullOptions;
use std::time::Duration;

/// All settings of an agent's images. The defaults are the stock agent's where it has the setting.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    pub pull_behavior: PullBehavior,
    pub pull: PullOptions,
    /// Between two rounds of clean-up (`ECS_IMAGE_CLEANUP_INTERVAL`); none if images stay until they are removed by hand
    /// (`ECS_DISABLE_IMAGE_CLEANUP`).
    pub cleanup_interval: Option<Duration>,
    pub cleanup: CleanupRules,
    pub disk: DiskRules,
}

impl Default for ImageSettings {
    fn default() -> Self {
        ImageSettings {
            pull_behavior: PullBehavior::Default,
            pull: PullOptions::default(),
            cleanup_interval: Some(Duration::from_secs(30 * 60)),
            cleanup: CleanupRules::default(),
            disk: DiskRules::default(),
        }
    }
}
