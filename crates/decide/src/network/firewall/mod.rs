//! Security groups as rules of a host's packet filter.
//!
//! [`Firewall`] holds what they follow from: the groups that the control plane told of, and the interfaces on the host.
//! Whatever changes it returns [`Change`]s, to be applied in their order as one transaction: to the kernel by an agent,
//! to a model by the tests. Connections that were let through stay, as on EC2: what the filter keeps track of is
//! accepted before any of these rules.
//!
//! Each group has a chain of rules and a set of its members' addresses, each interface a chain for each direction that
//! goes through its groups' and then drops. What is not allowed is not told of either: an interface whose groups are
//! not known yet lets nothing pass.

mod change;
#[cfg(test)]
mod tests;

pub use change::{Change, Family, Match, Rule, Side, Verdict, interface_chain, task_set};

use super::{Peer, Traffic};
use crate::ids::SecurityGroupId;
use change::{group_chain, member_set};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Traffic that a group allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub traffic: Traffic,
    pub peer: Peer,
}

/// What a group allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowances {
    pub ingress: Vec<Allowed>,
    pub egress: Vec<Allowed>,
}

/// What an agent is told of security groups. In the order in which it was sent, each counts on those before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Nothing that was told before counts any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<SecurityGroupId, GroupNews>,
    /// Groups that concern the agent no longer.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<SecurityGroupId>,
}

/// What is new of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupNews {
    /// Absent where they are as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allows: Option<Allowances>,
    /// Addresses of interfaces that are in the group now.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<IpAddr>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<IpAddr>,
}

impl News {
    pub fn is_empty(&self) -> bool {
        !self.complete && self.groups.is_empty() && self.gone.is_empty()
    }
}

/// A group as this host knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    allows: Allowances,
    members: BTreeSet<IpAddr>,
}

/// An interface on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Those that it may speak by.
    pub addresses: Vec<IpAddr>,
    pub groups: Vec<SecurityGroupId>,
}

/// See the module. What is written of it to disk are the groups: interfaces are the host's own knowledge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    groups: BTreeMap<SecurityGroupId, Group>,
    /// By the name of the host's end of their link.
    #[serde(skip)]
    interfaces: BTreeMap<String, Interface>,
}

impl Firewall {
    /// What makes a firewall of an empty one.
    pub fn whole(&self) -> Vec<Change> {
        let mut made = Firewall::default();
        let mut changes = Vec::new();
        for id in self.groups.keys() {
            made.know(*id, &mut changes);
        }
        for (id, group) in &self.groups {
            let joined = group.members.clone();
            let news = GroupNews { allows: Some(group.allows.clone()), joined, left: BTreeSet::new() };
            made.learn(*id, news, &mut changes);
        }
        for (link, interface) in &self.interfaces {
            changes.extend(made.attach(link, interface.clone()));
        }
        changes
    }

    /// An interface comes, or has other addresses or groups.
    pub fn attach(&mut self, link: &str, interface: Interface) -> Vec<Change> {
        if self.interfaces.get(link) == Some(&interface) {
            return Vec::new();
        }
        let mut changes = self.detach(link);
        for group in &interface.groups {
            self.know(*group, &mut changes);
        }
        for side in Side::BOTH {
            let chain = interface_chain(side, link);
            changes.push(Change::MakeChain(chain.clone()));
            changes.push(Change::Fill(chain, interface.rules(side)));
            changes.push(Change::Bind(side, link.to_owned()));
        }
        changes.extend(elements(task_set, interface.addresses.iter().copied(), true));
        self.interfaces.insert(link.to_owned(), interface);
        changes
    }

    /// An interface goes. One that is not there is no error.
    pub fn detach(&mut self, link: &str) -> Vec<Change> {
        let Some(interface) = self.interfaces.remove(link) else { return Vec::new() };
        let mut changes: Vec<Change> = elements(task_set, interface.addresses.into_iter(), false).collect();
        for side in Side::BOTH {
            changes.push(Change::Unbind(side, link.to_owned()));
            changes.push(Change::DropChain(interface_chain(side, link)));
        }
        changes
    }

    /// The control plane has told something.
    pub fn hear(&mut self, news: News) -> Vec<Change> {
        let News { complete, mut groups, mut gone } = news;
        if complete {
            for (id, known) in &self.groups {
                match groups.get_mut(id) {
                    Some(group) => group.left = known.members.difference(&group.joined).copied().collect(),
                    None => drop(gone.insert(*id)),
                }
            }
        }
        let mut changes = Vec::new();
        for (id, group) in groups {
            self.know(id, &mut changes);
            self.learn(id, group, &mut changes);
        }
        for id in &gone {
            let left = self.groups.get(id).map(|group| group.members.clone()).unwrap_or_default();
            if self.groups.contains_key(id) {
                let nothing = Some(Allowances::default());
                self.learn(*id, GroupNews { allows: nothing, joined: BTreeSet::new(), left }, &mut changes);
            }
        }
        self.forget(gone, &mut changes);
        changes
    }

