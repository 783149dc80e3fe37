//! Takes configurations: compiles them into what workers look up, opens and closes listeners, and keeps each target's
//! health. Everything here is beside the requests' way; one lock guards it.

use super::access_log;
use super::clock::now;
use super::counters::{GroupSample, ListenerSample};
use super::groups::{Held, Watched};
use super::http::Entrance;
use super::tables::{Balanced, Door, Table, used_groups};
use super::tls::{alpn_names, server_config};
use super::worker::{self, Bound, Command};
use super::{Observer, Problem, Settings};
use arc_swap::ArcSwap;
use gantry_decide::routing::config::{
    AlpnPolicy, CertificateArn, ListenerArn, LoadBalancer, LoadBalancerArn, LoadBalancerKind, Protocol,
    RoutingConfig, TargetGroupArn, TargetKey,
};
use gantry_decide::routing::{HealthReport, HealthState, Probe};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc::UnboundedSender;

/// Connections that the kernel holds for a listener until a worker accepts them; the kernel's own bound may be lower.
const BACKLOG: u32 = 4096;
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
    threads: Vec<JoinHandle<()>>,
    runtime: Option<Runtime>,
}

pub struct Inner {
    pub observer: Arc<dyn Observer>,
    this: Weak<Mutex<Inner>>,
    checks: Handle,
    workers: Vec<UnboundedSender<Command>>,
    generation: Option<u64>,
    groups: BTreeMap<TargetGroupArn, Held>,
    balanced: BTreeMap<LoadBalancerArn, Arc<Balanced>>,
    doors: BTreeMap<ListenerArn, Arc<Door>>,
    bound: BTreeMap<Bound, ListenerArn>,
    /// Addresses that could not be taken yet.
    wanted: BTreeMap<Bound, ListenerArn>,
    hosts: Arc<ArcSwap<BTreeMap<String, Arc<Door>>>>,
}

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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("edge-checks")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (mut workers, mut threads, mut sink) = (Vec::new(), Vec::new(), None);
        let mut logs = None;
        if let Some(folder) = &settings.logs {
            let (to, thread) =
                access_log::start(folder.clone(), settings.log_interval).map_err(StartError::Thread)?;
            (sink, logs) = (Some(to), Some(thread));
        }
        for number in 0..settings.workers.max(1) {
            let (commands, thread) = worker::start(number, sink.clone()).map_err(StartError::Thread)?;
            workers.push(commands);
            threads.push(thread);
        }
        // Workers have the only sinks: the last one to end ends the logs' thread.
        drop(sink);
        threads.extend(logs);
        let hosts = Arc::<ArcSwap<_>>::default();
        let inner = Arc::new_cyclic(|this: &Weak<Mutex<Inner>>| {
            Mutex::new(Inner {
                observer,
                this: this.clone(),
                checks: runtime.handle().clone(),
                workers,
                generation: None,
                groups: BTreeMap::new(),
                balanced: BTreeMap::new(),
                doors: BTreeMap::new(),
                bound: BTreeMap::new(),
                wanted: BTreeMap::new(),
                hosts: Arc::clone(&hosts),
            })
        });
        let shared = match settings.shared {
            None => None,
            Some(address) => {
                let listening = inner.lock().listen(address, &Entrance::Shared(hosts));
                Some(listening.map_err(|source| StartError::Shared { address, source })?)
            }
        };
        runtime.spawn(retry(Arc::downgrade(&inner)));
        Ok(Balancer { inner, shared, threads, runtime: Some(runtime) })
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
                at,
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
        // Workers end with their commands' sender.
        self.inner.lock().workers.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
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
        self.apply_groups(config, news);
        self.apply_listeners(config, news);
        self.remove_groups(config);
    }

    fn apply_groups(&mut self, config: &RoutingConfig, news: &mut News) {
        let used = used_groups(config);
        for group in &config.target_groups {
            let held = self.groups.entry(group.arn.clone()).or_insert_with(|| Held::new(group));
            held.take(group, used.contains(&group.arn));
            held.refresh(news);
            held.run_checks(&self.this, &self.checks);
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
        let groups: BTreeMap<_, _> =
            self.groups.iter().map(|(arn, held)| (arn.clone(), held.group.clone())).collect();
        let (mut wanted, mut doors, mut hosts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut balanced = BTreeMap::new();
        for balancer in &config.load_balancers {
            let counted = self.balanced.remove(&balancer.arn).unwrap_or_else(|| {
                Arc::new(Balanced { arn: balancer.arn.clone(), counters: Default::default() })
            });
            for listener in &balancer.listeners {
                let observer = &self.observer;
                let tls = listener.tls.as_ref().and_then(|tls| {
                    let alpn = match balancer.kind {
                        LoadBalancerKind::Application if balancer.attributes.http2 => {
                            alpn_names(AlpnPolicy::Http2Preferred)
                        }
                        LoadBalancerKind::Application => alpn_names(AlpnPolicy::Http1Only),
                        LoadBalancerKind::Network => alpn_names(tls.alpn),
                    };
                    let find = |arn: &CertificateArn| observer.certificate(arn);
                    server_config(tls, alpn, listener.arn.as_str(), &find, &mut news.problems)
                });
                let (table, broken) = Table::compile(counted.clone(), balancer, listener, &groups, tls);
                news.problems.extend(
                    broken
                        .into_iter()
                        .map(|source| Problem::Rule { listener: listener.arn.to_string(), source }),
                );
                let door = match self.doors.remove(&listener.arn) {
                    Some(door) => {
                        door.table.store(Arc::new(table));
                        door
                    }
                    None => {
                        Arc::new(Door { table: ArcSwap::from_pointee(table), closed: AtomicBool::new(false) })
                    }
                };
                for address in &balancer.addresses {
                    let address = SocketAddr::new(address.ip, listener.port);
                    if listener.protocol != Protocol::Udp {
                        wanted.insert((address, false), listener.arn.clone());
                    }
                    if matches!(listener.protocol, Protocol::Udp | Protocol::TcpUdp) {
                        wanted.insert((address, true), listener.arn.clone());
                    }
                }
                doors.insert(listener.arn.clone(), door);
            }
            name_hosts(balancer, &doors, &mut hosts);
            balanced.insert(balancer.arn.clone(), counted);
        }
        for door in self.doors.values() {
            door.closed.store(true, Relaxed);
        }
        (self.doors, self.balanced) = (doors, balanced);
        self.hosts.store(Arc::new(hosts));
        let bound = std::mem::take(&mut self.bound);
        for (bound, listener) in bound {
            if wanted.get(&bound) == Some(&listener) {
                wanted.remove(&bound);
                self.bound.insert(bound, listener);
            } else {
                self.command(|| Ok(Command::Close(bound)));
            }
        }
        self.wanted = wanted;
        self.bind(Some(news));
    }

    /// Takes the addresses that are wanted. Those that are not to be had are told of once, and tried again.
    fn bind(&mut self, mut news: Option<&mut News>) {
        for ((address, datagrams), listener) in std::mem::take(&mut self.wanted) {
            let Some(door) = self.doors.get(&listener).cloned() else { continue };
            let taken = match datagrams {
                true => self.receive(address, door),
                false => self.listen(address, &Entrance::Own(door)).map(drop),
            };
            match taken {
                Ok(()) => {
                    self.bound.insert((address, datagrams), listener);
                }
                Err(source) => {
                    if let Some(news) = &mut news {
                        let listener = listener.to_string();
                        news.problems.push(Problem::Listen { address, listener, source });
                    }
                    self.wanted.insert((address, datagrams), listener);
                }
            }
        }
    }

    fn receive(&self, address: SocketAddr, door: Arc<Door>) -> io::Result<()> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        if let Some(worker) = self.workers.first() {
            let _ = worker.send(Command::Receive { socket, door });
        }
        Ok(())
    }

    fn listen(&self, address: SocketAddr, entrance: &Entrance) -> io::Result<SocketAddr> {
        let socket = {
            let _entered = self.checks.enter();
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)?.into_std()?
        };
        let address = socket.local_addr()?;
        self.command(|| {
            Ok(Command::Listen { socket: TcpListener::try_clone(&socket)?, entrance: entrance.clone() })
        });
        Ok(address)
    }

    fn command(&self, make: impl Fn() -> io::Result<Command>) {
        for worker in &self.workers {
            match make() {
                Ok(command) => drop(worker.send(command)),
                Err(error) => tracing::warn!(%error, "a worker cannot have a listener's socket"),
            }
        }
    }

    /// Looks at every group, and finds draining targets with nothing under way. Twice in a row: a request that chose its target just before it
    /// left counts from a moment later.
    fn look(&mut self, news: &mut News) {
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

    /// Takes a probe's finding.
    pub fn found(&mut self, group: &TargetGroupArn, key: &TargetKey, probe: Probe, news: &mut News) {
        let Some(held) = self.groups.get_mut(group) else { return };
        let Some(watched) = held.targets.get_mut(key) else { return };
        if watched.checked.take(probe, &held.config.health_check) {
            held.refresh(news);
        }
    }
}

/// Host names find a load balancer's listener on port 80, or else its first.
fn name_hosts(
    balancer: &LoadBalancer,
    doors: &BTreeMap<ListenerArn, Arc<Door>>,
    hosts: &mut BTreeMap<String, Arc<Door>>,
) {
    let served = || balancer.listeners.iter().filter(|listener| doors.contains_key(&listener.arn));
    let listener = served().find(|listener| listener.port == 80).or_else(|| served().next());
    if let Some(door) = listener.and_then(|listener| doors.get(&listener.arn)) {
        hosts.extend(balancer.host_names.iter().map(|name| (name.to_ascii_lowercase(), door.clone())));
    }
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
            if !inner.wanted.is_empty() {
                inner.bind(None);
            }
            inner.look(&mut news);
            inner.observer.clone()
        };
        news.tell(&*observer);
    }
}
