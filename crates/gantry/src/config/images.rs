//! Settings of images and of what stopped tasks leave: flags, the stock agent's environment variables where it has the
//! setting, and the table `[images]` of the file.

use super::period::Period;
use anyhow::{Context, Result, ensure};
use clap::Args;
use gantry_agent::images::{
    CleanupRules, DiskRules, EngineAuth, ImageSettings, PullBehavior, PullOptions, Reference, Trust,
};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a stopped task's remains are kept: ECS's default.
pub const TASK_CLEANUP_WAIT: Duration = Duration::from_secs(3 * 3600);
/// Waits below it would be spent looking.
const PERIOD_MIN: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// What the command line, the environment or the file say.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[command(next_help_heading = "Images")]
pub struct ImageFlags {
    /// When images are pulled: default, always, once or prefer-cached
    #[arg(long, alias = "pull", value_name = "WHEN", env = "ECS_IMAGE_PULL_BEHAVIOR")]
    image_pull_behavior: Option<PullBehavior>,
    /// For a whole pull; 2h unless told otherwise
    #[arg(long, value_name = "TIME", env = "ECS_IMAGE_PULL_TIMEOUT")]
    image_pull_timeout: Option<Period>,
    /// Without a byte from the registry, before the pull is begun again where it stands; 1m unless told otherwise
    #[arg(long, value_name = "TIME", env = "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT")]
    image_pull_inactivity_timeout: Option<Period>,
    /// A Docker client's config.json with credentials for registries; ECS_ENGINE_AUTH_TYPE and ECS_ENGINE_AUTH_DATA win
    #[arg(long, value_name = "FILE", env = "GANTRY_REGISTRY_CREDENTIALS")]
    registry_credentials: Option<PathBuf>,
    /// A PEM file with authorities that registries' certificates may come from; may be repeated
    #[arg(
        long = "registry-authority",
        value_name = "FILE",
        env = "GANTRY_REGISTRY_AUTHORITIES",
        value_delimiter = ','
    )]
    registry_authorities: Vec<PathBuf>,
    /// A registry that is spoken to without TLS, HOST or HOST:PORT, as those of this machine are; may be repeated
    #[arg(
        long = "insecure-registry",
        value_name = "REGISTRY",
        env = "GANTRY_INSECURE_REGISTRIES",
        value_delimiter = ','
    )]
    insecure_registries: Vec<String>,
    /// Keep images until they are removed by hand or the disk fills up
    #[arg(long, env = "ECS_DISABLE_IMAGE_CLEANUP", num_args = 0..=1, default_missing_value = "true")]
    disable_image_cleanup: Option<bool>,
    /// Between two rounds of image clean-up; 30m unless told otherwise
    #[arg(long, value_name = "TIME", env = "ECS_IMAGE_CLEANUP_INTERVAL")]
    image_cleanup_interval: Option<Period>,
    /// How long an image stays after it was pulled; 1h unless told otherwise
    #[arg(long, value_name = "TIME", env = "ECS_IMAGE_MINIMUM_CLEANUP_AGE")]
    image_minimum_cleanup_age: Option<Period>,
    /// Images removed in one round; 5 unless told otherwise
    #[arg(long, value_name = "COUNT", env = "ECS_NUM_IMAGES_DELETE_PER_CYCLE")]
    num_images_delete_per_cycle: Option<usize>,
    /// An image that is never removed; may be repeated
    #[arg(
        long = "keep-image",
        value_name = "IMAGE",
        env = "ECS_EXCLUDE_UNTRACKED_IMAGE",
        value_delimiter = ','
    )]
    keep_images: Vec<Reference>,
    /// Percent of the file system in use above which unused images go whatever their age; 90 unless told otherwise
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    image_disk_high: Option<u8>,
    /// Percent of the file system in use down to which they go; 80 unless told otherwise
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    image_disk_low: Option<u8>,
    /// MiB of the file system that pulls leave free; 5 % of it and at most 1024 unless told otherwise
    #[arg(long, value_name = "MIB")]
    image_disk_reserve: Option<u64>,
    /// How long what a stopped task leaves is kept; 3h unless told otherwise
    #[arg(long, value_name = "TIME", env = "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION")]
    task_cleanup_wait: Option<Period>,
}

