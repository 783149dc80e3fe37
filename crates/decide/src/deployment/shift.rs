//! Deployments that shift traffic: a state machine over ECS's lifecycle stages. The revision that serves (the source, blue)
//! and its successor (the target, green) stand side by side until all of the traffic has gone over; on failure it goes
//! back, and the successor goes away.
//!
//! The machine says which stage comes next, how many tasks each revision shall have and what share of the traffic. Without
//! a load balancer nobody reads the shares, and all stages are gone through all the same, as on ECS.

use super::hooks::{self, Hook, HookRun, Verdict};
use super::stage::Stage;
use super::strategy::Strategy;
use super::traffic::{Share, Traffic, Weights};
use crate::ids::{RequestId, ServiceRevisionId};
use crate::mutant;
use crate::random::Random;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// ECS's bounds: for a stage or a step that waits for tasks, and for a whole deployment.
const STAGE_MAX: Duration = Duration::from_secs(24 * 3600);
const WHOLE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where a deployment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// What served when it began; none of a service's first deployment, nor after one that never served.
    pub source: Option<ServiceRevisionId>,
    pub target: ServiceRevisionId,
    pub stage: Stage,
    /// Steps of the production traffic that were taken.
    pub steps: u32,
    /// Revisions other than the source may go: it stands in for them, or the target does.
    pub settled: bool,
    /// Until then those give way as far as the source can do without them.
    #[serde(default)]
    pub gives_way: bool,
    /// It goes back to the source.
    pub returning: bool,
    pub began: Timestamp,
    /// When the stage, or the step of it, began.
    pub since: Timestamp,
    pub traffic: Traffic,
    /// The hooks of the stage.
    pub hooks: Vec<HookRun>,
}

/// How the tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// All the source shall have is there and well; true without a source.
    pub source_ready: bool,
    /// The source gets no more tasks, for it never arrived, or they do not start.
    pub source_is_final: bool,
    pub target_ready: bool,
    /// No task is left, nor on its way out.
    pub source_gone: bool,
    pub target_gone: bool,
    /// Of revisions that are neither.
    pub others_gone: bool,
    /// Some of those have healthy tasks.
    pub others_serve: bool,
}

/// How many tasks a revision shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// What the service desires.
    All,
    /// Those that it has; nothing is started nor stopped.
    Keep,
    /// So many healthy ones as the source lacks.
    GiveWay,
    Nothing,
}

/// See [`Want`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    pub source: Want,
    pub target: Want,
    pub others: Want,
}

/// Why a deployment goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Hook(Stage),
    StageTookTooLong(Stage),
    TookTooLong,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Until something changes, or until then.
    Wait(Option<Timestamp>),
    Go(Shift),
    /// Only the target is left; on the way back, only the source.
    Arrived,
    Fail(Failure),
}

impl Shift {
    /// A deployment begins. `traffic` is as the one before left it, and `others` says whether revisions besides source
    /// and target have tasks.
    pub fn begin(
        source: Option<ServiceRevisionId>,
        target: ServiceRevisionId,
        mut traffic: Traffic,
        others: bool,
        now: Timestamp,
    ) -> Shift {
        traffic.test = source.map(Weights::all_to).unwrap_or_default();
        if !others {
            traffic.production = traffic.test.clone();
        }
        let stage = if others { Stage::ReconcileService } else { Stage::PreScaleUp };
        Shift {
            source,
            target,
            stage,
            steps: 0,
            settled: !others,
            gives_way: false,
            returning: false,
            began: now,
            since: now,
            traffic,
            hooks: Vec::new(),
        }
    }

    /// Lets the hooks of the stage begin. On the way back there are none to wait for.
    pub fn open_hooks(&mut self, hooks: &[Hook], random: &mut dyn Random, now: Timestamp) {
        let of_stage = hooks.iter().filter(|hook| !self.returning && hook.stages.contains(&self.stage));
        self.hooks =
            of_stage.map(|hook| HookRun::begin(hook, RequestId::random(random).to_string(), now)).collect();
    }

