//! Whether to pull: ECS's four pull behaviours as a function of what is in the store.

use super::store::Source;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// `ECS_IMAGE_PULL_BEHAVIOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullBehavior {
    /// Try the registry; what is cached serves if that fails.
    #[default]
    Default,
    /// The registry or nothing.
    Always,
    /// Only what was never fetched by this agent.
    Once,
    /// Only what is not here.
    PreferCached,
}

/// Text that names none of the behaviours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image pull behavior is one of default, always, once, prefer-cached")]
pub struct InvalidPullBehavior;

impl FromStr for PullBehavior {
    type Err = InvalidPullBehavior;

    fn from_str(text: &str) -> Result<Self, InvalidPullBehavior> {
        match text {
            "default" => Ok(PullBehavior::Default),
            "always" => Ok(PullBehavior::Always),
            "once" => Ok(PullBehavior::Once),
            "prefer-cached" => Ok(PullBehavior::PreferCached),
            _ => Err(InvalidPullBehavior),
        }
    }
}

impl fmt::Display for PullBehavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PullBehavior::Default => "default",
            PullBehavior::Always => "always",
            PullBehavior::Once => "once",
            PullBehavior::PreferCached => "prefer-cached",
        })
    }
}

/// What the store has under the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    pub source: Source,
    /// The name itself carries the digest: the registry cannot have anything else.
    pub pinned: bool,
}

/// What to do if the pull fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    UseCached,
    Fail,
}

/// What to do about one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPlan {
    UseCached,
    Pull(OnFailure),
}

/// Decides what to do. Images that the operator loaded and those that Gantry carries have no registry that we know
/// of: only `always` asks one for a loaded image, nothing does for a carried one.
pub fn plan(behavior: PullBehavior, cached: Option<Cached>) -> PullPlan {
    let Some(cached) = cached else { return PullPlan::Pull(OnFailure::Fail) };
    match (cached.source, behavior) {
        (Source::Sample, _) => PullPlan::UseCached,
        (_, PullBehavior::Always) => PullPlan::Pull(OnFailure::Fail),
        (_, PullBehavior::Once | PullBehavior::PreferCached) => PullPlan::UseCached,
        (Source::Loaded, PullBehavior::Default) => PullPlan::UseCached,
        (Source::Pulled, PullBehavior::Default) if cached.pinned => PullPlan::UseCached,
        (Source::Pulled, PullBehavior::Default) => PullPlan::Pull(OnFailure::UseCached),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: [PullBehavior; 4] =
        [PullBehavior::Default, PullBehavior::Always, PullBehavior::Once, PullBehavior::PreferCached];

    fn cached(source: Source) -> Option<Cached> {
        Some(Cached { source, pinned: false })
    }

    #[test]
    fn what_is_not_here_is_pulled() {
        for behavior in ALL {
            assert_eq!(plan(behavior, None), PullPlan::Pull(OnFailure::Fail));
            assert_eq!(behavior.to_string().parse::<PullBehavior>().unwrap(), behavior);
        }
        assert!("never".parse::<PullBehavior>().is_err());
    }

    #[test]
    fn what_was_pulled_before_depends_on_the_behaviour() {
        let pulled = cached(Source::Pulled);
        let answers = ALL.map(|behavior| plan(behavior, pulled));
        let (ask, must) = (PullPlan::Pull(OnFailure::UseCached), PullPlan::Pull(OnFailure::Fail));
        assert_eq!(answers, [ask, must, PullPlan::UseCached, PullPlan::UseCached]);
        let pinned = Some(Cached { source: Source::Pulled, pinned: true });
        assert_eq!(plan(PullBehavior::Default, pinned), PullPlan::UseCached);
    }

    #[test]
    fn what_has_no_registry_is_not_asked_for() {
        for behavior in ALL {
            assert_eq!(plan(behavior, cached(Source::Sample)), PullPlan::UseCached);
        }
        assert_eq!(plan(PullBehavior::Default, cached(Source::Loaded)), PullPlan::UseCached);
        assert_eq!(plan(PullBehavior::Always, cached(Source::Loaded)), PullPlan::Pull(OnFailure::Fail));
    }
}
