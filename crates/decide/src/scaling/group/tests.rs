//! Groups as they grow, shrink, fail and go.

use super::testing::in_service;
use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

fn group(desired: u32) -> Group {
    Group {
        desired,
        zones: vec!["a".to_owned(), "b".to_owned()],
        policies: vec![TerminationPolicy::Default],
        may_launch: true,
        may_terminate: true,
        replaces_unhealthy: true,
        deleting: false,
        failures: 0,
        failed_at: None,
    }
}

fn launch_in(zone: &str) -> Step<u32> {
    Step::Launch { zone: zone.to_owned() }
}

#[test]
fn a_group_grows_evenly_over_its_zones() {
    let steps = next(&group(4), &[in_service(1, "a")], at(100)).0;
    assert_eq!(steps, [launch_in("b"), launch_in("a"), launch_in("b")]);
    assert_eq!(next(&group(1), &[in_service(1, "a")], at(100)), (vec![], None));
}

#[test]
fn what_is_being_made_counts_and_what_goes_does_not() {
    let (mut coming, mut going) = (in_service(1, "a"), in_service(2, "b"));
    coming.state = LifecycleState::Pending;
    coming.machine = MachineState::Wanted;
    going.state = LifecycleState::TerminatingProceed;
    going.machine = MachineState::Unwanted;
    assert_eq!(next(&group(2), &[coming, going], at(100)).0, [launch_in("b")]);
}

#[test]
fn suspended_processes_do_nothing() {
    let held = Group { may_launch: false, may_terminate: false, ..group(5) };
    let mut sick = in_service(1, "a");
    sick.healthy = false;
    assert_eq!(next(&held, std::slice::from_ref(&sick), at(100)).0, []);
    assert_eq!(next(&Group { desired: 0, ..held }, &[sick], at(100)).0, []);
}

#[test]
fn an_unhealthy_instance_goes_and_is_replaced_at_once() {
    let mut sick = in_service(1, "a");
    sick.healthy = false;
    let steps = next(&group(1), &[sick], at(100)).0;
    let terminate = Step::Terminate { instance: 1, reason: Reason::Unhealthy };
    assert_eq!(steps, [terminate, launch_in("a")]);
}

#[test]
fn failed_launches_are_retried_ever_later() {
    let mut waits = Vec::new();
    for failures in [1, 2, 3, 7, 40] {
        let failing = Group { failures, failed_at: Some(at(0)), ..group(1) };
        let (steps, again) = next::<u32>(&failing, &[], at(1));
        assert_eq!(steps, []);
        waits.push(again.unwrap_or_default().as_millis() / 1000);
        assert_eq!(next::<u32>(&failing, &[], again.unwrap_or_default()).0, [launch_in("a")]);
    }
    assert_eq!(waits, [5, 10, 20, 300, 300]);
}

#[test]
fn launches_that_were_tried_together_fail_as_one() {
    let one = failed_rounds(0, None, at(0));
    assert_eq!(one, 1);
    assert_eq!(failed_rounds(one, Some(at(3)), at(0)), 1, "it was begun before the first failure was known");
    assert_eq!(failed_rounds(one, Some(at(3)), at(8)), 2);
}

#[test]
fn what_just_failed_is_not_tried_again_at_once() {
    let mut failed = in_service(1, "a");
    failed.state = LifecycleState::Pending;
    failed.machine = MachineState::Failed;
    assert_eq!(next(&group(1), &[failed], at(100)).0, [Step::LaunchFailed(1)]);
}

