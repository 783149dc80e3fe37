//! Rolling deployments: how many tasks to start and to stop next, within the service's two percentages. A service
//! without old tasks is the same case: it grows, shrinks and heals by these rules.

use crate::mutant;
use serde::{Deserialize, Serialize};

/// The tasks of one side, by how far they are. Those already asked to stop are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// Launched, not healthy yet.
    pub starting: u32,
    pub healthy: u32,
    /// Was running, now failing its health checks.
    pub unhealthy: u32,
}

impl Tasks {
    pub fn total(self) -> u32 {
        self.starting.saturating_add(self.healthy).saturating_add(self.unhealthy)
    }

    fn useful(self) -> u32 {
        self.starting.saturating_add(self.healthy)
    }
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    pub desired: u32,
    /// Tasks beyond that for a moment: each is to stand elsewhere before another one goes. No percentage is of them.
    pub moving: u32,
    pub minimum_healthy_percent: u32,
    pub maximum_percent: u32,
    /// Tasks of the deployment that shall remain.
    pub target: Tasks,
    /// Tasks of all others, but for `renewed`.
    pub old: Tasks,
    /// Tasks that are starting in place of failed ones of the last deployment that arrived.
    pub renewed: u32,
    /// Whether there is a deployment that arrived and is not the target: what it runs is known to work, so its tasks are
    /// replaced as long as the target has none to serve instead.
    pub renewable: bool,
    /// Tasks of either that were asked to stop and have not ended: they hold ports and capacity still.
    pub stopping: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tasks of the target to launch.
    pub start: u32,
    /// Tasks of the last deployment that arrived to launch.
    pub renew: u32,
    /// Tasks of the target to stop.
    pub stop_target: Tasks,
    /// Tasks of the others to stop.
    pub stop_old: Tasks,
    pub stop_renewed: u32,
}

/// When a deployment counts as successful before all of its tasks are there: ECS's early success criteria.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EarlySuccess {
    /// Of the desired count, healthy tasks of the target.
    pub healthy_percent: u32,
    /// The old tasks must be gone by then; else they are cleaned up afterwards.
    pub blocking: bool,
}

impl Plan {
    pub fn is_nothing(self) -> bool {
        self == Plan::default()
    }
}

impl Situation {
    /// Healthy tasks that must remain when we stop some: rounded up.
    pub fn lower(&self) -> u32 {
        percent(
            self.desired,
            self.minimum_healthy_percent,
            if mutant::is("minimum rounded down") { 0 } else { 99 },
        )
    }

    /// Tasks that may exist at once, those that are stopping included: rounded down.
    pub fn upper(&self) -> u32 {
        percent(self.desired, self.maximum_percent, if mutant::is("maximum rounded up") { 99 } else { 0 })
    }

    fn total(&self) -> u32 {
        let running = self.target.total().saturating_add(self.old.total()).saturating_add(self.renewed);
        if mutant::is("stopping tasks not counted") {
            return running;
        }
        running.saturating_add(self.stopping)
    }

    pub fn plan(&self) -> Plan {
        let Situation { target, old, .. } = *self;
        let desired = self.desired.saturating_add(self.moving);
        let missing = desired.saturating_sub(target.useful());
        let room = self.upper().saturating_sub(self.total());
        let start = missing.min(room);
        // Tasks that are starting may never serve: they do not count.
        let mut serving = target.healthy.saturating_add(old.healthy);
        if mutant::is("starting tasks count as healthy") {
            serving += target.starting;
        }
        let lacking = if self.renewable { self.lower().saturating_sub(serving) } else { 0 };
        let renew = lacking.saturating_sub(self.renewed).min(room - start);
        let stop_renewed = self.renewed.saturating_sub(lacking);

        let mut stop_target = Tasks::default();
        let mut surplus = target.useful().saturating_sub(desired);
        stop_target.starting = surplus.min(target.starting);
        surplus -= stop_target.starting;
        // What serves nobody goes first; healthy ones only as long as enough remain.
        let mut spare = serving.saturating_sub(self.lower());
        if mutant::is("one task too many stopped") {
            spare += 1;
        } else if mutant::is("old tasks stopped at once") {
            spare = u32::MAX;
        }
        stop_target.healthy = surplus.min(target.healthy).min(spare);
        spare -= stop_target.healthy;
        let stop_old =
            Tasks { starting: old.starting, unhealthy: old.unhealthy, healthy: old.healthy.min(spare) };
        // Unhealthy tasks of the target stay until their replacements are there, unless nothing else makes room.
        let stops = stop_old.total() > 0 || stop_renewed > 0;
        let waits = target.starting > 0 || self.renewed > 0 || self.stopping > 0 || stops;
        stop_target.unhealthy = match missing {
            0 if target.healthy >= desired => target.unhealthy,
            1.. if start == 0 && !waits => target.unhealthy.min(1),
            _ => 0,
        };
        Plan { start, renew, stop_target, stop_old, stop_renewed }
    }

