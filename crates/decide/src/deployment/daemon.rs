//! DAEMON services: one task on each container instance that may have one. An update stops first and starts then, since
//! two tasks of a daemon never share an instance.

use super::rolling::Tasks;
use crate::mutant;

/// A container instance with the tasks that the service has there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// It is ACTIVE and meets the service's constraints.
    pub eligible: bool,
    /// Tasks of the deployment that shall remain.
    pub target: Tasks,
    /// Tasks of all others.
    pub old: Tasks,
    /// Tasks of either that were asked to stop and have not ended.
    pub stopping: u32,
}

impl Place {
    fn total(&self) -> u32 {
        self.target.total().saturating_add(self.old.total())
    }

    fn serves(&self) -> bool {
        self.target.healthy.saturating_add(self.old.healthy) > 0
    }

    /// One task of the target, which is well, and nothing else.
    fn is_done(&self) -> bool {
        let one = Tasks { healthy: 1, ..Tasks::default() };
        self.target == one && self.old.total() == 0 && self.stopping == 0
    }
}

/// What to do at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub start: bool,
    pub stop_target: Tasks,
    pub stop_old: Tasks,
}

/// How many instances shall have a task.
pub fn desired(places: &[Place]) -> u32 {
    u32::try_from(places.iter().filter(|place| place.eligible).count()).unwrap_or(u32::MAX)
}

/// The next step at each place, in their order. Of the eligible instances no more than the percentage allows are without
/// a healthy task because of us.
pub fn plan(places: &[Place], minimum_healthy_percent: u32) -> Vec<Step> {
    let serving = places.iter().filter(|place| place.eligible && place.serves()).count() as u64;
    let lower = (u64::from(desired(places)) * u64::from(minimum_healthy_percent)).div_ceil(100);
    let mut spare = serving.saturating_sub(lower);
    if mutant::is("daemon ignores the minimum") {
        spare = u64::MAX;
    }
    places.iter().map(|place| step(place, &mut spare)).collect()
}

fn step(place: &Place, spare: &mut u64) -> Step {
    let Place { target, old, .. } = *place;
    if !place.eligible && !mutant::is("daemon stays where it may not be") {
        return Step { start: false, stop_target: target, stop_old: old };
    }
    if place.total() == 0 {
        return Step {
            start: place.stopping == 0 || mutant::is("daemon starts beside one that stops"),
            ..Step::default()
        };
    }
    // Of several of the target, one that is well stays, else one that may become so.
    let keeps_healthy = target.healthy.min(1);
    let keeps_starting = target.starting.min(1 - keeps_healthy);
    let stop_target = Tasks {
        healthy: target.healthy - keeps_healthy,
        starting: target.starting - keeps_starting,
        unhealthy: target.unhealthy,
    };
    let mut stop_old = old;
    if old.healthy > 0 && target.healthy == 0 {
        // What serves here.
        if *spare > 0 {
            *spare -= 1;
        } else {
            stop_old.healthy = 0;
        }
    }
    Step { start: false, stop_target, stop_old }
}

/// Every place has what it shall have.
pub fn is_steady(places: &[Place]) -> bool {
    let is_empty = |place: &Place| place.total() == 0 && place.stopping == 0;
    places.iter().all(|place| if place.eligible { place.is_done() } else { is_empty(place) })
}

/// Old tasks remain, nothing is under way, and the percentage allows no step.
pub fn is_blocked(places: &[Place], minimum_healthy_percent: u32) -> bool {
    let under_way = |place: &Place| place.target.starting > 0 || place.stopping > 0;
    let nothing = plan(places, minimum_healthy_percent).iter().all(|step| *step == Step::default());
    nothing && !places.iter().any(under_way) && places.iter().any(|place| place.old.total() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WELL: Tasks = Tasks { healthy: 1, starting: 0, unhealthy: 0 };
    const NONE: Tasks = Tasks { healthy: 0, starting: 0, unhealthy: 0 };

    #[test]
    fn instances_come_and_go() {
        let new = Place { eligible: true, ..Place::default() };
        let drained = Place { eligible: false, target: WELL, ..Place::default() };
        let busy = Place { stopping: 1, ..new };
        let steps = plan(&[new, drained, busy], 0);
        assert!(steps[0].start && steps[1].stop_target == WELL && !steps[2].start);
        assert_eq!(desired(&[new, drained, busy]), 2);
    }

    #[test]
    fn updates_stop_first_and_in_batches() {
        let old = Place { eligible: true, old: WELL, ..Place::default() };
        let stops = |minimum| plan(&[old; 4], minimum).iter().filter(|step| step.stop_old == WELL).count();
        assert_eq!([0, 50, 75, 100].map(stops), [4, 2, 1, 0]);
        // One that does not serve anyway is no loss.
        let ill = Place { old: Tasks { unhealthy: 1, ..NONE }, ..old };
        assert_eq!(plan(&[old, ill], 100)[1].stop_old.unhealthy, 1);
    }

    fn tasks() -> impl Strategy<Value = Tasks> {
        (0u32..3, 0u32..3, 0u32..3).prop_map(|(healthy, starting, unhealthy)| Tasks {
            healthy,
            starting,
            unhealthy,
        })
    }

    fn places() -> impl Strategy<Value = Vec<Place>> {
        let place = (any::<bool>(), tasks(), tasks(), 0u32..2);
        let place =
            place.prop_map(|(eligible, target, old, stopping)| Place { eligible, target, old, stopping });
        prop::collection::vec(place, 0..8)
    }

    proptest! {
        #[test]
        fn the_minimum_holds_and_the_end_is_reached(mut now in places(), minimum in 0u32..100) {
            let serving = |now: &[Place]| now.iter().filter(|place| place.eligible && place.serves()).count();
            for _ in 0..100 {
                let before = serving(&now);
                let lower = (desired(&now) as usize * minimum as usize).div_ceil(100);
                let steps = plan(&now, minimum);
                for (place, step) in now.iter_mut().zip(&steps) {
                    prop_assert!(!step.start || place.total() + place.stopping == 0);
                    for (side, stop) in [(&mut place.target, step.stop_target), (&mut place.old, step.stop_old)] {
                        side.healthy -= stop.healthy;
                        side.starting -= stop.starting;
                        side.unhealthy -= stop.unhealthy;
                        place.stopping += stop.total();
                    }
                    place.target.starting += u32::from(step.start);
                }
                let after = serving(&now);
                prop_assert!(after >= before.min(lower), "{before} served, {after} do, {lower} must");
                // The world moves everywhere.
                for place in &mut now {
                    place.target.healthy += std::mem::take(&mut place.target.starting);
                    place.stopping = 0;
                }
            }
            let blocked = is_blocked(&now, minimum);
            prop_assert!(is_steady(&now) || blocked, "{now:?}");
            let leeway = (desired(&now) * minimum).div_ceil(100) < desired(&now);
            prop_assert!(!(blocked && leeway), "blocked in spite of leeway: {now:?}");
        }
    }
}
