//! Takes configurations: compiles them into what workers look up, opens and closes listeners, and keeps each target's
//! health. Everything here is beside the requests' way; one lock guards it.

use super::access_log;
use super::attic::Attic;
use super::clock::now;
use super::counters::{GroupSample, ListenerSample};
use super::groups::{Held, Watched};
use super::hand_over::{Inherited, Successor};
use super::http::{Entrance, Hosts};
use super::sockets::{Refused, Sockets, Wish};
use super::tables::{Balanced, Door, Table, used_groups};
use super::tls::{Served, alpn_names};
use super::worker::{self, Bound};
use super::{Observer, Problem, Settings};
use arc_swap::ArcSwap;
use gantry_decide::routing::config::{
    AlpnPolicy, Listener, ListenerArn, LoadBalancer, LoadBalancerArn, LoadBalancerKind, Protocol,
    RoutingConfig, TargetGroupArn, TargetKey,
};
use gantry_decide::routing::{HealthReport, HealthState, Probe};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// How often an address that could not be taken is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The balancer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a thread of the load balancer cannot be started")]
    Thread(#[source] io::Error),
    #[error("the load balancers' shared listener cannot have {address}")]
    Shared {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A running balancer. Dropped, it stops: listeners close, and connections are cut.
pub struct Balancer {
    inner: Arc<Mutex<Inner>>,
    shared: Option<SocketAddr>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Of each worker.
    connections: Vec<Arc<AtomicU64>>,
    _checks: Checks,
}

/// The runtime of health checks. It may be dropped on a thread that must not wait for it.
struct Checks(Option<Runtime>);

impl Drop for Checks {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct Inner {
    pub observer: Arc<dyn Observer>,
    this: Weak<Mutex<Inner>>,
    checks: Handle,
    sockets: Sockets,
    generation: Option<u64>,
    /// Listens no more.
    retired: bool,
    groups: BTreeMap<TargetGroupArn, Held>,
    balanced: BTreeMap<LoadBalancerArn, Arc<Balanced>>,
    doors: BTreeMap<ListenerArn, Arc<Door>>,
    tls: BTreeMap<ListenerArn, Served>,
    /// Doors by host name, for whoever asks for one at the shared address.
    hosts: Hosts,
    /// The same of the listeners on one port.
    hosts_of_port: BTreeMap<u16, Hosts>,
    names: Option<IpAddr>,
    old: Attic,
}

/// A load balancer's listener, and what is behind it.
type Found<'a> = (&'a LoadBalancer, &'a Listener, Arc<Door>);

/// What is told once the lock is released.
#[derive(Default)]
pub struct News {
    pub reports: Vec<HealthReport>,
    problems: Vec<Problem>,
    drained: Vec<(TargetGroupArn, TargetKey)>,
}

impl Balancer {
    /// Starts workers and health checks, with nothing to serve yet.
    ///
    /// # Errors
    /// When threads cannot be started, or the shared listener's address is taken.
    pub fn start(settings: &Settings, observer: Arc<dyn Observer>) -> Result<Balancer, StartError> {
        let balancer = Balancer::inherit(settings, observer, Inherited::default())?;
        balancer.open();
        Ok(balancer)
    }

    /// As [`Self::start`], with sockets that a predecessor listened on: they are used where the configuration wants
    /// their addresses. Nothing is accepted before [`Self::open`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn inherit(
        settings: &Settings,
        observer: Arc<dyn Observer>,
        inherited: Inherited,
    ) -> Result<Balancer, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("edge-checks")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (handle, checks) = (runtime.handle().clone(), Checks(Some(runtime)));
        let (mut workers, mut threads, mut sink) = (Vec::new(), Vec::new(), None);
        let (mut logs, mut connections) = (None, Vec::new());
        if let Some(folder) = &settings.logs {
            let (to, thread) =
                access_log::start(folder.clone(), settings.log_interval).map_err(StartError::Thread)?;
            (sink, logs) = (Some(to), Some(thread));
        }
        for number in 0..settings.workers.max(1) {
            let open = Arc::<AtomicU64>::default();
            connections.push(open.clone());
            let (commands, thread) = worker::start(number, sink.clone(), open).map_err(StartError::Thread)?;
            workers.push(commands);
            threads.push(thread);
        }
        // Workers have the only sinks: the last one to end ends the logs' thread.
        drop(sink);
        threads.extend(logs);
        let hosts = Hosts::default();
        let sockets = Sockets::new(workers, inherited.0);
        let inner = Arc::new_cyclic(|this: &Weak<Mutex<Inner>>| {
            Mutex::new(Inner {
                observer,
                this: this.clone(),
                checks: handle.clone(),
                sockets,
                generation: None,
                retired: false,
                groups: BTreeMap::new(),
                balanced: BTreeMap::new(),
                doors: BTreeMap::new(),
                tls: BTreeMap::new(),
                hosts: Arc::clone(&hosts),
                hosts_of_port: BTreeMap::new(),
                names: settings.names,
                old: Attic::default(),
            })
        });
        let shared = match settings.shared {
            None => None,
            Some(address) => {
                let listening = inner.lock().sockets.share(address, hosts);
                Some(listening.map_err(|source| StartError::Shared { address, source })?)
            }
        };
        handle.spawn(retry(Arc::downgrade(&inner)));
        Ok(Balancer { inner, shared, threads: Mutex::new(threads), connections, _checks: checks })
    }

    /// Serves who connects, from now on.
    pub fn open(&self) {
        self.inner.lock().sockets.open();
    }

    /// Gives another process everything that is listened on, to be listened on by both.
    ///
    /// # Errors
    /// When the other process does not take it.
    pub fn hand_over(&self, successor: &Successor) -> io::Result<()> {
        self.inner.lock().sockets.held().try_for_each(|socket| successor.give(socket))
    }

    /// Listens no more, for good. Connections end after the request under way; of those that are idle the next request is
    /// still answered. Configurations are taken as before.
    pub fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.retired = true;
        inner.sockets.close_all();
        inner.doors.values().for_each(|door| door.closed.store(true, Relaxed));
    }

    /// Ends all that is under way, and completes the logs. Dropped, a balancer does so too.
    pub fn end(&self) {
        // Workers end with their commands' sender, and the logs' thread with the last worker.
        self.inner.lock().sockets.close();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }

    /// Clients' connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.iter().map(|open| open.load(Relaxed)).sum()
    }

    /// Takes addresses now that somebody else had before; it is tried each second as well.
    pub fn try_again(&self) {
        // What is refused still was told before.
        self.inner.lock().sockets.try_again();
    }

    /// Where the shared listener is.
    pub fn shared_address(&self) -> Option<SocketAddr> {
        self.shared
    }

    /// Takes a configuration, at once and as a whole; false when it is older than the one served.
    pub fn apply(&self, config: &RoutingConfig) -> bool {
        let mut news = News::default();
        let (taken, observer) = {
            let mut inner = self.inner.lock();
            let newer = inner.generation.is_none_or(|have| config.generation > have);
            if newer {
                inner.apply(config, &mut news);
            }
            (newer, inner.observer.clone())
        };
        news.tell(&*observer);
        taken
    }

    /// Every target's health now, for those who missed transitions.
    pub fn health(&self) -> Vec<HealthReport> {
        let (inner, at) = (self.inner.lock(), now());
        let of_group = |(arn, held): (&TargetGroupArn, &Held)| {
            let report = |(key, watched): (&TargetKey, &Watched)| HealthReport {
                group: arn.clone(),
                target: key.clone(),
                health: watched.health,
                at: watched.told_at(at),
            };
            held.targets.iter().map(report).collect::<Vec<_>>()
        };
        inner.groups.iter().flat_map(of_group).collect()
    }

    /// What was counted since the last call.
    pub fn samples(&self) -> (Vec<ListenerSample>, Vec<GroupSample>) {
        let inner = self.inner.lock();
        let balancers =
            inner.balanced.values().map(|balanced| balanced.counters.sample(balanced.arn.clone()));
        let groups = inner.groups.values().map(|held| {
            let count = |state: HealthState| {
                held.targets.values().filter(|watched| watched.health.state == state).count() as u64
            };
            let (healthy, unhealthy) = (count(HealthState::Healthy), count(HealthState::Unhealthy));
            held.group.counters.sample(held.group.arn.clone(), healthy, unhealthy)
        });
        (balancers.collect(), groups.collect())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.end();
    }
}