    /// Exactly the desired count, all healthy, nothing else there.
    pub fn is_steady(&self) -> bool {
        let there = Tasks { healthy: self.desired.saturating_add(self.moving), ..Tasks::default() };
        self.target == there && self.is_alone()
    }

    /// Nothing of other deployments is there, nor on its way out.
    fn is_alone(&self) -> bool {
        self.old.total() == 0 && self.renewed == 0 && self.stopping == 0
    }

    /// The target has what it takes to be called successful: all of it, or what the criteria ask.
    pub fn has_succeeded(&self, early: Option<EarlySuccess>) -> bool {
        let enough = |early: EarlySuccess| {
            let wanted = percent(self.desired, early.healthy_percent, 99).max(1).min(self.desired);
            self.target.healthy >= wanted && (!early.blocking || self.is_alone())
        };
        let hasty = mutant::is("success before all are healthy") && self.target.healthy > 0;
        self.is_steady() || early.is_some_and(enough) || hasty
    }

    /// Tasks remain to be replaced, nothing is under way, and the percentages allow no step.
    pub fn is_blocked(&self) -> bool {
        let under_way = self.target.starting > 0 || self.renewed > 0 || self.stopping > 0;
        self.old.total() > 0 && !under_way && self.plan().is_nothing()
    }
}

