//! Deployments that shift traffic: how many tasks of which revision start and stop next, and what comes after that.
//!
//! Each revision is a matter of its own here, which grows, shrinks and heals within the service's two percentages; which of
//! them shall have tasks at all follows from the stage.

use super::census::{Census, Lens};
use super::{Plan, Turn, allowed, forgiven, may_launch, startable, starts};
use crate::services::ecs::deployments;
use crate::services::ecs::state::{Deployment, RolloutState, Service, ServiceDeployment, ServiceStatus};
use crate::tx::View;
use gantry_decide::deployment::back_off;
use gantry_decide::deployment::shift::{Facts, Next, Shift, Want, Wants};
use gantry_decide::ids::{DeploymentId, ServiceRevisionId};
use gantry_decide::mutant;
use gantry_decide::random::Random;
use gantry_decide::time::Timestamp;

/// The newest attempt to deploy a service, if it shifts traffic and did not arrive: it goes on, or stands where it was
/// given up.
pub struct Shifting<'a> {
    attempt: &'a ServiceDeployment,
    shift: &'a Shift,
    wants: Wants,
    source: Option<&'a Deployment>,
    target: Option<&'a Deployment>,
}

/// The tasks of one revision, or of all that are in the way. No census is there of a deployment that is gone with its
/// tasks.
struct Side<'a> {
    census: Option<Census<'a>>,
    deployment: Option<&'a Deployment>,
    want: Want,
    /// Healthy tasks of the source, to which others give way.
    beside: u32,
}

impl<'a> Shifting<'a> {
    pub fn of(view: View<'a>, service: &'a Service) -> Option<Shifting<'a>> {
        let attempt =
            deployments::current(view, service).filter(|_| service.status == ServiceStatus::Active)?;
        let (shift, wants) = deployments::wants(attempt)?;
        let find = |revision: ServiceRevisionId| {
            service.deployments.iter().find(|deployment| deployment.revision == revision)
        };
        let (source, target) = (shift.source.and_then(find), find(shift.target));
        Some(Shifting { attempt, shift, wants, source, target })
    }

    /// The deployments that are needed even without tasks.
    pub fn kept(&self) -> Vec<DeploymentId> {
        if mutant::is("source of the traffic forgotten") {
            return Vec::new();
        }
        self.source.into_iter().chain(self.target).map(|deployment| deployment.id).collect()
    }

    /// The next steps; true if there are tasks to start. `until` is when to look again.
    pub fn plan(
        &self,
        view: View<'a>,
        service: &'a Service,
        plan: &mut Plan,
        until: &mut Option<Timestamp>,
        random: &mut dyn Random,
    ) -> bool {
        let side = |deployment: Option<&'a Deployment>, want| {
            let census = |deployment: &Deployment| Census::take(view, service, Lens::Only(deployment.id));
            Side { census: deployment.map(census), deployment, want, beside: 0 }
        };
        let source = side(self.source, self.wants.source);
        let target = side(self.target, self.wants.target);
        let kept = self.kept();
        let census = Census::take(view, service, Lens::Others(&kept));
        let beside = source.healthy(service);
        let others = Side { census: Some(census), deployment: None, want: self.wants.others, beside };

        let goes_on = !self.attempt.status.is_over();
        if goes_on && plan.attempt.is_none_or(|turn| turn == Turn::Begin) {
            // A source that never arrived has all the tasks that it will get, unless it is gone back to.
            let is_primary = |known: &Deployment| service.primary().is_some_and(|first| first.id == known.id);
            let never_arrived =
                |source: &Deployment| source.rollout_state != RolloutState::Completed && !is_primary(source);
            // One that arrived may not start any more, or never did: it was of no tasks, and its image is nowhere.
            let never_grows = |source: &Deployment| {
                never_arrived(source) || back_off::delay(source.failures.starts).is_some()
            };
            let facts = Facts {
                source_ready: self.source.is_none() || source.is_ready(service),
                source_is_final: self.source.is_some_and(never_grows),
                target_ready: target.is_ready(service),
                source_gone: source.is_gone(),
                target_gone: target.is_gone(),
                others_gone: others.is_gone(),
                others_serve: others.census.as_ref().is_some_and(Census::serves),
            };
            let configuration = &self.attempt.configuration;
            match self.shift.next(configuration.strategy, configuration.bake(), facts, view.now) {
                Next::Wait(at) => *until = at,
                Next::Arrived => plan.arrived = plan.ended.is_empty(),
                next => plan.shift = Some(next),
            }
        }
        let mut wants_more = false;
        for side in [&source, &target, &others] {
            wants_more |= side.plan(view, service, plan, random);
        }
        wants_more
    }
}

impl Side<'_> {
    /// Exactly what is desired is there, and well.
    fn is_ready(&self, service: &Service) -> bool {
        let steady = |census: &Census<'_>| census.situation(service, service.desired_count).is_steady();
        self.census.as_ref().is_some_and(steady)
    }

    fn healthy(&self, service: &Service) -> u32 {
        let counted = |census: &Census<'_>| census.situation(service, service.desired_count).target.healthy;
        self.census.as_ref().map_or(0, counted)
    }

    fn is_gone(&self) -> bool {
        self.census.as_ref().is_none_or(Census::is_empty)
    }

    fn plan(&self, view: View<'_>, service: &Service, plan: &mut Plan, random: &mut dyn Random) -> bool {
        let Some(census) = &self.census else { return false };
        let desired = match self.want {
            Want::All => service.desired_count,
            Want::Nothing => 0,
            Want::GiveWay => service.desired_count.saturating_sub(self.beside),
            Want::Keep => return false,
        };
        plan.well.extend(forgiven(self.deployment, census));
        let situation = census.situation(service, desired);
        let steps = situation.plan();
        plan.stop.extend(census.choose(view, service, steps, random));
        plan.blocked |= situation.is_blocked() && self.want != Want::GiveWay;
        let Some(deployment) = self.deployment.filter(|_| steps.start > 0) else { return false };
        let (launches, settled) = allowed(view, service, plan);
        if service.primary().is_some_and(|primary| primary.id == deployment.id) {
            let most = startable(view, service, settled, plan);
            plan.start = if launches { starts(view, deployment, steps.start).min(most) } else { 0 };
            plan.replaces = plan.start.min(situation.target.unhealthy);
        } else if settled
            && may_launch(view, deployment)
            // What never arrived may never start.
            && (deployment.rollout_state == RolloutState::Completed
                || mutant::is("failed source started again"))
        {
            let start = starts(view, deployment, steps.start);
            plan.others.extend((start > 0).then_some((deployment.id, start)));
        }
        true
    }
}
