//! The lives of tasks and containers: states that know their order.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Text that names no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known status")]
pub struct UnknownStatus;

/// An enum shown and stored in AWS's words.
macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)* }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownStatus;

            fn from_str(text: &str) -> Result<Self, UnknownStatus> {
                match text { $($text => Ok($name::$variant),)* _ => Err(UnknownStatus) }
            }
        }
    )*};
}

statuses! {
    /// Where a task is. A task only moves forward in this order; a state without work for it is skipped.
    LastStatus {
        /// Work before the agent hears of it; also waiting for capacity.
        Provisioning "PROVISIONING",
        /// With the agent, which pulls and creates.
        Pending "PENDING",
        /// Registered with target groups and service discovery.
        Activating "ACTIVATING",
        Running "RUNNING",
        /// Deregistered and drained.
        Deactivating "DEACTIVATING",
        /// Signalled; its containers have not all ended.
        Stopping "STOPPING",
        /// Its network interface and volumes are taken away.
        Deprovisioning "DEPROVISIONING",
        Stopped "STOPPED",
    }
    /// What a task should be. Never goes back.
    DesiredStatus {
        Running "RUNNING",
        Stopped "STOPPED",
    }
    /// Where a container is, as users see it.
    ContainerStatus {
        Pending "PENDING",
        Running "RUNNING",
        Stopped "STOPPED",
    }
    /// What a container's health check says.
    HealthStatus {
        Unknown "UNKNOWN",
        Healthy "HEALTHY",
        Unhealthy "UNHEALTHY",
    }
    /// Why a task stopped.
    StopCode {
        /// Something prevented RUNNING.
        TaskFailedToStart "TaskFailedToStart",
        /// An essential container ended, whatever its exit code.
        EssentialContainerExited "EssentialContainerExited",
        UserInitiated "UserInitiated",
        ServiceSchedulerInitiated "ServiceSchedulerInitiated",
        SpotInterruption "SpotInterruption",
        TerminationNotice "TerminationNotice",
    }
}

impl LastStatus {
    pub fn is_stopped(self) -> bool {
        self == LastStatus::Stopped
    }

    /// Whether `next` may follow. States may be skipped, never repeated or taken back.
    pub fn may_become(self, next: LastStatus) -> bool {
        self < next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_only_move_forward() {
        assert!(LastStatus::Provisioning.may_become(LastStatus::Pending));
        assert!(LastStatus::Pending.may_become(LastStatus::Running));
        assert!(LastStatus::Pending.may_become(LastStatus::Stopped));
        assert!(!LastStatus::Running.may_become(LastStatus::Running));
        assert!(!LastStatus::Stopped.may_become(LastStatus::Running));
    }

    #[test]
    fn statuses_read_back_what_they_show() {
        for status in [LastStatus::Provisioning, LastStatus::Deprovisioning, LastStatus::Stopped] {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("running".parse::<DesiredStatus>(), Err(UnknownStatus));
    }
}
