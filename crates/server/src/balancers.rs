//! Balancers between their connections and the engine: each is told what to serve as it changes, and what all of them see
//! of their targets is brought together. One in the server's own process takes a seat like those on other hosts.

use crate::certificates::Certificates;
use crate::endpoint::Caller;
use crate::sockets::{self, Outgoing};
use crate::target_news::Mailbox;
use crate::transport::Response;
use gantry_control::call::{self, CARRY_TRAFFIC, Demand};
use gantry_decide::routing::channel::{FromBalancer, Instructions, NAME, NAME_LENGTH, ToBalancer};
use gantry_decide::routing::config::{RoutingConfig, TargetGroupArn, TargetKey};
use gantry_decide::routing::{HealthReport, Observers};
use gantry_decide::time::Timestamp;
use gantry_wire::ApiError;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Balancers at once: one on each of the hosts that carry an installation's traffic.
const BALANCERS_MAX: usize = 100;
/// How often a balancer hears that the server is there: several times within the minute after which it would connect anew.
const ALIVE: Duration = Duration::from_secs(15);
/// Between two configurations for one balancer: what changes together is told together.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked whether absent balancers still count.
const LOOK: Duration = Duration::from_secs(1);
/// The name of the balancer in the server's process.
const LOCAL: &str = "local";

/// The balancers of one installation.
pub struct Balancers {
    observers: Mutex<Observers>,
    /// Absences are measured from here: the time of day may be set back.
    begun: Instant,
    connected: Mutex<Connected>,
    mailbox: Arc<Mailbox>,
    configurations: watch::Receiver<Arc<RoutingConfig>>,
    certificates: Certificates,
}

/// The open connections.
#[derive(Default)]
struct Connected {
    /// By balancers' names: a number of their own, and what ends them by being dropped.
    by_name: BTreeMap<String, (u64, oneshot::Sender<()>)>,
    last: u64,
}

/// One balancer's place: what it sees is told here.
pub struct Seat {
    name: String,
    balancers: Arc<Balancers>,
}

impl Seat {
    pub fn health(&self, report: &HealthReport) {
        self.balancers.observers.lock().health(&self.name, report);
        self.balancers.tell();
    }

    pub fn drained(&self, group: &TargetGroupArn, target: &TargetKey) {
        self.balancers.observers.lock().drained(&self.name, group, target);
        self.balancers.tell();
    }
}

impl Balancers {
    pub fn new(
        mailbox: Arc<Mailbox>,
        configurations: watch::Receiver<Arc<RoutingConfig>>,
        certificates: Certificates,
    ) -> Arc<Balancers> {
        // Of others than the one in this process the server knows only when they come.
        let observers = Mutex::new(Observers::new(Timestamp::EPOCH, true));
        Arc::new(Balancers {
            observers,
            begun: Instant::now(),
            connected: Mutex::default(),
            mailbox,
            configurations,
            certificates,
        })
    }

    /// A seat for the balancer in the server's own process.
    pub fn local(self: &Arc<Self>) -> Seat {
        self.observers.lock().arrive(LOCAL);
        Seat { name: LOCAL.to_owned(), balancers: Arc::clone(self) }
    }

    /// What balancers are told, as it changes.
    pub fn configurations(&self) -> watch::Receiver<Arc<RoutingConfig>> {
        self.configurations.clone()
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH + self.begun.elapsed()
    }

    /// Tells what follows from what was seen.
    fn tell(&self) {
        let mut observers = self.observers.lock();
        // Under the lock, so that what follows later is also told later.
        observers.news(self.now()).into_iter().for_each(|news| self.mailbox.put(news));
    }

    /// Looks after absent balancers, and forgets targets that are none any more, until the server ends.
    pub async fn look_after(self: Arc<Self>) {
        let mut turns = interval(LOOK);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut configurations = self.configurations.clone();
        loop {
            turns.tick().await;
            if configurations.has_changed().unwrap_or(false) {
                let config = Arc::clone(&configurations.borrow_and_update());
                let targets = config
                    .target_groups
                    .iter()
                    .flat_map(|group| group.targets.iter().map(move |target| (&group.arn, &target.key)));
                let targets: BTreeSet<_> = targets.collect();
                self.observers.lock().retain(|group, target| targets.contains(&(group, target)));
            }
            self.tell();
        }
    }