impl News {
    pub fn tell(self, observer: &dyn Observer) {
        self.reports.into_iter().for_each(|report| observer.health(report));
        self.problems.into_iter().for_each(|problem| observer.problem(problem));
        self.drained.into_iter().for_each(|(group, target)| observer.drained(&group, &target));
    }
}

impl Inner {
    fn apply(&mut self, config: &RoutingConfig, news: &mut News) {
        self.generation = Some(config.generation);
        self.sockets.own(config.own_addresses);
        self.apply_groups(config, news);
        self.apply_listeners(config, news);
        self.remove_groups(config);
    }

    fn apply_groups(&mut self, config: &RoutingConfig, news: &mut News) {
        let used = used_groups(config);
        for group in &config.target_groups {
            let held = self.groups.entry(group.arn.clone()).or_insert_with(|| Held::new(group));
            if held.take(group, used.contains(&group.arn)) {
                held.refresh(news);
                held.run_checks(&self.this, &self.checks);
            }
        }
    }

    /// Groups that the configuration has no more go after the listeners that used them.
    fn remove_groups(&mut self, config: &RoutingConfig) {
        let kept: BTreeSet<_> = config.target_groups.iter().map(|group| &group.arn).collect();
        self.groups.retain(|arn, held| {
            let keep = kept.contains(arn);
            if !keep {
                let cut = held.cuts();
                held.targets.values_mut().for_each(|watched| watched.end(cut));
            }
            keep
        });
    }

