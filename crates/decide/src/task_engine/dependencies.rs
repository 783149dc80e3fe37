//! Start order: whether a container may start, must wait, or never will.

use super::task::{Container, Phase};
use crate::lifecycle::HealthStatus;
use crate::task::ContainerCondition;
use crate::time::Timestamp;

/// What a container's dependencies say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Satisfied,
    /// Until something happens, or at the latest until this time.
    Waits(Option<Timestamp>),
    /// A condition cannot come true any more; why.
    Never(String),
}

/// Evaluates all dependencies of `container`; one that cannot be satisfied decides.
pub(super) fn readiness(container: &Container, all: &[Container], now: Timestamp) -> Readiness {
    let mut result = Readiness::Satisfied;
    for dependency in &container.spec.depends_on {
        let Some(other) = all.iter().find(|other| other.spec.name == dependency.container) else {
            return Readiness::Never(format!("container {} is not part of the task", dependency.container));
        };
        match one(other, dependency.condition, now) {
            Readiness::Satisfied => {}
            Readiness::Never(why) => return Readiness::Never(why),
            Readiness::Waits(until) => {
                let earliest = match &result {
                    Readiness::Waits(Some(known)) => Some(until.map_or(*known, |until| until.min(*known))),
                    _ => until,
                };
                result = Readiness::Waits(earliest);
            }
        }
    }
    result
}

fn one(other: &Container, condition: ContainerCondition, now: Timestamp) -> Readiness {
    let name = &other.spec.name;
    let stopped = other.phase == Phase::Stopped;
    let code = other.exit.and_then(|exit| exit.code);
    if stopped && other.started_at.is_none() {
        return Readiness::Never(format!("container {name} did not start"));
    }
    let satisfied = match condition {
        ContainerCondition::Start => stopped || matches!(other.phase, Phase::Running | Phase::Restarting),
        ContainerCondition::Complete => stopped && code.is_some(),
        ContainerCondition::Success => stopped && code == Some(0),
        ContainerCondition::Healthy => !stopped && other.health == HealthStatus::Healthy,
    };
    if satisfied {
        return Readiness::Satisfied;
    }
    if stopped {
        return Readiness::Never(format!("container {name} ended without satisfying {condition}"));
    }
    let deadline = match (condition, other.started_at, other.spec.start_timeout) {
        (ContainerCondition::Start, ..) => None,
        (_, Some(started), Some(timeout)) => Some(started + timeout),
        _ => None,
    };
    match deadline {
        Some(deadline) if deadline <= now => {
            Readiness::Never(format!("container {name} did not satisfy {condition} within its startTimeout"))
        }
        _ => Readiness::Waits(deadline),
    }
}

/// Whether some containers wait for each other.
pub(super) fn has_cycle(containers: &[Container]) -> bool {
    let mut placed = vec![false; containers.len()];
    loop {
        let mut progress = false;
        for (index, container) in containers.iter().enumerate() {
            let free = container.spec.depends_on.iter().all(|dependency| {
                containers
                    .iter()
                    .position(|other| other.spec.name == dependency.container)
                    // A name that does not exist is no cycle; it is found when the container wants to start.
                    .is_none_or(|other| placed[other])
            });
            if free && !placed[index] {
                placed[index] = true;
                progress = true;
            }
        }
        if !progress {
            return placed.contains(&false);
        }
    }
}
