//! What workers look up on a request's way: listeners with their compiled rules, groups with the targets in service.
//! All of it is immutable behind an `Arc`, or a counter.

use super::clock::now;
use super::counters::{GroupCounters, ListenerCounters};
use super::tls::{self, Secured};
use arc_swap::ArcSwap;
use gantry_decide::routing::config::{
    Action, ClientCertificates, Listener, ListenerArn, ListenerAttributes, LoadBalancer, LoadBalancerArn,
    LoadBalancerAttributes, Protocol, ProtocolVersion, RoutingConfig, Stickiness, TargetGroup,
    TargetGroupArn, TargetGroupAttributes, TargetKey, WeightedGroup, ZoneName,
};
use gantry_decide::routing::{
    BrokenRule, Candidate, Rules, Standing, Ticket, choose, in_service, in_service_of_zone,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A target as long as it is registered, under one address.
#[derive(Debug)]
pub struct Target {
    pub key: TargetKey,
    pub address: SocketAddr,
    /// As stickiness tickets name it.
    pub ticket: u64,
    /// Requests under way.
    pub outstanding: AtomicU32,
    /// Requests, and those that failed, since it was last looked whether it fails more than others.
    pub asked: AtomicU32,
    pub failed: AtomicU32,
    /// Gets no new requests any more: its connections are not kept.
    pub retired: AtomicBool,
    /// Its time is over: what is still under way is cut.
    pub gone: AtomicBool,
}

/// Something that a target works on.
#[derive(Debug)]
pub struct Outstanding(Arc<Target>);

impl Target {
    /// Counts a request or connection as under way, until the guard is dropped.
    pub fn enter(target: &Arc<Target>) -> Outstanding {
        target.outstanding.fetch_add(1, Relaxed);
        Outstanding(target.clone())
    }
}

impl Outstanding {
    /// Counts how it went, for anomaly mitigation.
    pub fn count(&self, failed: bool) {
        self.0.asked.fetch_add(1, Relaxed);
        if failed {
            self.0.failed.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Relaxed);
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key.id, self.address)
    }
}

/// A target group, across configurations.
#[derive(Debug)]
pub struct Group {
    pub arn: TargetGroupArn,
    /// As stickiness tickets name it.
    pub ticket: u64,
    pub service: ArcSwap<Service>,
    pub turn: AtomicU64,
    pub counters: GroupCounters,
}

/// A group's attributes and the targets that get requests now.
#[derive(Debug)]
pub struct Service {
    pub attributes: TargetGroupAttributes,
    pub version: ProtocolVersion,
    /// Targets are reached by TLS.
    secure: bool,
    candidates: Vec<Candidate>,
    /// By the candidates' places.
    targets: Vec<Arc<Target>>,
    /// While cross-zone load balancing is off: what addresses of these zones lead to instead.
    zones: BTreeMap<ZoneName, Arc<Service>>,
}

/// A target that can be reached, as it stands.
#[derive(Debug)]
pub struct Placed<'a> {
    pub target: Arc<Target>,
    pub standing: Standing,
    /// None: in all zones.
    pub zone: Option<&'a ZoneName>,
}