/// The file of an agent that runs by itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    #[serde(default)]
    images: ImageFlags,
}

impl ImageFlags {
    /// What flags and environment say, and for the rest what the file says.
    pub fn over(self, file: &ImageFlags) -> ImageFlags {
        let either = |own: Vec<PathBuf>, other: &[PathBuf]| if own.is_empty() { other.to_vec() } else { own };
        let file = file.clone();
        ImageFlags {
            image_pull_behavior: self.image_pull_behavior.or(file.image_pull_behavior),
            image_pull_timeout: self.image_pull_timeout.or(file.image_pull_timeout),
            image_pull_inactivity_timeout: self
                .image_pull_inactivity_timeout
                .or(file.image_pull_inactivity_timeout),
            registry_credentials: self.registry_credentials.or(file.registry_credentials),
            registry_authorities: either(self.registry_authorities, &file.registry_authorities),
            insecure_registries: if self.insecure_registries.is_empty() {
                file.insecure_registries
            } else {
                self.insecure_registries
            },
            disable_image_cleanup: self.disable_image_cleanup.or(file.disable_image_cleanup),
            image_cleanup_interval: self.image_cleanup_interval.or(file.image_cleanup_interval),
            image_minimum_cleanup_age: self.image_minimum_cleanup_age.or(file.image_minimum_cleanup_age),
            num_images_delete_per_cycle: self
                .num_images_delete_per_cycle
                .or(file.num_images_delete_per_cycle),
            keep_images: if self.keep_images.is_empty() { file.keep_images } else { self.keep_images },
            image_disk_high: self.image_disk_high.or(file.image_disk_high),
            image_disk_low: self.image_disk_low.or(file.image_disk_low),
            image_disk_reserve: self.image_disk_reserve.or(file.image_disk_reserve),
            task_cleanup_wait: self.task_cleanup_wait.or(file.task_cleanup_wait),
        }
    }

    /// With what the table `[images]` of an agent's own file says, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or says something unknown.
    pub fn over_file(self, path: Option<&Path>) -> Result<ImageFlags> {
        let Some(path) = path else { return Ok(self) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: AgentFile = toml::from_str(&text)
            .with_context(|| format!("{} is not a configuration of an agent", path.display()))?;
        Ok(self.over(&file.images))
    }

    /// How long what a stopped task leaves is kept.
    ///
    /// # Errors
    /// When it is below a second.
    pub fn task_cleanup_wait(&self) -> Result<Duration> {
        period(self.task_cleanup_wait, TASK_CLEANUP_WAIT, "--task-cleanup-wait")
    }

    /// Everything put together, with the credentials that files and the stock agent's variables hold.
    ///
    /// # Errors
    /// When a file cannot be read, or a value makes no sense.
    pub fn settings(self) -> Result<ImageSettings> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut engine_auth = EngineAuth::default();
        if let Some(file) = &self.registry_credentials {
            engine_auth = EngineAuth::from_file(file).context("--registry-credentials")?;
        }
        if let Some(kind) = variable("ECS_ENGINE_AUTH_TYPE") {
            let data = variable("ECS_ENGINE_AUTH_DATA").unwrap_or_default();
            engine_auth = engine_auth.with(EngineAuth::parse(&kind, &data)?);
        }
        let (pull, cleanup, disk) = (PullOptions::default(), CleanupRules::default(), DiskRules::default());
        let disk = DiskRules {
            high: self.image_disk_high.unwrap_or(disk.high),
            low: self
                .image_disk_low
                .unwrap_or_else(|| self.image_disk_high.unwrap_or(disk.low).min(disk.low)),
            reserve: self.image_disk_reserve.map(|mib| mib.saturating_mul(MIB)),
        };
        ensure!(
            (1..=100).contains(&disk.low) && disk.low <= disk.high && disk.high <= 100,
            "--image-disk-low and --image-disk-high are percentages, the first not above the second"
        );
        let interval = period(
            self.image_cleanup_interval,
            ImageSettings::default().cleanup_interval.unwrap_or(PERIOD_MIN),
            "--image-cleanup-interval",
        )?;
        Ok(ImageSettings {
            pull_behavior: self.image_pull_behavior.unwrap_or_default(),
            pull: PullOptions {
                timeout: period(self.image_pull_timeout, pull.timeout, "--image-pull-timeout")?,
                inactivity: period(
                    self.image_pull_inactivity_timeout,
                    pull.inactivity,
                    "--image-pull-inactivity-timeout",
                )?,
                engine_auth,
                trust: Trust {
                    authorities: self.registry_authorities,
                    plain: self.insecure_registries.into_iter().collect(),
                },
                ..pull
            },
            cleanup_interval: (!self.disable_image_cleanup.unwrap_or(false)).then_some(interval),
            cleanup: CleanupRules {
                per_round: self.num_images_delete_per_cycle.unwrap_or(cleanup.per_round),
                minimum_age: self.image_minimum_cleanup_age.map_or(cleanup.minimum_age, |period| period.0),
                excluded: self.keep_images.into_iter().collect(),
            },
            disk,
        })
    }
}

