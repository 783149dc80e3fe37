//! Target groups and what is known of their targets' health; the checks that find it out.

use super::attic::Attic;
use super::clock::now;
use super::manager::{Inner, News};
use super::probe::probe;
use super::tables::{Group, Placed, Service, Target};
use arc_swap::ArcSwap;
use gantry_decide::routing::config::{
    Algorithm, HealthCheck, Protocol, ProtocolVersion, Target as Registered, TargetGroup, TargetGroupArn,
    TargetKey,
};
use gantry_decide::routing::{
    Checked, HealthReport, HealthState, Probe, Reason, Standing, Tally, TargetHealth, anomalies,
};
use gantry_decide::time::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Checks of many targets that begin at once are spread over so much of the interval.
const SPREAD: u32 = 10;
/// Findings of so long are told and acted on together: each time costs a look at all targets of the group.
const SETTLE: Duration = Duration::from_millis(5);
/// Requests of a target after which its errors are counted anew.
const WINDOW_REQUESTS: u32 = 100;

/// A target group with all its targets.
pub struct Held {
    /// Without its targets.
    pub config: TargetGroup,
    pub group: Arc<Group>,
    pub used: bool,
    pub targets: BTreeMap<TargetKey, Watched>,
    /// Counts configurations.
    round: u64,
    /// Findings wait to be told and acted on.
    stale: bool,
    old: Attic,
}

/// A registered target.
pub struct Watched {
    pub config: Registered,
    /// The last configuration that had it.
    round: u64,
    pub target: Arc<Target>,
    pub checked: Checked,
    /// As it was told last.
    pub health: TargetHealth,
    healthy_since: Option<Timestamp>,
    checks: Option<AbortHandle>,
    /// Fails markedly more often than the others.
    anomalous: bool,
    unhealthy_since: Option<Timestamp>,
    /// Looks at a draining target that found nothing under way.
    pub quiet: u32,
}

/// A group's settings.
fn without_targets(config: &TargetGroup) -> TargetGroup {
    TargetGroup {
        arn: config.arn.clone(),
        ticket: config.ticket,
        protocol: config.protocol,
        protocol_version: config.protocol_version,
        attributes: config.attributes.clone(),
        health_check: config.health_check.clone(),
        targets: Vec::new(),
    }
}

impl Held {
    pub fn new(config: &TargetGroup) -> Held {
        Held {
            config: without_targets(config),
            group: Arc::new(Group {
                arn: config.arn.clone(),
                ticket: config.ticket,
                service: ArcSwap::from_pointee(Service::new(config, &[])),
                turn: AtomicU64::new(0),
                counters: Default::default(),
            }),
            used: false,
            targets: BTreeMap::new(),
            round: 0,
            stale: false,
            old: Attic::default(),
        }
    }

    /// Whether connections are cut at the end of a target's delay: always those of requests, others if told so.
    pub fn cuts(&self) -> bool {
        self.is_http() || self.config.attributes.terminate_deregistered
    }

    fn is_http(&self) -> bool {
        matches!(self.config.protocol, Protocol::Http | Protocol::Https)
    }

    /// Takes over attributes and targets; false when all is as it was. A target that moved to another address is a new
    /// one.
    pub fn take(&mut self, config: &TargetGroup, used: bool) -> bool {
        let recheck = self.config.health_check != config.health_check
            || self.config.protocol_version != config.protocol_version
            || self.config.attributes.proxy_protocol != config.attributes.proxy_protocol
            || self.used != used;
        let cut = self.cuts();
        let was_used = std::mem::replace(&mut self.used, used);
        let config_before = std::mem::replace(&mut self.config, without_targets(config));
        let mut changed = used != was_used || config_before != self.config;
        self.round += 1;
        for registered in &config.targets {
            let watched = match self.targets.get_mut(&registered.key) {
                Some(watched) if watched.is_of(registered) => {
                    if recheck {
                        watched.stop_checks();
                    }
                    // What was found long ago says nothing; until the first check all targets serve.
                    if used && !was_used {
                        watched.checked = Checked::default();
                    }
                    if watched.config != *registered {
                        watched.config = registered.clone();
                        changed = true;
                    }
                    watched
                }
                Some(watched) => {
                    watched.end(cut);
                    *watched = Watched::new(registered);
                    changed = true;
                    watched
                }
                None => {
                    changed = true;
                    self.targets.entry(registered.key.clone()).or_insert_with(|| Watched::new(registered))
                }
            };
            watched.round = self.round;
            watched.target.retired.store(registered.deregistered.is_some(), Relaxed);
        }
        let round = self.round;
        self.targets.retain(|_, watched| {
            let kept = watched.round == round;
            if !kept {
                watched.end(cut);
                changed = true;
            }
            kept
        });
        changed
    }