impl Service {
    /// The service that targets in these standings give.
    pub fn new(group: &TargetGroup, placed: &[Placed<'_>]) -> Service {
        let standings: Vec<Standing> = placed.iter().map(|placed| placed.standing).collect();
        let (attributes, at) = (&group.attributes, now());
        let of = |candidates: Vec<Candidate>, zones| Service {
            attributes: attributes.clone(),
            version: group.protocol_version,
            secure: matches!(group.protocol, Protocol::Https | Protocol::Tls),
            targets: candidates.iter().map(|candidate| placed[candidate.index].target.clone()).collect(),
            candidates,
            zones,
        };
        let mut zones = BTreeMap::new();
        if !attributes.cross_zone {
            let of_targets: Vec<Option<&ZoneName>> = placed.iter().map(|placed| placed.zone).collect();
            let named: BTreeSet<&ZoneName> = of_targets.iter().copied().flatten().collect();
            for zone in named {
                let found = in_service_of_zone(zone, &standings, &of_targets, attributes, at);
                zones.extend(found.map(|found| (zone.clone(), Arc::new(of(found, BTreeMap::new())))));
            }
        }
        of(in_service(&standings, attributes, at), zones)
    }

    /// What requests get that came to an address of the load balancer in some zone; None: by its name.
    pub fn of_zone<'a>(self: Arc<Self>, zone: impl FnOnce() -> Option<&'a ZoneName>) -> Arc<Service> {
        if self.zones.is_empty() {
            return self;
        }
        zone().and_then(|zone| self.zones.get(zone)).cloned().unwrap_or(self)
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Whether a target gets new requests from anywhere.
    pub fn has(&self, target: &Arc<Target>) -> bool {
        self.targets.iter().any(|have| Arc::ptr_eq(have, target))
            || self.zones.values().any(|of_zone| of_zone.has(target))
    }

    /// The target that a ticket names, while it is in service.
    pub fn sticky(&self, ticket: Ticket) -> Option<&Arc<Target>> {
        self.targets.iter().find(|target| target.ticket == ticket.holder)
    }

    /// The next target.
    pub fn choose(&self, turn: &AtomicU64, random: u64) -> Option<&Arc<Target>> {
        // Slow start alone looks at the time.
        let now = if self.attributes.slow_start.is_zero() { Default::default() } else { now() };
        let load = |place: usize| self.targets[place].outstanding.load(Relaxed);
        let turn = turn.fetch_add(1, Relaxed);
        choose(&self.candidates, &self.attributes, now, turn, random, load).map(|place| &self.targets[place])
    }

    /// A target that is none of `refused`: the next one, or one behind it. None when there is no other.
    pub fn other(&self, turn: &AtomicU64, random: u64, refused: &[Arc<Target>]) -> Option<&Arc<Target>> {
        let next = self.choose(turn, random)?;
        let place = self.targets.iter().position(|target| Arc::ptr_eq(target, next))?;
        let (before, behind) = self.targets.split_at(place);
        let tried = |target: &&Arc<Target>| refused.iter().any(|refused| Arc::ptr_eq(refused, target));
        behind.iter().chain(before).find(|target| !tried(target))
    }

    /// The target of a flow: the one that scores highest for it, so that others' coming and going moves few flows.
    pub fn by_hash(&self, hash: u64) -> Option<&Arc<Target>> {
        let score = |target: &&Arc<Target>| {
            let mixed = (target.ticket ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ (mixed >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        self.targets.iter().max_by_key(score)
    }

    /// What connections to HTTPS and TLS targets go by; None for the others.
    pub fn to_secure(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.secure.then(|| tls::client_config(self.version != ProtocolVersion::Http1))
    }

    /// Whether, and by which cookies, a client sticks to its target.
    pub fn stickiness(&self) -> Option<&Stickiness> {
        self.attributes.stickiness.as_ref()
    }
}

/// A load balancer, across configurations.
#[derive(Debug)]
pub struct Balanced {
    pub arn: LoadBalancerArn,
    pub counters: ListenerCounters,
}

/// A listener's door: what accepted connections hold on to while configurations change.
#[derive(Debug)]
pub struct Door {
    pub table: ArcSwap<Table>,
    /// The listener is no more: connections end after the request under way.
    pub closed: AtomicBool,
}

/// A listener as one configuration has it.
#[derive(Debug)]
pub struct Table {
    /// The listener that it was compiled of.
    source: Listener,
    pub balanced: Arc<Balanced>,
    pub port: u16,
    pub protocol: Protocol,
    pub attributes: LoadBalancerAttributes,
    pub listener: ListenerAttributes,
    /// For HTTPS and TLS: what handshakes go by. None when no certificate can be served.
    pub tls: Option<Arc<Secured>>,
    pub client_certificates: ClientCertificates,
    pub rules: Rules,
    /// Of the load balancer's own addresses.
    zones: BTreeMap<IpAddr, ZoneName>,
    /// Groups of each action, by the action's slot and the group's place in it.
    routes: Vec<Vec<Option<Arc<Group>>>>,
}

/// Target groups by name.
pub type Groups<'a> = BTreeMap<&'a TargetGroupArn, &'a Arc<Group>>;

/// The groups of an action, at their places; None for those that the configuration does not have.
fn groups_of<'a>(action: &'a Action, groups: &'a Groups<'_>) -> impl Iterator<Item = Option<&'a Arc<Group>>> {
    let of: &[WeightedGroup] = match action {
        Action::Forward(forward) => &forward.groups,
        Action::Redirect(_) | Action::FixedResponse(_) => &[],
    };
    of.iter().map(|weighted| groups.get(&weighted.group).copied())
}

impl Table {
    pub fn compile(
        balanced: Arc<Balanced>,
        balancer: &LoadBalancer,
        listener: &Listener,
        groups: &Groups<'_>,
        tls: Option<Arc<Secured>>,
    ) -> (Table, Vec<BrokenRule>) {
        let (rules, broken) = Rules::compile(listener);
        let routes =
            rules.actions().map(|action| groups_of(action, groups).map(|group| group.cloned()).collect());
        let routes = routes.collect();
        let table = Table {
            source: listener.clone(),
            balanced,
            port: listener.port,
            protocol: listener.protocol,
            attributes: balancer.attributes.clone(),
            listener: listener.attributes.clone(),
            tls,
            client_certificates: listener
                .tls
                .as_ref()
                .map(|tls| tls.client_certificates.clone())
                .unwrap_or_default(),
            rules,
            zones: balancer.addresses.iter().map(|address| (address.ip, address.zone.clone())).collect(),
            routes,
        };
        (table, broken)
    }

    /// Whether [`Self::compile`] would make the same of these.
    pub fn is_made_of(
        &self,
        balanced: &Arc<Balanced>,
        balancer: &LoadBalancer,
        listener: &Listener,
        groups: &Groups<'_>,
        tls: Option<&Arc<Secured>>,
    ) -> bool {
        let addresses = || balancer.addresses.iter().map(|address| (address.ip, &address.zone));
        let of_rules = || self.rules.actions().map(|action| groups_of(action, groups));
        Arc::ptr_eq(&self.balanced, balanced)
            && self.attributes == balancer.attributes
            && self.source == *listener
            && self.zones.len() == balancer.addresses.len()
            && addresses().all(|(ip, zone)| self.zones.get(&ip) == Some(zone))
            && self.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
            && of_rules().flatten().map(|group| group.map(Arc::as_ptr)).eq(self
                .routes
                .iter()
                .flatten()
                .map(|group| group.as_ref().map(Arc::as_ptr)))
    }

    pub fn arn(&self) -> &ListenerArn {
        &self.source.arn
    }

    /// The zone of the address that a client came to. None: it came by the load balancer's name.
    pub fn zone(&self, local: SocketAddr) -> Option<&ZoneName> {
        self.zones.get(&local.ip().to_canonical())
    }

    /// The group at a place of the action in `slot`; None when the configuration does not have it.
    pub fn group(&self, slot: usize, place: usize) -> Option<&Arc<Group>> {
        self.routes.get(slot)?.get(place)?.as_ref()
    }
}

/// Groups that a listener's action names: the others' targets are unused.
pub fn used_groups(config: &RoutingConfig) -> BTreeSet<&TargetGroupArn> {
    let listeners = config.load_balancers.iter().flat_map(|balancer| &balancer.listeners);
    listeners
        .flat_map(|listener| {
            std::iter::once(&listener.default_action).chain(listener.rules.iter().map(|rule| &rule.action))
        })
        .filter_map(|action| match action {
            Action::Forward(forward) => Some(&forward.groups),
            Action::Redirect(_) | Action::FixedResponse(_) => None,
        })
        .flatten()
        .map(|weighted| &weighted.group)
        .collect()
}