    /// Makes a group's chains and sets, if there are none. It allows nothing then.
    fn know(&mut self, id: SecurityGroupId, changes: &mut Vec<Change>) {
        if self.groups.contains_key(&id) {
            return;
        }
        changes.extend(Family::BOTH.map(|family| Change::MakeSet(member_set(family, id), family)));
        changes.extend(Side::BOTH.map(|side| Change::MakeChain(group_chain(side, id))));
        self.groups.insert(id, Group::default());
    }

    /// Takes what is new of a group that is known.
    fn learn(&mut self, id: SecurityGroupId, news: GroupNews, changes: &mut Vec<Change>) {
        let before = self.groups.get(&id).cloned().unwrap_or_default();
        let set = |family| member_set(family, id);
        // Who left and joined is in it.
        let left =
            news.left.difference(&news.joined).filter(|address| before.members.contains(address)).copied();
        changes.extend(elements(set, left, false));
        let joined = news.joined.difference(&before.members).copied();
        changes.extend(elements(set, joined, true));
        if let Some(allows) = news.allows.filter(|allows| *allows != before.allows) {
            for allowed in allows.ingress.iter().chain(&allows.egress) {
                if let Peer::Group(peer) = &allowed.peer {
                    self.know(*peer, changes);
                }
            }
            for (side, old, new) in [
                (Side::In, &before.allows.ingress, &allows.ingress),
                (Side::Out, &before.allows.egress, &allows.egress),
            ] {
                if old != new {
                    let rules = new.iter().flat_map(|allowed| change::rules(side, allowed)).collect();
                    changes.push(Change::Fill(group_chain(side, id), rules));
                }
            }
            if let Some(group) = self.groups.get_mut(&id) {
                group.allows = allows;
            }
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.members.retain(|address| !news.left.contains(address) || news.joined.contains(address));
            group.members.extend(news.joined);
        }
    }

    /// Removes those of these groups that nothing refers to. The others stay, and allow nothing.
    fn forget(&mut self, gone: BTreeSet<SecurityGroupId>, changes: &mut Vec<Change>) {
        let mut needed: BTreeSet<SecurityGroupId> =
            self.interfaces.values().flat_map(|interface| interface.groups.iter().copied()).collect();
        for group in self.groups.values() {
            let both = group.allows.ingress.iter().chain(&group.allows.egress);
            needed.extend(both.filter_map(|allowed| match &allowed.peer {
                Peer::Group(peer) => Some(*peer),
                Peer::Ipv4(_) | Peer::Ipv6(_) => None,
            }));
        }
        for id in gone {
            if !needed.contains(&id) && self.groups.remove(&id).is_some() {
                changes.extend(Side::BOTH.map(|side| Change::DropChain(group_chain(side, id))));
                changes.extend(Family::BOTH.map(|family| Change::DropSet(member_set(family, id), family)));
            }
        }
    }
}

impl Interface {
    /// Only its own addresses may be spoken by; then what one of its groups allows passes, and nothing else.
    fn rules(&self, side: Side) -> Vec<Rule> {
        let mut rules = Vec::new();
        if side == Side::Out {
            for family in Family::BOTH {
                let own = self.addresses.iter().filter(|address| Family::of(**address) == family);
                let mut matches: Vec<Match> = own.map(|address| Match::NotFrom(*address)).collect();
                matches.insert(0, Match::Family(family));
                rules.push(Rule { matches, verdict: Verdict::Drop });
            }
        }
        let jump = |group| Rule { matches: Vec::new(), verdict: Verdict::Jump(group_chain(side, group)) };
        rules.extend(self.groups.iter().copied().map(jump));
        rules.push(Rule { matches: Vec::new(), verdict: Verdict::Drop });
        rules
    }
}

/// Addresses that go into or out of the sets of their families.
fn elements(
    set: impl Fn(Family) -> String,
    addresses: impl Iterator<Item = IpAddr>,
    add: bool,
) -> impl Iterator<Item = Change> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    addresses.for_each(|address| match Family::of(address) {
        Family::V4 => v4.push(address),
        Family::V6 => v6.push(address),
    });
    let both = [(set(Family::V4), v4), (set(Family::V6), v6)].into_iter();
    both.filter(|(_, addresses)| !addresses.is_empty()).map(move |(set, addresses)| match add {
        true => Change::Add(set, addresses),
        false => Change::Remove(set, addresses),
    })
}
