//! What several balancers see of the same targets, brought together: each checks them for itself, one word is told.
//!
//! A target counts as healthy for the first time when every balancer finds it so, because each of them will send it
//! requests, and what it replaces goes then. Later one that finds it healthy is enough: a balancer that has lost its way to
//! the targets must not have them all replaced. A deregistered target is drained when it is so for every balancer.

use super::config::{TargetGroupArn, TargetKey};
use super::health::{HealthReport, HealthState, TargetHealth};
use crate::arn::BalancingArn;
use crate::ids::Scope;
use crate::mutant;
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the word of a balancer that is away still counts. It serves all the while, but must not hold up
/// deployments for ever when its host is lost.
pub const ABSENCE_MAX: Duration = Duration::from_secs(60);
/// How long after its start a server waits for balancers to come back before it believes the ones that have: longer than
/// the longest pause between their attempts.
pub const RETURN_MAX: Duration = Duration::from_secs(3);

/// What is told of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetNews {
    /// It is another way than it was, or is known for the first time.
    Health(HealthReport),
    /// Nothing of a deregistered target is under way any more.
    Drained { group: TargetGroupArn, target: TargetKey },
}

impl TargetNews {
    /// The scope whose target it is. None for a group of nobody's.
    pub fn scope(&self) -> Option<Scope> {
        let group = match self {
            TargetNews::Health(report) => &report.group,
            TargetNews::Drained { group, .. } => group,
        };
        group.as_str().parse::<BalancingArn>().ok().map(|arn| arn.scope)
    }
}

type Key = (TargetGroupArn, TargetKey);

/// What one balancer sees of a target.
#[derive(Clone, Copy, Debug)]
struct Sight {
    health: TargetHealth,
    at: Timestamp,
    drained: bool,
}

#[derive(Clone, Debug, Default)]
struct Target {
    /// By the balancers' names.
    sights: BTreeMap<String, Sight>,
    told: Option<TargetHealth>,
    told_drained: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Observers {
    /// Since when each is away, if it is.
    known: BTreeMap<String, Option<Timestamp>>,
    targets: BTreeMap<Key, Target>,
    /// To be looked at by the next [`Self::news`].
    changed: BTreeSet<Key>,
    /// Nothing is told before.
    from: Timestamp,
}

impl Observers {
    /// Nobody has come yet. `awaited`: balancers may have been here before, and are given time to come back.
    pub fn new(now: Timestamp, awaited: bool) -> Observers {
        Observers {
            known: BTreeMap::new(),
            targets: BTreeMap::new(),
            changed: BTreeSet::new(),
            from: if awaited { now + RETURN_MAX } else { now },
        }
    }

    /// A balancer is here, for the first time or again. It tells everything it sees then.
    pub fn arrive(&mut self, name: &str) {
        self.known.insert(name.to_owned(), None);
        self.look_at_drained();
    }

    /// Whether a target is drained depends on who is known.
    fn look_at_drained(&mut self) {
        let drained = |target: &Target| target.sights.values().any(|sight| sight.drained);
        let found = self.targets.iter().filter(|(_, target)| drained(target));
        self.changed.extend(found.map(|(key, _)| key.clone()));
    }

    /// A balancer's connection is lost; it goes on serving with what it knows.
    pub fn lose(&mut self, name: &str, now: Timestamp) {
        if let Some(absent) = self.known.get_mut(name) {
            absent.get_or_insert(now);
        }
    }

    /// A balancer has ended.
    pub fn leave(&mut self, name: &str) {
        self.known.remove(name);
        self.look_at_drained();
        for (key, target) in &mut self.targets {
            if target.sights.remove(name).is_some() {
                self.changed.insert(key.clone());
            }
        }
    }

    /// A balancer's finding of a target.
    pub fn health(&mut self, name: &str, report: &HealthReport) {
        if !self.known.contains_key(name) {
            return;
        }
        let key = (report.group.clone(), report.target.clone());
        let target = self.targets.entry(key.clone()).or_default();
        let drained = report.health.state == HealthState::Draining
            && target.sights.get(name).is_some_and(|sight| sight.drained);
        if report.health.state != HealthState::Draining {
            // Registered again, or for the first time.
            target.told_drained = false;
        }
        target.sights.insert(name.to_owned(), Sight { health: report.health, at: report.at, drained });
        self.changed.insert(key);
    }

