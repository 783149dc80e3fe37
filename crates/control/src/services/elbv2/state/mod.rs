//! Elastic Load Balancing's tables in one scope, and what must always hold between them.

mod attributes;
mod listener;
mod load;
mod load_balancer;
mod target;
mod target_group;
mod trust_store;

pub use attributes::*;
pub use listener::*;
pub use load::Row;
pub use load_balancer::*;
pub use target::*;
pub use target_group::*;
pub use trust_store::*;

use gantry_decide::ids::{ListenerId, LoadBalancerId, RuleId, Scope, TargetGroupId, TrustStoreId};
use gantry_decide::routing::config::Action;
use gantry_store::{Table, Write};
use std::collections::{BTreeMap, BTreeSet};

/// A tag list as stored: sorted by key, each key once.
pub type Tags = BTreeMap<String, String>;

/// All of Elastic Load Balancing in one scope.
#[derive(Clone, Default)]
pub struct Elbv2State {
    pub load_balancers: Table<LoadBalancer>,
    pub listeners: Table<Listener>,
    pub rules: Table<Rule>,
    pub target_groups: Table<TargetGroup>,
    pub targets: Table<Target>,
    pub trust_stores: Table<TrustStore>,
}

/// What changed since somebody last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Whether any record did: what a balancer is told may be another now.
    pub any: bool,
    /// The groups of which a target did.
    pub groups: BTreeSet<TargetGroupId>,
}

impl Elbv2State {
    pub fn load_balancer(&self, id: &LoadBalancerId) -> Option<&LoadBalancer> {
        self.load_balancers.get(id).map(AsRef::as_ref)
    }

    pub fn load_balancer_named(&self, name: &str) -> Option<&LoadBalancer> {
        self.load_balancers.values().find(|balancer| balancer.id.name.as_str() == name).map(AsRef::as_ref)
    }

    pub fn listener(&self, id: &ListenerId) -> Option<&Listener> {
        self.listeners.get(id).map(AsRef::as_ref)
    }

    pub fn listeners_of(&self, balancer: &LoadBalancerId) -> impl Iterator<Item = &Listener> {
        let all = ListenerId::least(balancer.clone())..=ListenerId::greatest(balancer.clone());
        self.listeners.range(all).map(|(_, listener)| listener.as_ref())
    }

    pub fn rule(&self, id: &RuleId) -> Option<&Rule> {
        self.rules.get(id).map(AsRef::as_ref)
    }

    /// A listener's rules without its default one, in no order that means anything.
    pub fn rules_of(&self, listener: &ListenerId) -> impl Iterator<Item = &Rule> {
        let all = RuleId::least(listener.clone())..=RuleId::greatest(listener.clone());
        self.rules.range(all).map(|(_, rule)| rule.as_ref())
    }

    pub fn target_group(&self, id: &TargetGroupId) -> Option<&TargetGroup> {
        self.target_groups.get(id).map(AsRef::as_ref)
    }

    pub fn target_group_named(&self, name: &str) -> Option<&TargetGroup> {
        self.target_groups.values().find(|group| group.id.name.as_str() == name).map(AsRef::as_ref)
    }

    pub fn trust_store(&self, id: &TrustStoreId) -> Option<&TrustStore> {
        self.trust_stores.get(id).map(AsRef::as_ref)
    }

    /// A group's targets, those that are draining included.
    pub fn targets_of(&self, group: &TargetGroupId) -> impl Iterator<Item = &Target> {
        let from = TargetKey::least(group.clone());
        let of_group = move |(key, _): &(&TargetKey, _)| key.group == from.group;
        self.targets.range(TargetKey::least(group.clone())..).take_while(of_group).map(|(_, t)| t.as_ref())
    }

    /// Every place where requests are sent somewhere: a load balancer and the action of one of its listeners or rules.
    pub fn actions(&self) -> impl Iterator<Item = (&LoadBalancerId, &Action)> {
        let defaults =
            self.listeners.values().map(|listener| (&listener.id.balancer, &listener.default_action));
        let ruled = self.rules.values().map(|rule| (&rule.id.listener.balancer, &rule.action));
        defaults.chain(ruled)
    }

    /// The load balancers that send requests to a group: none or one.
    pub fn balancers_of(&self, scope: &Scope, group: &TargetGroupId) -> BTreeSet<LoadBalancerId> {
        let arn = scope.balancing(group.clone()).to_string();
        let uses = |action: &Action| matches!(action, Action::Forward(to) if to.groups.iter().any(|g| g.group.as_str() == arn));
        self.actions().filter(|(_, action)| uses(action)).map(|(balancer, _)| balancer.clone()).collect()
    }

    /// What changed since the last call.
    pub(crate) fn drain_changes(&mut self) -> News {
        let targets = self.targets.drain_changes();
        let mut any = !targets.is_empty();
        any |= !self.load_balancers.drain_changes().is_empty();
        any |= !self.listeners.drain_changes().is_empty();
        any |= !self.rules.drain_changes().is_empty();
        any |= !self.target_groups.drain_changes().is_empty();
        any |= !self.trust_stores.drain_changes().is_empty();
        News { any, groups: targets.into_iter().map(|key| key.group).collect() }
    }

    /// See [`crate::state::State::drain_writes`].
    pub(crate) fn drain_writes(&mut self, prefix: &str, out: &mut Vec<Write>) {
        self.load_balancers.drain_writes(prefix, out);
        self.listeners.drain_writes(prefix, out);
        self.rules.drain_writes(prefix, out);
        self.target_groups.drain_writes(prefix, out);
        self.targets.drain_writes(prefix, out);
        self.trust_stores.drain_writes(prefix, out);
    }

    /// Panics where the tables contradict each other. Called by tests and by the simulator after every step.
    pub fn check_invariants(&self) {
        let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for balancer in self.load_balancers.values() {
            assert!(
                names.insert(balancer.id.name.as_str()),
                "two load balancers are called {}",
                balancer.id.name
            );
        }
        for listener in self.listeners.values() {
            let id = &listener.id;
            assert!(self.load_balancers.contains_key(&id.balancer), "{id} belongs to no load balancer");
            assert!(ports.insert((&id.balancer, listener.port)), "{id} shares its port");
            let trusts = listener.tls.as_ref().and_then(Tls::trust_store);
            assert!(
                trusts.is_none_or(|store| self.trust_stores.contains_key(&store)),
                "{id} has a trust store that does not exist"
            );
        }
        let mut priorities = BTreeSet::new();
        for rule in self.rules.values() {
            assert!(self.listeners.contains_key(&rule.id.listener), "{} belongs to no listener", rule.id);
            assert!(priorities.insert((&rule.id.listener, rule.priority)), "{} shares its priority", rule.id);
        }
        for target in self.targets.values() {
            let group = &target.key.group;
            assert!(self.target_groups.contains_key(group), "{:?} belongs to no target group", target.key);
        }
        let mut users: BTreeMap<&str, &LoadBalancerId> = BTreeMap::new();
        for (balancer, action) in self.actions() {
            let Action::Forward(to) = action else { continue };
            for group in &to.groups {
                let arn = group.group.as_str();
                let exists = arn.split_once(":targetgroup/").and_then(|(_, id)| id.parse().ok());
                assert!(
                    exists.is_some_and(|id| self.target_groups.contains_key(&id)),
                    "{arn} does not exist"
                );
                assert_eq!(*users.entry(arn).or_insert(balancer), balancer, "{arn} has two load balancers");
            }
        }
    }
}