    /// Brings each target's health up to date, tells what changed, and puts the right ones in service.
    pub fn refresh(&mut self, news: &mut News) {
        self.stale = false;
        let at = now();
        // Only where connections to unhealthy targets go on, as documented.
        let unhealthy_draining = match self.config.attributes.terminate_unhealthy || self.is_http() {
            true => Duration::ZERO,
            false => self.config.attributes.unhealthy_draining,
        };
        for (key, watched) in &mut self.targets {
            let mut health = watched.judge(self.used, self.config.health_check.enabled);
            if health.state == HealthState::Unhealthy {
                let since = *watched.unhealthy_since.get_or_insert(at);
                if at.since(since) < unhealthy_draining {
                    health.state = HealthState::UnhealthyDraining;
                }
            } else {
                watched.unhealthy_since = None;
            }
            let fresh = watched.health.reason == Some(Reason::RegistrationInProgress);
            if health.state == HealthState::Healthy && watched.health.state != HealthState::Healthy {
                watched.healthy_since = Some(at);
            }
            if health != watched.health || fresh {
                watched.health = health;
                news.reports.push(HealthReport {
                    group: self.group.arn.clone(),
                    target: key.clone(),
                    health,
                    at: watched.told_at(at),
                });
            }
        }
        let checked = self.config.health_check.enabled;
        let placed: Vec<_> = self
            .targets
            .values()
            .filter(|watched| watched.config.ip.is_some())
            .map(|watched| {
                // A group that is used no more still serves those who came by a rule that was there a moment ago.
                let standing = Standing {
                    health: watched.judge(true, checked).state,
                    healthy_since: watched.healthy_since,
                    anomalous: watched.anomalous,
                };
                let zone = watched.config.zone.as_ref();
                Placed { target: watched.target.clone(), standing, zone }
            })
            .collect();
        let service = Service::new(&self.config, &placed);
        if !self.is_http() && self.config.attributes.terminate_unhealthy {
            // Connections to targets that turned unhealthy end, unless all targets are in use regardless.
            for Placed { target, standing, .. } in &placed {
                let out = standing.health == HealthState::Unhealthy && !service.has(target);
                target.gone.store(out, Relaxed);
            }
        }
        self.old.keep(self.group.service.swap(Arc::new(service)));
    }

    /// Takes a probe's finding; true when there is to be a look at the group in a moment, and none is under way.
    pub fn found(&mut self, key: &TargetKey, probe: Probe) -> bool {
        let Some(watched) = self.targets.get_mut(key) else { return false };
        watched.checked.take(probe, &self.config.health_check) && !std::mem::replace(&mut self.stale, true)
    }

    /// Acts on findings.
    pub fn settle(&mut self, news: &mut News) {
        if self.stale {
            self.refresh(news);
        }
    }

    /// Looks which targets fail more than others, and which are unhealthy for long enough; to be called about every
    /// second.
    pub fn look(&mut self, news: &mut News) {
        self.old.clear();
        let mut changed = false;
        if matches!(self.config.attributes.algorithm, Algorithm::WeightedRandom { anomaly_mitigation: true })
        {
            let before: Vec<bool> = self.targets.values().map(|watched| watched.anomalous).collect();
            let tallies: Vec<Tally> = self.targets.values().map(|watched| watched.tally()).collect();
            let now = anomalies(&tallies, &before);
            changed = now != before;
            for ((watched, anomalous), tally) in self.targets.values_mut().zip(now).zip(&tallies) {
                watched.anomalous = anomalous;
                // A window lasts until it is telling, at most as long as its requests are few.
                if tally.requests >= WINDOW_REQUESTS {
                    watched.forget();
                }
            }
        }
        let draining = |watched: &Watched| watched.health.state == HealthState::UnhealthyDraining;
        if changed || self.targets.values().any(draining) {
            self.refresh(news);
        }
    }

