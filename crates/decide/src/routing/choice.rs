//! Which target group of a weighted forward, and which target of a group, gets the next request. State and
//! randomness are arguments; a balancer calls this for every request.

use super::config::{Algorithm, Forward, MinimumHealthy, TargetGroupAttributes, ZoneName};
use super::health::HealthState;
use crate::time::Timestamp;
use std::time::Duration;

/// What is known about a registered target when a group's targets in service are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub health: HealthState,
    /// When it became healthy last.
    pub healthy_since: Option<Timestamp>,
    /// Whether it fails markedly more often than its neighbours.
    pub anomalous: bool,
}

impl Standing {
    fn is_registered(&self) -> bool {
        match self.health {
            HealthState::Initial
            | HealthState::Healthy
            | HealthState::Unhealthy
            | HealthState::UnhealthyDraining
            | HealthState::Unavailable => true,
            HealthState::Unused | HealthState::Draining => false,
        }
    }

    /// Targets whose checks are off are `unavailable` and serve as healthy ones do.
    fn is_healthy(&self) -> bool {
        matches!(self.health, HealthState::Healthy | HealthState::Unavailable)
    }
}

/// A target in service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its place in the list of standings.
    pub index: usize,
    /// While in slow start: since when.
    pub starts: Option<Timestamp>,
    /// Of weighted random with anomaly mitigation.
    pub anomalous: bool,
}

/// An anomalous target's part of the share that it would have: enough to see it recover.
const ANOMALOUS_SHARE: u64 = 8;
/// Anomaly mitigation works from so many healthy targets on.
const ANOMALY_TARGETS: usize = 3;

/// What came of a target's requests in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u32,
    /// Answers of 5xx, and connections that failed.
    pub errors: u32,
}

/// Requests in a window below which a target's errors say nothing, unless it is known as anomalous already: then its
/// share is small.
const TELLING_REQUESTS: u32 = 20;

/// Which targets of a group fail markedly more often than the others: more than one request of ten, and more than
/// three times as often as the others together. The documentation gives no numbers.
pub fn anomalies(tallies: &[Tally], before: &[bool]) -> Vec<bool> {
    let (mut requests, mut errors) = (0_u64, 0_u64);
    for tally in tallies {
        requests += u64::from(tally.requests);
        errors += u64::from(tally.errors);
    }
    let judge = |(tally, before): (&Tally, &bool)| {
        let (own, failed) = (u64::from(tally.requests), u64::from(tally.errors));
        if own == 0 || (!before && tally.requests < TELLING_REQUESTS) {
            return *before;
        }
        let (others, others_failed) = ((requests - own).max(1), errors - failed);
        failed * 10 > own && failed * others > 3 * others_failed * own
    };
    tallies.iter().zip(before).map(judge).collect()
}

/// The targets of a group that get new requests: the healthy ones, or, when there are fewer of them than the group's
/// threshold, all that are registered. Draining targets and those that cannot be reached get none.
pub fn in_service(
    standings: &[Standing],
    attributes: &TargetGroupAttributes,
    now: Timestamp,
) -> Vec<Candidate> {
    let (all, good) = count(standings.iter());
    let fail_open = good < needed(attributes.fail_open_below, all);
    let slow = attributes.algorithm == Algorithm::RoundRobin && !attributes.slow_start.is_zero();
    let anomalies = attributes.algorithm == Algorithm::WeightedRandom { anomaly_mitigation: true }
        && good >= ANOMALY_TARGETS;
    let mut candidates: Vec<Candidate> = standings
        .iter()
        .enumerate()
        .filter(|(_, standing)| if fail_open { standing.is_registered() } else { standing.is_healthy() })
        .map(|(index, standing)| Candidate {
            index,
            starts: standing
                .healthy_since
                .filter(|since| slow && !fail_open && now.since(*since) < attributes.slow_start),
            anomalous: anomalies && !fail_open && standing.anomalous,
        })
        .collect();
    // A group of which all targets are in slow start gives them their full share.
    if candidates.iter().all(|candidate| candidate.starts.is_some()) {
        candidates.iter_mut().for_each(|candidate| candidate.starts = None);
    }
    candidates
}

