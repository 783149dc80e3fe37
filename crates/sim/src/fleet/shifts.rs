//! What must hold of deployments that shift traffic, judged by what the journal says of each before and after a step.

use gantry_control::services::ecs::state::{Service, ServiceDeployment, ServiceDeploymentKey};
use gantry_control::state::ScopeState;
use gantry_decide::deployment::hooks::{HookAction, HookRun, HookStatus};
use gantry_decide::deployment::shift::Shift;
use gantry_decide::deployment::stage::Stage;
use gantry_decide::deployment::status::ServiceDeploymentStatus as Status;
use gantry_decide::deployment::strategy::Strategy;
use gantry_decide::deployment::traffic::Weights;
use gantry_decide::ids::ServiceRevisionId;
use gantry_decide::time::Timestamp;
use gantry_store::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A deployment as it was last written.
#[derive(Clone, Debug)]
struct Seen {
    status: Status,
    shift: Option<Shift>,
    /// The production traffic of each time at which it changed, the last one last: a crash may take some of them back.
    moves: Vec<(Weights, Timestamp)>,
}

impl Seen {
    fn moved_at(&self) -> Option<Timestamp> {
        self.moves.last().map(|(_, at)| *at)
    }
}

/// What two revisions of a service are to a deployment that shifts its traffic, as ids of those who started their tasks.
#[derive(Clone, Debug)]
pub struct Sides {
    pub source: Option<String>,
    pub target: Option<String>,
    /// Who gets production traffic; empty while all tasks serve alike.
    pub serving: BTreeSet<String>,
    /// Others than these two have given way, or do so for the target.
    pub settled: bool,
}

impl Sides {
    /// Neither of the two.
    pub fn is_other(&self, started_by: Option<&String>) -> bool {
        started_by != self.source.as_ref() && started_by != self.target.as_ref()
    }
}

/// What a step did to a deployment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// More of the production traffic goes to its target than before.
    pub rises: bool,
    /// It has succeeded, on its way there or back.
    pub arrives: bool,
}

/// See the module.
#[derive(Default)]
pub struct Shifts {
    seen: BTreeMap<ServiceDeploymentKey, Seen>,
    /// Hooks of which a user said that the deployment may go on.
    released: BTreeSet<String>,
}

/// How far a deployment is; it never goes back.
fn rank(status: Status) -> u8 {
    match status {
        Status::Pending => 0,
        Status::InProgress => 1,
        Status::StopRequested => 2,
        Status::RollbackRequested => 3,
        Status::RollbackInProgress => 4,
        Status::Successful | Status::Stopped | Status::RollbackSuccessful | Status::RollbackFailed => 5,
    }
}

/// In tenths of a percent.
fn share(weights: &Weights, revision: ServiceRevisionId) -> i64 {
    (weights.of(revision).percent() * 10.0).round() as i64
}

fn sum(weights: &Weights) -> i64 {
    weights.iter().map(|(revision, _)| share(weights, revision)).sum()
}

/// The shift of a service's newest deployment, as long as it decides over the service's tasks.
fn current<'a>(state: &'a ScopeState, service: &Service) -> Option<&'a Shift> {
    let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
    let attempt = state.ecs.service_deployment(&key)?;
    let arrived = matches!(attempt.status, Status::Successful | Status::RollbackSuccessful);
    attempt.shift.as_ref().filter(|_| !arrived)
}

/// How far a service's newest deployment is, in a line for whoever reads of a failure.
pub fn told(state: &ScopeState, service: &Service) -> String {
    let key = ServiceDeploymentKey { service: service.key(), id: service.attempt };
    let Some(attempt) = state.ecs.service_deployment(&key) else { return "no attempt".to_owned() };
    let primary = service.primary().map(|primary| (primary.rollout_state, &primary.task_definition));
    let tasks: Vec<String> = state
        .ecs
        .tasks_of(&service.key())
        .map(|task| format!("{:?} {:?} {:?}", task.started_by, task.desired_status, task.last_status))
        .collect();
    let patient =
        service.deployments.iter().map(|known| (known.id, known.rollout_state, known.launch_not_before));
    let patient: Vec<_> = patient.collect();
    format!(
        "{:?} {primary:?} {:?}, desired {}, tasks {tasks:?}, deployments {patient:?}",
        attempt.status, attempt.shift, service.desired_count
    )
}