/// `count` × `percent` / 100, with `round` added before the division. In 64 bits; both factors have 32.
fn percent(count: u32, percent: u32, round: u64) -> u32 {
    u32::try_from((u64::from(count) * u64::from(percent) + round) / 100).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn situation(desired: u32, minimum: u32, maximum: u32) -> Situation {
        Situation {
            desired,
            minimum_healthy_percent: minimum,
            maximum_percent: maximum,
            old: Tasks { healthy: desired, ..Tasks::default() },
            ..Situation::default()
        }
    }

    #[test]
    fn documented_examples() {
        assert_eq!(situation(4, 50, 200).plan().start, 4);
        let plan = situation(4, 50, 100).plan();
        assert_eq!((plan.start, plan.stop_old.healthy), (0, 2));
        assert_eq!(situation(2, 75, 100).lower(), 2);
        assert!(situation(2, 75, 100).is_blocked());
        assert_eq!(situation(3, 100, 125).upper(), 3);
        assert!(situation(3, 100, 125).is_blocked());
        assert_eq!(situation(3, 100, 200).plan(), Plan { start: 3, ..Plan::default() });
        assert_eq!(situation(u32::MAX, 100, 200).upper(), u32::MAX);
        // One starts elsewhere when both others fall ill: the maximum is of two, not of three.
        let target = Tasks { starting: 1, unhealthy: 2, ..Tasks::default() };
        let moved = Situation { moving: 1, target, old: Tasks::default(), ..situation(2, 100, 200) };
        assert_eq!(moved.plan().start, 1);
    }

    #[test]
    fn unhealthy_tasks_are_replaced_first_and_stopped_then() {
        let old = Tasks::default();
        let mut ill = Situation { old, ..situation(2, 100, 200) };
        ill.target = Tasks { healthy: 1, unhealthy: 1, starting: 0 };
        assert_eq!(ill.plan(), Plan { start: 1, ..Plan::default() });
        ill.target.starting = 1;
        assert!(ill.plan().is_nothing());
        ill.target = Tasks { healthy: 2, unhealthy: 1, starting: 0 };
        assert_eq!(ill.plan().stop_target, Tasks { unhealthy: 1, ..Tasks::default() });
        // Without room for a replacement, one of the ill goes first.
        let full = Situation { maximum_percent: 100, target: Tasks { unhealthy: 2, ..old }, ..ill };
        assert_eq!(full.plan().stop_target.unhealthy, 1);
    }

    #[test]
    fn shrinking_stops_what_has_not_started_first() {
        let target = Tasks { starting: 1, healthy: 3, unhealthy: 0 };
        let shrink = Situation { target, old: Tasks::default(), ..situation(2, 100, 200) };
        assert_eq!(shrink.plan().stop_target, Tasks { starting: 1, healthy: 1, unhealthy: 0 });
    }

    #[test]
    fn a_task_that_works_is_replaced_by_its_like_while_the_new_ones_do_not_serve() {
        let target = Tasks { starting: 4, ..Tasks::default() };
        let old = Tasks { healthy: 3, ..Tasks::default() };
        let lost_one = Situation { target, old, renewable: true, ..situation(4, 100, 200) };
        assert_eq!(lost_one.plan(), Plan { renew: 1, ..Plan::default() });
        assert!(Situation { renewable: false, ..lost_one }.plan().is_nothing());
        assert!(Situation { renewed: 1, ..lost_one }.plan().is_nothing());
        let target = Tasks { starting: 3, healthy: 1, unhealthy: 0 };
        let served = Situation { target, renewed: 1, ..lost_one };
        assert_eq!(served.plan(), Plan { stop_renewed: 1, ..Plan::default() });
    }

    #[test]
    fn a_deployment_may_succeed_before_it_is_complete() {
        let early = EarlySuccess { healthy_percent: 50, blocking: false };
        let old = Tasks { healthy: 3, ..Tasks::default() };
        let target = Tasks { starting: 2, healthy: 1, unhealthy: 0 };
        let mut now = Situation { target, old, ..situation(3, 50, 200) };
        assert!(!now.has_succeeded(Some(early)), "half of three is two");
        now.target = Tasks { starting: 1, healthy: 2, unhealthy: 0 };
        assert!(now.has_succeeded(Some(early)) && !now.has_succeeded(None));
        assert!(!now.has_succeeded(Some(EarlySuccess { blocking: true, ..early })));
    }

    fn tasks() -> impl Strategy<Value = Tasks> {
        (0u32..12, 0u32..12, 0u32..12).prop_map(|(starting, healthy, unhealthy)| Tasks {
            starting,
            healthy,
            unhealthy,
        })
    }

    #[test]
    fn an_unhealthy_new_task_gives_way_when_old_ones_fill_the_rest() {
        let target = Tasks { healthy: 1, unhealthy: 1, starting: 0 };
        let old = Tasks { healthy: 1, ..Tasks::default() };
        let stuck = Situation { target, old, ..situation(2, 51, 150) };
        assert_eq!(stuck.plan().stop_target.unhealthy, 1);
    }

    proptest! {
        #[test]
        fn bounds_hold_from_anywhere_and_the_end_is_reached(
            desired in 0u32..12, minimum in 0u32..=100, maximum in 100u32..=300,
            target in tasks(), old in tasks(), stopping in 0u32..5, renewed in 0u32..5, renewable: bool,
            deaths in prop::collection::vec(0usize..60, 0..6),
        ) {
            let mut now = Situation {
                desired, minimum_healthy_percent: minimum, maximum_percent: maximum, target, old, stopping,
                renewed, renewable, moving: 0,
            };
            // Each round ends at least one thing that was under way, of at most 77 tasks and their replacements.
            for round in 0..200 {
                let plan = now.plan();
                let (before, healthy) = (now.total(), now.target.healthy + now.old.healthy);
                let lost = plan.stop_target.healthy + plan.stop_old.healthy;
                prop_assert!(lost == 0 || healthy - lost >= now.lower());
                let started = plan.start + plan.renew;
                prop_assert!(started == 0 || before + started <= now.upper());
                prop_assert!(plan.renew == 0 || plan.stop_renewed == 0);
                for (side, stop) in [(&mut now.target, plan.stop_target), (&mut now.old, plan.stop_old)] {
                    side.starting -= stop.starting;
                    side.healthy -= stop.healthy;
                    side.unhealthy -= stop.unhealthy;
                    now.stopping += stop.total();
                }
                now.renewed = now.renewed + plan.renew - plan.stop_renewed;
                now.stopping += plan.stop_renewed;
                now.target.starting += plan.start;
                // The world moves: at times an old task dies; one task becomes healthy, else one ends.
                if deaths.contains(&round) {
                    now.old.healthy = now.old.healthy.saturating_sub(1);
                }
                if now.renewed > 0 {
                    now.renewed -= 1;
                    now.old.healthy += 1;
                } else if now.target.starting > 0 {
                    now.target.starting -= 1;
                    now.target.healthy += 1;
                } else {
                    now.stopping = now.stopping.saturating_sub(1);
                }
            }
            prop_assert!(now.is_steady() || now.is_blocked(), "stuck at {now:?}");
            let leeway = now.upper() > desired || now.lower() < desired;
            prop_assert!(!now.is_blocked() || !leeway, "blocked in spite of leeway: {now:?}");
        }
    }
}