/// The targets that get new requests which come to an address of `zone`, while cross-zone load balancing is off: those of
/// the zone, and those that are in all zones (`zones` has none for them). None where DNS would not lead clients to the
/// zone, because too few of its targets are healthy: then [`in_service`] has those who are led elsewhere.
pub fn in_service_of_zone(
    zone: &ZoneName,
    standings: &[Standing],
    zones: &[Option<&ZoneName>],
    attributes: &TargetGroupAttributes,
    now: Timestamp,
) -> Option<Vec<Candidate>> {
    let places = zones.iter().enumerate().filter(|(_, of)| of.is_none_or(|of| of == zone));
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    let of_zone: Vec<Standing> = places.iter().filter_map(|place| standings.get(*place)).copied().collect();
    let (all, good) = count(of_zone.iter());
    if good < needed(attributes.zone_healthy_from, all) {
        return None;
    }
    let mut candidates = in_service(&of_zone, attributes, now);
    candidates.iter_mut().for_each(|candidate| candidate.index = places[candidate.index]);
    Some(candidates)
}

/// How many are registered, and how many of them healthy.
fn count<'a>(standings: impl Iterator<Item = &'a Standing>) -> (usize, usize) {
    standings.fold((0, 0), |(all, good), standing| {
        (all + usize::from(standing.is_registered()), good + usize::from(standing.is_healthy()))
    })
}

/// Healthy targets that a group must have for the others to be left out.
fn needed(minimum: MinimumHealthy, registered: usize) -> usize {
    let percent = minimum.percent.map_or(0, |percent| (registered * usize::from(percent)).div_ceil(100));
    percent.max(minimum.count as usize)
}