    /// Nothing of a deregistered target is under way at a balancer.
    pub fn drained(&mut self, name: &str, group: &TargetGroupArn, target: &TargetKey) {
        let key = (group.clone(), target.clone());
        if let Some(sight) = self.targets.get_mut(&key).and_then(|target| target.sights.get_mut(name)) {
            sight.drained = true;
            self.changed.insert(key);
        }
    }

    /// Forgets the targets that are none any more.
    pub fn retain(&mut self, is_target: impl Fn(&TargetGroupArn, &TargetKey) -> bool) {
        self.targets.retain(|(group, target), _| is_target(group, target));
    }

    /// What there is to tell now. Absent balancers that are waited for no longer are forgotten on the way.
    pub fn news(&mut self, now: Timestamp) -> Vec<TargetNews> {
        let gone = |absent: &Option<Timestamp>| {
            absent.is_some_and(|since| now >= since + ABSENCE_MAX)
                && !mutant::is("dead balancers waited for for ever")
        };
        let lost: Vec<String> =
            self.known.iter().filter(|(_, absent)| gone(absent)).map(|(name, _)| name.clone()).collect();
        lost.iter().for_each(|name| self.leave(name));
        if now < self.from {
            return Vec::new();
        }
        let mut news = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(target) = self.targets.get_mut(&key) else { continue };
            let (group, key) = key;
            if let Some((health, at)) = merged(target.told, target.sights.values())
                && target.told != Some(health)
            {
                target.told = Some(health);
                let (group, target) = (group.clone(), key.clone());
                news.push(TargetNews::Health(HealthReport { group, target, health, at }));
            }
            let drained = |name: &String| target.sights.get(name).is_some_and(|sight| sight.drained);
            let hasty = mutant::is("drained for one is drained for all");
            let is_drained = self.known.keys().all(drained) || hasty && self.known.keys().any(drained);
            if !target.told_drained && !self.known.is_empty() && is_drained {
                target.told_drained = true;
                news.push(TargetNews::Drained { group, target: key });
            }
        }
        news
    }
}

