//! Deployments that shift traffic, stage by stage and back.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::deployment::hooks::HookAction;
use crate::deployment::strategy::Strategy;
use crate::random::Seeded;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

const BAKE: Duration = Duration::from_secs(600);
const READY: Facts = Facts {
    source_ready: true,
    source_is_final: false,
    target_ready: true,
    source_gone: true,
    target_gone: true,
    others_gone: true,
    others_serve: false,
};

fn ids() -> [ServiceRevisionId; 3] {
    let random = &mut Seeded::new(5);
    [(); 3].map(|()| ServiceRevisionId::random(random))
}

fn begin(source: bool) -> Shift {
    let [blue, green, _] = ids();
    Shift::begin(source.then_some(blue), green, Traffic::default(), false, Timestamp::EPOCH)
}

/// All stages that it goes through with the target's share of production traffic there, and how long that takes.
fn course(mut shift: Shift, strategy: Strategy) -> (Vec<(Stage, f64)>, Duration) {
    let mut now = shift.began;
    let share = |shift: &Shift| shift.traffic.production.of(shift.target).percent();
    let mut stages = vec![(shift.stage, share(&shift))];
    loop {
        match shift.next(strategy, BAKE, READY, now) {
            Next::Go(next) => {
                shift = next;
                stages.push((shift.stage, share(&shift)));
            }
            Next::Wait(until) => now = until.unwrap(),
            Next::Arrived => return (stages, now.since(shift.began)),
            Next::Fail(failure) => panic!("{failure:?}"),
        }
    }
}

#[test]
fn a_blue_green_deployment_goes_through_every_stage_and_bakes() {
    let (stages, took) = course(begin(true), Strategy::BlueGreen);
    let named: Vec<_> = stages.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(named, Stage::ALL[1..]);
    let shares: Vec<_> = stages.iter().map(|(_, share)| *share).collect();
    assert_eq!(shares, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0, 100.0, 100.0, 100.0]);
    assert_eq!(took, BAKE);
    // A first deployment has nobody to take traffic from.
    assert_eq!(begin(false).traffic, Traffic::default());
    assert_eq!(course(begin(false), Strategy::BlueGreen).0, stages);
}

#[test]
fn linear_and_canary_deployments_shift_step_by_step() {
    let steps = |strategy| {
        let (stages, took) = course(begin(true), strategy);
        let steps = stages.into_iter().filter(|(stage, _)| *stage == Stage::ProductionTrafficShift);
        (steps.map(|(_, share)| share).collect::<Vec<_>>(), (took - BAKE).as_secs() / 60)
    };
    let linear = Strategy::Linear { step: Share::of_tenths(400), bake_minutes: 6 };
    assert_eq!(steps(linear), (vec![40.0, 80.0, 100.0], 12));
    let canary = Strategy::Canary { share: Share::of_tenths(50), bake_minutes: 10 };
    assert_eq!(steps(canary), (vec![5.0, 100.0], 10));
    // There is nothing to shift from in a first deployment, nor to look at before the next step.
    for strategy in [linear, canary] {
        assert_eq!(course(begin(false), strategy), course(begin(false), Strategy::BlueGreen));
    }
}

#[test]
fn hooks_hold_a_stage_and_fail_a_deployment() {
    let hook =
        Hook { stages: vec![Stage::PreScaleUp], timeout_minutes: 5, timeout_action: HookAction::Rollback };
    let mut shift = begin(true);
    shift.open_hooks(&[hook], &mut Seeded::new(1), Timestamp::EPOCH);
    let minute = |minutes: u64| Timestamp::EPOCH + Duration::from_secs(60 * minutes);
    let next = |shift: &Shift, now| shift.next(Strategy::BlueGreen, BAKE, READY, now);
    assert_eq!(next(&shift, minute(4)), Next::Wait(Some(minute(5))));
    assert_eq!(next(&shift, minute(5)), Next::Fail(Failure::Hook(Stage::PreScaleUp)));
    assert!(shift.hooks[0].resolve(HookAction::Continue, minute(1)));
    assert!(
        matches!(next(&shift, minute(9)), Next::Go(Shift { stage: Stage::ScaleUp, ref hooks, .. }) if hooks.is_empty())
    );
}

