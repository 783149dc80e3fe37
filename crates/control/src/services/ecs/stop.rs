//! Stopping tasks: who wants it and why is written down here; agents and the tasks controller do the rest.

use super::state::Task;
use gantry_decide::lifecycle::{DesiredStatus, LastStatus, StopCode};
use gantry_decide::time::Timestamp;

/// ECS's limit for `stoppedReason`, in characters.
pub const REASON_LENGTH_MAX: usize = 1024;

impl Task {
    /// What its agent is to bring about: a task that drains runs on.
    pub fn wanted_of_agent(&self) -> DesiredStatus {
        match self.last_status {
            LastStatus::Deactivating => DesiredStatus::Running,
            _ => self.desired_status,
        }
    }

    /// Asks for the task's end. False when that was asked before: the first reason stays.
    pub fn request_stop(&mut self, code: StopCode, reason: &str, now: Timestamp) -> bool {
        if self.desired_status == DesiredStatus::Stopped {
            return false;
        }
        self.desired_status = DesiredStatus::Stopped;
        self.stop_code = Some(code);
        self.stopped_reason = Some(reason.chars().take(REASON_LENGTH_MAX).collect());
        self.stopping_at = Some(now);
        if self.last_status == LastStatus::Running {
            self.last_status = LastStatus::Deactivating;
        }
        self.version += 1;
        true
    }
}
