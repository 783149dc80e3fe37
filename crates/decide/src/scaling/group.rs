//! What an Auto Scaling group does next: one function of its settings, its instances and the time.
//!
//! It is level-triggered. Each call names the steps that are due; whoever carries them out asks again until none is.

use super::lifecycle::{ActionResult, LifecycleState, MachineState};
use super::termination::{self, TerminationPolicy};
use crate::mutant;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Instances launched or chosen to go in one call: keeps a step short; the next call goes on.
pub const STEPS_MAX: usize = 50;

/// After the first failed round of launches, doubled by each further one up to the last: a provider that cannot launch is not
/// asked without end, and one that only stumbled loses little time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(300);

/// What a group wants.
#[derive(Clone, Debug)]
pub struct Group {
    pub desired: u32,
    pub zones: Vec<String>,
    pub policies: Vec<TerminationPolicy>,
    /// `Launch`, `Terminate` and `ReplaceUnhealthy`: whether the group may do so.
    pub may_launch: bool,
    pub may_terminate: bool,
    pub replaces_unhealthy: bool,
    /// It is to go, with everything that it has, and no hook holds that up.
    pub deleting: bool,
    /// Rounds of launches that failed since one succeeded, and when the last of those launches did.
    pub failures: u32,
    pub failed_at: Option<Timestamp>,
}

/// A lifecycle action that holds an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When it counts as answered by its default result, unless a heartbeat comes before.
    pub until: Timestamp,
    pub default: ActionResult,
}

/// What the decision knows of an instance.
#[derive(Clone, Debug)]
pub struct Instance<K> {
    pub key: K,
    pub state: LifecycleState,
    pub machine: MachineState,
    pub healthy: bool,
    pub protected: bool,
    pub zone: String,
    pub launched_at: Timestamp,
    /// Rises with the launch template's version or the launch configuration's age: the oldest is the least.
    pub launch_age: u64,
    /// The actions that hold it, where its state says that some do.
    pub waits: Vec<Wait>,
}

/// Why an instance goes without having been asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There are more than desired.
    Surplus,
    Unhealthy,
    /// Its launching hook was abandoned.
    LaunchAbandoned,
    GroupDeleted,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<K> {
    /// Make an instance in this zone.
    Launch {
        zone: String,
    },
    /// Its machine runs: it enters the launching hooks, or service where there is none.
    Launched(K),
    /// Nothing holds it any more.
    IntoService(K),
    /// Its machine could not be made: the instance is forgotten, and the failure told.
    LaunchFailed(K),
    Terminate {
        instance: K,
        reason: Reason,
    },
    /// It enters the terminating hooks, or loses its machine where there is none.
    Leave(K),
    /// Nothing holds its machine any more.
    Release(K),
    /// Nothing of it is left.
    Forget(K),
    /// The group and all that it had are gone.
    RemoveGroup,
}

/// The steps that are due, and when to look again though nothing changes.
pub fn next<K: Ord + Clone>(
    group: &Group,
    instances: &[Instance<K>],
    now: Timestamp,
) -> (Vec<Step<K>>, Option<Timestamp>) {
    let mut steps = Vec::new();
    let mut again: Option<Timestamp> = None;
    for instance in instances {
        advance(group, instance, now, &mut steps, &mut again);
    }
    if group.deleting {
        if instances.is_empty() {
            steps.push(Step::RemoveGroup);
        }
        return (steps, again);
    }
    // What was just chosen to go counts no more.
    let going = |key: &K| {
        steps.iter().any(|step| match step {
            Step::Terminate { instance, .. } | Step::LaunchFailed(instance) => instance == key,
            _ => false,
        })
    };
    let mut left: Vec<Instance<K>> =
        instances.iter().filter(|i| i.state.counts() && !going(&i.key)).cloned().collect();
    let desired = group.desired as usize;
    // What just failed counts with the next look: then it is known how long to wait.
    let failing = steps.iter().any(|step| matches!(step, Step::LaunchFailed(_)));
    if left.len() < desired && group.may_launch && !failing && !group.zones.is_empty() {
        match retry_at(group).filter(|at| *at > now) {
            Some(at) => again = Some(again.map_or(at, |other| other.min(at))),
            None => launch(group, &left, (desired - left.len()).min(STEPS_MAX), &mut steps),
        }
    }
    if left.len() > desired && group.may_terminate {
        for _ in 0..(left.len() - desired).min(STEPS_MAX) {
            let Some(key) = termination::choose(left.iter(), &group.policies, now).map(|i| i.key.clone())
            else {
                break;
            };
            left.retain(|instance| instance.key != key);
            steps.push(Step::Terminate { instance: key, reason: Reason::Surplus });
        }
    }
    (steps, again)
}