#[test]
fn neither_a_stage_nor_a_deployment_waits_for_ever() {
    let not_ready = Facts { target_ready: false, ..READY };
    let scaling = Shift { stage: Stage::ScaleUp, ..begin(true) };
    let next = |shift: &Shift, now| shift.next(Strategy::BlueGreen, BAKE, not_ready, now);
    let day = Timestamp::EPOCH + STAGE_MAX;
    assert_eq!(next(&scaling, Timestamp::EPOCH), Next::Wait(Some(day)));
    assert_eq!(next(&scaling, day), Next::Fail(Failure::StageTookTooLong(Stage::ScaleUp)));
    let baking = Shift { stage: Stage::BakeTime, ..begin(true) };
    assert_eq!(next(&baking, day), Next::Wait(Some(Timestamp::EPOCH + WHOLE_MAX)));
    assert_eq!(next(&baking, Timestamp::EPOCH + WHOLE_MAX), Next::Fail(Failure::TookTooLong));
}

#[test]
fn several_revisions_give_way_once_the_source_stands_in_for_them() {
    let [blue, green, other] = ids();
    let traffic = Traffic {
        production: Weights::split(Some(other), blue, Share::of_tenths(200)),
        ..Traffic::default()
    };
    let shift = Shift::begin(Some(blue), green, traffic, true, Timestamp::EPOCH);
    assert_eq!((shift.stage, shift.traffic.production.of(other).percent()), (Stage::ReconcileService, 80.0));
    let keeps = Wants { source: Want::All, target: Want::Nothing, others: Want::Keep };
    assert_eq!(shift.wants(), keeps);
    let busy = Facts { source_ready: false, others_gone: false, others_serve: true, ..READY };
    let next = |shift: &Shift, facts| shift.next(Strategy::BlueGreen, BAKE, facts, Timestamp::EPOCH);
    let Next::Go(shift) = next(&shift, busy) else { panic!("nobody gives way") };
    assert_eq!((shift.stage, shift.wants().others), (Stage::ReconcileService, Want::GiveWay));
    assert!(matches!(next(&shift, busy), Next::Wait(_)));
    // A source that never will stand in for them keeps nobody waiting, and them in their place.
    let Next::Go(onward) = next(&shift, Facts { source_is_final: true, ..busy }) else { panic!("it waits") };
    assert_eq!((onward.stage, onward.wants().others), (Stage::PreScaleUp, Want::GiveWay));
    // Who is sent traffic on such a way serves on, also on the way back, until the source does.
    let shifted = onward.step(Strategy::BlueGreen, Timestamp::EPOCH).turn_back(Timestamp::EPOCH).unwrap();
    assert_eq!(shifted.wants().target, Want::All);
    let Next::Go(cleaned) = next(&shifted, READY) else { panic!("it waits") };
    assert_eq!((cleaned.stage, cleaned.wants().target), (Stage::CleanUp, Want::Nothing));
    let baked = Shift { stage: Stage::BakeTime, ..onward };
    let later = Timestamp::EPOCH + BAKE;
    let Next::Go(over) = baked.next(Strategy::BlueGreen, BAKE, busy, later) else { panic!("it waits") };
    assert_eq!((over.stage, over.wants().others), (Stage::CleanUp, Want::Nothing));
    // Tasks that do not serve are no reason to wait.
    assert!(matches!(next(&shift, Facts { others_serve: false, ..busy }), Next::Go(_)));
    let Next::Go(settled) = next(&shift, Facts { source_ready: true, ..busy }) else { panic!("it waits") };
    assert_eq!((settled.wants().others, settled.traffic.production.of(blue)), (Want::Nothing, Share::ALL));
    assert!(matches!(next(&settled, busy), Next::Wait(_)));
    assert!(matches!(next(&settled, READY), Next::Go(Shift { stage: Stage::PreScaleUp, .. })));
    // The way back from there does not leave anybody without a server either.
    let back = shift.turn_back(Timestamp::EPOCH).unwrap();
    assert_eq!((back.wants().others, next(&back, busy)), (Want::GiveWay, Next::Wait(None)));
    let Next::Go(cleaning) = next(&back, READY) else { panic!("it waits") };
    assert_eq!((cleaning.stage, next(&cleaning, READY)), (Stage::CleanUp, Next::Arrived));
}