    /// Answers a balancer's upgrade and carries its messages from then on.
    ///
    /// # Errors
    /// In the form of other connections' refusals.
    pub fn accept(
        self: &Arc<Self>,
        caller: &Caller,
        parts: &Parts,
        upgrade: OnUpgrade,
    ) -> Result<Response, ApiError> {
        call::permit(caller, &Demand::on_all(CARRY_TRAFFIC))?;
        let name = name(parts.uri.query().unwrap_or_default())?;
        let response = sockets::accept(parts)
            .map_err(|error| ApiError::new("BadRequestException", error.to_string()))?;
        let (number, superseded) = {
            let mut connected = self.connected.lock();
            if connected.by_name.len() >= BALANCERS_MAX && !connected.by_name.contains_key(&name) {
                let message = "The server takes no more balancers' connections.";
                return Err(ApiError::new("ServerException", message).with_status(503));
            }
            connected.last += 1;
            let (number, (end, superseded)) = (connected.last, oneshot::channel());
            // One that it had before ends: it is dead, and nobody knows yet.
            connected.by_name.insert(name.clone(), (number, end));
            (number, superseded)
        };
        self.observers.lock().arrive(&name);
        let balancers = Arc::clone(self);
        tokio::spawn(async move {
            let left = balancers.converse(&name, upgrade, superseded).await;
            let mut connected = balancers.connected.lock();
            if connected.by_name.get(&name).is_some_and(|(newest, _)| *newest == number) {
                connected.by_name.remove(&name);
                let mut observers = balancers.observers.lock();
                if left {
                    observers.leave(&name);
                } else {
                    observers.lose(&name, balancers.now());
                }
            }
            drop(connected);
            balancers.tell();
            tracing::info!(balancer = name, left, "a balancer's connection ended");
        });
        Ok(response)
    }

    /// Until a connection ends; whether the balancer said that it leaves.
    async fn converse(
        self: &Arc<Self>,
        name: &str,
        upgrade: OnUpgrade,
        mut superseded: oneshot::Receiver<()>,
    ) -> bool {
        let (mailbox, outbox) = sockets::mailbox();
        let mut telling = JoinSet::new();
        let mut configurations = self.configurations.clone();
        let known = self.certificates.clone();
        telling.spawn(async move {
            configurations.mark_changed();
            let mut alive = interval(ALIVE);
            // What the balancer has been told of trust stores: they may be large, and seldom change.
            let mut trusted = BTreeMap::new();
            let tell = async |told: &ToBalancer| {
                let Ok(text) = serde_json::to_string(told) else { return };
                // It may be large: the next one waits until this one has been sent.
                mailbox.send(Outgoing::Text(text));
                while !mailbox.is_empty() {
                    sleep(PAUSE).await;
                }
            };
            loop {
                let told = tokio::select! {
                    changed = configurations.changed() => {
                        if changed.is_err() {
                            // The server ends; its going ends the connection.
                            return;
                        }
                        let configuration = RoutingConfig::clone(&configurations.borrow_and_update());
                        if configuration.generation == 0 {
                            // Nothing was compiled yet.
                            continue;
                        }
                        for (arn, at) in &configuration.trust_stores {
                            if trusted.get(arn) != Some(at)
                                && let Some(store) = known.trust_store(arn)
                            {
                                tell(&ToBalancer::TrustStore { arn: arn.clone(), store }).await;
                            }
                        }
                        trusted.clone_from(&configuration.trust_stores);
                        let named = configuration.certificates.keys();
                        let found = named.filter_map(|arn| Some((arn.clone(), known.find(arn)?)));
                        let certificates = found.collect();
                        let trust_stores = BTreeMap::new();
                        ToBalancer::Serve(Box::new(Instructions { configuration, certificates, trust_stores }))
                    }
                    _ = alive.tick() => ToBalancer::Alive,
                    // The mailbox goes, and the connection with it.
                    _ = &mut superseded => return,
                };
                tell(&told).await;
                sleep(PAUSE).await;
            }
        });
        let seat = Seat { name: name.to_owned(), balancers: Arc::clone(self) };
        let mut left = false;
        let end = sockets::run(upgrade, outbox, |text| {
            match serde_json::from_str(&text) {
                Ok(FromBalancer::Health(reports)) => reports.iter().for_each(|report| seat.health(report)),
                Ok(FromBalancer::Drained { group, target }) => seat.drained(&group, &target),
                Ok(FromBalancer::Leaving) => left = true,
                // A newer one may say what this one does not know.
                Err(error) => {
                    tracing::warn!(balancer = name, %error, "a balancer's message is not understood")
                }
            }
            std::future::ready(())
        })
        .await;
        tracing::debug!(balancer = name, ?end, "the connection is over");
        left
    }
}

fn name(query: &str) -> Result<String, ApiError> {
    let named = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == NAME);
    let name = named.map(|(_, value)| value.into_owned()).unwrap_or_default();
    if name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(name);
    }
    let message =
        format!("A balancer names itself by {NAME_LENGTH} letters and digits, as the parameter '{NAME}'.");
    Err(ApiError::new("BadRequestException", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn balancers_name_themselves() {
        assert_eq!(name("name=0123456789abcdef").unwrap(), "0123456789abcdef");
        assert!(name("name=local").is_err() && name("").is_err() && name("name=0123456789abcde%2F").is_err());
    }
}