    /// How many tasks each revision shall have.
    pub fn wants(&self) -> Wants {
        let others = match (self.settled, self.gives_way) {
            (true, _) => Want::Nothing,
            (false, true) => Want::GiveWay,
            (false, false) => Want::Keep,
        };
        let (source, target) = match (self.returning, self.stage) {
            (false, Stage::ReconcileService | Stage::PreScaleUp) => (Want::All, Want::Nothing),
            (false, Stage::CleanUp) => (Want::Nothing, Want::All),
            (false, _) => (Want::All, Want::All),
            (true, Stage::CleanUp) => (Want::All, Want::Nothing),
            // Until the source stands in for all, the target serves on.
            (true, _) if self.traffic.production.of(self.target) > Share::NONE => (Want::All, Want::All),
            (true, _) => (Want::All, Want::Keep),
        };
        Wants { source, target, others }
    }

    /// The same of a deployment that ended on its way: who serves goes on, and nobody else is touched.
    pub fn wants_when_over(&self) -> Wants {
        let serves = |revision: ServiceRevisionId| self.traffic.production.of(revision) > Share::NONE;
        let want = |serves| if serves { Want::All } else { Want::Keep };
        let all_alike = self.traffic.production.is_empty();
        Wants {
            source: want(self.source.is_some_and(|source| all_alike || serves(source))),
            target: want(serves(self.target)),
            others: Want::Keep,
        }
    }

    /// What comes next. `bake` is how long source and target stand side by side in the end.
    pub fn next(&self, strategy: Strategy, bake: Duration, facts: Facts, now: Timestamp) -> Next {
        if self.returning {
            return self.next_back(facts, now);
        }
        if self.stage < Stage::CleanUp && self.began + WHOLE_MAX <= now {
            return Next::Fail(Failure::TookTooLong);
        }
        match hooks::verdict(&self.hooks, now) {
            Verdict::Failed => return Next::Fail(Failure::Hook(self.stage)),
            Verdict::Waits(until) => return Next::Wait(Some(until.min(self.began + WHOLE_MAX))),
            Verdict::Passed => {}
        }
        match self.stage {
            Stage::ReconcileService if !self.settled => self.reconcile(facts, now),
            Stage::ReconcileService => self.once(facts.others_gone, now, || self.at(Stage::PreScaleUp, now)),
            Stage::PreScaleUp => Next::Go(self.at(Stage::ScaleUp, now)),
            Stage::ScaleUp => self.once(facts.target_ready, now, || self.at(Stage::PostScaleUp, now)),
            Stage::PostScaleUp => {
                let mut next = self.at(Stage::TestTrafficShift, now);
                next.traffic.test = Weights::all_to(self.target);
                Next::Go(next)
            }
            Stage::TestTrafficShift => Next::Go(self.at(Stage::PostTestTrafficShift, now)),
            Stage::PostTestTrafficShift => Next::Go(self.at(Stage::PreProductionTrafficShift, now)),
            // Nobody is sent to where not all is well.
            Stage::PreProductionTrafficShift => {
                let hasty = mutant::is("traffic to tasks that are not well");
                self.once(facts.target_ready || hasty, now, || self.step(strategy, now))
            }
            Stage::ProductionTrafficShift => {
                // Without a source all of the traffic went over in the first step.
                let whole = self.source.is_none() || strategy.share_after(self.steps) == Share::ALL;
                let pause = if whole { Duration::ZERO } else { strategy.bake_after(self.steps) };
                let until = self.since + pause;
                let next = match whole {
                    true => Stage::PostProductionTrafficShift,
                    false => Stage::PreProductionTrafficShift,
                };
                self.after(until, now, || self.at(next, now))
            }
            Stage::PostProductionTrafficShift => Next::Go(self.at(Stage::BakeTime, now)),
            Stage::BakeTime
                if self.since + bake > now && !mutant::is("old revision stopped before the bake") =>
            {
                Next::Wait(Some(self.since + bake))
            }
            // What it goes back to is there as long as not all is well.
            Stage::BakeTime if facts.target_ready => {
                Next::Go(Shift { settled: true, ..self.at(Stage::CleanUp, now) })
            }
            Stage::BakeTime => Next::Wait(Some(self.began + WHOLE_MAX)),
            Stage::CleanUp if facts.source_gone && facts.others_gone && facts.target_ready => Next::Arrived,
            Stage::CleanUp => Next::Wait(None),
        }
    }