    fn apply_listeners(&mut self, config: &RoutingConfig, news: &mut News) {
        let groups: BTreeMap<_, _> = self.groups.iter().map(|(arn, held)| (arn, &held.group)).collect();
        let (mut wanted, mut doors, mut balanced) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut all_served = BTreeMap::new();
        for balancer in &config.load_balancers {
            let counted = self.balanced.remove(&balancer.arn).unwrap_or_else(|| {
                Arc::new(Balanced { arn: balancer.arn.clone(), counters: Default::default() })
            });
            for listener in &balancer.listeners {
                let observer = &self.observer;
                let served = listener.tls.as_ref().map(|tls| {
                    let alpn = match balancer.kind {
                        LoadBalancerKind::Application if balancer.attributes.http2 => {
                            alpn_names(AlpnPolicy::Http2Preferred)
                        }
                        LoadBalancerKind::Application => alpn_names(AlpnPolicy::Http1Only),
                        LoadBalancerKind::Network => alpn_names(tls.alpn),
                    };
                    let before = self.tls.remove(&listener.arn);
                    Served::of(tls, alpn, &listener.arn, &**observer, &mut news.problems, before)
                });
                let tls = served.as_ref().and_then(|served| served.config.clone());
                all_served.extend(served.map(|served| (listener.arn.clone(), served)));
                let before = self.doors.remove(&listener.arn);
                let same = |door: &Arc<Door>| {
                    door.table.load().is_made_of(&counted, balancer, listener, &groups, tls.as_ref())
                };
                let door = match before {
                    Some(door) if same(&door) => door,
                    before => {
                        let (table, broken) =
                            Table::compile(counted.clone(), balancer, listener, &groups, tls);
                        let problem = |source| Problem::Rule { listener: listener.arn.to_string(), source };
                        news.problems.extend(broken.into_iter().map(problem));
                        let table = Arc::new(table);
                        match before {
                            Some(door) => {
                                self.old.keep(door.table.swap(table));
                                door
                            }
                            None => {
                                Arc::new(Door { table: ArcSwap::new(table), closed: AtomicBool::new(false) })
                            }
                        }
                    }
                };
                for address in &balancer.addresses {
                    let address = SocketAddr::new(address.ip, listener.port);
                    let entrance = Entrance::Own(door.clone());
                    let wish = Wish { entrance, owner: Some(listener.arn.to_string()) };
                    wanted.extend(transports(listener.protocol).map(|udp| ((address, udp), wish.clone())));
                }
                doors.insert(listener.arn.clone(), door);
            }
            balanced.insert(balancer.arn.clone(), counted);
        }
        for door in self.doors.values() {
            door.closed.store(true, Relaxed);
        }
        (self.doors, self.balanced, self.tls) = (doors, balanced, all_served);
        self.name_hosts(config, &mut wanted);
        self.listen(wanted, news);
    }

    fn listen(&mut self, wanted: BTreeMap<Bound, Wish>, news: &mut News) {
        if self.retired {
            self.doors.values().for_each(|door| door.closed.store(true, Relaxed));
            return;
        }
        let refused = self.sockets.listen(wanted).into_iter();
        news.problems.extend(refused.map(|Refused { address, owner, source }| Problem::Listen {
            address,
            listener: owner,
            source,
        }));
    }

