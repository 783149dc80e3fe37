//! The words of an instance's life in a group.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where an instance is in its life, as `LifecycleState` tells it. A terminated one is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LifecycleState {
    /// Its machine is being made.
    Pending,
    /// Its machine runs, and a launching hook holds it.
    PendingWait,
    InService,
    /// Chosen to go; nothing was done to it yet.
    Terminating,
    /// A terminating hook holds it.
    TerminatingWait,
    /// Its machine is being destroyed.
    TerminatingProceed,
}

impl LifecycleState {
    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            LifecycleState::Pending => "Pending",
            LifecycleState::PendingWait => "Pending:Wait",
            LifecycleState::InService => "InService",
            LifecycleState::Terminating => "Terminating",
            LifecycleState::TerminatingWait => "Terminating:Wait",
            LifecycleState::TerminatingProceed => "Terminating:Proceed",
        }
    }

    /// Whether hooks hold it.
    pub fn is_waiting(self) -> bool {
        matches!(self, LifecycleState::PendingWait | LifecycleState::TerminatingWait)
    }

    /// Whether it counts towards the desired capacity.
    pub fn counts(self) -> bool {
        matches!(self, LifecycleState::Pending | LifecycleState::PendingWait | LifecycleState::InService)
    }
}

impl fmt::Display for LifecycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of the machine behind an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineState {
    /// To be made; the provider may be at it.
    Wanted,
    Running,
    /// It could not be made, or vanished.
    Failed,
    /// To be destroyed; the provider may be at it.
    Unwanted,
    /// Nothing is left of it.
    Gone,
}

/// At which turn of an instance's life a hook holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transition {
    Launching,
    Terminating,
}

impl Transition {
    pub const ALL: [Transition; 2] = [Transition::Launching, Transition::Terminating];

    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Transition::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Transition::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        }
    }

    pub fn read(text: &str) -> Option<Transition> {
        Transition::ALL.into_iter().find(|transition| transition.as_str() == text)
    }
}

/// How a lifecycle action ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionResult {
    Continue,
    Abandon,
}

impl ActionResult {
    pub fn as_str(self) -> &'static str {
        match self {
            ActionResult::Continue => "CONTINUE",
            ActionResult::Abandon => "ABANDON",
        }
    }

    pub fn read(text: &str) -> Option<ActionResult> {
        [ActionResult::Continue, ActionResult::Abandon].into_iter().find(|result| result.as_str() == text)
    }
}

/// Processes of a group that a user can suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Process {
    AZRebalance,
    AddToLoadBalancer,
    AlarmNotification,
    HealthCheck,
    InstanceRefresh,
    Launch,
    ReplaceUnhealthy,
    ScheduledActions,
    Terminate,
}

impl Process {
    /// In the order of their names.
    pub const ALL: [Process; 9] = [
        Process::AZRebalance,
        Process::AddToLoadBalancer,
        Process::AlarmNotification,
        Process::HealthCheck,
        Process::InstanceRefresh,
        Process::Launch,
        Process::ReplaceUnhealthy,
        Process::ScheduledActions,
        Process::Terminate,
    ];

    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Process::AZRebalance => "AZRebalance",
            Process::AddToLoadBalancer => "AddToLoadBalancer",
            Process::AlarmNotification => "AlarmNotification",
            Process::HealthCheck => "HealthCheck",
            Process::InstanceRefresh => "InstanceRefresh",
            Process::Launch => "Launch",
            Process::ReplaceUnhealthy => "ReplaceUnhealthy",
            Process::ScheduledActions => "ScheduledActions",
            Process::Terminate => "Terminate",
        }
    }

    pub fn read(text: &str) -> Option<Process> {
        Process::ALL.into_iter().find(|process| process.as_str() == text)
    }
}