/// See [`Sides`]; none where no deployment shifts traffic, nor stands where it was given up.
pub fn sides(state: &ScopeState, service: &Service) -> Option<Sides> {
    let shift = current(state, service)?;
    let started_by = |revision: ServiceRevisionId| {
        let of = service.deployments.iter().find(|deployment| deployment.revision == revision);
        of.map(|deployment| deployment.id.to_string())
    };
    let serving = shift.traffic.production.iter().filter_map(|(revision, _)| started_by(revision));
    Some(Sides {
        source: shift.source.and_then(started_by),
        target: started_by(shift.target),
        serving: serving.collect(),
        settled: shift.settled,
    })
}

impl Shifts {
    /// A new process has read what was stored.
    pub fn begin_anew(&mut self, state: &ScopeState) {
        let before = std::mem::take(&mut self.seen);
        for (key, attempt) in state.ecs.service_deployments().iter() {
            // What was lost with the process before did not happen.
            let mut moves = before.get(key).map(|seen| seen.moves.clone()).unwrap_or_default();
            if let Some(shift) = &attempt.shift {
                while moves.last().is_some_and(|(weights, _)| *weights != shift.traffic.production) {
                    moves.pop();
                }
                if moves.is_empty() {
                    moves.push((shift.traffic.production.clone(), shift.since));
                }
            }
            self.seen
                .insert(key.clone(), Seen { status: attempt.status, shift: attempt.shift.clone(), moves });
        }
    }

    /// A user lets a deployment go on.
    pub fn may_go_on(&mut self, hook: &str) {
        self.released.insert(hook.to_owned());
    }

