//! Rolling deployments: how many tasks to start and to stop next, within the service's two percentages. A service
//! without old tasks is the same case: it grows, shrinks and heals by these rules.

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
    pub minimum_healthy_percent: u32,
    pub maximum_percent: u32,
    /// Tasks of the deployment that shall remain.
    pub target: Tasks,
    /// Tasks of all others.
    pub old: Tasks,
    /// Tasks of either that were asked to stop and have not ended: they hold ports and capacity still.
    pub stopping: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Tasks of the target to launch.
    pub start: u32,
    /// Tasks of the target to stop.
    pub stop_target: Tasks,
    /// Tasks of the others to stop.
    pub stop_old: Tasks,
}

impl Plan {
    pub fn is_nothing(self) -> bool {
        self == Plan::default()
    }
}

impl Situation {
    /// Healthy tasks that must remain when we stop some: rounded up.
    pub fn lower(&self) -> u32 {
        percent(self.desired, self.minimum_healthy_percent, 99)
    }

    /// Tasks that may exist at once, those that are stopping included: rounded down.
    pub fn upper(&self) -> u32 {
        percent(self.desired, self.maximum_percent, 0)
    }

    fn total(&self) -> u32 {
        self.target.total().saturating_add(self.old.total()).saturating_add(self.stopping)
    }

    pub fn plan(&self) -> Plan {
        let Situation { desired, target, old, .. } = *self;
        let missing = desired.saturating_sub(target.useful());
        let start = missing.min(self.upper().saturating_sub(self.total()));

        let mut stop_target = Tasks::default();
        let mut surplus = target.useful().saturating_sub(desired);
        stop_target.starting = surplus.min(target.starting);
        surplus -= stop_target.starting;
        // What serves nobody goes first; healthy ones only as long as enough remain.
        let mut spare = target.healthy.saturating_add(old.healthy).saturating_sub(self.lower());
        stop_target.healthy = surplus.min(target.healthy).min(spare);
        spare -= stop_target.healthy;
        let stop_old =
            Tasks { starting: old.starting, unhealthy: old.unhealthy, healthy: old.healthy.min(spare) };
        // Unhealthy tasks of the target stay until their replacements are there, unless nothing else makes room.
        let waits = target.starting > 0 || self.stopping > 0 || stop_old.total() > 0;
        stop_target.unhealthy = match missing {
            0 if target.healthy >= desired => target.unhealthy,
            1.. if start == 0 && !waits => target.unhealthy.min(1),
            _ => 0,
        };
        Plan { start, stop_target, stop_old }
    }

    /// Exactly the desired count, all healthy, nothing else there.
    pub fn is_steady(&self) -> bool {
        let there = Tasks { healthy: self.desired, ..Tasks::default() };
        self.target == there && self.old.total() == 0 && self.stopping == 0
    }

    /// Tasks remain to be replaced, nothing is under way, and the percentages allow no step.
    pub fn is_blocked(&self) -> bool {
        let under_way = self.target.starting > 0 || self.stopping > 0;
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
            target in tasks(), old in tasks(), stopping in 0u32..5,
        ) {
            let mut now = Situation {
                desired, minimum_healthy_percent: minimum, maximum_percent: maximum, target, old, stopping,
            };
            // Each round ends at least one thing that was under way, of at most 77 tasks and their replacements.
            for _ in 0..200 {
                let plan = now.plan();
                let (before, healthy) = (now.total(), now.target.healthy + now.old.healthy);
                let lost = plan.stop_target.healthy + plan.stop_old.healthy;
                prop_assert!(lost == 0 || healthy - lost >= now.lower());
                prop_assert!(plan.start == 0 || before + plan.start <= now.upper());
                for (side, stop) in [(&mut now.target, plan.stop_target), (&mut now.old, plan.stop_old)] {
                    side.starting -= stop.starting;
                    side.healthy -= stop.healthy;
                    side.unhealthy -= stop.unhealthy;
                    now.stopping += stop.total();
                }
                now.target.starting += plan.start;
                // The world moves: one task becomes healthy, else one ends.
                if now.target.starting > 0 {
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