    /// Starts checks where there are none and should be, and ends the others.
    pub fn run_checks(&mut self, inner: &Weak<Mutex<Inner>>, runtime: &Handle) {
        let count = u32::try_from(self.targets.len()).unwrap_or(u32::MAX).max(1);
        for (place, (key, watched)) in (0_u32..).zip(&mut self.targets) {
            let wanted = matches!(
                watched.health.state,
                HealthState::Initial
                    | HealthState::Healthy
                    | HealthState::Unhealthy
                    | HealthState::UnhealthyDraining
            );
            match (&watched.checks, wanted) {
                (None, true) => {
                    let spread = self.config.health_check.interval / SPREAD * place / count;
                    let job = Job {
                        inner: inner.clone(),
                        group: self.config.arn.clone(),
                        check: self.config.health_check.clone(),
                        version: self.config.protocol_version,
                        proxy_protocol: self.config.attributes.proxy_protocol,
                        key: key.clone(),
                        address: watched.target.address,
                    };
                    watched.checks = Some(runtime.spawn(job.run(spread)).abort_handle());
                }
                (Some(_), false) => watched.stop_checks(),
                _ => {}
            }
        }
    }
}

impl Watched {
    /// As when a finding of now is told: it is about the registration that this balancer has heard of, even if the server's
    /// clock, by which that has its time, is ahead.
    pub fn told_at(&self, now: Timestamp) -> Timestamp {
        now.max(self.config.registered)
    }

    /// Whether this is the target that a configuration names.
    fn is_of(&self, registered: &Registered) -> bool {
        let of = |target: &Registered| (target.ip, target.registered, target.ticket);
        of(&self.config) == of(registered)
    }

    fn tally(&self) -> Tally {
        Tally { requests: self.target.asked.load(Relaxed), errors: self.target.failed.load(Relaxed) }
    }

    fn forget(&self) {
        self.target.asked.store(0, Relaxed);
        self.target.failed.store(0, Relaxed);
    }

    fn new(config: &Registered) -> Watched {
        let ip = config.ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
        Watched {
            config: config.clone(),
            round: 0,
            target: Arc::new(Target {
                key: config.key.clone(),
                address: SocketAddr::new(ip, config.key.port),
                ticket: config.ticket,
                outstanding: AtomicU32::new(0),
                asked: AtomicU32::new(0),
                failed: AtomicU32::new(0),
                retired: AtomicBool::new(false),
                gone: AtomicBool::new(false),
            }),
            checked: Checked::default(),
            health: TargetHealth {
                state: HealthState::Initial,
                reason: Some(Reason::RegistrationInProgress),
            },
            healthy_since: None,
            checks: None,
            anomalous: false,
            unhealthy_since: None,
            quiet: 0,
        }
    }

    fn judge(&self, used: bool, checked: bool) -> TargetHealth {
        let (state, reason) = match () {
            () if self.config.deregistered.is_some() => {
                (HealthState::Draining, Reason::DeregistrationInProgress)
            }
            () if !used => (HealthState::Unused, Reason::NotInUse),
            () if self.config.ip.is_none() => (HealthState::Unused, Reason::InvalidState),
            () if !checked => (HealthState::Unavailable, Reason::HealthCheckDisabled),
            () => return self.checked.health(),
        };
        TargetHealth { state, reason: Some(reason) }
    }

    fn stop_checks(&mut self) {
        if let Some(checks) = self.checks.take() {
            checks.abort();
        }
    }

    /// The target is registered no more, and its delay is over; what is under way is cut or not.
    pub fn end(&mut self, cut: bool) {
        self.stop_checks();
        self.target.retired.store(true, Relaxed);
        self.target.gone.store(cut, Relaxed);
    }
}