    /// Follows what a step left of a deployment.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn follow(&mut self, now: Timestamp, state: &ScopeState, key: &ServiceDeploymentKey) -> Moved {
        let Some(attempt) = state.ecs.service_deployment(key) else {
            self.seen.remove(key);
            return Moved::default();
        };
        let before = self.seen.get(key).cloned();
        let moves = before.as_ref().map(|before| before.moves.clone()).unwrap_or_default();
        let mut seen = Seen { status: attempt.status, shift: attempt.shift.clone(), moves };
        let arrived = matches!(attempt.status, Status::Successful | Status::RollbackSuccessful);
        let arrives = arrived && before.as_ref().is_none_or(|before| before.status != attempt.status);
        let mut rises = false;
        if let Some(before) = &before {
            assert!(
                rank(before.status) < rank(attempt.status) || before.status == attempt.status,
                "{key} went from {:?} to {:?}",
                before.status,
                attempt.status
            );
            if let (Some(old), Some(new)) = (&before.shift, &attempt.shift) {
                rises = self.check_step(now, key, attempt, before, old, new);
            }
        }
        if let Some(shift) = &attempt.shift {
            if seen.moves.last().is_none_or(|(weights, _)| *weights != shift.traffic.production) {
                seen.moves.push((shift.traffic.production.clone(), now));
            }
            check_shares(key, shift);
            self.check_source(state, key, attempt, shift);
        }
        self.seen.insert(key.clone(), seen);
        Moved { rises, arrives }
    }

    /// From one stage to another. Several that nothing keeps waiting may pass in one step.
    fn check_step(
        &self,
        now: Timestamp,
        key: &ServiceDeploymentKey,
        attempt: &ServiceDeployment,
        before: &Seen,
        old: &Shift,
        new: &Shift,
    ) -> bool {
        assert!(!old.returning || new.returning, "{key} turned round twice");
        assert!(!old.settled || new.settled, "{key} is not settled any more");
        if new.returning {
            let is_back = (old.stage, new.stage) == (Stage::ProductionTrafficShift, Stage::TestTrafficShift);
            assert!(!old.returning || old.stage <= new.stage || is_back, "{key} strays on its way back");
            let of_source = new.source.map_or(0, |source| share(&new.traffic.production, source));
            assert!(
                !new.settled || of_source == 1000,
                "{key} goes back, and its source has {of_source} of 1000"
            );
            return false;
        }
        let again = |stage| matches!(stage, Stage::PreProductionTrafficShift | Stage::ProductionTrafficShift);
        let (was, is) =
            (share(&old.traffic.production, old.target), share(&new.traffic.production, new.target));
        assert!(
            old.stage <= new.stage
                || again(old.stage) && again(new.stage) && (was < 1000 || new.source.is_none()),
            "{key} went back from {:?} to {:?}",
            old.stage,
            new.stage
        );
        assert!(was <= is, "{key} took {was} of 1000 back to {is} and goes on");
        self.check_hooks(now, key, attempt, old, new);
        let strategy = attempt.configuration.strategy;
        let paused = before.moved_at().map_or(Duration::ZERO, |at| now.since(at));
        if was < is {
            let (most, pause) = match strategy {
                Strategy::Linear { step, bake_minutes } => (was + tenths(step.percent()), bake_minutes),
                Strategy::Canary { share, bake_minutes } if was == 0 => {
                    (tenths(share.percent()), bake_minutes)
                }
                Strategy::Canary { bake_minutes, .. } => (1000, bake_minutes),
                Strategy::Rolling | Strategy::BlueGreen => (1000, 0),
            };
            let pause = minutes(pause);
            // Without a source there is nobody to leave any to.
            let has_source = new.source.is_some();
            assert!(
                is <= most || pause.is_zero() || !has_source,
                "{key} leaps from {was} to {is} of 1000 by {strategy:?}"
            );
            assert!(
                was == 0 || paused >= pause,
                "{key} takes the next step after {paused:?} by {strategy:?}"
            );
        }
        if new.stage == Stage::CleanUp && old.stage < Stage::CleanUp {
            let bake = minutes(attempt.configuration.bake_minutes);
            assert!(is == 1000, "{key} takes its source away with {is} of 1000 at the target");
            assert!(
                was < is && bake.is_zero() || paused >= bake,
                "{key} takes its source away after {paused:?}"
            );
        }
        was < is
    }

    /// Nobody passes a hook that did not let it.
    fn check_hooks(
        &self,
        now: Timestamp,
        key: &ServiceDeploymentKey,
        attempt: &ServiceDeployment,
        old: &Shift,
        new: &Shift,
    ) {
        let has_hooks =
            |stage: Stage| attempt.configuration.hooks.iter().any(|hook| hook.stages.contains(&stage));
        let ids = |shift: &Shift| -> Vec<String> { shift.hooks.iter().map(|hook| hook.id.clone()).collect() };
        if old.stage == new.stage && old.steps == new.steps {
            assert_eq!(ids(old), ids(new), "{key} waits at {:?} once more", old.stage);
            return;
        }
        let passed = |hook: &HookRun| match hook.status_at(now) {
            HookStatus::Succeeded => true,
            HookStatus::AwaitingAction => self.released.contains(&hook.id),
            HookStatus::TimedOut => {
                hook.timeout_action == HookAction::Continue || self.released.contains(&hook.id)
            }
            HookStatus::Failed => false,
        };
        let held: Vec<_> = old.hooks.iter().filter(|hook| !passed(hook)).collect();
        assert!(held.is_empty(), "{key} leaves {:?} for {:?} past {held:?}", old.stage, new.stage);
        let between = Stage::ALL.into_iter().filter(|stage| old.stage < *stage && *stage < new.stage);
        let skipped: Vec<Stage> = between.filter(|stage| has_hooks(*stage)).collect();
        assert!(skipped.is_empty(), "{key} passes {skipped:?}, whose hooks were not asked");
        let steps = new.steps - old.steps;
        let asked = u32::from(old.stage == Stage::PreProductionTrafficShift);
        assert!(
            !has_hooks(Stage::PreProductionTrafficShift) || steps <= asked,
            "{key} took {steps} steps, and its hooks were not asked"
        );
        assert!(
            !has_hooks(new.stage) || !new.hooks.is_empty(),
            "{key} came to {:?} without its hooks",
            new.stage
        );
    }

    /// Until the source is not needed any more, it is there to go back to.
    fn check_source(
        &self,
        state: &ScopeState,
        key: &ServiceDeploymentKey,
        attempt: &ServiceDeployment,
        shift: &Shift,
    ) {
        let Some(service) = state.ecs.service(&key.service).filter(|service| service.attempt == attempt.id)
        else {
            return;
        };
        let Some(source) = shift.source.filter(|_| !attempt.status.is_over()) else { return };
        let is_there = service.deployments.iter().any(|deployment| deployment.revision == source);
        assert!(
            is_there || shift.stage == Stage::CleanUp,
            "{key} has forgotten its source at {:?}",
            shift.stage
        );
    }
}

fn tenths(percent: f64) -> i64 {
    (percent * 10.0).round() as i64
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60)
}

/// All of the traffic goes somewhere, or nobody knows shares.
fn check_shares(key: &ServiceDeploymentKey, shift: &Shift) {
    for weights in [&shift.traffic.production, &shift.traffic.test] {
        let all = sum(weights);
        assert!(all == 1000 || all == 0, "{key} gives {all} of 1000 away: {weights:?}");
    }
}
