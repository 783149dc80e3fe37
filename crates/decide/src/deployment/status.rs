//! The life of a service deployment, from the request that began it to its end.

use serde::{Deserialize, Serialize};

/// ECS's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceDeploymentStatus {
    /// Asked for; nothing was done yet.
    Pending,
    InProgress,
    Successful,
    /// A newer deployment took its place, or it failed and there is to be no rollback.
    StopRequested,
    Stopped,
    /// The user wants the revision before.
    RollbackRequested,
    RollbackInProgress,
    RollbackSuccessful,
    RollbackFailed,
}

use ServiceDeploymentStatus::*;

impl ServiceDeploymentStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Pending => "PENDING",
            InProgress => "IN_PROGRESS",
            Successful => "SUCCESSFUL",
            StopRequested => "STOP_REQUESTED",
            Stopped => "STOPPED",
            RollbackRequested => "ROLLBACK_REQUESTED",
            RollbackInProgress => "ROLLBACK_IN_PROGRESS",
            RollbackSuccessful => "ROLLBACK_SUCCESSFUL",
            RollbackFailed => "ROLLBACK_FAILED",
        }
    }

    /// It stays as it is for good.
    pub fn is_over(self) -> bool {
        matches!(self, Successful | Stopped | RollbackSuccessful | RollbackFailed)
    }

    /// Whether ECS's documented machine has this step.
    pub fn may_become(self, next: ServiceDeploymentStatus) -> bool {
        match self {
            Pending => matches!(next, InProgress | RollbackRequested | StopRequested | Stopped),
            InProgress => {
                matches!(next, Successful | StopRequested | RollbackRequested | RollbackInProgress | Stopped)
            }
            StopRequested => matches!(next, Stopped | RollbackRequested),
            RollbackRequested => matches!(next, RollbackInProgress | Successful | Stopped),
            // A newer deployment in its midst fails it: the machine has no other way out.
            RollbackInProgress => matches!(next, RollbackSuccessful | RollbackFailed),
            Successful | Stopped | RollbackSuccessful | RollbackFailed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ServiceDeploymentStatus; 9] = [
        Pending,
        InProgress,
        Successful,
        StopRequested,
        Stopped,
        RollbackRequested,
        RollbackInProgress,
        RollbackSuccessful,
        RollbackFailed,
    ];

    #[test]
    fn what_is_over_stays_and_everything_else_can_end() {
        for status in ALL {
            let next: Vec<_> = ALL.into_iter().filter(|next| status.may_become(*next)).collect();
            assert_eq!(next.is_empty(), status.is_over(), "{status:?}");
            let mut reached = next;
            for _ in ALL {
                let further: Vec<_> = ALL
                    .into_iter()
                    .filter(|next| reached.iter().any(|status| status.may_become(*next)))
                    .collect();
                reached.extend(further);
            }
            assert!(status.is_over() || reached.iter().any(|status| status.is_over()), "{status:?}");
            assert!(!reached.contains(&status), "{status:?} comes back");
        }
    }
}