/// The checks of one target.
struct Job {
    inner: Weak<Mutex<Inner>>,
    group: TargetGroupArn,
    check: HealthCheck,
    version: ProtocolVersion,
    proxy_protocol: bool,
    key: TargetKey,
    address: SocketAddr,
}

impl Job {
    async fn run(self, spread: Duration) {
        let check = &self.check;
        // Zero would be a busy loop; nothing is checked more often than a target could notice.
        let every = check.interval.max(Duration::from_millis(10));
        let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + spread, every);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let found = probe(self.address, check, self.version, self.proxy_protocol).await;
            let Some(inner) = self.inner.upgrade() else { return };
            if inner.lock().found(&self.group, &self.key, found) {
                // Apart from the checks, which end with their target.
                tokio::spawn(settle(self.inner.clone(), self.group.clone()));
            }
        }
    }
}

/// Acts on a group's findings in a moment.
async fn settle(inner: Weak<Mutex<Inner>>, group: TargetGroupArn) {
    tokio::time::sleep(SETTLE).await;
    let Some(inner) = inner.upgrade() else { return };
    let mut news = News::default();
    let observer = {
        let mut inner = inner.lock();
        inner.settle(&group, &mut news);
        inner.observer.clone()
    };
    news.tell(&*observer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_decide::routing::config::{HealthCheckPort, Matcher, TargetGroupAttributes, TargetId};

    fn group(targets: &[&str]) -> TargetGroup {
        let target = |id: &&str| Registered {
            key: TargetKey { id: TargetId::new(id), port: 80 },
            ticket: 0,
            ip: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            zone: None,
            registered: Timestamp::EPOCH,
            deregistered: None,
        };
        TargetGroup {
            arn: TargetGroupArn::new("web"),
            ticket: 1,
            protocol: Protocol::Http,
            protocol_version: ProtocolVersion::Http1,
            attributes: TargetGroupAttributes::default(),
            health_check: HealthCheck {
                enabled: true,
                protocol: Protocol::Http,
                port: HealthCheckPort::Traffic,
                path: "/".to_owned(),
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(2),
                healthy_threshold: 2,
                unhealthy_threshold: 2,
                matcher: Matcher(vec![(200, 200)]),
            },
            targets: targets.iter().map(target).collect(),
        }
    }

    #[test]
    fn only_what_changed_is_taken() {
        let mut config = group(&["a", "b"]);
        let mut held = Held::new(&config);
        assert!(held.take(&config, true) && !held.take(&config, true));
        let targets: Vec<_> = held.targets.values().map(|watched| watched.target.clone()).collect();
        config.targets[0].deregistered = Some(Timestamp::EPOCH);
        assert!(held.take(&config, true) && !held.take(&config, true));
        assert!(targets[0].retired.load(Relaxed) && !targets[0].gone.load(Relaxed));
        config.targets.remove(0);
        config.targets.extend(group(&["c"]).targets);
        assert!(held.take(&config, true) && !held.take(&config, true));
        assert!(targets[0].gone.load(Relaxed) && !targets[1].retired.load(Relaxed));
        assert!(Arc::ptr_eq(&targets[1], &held.targets[&config.targets[0].key].target));
        // One that is registered anew is another target.
        config.targets[0].registered = Timestamp::from_millis(1);
        assert!(held.take(&config, true) && targets[1].gone.load(Relaxed));
        config.attributes.slow_start = Duration::from_secs(30);
        assert!(held.take(&config, true) && held.take(&config, false) && !held.take(&config, false));
    }

    #[test]
    fn findings_are_acted_on_together() {
        let config = group(&["a", "b"]);
        let (mut held, mut news) = (Held::new(&config), News::default());
        held.take(&config, true);
        held.refresh(&mut news);
        news.reports.clear();
        let keys: Vec<_> = held.targets.keys().cloned().collect();
        assert!(held.found(&keys[0], Probe::Passed) && !held.found(&keys[1], Probe::Passed));
        assert!(news.reports.is_empty());
        held.settle(&mut news);
        assert_eq!(news.reports.len(), 2);
        // What changes nothing is no reason to look.
        assert!(!held.found(&keys[0], Probe::Passed));
        held.settle(&mut news);
        assert_eq!(news.reports.len(), 2);
    }
}