/// The next target, as a place in `candidates`; None when there is none. `turn` counts a group's requests, `random`
/// is fresh for each, and `outstanding` tells how many requests a candidate (by its place) works on.
pub fn choose(
    candidates: &[Candidate],
    attributes: &TargetGroupAttributes,
    now: Timestamp,
    turn: u64,
    random: u64,
    outstanding: impl Fn(usize) -> u32,
) -> Option<usize> {
    let count = candidates.len();
    if count == 0 {
        return None;
    }
    let first = (turn % count as u64) as usize;
    let round = || (first..count).chain(0..first);
    match attributes.algorithm {
        Algorithm::LeastOutstandingRequests => {
            let mut best = (first, u32::MAX);
            for place in round() {
                let load = outstanding(place);
                if load < best.1 {
                    best = (place, load);
                }
                if load == 0 {
                    break;
                }
            }
            Some(best.0)
        }
        Algorithm::RoundRobin => {
            let mut random = random;
            for place in round() {
                let Some(since) = candidates[place].starts else { return Some(place) };
                if accepts(now.since(since), attributes.slow_start, random) {
                    return Some(place);
                }
                random = random.rotate_left(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            Some(first)
        }
        Algorithm::WeightedRandom { .. } => {
            let weight = |candidate: &Candidate| if candidate.anomalous { 1 } else { ANOMALOUS_SHARE };
            if candidates.iter().all(|candidate| !candidate.anomalous) {
                return Some(reduce(random, count as u64) as usize);
            }
            let mut left = reduce(random, candidates.iter().map(weight).sum());
            candidates.iter().position(|candidate| {
                let weight = weight(candidate);
                let hit = left < weight;
                left = left.saturating_sub(weight);
                hit
            })
        }
    }
}

/// Whether a target takes its turn in slow start: its share grows from nothing to all over the window.
fn accepts(age: Duration, window: Duration, random: u64) -> bool {
    u128::from(random >> 32) * window.as_millis().max(1) < age.as_millis() << 32
}

/// A number below `bound` from 64 random bits.
fn reduce(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// The target group of a forward for a request that sticks to none, as a place in its list; None when all weights
/// are zero. A group without healthy targets keeps its share.
pub fn choose_group(forward: &Forward, random: u64) -> Option<usize> {
    if let [only] = forward.groups.as_slice() {
        return (only.weight > 0).then_some(0);
    }
    let total: u64 = forward.groups.iter().map(|group| u64::from(group.weight)).sum();
    let mut left = reduce(random, total);
    forward.groups.iter().position(|group| {
        let weight = u64::from(group.weight);
        let hit = left < weight;
        left = left.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::{TargetGroupArn, WeightedGroup};
    use super::*;
    use crate::random::{Random, Seeded};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn standing(health: HealthState) -> Standing {
        Standing { health, healthy_since: Some(Timestamp::EPOCH), anomalous: false }
    }

    fn indexes(standings: &[Standing], attributes: &TargetGroupAttributes) -> Vec<usize> {
        in_service(standings, attributes, NOW).iter().map(|candidate| candidate.index).collect()
    }

    /// How often each of `count` candidates is chosen.
    fn shares(candidates: &[Candidate], attributes: &TargetGroupAttributes, rounds: u64) -> Vec<u64> {
        let (mut random, mut shares) = (Seeded::new(3), vec![0; candidates.len()]);
        for turn in 0..rounds {
            let place = choose(candidates, attributes, NOW, turn, random.next_u64(), |_| 0).unwrap();
            shares[place] += 1;
        }
        shares
    }

    #[test]
    fn unhealthy_targets_serve_only_when_too_few_are_healthy() {
        use HealthState::*;
        let mut attributes = TargetGroupAttributes::default();
        let mixed = [Healthy, Unhealthy, Draining, Initial, Unused].map(standing);
        assert_eq!(indexes(&mixed, &attributes), [0]);
        attributes.fail_open_below = MinimumHealthy { count: 1, percent: Some(50) };
        assert_eq!(indexes(&mixed, &attributes), [0, 1, 3]);
        assert_eq!(indexes(&[Unhealthy, Draining].map(standing), &attributes), [0]);
        assert!(indexes(&[Draining, Unused].map(standing), &attributes).is_empty());
    }

    #[test]
    fn a_zone_has_its_own_targets_while_enough_of_them_are_healthy() {
        use HealthState::*;
        let (a, b) = (ZoneName::new("a"), ZoneName::new("b"));
        let mut attributes = TargetGroupAttributes::default();
        let zones = [Some(&a), Some(&b), None, Some(&b)];
        let indexes = |zone, states: [HealthState; 4], attributes: &TargetGroupAttributes| {
            let found = in_service_of_zone(zone, &states.map(standing), &zones, attributes, NOW);
            found.map(|found| found.iter().map(|candidate| candidate.index).collect::<Vec<_>>())
        };
        assert_eq!(indexes(&a, [Healthy; 4], &attributes), Some(vec![0, 2]));
        assert_eq!(indexes(&b, [Healthy, Healthy, Unhealthy, Unhealthy], &attributes), Some(vec![1]));
        assert_eq!(indexes(&b, [Healthy, Unhealthy, Unhealthy, Draining], &attributes), None);
        // Where DNS leads to a zone whatever its health, all of its targets serve.
        attributes.zone_healthy_from = MinimumHealthy { count: 0, percent: None };
        assert_eq!(indexes(&b, [Healthy, Unhealthy, Unhealthy, Draining], &attributes), Some(vec![1, 2]));
        attributes.zone_healthy_from = MinimumHealthy { count: 0, percent: Some(100) };
        assert_eq!(indexes(&b, [Healthy, Healthy, Healthy, Unhealthy], &attributes), None);
    }

    #[test]
    fn round_robin_is_even_and_slow_start_grows() {
        let mut attributes = TargetGroupAttributes::default();
        let mut standings = [standing(HealthState::Healthy); 4];
        let even = in_service(&standings, &attributes, NOW);
        assert_eq!(shares(&even, &attributes, 400), [100; 4]);
        attributes.slow_start = Duration::from_secs(100);
        // A quarter of the window is over for the last one.
        standings[3].healthy_since = Some(NOW - Duration::from_secs(25));
        let starting = in_service(&standings, &attributes, NOW);
        let last = shares(&starting, &attributes, 40_000)[3];
        assert!((2_300..2_700).contains(&last), "{last}");
        // All in slow start: full share for all.
        let fresh = [Standing { healthy_since: Some(NOW), ..standing(HealthState::Healthy) }; 3];
        assert_eq!(shares(&in_service(&fresh, &attributes, NOW), &attributes, 300), [100; 3]);
    }

    #[test]
    fn least_outstanding_takes_the_idlest_and_turns_among_equals() {
        let attributes =
            TargetGroupAttributes { algorithm: Algorithm::LeastOutstandingRequests, ..Default::default() };
        let candidates = in_service(&[standing(HealthState::Healthy); 3], &attributes, NOW);
        let load = [2, 1, 5];
        assert_eq!(choose(&candidates, &attributes, NOW, 0, 0, |place| load[place]), Some(1));
        assert_eq!(shares(&candidates, &attributes, 300), [100; 3]);
    }

    #[test]
    fn an_anomalous_target_keeps_a_small_share() {
        let algorithm = Algorithm::WeightedRandom { anomaly_mitigation: true };
        let attributes = TargetGroupAttributes { algorithm, ..Default::default() };
        let mut standings = [standing(HealthState::Healthy); 4];
        standings[0].anomalous = true;
        let share = shares(&in_service(&standings, &attributes, NOW), &attributes, 50_000)[0];
        assert!((1_700..2_300).contains(&share), "{share}");
        // Of two targets none is left aside.
        assert!(in_service(&standings[..2], &attributes, NOW).iter().all(|candidate| !candidate.anomalous));
    }

    #[test]
    fn a_target_that_fails_more_than_its_neighbours_is_anomalous() {
        let tally = |requests, errors| Tally { requests, errors };
        let none = [false; 3];
        assert_eq!(anomalies(&[tally(100, 40), tally(100, 2), tally(100, 0)], &none), [true, false, false]);
        // All fail alike, or seldom, or hardly anything was asked.
        assert_eq!(anomalies(&[tally(100, 40), tally(100, 30), tally(100, 35)], &none), none);
        assert_eq!(anomalies(&[tally(100, 9), tally(100, 0), tally(100, 0)], &none), none);
        assert_eq!(anomalies(&[tally(10, 10), tally(100, 0), tally(100, 0)], &none), none);
        // It recovers by few requests, but not by none.
        let first = [true, false, false];
        assert_eq!(anomalies(&[tally(3, 0), tally(100, 0), tally(100, 0)], &first), none);
        assert_eq!(anomalies(&[tally(0, 0), tally(100, 0), tally(100, 0)], &first), first);
    }

    #[test]
    fn groups_get_their_weights_and_zero_gets_nothing() {
        let forward = |weights: &[u16]| Forward {
            groups: (0..)
                .zip(weights)
                .map(|(n, weight)| WeightedGroup {
                    group: TargetGroupArn::new(&format!("{n}")),
                    weight: *weight,
                })
                .collect(),
            stickiness: None,
            unused_stickiness: None,
        };
        let mut random = Seeded::new(5);
        let mut counts = [0; 3];
        for _ in 0..10_000 {
            counts[choose_group(&forward(&[1, 0, 3]), random.next_u64()).unwrap()] += 1;
        }
        assert!(counts[1] == 0 && (2_300..2_700).contains(&counts[0]), "{counts:?}");
        assert_eq!((choose_group(&forward(&[0, 0]), 9), choose_group(&forward(&[0]), 9)), (None, None));
    }

    proptest! {
        /// Somebody always serves when anybody is registered, and never one that drains.
        #[test]
        fn a_registered_target_is_found(
            states in prop::collection::vec(0_usize..7, 0..12), count in 0_u32..5, percent in prop::option::of(1_u8..=100),
            algorithm in 0_usize..3, turn: u64, random: u64,
        ) {
            use HealthState::*;
            let all = [Initial, Healthy, Unhealthy, UnhealthyDraining, Unused, Draining, Unavailable];
            let standings: Vec<Standing> = states.iter().map(|state| standing(all[*state])).collect();
            let attributes = TargetGroupAttributes {
                fail_open_below: MinimumHealthy { count: count.max(1), percent },
                algorithm: [
                    Algorithm::RoundRobin,
                    Algorithm::LeastOutstandingRequests,
                    Algorithm::WeightedRandom { anomaly_mitigation: true },
                ][algorithm],
                ..Default::default()
            };
            let candidates = in_service(&standings, &attributes, NOW);
            let chosen = choose(&candidates, &attributes, NOW, turn, random, |place| place as u32)
                .map(|place| standings[candidates[place].index].health);
            let registered = standings.iter().any(|s| !matches!(s.health, Unused | Draining));
            prop_assert_eq!(chosen.is_some(), registered);
            prop_assert!(chosen.is_none_or(|health| !matches!(health, Unused | Draining)));
        }
    }
}