    /// Revisions besides source and target go once the source stands in for them. They give way to it before, for they may
    /// hold the room that it needs; where it never will, they stay until the target stands.
    fn reconcile(&self, facts: Facts, now: Timestamp) -> Next {
        let stands_in = self.source.is_some() && facts.source_ready || !facts.others_serve;
        let hasty = mutant::is("old revisions stopped before the source stands");
        if !stands_in && !hasty && !self.gives_way {
            return Next::Go(Shift { gives_way: true, ..self.clone() });
        }
        if !stands_in && (self.source.is_none() || facts.source_is_final) {
            return Next::Go(self.at(Stage::PreScaleUp, now));
        }
        self.once(stands_in || hasty, now, || self.settle(now))
    }

    fn next_back(&self, facts: Facts, now: Timestamp) -> Next {
        match self.stage {
            _ if !self.settled => match facts.source_ready || !facts.others_serve {
                true => Next::Go(Shift { stage: Stage::CleanUp, ..self.settle(now) }),
                false => Next::Wait(None),
            },
            Stage::CleanUp if facts.target_gone && facts.others_gone && facts.source_ready => Next::Arrived,
            Stage::CleanUp => Next::Wait(None),
            Stage::ProductionTrafficShift => Next::Go(self.back_to(Stage::TestTrafficShift, now)),
            _ => Next::Go(self.back_to(Stage::CleanUp, now)),
        }
    }

    /// Goes back to the source; `None` where there is none.
    pub fn turn_back(&self, now: Timestamp) -> Option<Shift> {
        self.source?;
        let mut back = Shift { returning: true, ..self.clone() };
        back.hooks.clear();
        back.since = now;
        if !self.settled {
            return Some(back);
        }
        let has = |weights: &Weights| weights.of(self.target) > Share::NONE;
        let stage = if has(&self.traffic.production) {
            Stage::ProductionTrafficShift
        } else if has(&self.traffic.test) {
            Stage::TestTrafficShift
        } else {
            Stage::CleanUp
        };
        Some(back.back_to(stage, now))
    }

    /// The traffic that a stage of the way back is about is the source's again, and whatever was shifted before it.
    fn back_to(&self, stage: Stage, now: Timestamp) -> Shift {
        let mut back = self.at(stage, now);
        let to_source = self.source.map(Weights::all_to).unwrap_or_default();
        if !mutant::is("traffic left behind on the way back") {
            back.traffic.production = to_source.clone();
        }
        if stage != Stage::ProductionTrafficShift {
            back.traffic.test = to_source;
        }
        back
    }

    fn at(&self, stage: Stage, now: Timestamp) -> Shift {
        Shift { stage, since: now, hooks: Vec::new(), ..self.clone() }
    }

    /// The source stands in for all others.
    fn settle(&self, now: Timestamp) -> Shift {
        let mut next = Shift { settled: true, since: now, ..self.clone() };
        next.traffic.production = self.source.map(Weights::all_to).unwrap_or_default();
        next
    }

    fn step(&self, strategy: Strategy, now: Timestamp) -> Shift {
        let mut next = self.at(Stage::ProductionTrafficShift, now);
        next.steps = self.steps.saturating_add(1);
        next.traffic.production = Weights::split(self.source, self.target, strategy.share_after(next.steps));
        next
    }

    fn after(&self, until: Timestamp, now: Timestamp, next: impl FnOnce() -> Shift) -> Next {
        if until <= now { Next::Go(next()) } else { Next::Wait(Some(until)) }
    }

    /// When it is so; a stage cannot wait for ever.
    fn once(&self, is_so: bool, now: Timestamp, next: impl FnOnce() -> Shift) -> Next {
        let until = self.waits_since() + STAGE_MAX;
        match is_so {
            true => Next::Go(next()),
            false if until <= now => Next::Fail(Failure::StageTookTooLong(self.stage)),
            false => Next::Wait(Some(until)),
        }
    }

    /// Since when nothing but tasks is waited for. Hooks have a patience of their own, and what they took of it does
    /// not count; that it does from the latest one's end on is a bound from above.
    fn waits_since(&self) -> Timestamp {
        self.hooks.iter().map(|hook| hook.expires_at).fold(self.since, Timestamp::max)
    }
}

impl Failure {
    /// What follows "deployment failed:", in our words.
    pub fn reason(self) -> String {
        match self {
            Failure::Hook(stage) => {
                format!("a lifecycle hook of {} did not pass.", stage.as_str())
            }
            Failure::StageTookTooLong(stage) => {
                format!("{} took more than 24 hours.", stage.shown().as_str())
            }
            Failure::TookTooLong => "it took more than 30 days.".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
