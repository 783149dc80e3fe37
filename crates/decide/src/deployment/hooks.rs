//! Lifecycle hooks: what a deployment waits for before it goes on to its next stage.

use super::stage::Stage;
use crate::mutant;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// ECS's default and bounds for a hook that pauses, in minutes.
pub const MINUTES_DEFAULT: u32 = 1440;
pub const MINUTES_MAX: u32 = 20_160;

/// What is done about a hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HookAction {
    Continue,
    #[default]
    Rollback,
}

impl HookAction {
    pub fn as_str(self) -> &'static str {
        match self {
            HookAction::Continue => "CONTINUE",
            HookAction::Rollback => "ROLLBACK",
        }
    }
}

/// A hook as it is configured. All of them pause: ECS's other kind calls functions of AWS Lambda, and there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub stages: Vec<Stage>,
    /// How long it waits for somebody, in minutes; at most [`MINUTES_MAX`].
    pub timeout_minutes: u32,
    /// What follows when nobody came.
    pub timeout_action: HookAction,
}

/// How far a hook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HookStatus {
    /// Somebody has to say how it goes on.
    AwaitingAction,
    Succeeded,
    Failed,
    TimedOut,
}

impl HookStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            HookStatus::AwaitingAction => "AWAITING_ACTION",
            HookStatus::Succeeded => "SUCCEEDED",
            HookStatus::Failed => "FAILED",
            HookStatus::TimedOut => "TIMED_OUT",
        }
    }
}

/// A hook at the stage that a deployment is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRun {
    /// What users name it by.
    pub id: String,
    pub status: HookStatus,
    pub expires_at: Timestamp,
    pub timeout_action: HookAction,
}

impl HookRun {
    /// It begins to wait.
    pub fn begin(hook: &Hook, id: String, now: Timestamp) -> HookRun {
        let patience = Duration::from_secs(u64::from(hook.timeout_minutes) * 60);
        HookRun {
            id,
            status: HookStatus::AwaitingAction,
            expires_at: now + patience,
            timeout_action: hook.timeout_action,
        }
    }

    /// Somebody says how it goes on; false if it does not wait for that (any more).
    pub fn resolve(&mut self, action: HookAction, now: Timestamp) -> bool {
        if self.status_at(now) != HookStatus::AwaitingAction {
            return false;
        }
        self.status = match action {
            HookAction::Continue => HookStatus::Succeeded,
            HookAction::Rollback => HookStatus::Failed,
        };
        true
    }

    /// Its status, whether or not anybody has noted that its time is over.
    pub fn status_at(&self, now: Timestamp) -> HookStatus {
        match self.status {
            HookStatus::AwaitingAction if self.expires_at <= now => HookStatus::TimedOut,
            status => status,
        }
    }
}

/// What the hooks of a stage mean for the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Passed,
    /// It waits, at the longest until then.
    Waits(Timestamp),
    /// One of them wants it to go back.
    Failed,
}

/// All of them have to pass.
pub fn verdict(runs: &[HookRun], now: Timestamp) -> Verdict {
    let failed = |run: &HookRun| match run.status_at(now) {
        HookStatus::Failed => true,
        HookStatus::TimedOut => {
            run.timeout_action == HookAction::Rollback && !mutant::is("hooks that time out pass")
        }
        HookStatus::AwaitingAction | HookStatus::Succeeded => false,
    };
    if runs.iter().any(failed) {
        return Verdict::Failed;
    }
    let waiting = runs.iter().filter(|run| {
        run.status_at(now) == HookStatus::AwaitingAction && !mutant::is("hooks not waited for")
    });
    waiting.map(|run| run.expires_at).min().map_or(Verdict::Passed, Verdict::Waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(timeout_minutes: u32, timeout_action: HookAction) -> HookRun {
        let hook = Hook { stages: vec![Stage::PreScaleUp], timeout_minutes, timeout_action };
        HookRun::begin(&hook, "a".to_owned(), Timestamp::EPOCH)
    }

    fn minute(minutes: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(minutes * 60)
    }

    #[test]
    fn all_hooks_of_a_stage_have_to_pass() {
        let mut runs = [run(1, HookAction::Continue), run(2, HookAction::Rollback)];
        assert_eq!(verdict(&[], minute(0)), Verdict::Passed);
        assert_eq!(verdict(&runs, minute(0)), Verdict::Waits(minute(1)));
        assert_eq!(verdict(&runs, minute(1)), Verdict::Waits(minute(2)));
        assert_eq!(verdict(&runs, minute(2)), Verdict::Failed);
        assert!(runs[1].resolve(HookAction::Continue, minute(1)));
        assert_eq!(verdict(&runs, minute(9)), Verdict::Passed);
        assert!(!runs[1].resolve(HookAction::Rollback, minute(1)), "it is settled");
        assert!(!runs[0].resolve(HookAction::Rollback, minute(1)), "its time is over");
    }
}
