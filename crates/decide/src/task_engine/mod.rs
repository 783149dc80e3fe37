//! The agent's brain: what to pull, start, signal, report and forget next for the tasks of one host.
//!
//! A pure state machine. Whoever acts feeds [`Event`]s into [`TaskEngine::step`] and carries out the [`Action`]s that
//! it returns, in their order. Every action that names an answer is answered by exactly one event, be it a failure:
//! the engine keeps no clock on pulls and launches. What an action needs beyond its names (image, command, addresses)
//! stays with the actor: the engine holds only what it decides by.
//!
//! The rules are the stock ECS agent's, as observed and documented, with two deliberate differences: images are
//! prepared before `dependsOn` is satisfied, and creating and starting a container is one action.

mod dependencies;
mod engine;
mod health;
mod message;
mod queue;
#[cfg(test)]
mod random_tests;
mod report;
mod spec;
mod steps;
mod task;
#[cfg(test)]
mod tests;
mod view;

pub use engine::{EngineConfig, TaskEngine};
pub use health::{Health, HealthRules};
pub use message::{
    Action, ContainerChange, Event, Exit, Found, PullTimes, Signal, Submission, SubmitFailure,
};
pub use queue::Capacity;
pub use spec::{
    ContainerSpec, Dependency, Failure, FailureKind, HostPort, NetworkBinding, RestartPolicy, TaskArn,
    TaskSpec,
};
pub use task::{Task, TaskPhase};
pub use view::{ContainerView, KnownStatus};