    /// Has load balancers found by host name: at the shared address, and where [`Settings::names`] says on their listeners'
    /// own ports. There a listener of another protocol than HTTP is only found where no other load balancer has the port.
    fn name_hosts(&mut self, config: &RoutingConfig, wanted: &mut BTreeMap<Bound, Wish>) {
        let named = |balancer: &LoadBalancer, door: &Arc<Door>| {
            let names = balancer.host_names.iter().map(|name| (name.to_ascii_lowercase(), door.clone()));
            names.collect::<Vec<_>>()
        };
        let mut hosts = BTreeMap::new();
        let mut ports: BTreeMap<u16, Vec<Found<'_>>> = BTreeMap::new();
        for balancer in &config.load_balancers {
            let plain = || balancer.listeners.iter().filter(|listener| listener.protocol == Protocol::Http);
            let first = plain().find(|listener| listener.port == 80).or_else(|| plain().next());
            if let Some(door) = first.and_then(|listener| self.doors.get(&listener.arn)) {
                hosts.extend(named(balancer, door));
            }
            for listener in &balancer.listeners {
                if let Some(door) = self.doors.get(&listener.arn) {
                    ports.entry(listener.port).or_default().push((balancer, listener, door.clone()));
                }
            }
        }
        self.hosts.store(Arc::new(hosts));
        let Some(ip) = self.names else { return };
        self.hosts_of_port.retain(|port, _| ports.contains_key(port));
        for (port, found) in ports {
            let address = SocketAddr::new(ip, port);
            let alone = match found.as_slice() {
                [(_, listener, door)] if listener.protocol != Protocol::Http => Some((listener, door)),
                _ => None,
            };
            let (entrance, protocol) = match alone {
                Some((listener, door)) => (Entrance::Own(door.clone()), listener.protocol),
                None => {
                    let plain = found.iter().filter(|(_, listener, _)| listener.protocol == Protocol::Http);
                    let doors: BTreeMap<_, _> =
                        plain.flat_map(|(balancer, _, door)| named(balancer, door)).collect();
                    if doors.is_empty() {
                        continue;
                    }
                    let hosts = self.hosts_of_port.entry(port).or_default();
                    hosts.store(Arc::new(doors));
                    (Entrance::Shared(hosts.clone()), Protocol::Http)
                }
            };
            for udp in transports(protocol) {
                // A load balancer's own address comes first.
                wanted
                    .entry((address, udp))
                    .or_insert_with(|| Wish { entrance: entrance.clone(), owner: None });
            }
        }
    }

    /// Looks at every group, and finds draining targets with nothing under way. Twice in a row: a request that chose its target just before it
    /// left counts from a moment later.
    fn look(&mut self, news: &mut News) {
        self.old.clear();
        for (arn, held) in &mut self.groups {
            held.look(news);
            for (key, watched) in &mut held.targets {
                let idle = watched.target.outstanding.load(Relaxed) == 0;
                match watched.config.deregistered {
                    Some(_) if idle => {
                        watched.quiet = watched.quiet.saturating_add(1);
                        if watched.quiet == 2 {
                            news.drained.push((arn.clone(), key.clone()));
                        }
                    }
                    _ => watched.quiet = 0,
                }
            }
        }
    }

    /// Takes a probe's finding; true when [`Self::settle`] is to be called in a moment.
    pub fn found(&mut self, group: &TargetGroupArn, key: &TargetKey, probe: Probe) -> bool {
        self.groups.get_mut(group).is_some_and(|held| held.found(key, probe))
    }

    /// Acts on the findings of a group.
    pub fn settle(&mut self, group: &TargetGroupArn, news: &mut News) {
        if let Some(held) = self.groups.get_mut(group) {
            held.settle(news);
        }
    }
}

/// Whether a listener takes connections, datagrams, or both: true for datagrams.
fn transports(protocol: Protocol) -> impl Iterator<Item = bool> {
    let connections = protocol != Protocol::Udp;
    [(false, connections), (true, protocol.has_datagrams())]
        .into_iter()
        .filter_map(|(udp, wanted)| wanted.then_some(udp))
}

/// Tries again to take the addresses that were not to be had, and looks at draining targets.
async fn retry(inner: Weak<Mutex<Inner>>) {
    let mut turns = tokio::time::interval(RETRY);
    loop {
        turns.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let mut news = News::default();
        let observer = {
            let mut inner = inner.lock();
            // What is refused still was told before.
            inner.sockets.try_again();
            inner.look(&mut news);
            inner.observer.clone()
        };
        news.tell(&*observer);
    }
}