fn period(asked: Option<Period>, default: Duration, flag: &str) -> Result<Duration> {
    let period = asked.map_or(default, |period| period.0);
    ensure!(period >= PERIOD_MIN, "{flag} is at least 1s");
    Ok(period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        images: ImageFlags,
    }

    fn flags(arguments: &[&str]) -> ImageFlags {
        Cli::try_parse_from([&["agent"], arguments].concat()).unwrap().images
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_stock_agents_defaults() {
        let settings = ImageFlags::default().settings().unwrap();
        assert_eq!(settings.cleanup_interval, Some(Duration::from_secs(1800)));
        assert_eq!(settings.cleanup.minimum_age, Duration::from_secs(3600));
        assert_eq!((settings.cleanup.per_round, settings.pull_behavior), (5, PullBehavior::Default));
        assert_eq!(settings.pull.inactivity, Duration::from_secs(60));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(
            &file,
            "[images]\nimage-pull-behavior = 'once'\nimage-pull-timeout = '10m'\nkeep-images = ['a']\n\
             insecure-registries = ['r:5000']",
        )
        .unwrap();
        let own = flags(&["--pull", "prefer-cached", "--disable-image-cleanup", "--image-disk-high", "70"]);
        let settings = own.over_file(Some(&file)).unwrap().settings().unwrap();
        assert_eq!(settings.pull_behavior, PullBehavior::PreferCached);
        assert_eq!(settings.pull.timeout, Duration::from_secs(600));
        assert_eq!(settings.cleanup_interval, None);
        assert!(settings.cleanup.excluded.contains(&"a".parse().unwrap()));
        assert!(settings.pull.trust.is_plain("r:5000"));
        assert_eq!((settings.disk.high, settings.disk.low), (70, 70));
        std::fs::write(&file, "[images]\npull = 'once'").unwrap();
        assert!(flags(&[]).over_file(Some(&file)).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(flags(&["--image-cleanup-interval", "0s"]).settings().is_err());
        assert!(flags(&["--image-disk-low", "95"]).settings().is_err());
        assert!(flags(&["--registry-credentials", "/nonexistent"]).settings().is_err());
        assert!(Cli::try_parse_from(["agent", "--image-disk-high", "101"]).is_err());
        assert!(Cli::try_parse_from(["agent", "--pull", "sometimes"]).is_err());
    }
}