#[test]
fn hooks_hold_an_instance_until_all_are_answered() {
    let wait = |until, default| Wait { until: at(until), default };
    let held = |now: i64, instance: &Instance<u32>| next(&group(1), std::slice::from_ref(instance), at(now));
    let mut instance = in_service(1, "a");
    instance.state = LifecycleState::PendingWait;
    instance.waits = vec![wait(10, ActionResult::Continue), wait(20, ActionResult::Continue)];
    assert_eq!(held(5, &instance), (vec![], Some(at(10))));
    assert_eq!(held(15, &instance), (vec![], Some(at(20))));
    assert_eq!(held(20, &instance).0, [Step::IntoService(1)]);
    let mut abandoned = instance.clone();
    abandoned.waits[0].default = ActionResult::Abandon;
    let steps = held(10, &abandoned).0;
    assert_eq!(steps[0], Step::Terminate { instance: 1, reason: Reason::LaunchAbandoned });
    let mut leaving = instance;
    leaving.state = LifecycleState::TerminatingWait;
    assert!(!held(15, &leaving).0.contains(&Step::Release(1)));
    leaving.waits.clear();
    assert!(held(5, &leaving).0.contains(&Step::Release(1)));
}

#[test]
fn a_deleted_group_goes_once_it_has_nothing() {
    let deleting = Group { deleting: true, ..group(3) };
    let mut leaving = in_service(2, "a");
    leaving.state = LifecycleState::TerminatingWait;
    leaving.waits = vec![Wait { until: at(900), default: ActionResult::Abandon }];
    let steps = next(&deleting, &[in_service(1, "a"), leaving], at(100)).0;
    let gone = Step::Terminate { instance: 1, reason: Reason::GroupDeleted };
    assert_eq!(steps, [gone, Step::Release(2)]);
    assert_eq!(next::<u32>(&deleting, &[], at(100)).0, [Step::RemoveGroup]);
}

/// Whatever happens to it, a group that is left alone comes to rest with what it wants.
#[test]
fn a_group_comes_to_rest() {
    use crate::random::{Random, Seeded};
    for seed in 0..200 {
        let mut random = Seeded::new(seed);
        let group = group(random.below(8) as u32);
        let mut instances: Vec<Instance<u32>> = Vec::new();
        let mut number = 0;
        for second in 0..60 {
            let (steps, _) = next(&group, &instances, at(second));
            for step in steps {
                match step {
                    Step::Launch { zone } => {
                        number += 1;
                        let mut made = in_service(number, &zone);
                        made.state = LifecycleState::Pending;
                        made.machine = MachineState::Wanted;
                        instances.push(made);
                    }
                    Step::Launched(key) | Step::IntoService(key) => {
                        state(&mut instances, key, LifecycleState::InService);
                    }
                    Step::Terminate { instance, .. } => {
                        state(&mut instances, instance, LifecycleState::Terminating);
                    }
                    Step::Leave(key) | Step::Release(key) => {
                        state(&mut instances, key, LifecycleState::TerminatingProceed);
                        instances
                            .iter_mut()
                            .filter(|i| i.key == key)
                            .for_each(|i| i.machine = MachineState::Unwanted);
                    }
                    Step::LaunchFailed(key) | Step::Forget(key) => instances.retain(|i| i.key != key),
                    Step::RemoveGroup => panic!("nobody deleted it"),
                }
            }
            for instance in &mut instances {
                // Machines fail and fall ill in the first half.
                let luck = if second < 30 { random.below(4) } else { 0 };
                match (instance.machine, luck) {
                    (MachineState::Wanted, 3) | (MachineState::Running, 3) => {
                        instance.machine = MachineState::Failed
                    }
                    (MachineState::Running, 2) => instance.healthy = false,
                    (MachineState::Wanted, 0 | 2) => instance.machine = MachineState::Running,
                    (MachineState::Unwanted, 0 | 2) => instance.machine = MachineState::Gone,
                    _ => {}
                }
            }
        }
        let serving = instances.iter().filter(|i| i.state == LifecycleState::InService && i.healthy).count();
        assert_eq!(
            (serving, instances.len()),
            (group.desired as usize, group.desired as usize),
            "seed {seed}"
        );
    }
}

fn state(instances: &mut [Instance<u32>], key: u32, state: LifecycleState) {
    instances.iter_mut().filter(|instance| instance.key == key).for_each(|instance| instance.state = state);
}