proptest! {
    /// From every stage the way back ends with all of the traffic at the source, and production goes first.
    #[test]
    fn the_way_back_ends_at_the_source(rounds in 0usize..30, step in 30u32..=1000) {
        let strategy = Strategy::Linear { step: Share::of_tenths(step), bake_minutes: 1 };
        let (mut shift, mut now) = (begin(true), Timestamp::EPOCH);
        for _ in 0..rounds {
            match shift.next(strategy, BAKE, READY, now) {
                Next::Go(next) => shift = next,
                Next::Wait(until) => now = until.unwrap(),
                Next::Arrived => break,
                Next::Fail(failure) => panic!("{failure:?}"),
            }
        }
        let [blue, ..] = ids();
        let mut back = shift.turn_back(now).unwrap();
        prop_assert_eq!(back.traffic.production.of(blue), Share::ALL);
        prop_assert_eq!(back.turn_back(now).is_some(), true);
        for _ in 0..4 {
            prop_assert_eq!(back.wants().source, Want::All, "what it goes back to stays");
            match back.next(strategy, BAKE, READY, now) {
                Next::Go(next) => back = next,
                Next::Arrived => {
                    prop_assert_eq!(back.traffic.test.of(blue), Share::ALL);
                    return Ok(());
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert!(false, "it does not end: {back:?}");
    }

    /// Whatever happens, who gets production traffic has all its tasks, and traffic adds up.
    #[test]
    fn who_serves_is_kept(choices in prop::collection::vec((any::<[bool; 7]>(), 0u64..3600), 1..80), other: bool) {
        let [blue, green, third] = ids();
        let traffic = Traffic { production: Weights::all_to(if other { third } else { blue }), ..Traffic::default() };
        let mut shift = Shift::begin(Some(blue), green, traffic, other, Timestamp::EPOCH);
        let strategy = Strategy::Canary { share: Share::of_tenths(50), bake_minutes: 10 };
        let mut now = Timestamp::EPOCH;
        for (bits, seconds) in choices {
            now = now + Duration::from_secs(seconds);
            let [source_ready, source_is_final, target_ready, source_gone, target_gone, others_gone, others_serve] =
                bits;
            let facts = Facts {
                source_ready,
                source_is_final,
                target_ready,
                source_gone,
                target_gone,
                others_gone,
                others_serve,
            };
            let turn = |shift: &Shift| shift.turn_back(now).unwrap();
            shift = match shift.next(strategy, BAKE, facts, now) {
                Next::Go(next) => next,
                Next::Fail(_) => turn(&shift),
                Next::Wait(_) if seconds < 100 => turn(&shift),
                Next::Wait(_) | Next::Arrived => shift,
            };
            let wants = shift.wants();
            for (revision, share) in shift.traffic.production.iter() {
                prop_assert!(share > Share::NONE);
                if revision == blue {
                    prop_assert_eq!(wants.source, Want::All);
                } else if revision == green {
                    prop_assert_eq!(wants.target, Want::All);
                } else {
                    prop_assert!(wants.others != Want::Nothing);
                }
            }
        }
    }
}