/// What findings come to, after `told` was told. None without findings.
fn merged<'a>(
    told: Option<TargetHealth>,
    sights: impl Iterator<Item = &'a Sight> + Clone,
) -> Option<(TargetHealth, Timestamp)> {
    let told = told.map(|health| health.state);
    let healthy = sights.clone().any(|sight| sight.health.state == HealthState::Healthy);
    // What counts first, when findings differ.
    let rank = |state: HealthState| match state {
        HealthState::Draining => 7,
        HealthState::Healthy if told == Some(HealthState::Healthy) => 6,
        // A balancer that has just come says so of every target, also of those that are known to be unwell.
        HealthState::Initial if told != Some(HealthState::Unhealthy) || healthy => 5,
        HealthState::Healthy => 4,
        HealthState::UnhealthyDraining => 3,
        HealthState::Unhealthy => 2,
        HealthState::Initial => 1,
        HealthState::Unavailable | HealthState::Unused => 0,
    };
    let chosen = sights.max_by_key(|sight| (rank(sight.health.state), sight.at))?;
    Some((chosen.health, chosen.at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::TargetId;
    use super::super::health::Reason;
    use super::*;

    const GROUP: &str =
        "arn:aws:elasticloadbalancing:us-east-1:111122223333:targetgroup/web/0123456789abcdef";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH + Duration::from_secs(seconds)
    }

    fn key() -> (TargetGroupArn, TargetKey) {
        (TargetGroupArn::new(GROUP), TargetKey { id: TargetId::new("10.0.0.1"), port: 80 })
    }

    fn says(observers: &mut Observers, name: &str, state: HealthState) {
        let (group, target) = key();
        let reason = (state != HealthState::Healthy).then_some(Reason::FailedHealthChecks);
        let report = HealthReport { group, target, health: TargetHealth { state, reason }, at: at(0) };
        observers.health(name, &report);
    }

    fn told(observers: &mut Observers, seconds: u64) -> Vec<HealthState> {
        let news = observers.news(at(seconds)).into_iter();
        news.filter_map(|news| match news {
            TargetNews::Health(report) => Some(report.health.state),
            TargetNews::Drained { .. } => None,
        })
        .collect()
    }

    fn drained(observers: &mut Observers, seconds: u64) -> bool {
        observers.news(at(seconds)).iter().any(|news| matches!(news, TargetNews::Drained { .. }))
    }

    fn two() -> Observers {
        let mut observers = Observers::new(at(0), false);
        observers.arrive("a");
        observers.arrive("b");
        observers
    }

    #[test]
    fn a_fresh_target_is_healthy_for_all_and_an_old_one_as_long_as_for_one() {
        use HealthState::{Healthy, Initial, Unhealthy};
        let mut observers = two();
        says(&mut observers, "a", Initial);
        says(&mut observers, "b", Initial);
        assert_eq!(told(&mut observers, 0), [Initial]);
        says(&mut observers, "a", Healthy);
        assert_eq!(told(&mut observers, 0), []);
        says(&mut observers, "b", Healthy);
        assert_eq!(told(&mut observers, 0), [Healthy]);
        says(&mut observers, "a", Unhealthy);
        observers.arrive("c");
        says(&mut observers, "c", Initial);
        assert_eq!(told(&mut observers, 0), []);
        says(&mut observers, "b", Unhealthy);
        says(&mut observers, "c", Unhealthy);
        assert_eq!(told(&mut observers, 0), [Unhealthy]);
        // One that has just come does not make it better than it is.
        observers.arrive("d");
        says(&mut observers, "d", Initial);
        assert_eq!(told(&mut observers, 0), []);
        says(&mut observers, "d", Healthy);
        assert_eq!(told(&mut observers, 0), [Healthy]);
    }

    #[test]
    fn an_absent_balancer_counts_for_a_minute() {
        use HealthState::{Healthy, Initial};
        let mut observers = two();
        says(&mut observers, "a", Healthy);
        says(&mut observers, "b", Initial);
        assert_eq!(told(&mut observers, 0), [Initial]);
        observers.lose("b", at(1));
        assert_eq!(told(&mut observers, 60), []);
        assert_eq!(told(&mut observers, 61), [Healthy]);
        // Back within the minute it was never away.
        let mut observers = two();
        observers.lose("b", at(1));
        observers.arrive("b");
        says(&mut observers, "a", Healthy);
        says(&mut observers, "b", Initial);
        assert_eq!(told(&mut observers, 100), [Initial]);
    }

    #[test]
    fn a_target_is_drained_when_no_balancer_has_anything_for_it() {
        let (group, target) = key();
        let mut observers = two();
        for name in ["a", "b"] {
            says(&mut observers, name, HealthState::Draining);
        }
        observers.drained("a", &group, &target);
        assert!(!drained(&mut observers, 0));
        // One that knows nothing of the target yet, either.
        observers.arrive("c");
        observers.drained("b", &group, &target);
        assert!(!drained(&mut observers, 0));
        observers.leave("c");
        assert!(drained(&mut observers, 0) && !drained(&mut observers, 0));
        // Registered and deregistered again, it drains again.
        says(&mut observers, "a", HealthState::Initial);
        says(&mut observers, "a", HealthState::Draining);
        observers.lose("b", at(1));
        assert!(!drained(&mut observers, 2));
        observers.drained("a", &group, &target);
        assert!(drained(&mut observers, 61));
    }

    #[test]
    fn after_a_start_balancers_are_given_time_to_come_back() {
        let mut observers = Observers::new(at(100), true);
        observers.arrive("a");
        says(&mut observers, "a", HealthState::Unhealthy);
        assert_eq!(told(&mut observers, 102), []);
        observers.arrive("b");
        says(&mut observers, "b", HealthState::Healthy);
        assert_eq!(told(&mut observers, 103), [HealthState::Healthy]);
    }

    #[test]
    fn the_word_of_one_who_never_came_is_not_heard() {
        let mut observers = two();
        says(&mut observers, "c", HealthState::Healthy);
        assert_eq!(observers.news(at(0)), []);
        says(&mut observers, "a", HealthState::Healthy);
        observers.retain(|_, _| false);
        assert_eq!(observers.news(at(0)), []);
    }
}