/// How many rounds have failed with one more launch: those that were begun before the last failure was known were one try.
pub fn failed_rounds(failures: u32, failed_at: Option<Timestamp>, launched_at: Timestamp) -> u32 {
    let is_new = failures == 0 || failed_at.is_none_or(|failed_at| failed_at < launched_at);
    failures.saturating_add(u32::from(is_new))
}

/// When a group that failed to launch tries again.
fn retry_at(group: &Group) -> Option<Timestamp> {
    let doublings = group.failures.checked_sub(1)?.min(10);
    Some(group.failed_at? + (RETRY_FIRST * (1 << doublings)).min(RETRY_LAST))
}

/// The next step of one instance on its way.
fn advance<K: Clone>(
    group: &Group,
    instance: &Instance<K>,
    now: Timestamp,
    steps: &mut Vec<Step<K>>,
    again: &mut Option<Timestamp>,
) {
    let key = || instance.key.clone();
    if group.deleting && instance.state.counts() {
        steps.push(Step::Terminate { instance: key(), reason: Reason::GroupDeleted });
        return;
    }
    let due = |result: ActionResult| {
        let mut over = instance.waits.iter().filter(|wait| wait.until <= now);
        over.any(|wait| wait.default == result)
    };
    match instance.state {
        LifecycleState::Pending => match instance.machine {
            MachineState::Running => steps.push(Step::Launched(key())),
            MachineState::Failed | MachineState::Gone => steps.push(Step::LaunchFailed(key())),
            MachineState::Wanted | MachineState::Unwanted => {}
        },
        LifecycleState::PendingWait if due(ActionResult::Abandon) => {
            steps.push(Step::Terminate { instance: key(), reason: Reason::LaunchAbandoned });
        }
        LifecycleState::PendingWait if instance.waits.iter().all(|wait| wait.until <= now) => {
            steps.push(Step::IntoService(key()));
        }
        LifecycleState::InService => {
            let sick = !instance.healthy || instance.machine != MachineState::Running;
            let stays = mutant::is("lost machines not replaced");
            if sick && group.replaces_unhealthy && group.may_terminate && !stays {
                steps.push(Step::Terminate { instance: key(), reason: Reason::Unhealthy });
            }
        }
        LifecycleState::Terminating => steps.push(Step::Leave(key())),
        // To abandon a termination ends all of its actions; the instance goes either way.
        LifecycleState::TerminatingWait
            if group.deleting
                || due(ActionResult::Abandon)
                || instance.machine == MachineState::Failed
                || instance.waits.iter().all(|wait| wait.until <= now) =>
        {
            steps.push(Step::Release(key()));
        }
        LifecycleState::PendingWait | LifecycleState::TerminatingWait => {
            let first = instance.waits.iter().map(|wait| wait.until).filter(|at| *at > now).min();
            *again = [*again, first].into_iter().flatten().min();
        }
        LifecycleState::TerminatingProceed => {
            if instance.machine == MachineState::Gone {
                steps.push(Step::Forget(key()));
            }
        }
    }
}

/// Each into the zone with the fewest, in the order in which the group names them.
fn launch<K>(group: &Group, left: &[Instance<K>], count: usize, steps: &mut Vec<Step<K>>) {
    let mut in_zone: BTreeMap<&str, usize> = group.zones.iter().map(|zone| (zone.as_str(), 0)).collect();
    for instance in left {
        if let Some(count) = in_zone.get_mut(instance.zone.as_str()) {
            *count += 1;
        }
    }
    for _ in 0..count {
        let Some(zone) = group.zones.iter().min_by_key(|zone| in_zone[zone.as_str()]) else { return };
        *in_zone.entry(zone).or_default() += 1;
        steps.push(Step::Launch { zone: zone.clone() });
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// An instance that serves: the higher its key, the younger.
    pub fn in_service(key: u32, zone: &str) -> Instance<u32> {
        Instance {
            key,
            state: LifecycleState::InService,
            machine: MachineState::Running,
            healthy: true,
            protected: false,
            zone: zone.to_owned(),
            launched_at: Timestamp::from_millis(i64::from(key) * 1000),
            launch_age: 0,
            waits: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
